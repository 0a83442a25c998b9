//! The messages between keeper and listener: records of bounded size over a socketpair. A record
//! that cannot be decoded ends the listener, because a correct listener sends none.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;
mod wire;

use crate::knock::tripwire::{BanRule, PortRange, Tripwire};
use crate::knock::{Knock, Matching, Pattern, Sequence, Step};
use crate::limits::MAX_RECORD;
use std::net::{IpAddr, Ipv4Addr};
use wire::Codec;

/// An encoded record.
pub type Bytes = heapless::Vec<u8, MAX_RECORD>;

/// Port ranges that fit into one record.
pub const RANGES_AT_ONCE: usize = (MAX_RECORD - 2) / 4;

/// From the keeper to the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToListener {
    /// The first record: the settings. `Sockets`, a `Door` for each door, and `Tripwires` for
    /// listed ports follow. The listener replies with `Ready` or `Refused`, and waits for `Start`.
    Setup(Setup),
    /// The second record: the packet sockets to use, one for each interface.
    Sockets {
        /// Their descriptors.
        numbers: Vec<u32>,
        /// Another listener reads from them, so they must not change before `Start`.
        shared: bool,
    },
    /// The next door.
    Door {
        /// Its sequence, flags, target and time.
        pattern: Pattern,
        /// Each of its sequences opens it once; the next one arrives in `Sequence`.
        one_time: bool,
    },
    /// The next listed tripwires, at most [`RANGES_AT_ONCE`].
    Tripwires(Vec<PortRange>),
    /// Start matching.
    Start,
    /// The next one-time sequence of a door, or none.
    Sequence {
        /// The door.
        door: u16,
        /// The number of this sequence.
        generation: u32,
        /// The sequence.
        sequence: Option<Sequence>,
    },
    /// Requests a report: an `Interface` for each socket, then `Counters`.
    Report,
    /// Stop reading packets and exit. The next listener reads the rest.
    Stop,
}

/// The listener's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The number of doors that follow.
    pub doors: u16,
    /// The rule of matching.
    pub matching: Matching,
    /// `MaxAttempts`.
    pub max_attempts: u16,
    /// `Tripwire`. For listed ports, this number of ranges follows the doors in `Tripwires`.
    pub tripwire: Tripwire<u16>,
    /// When to send `Scanned`.
    pub ban: Option<BanRule>,
    /// `-4`.
    pub only_ip_v4: bool,
    /// `-v` or `-D`: send what only those show.
    pub verbose: bool,
    /// `-D`: send every knock.
    pub debug: bool,
    /// `LogRate`.
    pub log_rate: u32,
    /// Wait for missing interfaces instead of refusing them: there was a listener before.
    pub wait_for_interfaces: bool,
    /// The interfaces as [`Selector::list`](crate::capture::interfaces::Selector::list) reads them.
    pub interface: String,
}

/// From the listener to the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToKeeper {
    /// The listener is ready: all sockets are open and root is dropped.
    Ready {
        /// An interface is there and up.
        listens: bool,
    },
    /// The listener cannot start, for this reason, and exits.
    Refused(String),
    /// A source has completed that number of steps.
    Stage(Progress),
    /// A complete knock.
    Opened {
        /// The door.
        door: u16,
        /// Who knocked.
        source: IpAddr,
        /// The number of the one-time sequence.
        generation: u32,
    },
    /// A source has hit enough tripwires for a ban.
    Scanned(IpAddr),
    /// An attempt timed out.
    TimedOut(Progress),
    /// Wrong knocks ended an attempt.
    Failed(Progress),
    /// The number of dropped log lines.
    LeftOut(u32),
    /// A problem for the log that the administrator should solve.
    Problem(String),
    /// News of the interfaces for the log.
    Notice(String),
    /// News of the interfaces that only `-D` shows.
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
    /// As configured: a name, `auto` or `any`.
    pub wanted: String,
    /// The current interface; empty if there is none, and for `any`.
    pub name: String,
    /// Its addresses, up to [`MAX_STATUS_ADDRESSES`](crate::limits::MAX_STATUS_ADDRESSES).
    pub addresses: Vec<IpAddr>,
    /// The number of further addresses.
    pub more: u16,
}

