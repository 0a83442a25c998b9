//! The bytes of a config file, bounded.
#![forbid(unsafe_code)]

use crate::limits::MAX_CONFIG_BYTES;
use crate::sys::error::{plain, with_text};
use crate::sys::file;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Why a file could not be read. Shown as knockd 0.8 shows it: `/etc/nosuch: No such file or directory`.
#[derive(Debug)]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub error: io::Error,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), plain(&self.error))
    }
}

impl std::error::Error for ReadError {}

/// The whole file. Refused: what cannot be opened or read, a directory (knockd 0.8 reads one as an empty file), and
/// more than [`MAX_CONFIG_BYTES`].
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let read = file::open(path, libc::O_RDONLY, 0).and_then(|file| read_open(&file));
    read.map_err(|error| ReadError {
        path: path.to_path_buf(),
        error,
    })
}

/// As [`read`], of a file that is open.
pub fn read_open(file: &File) -> io::Result<Vec<u8>> {
    let text = file::read_all(file.as_fd(), MAX_CONFIG_BYTES + 1)?;
    if text.len() > MAX_CONFIG_BYTES {
        let reason = format!("longer than {MAX_CONFIG_BYTES} bytes, so it is not a config");
        return Err(with_text(io::ErrorKind::InvalidData, reason));
    }
    Ok(text)
}
