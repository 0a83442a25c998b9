//! Starts the daemon's other processes: this program under another name, with a socketpair as
//! standard input. Exec, not just fork, so that they have none of the keeper's memory.
#![forbid(unsafe_code)]

use crate::limits::LISTENER_SEND_MS;
use crate::sys::error::{Error, Result};
use crate::sys::exec;
use crate::sys::message_socket::MessageSocket;
use crate::util::process::Pid;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// Starts this program as `name`, with `output` as its standard output, and the descriptors `more`.
/// Returns the keeper's end of the socketpair and the PID, which is reaped with the commands.
/// Without `output`, and as standard error, the child gets /dev/null: a shell's $() or ssh that
/// started the daemon waits until every process has closed its pipe.
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
