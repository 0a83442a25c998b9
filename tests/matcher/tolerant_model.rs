//! A second implementation of the default rule, as simple as possible: one list of readings for
//! each source, compared in pairs.

use crate::script::{Packet, doors_and_packets, host, of, run, some_tripwires};
use knockd_rs::knock::{Knock, Matching, Pattern, Step};
use knockd_rs::limits::{COPY_FACTOR, FIRST_COPY_MS, LAST_COPY_MS, MAX_STRAYS};
use knockd_rs::matcher::Event;
use knockd_rs::util::time::Millis;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

/// The packets that counted, each with the time of its last copy and the longest pause between two
/// copies.
#[derive(Default)]
pub struct Copies(HashMap<Same, (Millis, Millis)>);

/// What copies have in common: source, destination, step, source port and serial.
type Same = (IpAddr, IpAddr, Step, u16, u32);

impl Copies {
    fn key(knock: &Knock) -> Same {
        let Knock {
            source,
            destination,
            step,
            source_port,
            serial,
            ..
        } = *knock;
        (source, destination, step, source_port, serial)
    }

    pub fn is_copy(&mut self, knock: &Knock, now: Millis) -> bool {
        let Some((seen, pause)) = self.0.get_mut(&Copies::key(knock)) else {
            return false;
        };
        let age = now - *seen;
        // Pauses are stored in units of 64 ms, rounded up.
        let longest = (u64::from(COPY_FACTOR) * pause.next_multiple_of(64))
            .clamp(FIRST_COPY_MS.into(), LAST_COPY_MS.into());
        if knock.serial == 0 || age > longest {
            return false;
        }
        (*seen, *pause) = (now, age.max(*pause));
        true
    }

    pub fn record(&mut self, knock: &Knock, now: Millis) {
        self.0.insert(Copies::key(knock), (now, 0));
    }
}

/// One way to interpret the source's knocks as the beginning of a door's sequence.
#[derive(Clone, Copy, Debug)]
struct Reading {
    door: usize,
    stage: usize,
    /// The index of its first packet.
    start: usize,
    strays: u8,
    tripped: bool,
    broken: bool,
    repeats: bool,
    used: bool,
}

struct Model<'a> {
    doors: &'a [Pattern],
    source: IpAddr,
    /// The time of each packet.
    times: Vec<Millis>,
    readings: Vec<Reading>,
    copies: Copies,
    /// The last reported stage of each door, and the last tripwire hit.
    reported: Vec<usize>,
    tripwires: Vec<Option<u16>>,
    events: Vec<Event>,
}

