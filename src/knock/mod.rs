//! What a door is made of, and what a knock is: the words that every other module speaks.
#![forbid(unsafe_code)]

pub mod network;
pub mod tripwire;

use crate::limits::MAX_STEPS;
use crate::util::time::Millis;
use std::fmt;
use std::net::IpAddr;

/// The transport that a step is sent over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    #[default]
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// One step of a sequence: a destination port and its transport. Shown as knockd shows it: `7000:tcp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Step {
    /// The transport.
    pub protocol: Protocol,
    /// The destination port, 1 to 65535.
    pub port: u16,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.port, self.protocol)
    }
}

/// The steps of a door in order, 1 to [`MAX_STEPS`] of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence(heapless::Vec<Step, MAX_STEPS>);

impl Sequence {
    /// A sequence of these steps; `None` if there are none, or more than [`MAX_STEPS`].
    pub fn new(steps: &[Step]) -> Option<Sequence> {
        if steps.is_empty() {
            return None;
        }
        heapless::Vec::from_slice(steps).ok().map(Sequence)
    }

    /// The steps, never empty.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            step.fmt(f)?;
        }
        Ok(())
    }
}

/// What opens a door. `List` is what a side knows of a list of one-time sequences: the config its path, the keeper the
/// open list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger<List> {
    /// The same sequence each time.
    Sequence(Sequence),
    /// Each sequence of a list, once.
    OneTime(List),
}

/// Bits of the TCP flags as they stand in byte 13 of the TCP header (RFC 9293), with their names in knockd's config.
pub const TCP_FLAGS: [(&str, u8); 6] = [
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
];

/// Which TCP flags a door asks for. The default asks for none: every TCP packet fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlagRule {
    /// Flags that must be set, as bits of [`TCP_FLAGS`].
    pub set: u8,
    /// Flags that must be clear, as bits of [`TCP_FLAGS`].
    pub clear: u8,
}

impl FlagRule {
    /// Whether a TCP packet with these flags fits.
    pub fn fits(self, flags: u8) -> bool {
        flags & self.set == self.set && flags & self.clear == 0
    }
}

/// The packets that open a door: all that the listener knows of it. Commands are the keeper's alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// The steps; `None` while the door is disabled: its one-time list is used up, or the next line is not here yet.
    pub sequence: Option<Sequence>,
    /// A whole knock must be done within this time from its first step. 0: only a sequence of one step can open.
    pub seq_timeout: Millis,
    /// Which TCP packets count. UDP always counts.
    pub flags: FlagRule,
    /// The only destination that counts; `None`: any address of the interface.
    pub target: Option<IpAddr>,
}

impl Pattern {
    /// Whether this door counts packets to that destination. `local`: it is an address of the interface that the
    /// packet came in by.
    pub fn accepts_destination(&self, destination: IpAddr, local: bool) -> bool {
        match self.target {
            Some(target) => target == destination,
            None => local,
        }
    }

    /// Whether the flags of this knock are fit for this door.
    pub fn fits_flags(&self, knock: &Knock) -> bool {
        knock.step.protocol == Protocol::Udp || self.flags.fits(knock.flags)
    }

    /// Whether this door needs to see the knock: destination and flags fit, and the port is one of its steps.
    /// The kernel filter passes what any door wants (knockd 0.8 does the same).
    pub fn wants(&self, knock: &Knock, local: bool) -> bool {
        self.accepts_destination(knock.destination, local)
            && self.fits_flags(knock)
            && self
                .sequence
                .as_ref()
                .is_some_and(|s| s.steps().contains(&knock.step))
    }
}

/// One packet that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knock {
    /// Who knocks.
    pub source: IpAddr,
    /// The address that was knocked at.
    pub destination: IpAddr,
    /// Transport and destination port.
    pub step: Step,
    /// The six flags of [`TCP_FLAGS`] in byte 13 of the TCP header, the other two bits 0; 0 for UDP.
    pub flags: u8,
    /// The source port.
    pub source_port: u16,
    /// What a copy of the packet has, too, and the next packet of its sender has not: the TCP sequence number (RFC 9293), or for UDP over
    /// IPv4 the identification of the IP header (RFC 791). 0: copies cannot be recognised, as of UDP over IPv6.
    pub serial: u32,
}

/// Which rule decides whether knocks make a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// Ours: retransmissions, a few stray knocks and a false start are forgiven.
    #[default]
    Tolerant,
    /// knockd 0.8's: any other listed port ends the attempt and is swallowed.
    Strict,
}
