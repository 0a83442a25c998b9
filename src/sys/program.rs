//! Program start and exit, in place of the standard library's `main`, which takes 4 kB more on
//! mipsel for threads, stack overflows and exit handlers.

use super::error::{Result, cerr};
use std::ffi::{CStr, OsString};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStringExt;

/// The exit code of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCode(u8);

impl ExitCode {
    /// 0.
    pub const SUCCESS: ExitCode = ExitCode(0);
    /// 1.
    pub const FAILURE: ExitCode = ExitCode(1);
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> ExitCode {
        ExitCode(code)
    }
}

/// Declares that function of argv as the program. Use it once per program.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        /// # Safety
        /// For the C library alone.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            argc: std::ffi::c_int,
            argv: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            // SAFETY: the C library gives these.
            unsafe { $crate::sys::program::run(argc, argv, $main) }
        }
    };
}

/// # Safety
/// `argv` has `argc` C strings.
pub unsafe fn run(
    argc: libc::c_int,
    argv: *const *const libc::c_char,
    main: fn(&'static [OsString]) -> !,
) -> libc::c_int {
    if fill_standard().is_err() {
        return 1;
    }
    // SAFETY: no pointers. A write to a pipe without a reader is an error then, not the end.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let mut arguments = Vec::new();
    for at in 0..argc as usize {
        // SAFETY: the caller says so.
        let text = unsafe { CStr::from_ptr(*argv.add(at)) };
        arguments.push(OsString::from_vec(text.to_bytes().to_vec()));
    }
    main(arguments.leak())
}

/// Opens /dev/null in place of a closed standard input, output or error, so that no other file gets
/// that number.
fn fill_standard() -> Result<()> {
    for fd in 0..=2 {
        // open(2) uses the lowest free number, which is this one. Commands inherit it, so it is not
        // close-on-exec.
        // SAFETY: no pointers but a C string.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) == -1 {
                cerr(libc::open64(c"/dev/null".as_ptr(), libc::O_RDWR))?;
            }
        }
    }
    Ok(())
}

/// Returns an environment variable.
pub fn environment(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: a C string; this process has one thread, and nothing changes the environment.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: an entry of the environment is a C string, and stays.
    Some(unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// Standard input.
pub fn input() -> ManuallyDrop<File> {
    standard(libc::STDIN_FILENO)
}

/// Standard output, unbuffered.
pub fn output() -> ManuallyDrop<File> {
    standard(libc::STDOUT_FILENO)
}

/// Standard error.
pub fn error() -> ManuallyDrop<File> {
    standard(libc::STDERR_FILENO)
}

fn standard(fd: libc::c_int) -> ManuallyDrop<File> {
    // SAFETY: open from the start on, and closed only by privileges::close_outputs, after its last
    // use. It is never dropped.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd) })
}

/// Exits at once.
pub fn exit(code: ExitCode) -> ! {
    // SAFETY: nothing of ours waits to be written or undone.
    unsafe { libc::_exit(code.0.into()) }
}
