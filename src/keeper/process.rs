//! The daemon's other processes: this program again, under another name, with a socketpair as standard input. They are
//! executed and not just forked, so that nothing of the keeper's memory is theirs.
#![forbid(unsafe_code)]

use crate::sys::record_socket::RecordSocket;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The path of this program for as long as it runs, even when the file was replaced or removed.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Starts this program as `name`: our end of the socketpair, and its process id. It is reaped with the commands.
pub fn spawn(name: &str) -> io::Result<(RecordSocket, libc::pid_t)> {
    let (ours, theirs) = RecordSocket::pair()?;
    let child = Command::new(THIS_PROGRAM)
        .arg0(name)
        .stdin(Stdio::from(theirs.into_owned()))
        .stdout(Stdio::null())
        // Whoever started the daemon over a pipe (a shell's $(), ssh) waits until nobody has that pipe any more.
        .stderr(Stdio::null())
        .spawn()?;
    Ok((ours, child.id() as libc::pid_t))
}
