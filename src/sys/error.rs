//! Errors: those of system calls, and a few of our own.

use crate::util::text::shown;
use std::ffi::CStr;
use std::fmt;
use std::io;

/// The reason why an operation on the system failed. Copied and compared like a number: std's
/// `io::Error` owns memory and would take 8 kB more on mipsel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// An errno(3), displayed as by strerror(3).
    Os(libc::c_int),
    /// A text of our own.
    Own(&'static str),
}

/// The result of a fallible operation on the system.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns the error of this thread's last system call.
    pub fn last() -> Error {
        // SAFETY: errno is always there.
        Error::Os(unsafe { *libc::__errno_location() })
    }

    /// Returns whether it is this errno.
    pub fn is(self, number: libc::c_int) -> bool {
        self == Error::Os(number)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::Os(number) => {
                // SAFETY: strerror() gives a C string for any number. Each process has one thread,
                // and musl's texts never change.
                let text = unsafe { CStr::from_ptr(libc::strerror(number)) };
                f.write_str(&text.to_string_lossy())
            }
            Error::Own(text) => f.write_str(text),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        // Our calls never cause the errors that std makes itself.
        Error::Os(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<Error> for String {
    fn from(error: Error) -> String {
        shown(&error)
    }
}

/// Converts the -1 of a system call to the error in `errno`.
pub fn cerr(result: libc::c_int) -> Result<libc::c_int> {
    if result == -1 {
        Err(Error::last())
    } else {
        Ok(result)
    }
}

/// The same for calls that return a count or -1. Repeats the call while a signal interrupts it.
pub fn retry(call: &mut dyn FnMut() -> isize) -> Result<usize> {
    loop {
        match usize::try_from(call()).map_err(|_| Error::last()) {
            Err(Error::Os(libc::EINTR)) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_as_strerror_says_it() {
        assert_eq!(
            Error::Os(libc::ENOENT).to_string(),
            "No such file or directory"
        );
        assert_eq!(Error::Own("of ours").to_string(), "of ours");
    }
}
