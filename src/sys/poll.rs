//! poll(2), the only place where either process sleeps.

use super::{cerr, retry};
use crate::door::Millis;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// It can be read, or is at its end.
    Input,
    /// It can be written.
    Room,
    /// Its other end is gone.
    Nothing,
}

/// Sleeps until one of the descriptors can be read (or is at its end), or `now` reaches `deadline`. Returns for each
/// whether it is ready; none is when the deadline came or a signal did.
pub fn wait<const N: usize>(
    descriptors: &heapless::Vec<BorrowedFd<'_>, N>,
    now: Millis,
    deadline: Option<Millis>,
) -> io::Result<heapless::Vec<bool, N>> {
    let entries = descriptors.iter().map(|fd| (*fd, Awaits::Input));
    wait_each(entries, now, deadline)
}

/// The same, with what each descriptor is waited for; takes `N` of them.
pub fn wait_each<'a, const N: usize>(
    descriptors: impl Iterator<Item = (BorrowedFd<'a>, Awaits)>,
    now: Millis,
    deadline: Option<Millis>,
) -> io::Result<heapless::Vec<bool, N>> {
    let mut entries: heapless::Vec<libc::pollfd, N> = descriptors
        .take(N)
        .map(|(fd, awaits)| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: match awaits {
                Awaits::Input => libc::POLLIN,
                Awaits::Room => libc::POLLOUT,
                Awaits::Nothing => 0,
            },
            revents: 0,
        })
        .collect();
    sleep(&mut entries, now, deadline)?;
    Ok(entries.iter().map(|entry| entry.revents != 0).collect())
}

/// The part that is the same for any number of them.
fn sleep(entries: &mut [libc::pollfd], now: Millis, deadline: Option<Millis>) -> io::Result<()> {
    let timeout = match deadline {
        None => -1,
        Some(deadline) => i32::try_from(deadline.saturating_sub(now)).unwrap_or(i32::MAX),
    };
    // SAFETY: `entries` is an array of that many initialised pollfd, and lives through the call.
    let result =
        cerr(unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout) });
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            entries.iter_mut().for_each(|entry| entry.revents = 0);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Whether that descriptor takes bytes within this time (ms): of a pipe, at least PIPE_BUF (4096, pipe(7)) of them.
pub fn writable(descriptor: BorrowedFd<'_>, wait: Millis) -> bool {
    let mut entry = libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let poll = || {
        // SAFETY: `entry` is one initialised pollfd, and lives through the call.
        cerr(unsafe { libc::poll(&raw mut entry, 1, wait as libc::c_int) })
    };
    retry(poll).is_ok_and(|ready| ready > 0)
}

/// Sleeps that long (ms), by a system call that the listener may still make.
pub fn pause(time: Millis) {
    // SAFETY: no entries need no pointer.
    unsafe { libc::poll(std::ptr::null_mut(), 0, time as libc::c_int) };
}
