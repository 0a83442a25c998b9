//! Doors, packets and random traffic for the other tests.

use knockd_rs::knock::tripwire::{PortRange, Tripwires};
use knockd_rs::knock::{FlagRule, Knock, Matching, Pattern, Protocol, Sequence, Step, TCP_FLAGS};
use knockd_rs::limits::{DEFAULT_ATTEMPTS, TICK_MS};
use knockd_rs::matcher::{Event, Matcher, Rules};
use knockd_rs::util::time::Millis;
use proptest::prelude::*;
use std::net::IpAddr;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// Parses `7000` or `7000:udp`.
pub fn step(text: &str) -> Step {
    let (port, protocol) = match text.split_once(':') {
        None | Some((_, "tcp")) => (text.split(':').next().unwrap_or_default(), Protocol::Tcp),
        Some((port, "udp")) => (port, Protocol::Udp),
        Some(_) => panic!("{text}"),
    };
    Step {
        protocol,
        port: port.parse().expect(text),
    }
}

/// Parses `7000,8000:udp`.
pub fn sequence(text: &str) -> Sequence {
    let steps: Vec<Step> = text.split(',').map(step).collect();
    Sequence::new(&steps).expect(text)
}

/// A door that accepts SYN packets to any local address.
pub fn door(steps: &str, seq_timeout: Millis) -> Pattern {
    Pattern {
        sequence: Some(sequence(steps)),
        seq_timeout,
        flags: FlagRule { set: SYN, clear: 0 },
        target: None,
    }
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// 10.9.0.N.
pub fn host(n: u8) -> IpAddr {
    [10, 9, 0, n].into()
}

/// 172.16.0.0 plus `n`.
pub fn stranger(n: u32) -> IpAddr {
    IpAddr::V4((0xac10_0000 + n).into())
}

/// A SYN or UDP packet to 10.9.0.1. `id` determines its source port and serial, so equal ids make
/// copies.
pub fn knock(source: IpAddr, step: Step, id: u32) -> Knock {
    let tcp = step.protocol == Protocol::Tcp;
    Knock {
        source,
        destination: host(1),
        step,
        flags: if tcp { SYN } else { 0 },
        source_port: 1024 + (id % 60_000) as u16,
        serial: id,
    }
}

/// The rules of a config without any of these options.
pub fn rules(matching: Matching) -> Rules {
    Rules {
        matching,
        max_attempts: DEFAULT_ATTEMPTS,
        tripwires: Tripwires::default(),
        ban: None,
    }
}

/// A matcher, its clock, and the events that it has reported.
pub struct Lab {
    pub matcher: Matcher,
    pub now: Millis,
    pub events: Vec<Event>,
    id: u32,
}

impl Lab {
    pub fn new(doors: &[Pattern], matching: Matching) -> Lab {
        Lab::with(doors, rules(matching))
    }

    pub fn with(doors: &[Pattern], rules: Rules) -> Lab {
        let matcher = Matcher::new(doors.to_vec(), rules, 42);
        Lab {
            matcher,
            now: 1_000,
            events: Vec::new(),
            id: 0,
        }
    }

    /// Advances the clock, waking the matcher at each expiry as the listener does.
    pub fn wait(&mut self, time: Millis) {
        let until = self.now + time;
        while let Some(due) = self.matcher.next_expiry().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.matcher
                .expire(self.now, &mut |event| self.events.push(event));
            assert!(
                self.matcher
                    .next_expiry()
                    .is_none_or(|next| next > self.now),
                "the next expiry comes after this one"
            );
        }
        self.now = until;
    }

    /// Advances the clock until every attempt has timed out.
    pub fn wait_for_all(&mut self) {
        let longest = self
            .matcher
            .patterns()
            .iter()
            .map(|door| door.seq_timeout)
            .max();
        let end = self.now + longest.unwrap_or(0) + TICK_MS;
        while let Some(due) = self.matcher.next_expiry() {
            assert!(
                due <= end,
                "nothing lives longer than the longest seq_timeout"
            );
            self.wait(due.saturating_sub(self.now));
        }
    }

    pub fn packet(&mut self, packet: &Knock, local: bool) {
        self.matcher.knock(packet, local, self.now, &mut |event| {
            self.events.push(event)
        });
    }

    /// Sends a new knock from 10.9.0.2 for each of these steps, all at the current time.
    pub fn knocks(&mut self, steps: &str) {
        self.knocks_from(host(2), steps);
    }

    pub fn knocks_from(&mut self, source: IpAddr, steps: &str) {
        for text in steps.split_whitespace() {
            self.id += 1;
            self.packet(&knock(source, step(text), self.id), true);
        }
    }

    /// The events since the last call: `1` a stage, `!` opened, `~2` timed out, `x2` failed.
    /// Sources are omitted. The door (`A`, `B`, ...) is shown only if there are several.
    pub fn take_events(&mut self) -> String {
        let several = self.matcher.patterns().len() > 1;
        let words: Vec<String> = std::mem::take(&mut self.events)
            .iter()
            .map(|event| {
                let (door, _, word) = parts(event);
                let name = if several {
                    char::from(b'A' + door as u8).into()
                } else {
                    String::new()
                };
                name + &word
            })
            .collect();
        words.join(" ")
    }
}

