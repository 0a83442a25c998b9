//! Everything that touches the system; the only module with unsafe code.

pub mod connect;
pub mod names;

use std::io;

/// The result of a C call that returns -1 and sets `errno` when it fails.
pub fn cerr(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}
