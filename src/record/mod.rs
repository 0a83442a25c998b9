//! What keeper and listener say to each other: bounded records over a socketpair. A record that cannot be decoded
//! ends the listener, since an honest one sends none.
//!
//! On the wire: one byte that tells the kind, then the fields in order, numbers big-endian, an address as its length
//! (4 or 16) and octets, text as its length (2 bytes) and bytes, none of them a control character.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use crate::door::{FlagRule, Knock, Matching, Pattern, Protocol, Sequence, Step};
use crate::limits::{MAX_RECORD, MAX_STEPS};
use crate::tripwire::{BanRule, PortRange, Tripwire};
use std::net::IpAddr;

/// A record as it travels.
pub type Bytes = heapless::Vec<u8, MAX_RECORD>;

/// Ranges of ports that fit into one record.
pub const RANGES_AT_ONCE: usize = (MAX_RECORD - 2) / 4;

/// From the keeper to the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToListener {
    /// The first record: how to listen. Then comes a `Door` for each door, then `Tripwires` where ports are listed; the listener
    /// answers `Ready` or `Refused`, and waits for `Start`.
    Setup {
        /// The number of doors that follow.
        doors: u16,
        /// The rule of matching.
        matching: Matching,
        /// `MaxAttempts`.
        max_attempts: u16,
        /// Which `Tripwire` there are; of those that are listed this many ranges come after the doors, in `Tripwires`.
        tripwire: Tripwire<u16>,
        /// When to tell `Scanned`.
        ban: Option<BanRule>,
        /// `-4`.
        only_ip_v4: bool,
        /// `-v` or `-D`: send what only those show.
        verbose: bool,
        /// `-D`: send every knock.
        debug: bool,
        /// `LogRate`.
        log_rate: u32,
        /// Interfaces that are not there are waited for instead of refused: there was a listener before.
        wait_for_interfaces: bool,
        /// `-i`, as written.
        interface: String,
    },
    /// What opens the next door.
    Door {
        /// Its sequence, flags, target and time.
        pattern: Pattern,
        /// Its sequence is from a one-time list: after it opened, the next one comes with `Sequence`.
        one_time: bool,
    },
    /// The next of the tripwires that are listed, at most [`RANGES_AT_ONCE`].
    Tripwires(Vec<PortRange>),
    /// Everything else is ready: match from now on.
    Start,
    /// The next one-time sequence of a door, or that it has none.
    Sequence {
        /// The door.
        door: u16,
        /// Counts the sequences of this door.
        generation: u32,
        /// The sequence.
        sequence: Option<Sequence>,
    },
    /// Tell where you listen and what you have seen: an `Interface` for each socket, then `Counters`.
    Report,
}

/// From the listener to the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToKeeper {
    /// All sockets are open and root is gone.
    Ready,
    /// It cannot listen; the text says why. The listener ends.
    Refused(String),
    /// A source has done that many steps.
    Stage(Progress),
    /// A whole knock.
    Opened {
        /// The door.
        door: u16,
        /// Who knocked.
        source: IpAddr,
        /// Which of the door's one-time sequences it was.
        generation: u32,
    },
    /// A source has hit as many tripwires as ban it.
    Scanned(IpAddr),
    /// An attempt took too long.
    TimedOut(Progress),
    /// An attempt was spoiled by a wrong knock.
    Failed(Progress),
    /// That many lines were left out of the log.
    LeftOut(u32),
    /// Something that a person should mend.
    Problem(String),
    /// Something about the interfaces that belongs into the log.
    Notice(String),
    /// Something about the interfaces that `-D` shows.
    Debug(String),
    /// A knock, for `-D`.
    Seen(Knock),
    /// Where a socket listens now.
    Interface(Interface),
    /// What has happened since the listener started.
    Counters(Counters),
}

