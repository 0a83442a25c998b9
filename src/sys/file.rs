//! Files, directories, and reading and writing descriptors. (`std::fs` takes 3 kB more on mipsel.)

use super::error::{Error, Result, cerr, retry};
use crate::limits::MAX_FILE_BYTES;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Fails if the text contains a NUL.
pub(super) fn c_string(text: &[u8]) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Os(libc::EINVAL))
}

/// Opens a file with these flags (`O_RDWR`, `O_APPEND`, ...: open(2)), close-on-exec. `mode` is for
/// a created file. O_NOCTTY: never acquire a controlling terminal, where Ctrl-C would end the
/// daemon; kernels before 4.x do that even for files opened to write only.
pub fn open(path: &Path, flags: libc::c_int, mode: u32) -> Result<File> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY;
    let fd = with_c_string(path.as_os_str(), &mut |path| {
        // SAFETY: the path is a C string that lives through the call.
        unsafe { libc::open64(path, flags, mode) as isize }
    })?;
    // SAFETY: the kernel has just made the descriptor, and no one else knows it.
    Ok(unsafe { File::from_raw_fd(fd as libc::c_int) })
}

/// Like [`open`], for a name in this directory.
pub fn open_in(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    flags: libc::c_int,
    mode: u32,
) -> Result<File> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY;
    let fd = with_c_string(name, &mut |name| {
        // SAFETY: the name is a C string that lives through the call.
        unsafe { libc::openat(directory.as_raw_fd(), name, flags, mode) as isize }
    })?;
    // SAFETY: the kernel has just made the descriptor, and no one else knows it.
    Ok(unsafe { File::from_raw_fd(fd as libc::c_int) })
}

/// Makes a system call with the text as a C string. Repeats it while a signal interrupts it.
fn with_c_string(
    text: &OsStr,
    call: &mut dyn FnMut(*const libc::c_char) -> isize,
) -> Result<usize> {
    let text = c_string(text.as_encoded_bytes())?;
    retry(&mut || call(text.as_ptr()))
}

/// The owner and type of a file.
#[derive(Clone, Copy)]
pub struct FileStatus {
    /// Type and permissions.
    pub mode: libc::mode_t,
    /// The owner.
    pub user: libc::uid_t,
    /// The number of hard links.
    pub names: u64,
    /// Device and inode number, which identify the file.
    pub identity: (u64, u64),
}

#[allow(
    clippy::useless_conversion,
    reason = "u32 on some machines, u64 on others"
)]
impl FileStatus {
    fn new(found: &libc::stat64) -> FileStatus {
        FileStatus {
            mode: found.st_mode,
            user: found.st_uid,
            names: found.st_nlink.into(),
            identity: (found.st_dev.into(), found.st_ino.into()),
        }
    }

    /// The type, one of the `S_IF` values.
    pub fn kind(&self) -> libc::mode_t {
        self.mode & libc::S_IFMT
    }

    /// Returns whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }
}

/// Returns the status of the file that a path leads to.
pub fn find(path: &Path) -> Result<FileStatus> {
    // SAFETY: the path is a C string, and there is room for what is found.
    look(path.as_os_str(), &mut |path, found| unsafe {
        libc::stat64(path, found)
    })
}

/// Returns the status of an open file.
pub fn find_open(file: BorrowedFd<'_>) -> Result<FileStatus> {
    // SAFETY: an all-zero stat is valid.
    let mut found: libc::stat64 = unsafe { std::mem::zeroed() };
    // SAFETY: `found` has room for what is found.
    cerr(unsafe { libc::fstat64(file.as_raw_fd(), &raw mut found) })?;
    Ok(FileStatus::new(&found))
}

