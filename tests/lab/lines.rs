//! The daemon's log lines, in one place. The first group are knockd 0.8's, which must not change.

/// Printed when it is ready: `listening on wan0...`.
pub const LISTENING: &str = "listening on ";
/// Printed on SIGHUP.
pub const RELOADING: &str = "re-reading config file: ";
/// Printed when a one-time list has no unused line.
pub const EXHAUSTED: &str = "no more sequences left in the one time sequences file for door";

/// Printed for each completed step.
pub fn stage(who: &str, door: &str, number: u32) -> String {
    format!("{who}: {door}: Stage {number}")
}

/// Printed when a door opens.
pub fn opened(who: &str, door: &str) -> String {
    format!("{who}: {door}: OPEN SESAME")
}

/// Printed when cmd_timeout has expired, before the stop command.
pub fn timeout(who: &str, door: &str) -> String {
    format!("{who}: {door}: command timeout")
}

/// Printed when a command starts. `command` can be just its beginning.
pub fn running(door: &str, command: &str) -> String {
    format!("{door}: running command: {command}")
}

// Lines of knockd-rs.

/// Printed at the start if its interface is missing or down.
pub const WAITING: &str = "starting up, waiting for ";

/// Printed when a reload is complete.
pub const IN_FORCE: &str = "configuration reloaded";
/// Printed with the number of openings that exceeded a limit.
pub const TOO_MANY_OPENINGS: &str = " openings refused: too many at once";
/// Printed with the number of lines dropped in a flood.
pub const LEFT_OUT: &str = "LogRate: ";

/// An error in a reloaded config: `.../knockd.conf:LINE:COLUMN: ...`.
pub fn config_error(line: u32) -> String {
    format!("knockd.conf:{line}:")
}
