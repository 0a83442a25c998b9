//! What the design promises, for any doors and packets.

use crate::script::{
    Lab, Packet, doors_and_packets, host, knock, parts, rules, run, some_doors, some_tripwires,
};
use knockd_rs::door::{Matching, Pattern, Protocol};
use knockd_rs::matcher::{Event, Rules};
use proptest::prelude::*;
use std::net::IpAddr;

/// At which packets that door opened for that source.
fn openings(told: &[(usize, Event)], door: u16, source: IpAddr) -> Vec<usize> {
    let opened = Event::Opened { door, source };
    told.iter()
        .filter(|(_, event)| *event == opened)
        .map(|(at, _)| *at)
        .collect()
}

fn any_matching() -> impl Strategy<Value = Matching> {
    prop_oneof![Just(Matching::Tolerant), Just(Matching::Strict)]
}

/// A door as it is when a plain knock can open it.
fn openable(door: &Pattern) -> Pattern {
    Pattern {
        seq_timeout: door.seq_timeout.max(1_000),
        ..door.clone()
    }
}

/// That door's whole sequence from 10.9.0.2, from that packet number on.
fn plain_knock(door: &Pattern, id: u32) -> Vec<(knockd_rs::door::Knock, bool)> {
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
    fn when_strict_opens_the_default_has_opened_since_strict_opened_last(
        (doors, packets) in doors_and_packets(false, false),
    ) {
        let strict = run(&doors, Matching::Strict, &packets);
        let tolerant = run(&doors, Matching::Tolerant, &packets);
        for source in (2..5).map(host) {
            for door in 0..doors.len() as u16 {
                let tolerant = openings(&tolerant, door, source);
                let mut after = 0;
                for at in openings(&strict, door, source) {
                    prop_assert!(tolerant.iter().any(|t| (after..=at).contains(t)));
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
        let told = run(&doors, matching, &packets);
        for source in (2..5).map(host) {
            for (door, pattern) in (0u16..).zip(&doors) {
                let mut after = 0;
                for at in openings(&told, door, source) {
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
            let told = run(&doors, matching, packets).into_iter().map(|(_, event)| event);
            told.filter(|event| parts(event).1 == host(2)).collect()
        };
        let alone: Vec<Packet> =
            packets.iter().filter(|(_, packet, _)| packet.source == host(2)).copied().collect();
        let (among, alone) = (events_for(&packets), events_for(&alone));
        // At each door: what times out at several doors in one moment is told in any order.
        for door in 0..doors.len() as u16 {
            let at = |events: &[Event]| -> Vec<Event> {
                events.iter().copied().filter(|event| parts(event).0 == door).collect()
            };
            prop_assert_eq!(at(&among), at(&alone));
        }
    }

    #[test]
    fn whatever_came_before_a_plain_knock_opens(
        (doors, packets) in doors_and_packets(true, true),
        door in 0usize..4,
    ) {
        let doors: Vec<Pattern> = doors.iter().map(openable).collect();
        let door = door % doors.len();
        let rules = Rules { tripwires: some_tripwires(), ..rules(Matching::Tolerant) };
        let mut lab = Lab::with(&doors, rules);
        lab.now = 0;
        for (time, packet, local) in &packets {
            lab.wait(time - lab.now);
            lab.packet(packet, *local);
        }
        lab.events.clear();
        for (packet, local) in plain_knock(&doors[door], 1 << 20) {
            lab.packet(&packet, local);
        }
        let opened = Event::Opened { door: door as u16, source: host(2) };
        prop_assert_eq!(lab.events.contains(&opened), doors[door].sequence.is_some());
    }

    #[test]
    fn a_plain_knock_opens_though_each_packet_comes_twice(doors in some_doors(), new: bool) {
        let door = openable(&doors[0]);
        let mut lab = Lab::new(std::slice::from_ref(&door), Matching::Tolerant);
        for (at, (packet, local)) in plain_knock(&door, 1).into_iter().enumerate() {
            let mut second = packet;
            if new && packet.step.protocol == Protocol::Tcp {
                second.tcp_sequence = 1 << 20 | at as u32;
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
        let told = run(&doors, matching, &packets);
        for at in 0..packets.len() {
            let here = told.iter().filter(|(packet, _)| *packet == at).map(|(_, event)| event);
            let progress: Vec<u16> = here
                .filter(|event| !matches!(event, Event::TimedOut { .. }))
                .map(|event| parts(event).0)
                .collect();
            prop_assert!(progress.is_sorted());
        }
        for (at, (_, event)) in told.iter().enumerate() {
            if let Event::Opened { door, source } = *event {
                let steps = doors[usize::from(door)].sequence.as_ref().map_or(0, |s| s.steps().len());
                let stage = Event::Stage { door, source, stage: steps as u8 };
                prop_assert_eq!(told[at - 1].1, stage);
            }
        }
    }
}
