//! The shared vocabulary of all modules: steps, sequences, knocks, and what a door waits for.
#![forbid(unsafe_code)]

pub mod network;
pub mod tripwire;

use crate::limits::MAX_STEPS;
use crate::util::time::Millis;
use std::fmt;
use std::net::IpAddr;

/// The transport protocol of a step.
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

/// One step of a sequence: a destination port and its transport. Shown as knockd shows it:
/// `7000:tcp`.
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
    /// Creates a sequence. Returns `None` for no steps, or more than [`MAX_STEPS`].
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

/// What opens a door. `List` is what a module knows of a list of one-time sequences: the config its
/// path, the keeper the open list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger<List> {
    /// The same sequence each time.
    Sequence(Sequence),
    /// Each sequence of a list, once.
    OneTime(List),
}

/// Bits of the TCP flags in byte 13 of the TCP header (RFC 9293), with their names in knockd's
/// config.
pub const TCP_FLAGS: [(&str, u8); 6] = [
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
];

/// The TCP flags that a door requires. By default none: every TCP packet matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlagRule {
    /// Flags that must be set, as bits of [`TCP_FLAGS`].
    pub set: u8,
    /// Flags that must be clear, as bits of [`TCP_FLAGS`].
    pub clear: u8,
}

impl FlagRule {
    /// Returns whether a TCP packet with these flags matches.
    pub fn fits(self, flags: u8) -> bool {
        flags & self.set == self.set && flags & self.clear == 0
    }
}

/// The packets that open a door. This is all that the listener knows of a door; only the keeper
/// knows the commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// The steps. `None` while the door is disabled: its one-time list is used up, or the next line
    /// has not arrived.
    pub sequence: Option<Sequence>,
    /// The time for a complete knock, from its first step. With 0 only a sequence of one step can
    /// open.
    pub seq_timeout: Millis,
    /// Which TCP packets count. UDP always counts.
    pub flags: FlagRule,
    /// The only destination that counts. `None`: any address of the interface.
    pub target: Option<IpAddr>,
}

impl Pattern {
    /// Returns whether this door counts packets to that destination. `local`: it is an address of
    /// the interface that the packet came in by.
    pub fn accepts_destination(&self, destination: IpAddr, local: bool) -> bool {
        match self.target {
            Some(target) => target == destination,
            None => local,
        }
    }

    /// Returns whether the flags of this knock match.
    pub fn fits_flags(&self, knock: &Knock) -> bool {
        knock.step.protocol == Protocol::Udp || self.flags.fits(knock.flags)
    }

    /// Returns whether this door needs to see the knock: destination and flags match, and the port
    /// is one of its steps. The kernel filter passes what any door wants, as in knockd 0.8.
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
    /// The client's address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// Transport and destination port.
    pub step: Step,
    /// The six flags of [`TCP_FLAGS`] in byte 13 of the TCP header, the other two bits 0; 0 for
    /// UDP.
    pub flags: u8,
    /// The source port.
    pub source_port: u16,
    /// A number that copies of the packet share, and that the sender's next packet does not have:
    /// the TCP sequence number (RFC 9293), or for UDP over IPv4 the identification of the IP header
    /// (RFC 791). 0 if copies cannot be recognised, as for UDP over IPv6.
    pub serial: u32,
}

/// The rule that decides whether knocks complete a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// The rule of knockd-rs: forgives retransmissions, a few stray knocks and a false start.
    #[default]
    Tolerant,
    /// The rule of knockd 0.8: a knock on another listed port ends the attempt and starts none.
    Strict,
}
