//! Runs shell commands: one fork each, in a session of its own, that starts only when the journal knows of it. And runs
//! this program again, for the daemon's other processes. (`std::process` would be 23 kB more on mipsel.)

use super::error::{Error, Result, cerr, retry};
use super::file::{self, c_string, open, read_all, read_file, write_all};
use super::{poll, signals};
use crate::limits::{EXEC_PAUSE_MS, EXEC_TRIES};
use crate::util::number::number;
use crate::util::path::folder_of;
use crate::util::process::{Pid, ProcessGroup};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Whether a command of a daemon before still runs: the number of its leader may be somebody else's by now, its start time is not. What
/// a command has left behind that has ended is no part of it. Where that time cannot be read now, the number is believed.
pub fn still_runs(group: ProcessGroup) -> bool {
    match start_time(group.leader) {
        Ok(started) => started == group.started,
        Err(Error::Os(libc::ENOENT | libc::ESRCH)) => false,
        Err(_) => has_members(group),
    }
}

/// Whether any process of the group is left, or its leader, which may not have made the group yet.
pub fn is_left(group: ProcessGroup) -> bool {
    has_members(group) || start_time(group.leader).is_ok_and(|started| started == group.started)
}

fn has_members(group: ProcessGroup) -> bool {
    // SAFETY: no pointers; signal 0 only asks.
    unsafe { libc::kill(-group.leader.0, 0) == 0 }
}

/// Sends a signal to every process of a group that is known to be a command's: its leader is our child and not reaped, or
/// [`still_runs`] said so just now.
pub fn signal(group: ProcessGroup, number: libc::c_int) {
    // SAFETY: no pointers. A child that was forked just now is not a leader yet, and is still alone.
    unsafe {
        if libc::kill(-group.leader.0, number) == -1 {
            libc::kill(group.leader.0, number);
        }
    }
}

/// What stands for the start time of a group for which it could not be read.
const UNKNOWN: u64 = 0;

/// Clock ticks since boot at which that process started.
fn start_time(process: Pid) -> Result<u64> {
    let stat = read_file(Path::new(&format!("/proc/{process}/stat")))?;
    // The second field is the program's name in parentheses, and may hold anything; 20 fields after it is the time.
    let mut after_name = stat.rsplit(|byte| *byte == b')');
    let fields = after_name.next().unwrap_or_default();
    let field = fields.split(|byte| *byte == b' ').nth(20);
    let started = field.and_then(|field| number(field, u64::MAX));
    started.ok_or(Error::Os(libc::EINVAL))
}

#[cfg(target_env = "musl")]
unsafe extern "C" {
    /// fork(2) without care for other threads' locks, as POSIX has it since 2024.
    fn _Fork() -> libc::pid_t;
}

/// A copy of this process: `None` in it, its id here. There is one thread, so the copy may run any code. (`fork` of musl takes locks that only
/// threads need, 2 kB on mipsel; older glibc has no other.)
pub(super) fn fork() -> Result<Option<Pid>> {
    #[cfg(target_env = "musl")]
    // SAFETY: no arguments, and no lock is held by any other thread.
    let process = unsafe { _Fork() };
    #[cfg(not(target_env = "musl"))]
    // SAFETY: no arguments.
    let process = unsafe { libc::fork() };
    cerr(process).map(|process| (process != 0).then_some(Pid(process)))
}

/// A command that is forked and waits for the word to go.
pub struct Prepared {
    group: ProcessGroup,
    gate: io::PipeWriter,
}

impl Prepared {
    /// Its process group.
    pub fn group(&self) -> ProcessGroup {
        self.group
    }

    /// Lets it run. If this is never called, because the daemon dies first, the command never runs.
    pub fn go(self) -> Result<()> {
        write_all(self.gate.as_fd(), b"!")
    }
}

/// Forks a child that will be `/bin/sh -c command`, with the daemon's standard descriptors, environment and
/// directory, and nothing else of it.
pub fn prepare(command: &[u8]) -> Result<Prepared> {
    let command = c_string(command)?;
    let (waiting, gate) = io::pipe()?;
    match fork()? {
        None => {
            drop(gate);
            become_shell(&command, waiting.as_raw_fd())
        }
        Some(leader) => Ok(Prepared {
            group: ProcessGroup {
                leader,
                started: start_time(leader).unwrap_or(UNKNOWN),
            },
            gate,
        }),
    }
}

fn become_shell(command: &CStr, gate: libc::c_int) -> ! {
    signals::restore_for_exec();
    let argv = [
        c"sh".as_ptr(),
        c"-c".as_ptr(),
        command.as_ptr(),
        std::ptr::null(),
    ];
    let mut word = 0u8;
    // SAFETY: every pointer is to a NUL-terminated string or array that lives until exec; the read is of one byte
    // into a variable of one byte; _exit runs nothing of the parent's.
    unsafe {
        libc::setsid();
        loop {
            match libc::read(gate, (&raw mut word).cast(), 1) {
                1 => break,
                -1 if *libc::__errno_location() == libc::EINTR => {}
                _ => libc::_exit(0),
            }
        }
        for _ in 0..EXEC_TRIES {
            libc::execv(c"/bin/sh".as_ptr(), argv.as_ptr());
            poll::pause(EXEC_PAUSE_MS);
        }
        libc::_exit(127)
    }
}