/// Totals since the listener started. Each needs a line in [`COUNTERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Packets that the filter passed for a door.
    Knocks,
    /// Packets that the kernel dropped.
    Dropped,
    /// Reported attempts that ended by wrong knocks or time.
    Failed,
    /// Attempts under way.
    Attempts,
}

/// The name in JSON and the text after the number, for each [`Counter`] in order.
pub const COUNTERS: [(&str, &str); 4] = [
    ("knocks", "knocks seen"),
    ("dropped", "lost by the kernel"),
    ("failed", "attempts failed"),
    ("attempts", "under way"),
];

/// The value of each [`Counter`].
pub type Counters = [u64; COUNTERS.len()];

/// The progress of a source at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The door.
    pub door: u16,
    /// The client.
    pub source: IpAddr,
    /// The completed steps.
    pub stage: u8,
}

/// Longer text is cut and ends in [`CUT`]. At most 28 other bytes precede it.
const MAX_TEXT: usize = MAX_RECORD - 28;

/// Marks text that was cut.
const CUT: &str = "...";

/// An address field before it is read.
const NO_IP: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            door: 0,
            source: NO_IP,
            stage: 0,
        }
    }
}

impl Setup {
    fn walk(&mut self, wire: &mut Codec<'_>) {
        let mut is_strict = self.matching == Matching::Strict;
        wire.u16(&mut self.doors);
        wire.bool(&mut is_strict);
        wire.u16(&mut self.max_attempts);
        wire.tripwire(&mut self.tripwire);
        wire.ban(&mut self.ban);
        wire.bool(&mut self.only_ip_v4);
        wire.bool(&mut self.verbose);
        wire.bool(&mut self.debug);
        wire.u32(&mut self.log_rate);
        wire.bool(&mut self.wait_for_interfaces);
        wire.text(&mut self.interface);
        if is_strict {
            self.matching = Matching::Strict;
        }
    }
}

impl ToListener {
    /// What tells it on the wire.
    fn kind(&self) -> u8 {
        match self {
            ToListener::Setup(_) => 0,
            ToListener::Door { .. } => 1,
            ToListener::Start => 2,
            ToListener::Sequence { .. } => 3,
            ToListener::Tripwires(_) => 4,
            ToListener::Report => 5,
            ToListener::Sockets { .. } => 6,
            ToListener::Stop => 7,
        }
    }

    /// The record of that kind, its fields blank.
    fn empty_for_kind(kind: u8) -> Option<ToListener> {
        Some(match kind {
            0 => ToListener::Setup(Setup::default()),
            1 => ToListener::Door {
                pattern: Pattern::default(),
                one_time: false,
            },
            2 => ToListener::Start,
            3 => ToListener::Sequence {
                door: 0,
                generation: 0,
                sequence: None,
            },
            4 => ToListener::Tripwires(Vec::new()),
            5 => ToListener::Report,
            6 => ToListener::Sockets {
                numbers: Vec::new(),
                shared: false,
            },
            7 => ToListener::Stop,
            _ => return None,
        })
    }

    fn walk(&mut self, wire: &mut Codec<'_>) {
        match self {
            ToListener::Setup(setup) => setup.walk(wire),
            ToListener::Door { pattern, one_time } => {
                wire.bool(one_time);
                wire.sequence(&mut pattern.sequence);
                wire.u64(&mut pattern.seq_timeout);
                wire.u8(&mut pattern.flags.set);
                wire.u8(&mut pattern.flags.clear);
                wire.ip_if_any(&mut pattern.target);
            }
            ToListener::Sequence {
                door,
                generation,
                sequence,
            } => {
                wire.u16(door);
                wire.u32(generation);
                wire.sequence(sequence);
            }
            ToListener::Tripwires(ranges) => {
                wire.list(ranges, PortRange::single(0), |wire, range| {
                    wire.u16(&mut range.low);
                    wire.u16(&mut range.high);
                });
            }
            ToListener::Sockets { numbers, shared } => {
                wire.list(numbers, 0, Codec::u32);
                wire.bool(shared);
            }
            ToListener::Start | ToListener::Report | ToListener::Stop => {}
        }
    }

    /// The record's bytes.
    pub fn encode(mut self) -> Bytes {
        let mut wire = Codec::writer(self.kind());
        self.walk(&mut wire);
        wire.written()
    }

