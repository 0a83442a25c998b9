//! Shared by library and test: the functions that can fail, and the layout of the board.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// The environment variable with the path of the board. Without it the library does nothing.
pub const VARIABLE: &str = "KNOCKD_FAULTS";

/// The process of the daemon, or the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// With `-d`: the process that the user started, which waits for the daemon to start.
    Launcher,
    Keeper,
    /// A process forked by the keeper, before it calls exec.
    Child,
    Listener,
    /// The lookup process.
    Names,
    /// `knock`.
    Client,
    /// `knockd --status` and `--close`.
    Asker,
}

/// Instead of an errno: the call transfers less than the caller requested.
pub const SHORT: u32 = 1 << 16;
/// Instead of an errno: the process is killed before the call.
pub const KILL: u32 = SHORT + 1;

/// Flag added to the file type of a descriptor: it is standard input, output or error.
pub const STANDARD: u32 = 1 << 31;

/// One story has several hundred.
pub const SITES: usize = 4096;
pub const FRAMES: usize = 96;

/// The calls of one function by one path through the program.
#[repr(C)]
pub struct Slot {
    /// A hash of role, function and frames; 0 if the slot is free.
    pub key: AtomicU64,
    /// Role * number of functions + function + 1.
    pub what: AtomicU32,
    /// The type of the descriptor's file, as in `st_mode`.
    pub mode: AtomicU32,
    pub calls: AtomicU32,
    pub depth: AtomicU32,
    /// Return addresses in the executable, innermost first.
    pub frames: [AtomicU32; FRAMES],
}

/// The board: a file that all processes of a story map. Initially all zero.
#[repr(C)]
pub struct Shared {
    /// The call that fails: the key of its slot, its number there (from 1), and an errno, [`SHORT`]
    /// or [`KILL`].
    pub site: AtomicU64,
    pub nth: AtomicU32,
    pub kind: AtomicU32,
    /// Whether that call was made.
    pub fired: AtomicU32,
    pub panicked: AtomicU32,
    pub slots: [Slot; SITES],
}

pub fn map(file: libc::c_int) -> io::Result<*mut Shared> {
    // SAFETY: a new mapping at an address that the kernel chooses.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Shared>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(address.cast())
}

/// Passes the functions to `macro`. `by_hand` functions have a handwritten definition, `by_number`
/// are calls of `syscall`, and the others return the value after `=` on failure. Variadic functions
/// are declared with the maximum number of arguments, which is equivalent for a caller on x86-64
/// and aarch64.
macro_rules! functions {
    ($macro:ident) => {
        $macro! {
            by_hand: read write close execv fcntl fork syscall abort;
            by_number: capset recvmmsg setgid setgroups setrlimit setuid;

            bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int = -1;
            chdir(path: *const c_char) -> c_int = -1;
            chmod(path: *const c_char, mode: mode_t) -> c_int = -1;
            chroot(path: *const c_char) -> c_int = -1;
            connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int = -1;
            dup2(from: c_int, to: c_int) -> c_int = -1;
            fchdir(fd: c_int) -> c_int = -1;
            fstat64(fd: c_int, found: *mut Stat) -> c_int = -1;
            fstatat64(directory: c_int, path: *const c_char, found: *mut Stat, flags: c_int) -> c_int = -1;
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
            openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int = -1;
            opendir(path: *const c_char) -> *mut c_void = ptr::null_mut();
            pipe2(ends: *mut c_int, flags: c_int) -> c_int = -1;
            poll(entries: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = -1;
            prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int = -1;
            readdir64(directory: *mut c_void) -> *mut c_void = ptr::null_mut();
            readlink(path: *const c_char, buffer: *mut c_char, length: size_t) -> ssize_t = -1;
            readlinkat(directory: c_int, path: *const c_char, buffer: *mut c_char, length: size_t) -> ssize_t = -1;
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
            statx(directory: c_int, path: *const c_char, flags: c_int, mask: c_uint, found: *mut Statx) -> c_int = -1;
            unlink(path: *const c_char) -> c_int = -1;
            waitpid(process: pid_t, status: *mut c_int, options: c_int) -> pid_t = -1;
        }
    };
}
pub(crate) use functions;
