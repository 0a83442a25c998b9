//! Everything that touches the system, and all unsafe code. Each file wraps one facility in safe functions;
//! none of them decides anything.
#![allow(unsafe_code)]

mod ask_dns;
pub mod clock;
pub mod connect;
pub mod daemon;
pub mod exec;
#[cfg(feature = "faults")]
pub mod faults;
pub mod folder;
pub mod names;
pub mod netlink;
pub mod packet_socket;
pub mod poll;
pub mod privileges;
pub mod program;
pub mod random;
pub mod record_socket;
pub mod seccomp;
pub mod signals;

use std::io;
use std::os::fd::AsRawFd;

/// Turns the -1 of a system call into the error that `errno` holds.
pub fn cerr(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// As [`cerr`], for calls that return a byte count.
pub fn cerr_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Calls again while a signal interrupts.
pub fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a call on that descriptor that cannot be done at once fails, for all who have it. (std's `set_nonblocking` is ioctl(2), and
/// that of musl translates structures for 1 kB.)
pub fn set_nonblocking(descriptor: &impl AsRawFd, on: bool) -> io::Result<()> {
    let fd = descriptor.as_raw_fd();
    // SAFETY: no pointers.
    let flags = cerr(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    let flags = match on {
        true => flags | libc::O_NONBLOCK,
        false => flags & !libc::O_NONBLOCK,
    };
    // SAFETY: as above.
    cerr(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }).map(drop)
}

/// `size_of::<T>()` as the kernel takes it.
fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
