//! A config in words that a person can check.
#![forbid(unsafe_code)]

use super::options::{Place, ROWS, Slot};
use super::shadow::closed_by;
use super::{Commands, Config, Door, Options};
use crate::door::{FlagRule, Millis, TCP_FLAGS};
use crate::quote::{printable, quote};
use crate::tripwire::Tripwire;
use std::path::Path;

/// What the config means: the options, then door by door what to knock and what runs. Ends with a newline.
/// It changes nothing: the table gives places for writing.
pub fn describe(config: &mut Config) -> String {
    let mut out = String::new();
    about_options(&mut out, &mut config.options);
    for door in &config.doors {
        about_door(&mut out, door, &config.doors);
    }
    out
}

/// One line: what, padded, and its value.
fn put(out: &mut String, what: &str, value: &str) {
    out.push_str(&format!("  {what:<16}{value}\n"));
}

fn path(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// A line for each option, by its name. Without bans what follows `TripwireHits` means nothing.
fn about_options(out: &mut String, options: &mut Options) {
    out.push_str("Options\n");
    for row in &ROWS {
        let Place::Options(slot) = row.place else {
            break;
        };
        let slot = slot(options);
        // What runs is resolved by now: a command that is absent does not stand for another.
        let absent = match slot {
            Slot::Command(_) => "none",
            _ => row.absent,
        };
        let value = value(slot);
        let is_absent = value.is_empty();
        put(out, row.name, if is_absent { absent } else { &value });
        if is_absent && row.name == "TripwireHits" {
            break;
        }
    }
}

/// A value in words; empty where nothing is given.
pub(super) fn value(slot: Slot<'_>) -> String {
    match slot {
        Slot::Switch(on) => (if *on { "on" } else { "off" }).into(),
        Slot::Word(is_second, words) => {
            let (word, meaning) = words[usize::from(*is_second)];
            [word, ": ", meaning].concat()
        }
        Slot::Number(number, least, _, _) if *number < least => String::new(),
        Slot::Number(number, _, _, of) => format!("{number} {of}"),
        Slot::Seconds(time, _) | Slot::Time(time) => duration(*time),
        Slot::Path(file) | Slot::List(file) => file.as_deref().map_or_else(String::new, path),
        Slot::Directory(directory) => path(directory),
        Slot::Command(command) => command.as_deref().map_or_else(String::new, printable),
        Slot::Interfaces(names) => names.clone().unwrap_or_default(),
        Slot::Ports(Tripwire::None) => String::new(),
        Slot::Ports(Tripwire::Auto) => "auto: around each step, and some random ports".into(),
        Slot::Ports(Tripwire::Ports(ranges)) => {
            let ranges = ranges.iter().map(|range| (range.low, range.high));
            list(&mut ranges.map(|(low, high)| match low == high {
                true => low.to_string(),
                false => format!("{low}-{high}"),
            }))
        }
        Slot::Networks(networks) => {
            let networks = networks.iter();
            list(&mut networks.map(|network| format!("{}/{}", network.address, network.prefix)))
        }
        // Those of doors: about_door.
        Slot::Steps(_) | Slot::Flags(_) | Slot::Address(_) => String::new(),
    }
}

/// What runs for each address family.
fn pairs(commands: &Commands, none: &str) -> (String, String) {
    let show = |c: &Option<Vec<u8>>| c.as_deref().map_or_else(|| none.to_string(), printable);
    (show(&commands.v4), show(&commands.v6))
}

/// A door as messages name it: its name, and its line since names may stand twice.
pub(super) fn name_of(door: &Door) -> String {
    format!("{} (line {})", quote(door.name.as_bytes()), door.line)
}

fn about_door(out: &mut String, door: &Door, doors: &[Door]) {
    out.push_str(&["\nDoor ", &name_of(door), "\n"].concat());
    let pattern = &door.pattern;
    match (&door.one_time, &pattern.sequence) {
        (Some(file), _) => {
            put(
                out,
                "knock",
                &format!("the first unused line of {}", path(file)),
            );
        }
        (None, Some(sequence)) => {
            let target = pattern.target.map(|target| target.to_string());
            let mut knock = ["knock ", target.as_deref().unwrap_or("ROUTER")].concat();
            for step in sequence.steps() {
                knock.push_str(&format!(" {step}"));
            }
            put(out, "knock", &knock);
        }
        (None, None) => put(out, "knock", "nothing: it is disabled"),
    }
    let within = match pattern.seq_timeout {
        0 => "no time: only a sequence of one step can open".to_string(),
        time => format!("{} from the first knock", duration(time)),
    };
    put(out, "within", &within);
    put(out, "TCP flags", &flags(pattern.flags));
    match pattern.target {
        Some(target) => put(out, "sent to", &format!("{target} only")),
        None => put(out, "sent to", "any address of the interface"),
    }
    families(
        out,
        "opening",
        pairs(&door.start, "runs nothing, only a log line"),
    );
    if door.stop != Commands::default() {
        families(out, "closing", pairs(&door.stop, "runs nothing"));
        let after = format!(
            "{} after the opening command has ended",
            duration(door.cmd_timeout)
        );
        put(out, "closes", &after);
    } else if let Some(closing) = closed_by(door, doors) {
        put(
            out,
            "closes",
            &["by the knock of ", &name_of(closing)].concat(),
        );
    } else if let Some(opening) = doors
        .iter()
        .find(|other| closed_by(other, doors).is_some_and(|closing| closing.line == door.line))
    {
        put(out, "undoes", &name_of(opening));
    } else if door.start != Commands::default() {
        put(out, "closes", "not by knockd: no stop command");
    }
}

fn families(out: &mut String, what: &str, (v4, v6): (String, String)) {
    if v4 == v6 {
        put(out, what, &v4);
    } else {
        put(out, &format!("{what}, IPv4"), &v4);
        put(out, &format!("{what}, IPv6"), &v6);
    }
}

/// With commas between them.
fn list(items: &mut dyn Iterator<Item = String>) -> String {
    let mut out = String::new();
    for item in items {
        out.push_str(if out.is_empty() { "" } else { ", " });
        out.push_str(&item);
    }
    out
}

fn flags(rule: FlagRule) -> String {
    let mut out = String::new();
    for (name, bit) in TCP_FLAGS {
        let sign = match (rule.set & bit, rule.clear & bit) {
            (0, 0) => continue,
            (0, _) => "!",
            _ => "",
        };
        out.push_str(if out.is_empty() { "" } else { ", " });
        out.push_str(sign);
        out.push_str(name);
    }
    if out.is_empty() { "any".into() } else { out }
}

fn duration(time: Millis) -> String {
    match time / 1000 {
        // A negative cmd_timeout.
        seconds if seconds > i32::MAX as u64 => "about 136 years".into(),
        seconds => format!("{seconds} s"),
    }
}
