//! Everything that touches the system, and all unsafe code. Each file wraps one facility in safe functions;
//! none of them decides anything.
#![allow(unsafe_code)]

pub mod ask_dns;
pub mod clock;
pub mod connect;
pub mod daemon;
pub mod exec;
#[cfg(feature = "faults")]
pub mod faults;
pub mod folder;
pub mod memory;
pub mod netlink;
pub mod packet_socket;
pub mod poll;
pub mod privileges;
pub mod program;
pub mod random;
mod raw_address;
pub mod record_socket;
pub mod seccomp;
pub mod signals;

use crate::limits::MAX_FILE_BYTES;
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::path::Path;

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

#[cfg(target_env = "musl")]
unsafe extern "C" {
    /// fork(2) without care for other threads' locks, as POSIX has it since 2024.
    fn _Fork() -> libc::pid_t;
}

/// A copy of this process: 0 in it, its id here. There is one thread, so the copy may run any code. (`fork` of musl takes locks that only
/// threads need, 2 kB on mipsel; older glibc has no other.)
fn fork() -> io::Result<libc::pid_t> {
    #[cfg(target_env = "musl")]
    // SAFETY: no arguments, and no lock is held by any other thread.
    let process = unsafe { _Fork() };
    #[cfg(not(target_env = "musl"))]
    // SAFETY: no arguments.
    let process = unsafe { libc::fork() };
    cerr(process)
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

/// An error in words of ours. (std's own for text brings the tables of Unicode, to show text in the way of Rust's source.)
pub fn fault(kind: io::ErrorKind, text: String) -> io::Error {
    io::Error::new(kind, Fault(text))
}

/// The text of an error as C's strerror() gives it, without the number that Rust adds.
pub fn plain(error: &io::Error) -> String {
    let mut text = error.to_string();
    if error.raw_os_error().is_some()
        && let Some(number) = text.bytes().rposition(|byte| byte == b'(')
    {
        text.truncate(number);
        text.truncate(text.trim_ascii_end().len());
    }
    text
}

struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// Opens a file with these flags (`O_RDWR`, `O_APPEND`, ...: open(2)), close-on-exec; `mode` is for one that is made.
pub fn open(path: &Path, flags: libc::c_int, mode: u32) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let open = || {
        // SAFETY: the path is a C string that lives through the call.
        cerr(unsafe { libc::open64(path.as_ptr(), flags | libc::O_CLOEXEC, mode) })
    };
    let fd = retry(open)?;
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// What comes from `source` down to its end, `most` bytes at most. (Of std's ways to read there would be a copy for each kind of source.)
pub fn read_all(source: BorrowedFd<'_>, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0u8; 4096];
    while bytes.len() < most {
        let room = piece.len().min(most - bytes.len());
        let length = retry(|| {
            // SAFETY: `piece` has room for that many bytes.
            cerr_len(unsafe { libc::read(source.as_raw_fd(), piece.as_mut_ptr().cast(), room) })
        })?;
        if length == 0 {
            break;
        }
        bytes.extend_from_slice(piece.get(..length).unwrap_or_default());
    }
    Ok(bytes)
}

/// All of these bytes to `destination`. (Of std's there would be a copy for each kind of it, too.)
pub fn write_all(destination: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let length = retry(|| {
            let (first, number) = (bytes.as_ptr().cast(), bytes.len());
            // SAFETY: so many bytes are there.
            cerr_len(unsafe { libc::write(destination.as_raw_fd(), first, number) })
        })?;
        if length == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(())
}

/// The bytes of a file, such as those of /proc.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_all(open(path, libc::O_RDONLY, 0)?.as_fd(), MAX_FILE_BYTES)
}

/// `size_of::<T>()` as the kernel takes it.
fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_error_has_no_number() {
        let reason = |code| plain(&io::Error::from_raw_os_error(code));
        assert_eq!(reason(libc::ENOENT), "No such file or directory");
        assert_eq!(reason(12_345), "Unknown error 12345");
        let ours = fault(io::ErrorKind::Other, "of ours (really)".to_string());
        assert_eq!(plain(&ours), "of ours (really)");
    }
}
