//! The functions that can fail. Each does what the C library's function of the same name does,
//! unless the board says otherwise.

use crate::shared::{KILL, SHORT, STANDARD, functions};
use crate::{forked, next_call, panicking};
use libc::{
    c_char, c_int, c_long, c_uint, c_ulong, c_void, mode_t, nfds_t, off64_t, pid_t, pollfd,
    sigaction as Sigaction, sigset_t, size_t, sockaddr, socklen_t, ssize_t, stat64 as Stat,
    statx as Statx,
};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("fault injection is for tests on x86_64 or aarch64 Linux with glibc");

/// Numbers the functions, and defines those that need no code of their own.
macro_rules! interpose {
    (
        by_hand: $($hand:ident)*;
        by_number: $($number:ident)*;
        $($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $failed:expr;)*
    ) => {
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        enum Function { $($hand,)* $($number,)* $($name,)* }

        /// Their names, each terminated by NUL.
        pub const FUNCTIONS: &[&str] = &[
            $(concat!(stringify!($hand), "\0"),)* $(concat!(stringify!($number), "\0"),)*
            $(concat!(stringify!($name), "\0"),)*
        ];

        $(
            /// Same as the C library's.
            ///
            /// # Safety
            /// Same as the C library's.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                if let Some(error) = fault(Function::$name) {
                    set_errno(error);
                    return $failed;
                }
                type Next = unsafe extern "C" fn($($type),*) -> $result;
                // SAFETY: the C library's function has this type.
                let next = unsafe { std::mem::transmute::<*mut c_void, Next>(original(Function::$name)) };
                // SAFETY: the caller's arguments are valid for this function.
                unsafe { next($($argument),*) }
            }
        )*
    };
}

functions!(interpose);

static ORIGINALS: [AtomicPtr<c_void>; FUNCTIONS.len()] =
    [const { AtomicPtr::new(ptr::null_mut()) }; FUNCTIONS.len()];

fn original(function: Function) -> *mut c_void {
    let (Some(place), Some(name)) = (
        ORIGINALS.get(function as usize),
        FUNCTIONS.get(function as usize),
    ) else {
        return ptr::null_mut();
    };
    let known = place.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: the name ends with NUL.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) };
    place.store(found, Ordering::Relaxed);
    found
}

/// Looks up all functions while this is still possible.
pub(super) fn prepare() {
    for (place, name) in ORIGINALS.iter().zip(FUNCTIONS) {
        // SAFETY: the name ends with NUL.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) };
        place.store(found, Ordering::Relaxed);
    }
}

fn set_errno(error: u32) {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() = error as c_int };
}

/// The C library's function with this name and type.
macro_rules! original {
    ($name:ident($($type:ty),*) -> $result:ty) => {
        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $result>(
            original(Function::$name),
        )
    };
}

/// The fault of the next call of that function.
fn fault(function: Function) -> Option<u32> {
    fault_of(function, || 0)
}

/// Like `fault`, for a function whose errors depend on the kind of its descriptor.
fn fault_at(function: Function, fd: c_int) -> Option<u32> {
    fault_of(function, || {
        // SAFETY: an all-zero stat is valid, and the C library's function has this type.
        unsafe {
            let mut found: Stat = std::mem::zeroed();
            original!(fstat64(c_int, *mut Stat) -> c_int)(fd, &raw mut found);
            match fd <= libc::STDERR_FILENO {
                true => found.st_mode | STANDARD,
                false => found.st_mode,
            }
        }
    })
}

