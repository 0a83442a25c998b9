//! Advice: what is valid in a config but unwise.
#![forbid(unsafe_code)]

use super::describe::name_of;
use super::shadow::{Relation, closed_by, shadow};
use crate::config::shell::{
    Need, appends_rule, deletes_by_number, flushes, has_address, is_quoted, is_typeset,
    misspells_address, needs, opens, opens_to_all, takes_line_down,
};
use crate::config::{Bans, Commands, Config, Diagnostic, DoorConfig, Problem, undoes};
use crate::knock::{Protocol, Step};
use crate::util::quote::{printable, quote};

/// Fewer steps draw advice to use one more than this. A scan in random order opens a door of 3
/// steps in 1 of 6 tries, of 4 in 1 of 24. With `Tripwire = auto` a flood opens the former in
/// hours, the latter in weeks (docs/security.md).
const FEW_STEPS: usize = 4;

/// Bit of SYN in byte 13 of the TCP header.
const SYN: u8 = 0x02;

/// Sequences that attackers try first, because they are printed in manuals, packages and examples,
/// ours included. By port.
const WELL_KNOWN: [&[u16]; 8] = [
    &[7000, 8000, 9000],
    &[9000, 8000, 7000],
    &[2222, 3333, 4444],
    &[12345, 54321, 24680, 13579],
    &[22, 22, 151, 15],
    &[1, 2, 3, 4, 5],
    &[1234, 2345, 3456, 4567],
    &[40217, 1893, 22861, 7354, 51926],
];

/// Returns advice door by door, in the order of the file.
pub fn advice(config: &Config) -> Vec<Problem> {
    let mut out = Vec::new();
    for (index, door) in config.doors.iter().enumerate() {
        let mut say = |text: &str| {
            let name = quote(door.name.as_bytes());
            out.push(Diagnostic::at(
                (door.line, 0),
                &["door ", &name, ": ", text],
            ));
        };
        if let Some(sequence) = door.sequence() {
            about_sequence(sequence.steps(), &mut say);
        }
        about_flags(door, &mut say);
        about_commands(door, closed_by(door, &config.doors).is_some(), &mut say);
        for other in config.doors.iter().skip(index + 1) {
            if let Some(text) = about_pair(door, other) {
                say(&text);
            }
        }
    }
    about_bans(&config.options.bans, &mut out);
    out
}

fn ascends(steps: &[Step]) -> bool {
    steps.len() > 1 && steps.windows(2).all(|w| w[0].port < w[1].port)
}

/// Returns whether an attacker can guess it without having seen it.
fn is_guessable(steps: &[Step]) -> bool {
    let consecutive = steps.windows(2).all(|w| w[0].port.abs_diff(w[1].port) <= 1);
    steps.len() == 1 || ascends(steps) || consecutive
}

fn about_sequence(steps: &[Step], say: &mut dyn FnMut(&str)) {
    if steps.len() == 1 {
        say("a single packet opens it");
    } else if steps.len() < FEW_STEPS {
        const { assert!(FEW_STEPS == 4) };
        say("fewer than 4 steps: a scan or flood can hit them in order; use 5 or more");
    }
    if ascends(steps) {
        say(
            "the ports are in ascending order, so a plain port scan performs this knock; shuffle them",
        );
    } else if steps.len() > 1 && steps.windows(2).all(|w| w[0] == w[1]) {
        say("all steps are the same port: a client that keeps trying it opens the door");
    }
    if steps.windows(2).any(|w| w[0].port.abs_diff(w[1].port) == 1) {
        say("two steps are adjacent ports, so no tripwire fits between them; use others");
    }
    if WELL_KNOWN
        .iter()
        .any(|known| known.iter().eq(steps.iter().map(|s| &s.port)))
    {
        say("this sequence is printed in manuals and tutorials; choose your own");
    }
}

fn about_flags(door: &DoorConfig, say: &mut dyn FnMut(&str)) {
    // The steps of a one-time list are not known here; most are TCP.
    let has_tcp = door
        .sequence()
        .is_none_or(|s| s.steps().iter().any(|step| step.protocol == Protocol::Tcp));
    if !has_tcp {
        return;
    }
    let flags = &door.flags;
    if flags.set & !SYN != 0 || flags.clear & SYN != 0 {
        say("knock sends SYN alone, which does not count with these tcpflags; use tcpflags = syn");
    } else if flags.set & SYN == 0 {
        let text =
            "TCP steps without tcpflags = syn: replies and other stray packets count as knocks";
        say(text);
    }
}

/// The advice for an appended rule; `appends_rule` finds its iptables command.
const APPENDED: &str =
    "a rule is appended (-A) and never reached if the chain ends in a DROP; insert it (-I)";

