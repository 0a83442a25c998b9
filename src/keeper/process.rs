//! The daemon's other processes: this program again, under another name, with a socketpair as standard input. They are
//! executed and not just forked, so that nothing of the keeper's memory is theirs.
#![forbid(unsafe_code)]

use crate::sys::exec;
use crate::sys::record_socket::RecordSocket;
use std::io;
use std::os::fd::AsFd;

/// Starts this program as `name`: our end of the socketpair, and its process id. It is reaped with the commands. Whoever
/// started the daemon over a pipe (a shell's $(), ssh) waits until nobody has that pipe any more: the child has /dev/null.
pub fn spawn(name: &str) -> io::Result<(RecordSocket, libc::pid_t)> {
    let (ours, theirs) = RecordSocket::pair()?;
    let child = exec::start_self(name, theirs.as_fd())?;
    Ok((ours, child))
}