/// Executes this program again under the name `name`, with that standard input and output, /dev/null where there is none and for standard
/// error, `more` under the numbers that they have, and nothing else of ours but environment and directory. Returns the child's process id, or why it could not be executed.
pub fn start_self(
    name: &CStr,
    input: BorrowedFd<'_>,
    output: Option<BorrowedFd<'_>>,
    more: &[BorrowedFd<'_>],
) -> Result<Pid> {
    let other = other_name();
    let null = open(Path::new("/dev/null"), libc::O_WRONLY, 0)?;
    // Close-on-exec: end of file says that exec succeeded.
    let (reader, writer) = io::pipe()?;
    let Some(child) = fork()? else {
        let error = become_self(
            name,
            other.as_deref(),
            input.as_raw_fd(),
            output.map_or(null.as_raw_fd(), |output| output.as_raw_fd()),
            null.as_raw_fd(),
            more,
        );
        let number = match error {
            Error::Os(number) => number,
            Error::Own(_) => libc::EIO,
        };
        let _ = write_all(writer.as_fd(), &number.to_ne_bytes());
        // SAFETY: _exit runs nothing of the parent's.
        unsafe { libc::_exit(127) }
    };
    drop(writer);
    let error = read_all(reader.as_fd(), size_of::<i32>()).unwrap_or_default();
    let Some(error) = error.first_chunk() else {
        return Ok(child);
    };
    wait(child);
    Err(Error::Os(i32::from_ne_bytes(*error)))
}

/// This program's file by another name that stands beside it, a hard link. The `pidof` of busybox and procps compares the name of the
/// file, too, so without such a link it shows every process of the daemon.
fn other_name() -> Option<CString> {
    let program = Path::new("/proc/self/exe");
    let other = folder_of(&file::link(program).ok()?).join("knockd-listener");
    // After an upgrade it is another program.
    let is_same = file::find(program).ok()?.identity == file::find(&other).ok()?.identity;
    CString::new(other.into_os_string().into_vec())
        .ok()
        .filter(|_| is_same)
}

/// Returns only when it failed.
fn become_self(
    name: &CStr,
    other: Option<&CStr>,
    input: libc::c_int,
    output: libc::c_int,
    null: libc::c_int,
    more: &[BorrowedFd<'_>],
) -> Error {
    signals::restore_for_exec();
    // Before exec: what is ignored stays ignored, so that there is no moment at which a signal ends the child.
    if let Err(error) = signals::leave_to_keeper() {
        return error;
    }
    let argv = [name.as_ptr(), std::ptr::null()];
    for (from, to) in [(input, 0), (output, 1), (null, 2)] {
        // SAFETY: no pointers. Both are open, and neither is a standard descriptor: `program::run` fills those at the start.
        if let Err(error) = cerr(unsafe { libc::dup2(from, to) }) {
            return error;
        }
    }
    for fd in more {
        // Not close-on-exec any more.
        // SAFETY: no pointers.
        if let Err(error) = cerr(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }) {
            return error;
        }
    }
    // The second is the path of this program for as long as it runs, even when the file was replaced or removed.
    for path in other.into_iter().chain([c"/proc/self/exe"]) {
        // SAFETY: path, name and array end with NUL and live until exec.
        unsafe { libc::execv(path.as_ptr(), argv.as_ptr()) };
    }
    Error::last()
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// A child that has ended, without waiting: its process id and how.
pub fn reap() -> Option<(Pid, Ending)> {
    let mut status = 0;
    let process = retry(&mut || {
        // SAFETY: `status` is valid for writing.
        unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) as isize }
    });
    let process = process.ok().filter(|process| *process > 0)?;
    let ending = if libc::WIFSIGNALED(status) {
        Ending::Killed(libc::WTERMSIG(status))
    } else {
        Ending::Exited(libc::WEXITSTATUS(status))
    };
    Some((Pid(process as i32), ending))
}

/// Ends one child for good, and reaps it.
pub fn end(process: Pid) {
    if kill(process).is_ok() {
        wait(process);
    }
}

/// Waits until this child has ended, and reaps it. The caller knows that it is about to end.
fn wait(process: Pid) {
    let _ = retry(&mut || {
        // SAFETY: a null status is allowed.
        unsafe { libc::waitpid(process.0, std::ptr::null_mut(), 0) as isize }
    });
}

/// Ends one child for good.
pub fn kill(process: Pid) -> Result<()> {
    // SAFETY: no pointers; the caller's child is not reaped yet, so the number is still its own.
    cerr(unsafe { libc::kill(process.0, libc::SIGKILL) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_command_that_has_not_made_its_group_yet_is_left() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let leader = Pid(child.id() as i32);
        let started = start_time(leader).expect("its start time");
        let group = ProcessGroup { leader, started };
        let other = ProcessGroup {
            leader,
            started: started + 1,
        };
        let found = (is_left(group), is_left(other));
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(found, (true, false));
        assert!(!is_left(group));
    }
}