impl Model<'_> {
    fn steps(&self, door: usize) -> &[Step] {
        let sequence = self.doors[door].sequence.as_ref();
        sequence.map_or(&[], |sequence| sequence.steps())
    }

    fn is_there(&self, door: usize, stage: usize) -> bool {
        (self.readings.iter()).any(|reading| (reading.door, reading.stage) == (door, stage))
    }

    fn tell(&mut self, door: usize, event: fn(u16, IpAddr, u8) -> Event, stage: usize) {
        let event = event(door as u16, self.source, stage as u8);
        self.events.push(event);
    }

    /// Removes expired readings of this door. Reports the time-out if the last reported stage was
    /// one of them.
    fn expire(&mut self, door: usize, now: Millis) {
        let (times, timeout) = (&self.times, self.doors[door].seq_timeout);
        (self.readings).retain(|r| r.door != door || now - times[r.start] < timeout);
        let reported = self.reported[door];
        if reported > 0 && !self.is_there(door, reported) {
            self.reported[door] = 0;
            self.tell(
                door,
                |door, source, stage| Event::TimedOut {
                    door,
                    source,
                    stage,
                },
                reported,
            );
        }
        self.forget_tripwire(door);
    }

    fn forget_tripwire(&mut self, door: usize) {
        if self.readings.iter().all(|reading| reading.door != door) {
            self.tripwires[door] = None;
        }
    }

    fn fail(&mut self, door: usize) {
        let reported = self.reported[door];
        if reported > 0 && !self.is_there(door, reported) {
            self.reported[door] = 0;
            self.tell(
                door,
                |door, source, stage| Event::Failed {
                    door,
                    source,
                    stage,
                },
                reported,
            );
        }
        self.forget_tripwire(door);
    }

    fn packet(&mut self, (now, knock, local): &Packet) {
        self.times.push(*now);
        let here = |door: &Pattern| door.accepts_destination(knock.destination, *local);
        let wants = |door: &Pattern| door.wants(knock, *local);
        let all = 0..self.doors.len();
        if some_tripwires().is_hit_by(knock, self.doors) {
            for door in all.filter(|door| here(&self.doors[*door])) {
                self.expire(door, *now);
                if self.readings.iter().all(|reading| reading.door != door)
                    || self.tripwires[door].replace(knock.step.port) == Some(knock.step.port)
                {
                    continue;
                }
                (self.readings).retain(|reading| reading.door != door || !reading.tripped);
                for reading in &mut self.readings {
                    reading.tripped |= reading.door == door;
                }
                self.fail(door);
            }
            return;
        }
        if !self.doors.iter().any(wants) {
            return;
        }
        for door in all.clone() {
            self.expire(door, *now);
        }
        if self.copies.is_copy(knock, *now) {
            return;
        }
        let this = self.times.len() - 1;
        let new = |door: usize, stage: usize| Reading {
            door,
            stage,
            start: this,
            strays: 0,
            tripped: false,
            broken: false,
            repeats: false,
            used: false,
        };
        let is_due = |model: &Model, r: &Reading| {
            wants(&model.doors[r.door]) && model.steps(r.door)[r.stage] == knock.step
        };
        let is_last = |model: &Model, r: &Reading| r.stage + 1 == model.steps(r.door).len();

        // Compare every reading that would be complete with every one that continues.
        let short = all
            .clone()
            .filter(|door| wants(&self.doors[*door]) && self.steps(*door).len() == 1);
        let mut complete: Vec<Reading> = short.map(|door| new(door, 0)).collect();
        let due: Vec<Reading> = self
            .readings
            .iter()
            .filter(|r| is_due(self, r))
            .copied()
            .collect();
        complete.extend(due.iter().filter(|r| is_last(self, r)));
        complete.retain(|x| {
            let others = due
                .iter()
                .filter(|y| y.door != x.door && !y.broken && !is_last(self, y));
            others.into_iter().all(|y| {
                let lies_within = y.start < x.start;
                let fits_better = y.start == x.start && (x.broken || x.repeats && !y.repeats);
                !(lies_within || fits_better || x.used && x.broken)
            })
        });
        let rank = |r: &Reading| (r.broken, r.start, r.repeats);
        let best = complete.iter().map(rank).min();
        complete.retain(|r| Some(rank(r)) == best);
        complete.sort_by_key(|r| r.door);
        let opened: Vec<usize> = complete.iter().map(|r| r.door).collect();
        let opens = !opened.is_empty();

        let before = std::mem::take(&mut self.readings);
        let mut is_used = opens;
        let mut reached = vec![0; self.doors.len()];
        for mut r in before {
            let (steps, due) = (self.steps(r.door).to_vec(), is_due(self, &r));
            let counts = here(&self.doors[r.door]) && self.doors[r.door].fits_flags(knock);
            let wanted = wants(&self.doors[r.door]);
            is_used |= due;
            let (done, after) = steps.split_at(r.stage);
            if opened.contains(&r.door) {
                continue;
            } else if opens {
                let went_on = [done, &after[..1]].concat();
                let is_beginning = opened.iter().any(|door| self.steps(*door) == went_on);
                let is_used_up = opened.iter().any(|door| {
                    let steps = self.steps(*door);
                    here(&self.doors[r.door])
                        && steps.len() > 1
                        && done.iter().any(|step| steps.contains(step))
                });
                if due && is_beginning && after.len() > 1 && r.start == complete[0].start {
                    r.stage += 1;
                    r.used = true;
                    reached[r.door] = reached[r.door].max(r.stage);
                } else if r.used || is_used_up {
                    continue;
                } else {
                    r.broken |= counts;
                }
            } else if due {
                r.stage += 1;
                if after.len() == 1 {
                    continue;
                }
                reached[r.door] = reached[r.door].max(r.stage);
            } else if wanted && done.last() == Some(&knock.step) && !r.used {
                r.repeats = true;
            } else if counts {
                r.broken = true;
                r.strays += u8::from(wanted || r.used);
                if r.strays > MAX_STRAYS {
                    continue;
                }
            }
            self.readings.push(r);
        }
        for door in all.clone() {
            let is_first = wants(&self.doors[door]) && self.steps(door)[0] == knock.step;
            let goes_on = opens && complete[0].start == this;
            if is_first
                && self.steps(door).len() > 1
                && !opened.contains(&door)
                && (!opens || goes_on)
            {
                self.readings.push(Reading {
                    used: opens,
                    ..new(door, 1)
                });
                reached[door] = reached[door].max(1);
                is_used = true;
            }
        }
        let times = &self.times;
        self.readings.sort_by_key(|r| {
            let started = Reverse(times[r.start]);
            (
                r.door,
                Reverse(r.stage),
                started,
                r.strays,
                r.tripped,
                Reverse(r.start),
            )
        });
        self.readings.dedup_by_key(|r| (r.door, r.stage));
        if is_used {
            self.copies.record(knock, *now);
        }
        for door in all {
            let (reported, reached) = (self.reported[door], reached[door]);
            let repeats = reported > 0 && self.steps(door)[reported - 1] == knock.step;
            if opened.contains(&door) {
                self.reported[door] = 0;
                self.tripwires[door] = None;
                let stage = self.steps(door).len();
                self.tell(
                    door,
                    |door, source, stage| Event::Stage {
                        door,
                        source,
                        stage,
                    },
                    stage,
                );
                self.tell(door, |door, source, _| Event::Opened { door, source }, 0);
            } else if reached > reported || reached > 0 && !repeats {
                self.reported[door] = reached;
                self.tell(
                    door,
                    |door, source, stage| Event::Stage {
                        door,
                        source,
                        stage,
                    },
                    reached,
                );
            } else {
                self.fail(door);
            }
            self.forget_tripwire(door);
        }
    }
}

/// The events that the rule reports for one source.
pub fn model(doors: &[Pattern], source: IpAddr, packets: &[Packet]) -> Vec<Event> {
    let mut model = Model {
        doors,
        source,
        times: Vec::new(),
        readings: Vec::new(),
        copies: Copies::default(),
        reported: vec![0; doors.len()],
        tripwires: vec![None; doors.len()],
        events: Vec::new(),
    };
    for packet in packets
        .iter()
        .filter(|(_, knock, _)| knock.source == source)
    {
        model.packet(packet);
    }
    for door in 0..doors.len() {
        model.expire(door, Millis::MAX);
    }
    model.events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn the_matcher_does_what_the_plain_rule_says((doors, packets) in doors_and_packets(true, true)) {
        let reported = run(&doors, Matching::Tolerant, &packets);
        let reported: Vec<Event> = reported.into_iter().map(|(_, event)| event).collect();
        for source in (2..5).map(host) {
            let expected = model(&doors, source, &packets);
            for door in 0..doors.len() as u16 {
                prop_assert_eq!(of(&reported, door, source), of(&expected, door, source));
            }
        }
    }
}
