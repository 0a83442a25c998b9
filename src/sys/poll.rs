//! poll(2), the only place where either process sleeps.

use super::error::{Result, cerr, retry};
use crate::util::time::Millis;
use crate::util::time::NEVER;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The condition to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Readable, or at its end.
    Readable,
    /// Writable.
    Writable,
    /// Hang-up only.
    Hangup,
}

/// A descriptor to wait for.
#[repr(transparent)]
pub struct PollEntry<'a>(libc::pollfd, PhantomData<BorrowedFd<'a>>);

impl<'a> PollEntry<'a> {
    /// Without a descriptor the entry is never ready.
    pub fn new(descriptor: Option<BorrowedFd<'a>>, awaits: Interest) -> PollEntry<'a> {
        let pollfd = libc::pollfd {
            fd: descriptor.map_or(-1, |fd| fd.as_raw_fd()),
            events: match awaits {
                Interest::Readable => libc::POLLIN,
                Interest::Writable => libc::POLLOUT,
                Interest::Hangup => 0,
            },
            revents: 0,
        };
        PollEntry(pollfd, PhantomData)
    }
}

/// The ready entries: their condition holds, or their other end is closed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready(u32);

impl Ready {
    /// Returns whether that entry is ready.
    pub fn has(self, index: usize) -> bool {
        self.0 >> index & 1 != 0
    }

    /// Returns the set without the first entries.
    pub fn skip(self, number: usize) -> Ready {
        Ready(self.0 >> number)
    }

    /// Returns whether any entry is ready.
    pub fn any(self) -> bool {
        self.0 != 0
    }
}

/// Sleeps until one of the entries, at most 32, is ready, or `now` reaches `deadline`, which can be
/// [`NEVER`]. Returns an empty set at the deadline or after a signal.
pub fn wait(entries: &mut [PollEntry<'_>], now: Millis, deadline: Millis) -> Result<Ready> {
    let timeout = match deadline {
        NEVER => -1,
        _ => i32::try_from(deadline.saturating_sub(now)).unwrap_or(i32::MAX),
    };
    let (first, number) = (entries.as_mut_ptr(), entries.len() as libc::nfds_t);
    // SAFETY: an entry is a pollfd and nothing else, and `entries` that many of them, all borrowed
    // through the call.
    match cerr(unsafe { libc::poll(first.cast(), number, timeout) }) {
        Ok(_) => {}
        Err(error) if error.is(libc::EINTR) => return Ok(Ready(0)),
        Err(error) => return Err(error),
    }
    let ready = entries.iter().rev();
    Ok(Ready(ready.fold(0, |bits, entry| {
        bits << 1 | u32::from(entry.0.revents != 0)
    })))
}

/// Returns whether that descriptor accepts bytes within this time (ms): a pipe at least PIPE_BUF
/// (4096, pipe(7)) of them.
pub fn writable(descriptor: BorrowedFd<'_>, wait: Millis) -> bool {
    let mut entry = libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let ready = retry(&mut || {
        // SAFETY: `entry` is one initialised pollfd, and lives through the call.
        unsafe { libc::poll(&raw mut entry, 1, wait as libc::c_int) as isize }
    });
    ready.is_ok_and(|ready| ready > 0)
}

/// Sleeps for this time (ms), with a system call that the listener's filter allows.
pub fn pause(time: Millis) {
    // SAFETY: no entries need no pointer.
    unsafe { libc::poll(std::ptr::null_mut(), 0, time as libc::c_int) };
}
