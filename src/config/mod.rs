//! The config file: text in, a valid [`Config`] or a [`Diagnostic`] out.
//!
//! [`crate::check`] gives advice and describes a config. docs/config.md is the reference for users.
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
pub use parse::{parse, parse_beside, salvage_options};
pub use sequence::parse_sequence;
pub use undo::undoes;

use crate::knock::{FlagRule, Pattern, Sequence, Trigger};
use crate::util::text::shown;
use crate::util::time::Millis;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A valid config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The `[options]` section.
    pub options: Options,
    /// The doors in the order of the file.
    pub doors: Vec<DoorConfig>,
    /// Warnings about what is accepted but certainly wrong, such as junk after a port number.
    pub warnings: Vec<Problem>,
}

/// One door: a sequence and what to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorConfig {
    /// The section's name; two doors may have the same.
    pub name: String,
    /// The line of the section's header, from 1.
    pub line: usize,
    /// What opens it. The path of a list is as written.
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
    /// The duration of a lease after the start command has finished.
    pub cmd_timeout: Millis,
}

impl DoorConfig {
    /// Returns its sequence. `None` if it has a list of them.
    pub fn sequence(&self) -> Option<&Sequence> {
        match &self.trigger {
            Trigger::Sequence(sequence) => Some(sequence),
            Trigger::OneTime(_) => None,
        }
    }

    /// Returns what the listener waits for with this sequence.
    pub fn pattern(&self, sequence: Option<Sequence>) -> Pattern {
        Pattern {
            sequence,
            seq_timeout: self.seq_timeout,
            flags: self.flags,
            target: self.target,
        }
    }
}

/// A command for each address family of the client, before `%IP%` is replaced. `None` runs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// For knocks over IPv4.
    pub v4: Option<Vec<u8>>,
    /// For knocks over IPv6: the `_6` key, or the plain one if that is absent.
    pub v6: Option<Vec<u8>>,
}

impl Commands {
    /// Resolves the fallbacks. Before this, empty and absent differ.
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

    /// Returns the commands that exist.
    pub fn each(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.v4.iter().chain(&self.v6)
    }

    /// Returns the command for that client.
    pub fn for_source(&self, source: IpAddr) -> Option<&[u8]> {
        match source {
            IpAddr::V4(_) => self.v4.as_deref(),
            IpAddr::V6(_) => self.v6.as_deref(),
        }
    }
}

/// A boxed [`Diagnostic`], because it is moved often.
pub type Problem = Box<Diagnostic>;

/// A message about the config: where, what was found, what would be right. The context decides
/// whether it is an error, a warning or advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1; 0: the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0: the line as a whole.
    pub column: usize,
    /// The line that knockd 0.8 prints for an error of this kind, if it has one; scripts grep for
    /// it. Where knockd 0.8 accepts what we refuse (port junk), the line for the most similar
    /// error.
    pub knockd_wording: Option<String>,
    /// What was found and what would be right.
    pub text: String,
}

impl Diagnostic {
    /// Creates a diagnostic about that line and column. Concatenates the text here, once for all
    /// callers.
    pub(crate) fn at((line, column): (usize, usize), text: &[&str]) -> Box<Diagnostic> {
        Box::new(Diagnostic {
            line,
            column,
            knockd_wording: None,
            text: text.concat(),
        })
    }

    /// Inserts it into warnings, which are in the order of the file.
    fn add_to(self: Problem, warnings: &mut Vec<Problem>) {
        let place = (self.line, self.column);
        let at = warnings.partition_point(|other| (other.line, other.column) <= place);
        warnings.insert(at, self);
    }

    /// Creates an error for which knockd 0.8 prints that line.
    fn error(place: (usize, usize), wording: &[&str], text: &[&str]) -> Box<Diagnostic> {
        let mut error = Diagnostic::at(place, text);
        error.knockd_wording = Some(wording.concat());
        error
    }

    /// Formats it for the user: knockd 0.8's line if there is one, then `FILE:LINE:COLUMN: text`,
    /// without the parts that are 0. No newline at the end.
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