fn fault_of(function: Function, mode: impl FnOnce() -> u32) -> Option<u32> {
    let kind = next_call(function as usize, mode)?;
    if kind == KILL {
        // SAFETY: no pointers; the process ends here.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    Some(kind)
}

/// The length to use when the call must transfer less than requested.
fn shortened(length: size_t) -> size_t {
    length.div_ceil(2)
}

/// Same as the C library's.
///
/// # Safety
/// Same as the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    let length = match fault_at(Function::read, fd) {
        Some(SHORT) => shortened(length.min(64)),
        Some(error) => {
            set_errno(error);
            return -1;
        }
        None => length,
    };
    // SAFETY: the caller's arguments are valid, also with a shorter length.
    unsafe { original!(read(c_int, *mut c_void, size_t) -> ssize_t)(fd, buffer, length) }
}

/// Same as the C library's.
///
/// # Safety
/// Same as the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: the caller's buffer has this length.
    let text = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    if fd == libc::STDERR_FILENO && text.windows(8).any(|word| word == b"panicked") {
        panicking();
    }
    let length = match fault_at(Function::write, fd) {
        Some(SHORT) => shortened(length),
        Some(error) => {
            set_errno(error);
            return -1;
        }
        None => length,
    };
    // SAFETY: the caller's arguments are valid, also with a shorter length.
    unsafe { original!(write(c_int, *const c_void, size_t) -> ssize_t)(fd, buffer, length) }
}

/// Same as the C library's. A failing call also closes the descriptor, as in the kernel.
///
/// # Safety
/// Same as the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    let fault = fault(Function::close);
    // SAFETY: the caller's arguments are valid.
    let result = unsafe { original!(close(c_int) -> c_int)(fd) };
    if let Some(error) = fault {
        set_errno(error);
        return -1;
    }
    result
}

/// Same as the C library's, but the shell of a command does not inherit this library.
///
/// # Safety
/// Same as the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int {
    if let Some(error) = fault(Function::execv) {
        set_errno(error);
        return -1;
    }
    // SAFETY: the caller's arguments are valid. A process that calls exec has one thread and holds
    // no pointer into the environment.
    unsafe {
        if CStr::from_ptr(path) == c"/bin/sh" {
            libc::unsetenv(c"LD_PRELOAD".as_ptr());
        }
        original!(execv(*const c_char, *const *const c_char) -> c_int)(path, arguments)
    }
}

/// Same as the C library's. F_GETFD never fails: std uses it only to check a descriptor that it
/// knows is open.
///
/// # Safety
/// Same as the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    if command != libc::F_GETFD
        && let Some(error) = fault(Function::fcntl)
    {
        set_errno(error);
        return -1;
    }
    // SAFETY: the caller's arguments are valid.
    unsafe { original!(fcntl(c_int, c_int, c_long) -> c_int)(fd, command, argument) }
}

/// Same as the C library's. The child's calls are counted separately.
///
/// # Safety
/// Same as the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fork() -> pid_t {
    if let Some(error) = fault(Function::fork) {
        set_errno(error);
        return -1;
    }
    // SAFETY: no arguments.
    let process = unsafe { original!(fork() -> pid_t)() };
    if process == 0 {
        forked();
    }
    process
}

/// Same as the C library's. The number selects which function this is.
///
/// # Safety
/// Same as the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let function = match number {
        libc::SYS_capset => Some(Function::capset),
        libc::SYS_recvmmsg => Some(Function::recvmmsg),
        libc::SYS_setgid => Some(Function::setgid),
        libc::SYS_setgroups => Some(Function::setgroups),
        libc::SYS_setrlimit => Some(Function::setrlimit),
        libc::SYS_setuid => Some(Function::setuid),
        _ => None,
    };
    if let Some(error) = function.and_then(fault) {
        set_errno(error);
        return -1;
    }
    type Next =
        unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;
    // SAFETY: the C library's function has this type; the caller's arguments are valid.
    unsafe {
        let next = std::mem::transmute::<*mut c_void, Next>(original(Function::syscall));
        next(number, a, b, c, d, e, f)
    }
}

/// Same as the C library's, and reports the abort to the test.
///
/// # Safety
/// Same as the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn abort() -> ! {
    panicking();
    // SAFETY: no arguments.
    unsafe { original!(abort() -> !)() }
}
