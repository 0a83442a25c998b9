//! The default rule once more, as plainly as it can be said: at each knock everything is worked out anew from all
//! knocks of that source that counted for that door since it opened last.

use crate::script::{Packet, doors_and_packets, host, of, run, some_tripwires};
use knockd_rs::door::{Matching, Millis, Pattern, Protocol, Step};
use knockd_rs::limits::{MAX_STRAYS, RETRANSMISSION_MS};
use knockd_rs::matcher::Event;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::net::IpAddr;

/// Stage, start, strays, whether a tripwire was hit.
type Reading = (usize, Millis, u8, bool);

/// A knock that counts, or none: a tripwire, and not the one that was hit before.
type Past = (Millis, Option<Step>);

/// The ways to read that history as the beginning of the sequence.
fn readings(steps: &[Step], seq_timeout: Millis, history: &[Past], now: Millis) -> Vec<Reading> {
    let Some((&(time, step), before)) = history.split_last() else {
        return Vec::new();
    };
    let mut readings: Vec<Reading> = readings(steps, seq_timeout, before, time)
        .into_iter()
        .filter_map(|(stage, start, strays, tripped)| match step {
            None if tripped => None,
            None => Some((stage, start, strays, true)),
            Some(s) if s == steps[stage] => Some((stage + 1, start, strays, tripped)),
            Some(s) if s == steps[stage - 1] => Some((stage, start, strays, tripped)),
            _ => Some((stage, start, strays + 1, tripped)),
        })
        .chain((step == Some(steps[0])).then_some((1, time, 0, false)))
        .collect();
    readings.sort_by_key(|(stage, start, strays, tripped)| {
        (*stage, Reverse(*start), *strays, *tripped)
    });
    readings.dedup_by_key(|(stage, ..)| *stage);
    readings.retain(|(_, start, strays, _)| *strays <= MAX_STRAYS && now - start < seq_timeout);
    readings
}

fn model(door: u16, doors: &[Pattern], source: IpAddr, packets: &[Packet]) -> Vec<Event> {
    let pattern = &doors[usize::from(door)];
    let Some(sequence) = &pattern.sequence else {
        return Vec::new();
    };
    let steps = sequence.steps();
    let read = |history: &[_], now| readings(steps, pattern.seq_timeout, history, now);
    let mut events = Vec::new();
    let mut history: Vec<Past> = Vec::new();
    let mut tripwire = None;
    let mut told: Option<usize> = None;
    let mut last_advance = None;
    for (now, knock, local) in packets {
        let trips = some_tripwires().is_hit_by(knock, doors)
            && pattern.accepts_destination(knock.destination, *local);
        if knock.source != source || !(pattern.wants(knock, *local) || trips) {
            continue;
        }
        let before = read(&history, *now);
        let is_there = |readings: &[Reading], stage| readings.iter().any(|r| r.0 == stage);
        if let Some(stage) = told.take_if(|stage| !is_there(&before, *stage)) {
            events.push(Event::TimedOut {
                door,
                source,
                stage: stage as u8,
            });
        }
        if before.is_empty() {
            history.clear();
            last_advance = None;
            tripwire = None;
        }
        if trips {
            if before.is_empty() || tripwire.replace(knock.step.port) == Some(knock.step.port) {
                continue;
            }
            history.push((*now, None));
            let after = read(&history, *now);
            if let Some(stage) = told.take_if(|stage| !is_there(&after, *stage)) {
                events.push(Event::Failed {
                    door,
                    source,
                    stage: stage as u8,
                });
            }
            if after.is_empty() {
                history.clear();
                last_advance = None;
                tripwire = None;
            }
            continue;
        }
        let segment = (knock.step, knock.source_port, knock.tcp_sequence);
        if let Some((last, seen)) = &mut last_advance
            && *last == segment
            && now - *seen <= RETRANSMISSION_MS
        {
            *seen = *now;
            continue;
        }

        history.push((*now, Some(knock.step)));
        let advanced = before
            .iter()
            .filter(|(stage, ..)| steps[*stage] == knock.step);
        let started = (steps[0] == knock.step).then_some(1);
        let reached = advanced.map(|(stage, ..)| stage + 1).chain(started).max();
        let repeats = told.is_some_and(|told| steps[told - 1] == knock.step);
        if reached.is_some() && knock.step.protocol == Protocol::Tcp {
            last_advance = Some((segment, *now));
        }
        if let Some(stage) = reached.filter(|reached| Some(*reached) > told || !repeats) {
            told = Some(stage);
            events.push(Event::Stage {
                door,
                source,
                stage: stage as u8,
            });
        }
        if reached == Some(steps.len()) {
            events.push(Event::Opened { door, source });
            history.clear();
            told = None;
            last_advance = None;
            tripwire = None;
        } else if reached.is_none() {
            let after = read(&history, *now);
            if let Some(stage) = told.take_if(|stage| !is_there(&after, *stage)) {
                events.push(Event::Failed {
                    door,
                    source,
                    stage: stage as u8,
                });
            }
            if after.is_empty() {
                history.clear();
                last_advance = None;
                tripwire = None;
            }
        }
    }
    events.extend(told.map(|stage| Event::TimedOut {
        door,
        source,
        stage: stage as u8,
    }));
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_matcher_does_what_the_plain_rule_says((doors, packets) in doors_and_packets(true, true)) {
        let told = run(&doors, Matching::Tolerant, &packets);
        let told: Vec<Event> = told.into_iter().map(|(_, event)| event).collect();
        for source in (2..5).map(host) {
            for door in 0..doors.len() as u16 {
                let expected = model(door, &doors, source, &packets);
                prop_assert_eq!(of(&told, door, source), expected);
            }
        }
    }
}
