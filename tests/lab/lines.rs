//! What the daemon says, in one place. The first group are knockd 0.8's own words, which must not change.

/// It is ready: `listening on wan0...`.
pub const LISTENING: &str = "listening on ";
/// SIGHUP was heard.
pub const RELOADING: &str = "re-reading config file: ";
/// A one-time list is used up.
pub const EXHAUSTED: &str = "no more sequences left in the one time sequences file for door";

/// A step was done.
pub fn stage(who: &str, door: &str, number: u32) -> String {
    format!("{who}: {door}: Stage {number}")
}

/// A door opens.
pub fn opened(who: &str, door: &str) -> String {
    format!("{who}: {door}: OPEN SESAME")
}

/// The stop command is due.
pub fn timeout(who: &str, door: &str) -> String {
    format!("{who}: {door}: command timeout")
}

/// A command starts; of the command only its beginning need be given.
pub fn running(door: &str, command: &str) -> String {
    format!("{door}: running command: {command}")
}

// Ours.

/// It is ready, but its interface is not there, or is down.
pub const WAITING: &str = "starting up, waiting for ";

/// The reload is done.
pub const IN_FORCE: &str = "the new config is in force";
/// How many openings were too many.
pub const TOO_MANY_OPENINGS: &str = " openings were too many at once";
/// How many lines a flood has cost.
pub const LEFT_OUT: &str = "LogRate: ";

/// An error in the config that was reloaded: `.../knockd.conf:LINE:COLUMN: ...`.
pub fn config_error(line: u32) -> String {
    format!("knockd.conf:{line}:")
}