/// Where a socket listens now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// What was asked for: a name, `auto` or `any`.
    pub wanted: String,
    /// The interface that this is now; empty where there is none, and for `any`.
    pub name: String,
    /// Its addresses, the first [`MAX_STATUS_ADDRESSES`](crate::limits::MAX_STATUS_ADDRESSES) of them.
    pub addresses: Vec<IpAddr>,
    /// How many more it has.
    pub more: u16,
}

/// What has happened since the listener started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Knocks that reached the doors.
    pub knocks: u64,
    /// Attempts that wrong knocks or their time have ended, if they were told.
    pub failed: u64,
    /// Knocks that the kernel had no room for.
    pub dropped: u64,
    /// Attempts under way.
    pub attempts: u32,
}

/// How far a source has come at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The door.
    pub door: u16,
    /// Who knocks.
    pub source: IpAddr,
    /// The steps done.
    pub stage: u8,
}

/// Text that is too long for a record is cut; before it come at most 28 other bytes.
const MAX_TEXT: usize = MAX_RECORD - 28;

#[derive(Default)]
struct Writer(Bytes);

impl Writer {
    fn bytes(mut self, bytes: &[u8]) -> Writer {
        // MAX_RECORD holds the longest record: the test `the_longest_records_fit` shows it.
        let _ = self.0.extend_from_slice(bytes);
        self
    }

    fn u8(self, value: u8) -> Writer {
        self.bytes(&[value])
    }

    fn u16(self, value: u16) -> Writer {
        self.bytes(&value.to_be_bytes())
    }

    fn u32(self, value: u32) -> Writer {
        self.bytes(&value.to_be_bytes())
    }

    fn u64(self, value: u64) -> Writer {
        self.bytes(&value.to_be_bytes())
    }

    fn text(self, text: &str) -> Writer {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        self.u16(text.len() as u16).bytes(text.as_bytes())
    }

    fn ip(self, ip: IpAddr) -> Writer {
        match ip {
            IpAddr::V4(ip) => self.u8(4).bytes(&ip.octets()),
            IpAddr::V6(ip) => self.u8(16).bytes(&ip.octets()),
        }
    }

    fn step(self, step: Step) -> Writer {
        let protocol = match step.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        self.u8(protocol).u16(step.port)
    }

    fn sequence(self, sequence: &Option<Sequence>) -> Writer {
        let steps = sequence.as_ref().map_or(&[][..], Sequence::steps);
        steps
            .iter()
            .fold(self.u8(steps.len() as u8), |writer, step| {
                writer.step(*step)
            })
    }

    fn tripwire(self, tripwire: &Tripwire<u16>) -> Writer {
        match tripwire {
            Tripwire::None => self.u8(0),
            Tripwire::Auto => self.u8(1),
            Tripwire::Ports(count) => self.u8(2).u16(*count),
        }
    }

    fn ban(self, rule: Option<BanRule>) -> Writer {
        match rule {
            None => self.u8(0),
            Some(rule) => self.u8(rule.hits).u64(rule.window),
        }
    }

    fn progress(self, progress: &Progress) -> Writer {
        self.u16(progress.door)
            .ip(progress.source)
            .u8(progress.stage)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        // It may end up in a log: nothing in it may look like another line.
        let text = std::str::from_utf8(text).ok()?;
        (!text.contains(char::is_control)).then(|| text.to_string())
    }

    fn ip(&mut self) -> Option<IpAddr> {
        match self.u8()? {
            4 => self.array::<4>().map(IpAddr::from),
            16 => self.array::<16>().map(IpAddr::from),
            _ => None,
        }
    }

    fn step(&mut self) -> Option<Step> {
        let protocol = match self.u8()? {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return None,
        };
        Some(Step {
            protocol,
            port: self.u16()?,
        })
    }

    fn sequence(&mut self) -> Option<Option<Sequence>> {
        let length = usize::from(self.u8()?);
        let mut steps = heapless::Vec::<Step, MAX_STEPS>::new();
        for _ in 0..length {
            steps.push(self.step()?).ok()?;
        }
        Some(Sequence::new(&steps))
    }

