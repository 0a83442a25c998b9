//! The daemon's other processes: this program again, under another name, with a socketpair as standard input. They are
//! executed and not just forked, so that nothing of the keeper's memory is theirs.
#![forbid(unsafe_code)]

use crate::limits::LISTENER_SEND_MS;
use crate::sys::error::{Error, Result};
use crate::sys::exec;
use crate::sys::message_socket::MessageSocket;
use crate::util::process::Pid;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// Starts this program as `name`, with `output` for its standard output, and `more`: our end of the socketpair, and its process id. It is reaped with
/// the commands. Whoever started the daemon over a pipe (a shell's $(), ssh) waits until nobody has that pipe any more: so without
/// `output`, and for standard error, the child has /dev/null.
pub fn spawn(
    name: &CStr,
    output: Option<BorrowedFd<'_>>,
    more: &[BorrowedFd<'_>],
) -> Result<(MessageSocket, Pid)> {
    let (ours, theirs) = MessageSocket::pair()?;
    ours.limit_sending(LISTENER_SEND_MS)?;
    let child =
        exec::start_self(name, theirs.as_fd(), output, more).map_err(|error| match error {
            Error::Os(libc::ENOENT) => Error::Own("/proc/self/exe is missing; mount /proc"),
            other => other,
        })?;
    Ok((ours, child))
}
