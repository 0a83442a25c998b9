//! Numbers that nobody can foresee.

use super::file::{open, read_all};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// From /dev/urandom: getrandom(2) is newer than the oldest kernel.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let source = open(Path::new("/dev/urandom"), libc::O_RDONLY, 0)?;
    let bytes = read_all(source.as_fd(), N)?;
    // It has no end.
    <[u8; N]>::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof.into())
}
