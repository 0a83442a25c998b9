//! Parses a config line by line to a [`Config`], with the errors and debug lines of knockd 0.8.
#![forbid(unsafe_code)]

use super::finish::{
    finish_door, finish_options, is_nearly_options, no_sequence, useless_tripwires,
};
use super::keys::{Key, Seen, key_names, nearest};
use super::line::{ConfigLine, Content, is_blank, trim};
use super::options::Setting;
use super::set::{KeyValue, Notes, has_list, set};
use super::{Commands, Config, Diagnostic, DoorConfig, Options};
use crate::knock::{FlagRule, Trigger};
use crate::limits::{MAX_CONFIG_BYTES, MAX_CONFIG_LINE, MAX_DOOR_NAME, MAX_DOORS};
use crate::util::quote::quote;
use crate::util::text::shown;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Bytes that knockd 0.8 reads at once, including the newline.
const KNOCKD_LINE: usize = 4095;

const USE_SYSLOG: Key = Key::of("UseSyslog");

/// What is wrong with a value of it.
const STANDS_ALONE: &str = "UseSyslog stands alone, without '=': its presence turns syslog on";

/// Parses a complete config file. `trace` receives the lines of knockd 0.8's `-D` in their order,
/// also before an error. Does not open one-time files. The bytes need not be UTF-8: commands and
/// paths keep theirs, names of doors become text (with U+FFFD for what is not).
pub fn parse(text: &[u8], trace: &mut dyn FnMut(&str)) -> Result<Config, Box<Diagnostic>> {
    parse_beside(text, false, trace)
}

/// The same if the command line may name the interface: then an impossible name in the file is only
/// a warning.
pub fn parse_beside(
    text: &[u8],
    names_interface: bool,
    trace: &mut dyn FnMut(&str),
) -> Result<Config, Box<Diagnostic>> {
    if text.len() > MAX_CONFIG_BYTES {
        const { assert!(MAX_CONFIG_BYTES == 1 << 20) };
        return Err(Diagnostic::at((0, 0), &["longer than 1 MiB"]));
    }
    let utf16 = text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff");
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut parser = Parser {
        options: Options::default(),
        seen: vec![Seen::new()],
        doors: Vec::new(),
        section: Section::None,
        notes: Notes {
            warnings: Vec::new(),
            singles: Vec::new(),
            names_interface,
            trace,
        },
    };
    for (index, text) in text.split(|b| *b == b'\n').enumerate() {
        let line = ConfigLine {
            number: index + 1,
            text,
        };
        if let Some(nul) = text.iter().position(|b| *b == 0) {
            let cause = match utf16 {
                true => "the file is UTF-16: save it as UTF-8; a config is plain text",
                false => "a NUL byte; a config is plain text",
            };
            return Err(line.at(&text[nul..], &[cause]));
        }
        parser.line(line)?;
    }
    parser.finish()
}

