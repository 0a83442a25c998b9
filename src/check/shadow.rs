//! Relations between doors: knocks or commands of one that affect another.
#![forbid(unsafe_code)]

use crate::config::undoes;
use crate::config::{Commands, DoorConfig};
use crate::knock::{FlagRule, Protocol, Sequence, Step};

/// The relation of one door's sequence to that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// Equal: both doors open.
    Same,
    /// A prefix of the other: this one opens first, then the other.
    Prefix,
    /// Part of the other from a later step on: while an attempt there fits, the knock counts only
    /// there.
    Part,
    /// A rotation of the other. Repeated after a lost packet, one reads as the other.
    Rotation,
}

/// Returns the relation of `inner` to `outer`, if one packet can count for both. Under both rules
/// of matching, other overlaps open no other door.
pub(super) fn shadow(outer: &DoorConfig, inner: &DoorConfig) -> Option<Relation> {
    let relation = within(steps(outer)?, steps(inner)?)?;
    share_packets(outer, inner).then_some(relation)
}

fn steps(door: &DoorConfig) -> Option<&[Step]> {
    door.sequence().map(Sequence::steps)
}

fn within(outer: &[Step], inner: &[Step]) -> Option<Relation> {
    let contains = |outer: &[Step]| outer.windows(inner.len()).any(|w| w == inner);
    if outer == inner {
        Some(Relation::Same)
    } else if outer.starts_with(inner) {
        Some(Relation::Prefix)
    } else if contains(outer) {
        Some(Relation::Part)
    } else {
        let rotates = outer.len() == inner.len() && contains(&[outer, outer].concat());
        rotates.then_some(Relation::Rotation)
    }
}

/// Returns the door whose commands undo those of this one for each address family, if this one has
/// no stop command.
pub(super) fn closed_by<'a>(door: &DoorConfig, doors: &'a [DoorConfig]) -> Option<&'a DoorConfig> {
    let undone = |done: &Option<Vec<u8>>, by: &Option<Vec<u8>>| match (done, by) {
        (Some(done), Some(by)) => undoes(done, by) == Some(true),
        (done, _) => done.is_none(),
    };
    let closes = |other: &&DoorConfig| {
        undone(&door.start.v4, &other.start.v4) && undone(&door.start.v6, &other.start.v6)
    };
    let has_start_only = door.stop == Commands::default() && door.start != Commands::default();
    doors.iter().filter(|_| has_start_only).find(closes)
}

/// Returns whether one packet can count for both doors.
fn share_packets(a: &DoorConfig, b: &DoorConfig) -> bool {
    let excludes = |a: FlagRule, b: FlagRule| a.set & b.clear != 0;
    let is_tcp = |step: &Step| step.protocol == Protocol::Tcp;
    let has_tcp = steps(b).is_some_and(|steps| steps.iter().any(is_tcp));
    let flags_exclude = has_tcp && (excludes(a.flags, b.flags) || excludes(b.flags, a.flags));
    let targets_exclude = a.target.is_some() && b.target.is_some() && a.target != b.target;
    !flags_exclude && !targets_exclude
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn doors(text: &str) -> Vec<DoorConfig> {
        parse(text.as_bytes(), &mut |_| ()).unwrap().doors
    }

    fn relation(a: &str, b: &str) -> Option<Relation> {
        let doors = doors(&format!("[A]\nsequence={a}\n[B]\nsequence={b}\n"));
        shadow(&doors[0], &doors[1])
    }

    #[test]
    fn the_relation_is_the_closest_one() {
        for (a, b, expected) in [
            ("1,2", "1,2", Some(Relation::Same)),
            ("1,2,3", "1,2", Some(Relation::Prefix)),
            ("1,2,3", "2,3", Some(Relation::Part)),
            ("1,2,3", "2", Some(Relation::Part)),
            ("1,2,3", "2,3,1", Some(Relation::Rotation)),
            ("1,2", "2,1", Some(Relation::Rotation)),
            ("1,2,3", "1,3", None),
            ("1,2,3", "3,2,1", None),
            ("1,2", "1,2,3", None),
            ("1,2", "1,2:udp", None),
            ("1,2", "1,2\ntcpflags=syn", Some(Relation::Same)),
        ] {
            assert_eq!(relation(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn separate_packets_rule_it_out() {
        assert_eq!(relation("1,2\ntcpflags=syn", "1,2\ntcpflags=!syn"), None);
        assert!(relation("1:udp\ntcpflags=syn", "1:udp\ntcpflags=!syn").is_some());
        assert_eq!(
            relation("1,2\ntarget=192.0.2.1", "1,2\ntarget=192.0.2.2"),
            None
        );
        assert!(relation("1,2\ntarget=192.0.2.1", "1,2").is_some());
    }

    #[test]
    fn a_door_is_closed_by_one_that_undoes_all_of_it() {
        let open = "command=iptables -I INPUT -s %IP% -j ACCEPT";
        let close = "command=iptables -D INPUT -s %IP% -j ACCEPT";
        let only_v4 = "command_6=";
        for (a, b, closed) in [
            (open, close, true),
            (close, open, false),
            (open, open, false),
            (&format!("{open}\n{only_v4}"), close, true),
            (open, &format!("{close}\n{only_v4}"), false),
            (&format!("{open}\nstop_command=x"), close, false),
            ("seq_timeout=3", close, false),
        ] {
            let doors = doors(&format!("[A]\nsequence=1,2\n{a}\n[B]\nsequence=2,1\n{b}\n"));
            assert_eq!(closed_by(&doors[0], &doors).is_some(), closed, "{a} {b}");
        }
    }
}
