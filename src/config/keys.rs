//! The keys of the config: names, aliases, and which key a misspelt word was meant to be.
#![forbid(unsafe_code)]

/// A key, whatever its alias and case. The order is that of [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    UseSyslog,
    LogFile,
    PidFile,
    Interface,
    Matching,
    Reknock,
    LogRate,
    MaxAttempts,
    StateDir,
    CommandTimeout,
    MaxCommands,
    Tripwire,
    TripwireHits,
    TripwireWindow,
    BanTime,
    BanCommand,
    BanCommand6,
    UnbanCommand,
    UnbanCommand6,
    MaxBans,
    Allow,
    Sequence,
    OneTimeSequences,
    SeqTimeout,
    TcpFlags,
    Target,
    StartCommand,
    StartCommand6,
    CmdTimeout,
    StopCommand,
    StopCommand6,
}

/// How many keys there are.
pub(super) const KEYS: usize = Key::StopCommand6 as usize + 1;

/// Every name of every key as a person writes it; an alias follows its key.
const NAMES: [(&str, Key); KEYS + 3] = [
    ("UseSyslog", Key::UseSyslog),
    ("LogFile", Key::LogFile),
    ("PidFile", Key::PidFile),
    ("Interface", Key::Interface),
    ("Matching", Key::Matching),
    ("Reknock", Key::Reknock),
    ("LogRate", Key::LogRate),
    ("MaxAttempts", Key::MaxAttempts),
    ("StateDir", Key::StateDir),
    ("CommandTimeout", Key::CommandTimeout),
    ("MaxCommands", Key::MaxCommands),
    ("Tripwire", Key::Tripwire),
    ("TripwireHits", Key::TripwireHits),
    ("TripwireWindow", Key::TripwireWindow),
    ("BanTime", Key::BanTime),
    ("BanCommand", Key::BanCommand),
    ("BanCommand_6", Key::BanCommand6),
    ("UnbanCommand", Key::UnbanCommand),
    ("UnbanCommand_6", Key::UnbanCommand6),
    ("MaxBans", Key::MaxBans),
    ("Allow", Key::Allow),
    ("sequence", Key::Sequence),
    ("one_time_sequences", Key::OneTimeSequences),
    ("seq_timeout", Key::SeqTimeout),
    ("timeout", Key::SeqTimeout),
    ("tcpflags", Key::TcpFlags),
    ("target", Key::Target),
    ("start_command", Key::StartCommand),
    ("command", Key::StartCommand),
    ("start_command_6", Key::StartCommand6),
    ("command_6", Key::StartCommand6),
    ("cmd_timeout", Key::CmdTimeout),
    ("stop_command", Key::StopCommand),
    ("stop_command_6", Key::StopCommand6),
];

impl Key {
    /// The key of that name in any case.
    pub fn from_name(name: &[u8]) -> Option<Key> {
        NAMES
            .iter()
            .find(|(n, _)| n.as_bytes().eq_ignore_ascii_case(name))
            .map(|&(_, key)| key)
    }

    /// Its first name.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, key)| *key == self)
            .map_or("", |&(name, _)| name)
    }

    /// Whether it belongs in `[options]`; otherwise in a door.
    pub fn is_option(self) -> bool {
        (self as usize) < Key::Sequence as usize
    }
}

/// The names that are legal in `[options]`, or in a door: `a, b or c`.
pub(super) fn legal_names(options: bool) -> String {
    or_list(
        NAMES
            .iter()
            .filter(|(_, key)| key.is_option() == options)
            .map(|&(name, _)| name),
    )
}

/// `a, b or c`.
pub(super) fn or_list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        if !out.is_empty() {
            out.push_str(if words.peek().is_some() { ", " } else { " or " });
        }
        out.push_str(word);
    }
    out
}

/// The name that the misspelt one is nearest to, if it is near: a third of its letters may differ. Names that are legal where it stands
/// come first: in `[options]` or not.
pub(super) fn nearest(misspelt: &[u8], options: bool) -> Option<&'static str> {
    NAMES
        .iter()
        .filter_map(|(name, key)| {
            let distance = distance(name.as_bytes(), misspelt)?;
            let is_near = usize::from(distance) <= name.len().div_ceil(3);
            is_near.then_some((key.is_option() != options, distance, *name))
        })
        .min()
        .map(|(_, _, name)| name)
}

/// Levenshtein distance without regard to case; `None` for a word that is longer than any key could be misspelt.
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
        for (name, key) in NAMES {
            assert_eq!(Key::from_name(name.to_uppercase().as_bytes()), Some(key));
            assert_eq!(Key::from_name(name.to_lowercase().as_bytes()), Some(key));
            assert_eq!(nearest(name.as_bytes(), key.is_option()), Some(name));
        }
        assert_eq!(Key::from_name(b""), None);
        assert_eq!(Key::StartCommand.name(), "start_command");
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
