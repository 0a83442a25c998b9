//! Parses the value of a key into its place.
#![forbid(unsafe_code)]

use super::flags::tcp_flags;
use super::keys::Key;
use super::line::{ConfigLine, is_blank};
use super::options::Field;
use super::parse_sequence;
use super::values::{interfaces, networks, seconds, target, tripwire};
use super::{Diagnostic, Problem};
use crate::knock::Trigger;
use crate::limits::MAX_COMMAND;
use crate::util::number::parse_uint;
use crate::util::quote::quote;
use crate::util::text::shown;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A key with its value.
#[derive(Clone, Copy)]
pub(super) struct KeyValue<'a> {
    pub line: ConfigLine<'a>,
    pub key: Key,
    pub value: &'a [u8],
    /// The name of the door; `None` in `[options]`.
    pub door: Option<&'a str>,
}

/// Results of parsing in addition to the values.
pub(super) struct Notes<'t> {
    pub warnings: Vec<Problem>,
    /// The ports that `Tripwire` lists singly, with line and column.
    pub singles: Vec<(u16, (usize, usize))>,
    /// Whether the command line names the interface.
    pub names_interface: bool,
    pub trace: &'t mut dyn FnMut(&str),
}

impl KeyValue<'_> {
    /// Returns the error for an invalid value, or part of one. `words` is knockd 0.8's text, if it
    /// has any.
    pub fn wrong(&self, part: &[u8], words: &str, right: &[&str]) -> Box<Diagnostic> {
        let right = right.concat();
        let text = [self.key.name(), ": found ", &quote(part), "; ", &right];
        match words {
            "" => self.line.at(part, &text),
            words => self.line.error(part, &[words], &text),
        }
    }

    fn trace(&self, value: &str, notes: &mut Notes<'_>) {
        let (door, colon) = self.door.map_or(("", ""), |door| (door, ": "));
        let line = ["config: ", door, colon, self.key.row().trace, ": ", value];
        (notes.trace)(&line.concat());
    }

    /// Returns the value as a path. Warns if it seems to end in a comment.
    fn path(&self, notes: &mut Notes<'_>) -> Option<PathBuf> {
        let mut pairs = self.value.windows(2);
        if pairs.any(|pair| is_blank(pair[0]) && pair[1] == b'#') {
            let text = "all of this is the path; put a comment on its own line";
            self.line
                .at(self.value, &[text])
                .add_to(&mut notes.warnings);
        }
        (!self.value.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(self.value)))
    }

    /// Parses a decimal number within these limits, digits only: our own keys need not accept what
    /// `atoi` does.
    fn number(&self, least: u32, most: u32, of: &str) -> Result<u32, Box<Diagnostic>> {
        let number = parse_uint(self.value, most.into()).map(|number| number as u32);
        number.filter(|number| *number >= least).ok_or_else(|| {
            let right = format!("give {least} to {most} {of}");
            self.wrong(self.value, "syntax error", &[&right])
        })
    }
}

/// Returns whether the door has a list. Until all keys are read, a list without a path stands for
/// neither list nor sequence.
pub(super) fn has_list(trigger: &Trigger<PathBuf>) -> bool {
    matches!(trigger, Trigger::OneTime(path) if !path.as_os_str().is_empty())
}

/// Parses the value. knockd 0.8 traces some values before it looks at them, so also before an
/// error.
pub(super) fn set(
    slot: Field<'_>,
    given: KeyValue<'_>,
    notes: &mut Notes<'_>,
) -> Result<(), Box<Diagnostic>> {
    let KeyValue { line, value, .. } = given;
    let is_traced = match slot {
        Field::Switch(_) | Field::Time(_) | Field::Steps(_) | Field::Flags(_) => false,
        Field::Interfaces(_) | Field::List(_) => !value.is_empty(),
        _ => true,
    };
    if is_traced {
        given.trace(&String::from_utf8_lossy(value), notes);
    }
    match slot {
        Field::Switch(on) => {
            (notes.trace)("config: usesyslog");
            *on = true;
        }
        Field::Word(is_second, words) => {
            let is = |(word, _): &(&str, &str)| word.as_bytes().eq_ignore_ascii_case(value);
            let Some(index) = words.iter().position(is) else {
                let right = ["use ", words[0].0, " or ", words[1].0];
                return Err(given.wrong(value, "syntax error", &right));
            };
            *is_second = index == 1;
        }
        Field::Number(place, least, most, of) => *place = given.number(least, most, of)?,
        Field::Seconds(place, most) => {
            *place = u64::from(given.number(1, most, "seconds")?) * 1000;
        }
        Field::Time(place) => {
            let seconds = seconds(&given, notes)?;
            given.trace(&shown(&seconds), notes);
            // sleep() takes an unsigned number.
            *place = u64::from(seconds as u32) * 1000;
        }
        Field::Path(place) => *place = given.path(notes),
        Field::Directory(place) => match given.path(notes) {
            Some(path) if path.is_absolute() => *place = path,
            _ => {
                let right = ["give a path that begins with '/'"];
                return Err(given.wrong(value, "syntax error", &right));
            }
        },
        Field::List(place) => match given.path(notes) {
            Some(path) => *place = Trigger::OneTime(path),
            None => {
                let mut error = given.wrong(value, "", &["give the path of a file"]);
                error.knockd_wording = Some("No such file or directory".into());
                return Err(error);
            }
        },
        Field::Command(place) => {
            if value.len() > MAX_COMMAND {
                const { assert!(MAX_COMMAND == 4095) };
                let text = "a command longer than 4095 bytes is never run";
                line.at(value, &[text]).add_to(&mut notes.warnings);
            }
            *place = Some(value.to_vec());
        }
        Field::Interfaces(place) => match interfaces(&given) {
            Ok(list) => *place = list,
            Err(problem) if notes.names_interface => problem.add_to(&mut notes.warnings),
            Err(problem) => return Err(problem),
        },
        Field::Ports(place) => *place = tripwire(&given, notes)?,
        Field::Networks(place) => *place = networks(&given)?,
        Field::Steps(place) => {
            let at = (line.number, line.column(value));
            let door = given.door.unwrap_or_default();
            let sequence = parse_sequence(door, at, value, &mut notes.warnings)?;
            given.trace(&shown(&sequence), notes);
            if !has_list(place) {
                *place = Trigger::Sequence(sequence);
            }
        }
        Field::Flags(place) => tcp_flags(&given, place, notes)?,
        Field::Address(place) => *place = Some(target(&given)?),
    }
    Ok(())
}