    /// The record that these bytes are, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<ToListener> {
        let (kind, fields) = bytes.split_first()?;
        let mut record = ToListener::empty_for_kind(*kind)?;
        let mut wire = Codec::reader(fields);
        record.walk(&mut wire);
        wire.is_whole().then_some(record)
    }
}

impl ToKeeper {
    /// What tells it on the wire.
    fn kind(&self) -> u8 {
        match self {
            ToKeeper::Ready { .. } => 0,
            ToKeeper::Refused(_) => 1,
            ToKeeper::Stage(_) => 2,
            ToKeeper::Opened { .. } => 3,
            ToKeeper::TimedOut(_) => 4,
            ToKeeper::Failed(_) => 5,
            ToKeeper::LeftOut(_) => 6,
            ToKeeper::Notice(_) => 7,
            ToKeeper::Debug(_) => 8,
            ToKeeper::Seen(_) => 9,
            ToKeeper::Problem(_) => 10,
            ToKeeper::Interface(_) => 11,
            ToKeeper::Counters(_) => 12,
            ToKeeper::Scanned(_) => 13,
        }
    }

    /// The record of that kind, its fields blank.
    fn empty_for_kind(kind: u8) -> Option<ToKeeper> {
        Some(match kind {
            0 => ToKeeper::Ready { listens: false },
            1 => ToKeeper::Refused(String::new()),
            2 => ToKeeper::Stage(Progress::default()),
            3 => ToKeeper::Opened {
                door: 0,
                source: NO_IP,
                generation: 0,
            },
            4 => ToKeeper::TimedOut(Progress::default()),
            5 => ToKeeper::Failed(Progress::default()),
            6 => ToKeeper::LeftOut(0),
            7 => ToKeeper::Notice(String::new()),
            8 => ToKeeper::Debug(String::new()),
            9 => ToKeeper::Seen(Knock {
                source: NO_IP,
                destination: NO_IP,
                step: Step::default(),
                flags: 0,
                source_port: 0,
                serial: 0,
            }),
            10 => ToKeeper::Problem(String::new()),
            11 => ToKeeper::Interface(Interface::default()),
            12 => ToKeeper::Counters(Counters::default()),
            13 => ToKeeper::Scanned(NO_IP),
            _ => return None,
        })
    }

    fn walk(&mut self, wire: &mut Codec<'_>) {
        match self {
            ToKeeper::Ready { listens } => wire.bool(listens),
            ToKeeper::Refused(text)
            | ToKeeper::Notice(text)
            | ToKeeper::Debug(text)
            | ToKeeper::Problem(text) => wire.text(text),
            ToKeeper::Stage(progress)
            | ToKeeper::TimedOut(progress)
            | ToKeeper::Failed(progress) => {
                wire.u16(&mut progress.door);
                wire.ip(&mut progress.source);
                wire.u8(&mut progress.stage);
            }
            ToKeeper::Opened {
                door,
                source,
                generation,
            } => {
                wire.u16(door);
                wire.ip(source);
                wire.u32(generation);
            }
            ToKeeper::Scanned(source) => wire.ip(source),
            ToKeeper::LeftOut(lines) => wire.u32(lines),
            ToKeeper::Seen(knock) => {
                wire.ip(&mut knock.source);
                wire.ip(&mut knock.destination);
                wire.step(&mut knock.step);
                wire.u8(&mut knock.flags);
                wire.u16(&mut knock.source_port);
                wire.u32(&mut knock.serial);
            }
            ToKeeper::Interface(interface) => {
                wire.text(&mut interface.wanted);
                wire.text(&mut interface.name);
                wire.u16(&mut interface.more);
                wire.list(&mut interface.addresses, NO_IP, Codec::ip);
            }
            ToKeeper::Counters(counters) => {
                counters.iter_mut().for_each(|number| wire.u64(number));
            }
        }
    }

    /// The record's bytes.
    pub fn encode(mut self) -> Bytes {
        let mut wire = Codec::writer(self.kind());
        self.walk(&mut wire);
        wire.written()
    }

    /// The record that these bytes are, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<ToKeeper> {
        let (kind, fields) = bytes.split_first()?;
        let mut record = ToKeeper::empty_for_kind(*kind)?;
        let mut wire = Codec::reader(fields);
        record.walk(&mut wire);
        wire.is_whole().then_some(record)
    }
}
