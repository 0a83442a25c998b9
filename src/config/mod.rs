//! The config file: text in, a valid [`Config`] or a [`Diagnostic`] out.
//!
//! [`read`] fetches the bytes, [`parse`] makes them a [`Config`], [`check`] says what is legal but unwise and
//! what it all means. `docs/config.md` is the same for people.
#![forbid(unsafe_code)]

mod bans;
pub mod check;
mod describe;
mod draft;
mod flags;
mod keys;
mod line;
mod parse;
mod read;
mod sequence;
mod shadow;
mod shell;
mod tripwire;
mod undo;
mod values;

pub use parse::{options_of_broken, parse, parse_beside};
pub use read::{ReadError, read, read_open};
pub use sequence::parse_sequence;
pub use undo::undoes;

use crate::door::{Matching, Millis, Pattern};
use crate::limits::{BAN_TIME_S, BANS, COMMAND_TIMEOUT_MS, COMMANDS, DEFAULT_ATTEMPTS};
use crate::network::Network;
use crate::tripwire::{BanRule, PortRange, Tripwire};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

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
    /// `Interface`: a name, `any`, `auto`, or a comma-separated list of names; no blanks, each 1 to 15 bytes.
    pub interface: Option<String>,
    /// `Matching = tolerant | strict`.
    pub matching: Matching,
    /// `Reknock = renew | stack`; strict matching implies `stack`.
    pub reknock: Reknock,
    /// `LogRate`: stage and failure lines per second; 0: no bound.
    pub log_rate: u32,
    /// `MaxAttempts`: attempts remembered at once, within [`MAX_ATTEMPTS`](crate::limits::MAX_ATTEMPTS).
    pub max_attempts: u16,
    /// `Tripwire`: ports whose second one ends an attempt; the ranges are at most
    /// [`MAX_TRIPWIRES`](crate::limits::MAX_TRIPWIRES), ascending and apart.
    pub tripwire: Tripwire<Vec<PortRange>>,
    /// What happens to scanners.
    pub bans: Bans,
    /// `StateDir`: where the journal, lock and sockets of each instance live.
    pub state_dir: PathBuf,
    /// `CommandTimeout`: how long a command of a lease may run.
    pub command_timeout: Millis,
    /// `MaxCommands`: so many that open run at once, so many that close, and so many of doors that do not close.
    pub max_commands: usize,
}

impl Options {
    /// `Matching = strict`, or `--strict`: knockd 0.8's way, and what it implies.
    pub fn be_strict(&mut self) {
        self.matching = Matching::Strict;
        self.reknock = Reknock::Stack;
        self.tripwire = Tripwire::None;
        self.bans.rule = None;
    }
}

impl Default for Options {
    /// What a file without `[options]` means.
    fn default() -> Options {
        Options {
            use_syslog: false,
            log_file: None,
            pid_file: None,
            interface: None,
            matching: Matching::Tolerant,
            reknock: Reknock::Renew,
            log_rate: 50,
            max_attempts: DEFAULT_ATTEMPTS as u16,
            tripwire: Tripwire::None,
            bans: Bans::default(),
            state_dir: PathBuf::from("/var/run/knockd"),
            command_timeout: COMMAND_TIMEOUT_MS,
            max_commands: COMMANDS,
        }
    }
}

/// Who is banned, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bans {
    /// `TripwireHits` and `TripwireWindow`; `None`: nobody is.
    pub rule: Option<BanRule>,
    /// `BanTime`.
    pub time: Millis,
    /// `BanCommand`: run when a ban begins.
    pub start: Commands,
    /// `UnbanCommand`: run when it ends.
    pub stop: Commands,
    /// `MaxBans`: bans at once; the oldest makes room.
    pub max: usize,
    /// `Allow`: never banned, beside this machine's own addresses and networks.
    pub allow: Vec<Network>,
}

impl Default for Bans {
    fn default() -> Bans {
        Bans {
            rule: None,
            time: BAN_TIME_S * 1000,
            start: Commands::default(),
            stop: Commands::default(),
            max: BANS,
            allow: Vec::new(),
        }
    }
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

/// Something to tell a person about the config: where, what was found, what would be right. An error, a warning or
/// advice: the caller says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1; 0: the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0: the line as a whole.
    pub column: usize,
    /// The line that knockd 0.8 prints for an error of this kind, where it has one; scripts grep for it.
    /// Where knockd 0.8 accepts what we refuse (port junk), these are its words for the nearest thing it refuses.
    pub knockd_wording: Option<String>,
    /// What was found and what would be right.
    pub text: String,
}

impl Diagnostic {
    /// As a person sees it: knockd 0.8's line if there is one, then `FILE:LINE:COLUMN: text`, without the parts that
    /// are 0. No newline at the end.
    pub fn show(&self, file: &Path) -> String {
        let mut out = String::new();
        if let Some(wording) = &self.knockd_wording {
            out.push_str(wording);
            out.push('\n');
        }
        out.push_str(&file.to_string_lossy());
        for number in [self.line, self.column] {
            if number == 0 {
                break;
            }
            out.push(':');
            out.push_str(&number.to_string());
        }
        out.push_str(": ");
        out.push_str(&self.text);
        out
    }
}
