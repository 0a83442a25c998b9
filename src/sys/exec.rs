//! Runs shell commands: each is a fork in a session of its own, which starts only after it is in
//! the journal. Also executes this program again, as the daemon's other processes. (`std::process`
//! takes 23 kB more on mipsel.)

use super::error::{Error, Result, cerr, retry};
use super::file::{self, c_string, open, read_all, read_file, write_all};
use super::{poll, signals};
use crate::limits::{EXEC_PAUSE_MS, EXEC_TRIES};
use crate::util::number::parse_uint;
use crate::util::path::parent;
use crate::util::process::{Pid, ProcessGroup};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Returns whether a command of a previous daemon still runs. Another process may have its leader's
/// PID by now, but not its start time. Descendants of a command that has ended do not count. If the
/// start time cannot be read, the PID decides.
pub fn still_runs(group: ProcessGroup) -> bool {
    match start_time(group.leader) {
        Ok(started) => started == group.started,
        Err(Error::Os(libc::ENOENT | libc::ESRCH)) => false,
        Err(_) => has_members(group),
    }
}

/// Returns whether a process of the group is left, or its leader, which may not have created the
/// group yet.
pub fn is_left(group: ProcessGroup) -> bool {
    has_members(group) || start_time(group.leader).is_ok_and(|started| started == group.started)
}

fn has_members(group: ProcessGroup) -> bool {
    // SAFETY: no pointers; signal 0 only asks.
    unsafe { libc::kill(-group.leader.0, 0) == 0 }
}

/// Sends a signal to every process of a command's group. The leader must be our child that is not
/// reaped yet, or [`still_runs`] must just have returned `true`.
pub fn signal(group: ProcessGroup, number: libc::c_int) {
    // SAFETY: no pointers. A child that was forked just now is not a leader yet, and is still
    // alone.
    unsafe {
        if libc::kill(-group.leader.0, number) == -1 {
            libc::kill(group.leader.0, number);
        }
    }
}

/// The start time of a group for which it could not be read.
const UNKNOWN: u64 = 0;

/// Returns the start time of a process in clock ticks since boot.
fn start_time(process: Pid) -> Result<u64> {
    let stat = read_file(Path::new(&format!("/proc/{process}/stat")))?;
    // The second field is the program's name in parentheses, which can contain anything. The time
    // is 20 fields after it.
    let mut after_name = stat.rsplit(|byte| *byte == b')');
    let fields = after_name.next().unwrap_or_default();
    let field = fields.split(|byte| *byte == b' ').nth(20);
    let started = field.and_then(|field| parse_uint(field, u64::MAX));
    started.ok_or(Error::Os(libc::EINVAL))
}

#[cfg(target_env = "musl")]
unsafe extern "C" {
    /// fork(2) that ignores other threads' locks, in POSIX since 2024.
    fn _Fork() -> libc::pid_t;
}

/// Forks. Returns `None` in the child, its PID in the parent. There is one thread, so the child may
/// run any code. (musl's `fork` handles locks that only threads need, 2 kB on mipsel; older glibc
/// has no other.)
pub(super) fn fork() -> Result<Option<Pid>> {
    #[cfg(target_env = "musl")]
    // SAFETY: no arguments, and no lock is held by any other thread.
    let process = unsafe { _Fork() };
    #[cfg(not(target_env = "musl"))]
    // SAFETY: no arguments.
    let process = unsafe { libc::fork() };
    cerr(process).map(|process| (process != 0).then_some(Pid(process)))
}

/// A forked child that blocks until released, then executes /bin/sh.
pub struct Prepared {
    group: ProcessGroup,
    gate: io::PipeWriter,
}

impl Prepared {
    /// Its process group.
    pub fn group(&self) -> ProcessGroup {
        self.group
    }

    /// Releases the child. If the daemon dies before this, the command never runs.
    pub fn release(self) -> Result<()> {
        write_all(self.gate.as_fd(), b"!")
    }
}

/// Forks a child that will execute `/bin/sh -c command` with the daemon's standard descriptors,
/// environment and directory, and nothing else of it.
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
    // SAFETY: every pointer is to a NUL-terminated string or array that lives until exec; the read
    // is of one byte into a variable of one byte; _exit runs nothing of the parent's.
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

/// Executes this program again as `name`, with that standard input and output (/dev/null without
/// `output`), /dev/null for standard error, and `more` under their numbers. The child inherits
/// nothing else except environment and directory. Returns its PID, or why it could not be executed.
pub fn start_self(
    name: &CStr,
    input: BorrowedFd<'_>,
    output: Option<BorrowedFd<'_>>,
    more: &[BorrowedFd<'_>],
) -> Result<Pid> {
    let other = other_name();
    let null = open(Path::new("/dev/null"), libc::O_WRONLY, 0)?;
    // Close-on-exec: end of file means that exec succeeded.
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

/// Another hard link to this program, next to it. The `pidof` of busybox and procps also compares
/// the name of the file, so without the link it lists every process of the daemon.
fn other_name() -> Option<CString> {
    let program = Path::new("/proc/self/exe");
    let other = parent(&file::link(program).ok()?).join("knockd-listener");
    // After an upgrade it is a different program.
    let is_same = file::find(program).ok()?.identity == file::find(&other).ok()?.identity;
    CString::new(other.into_os_string().into_vec())
        .ok()
        .filter(|_| is_same)
}

/// Returns only on failure.
fn become_self(
    name: &CStr,
    other: Option<&CStr>,
    input: libc::c_int,
    output: libc::c_int,
    null: libc::c_int,
    more: &[BorrowedFd<'_>],
) -> Error {
    signals::restore_for_exec();
    // Before exec, so that there is no moment at which a signal ends the child: ignored signals
    // stay ignored.
    if let Err(error) = signals::leave_to_keeper() {
        return error;
    }
    let argv = [name.as_ptr(), std::ptr::null()];
    for (from, to) in [(input, 0), (output, 1), (null, 2)] {
        // SAFETY: no pointers. Both are open, and neither is a standard descriptor: `program::run`
        // fills those at the start.
        if let Err(error) = cerr(unsafe { libc::dup2(from, to) }) {
            return error;
        }
    }
    for fd in more {
        // Clear close-on-exec.
        // SAFETY: no pointers.
        if let Err(error) = cerr(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }) {
            return error;
        }
    }
    // The second is this program while it runs, even if the file was replaced or removed.
    for path in other.into_iter().chain([c"/proc/self/exe"]) {
        // SAFETY: path, name and array end with NUL and live until exec.
        unsafe { libc::execv(path.as_ptr(), argv.as_ptr()) };
    }
    Error::last()
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By exit, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// Reaps a child that has ended, without waiting. Returns its PID and how it ended.
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

/// Kills and reaps one child.
pub fn end(process: Pid) {
    if kill(process).is_ok() {
        wait(process);
    }
}

/// Waits for this child and reaps it. The caller knows that it is about to end.
fn wait(process: Pid) {
    let _ = retry(&mut || {
        // SAFETY: a null status is allowed.
        unsafe { libc::waitpid(process.0, std::ptr::null_mut(), 0) as isize }
    });
}

/// Kills one child.
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
