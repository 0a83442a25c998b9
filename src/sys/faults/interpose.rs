//! The functions that can be made to fail. Each does what the C library's of the same name does, unless the board says otherwise.
//!
//! Those with variable arguments take as many as they ever get, which looks the same to a caller on x86-64 and aarch64.

use super::{Kind, STANDARD, forked, next_call, panicking};
use libc::{
    c_char, c_int, c_long, c_uint, c_ulong, c_void, mode_t, nfds_t, off64_t, pid_t, pollfd,
    sigaction as Sigaction, sigset_t, size_t, sockaddr, socklen_t, ssize_t, stat64 as Stat,
    statx as Statx,
};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("the feature `faults` is for tests on x86_64 or aarch64 Linux with glibc");

/// Names the functions, and makes those that only fail or not: `NAME(ARGUMENTS) -> RESULT = WHAT FAILURE RETURNS`.
macro_rules! interpose {
    (
        by_hand: $($hand:ident)*;
        by_number: $($number:ident)*;
        $($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $failed:expr;)*
    ) => {
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        enum Function { $($hand,)* $($number,)* $($name,)* }

        /// Their names.
        pub const FUNCTIONS: &[&str] = &[
            $(stringify!($hand),)* $(stringify!($number),)* $(stringify!($name),)*
        ];

        const C_NAMES: &[&str] = &[
            $(concat!(stringify!($hand), "\0"),)* $(concat!(stringify!($number), "\0"),)*
            $(concat!(stringify!($name), "\0"),)*
        ];

        $(
            /// As the C library's.
            ///
            /// # Safety
            /// As the C library's.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                if let Some(Kind::Error(error)) = fault(Function::$name) {
                    set_errno(error);
                    return $failed;
                }
                type Next = unsafe extern "C" fn($($type),*) -> $result;
                // SAFETY: the C library's function has this type.
                let next = unsafe { std::mem::transmute::<*mut c_void, Next>(original(Function::$name)) };
                // SAFETY: the caller gives what it needs.
                unsafe { next($($argument),*) }
            }
        )*

        /// So that the linker takes all of them.
        #[used]
        static ALL: &[Pointer] =
            &[$(Pointer($hand as *const c_void),)* $(Pointer($name as *const c_void),)*];
    };
}

struct Pointer(
    #[allow(
        dead_code,
        reason = "never read: that it is there keeps the linker from dropping the function"
    )]
    *const c_void,
);

// SAFETY: the address of a function, which nobody uses.
unsafe impl Sync for Pointer {}

