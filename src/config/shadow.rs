//! Doors that open, or can open, with the knock of another door.
#![forbid(unsafe_code)]

use super::Door;
use crate::door::{FlagRule, Matching, Protocol, Step};

/// How the sequence of one door lies within that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// They are the same.
    Same,
    /// The other begins with it.
    Prefix,
    /// It stands in the other without gaps.
    Part,
    /// Its steps stand in the other in this order, with other steps between.
    Ordered,
}

/// Whether whoever knocks at `outer` knocks at `inner` too, and how.
pub(super) fn shadow(outer: &Door, inner: &Door, matching: Matching) -> Option<Relation> {
    let relation = within(steps(outer)?, steps(inner)?)?;
    // Strict matching: a source that is amid one knock does not start another, and a foreign step ends it.
    let possible = match matching {
        Matching::Tolerant => true,
        Matching::Strict => matches!(relation, Relation::Same | Relation::Prefix),
    };
    (possible && share_packets(outer, inner)).then_some(relation)
}

fn steps(door: &Door) -> Option<&[Step]> {
    door.pattern.sequence.as_ref().map(|s| s.steps())
}

fn within(outer: &[Step], inner: &[Step]) -> Option<Relation> {
    if outer == inner {
        return Some(Relation::Same);
    }
    if outer.starts_with(inner) {
        return Some(Relation::Prefix);
    }
    if outer.windows(inner.len()).any(|w| w == inner) {
        return Some(Relation::Part);
    }
    let mut todo = outer.iter();
    inner
        .iter()
        .all(|step| todo.any(|s| s == step))
        .then_some(Relation::Ordered)
}

/// Whether one packet can count for both doors.
fn share_packets(a: &Door, b: &Door) -> bool {
    let excludes = |a: FlagRule, b: FlagRule| a.set & b.clear != 0;
    let (a, b) = (&a.pattern, &b.pattern);
    let has_tcp = b
        .sequence
        .as_ref()
        .is_some_and(|s| s.steps().iter().any(|step| step.protocol == Protocol::Tcp));
    let flags_exclude = has_tcp && (excludes(a.flags, b.flags) || excludes(b.flags, a.flags));
    let targets_exclude = a.target.is_some() && b.target.is_some() && a.target != b.target;
    !flags_exclude && !targets_exclude
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn relation(a: &str, b: &str, matching: Matching) -> Option<Relation> {
        let text = format!("[A]\nsequence={a}\n[B]\nsequence={b}\n");
        let doors = parse(text.as_bytes(), &mut |_| ()).unwrap().doors;
        shadow(&doors[0], &doors[1], matching)
    }

    #[test]
    fn the_relation_is_the_closest_one() {
        let tolerant = |a, b| relation(a, b, Matching::Tolerant);
        assert_eq!(tolerant("1,2", "1,2"), Some(Relation::Same));
        assert_eq!(tolerant("1,2,3", "1,2"), Some(Relation::Prefix));
        assert_eq!(tolerant("1,2,3", "2,3"), Some(Relation::Part));
        assert_eq!(tolerant("1,2,3", "1,3"), Some(Relation::Ordered));
        assert_eq!(tolerant("1,2,3", "3,1"), None);
        assert_eq!(tolerant("1,2", "1,2,3"), None);
        assert_eq!(tolerant("1,2", "1,2:udp"), None);
        assert_eq!(tolerant("1,2", "1,2\ntcpflags=syn"), Some(Relation::Same));
    }

    #[test]
    fn strict_matching_and_separate_packets_rule_it_out() {
        assert_eq!(relation("1,2,3", "2,3", Matching::Strict), None);
        assert_eq!(
            relation("1,2,3", "1,2", Matching::Strict),
            Some(Relation::Prefix)
        );
        let both = |a, b| relation(a, b, Matching::Tolerant);
        assert_eq!(both("1,2\ntcpflags=syn", "1,2\ntcpflags=!syn"), None);
        assert!(both("1:udp\ntcpflags=syn", "1:udp\ntcpflags=!syn").is_some());
        assert_eq!(both("1,2\ntarget=192.0.2.1", "1,2\ntarget=192.0.2.2"), None);
        assert!(both("1,2\ntarget=192.0.2.1", "1,2").is_some());
    }
}
