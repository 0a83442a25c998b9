//! What keeper and listener say to each other: bounded records over a socketpair. A record that cannot be decoded
//! ends the listener, since an honest one sends none.
//!
//! On the wire: one byte that tells the kind, then the fields in order, as `wire` has them.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;
mod wire;

use crate::knock::tripwire::{BanRule, PortRange, Tripwire};
use crate::knock::{Knock, Matching, Pattern, Sequence, Step};
use crate::limits::MAX_RECORD;
use std::net::{IpAddr, Ipv4Addr};
use wire::Wire;

/// A record as it travels.
pub type Bytes = heapless::Vec<u8, MAX_RECORD>;

/// Ranges of ports that fit into one record.
pub const RANGES_AT_ONCE: usize = (MAX_RECORD - 2) / 4;

/// From the keeper to the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToListener {
    /// The first record: how to listen. Then come `Sockets`, a `Door` for each door, then `Tripwires` where ports are listed; the listener
    /// answers `Ready` or `Refused`, and waits for `Start`.
    Setup(Setup),
    /// The second: which packet sockets to listen with, one for each interface.
    Sockets {
        /// Their descriptors.
        numbers: Vec<u32>,
        /// Another listener reads from them: they must stay as they are until `Start`.
        shared: bool,
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
    /// Read no more packets and end: what has not been read is the next listener's.
    Stop,
}

/// How to listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The number of doors that follow.
    pub doors: u16,
    /// The rule of matching.
    pub matching: Matching,
    /// `MaxAttempts`.
    pub max_attempts: u16,
    /// Which `Tripwire` there are; of those that are listed this many ranges come after the doors, in `Tripwires`.
    pub tripwire: Tripwire<u16>,
    /// When to tell `Scanned`.
    pub ban: Option<BanRule>,
    /// `-4`.
    pub only_ip_v4: bool,
    /// `-v` or `-D`: send what only those show.
    pub verbose: bool,
    /// `-D`: send every knock.
    pub debug: bool,
    /// `LogRate`.
    pub log_rate: u32,
    /// Interfaces that are not there are waited for instead of refused: there was a listener before.
    pub wait_for_interfaces: bool,
    /// The interfaces as [`Selector::list`](crate::capture::interfaces::Selector::list) reads them.
    pub interface: String,
}

/// From the listener to the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToKeeper {
    /// All sockets are open and root is gone.
    Ready {
        /// An interface is there and up.
        listens: bool,
    },
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

/// What has happened since the listener started. Whoever adds one adds its line to [`COUNTERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Knocks that reached the doors.
    Knocks,
    /// Knocks that the kernel had no room for.
    Dropped,
    /// Attempts that wrong knocks or their time have ended, if they were told.
    Failed,
    /// Attempts under way.
    Attempts,
}

/// For each [`Counter`], in their order, its name in JSON and what a person reads after its number.
pub const COUNTERS: [(&str, &str); 4] = [
    ("knocks", "knocks seen"),
    ("dropped", "lost by the kernel"),
    ("failed", "attempts failed"),
    ("attempts", "under way"),
];

/// The number of each [`Counter`].
pub type Counters = [u64; COUNTERS.len()];

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

/// Text that is too long for a record is cut and ends in [`CUT`]; before it come at most 28 other bytes.
const MAX_TEXT: usize = MAX_RECORD - 28;

/// The end of a text that was cut.
const CUT: &str = "...";

/// A field before it is read.
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
    fn walk(&mut self, wire: &mut Wire<'_>) {
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
    fn blank(kind: u8) -> Option<ToListener> {
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

    fn walk(&mut self, wire: &mut Wire<'_>) {
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
                wire.list(numbers, 0, Wire::u32);
                wire.bool(shared);
            }
            ToListener::Start | ToListener::Report | ToListener::Stop => {}
        }
    }

    /// The record's bytes.
    pub fn encode(mut self) -> Bytes {
        let mut wire = Wire::writer(self.kind());
        self.walk(&mut wire);
        wire.written()
    }

    /// The record that these bytes are, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<ToListener> {
        let (kind, fields) = bytes.split_first()?;
        let mut record = ToListener::blank(*kind)?;
        let mut wire = Wire::reader(fields);
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
    fn blank(kind: u8) -> Option<ToKeeper> {
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

    fn walk(&mut self, wire: &mut Wire<'_>) {
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
                wire.list(&mut interface.addresses, NO_IP, Wire::ip);
            }
            ToKeeper::Counters(counters) => {
                counters.iter_mut().for_each(|number| wire.u64(number));
            }
        }
    }

    /// The record's bytes.
    pub fn encode(mut self) -> Bytes {
        let mut wire = Wire::writer(self.kind());
        self.walk(&mut wire);
        wire.written()
    }

    /// The record that these bytes are, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<ToKeeper> {
        let (kind, fields) = bytes.split_first()?;
        let mut record = ToKeeper::blank(*kind)?;
        let mut wire = Wire::reader(fields);
        record.walk(&mut wire);
        wire.is_whole().then_some(record)
    }
}