/// Recovers `StateDir` from a config that does not parse: from the last line with that key.
pub fn salvage_options(text: &[u8]) -> Options {
    let lines = text.split(|b| *b == b'\n');
    let mut paths = lines.filter_map(|text| match (ConfigLine { number: 0, text }).content() {
        Content::Pair { key, value }
            if Key::from_name(key) == Some(const { Key::of("StateDir") }) =>
        {
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

/// Creates a door of which only the header was read, with knockd 0.8's defaults.
pub(crate) fn door(name: String, line: usize) -> DoorConfig {
    DoorConfig {
        name,
        line,
        trigger: Trigger::OneTime(PathBuf::new()),
        seq_timeout: 25_000,
        flags: FlagRule::default(),
        target: None,
        start: Commands::default(),
        stop: Commands::default(),
        cmd_timeout: 10_000,
    }
}

/// Describes what a key without a value lacks.
fn lacks(key: Key, what: &str) -> [&str; 4] {
    [key.name(), what, key.name(), " = ..."]
}

#[derive(Clone, Copy)]
enum Section {
    None,
    Options,
    /// The last of them.
    Door,
}

struct Parser<'t> {
    options: Options,
    /// For the options, then for each door.
    seen: Vec<Seen>,
    doors: Vec<DoorConfig>,
    section: Section,
    notes: Notes<'t>,
}

impl Parser<'_> {
    fn line(&mut self, line: ConfigLine<'_>) -> Result<(), Box<Diagnostic>> {
        let content = line.content();
        if line.text.len() > MAX_CONFIG_LINE && !matches!(content, Content::Nothing) {
            const { assert!(MAX_CONFIG_LINE == 16384) };
            let text = "this line is too long; give at most 16384 bytes";
            return Err(line.at(line.text, &[text]));
        }
        match content {
            Content::Nothing => return Ok(()),
            Content::Section(name) => self.header(line, name)?,
            Content::Word(word) => self.directive(line, word, None)?,
            Content::Pair { key, value } => self.directive(line, key, Some(value))?,
        }
        if line.text.len() >= KNOCKD_LINE {
            const { assert!(KNOCKD_LINE == 4095) };
            let text = "knockd 0.8 would cut this line after 4095 bytes";
            line.at(line.text, &[text]).add_to(&mut self.notes.warnings);
        }
        Ok(())
    }

    fn header(&mut self, line: ConfigLine<'_>, name: &[u8]) -> Result<(), Box<Diagnostic>> {
        let shown = String::from_utf8_lossy(name).into_owned();
        let text = ["config: new section: '", &shown, "'"].concat();
        (self.notes.trace)(&text);
        if name.is_empty() {
            let text = "a section needs a name: [options], or a name of your own for a door";
            return Err(line.error(trim(line.text), &["bad section name"], &[text]));
        }
        if name == b"options" {
            self.section = Section::Options;
            return Ok(());
        }
        if shown.len() > MAX_DOOR_NAME {
            const { assert!(MAX_DOOR_NAME == 1023) };
            return Err(line.at(name, &["this name is too long; give at most 1023 bytes"]));
        }
        if self.doors.len() == MAX_DOORS {
            const { assert!(MAX_DOORS == 256) };
            return Err(line.at(name, &["more than 256 doors"]));
        }
        if name.contains(&b']') || name.contains(&b'[') {
            let after = ", up to the last ']' of the line; a comment needs a line of its own";
            let text = ["the name of this door is ", &quote(name), after];
            line.at(name, &text).add_to(&mut self.notes.warnings);
        } else if trim(name).len() != name.len() {
            let after = " belong to the name of the door";
            let text = ["the blanks in ", &quote(name), after];
            line.at(name, &text).add_to(&mut self.notes.warnings);
        }
        self.doors.push(door(shown, line.number));
        self.seen.push(Seen::new());
        self.section = Section::Door;
        Ok(())
    }

    /// Handles `name = value`, or `name` alone.
    fn directive(
        &mut self,
        line: ConfigLine<'_>,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Box<Diagnostic>> {
        let words = match self.section {
            Section::None => "all directives must belong to a section",
            _ => "syntax error",
        };
        let wrong = |text: &[&str]| line.error(name, &[words], text);
        if trim(line.text).starts_with(b"[") {
            let text =
                "a section is written [name], alone on its line; a comment needs a line of its own";
            return Err(wrong(&[text]));
        }
        let Some(key) = Key::from_name(name) else {
            return Err(wrong(&[&self.unknown(name, value.is_some())]));
        };
        let in_door = match self.section {
            Section::None => {
                let header = match key.is_option() {
                    true => " must stand below [options]",
                    false => " must stand below the [name] of its door",
                };
                return Err(wrong(&[&quote(name), header]));
            }
            Section::Options => false,
            Section::Door => true,
        };
        match (key == USE_SYSLOG, value) {
            (true, None) if in_door => {
                let text = "UseSyslog belongs below [options]; it counts for all doors";
                line.at(name, &[text]).add_to(&mut self.notes.warnings);
            }
            (true, None) => {}
            (true, Some(_)) => return Err(wrong(&[STANDS_ALONE])),
            (false, None) => return Err(wrong(&lacks(key, " needs a value: "))),
            _ if key.is_option() == in_door => {
                return Err(wrong(&[key.name(), self.misplaced(key)]));
            }
            _ => {}
        }
        self.note_repetition(line, name, key);
        let (slot, door) = match (key.row().place, self.doors.last_mut()) {
            (Setting::Options(slot), _) => (slot(&mut self.options), None),
            (Setting::Door(slot), Some(door)) => {
                let name = door.name.clone();
                (slot(door), Some(name))
            }
            // The key of a door is in a door.
            (Setting::Door(_), None) => return Ok(()),
        };
        let given = KeyValue {
            line,
            key,
            value: value.unwrap_or_default(),
            door: door.as_deref(),
        };
        set(slot, given, &mut self.notes)
    }

    /// Describes what is wrong with a word that is not a key.
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
        let end = name.iter().position(|b| is_blank(*b) || *b == b':');
        if let Some(end) = end
            && let Some(key) = Key::from_name(&name[..end])
            && (near.is_none() || !has_value)
        {
            return match key == USE_SYSLOG {
                true => STANDS_ALONE.into(),
                false => lacks(key, " needs a '=' before its value: ").concat(),
            };
        }
        let what = match has_value {
            true => "unknown key ",
            false => "unknown word ",
        };
        let legal;
        let (hint, names, end) = match (near, self.section) {
            (Some(near), _) => ("did you mean ", near, "?"),
            (None, Section::None) => ("a config begins with [options] or a door's [name]", "", ""),
            (None, _) => {
                legal = key_names(options).join(", ");
                let has = if options {
                    "[options] has "
                } else {
                    "a door has "
                };
                (has, legal.as_str(), "")
            }
        };
        [what, &quote(name), "; ", hint, names, end].concat()
    }

    /// Describes what is wrong with a key in the wrong kind of section.
    fn misplaced(&self, key: Key) -> &'static str {
        match (key.is_option(), self.doors.last()) {
            (true, Some(door)) if is_nearly_options(&door.name) => {
                " belongs below [options], in lower case, no blanks"
            }
            (true, _) => " belongs below [options], not in a door",
            (false, _) => " belongs in a door, below a [name] of its own",
        }
    }

    fn note_repetition(&mut self, line: ConfigLine<'_>, name: &[u8], key: Key) {
        let section = if key.is_option() { 0 } else { self.doors.len() };
        let Some(seen) = self.seen.get_mut(section) else {
            return;
        };
        let before = seen.note(key, (line.number, line.column(name)));
        // Flags add up, and a second UseSyslog has no effect.
        if before > 0 && key != USE_SYSLOG && key != const { Key::of("tcpflags") } {
            let text = [
                key.name(),
                " was given on line ",
                &shown(&before),
                " too; this one counts",
            ];
            line.at(name, &text).add_to(&mut self.notes.warnings);
        }
    }

    /// Checks the complete file: doors without sequence, fallbacks, contradictions.
    fn finish(mut self) -> Result<Config, Box<Diagnostic>> {
        for door in &self.doors {
            if !has_list(&door.trigger) && door.sequence().is_none() {
                return Err(no_sequence(door));
            }
        }
        let warnings = &mut self.notes.warnings;
        if self.doors.is_empty() {
            Diagnostic::at((0, 0), &["no doors: nothing can be opened"]).add_to(warnings);
        }
        finish_options(&mut self.options, &self.seen[0], warnings);
        for (door, seen) in self.doors.iter_mut().zip(&self.seen[1..]) {
            finish_door(door, seen, warnings);
        }
        useless_tripwires(&self.notes.singles, &self.doors, warnings);
        Ok(Config {
            options: self.options,
            doors: self.doors,
            warnings: self.notes.warnings,
        })
    }
}
