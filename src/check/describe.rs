//! Describes a config for review.
#![forbid(unsafe_code)]

use super::shadow::closed_by;
use crate::config::options::{Field, ROWS, Row, Setting};
use crate::config::{Commands, Config, DoorConfig};
use crate::knock::tripwire::Tripwire;
use crate::knock::{FlagRule, TCP_FLAGS, Trigger};
use crate::util::quote::{printable, quote};
use crate::util::text::shown;
use crate::util::time::Millis;
use std::fmt::Display;
use std::path::Path;

/// Describes the options, then for each door what to knock and what runs. Ends with a newline. Does
/// not change the config: it is mutable because the options table has places for writing.
pub fn describe(config: &mut Config) -> String {
    let mut out = String::from("Options\n");
    let bans = config.options.bans.rule();
    let mut before = String::new();
    for row in &ROWS {
        if let Setting::Options(slot) = row.place {
            about(&mut out, row, slot(&mut config.options), &mut before);
            // Without bans the other ban options have no effect.
            if row.name == "TripwireHits" && bans.is_none() {
                break;
            }
        }
    }
    for index in 0..config.doors.len() {
        about_door(&mut out, index, &mut config.doors);
    }
    out
}

/// Adds one line: a padded name and its value.
fn put(out: &mut String, what: &str, value: &str) {
    out.push_str(&format!("  {what:<20}{value}\n"));
}

/// Adds a line about a key that has a value, or whose absence has a meaning. `before` is the value
/// of the previous row: fallbacks are resolved, and a command for IPv6 is shown if it differs from
/// that for IPv4.
fn about(out: &mut String, row: &Row, slot: Field<'_>, before: &mut String) {
    let value = value(slot);
    let is_six = row.name.ends_with("_6");
    let shown = match value.as_str() {
        "" if is_six => "none",
        "" => row.absent,
        value => value,
    };
    let is_told = match is_six {
        true => value != *before,
        false => shown != "none",
    };
    if is_told {
        put(out, row.name, shown);
    }
    *before = value;
}

fn path(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// Formats a value; empty if nothing is given.
pub(super) fn value(slot: Field<'_>) -> String {
    match slot {
        Field::Switch(on) => (if *on { "on" } else { "off" }).into(),
        Field::Word(is_second, words) => {
            let (word, meaning) = words[usize::from(*is_second)];
            [word, ": ", meaning].concat()
        }
        Field::Number(number, least, _, _) if *number < least => String::new(),
        Field::Number(number, _, _, of) => format!("{number} {of}"),
        Field::Seconds(time, _) | Field::Time(time) => duration(*time),
        Field::Path(file) => file.as_deref().map_or_else(String::new, path),
        Field::Directory(directory) => path(directory),
        Field::Command(command) => command.as_deref().map_or_else(String::new, printable),
        Field::Interfaces(names) => names.clone().unwrap_or_default(),
        Field::Ports(Tripwire::None) => "none".into(),
        Field::Ports(Tripwire::Auto) => "auto: around each step, and some random ports".into(),
        Field::Ports(Tripwire::Ports(ranges)) => {
            let mut out = String::new();
            for range in ranges {
                list(&mut out, &range.low);
                if range.high != range.low {
                    out.push_str(&format!("-{}", range.high));
                }
            }
            out
        }
        Field::Networks(networks) => {
            let mut out = String::new();
            for network in networks {
                list(
                    &mut out,
                    &format_args!("{}/{}", network.address, network.prefix),
                );
            }
            out
        }
        Field::Steps(Trigger::Sequence(sequence)) => sequence.to_string(),
        Field::List(Trigger::OneTime(list)) => path(list),
        Field::Steps(_) | Field::List(_) => String::new(),
        Field::Flags(rule) => flags(*rule),
        Field::Address(address) => address.map_or_else(String::new, |a| shown(&a)),
    }
}

/// Formats a door for messages: its name, and its line because two doors can have one name.
pub(super) fn name_of(door: &DoorConfig) -> String {
    format!("{} (line {})", quote(door.name.as_bytes()), door.line)
}

fn about_door(out: &mut String, index: usize, doors: &mut [DoorConfig]) {
    let door = &mut doors[index];
    out.push_str(&["\nDoor ", &name_of(door), "\n"].concat());
    let has_stop = door.stop != Commands::default();
    let mut before = String::new();
    for row in &ROWS {
        if let Setting::Door(slot) = row.place
            && (has_stop || row.name != "cmd_timeout")
        {
            about(out, row, slot(door), &mut before);
        }
    }
    let door = &doors[index];
    if let Some(sequence) = door.sequence() {
        let target = door.target.map(|target| shown(&target));
        let mut knock = ["knock ", target.as_deref().unwrap_or("ROUTER")].concat();
        for step in sequence.steps() {
            knock.push_str(&format!(" {step}"));
        }
        put(out, "to knock", &knock);
    }
    let closes =
        |other: &&DoorConfig| closed_by(other, doors).is_some_and(|by| by.line == door.line);
    if let Some(closing) = closed_by(door, doors) {
        put(out, "closed by", &name_of(closing));
    } else if let Some(opening) = doors.iter().find(closes) {
        put(out, "closes", &name_of(opening));
    } else if !has_stop && door.start != Commands::default() {
        put(out, "closed by", "nothing: no stop command");
    }
}

/// Adds an item to a comma-separated list.
fn list(out: &mut String, item: &dyn Display) {
    let comma = if out.is_empty() { "" } else { ", " };
    out.push_str(&format!("{comma}{item}"));
}

fn flags(rule: FlagRule) -> String {
    let mut out = String::new();
    for &(name, bit) in &TCP_FLAGS {
        let sign = match (rule.set & bit, rule.clear & bit) {
            (0, 0) => continue,
            (0, _) => "!",
            _ => "",
        };
        list(&mut out, &format_args!("{sign}{name}"));
    }
    out
}

fn duration(time: Millis) -> String {
    match time / 1000 {
        // A negative cmd_timeout.
        seconds if seconds > i32::MAX as u64 => "about 136 years".into(),
        seconds => format!("{seconds} s"),
    }
}
