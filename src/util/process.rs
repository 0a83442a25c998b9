//! The ids of processes, and what tells a running command from every other process.
#![forbid(unsafe_code)]

use std::fmt;

/// A process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The process group of a command, which its leader's start time tells from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessGroup {
    /// The leader, whose id is the group's and the session's too.
    pub leader: Pid,
    /// When the leader started, in clock ticks since boot (proc(5), field 22 of stat).
    pub started: u64,
}