interpose! {
    by_hand: read write close fcntl fork syscall abort;
    by_number: capset recvmmsg setgid setgroups setrlimit setuid;

    bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int = -1;
    chdir(path: *const c_char) -> c_int = -1;
    chmod(path: *const c_char, mode: mode_t) -> c_int = -1;
    chroot(path: *const c_char) -> c_int = -1;
    connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int = -1;
    dup2(from: c_int, to: c_int) -> c_int = -1;
    execv(path: *const c_char, arguments: *const *const c_char) -> c_int = -1;
    fchdir(fd: c_int) -> c_int = -1;
    fstat64(fd: c_int, found: *mut Stat) -> c_int = -1;
    fstatat64(folder: c_int, path: *const c_char, found: *mut Stat, flags: c_int) -> c_int = -1;
    fsync(fd: c_int) -> c_int = -1;
    ftruncate64(fd: c_int, length: off64_t) -> c_int = -1;
    accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int = -1;
    getcwd(buffer: *mut c_char, length: size_t) -> *mut c_char = ptr::null_mut();
    getsockopt(fd: c_int, level: c_int, option: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int = -1;
    getxattr(path: *const c_char, name: *const c_char, value: *mut c_void, length: size_t) -> ssize_t = -1;
    kill(process: pid_t, signal: c_int) -> c_int = -1;
    listen(fd: c_int, waiting: c_int) -> c_int = -1;
    lseek64(fd: c_int, offset: off64_t, whence: c_int) -> off64_t = -1;
    lstat64(path: *const c_char, found: *mut Stat) -> c_int = -1;
    mkdir(path: *const c_char, mode: mode_t) -> c_int = -1;
    open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int = -1;
    openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int = -1;
    opendir(path: *const c_char) -> *mut c_void = ptr::null_mut();
    pipe2(ends: *mut c_int, flags: c_int) -> c_int = -1;
    poll(entries: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = -1;
    prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int = -1;
    readdir64(folder: *mut c_void) -> *mut c_void = ptr::null_mut();
    readlink(path: *const c_char, buffer: *mut c_char, length: size_t) -> ssize_t = -1;
    readlinkat(folder: c_int, path: *const c_char, buffer: *mut c_char, length: size_t) -> ssize_t = -1;
    recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t = -1;
    recvfrom(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int, address: *mut sockaddr,
        address_length: *mut socklen_t) -> ssize_t = -1;
    rename(from: *const c_char, to: *const c_char) -> c_int = -1;
    send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t = -1;
    sendto(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int, address: *const sockaddr,
        address_length: socklen_t) -> ssize_t = -1;
    setsid() -> pid_t = -1;
    setsockopt(fd: c_int, level: c_int, option: c_int, value: *const c_void, length: socklen_t) -> c_int = -1;
    sigaction(number: c_int, new: *const Sigaction, old: *mut Sigaction) -> c_int = -1;
    sigprocmask(how: c_int, new: *const sigset_t, old: *mut sigset_t) -> c_int = -1;
    socket(family: c_int, kind: c_int, protocol: c_int) -> c_int = -1;
    socketpair(family: c_int, kind: c_int, protocol: c_int, ends: *mut c_int) -> c_int = -1;
    stat64(path: *const c_char, found: *mut Stat) -> c_int = -1;
    statx(folder: c_int, path: *const c_char, flags: c_int, mask: c_uint, found: *mut Statx) -> c_int = -1;
    unlink(path: *const c_char) -> c_int = -1;
    waitpid(process: pid_t, status: *mut c_int, options: c_int) -> pid_t = -1;
}

static ORIGINALS: [AtomicPtr<c_void>; FUNCTIONS.len()] =
    [const { AtomicPtr::new(ptr::null_mut()) }; FUNCTIONS.len()];

fn original(function: Function) -> *mut c_void {
    let (Some(place), Some(name)) = (
        ORIGINALS.get(function as usize),
        C_NAMES.get(function as usize),
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

/// Looks all of them up, while that is still possible.
pub(super) fn prepare() {
    for (place, name) in ORIGINALS.iter().zip(C_NAMES) {
        // SAFETY: the name ends with NUL.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) };
        place.store(found, Ordering::Relaxed);
    }
}

fn set_errno(error: c_int) {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() = error };
}

/// The C library's function of that name and type.
macro_rules! original {
    ($name:ident($($type:ty),*) -> $result:ty) => {
        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $result>(
            original(Function::$name),
        )
    };
}

/// What happens to the next call of that function.
fn fault(function: Function) -> Option<Kind> {
    fault_of(function, || 0)
}

/// The same for one whose errors depend on what its descriptor is.
fn fault_at(function: Function, fd: c_int) -> Option<Kind> {
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

fn fault_of(function: Function, mode: impl FnOnce() -> u32) -> Option<Kind> {
    let kind = next_call(function as usize, mode)?;
    if kind == Kind::Kill {
        // SAFETY: no pointers; the process ends here.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    Some(kind)
}

/// What is left of a length that is asked for, when less is to be done.
fn shortened(length: size_t) -> size_t {
    length.div_ceil(2)
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    let length = match fault_at(Function::read, fd) {
        Some(Kind::Error(error)) => {
            set_errno(error);
            return -1;
        }
        Some(_) => shortened(length.min(64)),
        None => length,
    };
    // SAFETY: the caller gives what it needs, and a shorter buffer is one too.
    unsafe { original!(read(c_int, *mut c_void, size_t) -> ssize_t)(fd, buffer, length) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: the caller gives so many bytes.
    let text = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    if fd == libc::STDERR_FILENO && text.windows(8).any(|word| word == b"panicked") {
        panicking();
    }
    let length = match fault_at(Function::write, fd) {
        Some(Kind::Error(error)) => {
            set_errno(error);
            return -1;
        }
        Some(_) => shortened(length),
        None => length,
    };
    // SAFETY: the caller gives what it needs, and a shorter buffer is one too.
    unsafe { original!(write(c_int, *const c_void, size_t) -> ssize_t)(fd, buffer, length) }
}

/// As the C library's; also a failing one closes, as the kernel's does.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    let fault = fault(Function::close);
    // SAFETY: the caller gives what it needs.
    let result = unsafe { original!(close(c_int) -> c_int)(fd) };
    if let Some(Kind::Error(error)) = fault {
        set_errno(error);
        return -1;
    }
    result
}

/// As the C library's. With F_GETFD std only looks whether it has a descriptor that it knows it has.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    if command != libc::F_GETFD
        && let Some(Kind::Error(error)) = fault(Function::fcntl)
    {
        set_errno(error);
        return -1;
    }
    // SAFETY: the caller gives what it needs.
    unsafe { original!(fcntl(c_int, c_int, c_long) -> c_int)(fd, command, argument) }
}

/// As the C library's; the child's calls are counted as its own.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fork() -> pid_t {
    if let Some(Kind::Error(error)) = fault(Function::fork) {
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

/// As the C library's. Which call it is, its number says.
///
/// # Safety
/// As the C library's.
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
    if let Some(Kind::Error(error)) = function.and_then(fault) {
        set_errno(error);
        return -1;
    }
    type Next =
        unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;
    // SAFETY: the C library's function has this type; the caller gives what it needs.
    unsafe {
        let next = std::mem::transmute::<*mut c_void, Next>(original(Function::syscall));
        next(number, a, b, c, d, e, f)
    }
}

/// As the C library's, and the test hears of it.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn abort() -> ! {
    panicking();
    // SAFETY: no arguments.
    unsafe { original!(abort() -> !)() }
}
