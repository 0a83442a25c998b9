//! Random configs, and random knocks that are almost correct.

use crate::lab::Random;
use crate::model::Door;
use crate::packet::{Packet, SERVER, SERVER_SECOND, SERVER6, SYN};
use knockd_rs::knock::TCP_FLAGS;
use std::net::IpAddr;

/// The number of streams for one pair of daemons.
pub const STREAMS: usize = 50;

/// A config and the packets sent.
#[derive(Clone, Debug)]
pub struct Session {
    pub doors: Vec<Door>,
    pub packets: Vec<Packet>,
    /// The number of parts in which the packets are sent, two seconds apart.
    pub parts: usize,
}

impl Session {
    /// The parts, at least one.
    pub fn chunks(&self) -> Vec<&[Packet]> {
        let size = self.packets.len().div_ceil(self.parts).max(1);
        self.packets.chunks(size).collect()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// A session with `streams` streams.
pub fn session(random: &mut Random, streams: usize) -> Session {
    let mut doors = doors(random);
    let mut packets = Vec::new();
    if random.percent(70) {
        // An attempt that never ends and is older than all others. While it exists, knockd 0.8
        // forgets no attempt.
        doors.push(Door {
            steps: vec![(64_001, true), (64_002, true)],
            ..plain_door("guard")
        });
        packets.push(Packet {
            source: address("10.9.0.241"),
            destination: address(SERVER),
            port: 64_001,
            flags: None,
        });
    }
    let mut sources: Vec<IpAddr> = (20..32).map(|n| address(&format!("10.9.0.{n}"))).collect();
    sources.push(address("fd00:9::2"));
    sources.push(address("fd00:9::3"));
    for _ in 0..streams {
        stream(random, &doors, &sources, &mut packets);
    }
    Session {
        doors,
        packets,
        parts: 1,
    }
}

/// A session in which attempts time out. Parts are two seconds apart and times are odd, so that
/// counting whole seconds and exact times give the same result (D-MAT-03).
pub fn timed_session(random: &mut Random) -> Session {
    let mut session = session(random, 8);
    for door in session.doors.iter_mut().filter(|door| door.name != "guard") {
        door.seq_timeout = random.pick(&[1, 3, 5]);
    }
    session.packets.truncate(150);
    session.parts = 4;
    session
}

fn plain_door(name: &str) -> Door {
    Door {
        name: name.to_string(),
        steps: Vec::new(),
        set: 0,
        clear: 0,
        target: None,
        seq_timeout: 600,
        start: None,
        start_6: None,
        cmd_timeout: 0,
        stop: None,
        stop_6: None,
    }
}

fn doors(random: &mut Random) -> Vec<Door> {
    let pool: Vec<(u16, bool)> = (0..4 + random.below(30))
        .map(|_| (1000 + random.below(4000) as u16, random.percent(35)))
        .collect();
    let with_targets = random.percent(40);
    let mut doors: Vec<Door> = Vec::new();
    for number in 0..1 + random.below(20) {
        let mut door = plain_door(&format!("D{number}"));
        let length = match random.below(10) {
            0 => 1,
            1..7 => 2 + random.below(3),
            7 | 8 => 5 + random.below(6),
            _ => 10 + random.below(23),
        };
        if !doors.is_empty() && random.percent(40) {
            let other = random.pick(&doors);
            let common = 1 + random.below(other.steps.len());
            door.steps = other.steps[..common].to_vec();
        }
        door.steps.truncate(length);
        while door.steps.len() < length {
            door.steps.push(random.pick(&pool));
        }
        match random.below(10) {
            0..5 => door.set = SYN,
            5 => (door.set, door.clear) = (SYN, 0x10),
            6 | 7 => {
                for (_, bit) in TCP_FLAGS {
                    match random.below(6) {
                        0 => door.set |= bit,
                        1 => door.clear |= bit,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        if with_targets && random.percent(40) {
            door.target = Some(random.pick(&destinations()));
            if !doors.is_empty() && random.percent(50) {
                let other = random.pick(&doors);
                (door.steps, door.set, door.clear) = (other.steps, other.set, other.clear);
                door.target = Some(address(SERVER_SECOND));
            }
        }
        door.seq_timeout = 300 + random.below(500) as u32;
        commands(random, &mut door);
        doors.push(door);
    }
    doors
}

/// Only a few one-step doors run something, because each opening starts several processes.
fn commands(random: &mut Random, door: &mut Door) {
    if !random.percent(if door.steps.len() == 1 { 15 } else { 60 }) {
        return;
    }
    let mut command = |what: &str| match random.below(8) {
        0 => String::new(),
        1 => format!(": '{what} # = %IP% %ip% %IP%'"),
        _ => format!(": {what} %IP%"),
    };
    door.start = Some(command("start"));
    let (start_6, stop, stop_6) = (command("start6"), command("stop"), command("stop6"));
    door.start_6 = random.percent(30).then_some(start_6);
    if random.percent(30) && door.steps.len() > 1 {
        door.cmd_timeout = random.below(2) as u32;
        // An empty stop command is a different case (D-CFG-27).
        door.stop = Some(stop).filter(|stop| !stop.is_empty());
        door.stop_6 = Some(stop_6).filter(|stop| !stop.is_empty() && random.percent(50));
    }
}

fn destinations() -> [IpAddr; 5] {
    [SERVER, SERVER_SECOND, "10.9.0.99", SERVER6, "fd00:9::99"].map(address)
}

/// The server's addresses in the source's family.
fn near(source: IpAddr) -> Vec<IpAddr> {
    let all = destinations().into_iter();
    all.filter(|d| d.is_ipv6() == source.is_ipv6()).collect()
}

/// One to three sources, each progressing through a door.
fn stream(random: &mut Random, doors: &[Door], sources: &[IpAddr], packets: &mut Vec<Packet>) {
    let mut ways: Vec<Vec<Packet>> = (0..1 + random.below(3))
        .map(|_| {
            let source = random.pick(sources);
            let turned = turned(random, doors, source);
            let mut way = turned.unwrap_or_else(|| knock(random, doors, source));
            way.reverse();
            way
        })
        .collect();
    while !ways.is_empty() {
        let index = random.below(ways.len());
        packets.extend(ways[index].pop());
        ways.retain(|way| !way.is_empty());
    }
}

/// For a door and a later one that differ only in the later one's target, the server's second
/// address: a knock at both in which the first door starts over, so that its attempt is the younger
/// one (as in M026).
fn turned(random: &mut Random, doors: &[Door], source: IpAddr) -> Option<Vec<Packet>> {
    if source.is_ipv6() || !random.percent(20) {
        return None;
    }
    let second = address(SERVER_SECOND);
    let door = doors.iter().enumerate().find_map(|(number, door)| {
        let twin = |other: &Door| {
            other.target == Some(second) && other.steps == door.steps && other.set == door.set
        };
        let fits = door.target.is_none() && door.steps.len() > 2 && door.steps[1] != door.steps[2];
        (fits && doors[number + 1..].iter().any(twin)).then_some(door)
    })?;
    let packet = |(port, udp): (u16, bool), destination| Packet {
        source,
        destination,
        port,
        flags: (!udp).then_some(door.set | SYN & !door.clear),
    };
    let first = address(SERVER);
    let mut way = vec![
        packet(door.steps[0], second),
        packet(door.steps[2], first),
        packet(door.steps[0], first),
    ];
    way.extend(door.steps[1..].iter().map(|&step| packet(step, second)));
    Some(way)
}

fn knock(random: &mut Random, doors: &[Door], source: IpAddr) -> Vec<Packet> {
    let door = random.pick(doors);
    let home = address(if source.is_ipv6() { SERVER6 } else { SERVER });
    let own = door
        .target
        .filter(|t| t.is_ipv6() == source.is_ipv6())
        .unwrap_or(home);
    let mut way = Vec::new();
    let is_clean = random.percent(40);
    let wanders = random.percent(20);
    for &(port, udp) in &door.steps {
        let flags = (!udp).then_some(match door.set | door.clear {
            0 => SYN,
            _ => door.set | random.bits() as u8 & 0x3f & !door.clear,
        });
        let right = Packet {
            source,
            destination: match wanders {
                true => random.pick(&near(source)),
                false => own,
            },
            port,
            flags,
        };
        if is_clean {
            way.push(right);
            continue;
        }
        let (other_port, other_udp) = {
            let other = random.pick(doors);
            random.pick(&other.steps)
        };
        match random.below(100) {
            0..6 => way.extend([right, right]),
            6..9 => {}
            9..14 => way.extend([
                Packet {
                    port: other_port,
                    flags: (!other_udp).then_some(SYN),
                    ..right
                },
                right,
            ]),
            14..17 => way.push(Packet {
                port: other_port,
                flags: (!other_udp).then_some(SYN),
                ..right
            }),
            17..20 => way.extend([
                Packet {
                    flags: flags.map(|_| random.bits() as u8 & 0x3f),
                    ..right
                },
                right,
            ]),
            20..23 => way.extend([
                Packet {
                    flags: if udp { Some(SYN) } else { None },
                    ..right
                },
                right,
            ]),
            23..27 => {
                way.push(Packet {
                    destination: random.pick(&near(source)),
                    ..right
                });
            }
            27..30 => way.extend([Packet { port: 7, ..right }, right]),
            _ => way.push(right),
        }
    }
    way
}
