//! Opening files, and reading and writing descriptors.

use super::error::{cerr, retry};
use crate::limits::MAX_FILE_BYTES;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::path::Path;

/// An error if there is a NUL in it.
fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_encoded_bytes())?)
}

/// Opens a file with these flags (`O_RDWR`, `O_APPEND`, ...: open(2)), close-on-exec; `mode` is for one that is made. A terminal does not become
/// this process's own, as by default it would on kernels before 4.x also where it is only written to: Ctrl-C there would end the daemon.
pub fn open(path: &Path, flags: libc::c_int, mode: u32) -> io::Result<File> {
    let path = c_string(path.as_os_str())?;
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY;
    let fd = retry(&mut || {
        // SAFETY: the path is a C string that lives through the call.
        unsafe { libc::open64(path.as_ptr(), flags, mode) as isize }
    })?;
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd as libc::c_int) })
}

/// As [`open`], of a name in this directory.
pub fn open_in(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    flags: libc::c_int,
    mode: u32,
) -> io::Result<File> {
    let name = c_string(name)?;
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY;
    let fd = retry(&mut || {
        // SAFETY: the name is a C string that lives through the call.
        unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags, mode) as isize }
    })?;
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd as libc::c_int) })
}

/// Whose something is, and what it is.
pub struct FileStatus {
    /// Its kind and permissions.
    pub mode: libc::mode_t,
    /// Its owner.
    pub user: libc::uid_t,
    /// How many names it has.
    pub names: u64,
}

/// Looks at a name in this directory, `.` for the directory itself, and follows no link.
pub fn find_in(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<FileStatus> {
    let name = c_string(name)?;
    // SAFETY: an all-zero stat is valid.
    let mut found: libc::stat64 = unsafe { std::mem::zeroed() };
    let (fd, flags) = (folder.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: the name is a C string, and `found` has room for what is found.
    cerr(unsafe { libc::fstatat64(fd, name.as_ptr(), &raw mut found, flags) })?;
    Ok(FileStatus {
        mode: found.st_mode,
        user: found.st_uid,
        #[allow(
            clippy::useless_conversion,
            reason = "u32 on some machines, u64 on others"
        )]
        names: found.st_nlink.into(),
    })
}

/// Where a symbolic link in this directory leads.
pub fn link_in(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Vec<u8>> {
    let name = c_string(name)?;
    let mut target = vec![0u8; libc::PATH_MAX as usize];
    let length = retry(&mut || {
        let (first, room) = (target.as_mut_ptr().cast(), target.len());
        // SAFETY: the name is a C string, and `target` has that much room.
        unsafe { libc::readlinkat(folder.as_raw_fd(), name.as_ptr(), first, room) }
    })?;
    target.truncate(length);
    Ok(target)
}

/// What comes from `source` down to its end, `most` bytes at most. (Of std's ways to read there would be a copy for each kind of source.)
pub fn read_all(source: BorrowedFd<'_>, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0u8; 4096];
    while bytes.len() < most {
        let room = piece.len().min(most - bytes.len());
        let length = retry(&mut || {
            // SAFETY: `piece` has room for that many bytes.
            unsafe { libc::read(source.as_raw_fd(), piece.as_mut_ptr().cast(), room) }
        })?;
        if length == 0 {
            break;
        }
        bytes.extend_from_slice(piece.get(..length).unwrap_or_default());
    }
    Ok(bytes)
}

/// As many of these bytes as `destination` takes at once.
pub fn write(destination: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    retry(&mut || {
        // SAFETY: so many bytes are there.
        unsafe { libc::write(destination.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) }
    })
}

/// All of these bytes to `destination`. (Of std's there would be a copy for each kind of it, too.)
pub fn write_all(destination: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let length = write(destination, bytes)?;
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

/// Whether a call on that descriptor that cannot be done at once fails, for all who have it. (std's `set_nonblocking` is ioctl(2), and
/// that of musl translates structures for 1 kB.)
pub fn set_nonblocking(descriptor: BorrowedFd<'_>, on: bool) -> io::Result<()> {
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