/// Door, source and a description of the event.
pub fn parts(event: &Event) -> (u16, IpAddr, String) {
    match *event {
        Event::Stage {
            door,
            source,
            stage,
        } => (door, source, format!("{stage}")),
        Event::Opened { door, source } => (door, source, "!".into()),
        Event::TimedOut {
            door,
            source,
            stage,
        } => (door, source, format!("~{stage}")),
        Event::Failed {
            door,
            source,
            stage,
        } => (door, source, format!("x{stage}")),
        Event::Scanned { source } => (0, source, "scanned".into()),
    }
}

/// The events of one source at one door.
pub fn of(events: &[Event], door: u16, source: IpAddr) -> Vec<Event> {
    events
        .iter()
        .filter(|event| matches!(parts(event), (d, s, _) if d == door && s == source))
        .copied()
        .collect()
}

/// Arrival time, packet, and whether its destination is local.
pub type Packet = (Millis, Knock, bool);

#[derive(Clone, Debug)]
enum Op {
    /// The step after the last one that this source sent for that door.
    Right {
        source: u8,
        door: usize,
    },
    /// The same step again, as a new packet.
    Repeat {
        source: u8,
        door: usize,
    },
    /// Any step of any door, sometimes with other flags or another destination.
    Stray {
        source: u8,
        door: usize,
        at: usize,
        flags: u8,
        destination: u8,
    },
    /// One of a few tripwires, sometimes with other flags.
    Trip {
        source: u8,
        port: u16,
        flags: u8,
    },
    /// A copy of this source's last packet.
    Copy {
        source: u8,
    },
    Wait(Millis),
}

/// The tripwires hit by [`op`]. Most doors use port 4 as a step.
pub fn some_tripwires() -> Tripwires {
    Tripwires::listed(vec![PortRange { low: 4, high: 7 }])
}

fn op(copies: bool, trips: bool) -> impl Strategy<Value = Op> {
    let source = 2u8..5;
    let door = 0usize..4;
    let flags = prop_oneof![4 => Just(SYN), 1 => Just(SYN | ACK), 1 => Just(0)];
    prop_oneof![
        12 => (source.clone(), door.clone()).prop_map(|(source, door)| Op::Right { source, door }),
        2 => (source.clone(), door.clone()).prop_map(|(source, door)| Op::Repeat { source, door }),
        3 => (source.clone(), door, 0usize..8, flags, prop_oneof![3 => Just(1u8), 1 => Just(11), 1 => Just(99)])
            .prop_map(|(source, door, at, flags, destination)| Op::Stray { source, door, at, flags, destination }),
        if trips { 3 } else { 0 } => (source.clone(), 4u16..8, prop_oneof![4 => Just(SYN), 1 => Just(SYN | ACK)])
            .prop_map(|(source, port, flags)| Op::Trip { source, port, flags }),
        if copies { 2 } else { 0 } => source.prop_map(|source| Op::Copy { source }),
        3 => prop_oneof![0u64..40, 180u64..220, Just(800), Just(1000), 2_990u64..3_010, Just(5000)]
            .prop_map(Op::Wait),
    ]
}

