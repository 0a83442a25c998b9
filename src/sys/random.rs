//! Numbers that nobody can foresee.

use super::file::{open, read_all};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Where they come from: getrandom(2) is newer than the oldest kernel.
pub fn source() -> io::Result<File> {
    open(Path::new("/dev/urandom"), libc::O_RDONLY, 0)
}

/// Fills these bytes.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    fill_from(&source()?, bytes)
}

/// The same from a [`source`].
pub fn fill_from(source: &File, bytes: &mut [u8]) -> io::Result<()> {
    let drawn = read_all(source.as_fd(), bytes.len())?;
    if drawn.len() < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.copy_from_slice(&drawn);
    Ok(())
}
