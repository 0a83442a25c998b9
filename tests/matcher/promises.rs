//! The design's guarantees, checked for arbitrary doors and packets.

use crate::script::{
    Lab, Packet, doors_and_packets, host, knock, parts, rules, run, some_doors, some_tripwires,
};
use crate::tolerant_model::Copies;
use knockd_rs::knock::{Matching, Pattern};
use knockd_rs::matcher::{Event, Rules};
use proptest::prelude::*;
use std::net::IpAddr;

/// The indexes of the packets at which `door` opened for `source`.
fn openings(events: &[(usize, Event)], door: u16, source: IpAddr) -> Vec<usize> {
    let opened = Event::Opened { door, source };
    events
        .iter()
        .filter(|(_, event)| *event == opened)
        .map(|(at, _)| *at)
        .collect()
}

fn any_matching() -> impl Strategy<Value = Matching> {
    prop_oneof![Just(Matching::Tolerant), Just(Matching::Strict)]
}

/// Whether the default rule can keep `door` closed although its knocks came in order, the first as
/// packet `first` and the last as packet `last`. Either another door has opened with one of them,
/// or the last one continues an older attempt at another door that every knock fits.
fn another_door_claims(
    doors: &[Pattern],
    packets: &[Packet],
    events: &[(usize, Event)],
    door: u16,
    (first, last): (usize, usize),
) -> bool {
    let source = packets[last].1.source;
    (0u16..)
        .zip(doors)
        .filter(|(other, _)| *other != door)
        .any(|(other, pattern)| {
            let opened = openings(events, other, source);
            let took_one = opened.iter().any(|at| (first..=last).contains(at));
            took_one
                || (0..first).any(|start| fits_every_knock(doors, pattern, &packets[start..=last]))
        })
}

/// Whether the packets from the source of the last one, starting at the first, are a prefix of the
/// sequence of `pattern` apart from repeats. The last one continues it without completing it.
fn fits_every_knock(doors: &[Pattern], pattern: &Pattern, packets: &[Packet]) -> bool {
    let (end, source) = packets
        .last()
        .map(|packet| (packet.0, packet.1.source))
        .expect("one");
    let Some(sequence) = &pattern.sequence else {
        return false;
    };
    let (steps, mut stage, mut continues) = (sequence.steps(), 0, false);
    if packets[0].1.source != source || end - packets[0].0 >= pattern.seq_timeout {
        return false;
    }
    for (_, knock, local) in packets.iter().filter(|packet| packet.1.source == source) {
        let here = pattern.accepts_destination(knock.destination, *local);
        if !doors.iter().any(|door| door.wants(knock, *local))
            || !here
            || !pattern.fits_flags(knock)
        {
            continue;
        }
        continues = steps.get(stage) == Some(&knock.step);
        if !continues && (stage == 0 || steps[stage - 1] != knock.step) {
            return false;
        }
        stage += usize::from(continues);
    }
    continues && stage > 1 && stage < steps.len()
}

/// The packets without those that the default rule treats as copies.
fn without_copies(packets: &[Packet]) -> Vec<Packet> {
    let mut copies = Copies::default();
    let mut kept = packets.to_vec();
    kept.retain(|(now, knock, _)| {
        let is_copy = copies.is_copy(knock, *now);
        if !is_copy {
            copies.record(knock, *now);
        }
        !is_copy
    });
    kept
}

/// The door, changed so that a plain knock can open it.
fn openable(door: &Pattern) -> Pattern {
    Pattern {
        seq_timeout: door.seq_timeout.max(1_000),
        ..door.clone()
    }
}