/// Up to four doors over few ports, so that they share steps and repeat their own.
pub fn some_doors() -> impl Strategy<Value = Vec<Pattern>> {
    let steps = (1u16..5, prop::bool::weighted(0.2)).prop_map(|(port, udp)| Step {
        protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
        port,
    });
    let flags = prop_oneof![
        2 => Just(FlagRule::default()),
        2 => Just(FlagRule { set: SYN, clear: 0 }),
        1 => Just(FlagRule { set: SYN, clear: ACK }),
    ];
    let target = prop_oneof![4 => Just(None), 1 => Just(Some(host(1))), 1 => Just(Some(host(99)))];
    let seq_timeout = prop_oneof![
        1 => Just(0u64),
        1 => Just(200),
        2 => Just(1000),
        4 => Just(5000),
        2 => Just(25_000),
    ];
    let sequence = prop_oneof![
        20 => prop::collection::vec(steps, 1..7).prop_map(|steps| Sequence::new(&steps)),
        1 => Just(None),
    ];
    let door = (sequence, seq_timeout, flags, target).prop_map(
        |(sequence, seq_timeout, flags, target)| Pattern {
            sequence,
            seq_timeout,
            flags,
            target,
        },
    );
    prop::collection::vec(door, 1..5)
}

/// Doors, and packets from a few sources that nearly open them. Without copies, all packets differ.
/// With `trips`, some packets hit [`some_tripwires`].
pub fn doors_and_packets(
    copies: bool,
    trips: bool,
) -> impl Strategy<Value = (Vec<Pattern>, Vec<Packet>)> {
    (
        some_doors(),
        prop::collection::vec(op(copies, trips), 1..120),
    )
        .prop_map(|(doors, ops)| (doors.clone(), play(&doors, &ops)))
}

fn play(doors: &[Pattern], ops: &[Op]) -> Vec<Packet> {
    let mut now = 500;
    let mut packets: Vec<Packet> = Vec::new();
    let mut done = [[0usize; 4]; 8];
    for (id, op) in (1u32..).zip(ops) {
        let steps = |door: usize| {
            doors
                .get(door % doors.len())
                .and_then(|d| d.sequence.as_ref())
                .map(|s| s.steps())
        };
        let mut send = |source: u8, door: usize, at: usize, flags: u8, destination: Option<u8>| {
            let Some(steps) = steps(door) else { return };
            let mut packet = knock(host(source), steps[at % steps.len()], id);
            if packet.step.protocol == Protocol::Tcp {
                packet.flags = flags;
            }
            let target = doors[door % doors.len()].target;
            packet.destination = destination.map(host).or(target).unwrap_or(host(1));
            packets.push((now, packet, packet.destination != host(99)));
        };
        match *op {
            Op::Right { source, door } => {
                let at = &mut done[usize::from(source)][door % doors.len()];
                send(source, door, *at, SYN, None);
                *at += 1;
            }
            Op::Repeat { source, door } => {
                let at = done[usize::from(source)][door % doors.len()];
                send(source, door, at.saturating_sub(1), SYN, None);
            }
            Op::Stray {
                source,
                door,
                at,
                flags,
                destination,
            } => {
                send(source, door, at, flags, Some(destination));
            }
            Op::Trip {
                source,
                port,
                flags,
            } => {
                let protocol = if id % 4 == 0 {
                    Protocol::Udp
                } else {
                    Protocol::Tcp
                };
                let mut packet = knock(host(source), Step { protocol, port }, id);
                if protocol == Protocol::Tcp {
                    packet.flags = flags;
                }
                packets.push((now, packet, true));
            }
            Op::Copy { source } => {
                let last = packets
                    .iter()
                    .rev()
                    .find(|(_, p, _)| p.source == host(source));
                if let Some((_, packet, local)) = last.copied() {
                    packets.push((now, packet, local));
                }
            }
            Op::Wait(time) => now += time,
        }
    }
    packets
}

/// The events of these packets, each with the index of its packet. At the end every attempt times
/// out.
pub fn run(doors: &[Pattern], matching: Matching, packets: &[Packet]) -> Vec<(usize, Event)> {
    let rules = Rules {
        tripwires: some_tripwires(),
        ..rules(matching)
    };
    let mut lab = Lab::with(doors, rules);
    lab.now = 0;
    let mut events = Vec::new();
    for (at, (time, packet, local)) in packets.iter().enumerate() {
        lab.wait(time - lab.now);
        lab.packet(packet, *local);
        events.extend(lab.events.drain(..).map(|event| (at, event)));
    }
    lab.wait_for_all();
    events.extend(lab.events.drain(..).map(|event| (packets.len(), event)));
    assert_eq!(lab.matcher.next_expiry(), None);
    events
}

/// Parses `syn,ack` into bits; `-` means no flags.
pub fn flags(text: &str) -> u8 {
    let bit = |name: &str| TCP_FLAGS.iter().find(|(n, _)| *n == name).expect(text).1;
    text.split(',').filter(|name| *name != "-").map(bit).sum()
}
