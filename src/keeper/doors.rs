//! The keeper's doors: the config of each, and the current one-time sequence.
#![forbid(unsafe_code)]

use super::one_time::OneTimeList;
use crate::config;
use crate::knock::{Sequence, Trigger};
use crate::limits::{LOG_BURST, MAX_COMMAND, OPENINGS_BURST, OPENINGS_PER_SECOND};
use crate::sys::clock::monotonic;
use crate::util::text::shown;
use crate::util::token_bucket::TokenBucket;
use std::net::IpAddr;
use std::path::Path;

/// One door.
pub struct DoorRuntime {
    /// Its config.
    pub config: config::DoorConfig,
    /// Its current trigger.
    pub trigger: Trigger<OneTimeList>,
    /// Counts the sequences sent to the current listener for it.
    pub generation: u32,
    /// Bounds how often it opens.
    pub openings: TokenBucket,
    /// Bounds the lines about its openings.
    pub lines: TokenBucket,
}

impl DoorRuntime {
    /// Returns the sequence that opens it now, or `None` while it is disabled.
    pub fn sequence(&self) -> Option<&Sequence> {
        match &self.trigger {
            Trigger::Sequence(sequence) => Some(sequence),
            Trigger::OneTime(list) => list.current.as_ref(),
        }
    }

    /// Returns whether each of its sequences opens it only once.
    pub fn is_one_time(&self) -> bool {
        matches!(self.trigger, Trigger::OneTime(_))
    }
}

/// knockd 0.8's message for a list whose sequences are all used.
pub fn exhausted(door: &str) -> String {
    format!(
        "no more sequences left in the one time sequences file for door {door} --> disabling the door"
    )
}

/// Opens the doors of a config, each one-time list at its first unused line. Relative paths start
/// at `directory`. `trace` receives the lines for `-D`, `report` the errors in single lines of the
/// lists.
pub fn open(
    doors: Vec<config::DoorConfig>,
    directory: &Path,
    options: &config::Options,
    trace: &mut dyn FnMut(&str),
    report: &mut dyn FnMut(String),
) -> Result<Vec<DoorRuntime>, String> {
    let mut opened = Vec::new();
    for config in doors {
        let trigger = match &config.trigger {
            Trigger::Sequence(sequence) => Trigger::Sequence(sequence.clone()),
            Trigger::OneTime(written) => {
                let failed = |error| format!("{}: {}", written.to_string_lossy(), error);
                let name = &config.name;
                let mut file = OneTimeList::new(directory.join(written), name);
                file.check_writable().map_err(failed)?;
                let next = file.next(report).map_err(failed)?;
                let next = next.ok_or_else(|| exhausted(name))?;
                trace(&format!("new sequence for door {name}: {next}"));
                trace(&format!("config: {name}: sequence: {next}"));
                file.current = Some(next);
                Trigger::OneTime(file)
            }
        };
        let now = monotonic();
        opened.push(DoorRuntime {
            config,
            trigger,
            generation: 0,
            openings: TokenBucket::new(OPENINGS_PER_SECOND, OPENINGS_BURST, now),
            lines: TokenBucket::new(options.log_rate, LOG_BURST, now),
        });
    }
    Ok(opened)
}

/// Replaces every `%IP%` of a command. Returns `None` if the result is longer than [`MAX_COMMAND`];
/// knockd 0.8 does not run such a command either.
pub fn expand(command: &[u8], source: IpAddr) -> Option<Vec<u8>> {
    const TOKEN: &[u8] = b"%IP%";
    let source = shown(&source);
    let mut text = Vec::new();
    let mut rest = command;
    while let Some(byte) = rest.first() {
        match rest.strip_prefix(TOKEN) {
            Some(after) => {
                text.extend_from_slice(source.as_bytes());
                rest = after;
            }
            None => {
                text.push(*byte);
                rest = rest.get(1..).unwrap_or_default();
            }
        }
    }
    (text.len() <= MAX_COMMAND).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(command: &str) -> Option<String> {
        let source = "10.9.0.2".parse().unwrap();
        expand(command.as_bytes(), source).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn every_token_is_replaced_and_nothing_else() {
        let found = expanded("echo \"%IP% %IP%x %ip% %IP %%IP%% %HOST%\"").unwrap();
        assert_eq!(
            found,
            "echo \"10.9.0.2 10.9.0.2x %ip% %IP %10.9.0.2% %HOST%\""
        );
    }

    #[test]
    fn a_command_may_have_4095_bytes_when_expanded_and_no_more() {
        let fill = "a".repeat(MAX_COMMAND - 8);
        assert_eq!(expanded(&format!("{fill}%IP%")).unwrap().len(), MAX_COMMAND);
        assert_eq!(expanded(&format!("{fill}a%IP%")), None);
    }
}