    fn tripwire(&mut self) -> Option<Tripwire<u16>> {
        match self.u8()? {
            0 => Some(Tripwire::None),
            1 => Some(Tripwire::Auto),
            2 => self.u16().map(Tripwire::Ports),
            _ => None,
        }
    }

    fn ban(&mut self) -> Option<Option<BanRule>> {
        match self.u8()? {
            0 => Some(None),
            hits => self.u64().map(|window| Some(BanRule { hits, window })),
        }
    }

    fn progress(&mut self) -> Option<Progress> {
        Some(Progress {
            door: self.u16()?,
            source: self.ip()?,
            stage: self.u8()?,
        })
    }
}

/// All bytes must be used up.
fn whole<'a, T>(bytes: &'a [u8], decode: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Option<T> {
    let mut reader = Reader(bytes);
    let record = decode(&mut reader)?;
    reader.0.is_empty().then_some(record)
}

impl ToListener {
    /// The record's bytes.
    pub fn encode(&self) -> Bytes {
        let writer = Writer::default();
        match self {
            ToListener::Setup {
                doors,
                matching,
                max_attempts,
                tripwire,
                ban,
                only_ip_v4,
                verbose,
                debug,
                log_rate,
                wait_for_interfaces,
                interface,
            } => writer
                .u8(0)
                .u16(*doors)
                .u8((*matching == Matching::Strict).into())
                .u16(*max_attempts)
                .tripwire(tripwire)
                .ban(*ban)
                .u8((*only_ip_v4).into())
                .u8((*verbose).into())
                .u8((*debug).into())
                .u32(*log_rate)
                .u8((*wait_for_interfaces).into())
                .text(interface),
            ToListener::Door { pattern, one_time } => {
                let writer = writer
                    .u8(1)
                    .u8((*one_time).into())
                    .sequence(&pattern.sequence)
                    .u64(pattern.seq_timeout)
                    .u8(pattern.flags.set)
                    .u8(pattern.flags.clear);
                match pattern.target {
                    None => writer.u8(0),
                    Some(target) => writer.ip(target),
                }
            }
            ToListener::Start => writer.u8(2),
            ToListener::Tripwires(ranges) => ranges
                .iter()
                .fold(writer.u8(4).u8(ranges.len() as u8), |writer, range| {
                    writer.u16(range.low).u16(range.high)
                }),
            ToListener::Sequence {
                door,
                generation,
                sequence,
            } => writer.u8(3).u16(*door).u32(*generation).sequence(sequence),
            ToListener::Report => writer.u8(5),
        }
        .0
    }

    /// The record that these bytes are, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<ToListener> {
        whole(bytes, |reader| {
            Some(match reader.u8()? {
                0 => ToListener::Setup {
                    doors: reader.u16()?,
                    matching: match reader.bool()? {
                        false => Matching::Tolerant,
                        true => Matching::Strict,
                    },
                    max_attempts: reader.u16()?,
                    tripwire: reader.tripwire()?,
                    ban: reader.ban()?,
                    only_ip_v4: reader.bool()?,
                    verbose: reader.bool()?,
                    debug: reader.bool()?,
                    log_rate: reader.u32()?,
                    wait_for_interfaces: reader.bool()?,
                    interface: reader.text()?,
                },
                1 => ToListener::Door {
                    one_time: reader.bool()?,
                    pattern: Pattern {
                        sequence: reader.sequence()?,
                        seq_timeout: reader.u64()?,
                        flags: FlagRule {
                            set: reader.u8()?,
                            clear: reader.u8()?,
                        },
                        target: match reader.0.first()? {
                            0 => reader.u8().map(|_| None)?,
                            _ => Some(reader.ip()?),
                        },
                    },
                },
                2 => ToListener::Start,
                4 => {
                    let count = reader.u8()?;
                    let mut range = || {
                        let (low, high) = (reader.u16()?, reader.u16()?);
                        Some(PortRange { low, high })
                    };
                    ToListener::Tripwires((0..count).map(|_| range()).collect::<Option<_>>()?)
                }
                3 => ToListener::Sequence {
                    door: reader.u16()?,
                    generation: reader.u32()?,
                    sequence: reader.sequence()?,
                },
                5 => ToListener::Report,
                _ => return None,
            })
        })
    }
}