/// Whether it applies only to start commands, the test, and the advice.
type Slip = (bool, fn(&[u8]) -> bool, &'static str);

/// Mistakes that the shell or a program would only find at a knock.
const SLIPS: [Slip; 7] = [
    (true, appends_rule, APPENDED),
    (
        false,
        misspells_address,
        "a command has something like %IP%; only %IP% in capitals becomes the address",
    ),
    (
        false,
        is_quoted,
        "the whole command is quoted, so the shell looks for a program of that name; remove the quotes",
    ),
    (
        false,
        is_typeset,
        "a command has typographic dashes, quotes or spaces; type plain ones",
    ),
    (
        false,
        flushes,
        "a command flushes (-F) a chain that other programs use; delete (-D) the door's own rule",
    ),
    (
        false,
        deletes_by_number,
        "a command deletes a rule by number, which can be another rule by then; repeat the rule itself",
    ),
    (true, opens_to_all, "no %IP%, so it opens for everyone"),
];

fn about_bans(bans: &Bans, out: &mut Vec<Problem>) {
    let mut say = |text: &str| {
        out.push(Diagnostic::at((0, 0), &["BanCommand: ", text]));
    };
    if bans.start.each().any(|command| !has_address(command)) {
        say("no %IP%, so it applies to everyone, and an attacker can choose when");
    }
    if bans.start.each().any(|command| appends_rule(command)) {
        say(APPENDED);
    }
}

/// `is_closed`: another door undoes this one.
fn about_commands(door: &DoorConfig, is_closed: bool, say: &mut dyn FnMut(&str)) {
    let (start, stop) = (&door.start, &door.stop);
    for (at_start, test, text) in &SLIPS {
        let slips = |commands: &Commands| commands.each().any(|command| test(command));
        if slips(start) || !at_start && slips(stop) {
            say(text);
        }
    }
    let stays = |start: &Option<Vec<u8>>, stop: &Option<Vec<u8>>| match (start, stop) {
        (Some(start), Some(stop)) => undoes(start, stop) == Some(false),
        _ => false,
    };
    if stays(&start.v4, &stop.v4) || stays(&start.v6, &stop.v6) {
        say(
            "the stop command deletes a different rule than the start command adds, so that rule stays",
        );
    }
    if door.cmd_timeout == 0 && *start != Commands::default() && *stop != Commands::default() {
        say("cmd_timeout = 0: it closes as soon as it has opened");
    }
    let left_open = |start: &Option<Vec<u8>>, stop: &Option<Vec<u8>>| {
        !is_closed && stop.is_none() && start.as_deref().is_some_and(opens)
    };
    let families = match (
        left_open(&start.v4, &stop.v4),
        left_open(&start.v6, &stop.v6),
    ) {
        (true, true) => Some(""),
        (true, false) => Some(" for IPv4"),
        (false, true) => Some(" for IPv6"),
        (false, false) => None,
    };
    if let Some(families) = families {
        let opens = "it opens something";
        say(&[opens, families, " and has no stop_command: it stays open"].concat());
    }
    if let (Some(sequence), Some(command)) = (
        door.sequence(),
        start.each().find(|command| takes_line_down(command)),
    ) && is_guessable(sequence.steps())
    {
        let danger = "danger: anyone can take the line down with a few forged packets: the sequence is easy to guess, and it runs ";
        say(&[danger, &printable(command)].concat());
    }
}

fn about_pair(door: &DoorConfig, other: &DoorConfig) -> Option<String> {
    const LONGER_FIRST: &str =
        ": during a knock at the longer one the shorter does not open and must be knocked again";
    let within = match shadow(door, other) {
        None => shadow(other, door).map(|relation| (relation, true)),
        some => some.map(|relation| (relation, false)),
    };
    let (before, after) = match within? {
        (Relation::Same, _) => ("the same knock opens", " too"),
        (Relation::Prefix, false) => ("its sequence begins with that of", ", which opens first"),
        (Relation::Prefix, true) => ("its sequence begins that of", ": this door opens first"),
        (Relation::Part, false) => ("its sequence contains that of", LONGER_FIRST),
        (Relation::Part, true) => ("its sequence lies within that of", LONGER_FIRST),
        (Relation::Rotation, _) => (
            "its sequence is a rotation of that of",
            ": when a packet is lost, knocking one again can open the other; use different ports",
        ),
    };
    Some([before, " ", &name_of(other), after].concat())
}

/// Calls `need` for what the commands of a config certainly need.
pub fn needs_of(config: &Config, need: &mut dyn FnMut(Need<'_>)) {
    let mut of = |commands: &Commands| {
        for command in commands.each() {
            needs(command, need);
        }
    };
    for door in &config.doors {
        of(&door.start);
        of(&door.stop);
    }
    of(&config.options.bans.start);
    of(&config.options.bans.stop);
}
