//! The config file: text in, a valid [`Config`] or a [`Diagnostic`] out.
//!
//! [`crate::check`] says what is legal but unwise, and what it all means. `docs/config.md` is the same for people.
#![forbid(unsafe_code)]

mod finish;
mod flags;
mod keys;
mod line;
pub(crate) mod options;
pub(crate) mod parse;
mod sequence;
mod set;
pub(crate) mod shell;
mod undo;
mod values;

pub use keys::key_names;
pub use options::{Bans, Options};
pub use parse::{options_of_broken, parse, parse_beside};
pub use sequence::parse_sequence;
pub use undo::undoes;

use crate::knock::{FlagRule, Pattern, Sequence, Trigger};
use crate::util::text::shown;
use crate::util::time::Millis;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What a config file says. One that exists is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The `[options]` section.
    pub options: Options,
    /// The doors in the order of the file.
    pub doors: Vec<DoorConfig>,
    /// What is accepted but surely not meant, such as junk after a port number.
    pub warnings: Vec<Problem>,
}

/// One door: a sequence and what to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorConfig {
    /// The section's name; two doors may have the same.
    pub name: String,
    /// The line of the section's header, from 1.
    pub line: usize,
    /// What opens it; the path of a list is as written.
    pub trigger: Trigger<PathBuf>,
    /// See [`Pattern::seq_timeout`].
    pub seq_timeout: Millis,
    /// See [`Pattern::flags`].
    pub flags: FlagRule,
    /// See [`Pattern::target`].
    pub target: Option<IpAddr>,
    /// Run when the door opens.
    pub start: Commands,
    /// Run when the lease ends.
    pub stop: Commands,
    /// How long a lease lasts after the start command has ended.
    pub cmd_timeout: Millis,
}

impl DoorConfig {
    /// Its sequence; `None` if it has a list of them.
    pub fn sequence(&self) -> Option<&Sequence> {
        match &self.trigger {
            Trigger::Sequence(sequence) => Some(sequence),
            Trigger::OneTime(_) => None,
        }
    }

    /// What the listener waits for while this is the sequence.
    pub fn pattern(&self, sequence: Option<Sequence>) -> Pattern {
        Pattern {
            sequence,
            seq_timeout: self.seq_timeout,
            flags: self.flags,
            target: self.target,
        }
    }
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
    /// From what is written, where empty is not the same as absent, to what runs.
    fn resolve(&mut self) {
        if self.v6.is_none() {
            self.v6.clone_from(&self.v4);
        }
        for command in [&mut self.v4, &mut self.v6] {
            if command.as_ref().is_some_and(Vec::is_empty) {
                *command = None;
            }
        }
    }

    /// Those that there are.
    pub fn each(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.v4.iter().chain(&self.v6)
    }

    /// The command for that knocker.
    pub fn for_source(&self, source: IpAddr) -> Option<&[u8]> {
        match source {
            IpAddr::V4(_) => self.v4.as_deref(),
            IpAddr::V6(_) => self.v6.as_deref(),
        }
    }
}

/// A [`Diagnostic`] as it is handed on: it is moved often.
pub type Problem = Box<Diagnostic>;

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
    /// About that line and column; the text is joined here, once for all who call.
    pub(crate) fn at((line, column): (usize, usize), text: &[&str]) -> Box<Diagnostic> {
        Box::new(Diagnostic {
            line,
            column,
            knockd_wording: None,
            text: text.concat(),
        })
    }

    /// Adds it to warnings, which are in the order of the file.
    fn add_to(self: Problem, warnings: &mut Vec<Problem>) {
        let place = (self.line, self.column);
        let at = warnings.partition_point(|other| (other.line, other.column) <= place);
        warnings.insert(at, self);
    }

    /// The same as an error for which knockd 0.8 prints that line.
    fn error(place: (usize, usize), wording: &[&str], text: &[&str]) -> Box<Diagnostic> {
        let mut error = Diagnostic::at(place, text);
        error.knockd_wording = Some(wording.concat());
        error
    }

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
            out.push_str(&shown(&number));
        }
        out.push_str(": ");
        out.push_str(&self.text);
        out
    }
}
