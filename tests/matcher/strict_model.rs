//! A second implementation of knockd 0.8's rule, following its specification: one list of attempts,
//! searched from start to end.

use crate::script::{Packet, doors_and_packets, host, of, run};
use knockd_rs::knock::{Matching, Pattern, Step};
use knockd_rs::matcher::Event;
use knockd_rs::util::time::Millis;
use proptest::prelude::*;
use std::net::IpAddr;

struct Attempt {
    door: u16,
    source: IpAddr,
    left: Vec<Step>,
    stage: u8,
    start: Millis,
    over: bool,
}

impl Attempt {
    fn step(&mut self, events: &mut Vec<Event>) {
        let (door, source) = (self.door, self.source);
        self.left.remove(0);
        self.stage += 1;
        events.push(Event::Stage {
            door,
            source,
            stage: self.stage,
        });
        if self.left.is_empty() {
            events.push(Event::Opened { door, source });
            self.over = true;
        }
    }
}

fn model(doors: &[Pattern], packets: &[Packet]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut attempts: Vec<Attempt> = Vec::new();
    let forever = (Millis::MAX, None);
    let packets = packets
        .iter()
        .map(|(now, knock, local)| (*now, Some((knock, *local))));
    for (now, packet) in packets.chain([forever]) {
        for a in &mut attempts {
            if now - a.start >= doors[usize::from(a.door)].seq_timeout {
                let (door, source, stage) = (a.door, a.source, a.stage);
                events.push(Event::TimedOut {
                    door,
                    source,
                    stage,
                });
                a.over = true;
            }
        }
        attempts.retain(|attempt| !attempt.over);
        let Some((knock, local)) = packet else { break };
        if !doors.iter().any(|door| door.wants(knock, local)) {
            continue;
        }
        let here = |door: &Pattern| door.accepts_destination(knock.destination, local);
        let mut any = false;
        for a in &mut attempts {
            let door = &doors[usize::from(a.door)];
            if a.source != knock.source || !here(door) {
                continue;
            }
            any = true;
            if !door.fits_flags(knock) {
            } else if a.left[0] == knock.step {
                a.step(&mut events);
            } else {
                let (door, source, stage) = (a.door, a.source, a.stage);
                events.push(Event::Failed {
                    door,
                    source,
                    stage,
                });
                a.over = true;
            }
        }
        for (door, pattern) in (0..).zip(doors) {
            let left = pattern
                .sequence
                .iter()
                .flat_map(|s| s.steps())
                .copied()
                .collect::<Vec<_>>();
            let fits = here(pattern) && pattern.fits_flags(knock);
            if !any && fits && left.first() == Some(&knock.step) {
                let source = knock.source;
                let mut new = Attempt {
                    door,
                    source,
                    left,
                    stage: 0,
                    start: now,
                    over: false,
                };
                new.step(&mut events);
                attempts.push(new);
            }
        }
        attempts.retain(|attempt| !attempt.over);
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_matcher_does_what_the_plain_rule_says((doors, packets) in doors_and_packets(true, true)) {
        let events = run(&doors, Matching::Strict, &packets);
        let events: Vec<Event> = events.into_iter().map(|(_, event)| event).collect();
        let expected = model(&doors, &packets);
        for source in (2..5).map(host) {
            for door in 0..doors.len() as u16 {
                prop_assert_eq!(of(&events, door, source), of(&expected, door, source));
            }
        }
    }
}
