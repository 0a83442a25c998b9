//! The keys about bans.
#![forbid(unsafe_code)]

use super::draft::{Seen, at, command, resolve};
use super::keys::Key;
use super::line::{Line, trim};
use super::values::number_within;
use super::{Bans, Diagnostic};
use crate::limits::{MAX_ALLOWED, MAX_BAN_SECONDS, MAX_BANS, MAX_HITS, TRIPWIRE_WINDOW_S};
use crate::network::Network;
use crate::quote::quote;
use crate::tripwire::BanRule;

/// All of them but `TripwireHits`, without which they mean nothing.
const OTHERS: [Key; 8] = [
    Key::TripwireWindow,
    Key::BanTime,
    Key::BanCommand,
    Key::BanCommand6,
    Key::UnbanCommand,
    Key::UnbanCommand6,
    Key::MaxBans,
    Key::Allow,
];

/// What was written of them so far.
#[derive(Default)]
pub(super) struct BanDraft {
    hits: Option<u64>,
    window: Option<u64>,
    start: [Option<Vec<u8>>; 2],
    stop: [Option<Vec<u8>>; 2],
    bans: Bans,
}

impl BanDraft {
    /// One of the keys.
    pub fn set(
        &mut self,
        line: Line<'_>,
        key: Key,
        value: &[u8],
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<(), Box<Diagnostic>> {
        let number = |most: u64, what: &str| {
            let right = format_args!("give {what} from 1 to {most}");
            number_within(line, key, value, 1..=most, &right)
        };
        let seconds = || number(MAX_BAN_SECONDS, "whole seconds");
        match key {
            Key::TripwireHits => self.hits = Some(number(MAX_HITS as u64, "a number")?),
            Key::TripwireWindow => self.window = Some(seconds()?),
            Key::BanTime => self.bans.time = seconds()? * 1000,
            Key::MaxBans => self.bans.max = number(MAX_BANS as u64, "a number")? as usize,
            Key::Allow => self.bans.allow = networks(line, value)?,
            Key::BanCommand => self.start[0] = Some(command(line, value, warnings)),
            Key::BanCommand6 => self.start[1] = Some(command(line, value, warnings)),
            Key::UnbanCommand => self.stop[0] = Some(command(line, value, warnings)),
            Key::UnbanCommand6 => self.stop[1] = Some(command(line, value, warnings)),
            // No other comes here.
            _ => {}
        }
        Ok(())
    }

    /// What they mean together. `trips`: there are tripwires.
    pub fn finish(self, trips: bool, seen: &Seen, warnings: &mut Vec<Diagnostic>) -> Bans {
        let mut warn = |key: Key, text: &str| warnings.push(at(seen.place(key), text));
        if self.hits.is_none() {
            for key in OTHERS.into_iter().filter(|key| seen.has(*key)) {
                warn(
                    key,
                    "without TripwireHits nobody is banned, so this means nothing",
                );
            }
        } else if !trips {
            warn(
                Key::TripwireHits,
                "there are no tripwires, so nobody is banned; give Tripwire = auto",
            );
        }
        let (start, stop) = (resolve(&self.start), resolve(&self.stop));
        let lacks =
            |one: &Option<Vec<u8>>, other: &Option<Vec<u8>>| one.is_some() && other.is_none();
        let text = "there is no UnbanCommand for it: what it does stays, unless it ends by itself";
        if lacks(&start.v4, &stop.v4) {
            warn(Key::BanCommand, text);
        } else if lacks(&start.v6, &stop.v6) {
            let has_own = seen.has(Key::BanCommand6);
            warn(
                if has_own {
                    Key::BanCommand6
                } else {
                    Key::BanCommand
                },
                text,
            );
        }
        let rule = self.hits.filter(|_| trips).map(|hits| BanRule {
            hits: hits as u8,
            window: self.window.unwrap_or(TRIPWIRE_WINDOW_S) * 1000,
        });
        Bans {
            rule,
            start,
            stop,
            ..self.bans
        }
    }
}

/// The value of `Allow`.
fn networks(line: Line<'_>, value: &[u8]) -> Result<Vec<Network>, Box<Diagnostic>> {
    let mut networks = Vec::new();
    for part in value.split(|b| *b == b',').map(trim) {
        let text = std::str::from_utf8(part).unwrap_or_default();
        let Some(network) = Network::parse(text) else {
            let text = format!(
                "Allow: {} is no network; give addresses and networks such as 192.168.1.0/24, 2001:db8::/32",
                if part.is_empty() {
                    "nothing".into()
                } else {
                    quote(part)
                }
            );
            return Err(line.error(part, "syntax error", text));
        };
        networks.push(network);
    }
    if networks.len() > MAX_ALLOWED {
        let text = format!("Allow: more than {MAX_ALLOWED} networks");
        return Err(line.error(value, "syntax error", text));
    }
    Ok(networks)
}
