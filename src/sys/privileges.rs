//! Dropping root: what the listener does after its sockets are open and before it reads a packet.

use super::error::{Result, cerr};
use super::file;
use crate::limits::{CONFINED_FILES, CONFINED_MEMORY};
use std::path::Path;

/// The user and group of the listener: nobody's, a number that needs no /etc/passwd.
pub const LISTENER: libc::uid_t = 65534;

/// Those of the lookup process: neither can signal the other.
pub const LOOKUP: libc::uid_t = 65533;

#[cfg(not(target_arch = "arm"))]
const SETGROUPS: libc::c_long = libc::SYS_setgroups;
#[cfg(not(target_arch = "arm"))]
const SETGID: libc::c_long = libc::SYS_setgid;
#[cfg(not(target_arch = "arm"))]
const SETUID: libc::c_long = libc::SYS_setuid;

// ARM calls those of 16 bits so.
#[cfg(target_arch = "arm")]
const SETGROUPS: libc::c_long = libc::SYS_setgroups32;
#[cfg(target_arch = "arm")]
const SETGID: libc::c_long = libc::SYS_setgid32;
#[cfg(target_arch = "arm")]
const SETUID: libc::c_long = libc::SYS_setuid32;

/// Whether this process is root.
pub fn is_root() -> bool {
    user() == 0
}

/// The user that this process runs as.
pub fn user() -> libc::uid_t {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether this program gives its user rights that the user does not have, and every user may start it: each could watch the network.
/// So does the set-user-ID bit, and so do capabilities on a file that all may execute. (AT_SECURE says less: with SELinux services have it, too.)
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

/// No core dump of this process, and no other process of its user looks into it; the programs that it executes are not concerned.
pub fn forbid_dumps() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Makes the directory that is standard output the root of the file system, so that no file can be seen.
pub fn enter_cage() -> Result<()> {
    // SAFETY: no pointers but a NUL-terminated constant.
    unsafe {
        cerr(libc::fchdir(libc::STDOUT_FILENO))?;
        cerr(libc::chroot(c".".as_ptr()))?;
        cerr(libc::chdir(c"/".as_ptr())).map(drop)
    }
}

/// Closes standard output and error. Only when nothing is opened any more, or something else would get their numbers.
pub fn close_outputs() {
    for output in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: no pointers; nothing here owns these two, and writing to one that is closed fails and harms nobody.
        unsafe { libc::close(output) };
    }
}

/// Bounds this process for good, also on a kernel without seccomp (getrlimit(2)): it starts no other (root could), writes no file, dumps
/// no core, and has little memory and few descriptors.
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
        // By number: musl's function for it looks for other threads.
        // SAFETY: `limit` has the two words that the kernel reads, which lets everybody have less.
        unsafe { libc::syscall(libc::SYS_setrlimit, *resource, limit.as_ptr()) };
    }
}

/// Gives root away for good, for this user and group.
pub fn become_unprivileged(user: libc::uid_t) -> Result<()> {
    for capability in 0.. {
        // So that no program could give them back. Kernels before 2.6.25 have no such bound; beyond the last one it is an error.
        // SAFETY: no pointers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) } == -1
        {
            break;
        }
    }
    // By number: the C library's functions of these names look for other threads, of which there are none, and are 3 kB on mipsel.
    // SAFETY: an empty list needs no pointer; the others take numbers. Group before user: afterwards there is no right left to change it.
    unsafe {
        let none = std::ptr::null::<libc::gid_t>();
        cerr(libc::syscall(SETGROUPS, 0, none) as libc::c_int)?;
        cerr(libc::syscall(SETGID, user) as libc::c_int)?;
        cerr(libc::syscall(SETUID, user) as libc::c_int)?;
    }
    // The change of user has made it what fs.suid_dumpable says, which need not be 0.
    forbid_dumps();
    Ok(())
}

/// The name that `ps`, `pidof` and `killall` know this process by: the kernel's own, which is not that of the command line.
pub fn set_name(name: &std::ffi::CStr) {
    // SAFETY: a NUL-terminated string; the kernel copies 15 bytes at most.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Gives every capability away (capset(2)): for a listener that was started as an ordinary user with CAP_NET_RAW.
pub fn drop_capabilities() -> Result<()> {
    // The kernel refuses version 0 and writes its own in its place. linux/capability.h has 3: the first has half as many words, and
    // newer kernels take it, but say in their log that this program is out of date.
    let mut header = [0u32; 2];
    let sets = [0u32; 6];
    let mut set = || {
        // SAFETY: header (version, process) and sets (twice effective, permitted, inheritable) are laid out as the kernel's, which writes
        // nothing but the version.
        let result = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) };
        cerr(result as libc::c_int)
    };
    let _ = set();
    set().map(drop)
}
