//! Line by line from the text of a config to a [`Config`], with knockd 0.8's errors and debug lines.
#![forbid(unsafe_code)]

use super::bans::BanDraft;
use super::draft::{Draft, Seen, at, is_nearly_options};
use super::keys::{Key, legal_names, nearest};
use super::line::{Content, Line, is_blank, trim};
use super::tripwire::{Single, futile, tripwire};
use super::values::{choice, interfaces, not_right, number_within, path};
use super::{Config, Diagnostic, Door, Options, Reknock};
use crate::door::Matching;
use crate::limits::{
    COMMANDS, MAX_ATTEMPTS, MAX_COMMAND_TIMEOUT_S, MAX_COMMANDS, MAX_CONFIG_BYTES, MAX_CONFIG_LINE,
    MAX_DOORS, MAX_NAME,
};
use crate::quote::quote;
use crate::tripwire::Tripwire;
use std::ffi::OsStr;
use std::fmt;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Bytes that knockd 0.8 reads of one line at a time, its newline included.
const KNOCKD_LINE: usize = 4095;

/// What is wrong with a value of it.
const STANDS_ALONE: &str = "UseSyslog stands alone, without '=': its presence turns syslog on";

/// Parses a whole config file. `trace` gets the lines of knockd 0.8's `-D` as they arise, also before an error.
///
/// One-time files are not opened here: a door with one has no sequence yet. The bytes need not be UTF-8: commands and
/// paths keep theirs, names of doors become text (U+FFFD for what is not).
pub fn parse(text: &[u8], trace: &mut dyn FnMut(&str)) -> Result<Config, Box<Diagnostic>> {
    parse_beside(text, false, trace)
}

/// The same where the command line may name the interface: then one that cannot be, in the file, is a warning only.
pub fn parse_beside(
    text: &[u8],
    names_interface: bool,
    trace: &mut dyn FnMut(&str),
) -> Result<Config, Box<Diagnostic>> {
    if text.len() > MAX_CONFIG_BYTES {
        return Err(whole_file(format!("longer than {MAX_CONFIG_BYTES} bytes")).into());
    }
    let utf16 = text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff");
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut parser = Parser {
        options: Options::default(),
        options_seen: Seen::default(),
        doors: Vec::new(),
        section: Section::None,
        single_tripwires: Vec::new(),
        bans: BanDraft::default(),
        warnings: Vec::new(),
        names_interface,
        trace,
    };
    for (index, text) in text.split(|b| *b == b'\n').enumerate() {
        let line = Line {
            number: index + 1,
            text,
        };
        if let Some(nul) = text.iter().position(|b| *b == 0) {
            let cause = if utf16 {
                "the file is UTF-16: save it as UTF-8"
            } else {
                "a NUL byte"
            };
            return Err(line
                .at(&text[nul..], format!("{cause}; a config is plain text"))
                .into());
        }
        parser.line(line)?;
    }
    parser.finish()
}

/// What can be said of the options of a config that is wrong somewhere: its `StateDir`, by the last line with that key.
pub fn options_of_broken(text: &[u8]) -> Options {
    let lines = text.split(|b| *b == b'\n');
    let mut paths = lines.filter_map(|text| match (Line { number: 0, text }).content() {
        Content::Pair { key, value } if Key::from_name(key) == Some(Key::StateDir) => {
            Some(PathBuf::from(OsStr::from_bytes(value))).filter(|path| path.is_absolute())
        }
        _ => None,
    });
    let mut options = Options::default();
    if let Some(path) = paths.next_back() {
        options.state_dir = path;
    }
    options
}

fn whole_file(text: String) -> Diagnostic {
    Diagnostic {
        line: 0,
        column: 0,
        knockd_wording: None,
        text,
    }
}

#[derive(Clone, Copy)]
enum Section {
    None,
    Options,
    /// The last of the drafts.
    Door,
}

struct Parser<'t> {
    options: Options,
    options_seen: Seen,
    doors: Vec<Draft>,
    section: Section,
    single_tripwires: Vec<Single>,
    bans: BanDraft,
    warnings: Vec<Diagnostic>,
    /// See [`parse_beside`].
    names_interface: bool,
    trace: &'t mut dyn FnMut(&str),
}