/// The whole sequence of that door from 10.9.0.2, with packet numbers from `id` on.
fn plain_knock(door: &Pattern, id: u32) -> Vec<(knockd_rs::knock::Knock, bool)> {
    let steps = door.sequence.iter().flat_map(|sequence| sequence.steps());
    steps
        .zip(id..)
        .map(|(step, id)| {
            let mut packet = knock(host(2), *step, id);
            packet.destination = door.target.unwrap_or(packet.destination);
            (packet, packet.destination != host(99))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn when_strict_opens_the_default_has_opened_unless_another_door_claims_a_knock(
        (doors, packets) in doors_and_packets(false, false),
    ) {
        let strict = run(&doors, Matching::Strict, &packets);
        let tolerant = run(&doors, Matching::Tolerant, &packets);
        for source in (2..5).map(host) {
            for door in 0..doors.len() as u16 {
                let opened = openings(&tolerant, door, source);
                let mut after = 0;
                for at in openings(&strict, door, source) {
                    let start = Event::Stage { door, source, stage: 1 };
                    let first = strict.iter().rfind(|(i, event)| *i <= at && *event == start);
                    let knocks = (first.expect("stage 1").0, at);
                    prop_assert!(
                        opened.iter().any(|opened| (after..=at).contains(opened))
                            || another_door_claims(&doors, &packets, &tolerant, door, knocks)
                    );
                    after = at + 1;
                }
            }
        }
    }

    #[test]
    fn nothing_opens_without_its_whole_sequence_in_order_and_in_time(
        matching in any_matching(),
        (doors, packets) in doors_and_packets(true, true),
    ) {
        let events = run(&doors, matching, &packets);
        for source in (2..5).map(host) {
            for (door, pattern) in (0u16..).zip(&doors) {
                let mut after = 0;
                for at in openings(&events, door, source) {
                    let now = packets[at].0;
                    let in_time = |time| time == now || now - time < pattern.seq_timeout;
                    let mut left = pattern.sequence.iter().flat_map(|s| s.steps()).rev().peekable();
                    for (time, packet, local) in packets[after..=at].iter().rev() {
                        let counts = packet.source == source && pattern.wants(packet, *local);
                        if counts && in_time(*time) {
                            left.next_if(|step| **step == packet.step);
                        }
                    }
                    prop_assert_eq!(left.next(), None);
                    after = at + 1;
                }
            }
        }
    }

    #[test]
    fn forged_packets_from_other_addresses_change_nothing(
        matching in any_matching(),
        (doors, packets) in doors_and_packets(true, true),
    ) {
        let events_for = |packets: &[Packet]| -> Vec<Event> {
            let events = run(&doors, matching, packets).into_iter().map(|(_, event)| event);
            events.filter(|event| parts(event).1 == host(2)).collect()
        };
        let alone: Vec<Packet> =
            packets.iter().filter(|(_, packet, _)| packet.source == host(2)).copied().collect();
        let (among, alone) = (events_for(&packets), events_for(&alone));
        // Compare door by door, because time-outs of several doors at the same moment have no fixed
        // order.
        for door in 0..doors.len() as u16 {
            let at = |events: &[Event]| -> Vec<Event> {
                events.iter().copied().filter(|event| parts(event).0 == door).collect()
            };
            prop_assert_eq!(at(&among), at(&alone));
        }
    }

    #[test]
    fn whatever_came_before_a_plain_knock_opens_unless_another_door_claims_it(
        (doors, packets) in doors_and_packets(true, true),
        door in 0usize..4,
    ) {
        let doors: Vec<Pattern> = doors.iter().map(openable).collect();
        let door = door % doors.len();
        let mut packets = without_copies(&packets);
        let now = packets.last().map_or(0, |packet| packet.0);
        let first = packets.len();
        let knock = plain_knock(&doors[door], 1 << 20);
        packets.extend(knock.into_iter().map(|(packet, local)| (now, packet, local)));
        let events = run(&doors, Matching::Tolerant, &packets);
        if doors[door].sequence.is_some() {
            let opened = openings(&events, door as u16, host(2));
            let knocks = (first, packets.len() - 1);
            prop_assert!(
                opened.iter().any(|at| *at >= first)
                    || another_door_claims(&doors, &packets, &events, door as u16, knocks)
            );
        }
    }

    #[test]
    fn whatever_came_before_a_plain_knock_opens_a_door_that_is_alone(
        (doors, packets) in doors_and_packets(true, true),
        door in 0usize..4,
    ) {
        let doors = [openable(&doors[door % doors.len()])];
        let mut lab = Lab::with(&doors, Rules { tripwires: some_tripwires(), ..rules(Matching::Tolerant) });
        lab.now = 0;
        for (time, packet, local) in &packets {
            lab.wait(time - lab.now);
            lab.packet(packet, *local);
        }
        lab.events.clear();
        for (packet, local) in plain_knock(&doors[0], 1 << 20) {
            lab.packet(&packet, local);
        }
        let opened = Event::Opened { door: 0, source: host(2) };
        prop_assert_eq!(lab.events.contains(&opened), doors[0].sequence.is_some());
    }

    #[test]
    fn a_plain_knock_opens_though_each_packet_comes_twice(doors in some_doors(), new: bool) {
        let door = openable(&doors[0]);
        let mut lab = Lab::new(std::slice::from_ref(&door), Matching::Tolerant);
        for (at, (packet, local)) in plain_knock(&door, 1).into_iter().enumerate() {
            let mut second = packet;
            if new {
                second.serial = 1 << 20 | at as u32;
            }
            lab.packet(&packet, local);
            lab.packet(&second, local);
        }
        let opened = Event::Opened { door: 0, source: host(2) };
        prop_assert_eq!(lab.events.contains(&opened), door.sequence.is_some());
    }

    #[test]
    fn events_of_one_packet_come_in_the_order_of_the_doors(
        matching in any_matching(),
        (doors, packets) in doors_and_packets(true, true),
    ) {
        let events = run(&doors, matching, &packets);
        for at in 0..packets.len() {
            let here = events.iter().filter(|(packet, _)| *packet == at).map(|(_, event)| event);
            let progress: Vec<u16> = here
                .filter(|event| !matches!(event, Event::TimedOut { .. }))
                .map(|event| parts(event).0)
                .collect();
            prop_assert!(progress.is_sorted());
        }
        for (at, (_, event)) in events.iter().enumerate() {
            if let Event::Opened { door, source } = *event {
                let steps = doors[usize::from(door)].sequence.as_ref().map_or(0, |s| s.steps().len());
                let stage = Event::Stage { door, source, stage: steps as u8 };
                prop_assert_eq!(events[at - 1].1, stage);
            }
        }
    }
}
