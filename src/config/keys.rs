//! Finds keys by name or alias, and suggests keys for misspelled words.
#![forbid(unsafe_code)]

use super::options::{DOCUMENTED, KEYS, ROWS, Row, Setting};

/// A key: its row in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u8);

impl Key {
    /// Returns the key of that name. An unknown name does not compile.
    pub const fn of(name: &str) -> Key {
        let mut i = 0;
        while !are_equal(DOCUMENTED[i].row.name.as_bytes(), name.as_bytes()) {
            i += 1;
        }
        Key(i as u8)
    }

    /// Returns the key of that name in any case.
    pub fn from_name(name: &[u8]) -> Option<Key> {
        let mut keys = (0..KEYS as u8).map(Key).filter(|_| !name.is_empty());
        keys.find(|key| {
            names(key.row())
                .iter()
                .any(|n| n.as_bytes().eq_ignore_ascii_case(name))
        })
    }

    /// Returns the keys of `[options]` after this one.
    pub fn after(self) -> impl Iterator<Item = Key> {
        let rows = ROWS.iter().skip(usize::from(self.0) + 1);
        let number = rows.take_while(|row| is_option(row)).count() as u8;
        (self.0 + 1..=self.0 + number).map(Key)
    }

    pub fn row(self) -> &'static Row {
        &ROWS[usize::from(self.0)]
    }

    /// The main name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns whether it belongs in `[options]`; otherwise it belongs in a door.
    pub fn is_option(self) -> bool {
        is_option(self.row())
    }
}

const fn are_equal(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

fn is_option(row: &Row) -> bool {
    matches!(row.place, Setting::Options(_))
}

/// The name, then the alias if there is one.
fn names(row: &Row) -> [&'static str; 2] {
    [row.name, row.alias]
}

/// The last position of each key in a section: line and column. Line 0 means not given.
pub(crate) struct Seen([(usize, usize); KEYS]);

impl Seen {
    pub fn new() -> Seen {
        Seen([(0, 0); KEYS])
    }

    /// Records the position of a key. Returns the line of its previous position, or 0.
    pub fn note(&mut self, key: Key, place: (usize, usize)) -> usize {
        std::mem::replace(&mut self.0[usize::from(key.0)], place).0
    }

    pub fn place(&self, key: Key) -> (usize, usize) {
        self.0[usize::from(key.0)]
    }

    pub fn has(&self, key: Key) -> bool {
        self.place(key).0 > 0
    }
}

/// Returns the names and aliases that are valid in `[options]`, or in a door.
pub fn key_names(options: bool) -> Vec<&'static str> {
    let mut all = Vec::new();
    for row in ROWS.iter().filter(|row| is_option(row) == options) {
        all.extend(names(row).iter().filter(|name| !name.is_empty()));
    }
    all
}

/// Suggests a name for a misspelled one if it is similar: up to a third of its letters may differ.
/// Prefers names that are valid in this kind of section.
pub(crate) fn nearest(misspelt: &[u8], options: bool) -> Option<&'static str> {
    let mut best: Option<(bool, u8, &'static str)> = None;
    for row in &ROWS {
        for name in names(row) {
            let distance = distance(name.as_bytes(), misspelt)?;
            let is_near = usize::from(distance) <= name.len().div_ceil(3);
            let found = (is_option(row) != options, distance, name);
            if is_near
                && !name.is_empty()
                && best.is_none_or(|best| (found.0, found.1) < (best.0, best.1))
            {
                best = Some(found);
            }
        }
    }
    best.map(|(_, _, name)| name)
}
/// Returns the Levenshtein distance, ignoring case. `None` for a word that is too long to be a
/// misspelled key.
fn distance(name: &[u8], word: &[u8]) -> Option<u8> {
    const LONGEST: usize = 31;
    if word.len() > LONGEST {
        return None;
    }
    let mut row: [u8; LONGEST + 1] = std::array::from_fn(|i| i as u8);
    for (i, a) in name.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i as u8 + 1;
        for (j, b) in word.iter().enumerate() {
            let replaced = diagonal + u8::from(!a.eq_ignore_ascii_case(b));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    Some(row[word.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_key_in_any_case() {
        for (index, row) in ROWS.iter().enumerate() {
            for name in names(row).into_iter().filter(|name| !name.is_empty()) {
                let key = Some(Key(index as u8));
                assert_eq!(Key::from_name(name.to_uppercase().as_bytes()), key);
                assert_eq!(Key::from_name(name.to_lowercase().as_bytes()), key);
                assert_eq!(nearest(name.as_bytes(), is_option(row)), Some(name));
            }
        }
        assert_eq!(Key::from_name(b""), None);
        assert_eq!(Key::of("start_command").name(), "start_command");
    }

    #[test]
    fn a_misspelt_key_finds_the_right_one_and_nonsense_finds_none() {
        for (word, name) in [
            ("sequense", "sequence"),
            ("seqtimeout", "seq_timeout"),
            ("start command", "start_command"),
            ("use_syslog", "UseSyslog"),
            ("tcp_flags", "tcpflags"),
            ("onetimesequences", "one_time_sequences"),
        ] {
            assert_eq!(nearest(word.as_bytes(), false), Some(name), "{word}");
        }
        assert_eq!(nearest(b"command_timeout", false), Some("cmd_timeout"));
        assert_eq!(nearest(b"command_timeout", true), Some("CommandTimeout"));
        for nonsense in [&b"foo"[..], b"", &[b'a'; 300]] {
            assert_eq!(nearest(nonsense, false), None);
        }
    }
}