/// Returns the status of a name in this directory, or with `.` of the directory itself. Does not
/// follow a link.
pub fn find_in(directory: BorrowedFd<'_>, name: &OsStr) -> Result<FileStatus> {
    // SAFETY: as above.
    look(name, &mut |name, found| unsafe {
        libc::fstatat64(
            directory.as_raw_fd(),
            name,
            found,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })
}

/// Returns the status of a path. Does not follow a link at its end.
pub fn find_link(path: &Path) -> Result<FileStatus> {
    // SAFETY: as above.
    look(path.as_os_str(), &mut |path, found| unsafe {
        libc::lstat64(path, found)
    })
}

fn look(
    name: &OsStr,
    call: &mut dyn FnMut(*const libc::c_char, *mut libc::stat64) -> libc::c_int,
) -> Result<FileStatus> {
    // SAFETY: an all-zero stat is valid.
    let mut found: libc::stat64 = unsafe { std::mem::zeroed() };
    with_c_string(name, &mut |name| call(name, &raw mut found) as isize)?;
    Ok(FileStatus::new(&found))
}

/// Returns the target of a symbolic link in this directory.
pub fn link_in(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<u8>> {
    let mut target = vec![0u8; libc::PATH_MAX as usize];
    let length = with_c_string(name, &mut |name| {
        let (first, room) = (target.as_mut_ptr().cast(), target.len());
        // SAFETY: the name is a C string, and `target` has that much room.
        unsafe { libc::readlinkat(directory.as_raw_fd(), name, first, room) }
    })?;
    target.truncate(length);
    Ok(target)
}

/// Returns the target of a symbolic link.
pub fn link(path: &Path) -> Result<PathBuf> {
    // SAFETY: the kernel takes this number for the working directory; it is never closed.
    let here = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };
    let target = link_in(here, path.as_os_str())?;
    Ok(PathBuf::from(OsString::from_vec(target)))
}

/// Removes a file.
pub fn remove(path: &Path) -> Result<()> {
    // SAFETY: a C string that lives through the call.
    with_c_string(path.as_os_str(), &mut |path| unsafe {
        libc::unlink(path) as isize
    })
    .map(drop)
}

/// Renames a file, replacing another.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    let to = c_string(to.as_os_str().as_encoded_bytes())?;
    // SAFETY: two C strings that live through the call.
    with_c_string(from.as_os_str(), &mut |from| unsafe {
        libc::rename(from, to.as_ptr()) as isize
    })
    .map(drop)
}

/// Sets the permissions of a file.
pub fn set_mode(path: &Path, mode: libc::mode_t) -> Result<()> {
    // SAFETY: a C string that lives through the call.
    with_c_string(path.as_os_str(), &mut |path| unsafe {
        libc::chmod(path, mode) as isize
    })
    .map(drop)
}

/// Makes a directory that only this user can enter.
pub fn make_private_directory(path: &Path) -> Result<()> {
    // SAFETY: a C string that lives through the call.
    with_c_string(path.as_os_str(), &mut |path| unsafe {
        libc::mkdir(path, 0o700) as isize
    })
    .map(drop)
}

/// Reads to the end of `source`, at most `most` bytes. (std would generate a copy for each type of
/// source.)
pub fn read_all(source: BorrowedFd<'_>, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0u8; 4096];
    while bytes.len() < most {
        let room = piece.len().min(most - bytes.len());
        let room = piece.get_mut(..room).unwrap_or_default();
        let length = read(source, room)?;
        if length == 0 {
            break;
        }
        bytes.extend_from_slice(room.get(..length).unwrap_or_default());
    }
    Ok(bytes)
}

/// Reads what `source` has. Returns 0 at the end.
pub fn read(source: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    retry(&mut || {
        let (first, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the pointer and length describe `buffer`.
        unsafe { libc::read(source.as_raw_fd(), first, room) }
    })
}

/// Writes what `destination` accepts at once. Returns the number of bytes.
pub fn write(destination: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    retry(&mut || {
        // SAFETY: the pointer and length describe `bytes`.
        unsafe { libc::write(destination.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) }
    })
}

/// Writes all bytes to `destination`. (std would generate a copy for each type.)
pub fn write_all(destination: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let length = write(destination, bytes)?;
        if length == 0 {
            return Err(Error::Os(libc::EIO));
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(())
}

/// Reads a file, such as those of /proc.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    read_all(open(path, libc::O_RDONLY, 0)?.as_fd(), MAX_FILE_BYTES)
}

/// Makes calls on that descriptor fail instead of wait, for all processes that share it. (std's
/// `set_nonblocking` uses ioctl(2), whose implementation in musl takes 1 kB.)
pub fn set_nonblocking(descriptor: BorrowedFd<'_>, on: bool) -> Result<()> {
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
