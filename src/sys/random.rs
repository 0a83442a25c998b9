//! Numbers that nobody can foresee.

use std::fs::File;
use std::io::{self, Read};

/// From /dev/urandom: getrandom(2) is newer than the oldest kernel.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