impl Parser<'_> {
    fn line(&mut self, line: Line<'_>) -> Result<(), Box<Diagnostic>> {
        let content = line.content();
        if line.text.len() > MAX_CONFIG_LINE && !matches!(content, Content::Nothing) {
            let text = format!(
                "this line has {} bytes; give at most {MAX_CONFIG_LINE}",
                line.text.len()
            );
            return Err(line.at(line.text, text).into());
        }
        match content {
            Content::Nothing => return Ok(()),
            Content::Section(name) => self.header(line, name)?,
            Content::Word(word) => self.directive(line, word, None)?,
            Content::Pair { key, value } => self.directive(line, key, Some(value))?,
        }
        if line.text.len() >= KNOCKD_LINE {
            let text = format!(
                "this line has {} bytes; knockd 0.8 would cut it after {KNOCKD_LINE}",
                line.text.len()
            );
            self.warnings.push(line.at(line.text, text));
        }
        Ok(())
    }

    fn header(&mut self, line: Line<'_>, name: &[u8]) -> Result<(), Box<Diagnostic>> {
        let shown = String::from_utf8_lossy(name).into_owned();
        (self.trace)(&format!("config: new section: '{shown}'"));
        if name.is_empty() {
            let text = "a section needs a name: [options], or a name of your own for a door";
            return Err(line.error(trim(line.text), "bad section name", text.into()));
        }
        if name == b"options" {
            self.section = Section::Options;
            return Ok(());
        }
        if shown.len() > MAX_NAME {
            let text = format!(
                "the name of this door has {} bytes; give it at most {MAX_NAME}",
                shown.len()
            );
            return Err(line.at(name, text).into());
        }
        if self.doors.len() == MAX_DOORS {
            return Err(line.at(name, format!("more than {MAX_DOORS} doors")).into());
        }
        if name.contains(&b']') || name.contains(&b'[') {
            let text = format!(
                "the name of this door is {}, up to the last ']' of the line; a comment needs a line of its own",
                quote(name)
            );
            self.warnings.push(line.at(name, text));
        } else if trim(name).len() != name.len() {
            let text = format!(
                "the blanks in {} belong to the name of the door",
                quote(name)
            );
            self.warnings.push(line.at(name, text));
        }
        self.doors.push(Draft::new(shown, line.number));
        self.section = Section::Door;
        Ok(())
    }

    /// A line that is no header: `name = value`, or `name` alone.
    fn directive(
        &mut self,
        line: Line<'_>,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Box<Diagnostic>> {
        let words = match self.section {
            Section::None => "all directives must belong to a section",
            _ => "syntax error",
        };
        let wrong = |text: String| line.error(name, words, text);
        if trim(line.text).starts_with(b"[") {
            let text =
                "a section is written [name], alone on its line; a comment needs a line of its own";
            return Err(wrong(text.into()));
        }
        let Some(key) = Key::from_name(name) else {
            return Err(wrong(self.unknown(name, value.is_some())));
        };
        let in_door = match self.section {
            Section::None => {
                let header = if key.is_option() {
                    "[options]"
                } else {
                    "the [name] of its door"
                };
                return Err(wrong(format!("{} must stand below {header}", quote(name))));
            }
            Section::Options => false,
            Section::Door => true,
        };
        match (key, value) {
            (Key::UseSyslog, None) if in_door => {
                let text = "UseSyslog belongs below [options]; it counts for all doors";
                self.warnings.push(line.at(name, text.into()));
            }
            (Key::UseSyslog, None) => {}
            (Key::UseSyslog, Some(_)) => {
                return Err(wrong(STANDS_ALONE.into()));
            }
            (_, None) => {
                return Err(wrong(format!("{0} needs a value: {0} = ...", key.name())));
            }
            _ if key.is_option() == in_door => return Err(wrong(self.misplaced(key))),
            _ => {}
        }
        self.note_repetition(line, name, key);
        match (value, self.doors.last_mut()) {
            (None, _) => {
                (self.trace)("config: usesyslog");
                self.options.use_syslog = true;
                Ok(())
            }
            (Some(value), Some(door)) if in_door => {
                door.set(line, key, value, &mut self.warnings, self.trace)
            }
            (Some(value), _) => self.set_option(line, key, value),
        }
    }

    /// What is wrong with a word that is no key.
    fn unknown(&self, name: &[u8], has_value: bool) -> String {
        if name.starts_with(b";") {
            return "a comment begins with '#', not with ';'".into();
        }
        if name.is_empty() {
            return "no key before the '='".into();
        }
        if !name[0].is_ascii_alphabetic() && name[0].is_ascii() {
            return "a line begins with a key, a comment with '#'; a value cannot go on from the line before".into();
        }
        if name.eq_ignore_ascii_case(b"seq_cooldown") {
            return "seq_cooldown is not a key of knockd; use cmd_timeout with stop_command = true"
                .into();
        }
        let options = matches!(self.section, Section::Options);
        let near = nearest(name, options);
        let mut words = name.split(|b| is_blank(*b) || *b == b':');
        let first = words.next().and_then(Key::from_name);
        if let (Some(key), Some(_)) = (first, words.next())
            && (near.is_none() || !has_value)
        {
            return match key {
                Key::UseSyslog => STANDS_ALONE.into(),
                _ => format!("{0} needs a '=' before its value: {0} = ...", key.name()),
            };
        }
        let what = if has_value {
            "unknown key"
        } else {
            "unknown word"
        };
        let mut text = format!("{what} {}; ", quote(name));
        match (near, self.section) {
            (Some(near), _) => {
                text.push_str("did you mean ");
                text.push_str(near);
                text.push('?');
            }
            (None, Section::None) => {
                text.push_str("a config begins with [options] or a door's [name]")
            }
            (None, _) => {
                text.push_str(if options {
                    "[options] has "
                } else {
                    "a door has "
                });
                text.push_str(&legal_names(options));
            }
        }
        text
    }

    /// What is wrong with a key in the wrong kind of section.
    fn misplaced(&self, key: Key) -> String {
        match (key.is_option(), self.doors.last()) {
            (true, Some(door)) if is_nearly_options(&door.name) => format!(
                "{} belongs below [options]; line {} begins a door '{}': write [options]",
                key.name(),
                door.line,
                door.name
            ),
            (true, _) => format!("{} belongs below [options], not in a door", key.name()),
            (false, _) => {
                format!(
                    "{} belongs in a door, below a [name] of its own",
                    key.name()
                )
            }
        }
    }

    fn note_repetition(&mut self, line: Line<'_>, name: &[u8], key: Key) {
        let seen = match self.doors.last_mut() {
            Some(door) if !key.is_option() => &mut door.seen,
            _ => &mut self.options_seen,
        };
        let before = seen.note(key, (line.number, line.column(name)));
        // Flags add up, and UseSyslog says the same twice.
        if before > 0 && !matches!(key, Key::TcpFlags | Key::UseSyslog) {
            let text = format!(
                "{} was given on line {before} too; this one counts",
                key.name()
            );
            self.warnings.push(line.at(name, text));
        }
    }

    fn set_option(
        &mut self,
        line: Line<'_>,
        key: Key,
        value: &[u8],
    ) -> Result<(), Box<Diagnostic>> {
        let shown = String::from_utf8_lossy(value);
        let warnings = &mut self.warnings;
        let mut path = || (!value.is_empty()).then(|| path(line, value, warnings));
        let wrong = |right: &str| not_right(line, key, value, &right);
        let number = |bounds: RangeInclusive<u64>, right: &dyn fmt::Display| {
            number_within(line, key, value, bounds, right)
        };
        let mut trace = |name: &str| (self.trace)(&format!("config: {name}: {shown}"));
        match key {
            Key::LogFile => {
                trace("log file");
                self.options.log_file = path();
            }
            Key::PidFile => {
                trace("pid file");
                self.options.pid_file = path();
            }
            Key::Interface => {
                if !value.is_empty() {
                    trace("interface");
                }
                match interfaces(line, value) {
                    Ok(list) => self.options.interface = list,
                    Err(problem) if self.names_interface => self.warnings.push(*problem),
                    Err(problem) => return Err(problem),
                }
            }
            Key::Matching => {
                trace("matching");
                self.options.matching = match choice(value, &["tolerant", "strict"]) {
                    Some(0) => Matching::Tolerant,
                    Some(_) => Matching::Strict,
                    None => return Err(wrong("use tolerant or strict")),
                };
            }
            Key::Reknock => {
                trace("reknock");
                self.options.reknock = match choice(value, &["renew", "stack"]) {
                    Some(0) => Reknock::Renew,
                    Some(_) => Reknock::Stack,
                    None => return Err(wrong("use renew or stack")),
                };
            }
            Key::LogRate => {
                trace("log rate");
                let right = "give lines per second such as 50, or 0 for no bound";
                self.options.log_rate = number(0..=u64::from(u32::MAX), &right)? as u32;
            }
            Key::CommandTimeout => {
                trace("time for commands");
                const MOST: u64 = MAX_COMMAND_TIMEOUT_S;
                let right = format_args!("give whole seconds, 1 to {MOST}, such as 600");
                self.options.command_timeout = number(1..=MOST, &right)? * 1000;
            }
            Key::MaxCommands => {
                trace("max commands");
                let right =
                    format_args!("give a number from 1 to {MAX_COMMANDS}, such as {COMMANDS}");
                self.options.max_commands = number(1..=MAX_COMMANDS as u64, &right)? as usize;
            }
            Key::MaxAttempts => {
                trace("max attempts");
                let (least, most) = MAX_ATTEMPTS.into_inner();
                let right = format_args!("give a number from {least} to {most}");
                self.options.max_attempts = number(least as u64..=most as u64, &right)? as u16;
            }
            Key::Tripwire => {
                trace("tripwire");
                self.options.tripwire = tripwire(line, value, &mut self.single_tripwires)?;
            }
            Key::StateDir => {
                trace("state directory");
                self.options.state_dir = path()
                    .filter(|p| p.is_absolute())
                    .ok_or_else(|| wrong("give a path that begins with '/'"))?;
            }
            _ => {
                trace(key.name());
                self.bans.set(line, key, value, &mut self.warnings)?;
            }
        }
        Ok(())
    }

    /// What only the whole file shows: doors without sequence, fallbacks, contradictions.
    fn finish(mut self) -> Result<Config, Box<Diagnostic>> {
        if let Some(door) = self.doors.iter().find(|d| !d.has_knock()) {
            return Err(door.no_sequence().into());
        }
        if self.doors.is_empty() {
            self.warnings
                .push(whole_file("no doors: nothing can be opened".into()));
        }
        if self.options.matching == Matching::Strict {
            if self.options.reknock == Reknock::Renew && self.options_seen.has(Key::Reknock) {
                let text = "Matching = strict is knockd 0.8's way and implies Reknock = stack";
                self.warnings
                    .push(at(self.options_seen.place(Key::Reknock), text));
            }
            if self.options.tripwire != Tripwire::None {
                let text = "Matching = strict is knockd 0.8's way and has no tripwires";
                self.warnings
                    .push(at(self.options_seen.place(Key::Tripwire), text));
            }
            self.options.be_strict();
        }
        let warnings = &mut self.warnings;
        let trips = self.options.tripwire != Tripwire::None;
        self.options.bans = self.bans.finish(trips, &self.options_seen, warnings);
        let mut doors: Vec<Door> = Vec::new();
        for door in self.doors {
            doors.push(door.finish(warnings));
        }
        warnings.extend(futile(&self.single_tripwires, &doors));
        let mut warnings: Vec<Diagnostic> = Vec::new();
        for warning in self.warnings {
            let place = (warning.line, warning.column);
            let at = warnings.partition_point(|other| (other.line, other.column) <= place);
            warnings.insert(at, warning);
        }
        Ok(Config {
            options: self.options,
            doors,
            warnings,
        })
    }
}
