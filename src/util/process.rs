//! PIDs, and the identity of a running command.
#![forbid(unsafe_code)]

use std::fmt;

/// A PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The process group of a command. The leader's start time distinguishes it from a later process
/// with the same PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessGroup {
    /// The leader, whose id is the group's and the session's too.
    pub leader: Pid,
    /// When the leader started, in clock ticks since boot (proc(5), field 22 of stat).
    pub started: u64,
}
