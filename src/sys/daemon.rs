//! Daemonizing, and the lock that keeps a daemon the only one.

use super::directory;
use super::error::{Error, Result, cerr};
use super::exec::fork;
use super::file::{open, read_all, write_all};
use super::program::{self, ExitCode};
use crate::limits::{MAX_INHERITED, STATE_TRIES};
use crate::util::number::parse_uint;
use crate::util::process::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Closes all descriptors above standard error that the parent left open, so that neither the
/// listener nor a command inherits them. Call it before opening any of our own.
pub fn close_inherited() {
    let close = |fd: u64| {
        if fd > libc::STDERR_FILENO as u64 {
            // SAFETY: nothing in this program has a descriptor open yet: that of the directory just
            // read is closed already, and closing its number again fails and does no harm.
            unsafe { libc::close(fd as libc::c_int) };
        }
    };
    match directory::names(Path::new("/proc/self/fd")) {
        Ok(names) => {
            for name in &names {
                parse_uint(name.as_bytes(), libc::c_int::MAX as u64).map(close);
            }
        }
        // All that are likely to exist.
        Err(_) => (0..MAX_INHERITED).for_each(close),
    }
}

/// The pipe through which the daemon reports to its parent that the start succeeded.
pub struct ParentSignal(io::PipeWriter);

/// Forks. The child continues in its own session with directory `/`. The parent waits until the
/// child calls [`ParentSignal::done`] and exits with 0, or with 1 if the child ends before. Until
/// then errors reach the terminal.
pub fn daemonize() -> Result<ParentSignal> {
    let (from_child, to_parent) = io::pipe()?;
    if fork()?.is_some() {
        drop(to_parent);
        let succeeded = read_all(from_child.as_fd(), 1).is_ok_and(|word| !word.is_empty());
        program::exit(match succeeded {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    }
    // SAFETY: no pointers but a NUL-terminated constant.
    unsafe {
        cerr(libc::setsid())?;
        cerr(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(ParentSignal(to_parent))
}

impl ParentSignal {
    /// Reports success: standard input, output and error become /dev/null, and the parent exits.
    pub fn done(self) -> Result<()> {
        let null = open(Path::new("/dev/null"), libc::O_RDWR, 0)?;
        for standard in 0..=2 {
            // SAFETY: no pointers; both are open descriptors.
            cerr(unsafe { libc::dup2(null.as_raw_fd(), standard) })?;
        }
        // The parent may have been killed. The daemon continues.
        let _ = write_all(self.0.as_fd(), b"!");
        Ok(())
    }
}

/// The process that holds a lock.
#[derive(Debug)]
pub struct Holder {
    /// Its PID.
    pub process: Pid,
    /// What it declared with the lock.
    pub is_up: bool,
}

/// Takes the fcntl(2) lock of this file, opened for both modes, until the process ends. Returns
/// `Ok(None)`, or the holder. `is_up` is visible to others. The holder can change it by calling
/// this again; it keeps the lock in the meantime.
pub fn lock(file: &File, is_up: bool) -> Result<Option<Holder>> {
    // SAFETY: an all-zero flock is valid: from the start to the end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // A new holder asks for the exclusive lock. From the type of the lock in its way it sees what
    // the holder declared.
    let kind = if is_up { libc::F_RDLCK } else { libc::F_WRLCK };
    for _ in 0..STATE_TRIES {
        lock.l_type = kind as libc::c_short;
        // SAFETY: `lock` is a valid flock for the time of the call.
        let taken = cerr(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) });
        match taken {
            Ok(_) => return Ok(None),
            Err(Error::Os(libc::EACCES | libc::EAGAIN)) => {}
            Err(error) => return Err(error),
        }
        // SAFETY: `lock` is valid for reading and writing.
        cerr(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) })?;
        if lock.l_type != libc::F_UNLCK as libc::c_short {
            return Ok(Some(Holder {
                process: Pid(lock.l_pid),
                is_up: lock.l_type == libc::F_RDLCK as libc::c_short,
            }));
        }
        // The holder has just ended.
    }
    // Either the file system refuses locks, or two daemons start and end.
    Err(Error::Os(libc::EAGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Like a file system that silently lacks locks.
    #[test]
    fn a_lock_that_nobody_has_and_nobody_gets_is_an_error() {
        let file = File::options().write(true).open("/dev/null").expect("file");
        // The filter applies only to this thread.
        let refused = std::thread::spawn(move || {
            let step = |code, k: u32, jt, jf| libc::sock_filter {
                code: code as libc::c_ushort,
                jt,
                jf,
                k,
            };
            let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
            let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            let end = libc::BPF_RET | libc::BPF_K;
            let refuse = libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32;
            // The number of the call, then the lower half of its second argument.
            let mut program = [
                step(load, 0, 0, 0),
                step(equal, libc::SYS_fcntl as u32, 0, 3),
                step(load, 24, 0, 0),
                step(equal, libc::F_SETLK as u32, 0, 1),
                step(end, refuse, 0, 0),
                step(end, libc::SECCOMP_RET_ALLOW, 0, 0),
            ];
            let filter = libc::sock_fprog {
                len: program.len() as libc::c_ushort,
                filter: program.as_mut_ptr(),
            };
            // SAFETY: `filter` points at `len` instructions, which the kernel copies. The other
            // arguments are numbers.
            unsafe {
                cerr(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).expect("prctl");
                let filter = &raw const filter;
                let mode = libc::SECCOMP_MODE_FILTER;
                cerr(libc::prctl(libc::PR_SET_SECCOMP, mode, filter)).expect("seccomp");
            }
            lock(&file, false)
        });
        let refused = refused.join().expect("thread");
        assert_eq!(refused.err(), Some(Error::Os(libc::EAGAIN)));
    }
}
