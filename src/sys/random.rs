//! Random bytes from /dev/urandom.

use super::error::{Error, Result};
use super::file::{open, read_all};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// Opens /dev/urandom: getrandom(2) is newer than the oldest supported kernel.
pub fn source() -> Result<File> {
    open(Path::new("/dev/urandom"), libc::O_RDONLY, 0)
}

/// Fills the buffer.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    fill_from(&source()?, bytes)
}

/// The same from an open [`source`].
pub fn fill_from(source: &File, bytes: &mut [u8]) -> Result<()> {
    let drawn = read_all(source.as_fd(), bytes.len())?;
    if drawn.len() < bytes.len() {
        return Err(Error::Os(libc::EIO));
    }
    bytes.copy_from_slice(&drawn);
    Ok(())
}
