//! A door while its section is read, and what it becomes when the file has ended.
#![forbid(unsafe_code)]

use super::flags::tcp_flags;
use super::keys::{KEYS, Key};
use super::line::Line;
use super::values::{path, seconds, target};
use super::{Commands, Diagnostic, Door, parse_sequence};
use crate::door::{FlagRule, Pattern};
use crate::limits::MAX_COMMAND;
use std::path::PathBuf;

/// Where each key of a section was given last: line and column; line 0: not given.
#[derive(Default)]
pub(super) struct Seen([(usize, usize); KEYS]);

impl Seen {
    /// Notes that the key is given here; returns the line, 0: none, of the time before.
    pub fn note(&mut self, key: Key, place: (usize, usize)) -> usize {
        std::mem::replace(&mut self.0[key as usize], place).0
    }

    pub fn place(&self, key: Key) -> (usize, usize) {
        self.0[key as usize]
    }

    pub fn has(&self, key: Key) -> bool {
        self.place(key).0 > 0
    }
}

/// A door as written, before defaults and fallbacks.
pub(super) struct Draft {
    pub name: String,
    pub line: usize,
    pattern: Pattern,
    one_time: Option<PathBuf>,
    seq_timeout: i32,
    cmd_timeout: i32,
    /// Present but empty is not the same as absent.
    start: [Option<Vec<u8>>; 2],
    stop: [Option<Vec<u8>>; 2],
    pub seen: Seen,
}

/// Whether a door was probably meant to be `[options]`.
pub(super) fn is_nearly_options(name: &str) -> bool {
    name.trim_ascii().eq_ignore_ascii_case("options")
}

/// A warning about that place.
pub(super) fn at((line, column): (usize, usize), text: &str) -> Diagnostic {
    Diagnostic {
        line,
        column,
        knockd_wording: None,
        text: text.into(),
    }
}

impl Draft {
    /// A door of which only the header was read, with knockd 0.8's defaults.
    pub fn new(name: String, line: usize) -> Draft {
        Draft {
            name,
            line,
            pattern: Pattern {
                sequence: None,
                seq_timeout: 0,
                flags: FlagRule::default(),
                target: None,
            },
            one_time: None,
            seq_timeout: 25,
            cmd_timeout: 10,
            start: [None, None],
            stop: [None, None],
            seen: Seen::default(),
        }
    }

    /// One of its keys.
    pub fn set(
        &mut self,
        line: Line<'_>,
        key: Key,
        value: &[u8],
        warnings: &mut Vec<Diagnostic>,
        trace: &mut dyn FnMut(&str),
    ) -> Result<(), Box<Diagnostic>> {
        let name = self.name.as_str();
        let shown = String::from_utf8_lossy(value);
        let told = |what: &str, value: &str| format!("config: {name}: {what}: {value}");
        match key {
            Key::Sequence => {
                let place = (line.number, line.column(value));
                let sequence = parse_sequence(name, place, value, warnings)?;
                trace(&told("sequence", &sequence.to_string()));
                self.pattern.sequence = Some(sequence);
            }
            Key::OneTimeSequences => {
                if value.is_empty() {
                    let text = "one_time_sequences needs the path of a file".to_string();
                    let wording = Some("No such file or directory".into());
                    return Err(Box::new(Diagnostic {
                        knockd_wording: wording,
                        ..line.at(value, text)
                    }));
                }
                trace(&told("one time sequences file", &shown));
                self.one_time = Some(path(line, value, warnings));
            }
            Key::SeqTimeout => {
                self.seq_timeout = seconds(line, value, warnings)?;
                trace(&told("seq_timeout", &self.seq_timeout.to_string()));
            }
            Key::CmdTimeout => {
                self.cmd_timeout = seconds(line, value, warnings)?;
                trace(&told("cmd_timeout", &self.cmd_timeout.to_string()));
            }
            Key::TcpFlags => tcp_flags(line, value, &mut self.pattern.flags, warnings, trace)?,
            Key::Target => {
                trace(&told("target", &shown));
                self.pattern.target = Some(target(line, value)?);
            }
            _ => {
                let slot = match key {
                    Key::StartCommand => &mut self.start[0],
                    Key::StartCommand6 => &mut self.start[1],
                    Key::StopCommand => &mut self.stop[0],
                    _ => &mut self.stop[1],
                };
                *slot = Some(command(line, value, warnings));
                trace(&told(key.name(), &shown));
            }
        }
        Ok(())
    }

