//! What only a complete section or file shows: fallbacks, contradictions, keys without effect.
#![forbid(unsafe_code)]

use super::keys::{Key, Seen};
use super::{Diagnostic, DoorConfig, Options, Problem};
use crate::knock::Sequence;
use crate::knock::tripwire::Tripwire;
use crate::util::quote::quote;
use crate::util::time::Millis;

/// Returns whether a door was probably meant to be `[options]`.
pub(super) fn is_nearly_options(name: &str) -> bool {
    name.trim_ascii().eq_ignore_ascii_case("options")
}

/// The error for a door with neither steps nor a file of them.
pub(super) fn no_sequence(door: &DoorConfig) -> Box<Diagnostic> {
    let name = door.name.as_str();
    let text = match is_nearly_options(name) {
        true => "this is read as a door; write [options], in lower case, without spaces",
        false => {
            "a door needs a sequence, such as sequence = 7000,8000:udp,9000, or one_time_sequences"
        }
    };
    let wording = ["error: section '", name, "' has an empty knock sequence"];
    Diagnostic::error((door.line, 0), &wording, &[text])
}

/// For a time in the form of `Field::Time`.
fn is_negative(time: Millis) -> bool {
    time / 1000 > i32::MAX as u64
}

/// Checks the keys of a door together.
pub(super) fn finish_door(door: &mut DoorConfig, seen: &Seen, warnings: &mut Vec<Problem>) {
    let warn = &mut |place, text: &str| Diagnostic::at(place, &[text]).add_to(warnings);
    if is_nearly_options(&door.name) {
        let text = "this is a door; the options need [options], in lower case";
        warn((door.line, 0), text);
    }
    if door.target.is_some_and(|ip| ip.is_unspecified()) {
        let text = "no packet has this destination, so the door never opens; remove the key to accept the interface's addresses";
        warn(seen.place(const { Key::of("target") }), text);
    }
    const SEQUENCE: Key = Key::of("sequence");
    let steps = door.sequence().map(|sequence| sequence.steps().len());
    if steps.is_none() && seen.has(SEQUENCE) {
        let text = "one_time_sequences overrides this sequence";
        warn(seen.place(SEQUENCE), text);
    }
    if is_negative(door.seq_timeout) {
        door.seq_timeout = 0;
    }
    if door.seq_timeout == 0 && steps != Some(1) {
        let text = match steps {
            Some(_) => "no time for a second step: this door can never open",
            None => "no time for a second step: only a sequence of one step can open",
        };
        warn(seen.place(const { Key::of("seq_timeout") }), text);
    }
    if is_negative(door.cmd_timeout) {
        let text = "a negative time is about 136 years, as in knockd 0.8: the stop command practically never runs";
        warn(seen.place(const { Key::of("cmd_timeout") }), text);
    }
    let stop = seen.place(const { Key::of("stop_command") });
    if door.stop.v4.as_ref().is_some_and(Vec::is_empty) {
        let text = "an empty stop command is no stop command (knockd 0.8 runs an empty one)";
        warn(stop, text);
    }
    door.start.resolve();
    door.stop.resolve();
    // As in knockd 0.8: the stop command follows the start command, so without start there is no
    // stop.
    let unused_v4 = door.start.v4.is_none() && door.stop.v4.take().is_some();
    let unused_v6 = door.start.v6.is_none() && door.stop.v6.take().is_some();
    let stop_6 = seen.place(const { Key::of("stop_command_6") });
    if unused_v4 && (door.stop.v6.is_none() || stop_6.0 > 0) {
        let text = "this stop command never runs: there is no start command for IPv4";
        warn(stop, text);
    }
    if unused_v6 && stop_6.0 > 0 {
        let text = "this stop command never runs: there is no start command for IPv6";
        warn(stop_6, text);
    }
}

const TRIPWIRE: Key = Key::of("Tripwire");
const TRIPWIRE_HITS: Key = Key::of("TripwireHits");
const BAN_COMMAND: Key = Key::of("BanCommand");
const BAN_COMMAND_6: Key = Key::of("BanCommand_6");

/// Checks the options together.
pub(super) fn finish_options(options: &mut Options, seen: &Seen, warnings: &mut Vec<Problem>) {
    let warn = &mut |key, text: &str| Diagnostic::at(seen.place(key), &[text]).add_to(warnings);
    let bans_are_meant = options.bans.hits > 0;
    if options.strict {
        const REKNOCK: Key = Key::of("Reknock");
        if !options.stack && seen.has(REKNOCK) {
            let text = "Matching = strict is knockd 0.8's way and implies Reknock = stack";
            warn(REKNOCK, text);
        }
        if options.tripwire != Tripwire::None {
            let text = "Matching = strict is knockd 0.8's way and has no tripwires";
            warn(TRIPWIRE, text);
        }
        options.apply_strict_preset();
    }
    let bans = &mut options.bans;
    if !bans_are_meant {
        for key in Key::after(TRIPWIRE_HITS).filter(|key| seen.has(*key)) {
            let text = "without TripwireHits no one is banned, so this has no effect";
            warn(key, text);
        }
    } else if options.tripwire == Tripwire::None {
        bans.hits = 0;
        let text = "there are no tripwires, so no one is banned; write Tripwire = auto";
        warn(TRIPWIRE_HITS, text);
    }
    bans.start.resolve();
    bans.stop.resolve();
    let lacks = |one: &Option<Vec<u8>>, other: &Option<Vec<u8>>| one.is_some() && other.is_none();
    let lacks_v4 = lacks(&bans.start.v4, &bans.stop.v4);
    if lacks_v4 || lacks(&bans.start.v6, &bans.stop.v6) {
        let text =
            "there is no UnbanCommand for it, so what it does stays, unless it ends by itself";
        let has_own = !lacks_v4 && seen.has(BAN_COMMAND_6);
        warn(if has_own { BAN_COMMAND_6 } else { BAN_COMMAND }, text);
    }
}

/// Warns of tripwires that are listed singly but are ports of doors.
pub(super) fn useless_tripwires(
    singles: &[(u16, (usize, usize))],
    doors: &[DoorConfig],
    warnings: &mut Vec<Problem>,
) {
    for (port, place) in singles {
        for door in doors {
            let steps = door.sequence().map_or(&[][..], Sequence::steps);
            if steps.iter().any(|step| step.port == *port) {
                let name = quote(door.name.as_bytes());
                let text = [
                    "this port is a step of door ",
                    &name,
                    ", so it is no tripwire",
                ];
                Diagnostic::at(*place, &text).add_to(warnings);
                break;
            }
        }
    }
}
