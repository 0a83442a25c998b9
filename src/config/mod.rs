//! The config file: text in, a valid [`Config`] or a [`Diagnostic`] out.
#![forbid(unsafe_code)]

use crate::door::{Matching, Millis, Pattern};
use std::net::IpAddr;
use std::path::PathBuf;

/// What a config file says. One that exists is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The `[options]` section.
    pub options: Options,
    /// The doors in the order of the file.
    pub doors: Vec<Door>,
    /// What is accepted but surely not meant, such as junk after a port number.
    pub warnings: Vec<Diagnostic>,
}

/// The `[options]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `UseSyslog`: log to syslog.
    pub use_syslog: bool,
    /// `LogFile`, as written.
    pub log_file: Option<PathBuf>,
    /// `PidFile`, as written.
    pub pid_file: Option<PathBuf>,
    /// `Interface`, as written: a name, `any`, `auto`, or a comma-separated list of names.
    pub interface: Option<String>,
    /// `Matching = tolerant | strict`.
    pub matching: Matching,
    /// `Reknock = renew | stack`; strict matching implies `stack`.
    pub reknock: Reknock,
    /// `LogRate`: stage and failure lines per second; 0: no bound.
    pub log_rate: u32,
    /// `StateDir`: where the journal, lock and sockets of each instance live.
    pub state_dir: PathBuf,
}

/// What a whole knock does while the knocker's lease of that door is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reknock {
    /// The lease's time starts anew; no command runs.
    #[default]
    Renew,
    /// A second lease, as knockd 0.8 does: start runs again, and stop will run twice.
    Stack,
}

/// One door: a sequence and what to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The section's name; two doors may have the same.
    pub name: String,
    /// The line of the section's header, from 1.
    pub line: usize,
    /// What opens it. With `one_time_sequences` its sequence is `None` until the list was read.
    pub pattern: Pattern,
    /// The file of one-time sequences, as written.
    pub one_time: Option<PathBuf>,
    /// Run when the door opens.
    pub start: Commands,
    /// Run when the lease ends.
    pub stop: Commands,
    /// How long a lease lasts after the start command has ended.
    pub cmd_timeout: Millis,
}

/// A command for each address family of the knocker, before `%IP%` is replaced. `None`: nothing is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// For knocks over IPv4.
    pub v4: Option<Vec<u8>>,
    /// For knocks over IPv6: the `_6` key, or where that is absent the plain one.
    pub v6: Option<Vec<u8>>,
}

impl Commands {
    /// The command for that knocker.
    pub fn for_source(&self, source: IpAddr) -> Option<&[u8]> {
        match source {
            IpAddr::V4(_) => self.v4.as_deref(),
            IpAddr::V6(_) => self.v6.as_deref(),
        }
    }
}

/// Something to tell a person about the config: where, what was found, what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1; 0: the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0: the line as a whole.
    pub column: usize,
    /// knockd 0.8's own words for it, where it has any; scripts grep for them.
    pub knockd_wording: Option<String>,
    /// What was found and what would be right.
    pub text: String,
}