    /// Whether it has steps, or a file of them.
    pub fn has_knock(&self) -> bool {
        self.pattern.sequence.is_some() || self.one_time.is_some()
    }

    /// The error that it has none.
    pub fn no_sequence(&self) -> Diagnostic {
        let text = if is_nearly_options(&self.name) {
            format!(
                "'{}' is taken for a door: write [options], in lower case, no blanks",
                self.name
            )
        } else {
            "a door needs a sequence, such as sequence = 7000,8000:udp,9000, or one_time_sequences"
                .into()
        };
        Diagnostic {
            line: self.line,
            column: 0,
            knockd_wording: Some(format!(
                "error: section '{}' has an empty knock sequence",
                self.name
            )),
            text,
        }
    }

    /// The door, its warnings added.
    pub fn finish(mut self, warnings: &mut Vec<Diagnostic>) -> Door {
        let mut warn = |place, text: &str| warnings.push(at(place, text));
        if is_nearly_options(&self.name) {
            warn(
                (self.line, 0),
                "this is a door; the options need [options], in lower case",
            );
        }
        if self.pattern.target.is_some_and(|ip| ip.is_unspecified()) {
            let text = "no packet goes to this address, so the door never opens; leave the key out to accept the addresses of the interface";
            warn(self.seen.place(Key::Target), text);
        }
        if self.one_time.is_some() && self.pattern.sequence.take().is_some() {
            let text = "one_time_sequences is given too: this sequence never counts";
            warn(self.seen.place(Key::Sequence), text);
        }
        let steps = self.pattern.sequence.as_ref().map(|s| s.steps().len());
        if self.seq_timeout <= 0 && steps != Some(1) {
            let text = match steps {
                Some(_) => "no time for a second step: this door can never open",
                None => "no time for a second step: only a sequence of one step can open",
            };
            warn(self.seen.place(Key::SeqTimeout), text);
        }
        if self.cmd_timeout < 0 {
            let text = "a negative time is about 136 years, as in knockd 0.8: the stop command practically never runs";
            warn(self.seen.place(Key::CmdTimeout), text);
        }
        if self.stop[0].as_ref().is_some_and(Vec::is_empty) {
            let text = "an empty stop command is no stop command (knockd 0.8 runs an empty one)";
            warn(self.seen.place(Key::StopCommand), text);
        }
        // knockd 0.8: the stop command runs after the start command, so without start there is no stop.
        let start = resolve(&self.start);
        let mut stop = resolve(&self.stop);
        let (unused_v4, unused_v6) = (
            start.v4.is_none() && stop.v4.is_some(),
            start.v6.is_none() && stop.v6.is_some(),
        );
        if unused_v4 {
            stop.v4 = None;
        }
        if unused_v6 {
            stop.v6 = None;
        }
        if unused_v4 && (stop.v6.is_none() || self.seen.has(Key::StopCommand6)) {
            let text = "this stop command never runs: there is no start command for IPv4";
            warn(self.seen.place(Key::StopCommand), text);
        }
        if unused_v6 && self.seen.has(Key::StopCommand6) {
            let text = "this stop command never runs: there is no start command for IPv6";
            warn(self.seen.place(Key::StopCommand6), text);
        }
        self.pattern.seq_timeout = u64::try_from(self.seq_timeout).unwrap_or(0) * 1000;
        Door {
            name: self.name,
            line: self.line,
            pattern: self.pattern,
            one_time: self.one_time,
            start,
            stop,
            // sleep() takes the number as unsigned.
            cmd_timeout: u64::from(self.cmd_timeout as u32) * 1000,
        }
    }
}

/// A command as written.
pub(super) fn command(line: Line<'_>, value: &[u8], warnings: &mut Vec<Diagnostic>) -> Vec<u8> {
    if value.len() > MAX_COMMAND {
        let text = format!(
            "this command has {} bytes; what is longer than {MAX_COMMAND} is never run",
            value.len()
        );
        warnings.push(line.at(value, text));
    }
    value.to_vec()
}

/// The plain command and its `_6` variant as written -> what runs for each family.
pub(super) fn resolve([plain, six]: &[Option<Vec<u8>>; 2]) -> Commands {
    let not_empty = |c: &Option<Vec<u8>>| c.clone().filter(|c| !c.is_empty());
    let v6 = if six.is_some() { six } else { plain };
    Commands {
        v4: not_empty(plain),
        v6: not_empty(v6),
    }
}
