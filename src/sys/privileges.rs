//! Dropping root, after the listener's sockets are open and before it reads a packet.

use super::error::{Result, cerr};
use super::file;
use crate::limits::{CONFINED_FILES, CONFINED_MEMORY};
use std::path::Path;

/// User and group of the listener: `nobody`, by number, which needs no /etc/passwd.
pub const LISTENER: libc::uid_t = 65534;

/// User and group of the lookup process. They differ, so that neither can signal the other.
pub const LOOKUP: libc::uid_t = 65533;

#[cfg(not(target_arch = "arm"))]
const SETGROUPS: libc::c_long = libc::SYS_setgroups;
#[cfg(not(target_arch = "arm"))]
const SETGID: libc::c_long = libc::SYS_setgid;
#[cfg(not(target_arch = "arm"))]
const SETUID: libc::c_long = libc::SYS_setuid;

// On ARM these names mean the 16-bit calls.
#[cfg(target_arch = "arm")]
const SETGROUPS: libc::c_long = libc::SYS_setgroups32;
#[cfg(target_arch = "arm")]
const SETGID: libc::c_long = libc::SYS_setgid32;
#[cfg(target_arch = "arm")]
const SETUID: libc::c_long = libc::SYS_setuid32;

/// Returns whether this process is root.
pub fn is_root() -> bool {
    user() == 0
}

/// Returns the user of this process.
pub fn user() -> libc::uid_t {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::geteuid() }
}

/// Returns whether the program file grants privileges that its user lacks and every user may
/// execute it: then each could watch the network. That is so for the set-user-ID bit, and for file
/// capabilities. (AT_SECURE is not enough: with SELinux services have it, too.)
pub fn lends_rights() -> bool {
    // SAFETY: no pointers.
    let real = unsafe { libc::getuid() };
    if real == 0 {
        return false;
    }
    let program = c"/proc/self/exe";
    // SAFETY: C strings, and no value is asked for.
    let length = unsafe {
        let name = c"security.capability".as_ptr();
        libc::getxattr(program.as_ptr(), name, std::ptr::null_mut(), 0)
    };
    let is_for_all = || {
        let found = file::find(Path::new("/proc/self/exe"));
        found.map_or(true, |found| found.mode & 0o001 != 0)
    };
    real != user() || (length > 0 && is_for_all())
}

/// Prevents core dumps and access by other processes of the same user. Programs that it executes
/// are not affected.
pub fn forbid_dumps() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Changes the root to the directory that is standard output, so that no file is visible.
pub fn chroot_to_empty_dir() -> Result<()> {
    // SAFETY: no pointers but a NUL-terminated constant.
    unsafe {
        cerr(libc::fchdir(libc::STDOUT_FILENO))?;
        cerr(libc::chroot(c".".as_ptr()))?;
        cerr(libc::chdir(c"/".as_ptr())).map(drop)
    }
}

/// Closes standard output and error. Call it when nothing more will be opened; otherwise their
/// numbers would be used again.
pub fn close_outputs() {
    for output in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: no pointers; nothing here owns these two, and writing to one that is closed fails
        // and does no harm.
        unsafe { libc::close(output) };
    }
}

/// Limits this process permanently, also on a kernel without seccomp (getrlimit(2)): it cannot fork
/// (except as root), write files or dump core, and has little memory and few descriptors.
pub fn limit_resources() {
    static LIMITS: [(libc::c_long, libc::c_ulong); 5] = [
        (libc::RLIMIT_NPROC as libc::c_long, 0),
        (libc::RLIMIT_FSIZE as libc::c_long, 0),
        (libc::RLIMIT_CORE as libc::c_long, 0),
        (libc::RLIMIT_AS as libc::c_long, CONFINED_MEMORY),
        (libc::RLIMIT_NOFILE as libc::c_long, CONFINED_FILES),
    ];
    for (resource, most) in &LIMITS {
        // `struct rlimit` of the kernel: two words.
        let limit: [libc::c_ulong; 2] = [*most; 2];
        // By number: musl's function looks for other threads.
        // SAFETY: `limit` has the two words that the kernel reads, which lets everybody have less.
        unsafe { libc::syscall(libc::SYS_setrlimit, *resource, limit.as_ptr()) };
    }
}

/// Drops root permanently, for this user and group.
pub fn become_unprivileged(user: libc::uid_t) -> Result<()> {
    for capability in 0.. {
        // Also drops the bounding set, so that no program can regain them. Kernels before 2.6.25
        // have none. A number beyond the last capability is an error.
        // SAFETY: no pointers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) } == -1
        {
            break;
        }
    }
    // By number: the C library's functions look for other threads, of which there are none, and
    // take 3 kB on mipsel.
    // SAFETY: an empty list needs no pointer; the others take numbers. Group before user:
    // afterwards there is no right left to change it.
    unsafe {
        let none = std::ptr::null::<libc::gid_t>();
        cerr(libc::syscall(SETGROUPS, 0, none) as libc::c_int)?;
        cerr(libc::syscall(SETGID, user) as libc::c_int)?;
        cerr(libc::syscall(SETUID, user) as libc::c_int)?;
    }
    // The change of user has set it to fs.suid_dumpable, which need not be 0.
    forbid_dumps();
    Ok(())
}

/// Sets the name that `ps`, `pidof` and `killall` show: the kernel's name of the process, not its
/// command line.
pub fn set_name(name: &std::ffi::CStr) {
    // SAFETY: a NUL-terminated string; the kernel copies 15 bytes at most.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Drops all capabilities (capset(2)), for a listener that was started as an ordinary user with
/// CAP_NET_RAW.
pub fn drop_capabilities() -> Result<()> {
    // The kernel rejects version 0 and writes its own version instead (linux/capability.h has 3).
    // The first has half the words; newer kernels accept it, but log that this program is out of
    // date.
    let mut header = [0u32; 2];
    let sets = [0u32; 6];
    let mut set = || {
        // SAFETY: header (version, process) and sets (twice effective, permitted, inheritable) are
        // laid out as the kernel's, which writes nothing but the version.
        let result = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) };
        cerr(result as libc::c_int)
    };
    let _ = set();
    set().map(drop)
}
