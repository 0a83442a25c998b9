//! Errors: those of system calls, and in words of ours.

use crate::util::text::shown;
use std::fmt;
use std::io;

/// Turns the -1 of a system call into the error that `errno` holds.
pub fn cerr(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The same for calls that return a number of something or -1; they are made again while a signal interrupts.
pub fn retry(call: &mut dyn FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()).map_err(|_| io::Error::last_os_error()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// An error in words of ours. (std's own for text brings the tables of Unicode, to show text in the way of Rust's source.)
pub fn with_text(kind: io::ErrorKind, text: String) -> io::Error {
    io::Error::new(kind, OwnMessage(text))
}

/// The text of an error as C's strerror() gives it, without the number that Rust adds.
pub fn plain(error: &io::Error) -> String {
    let mut text = shown(error);
    if error.raw_os_error().is_some()
        && let Some(number) = text.bytes().rposition(|byte| byte == b'(')
    {
        text.truncate(number);
        text.truncate(text.trim_ascii_end().len());
    }
    text
}

struct OwnMessage(String);

impl fmt::Display for OwnMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OwnMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OwnMessage {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_error_has_no_number() {
        let reason = |code| plain(&io::Error::from_raw_os_error(code));
        assert_eq!(reason(libc::ENOENT), "No such file or directory");
        assert_eq!(reason(12_345), "Unknown error 12345");
        let ours = with_text(io::ErrorKind::Other, "of ours (really)".to_string());
        assert_eq!(plain(&ours), "of ours (really)");
    }
}
