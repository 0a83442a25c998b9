//! What tells a running command from every other process.
#![forbid(unsafe_code)]

/// The process group of a command, which its leader's start time tells from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessGroup {
    /// The process id of the leader, which is the group's and the session's too.
    pub leader: i32,
    /// When the leader started, in clock ticks since boot (proc(5), field 22 of stat).
    pub started: u64,
}
