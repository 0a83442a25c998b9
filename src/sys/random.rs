//! Numbers that nobody can foresee.

use super::file::{open, read_all};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Fills these bytes from /dev/urandom: getrandom(2) is newer than the oldest kernel.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let source = open(Path::new("/dev/urandom"), libc::O_RDONLY, 0)?;
    let drawn = read_all(source.as_fd(), bytes.len())?;
    if drawn.len() < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.copy_from_slice(&drawn);
    Ok(())
}