impl ToKeeper {
    /// The record's bytes.
    pub fn encode(&self) -> Bytes {
        let writer = Writer::default();
        match self {
            ToKeeper::Ready => writer.u8(0),
            ToKeeper::Refused(text) => writer.u8(1).text(text),
            ToKeeper::Stage(progress) => writer.u8(2).progress(progress),
            ToKeeper::Opened {
                door,
                source,
                generation,
            } => writer.u8(3).u16(*door).ip(*source).u32(*generation),
            ToKeeper::Scanned(source) => writer.u8(13).ip(*source),
            ToKeeper::TimedOut(progress) => writer.u8(4).progress(progress),
            ToKeeper::Failed(progress) => writer.u8(5).progress(progress),
            ToKeeper::LeftOut(lines) => writer.u8(6).u32(*lines),
            ToKeeper::Notice(text) => writer.u8(7).text(text),
            ToKeeper::Debug(text) => writer.u8(8).text(text),
            ToKeeper::Problem(text) => writer.u8(10).text(text),
            ToKeeper::Seen(knock) => writer
                .u8(9)
                .ip(knock.source)
                .ip(knock.destination)
                .step(knock.step)
                .u8(knock.flags)
                .u16(knock.source_port)
                .u32(knock.tcp_sequence),
            ToKeeper::Interface(interface) => {
                let writer = writer
                    .u8(11)
                    .text(&interface.wanted)
                    .text(&interface.name)
                    .u16(interface.more)
                    .u8(interface.addresses.len() as u8);
                interface.addresses.iter().fold(writer, |w, ip| w.ip(*ip))
            }
            ToKeeper::Counters(counters) => writer
                .u8(12)
                .u64(counters.knocks)
                .u64(counters.failed)
                .u64(counters.dropped)
                .u32(counters.attempts),
        }
        .0
    }

    /// The record that these bytes are, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<ToKeeper> {
        whole(bytes, |reader| {
            Some(match reader.u8()? {
                0 => ToKeeper::Ready,
                1 => ToKeeper::Refused(reader.text()?),
                2 => ToKeeper::Stage(reader.progress()?),
                3 => ToKeeper::Opened {
                    door: reader.u16()?,
                    source: reader.ip()?,
                    generation: reader.u32()?,
                },
                4 => ToKeeper::TimedOut(reader.progress()?),
                5 => ToKeeper::Failed(reader.progress()?),
                6 => ToKeeper::LeftOut(reader.u32()?),
                7 => ToKeeper::Notice(reader.text()?),
                8 => ToKeeper::Debug(reader.text()?),
                9 => ToKeeper::Seen(Knock {
                    source: reader.ip()?,
                    destination: reader.ip()?,
                    step: reader.step()?,
                    flags: reader.u8()?,
                    source_port: reader.u16()?,
                    tcp_sequence: reader.u32()?,
                }),
                10 => ToKeeper::Problem(reader.text()?),
                11 => {
                    let mut interface = Interface {
                        wanted: reader.text()?,
                        name: reader.text()?,
                        more: reader.u16()?,
                        ..Interface::default()
                    };
                    for _ in 0..reader.u8()? {
                        interface.addresses.push(reader.ip()?);
                    }
                    ToKeeper::Interface(interface)
                }
                12 => ToKeeper::Counters(Counters {
                    knocks: reader.u64()?,
                    failed: reader.u64()?,
                    dropped: reader.u64()?,
                    attempts: reader.u32()?,
                }),
                13 => ToKeeper::Scanned(reader.ip()?),
                _ => return None,
            })
        })
    }
}
