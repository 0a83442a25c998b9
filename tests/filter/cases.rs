//! Random doors, and random packets that are nearly right for them.
#![forbid(unsafe_code)]

use knockd_rs::door::{FlagRule, Knock, Pattern, Protocol, Sequence, Step};
use knockd_rs::filter::{self, Filter, Kernel};
use knockd_rs::limits::MAX_STEPS;
use knockd_rs::packet;
use knockd_rs::tripwire::{PortRange, Tripwires};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::net::IpAddr;

pub const ETH_P_IP: u16 = 0x0800;
pub const ETH_P_IPV6: u16 = 0x86dd;

/// Few enough that targets, local addresses and packets meet; neighbours, and IPv6 addresses that differ in each word.
const ADDRESSES: [&str; 14] = [
    "10.0.0.1",
    "10.0.0.2",
    "192.168.1.1",
    "203.0.113.7",
    "203.0.113.8",
    "127.0.0.1",
    "255.255.255.255",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:0:1::1",
    "2001:db8::1:0:1",
    "fe80::1",
    "::1",
    "::ffff:10.0.0.1",
];

const SOURCES_V4: [&str; 10] = [
    "198.51.100.9",
    "198.51.100.10",
    "192.0.2.1",
    "10.0.0.1",
    "223.255.255.255",
    "0.0.0.1",
    "0.0.0.0",
    "224.0.0.0",
    "240.0.0.1",
    "255.255.255.255",
];

const SOURCES_V6: [&str; 8] = [
    "2001:db8::9",
    "fe80::9",
    "::1",
    "1::",
    "0:0:1::",
    "fe00::",
    "::",
    "ff02::1",
];

/// What a filter is made from.
#[derive(Clone, Debug)]
pub struct World {
    pub patterns: Vec<Pattern>,
    pub tripwires: Tripwires,
    pub local: Vec<IpAddr>,
    pub ipv4_only: bool,
}

impl World {
    pub fn compile(&self) -> Filter {
        let kernel = Kernel {
            vlan_tag_present: true,
        };
        filter::compile(
            &self.patterns,
            &self.tripwires,
            &self.local,
            kernel,
            self.ipv4_only,
        )
    }

    /// What the filter may pass: what is wanted, and IPv4 packets that are but for lengths or the version in their header.
    pub fn may_pass(&self, bytes: &[u8], protocol: u16) -> bool {
        self.wants(bytes, protocol)
            || protocol == ETH_P_IP && self.is_nearly_wanted(bytes).is_some()
    }

    fn is_nearly_wanted(&self, bytes: &[u8]) -> Option<()> {
        let at = |offset: usize| bytes.get(offset).copied();
        let two = |offset: usize| Some(u16::from_be_bytes([at(offset)?, at(offset + 1)?]));
        let address = |offset: usize| Some(IpAddr::from(*bytes.get(offset..)?.first_chunk::<4>()?));
        let transport = 4 * usize::from(at(0)? & 15);
        let (protocol, flags) = match at(9)? {
            6 => (Protocol::Tcp, at(transport + 13)? & 0x3f),
            17 => (Protocol::Udp, at(transport + 7).map(|_| 0)?),
            _ => return None,
        };
        let knock = Knock {
            source: address(12)?,
            destination: address(16)?,
            step: Step {
                protocol,
                port: two(transport + 2)?,
            },
            flags,
            source_port: 0,
            tcp_sequence: 0,
        };
        let is_host = at(12)? < 224 && !knock.source.is_unspecified();
        (two(6)? & 0x1fff == 0 && is_host && self.wants_knock(&knock)).then_some(())
    }

    fn wants_knock(&self, knock: &Knock) -> bool {
        let local = self.local.contains(&knock.destination);
        self.patterns.iter().any(|pattern| {
            pattern.wants(knock, local)
                || pattern.accepts_destination(knock.destination, local)
                    && is_possible(pattern)
                    && self.tripwires.is_hit_by(knock, &self.patterns)
        })
    }

    /// The plain rule: whether this packet, with this protocol by the link's header, is a knock that some door wants, or hits a
    /// tripwire where a door can be knocked at.
    pub fn wants(&self, bytes: &[u8], protocol: u16) -> bool {
        packet::decode(bytes).is_some_and(|knock| {
            let expected = if knock.destination.is_ipv4() {
                ETH_P_IP
            } else {
                ETH_P_IPV6
            };
            protocol == expected
                && (knock.destination.is_ipv4() || !self.ipv4_only)
                && self.wants_knock(&knock)
        })
    }
}

/// Whether any packet at all is a knock at this door.
fn is_possible(pattern: &Pattern) -> bool {
    let flags = (0..64).any(|flags| pattern.flags.fits(flags));
    let mut steps = pattern
        .sequence
        .iter()
        .flat_map(|sequence| sequence.steps());
    steps.any(|step| step.port != 0 && (step.protocol == Protocol::Udp || flags))
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(&ADDRESSES[..]).prop_map(ip)
}

fn flag_rule() -> impl Strategy<Value = FlagRule> {
    prop_oneof![
        4 => Just(FlagRule { set: 2, clear: 0 }),
        2 => Just(FlagRule { set: 2, clear: 0x10 }),
        2 => Just(FlagRule::default()),
        2 => (0..64_u8, 0..64_u8).prop_map(|(set, clear)| FlagRule { set, clear: clear & !set }),
        1 => any::<(u8, u8)>().prop_map(|(set, clear)| FlagRule { set, clear }),
    ]
}

/// Ports from a small set, so that doors share them and runs of neighbours arise; or any.
fn step(spread: u16) -> impl Strategy<Value = Step> {
    let port = prop_oneof![
        6 => (0..spread).prop_map(|n| n.wrapping_add(7000)),
        1 => select(vec![0, 1, 65535]),
        1 => any::<u16>(),
    ];
    (prop::bool::weighted(0.7), port).prop_map(|(tcp, port)| Step {
        protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
        port,
    })
}

fn pattern(max_steps: usize, spread: u16) -> impl Strategy<Value = Pattern> {
    let sequence = prop::collection::vec(step(spread), 1..=max_steps);
    let target = prop::option::weighted(0.3, address());
    (prop::option::weighted(0.95, sequence), flag_rule(), target).prop_map(
        |(steps, flags, target)| Pattern {
            sequence: steps.and_then(|steps| Sequence::new(&steps)),
            seq_timeout: 25_000,
            flags,
            target,
        },
    )
}

/// Around the ports of [`step`], so that doors and tripwires meet; or by chance, or a thousand.
fn tripwires() -> impl Strategy<Value = Tripwires> {
    let range = (0..14_u16, 0..4_u16).prop_map(|(low, more)| PortRange {
        low: 6999 + low,
        high: 6999 + low + more,
    });
    let single = any::<u16>().prop_map(|port| PortRange::single(port.max(1)));
    prop_oneof![
        3 => Just(Tripwires::default()),
        4 => prop::collection::vec(range, 0..4).prop_map(Tripwires::listed),
        3 => (prop::collection::vec(6995..7020_u16, 0..4), any::<u64>()).prop_map(|(services, mut seed)| {
            Tripwires::auto(&services, || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 33
            })
        }),
        1 => prop::collection::vec(single, 900..1000).prop_map(Tripwires::listed),
    ]
}

pub fn world() -> impl Strategy<Value = World> {
    let patterns = prop_oneof![
        12 => prop::collection::vec(pattern(5, 12), 0..6),
        2 => prop::collection::vec(pattern(MAX_STEPS, 3000), 0..30),
        1 => prop::collection::vec(pattern(MAX_STEPS, 60_000), 100..=256),
    ];
    // Addresses of a host with very many, too.
    let more = prop_oneof![
        20 => Just(Vec::new()),
        1 => prop::collection::vec(any::<[u8; 4]>().prop_map(IpAddr::from), 0..700),
        1 => prop::collection::vec(any::<[u8; 16]>().prop_map(IpAddr::from), 0..300),
    ];
    (
        patterns,
        tripwires(),
        prop::collection::vec(address(), 0..5),
        more,
        prop::bool::weighted(0.2),
    )
        .prop_map(|(patterns, tripwires, mut local, more, ipv4_only)| {
            local.extend(more);
            World {
                patterns,
                tripwires,
                local,
                ipv4_only,
            }
        })
}

/// A packet that is right in most ways for one of the doors. What depends on the doors is drawn by index.
#[derive(Clone, Debug)]
pub struct Packet {
    v6: bool,
    door: Index,
    step: Index,
    /// `None`: the door's; so below.
    protocol: Option<u8>,
    source: Index,
    destination: Index,
    /// Any address, not one that the door accepts.
    stray: bool,
    /// How far from the step's.
    port: i8,
    flags: Option<u8>,
    /// IPv4: 32-bit words of options.
    options: usize,
    /// IPv4: flags and fragment offset.
    fragment: u16,
    /// IPv6: (kind, length in 8 bytes without the first 8, bytes 2 and 3).
    extensions: Vec<(u8, u8, u16)>,
    payload: usize,
    length: Length,
    /// One byte that is overwritten: which of the first 60, and with what.
    damage: Option<(usize, u8)>,
    /// How many bytes are left at most.
    cut: usize,
}

/// What the IP header says of the packet's length.
#[derive(Clone, Debug)]
enum Length {
    True,
    /// So much more than the transport header needs.
    Need(i8),
    Lie(u16),
}

pub fn packet() -> impl Strategy<Value = Packet> {
    let flags = prop_oneof![4 => Just(None), 1 => select(vec![Some(2_u8), Some(0x12)]), 1 => any::<Option<u8>>()];
    let who = (
        prop::bool::ANY,
        (any::<Index>(), any::<Index>()),
        prop::option::weighted(0.1, any::<u8>()),
        any::<Index>(),
        (any::<Index>(), prop::bool::weighted(0.1)),
        prop_oneof![6 => Just(0_i8), 1 => -2..=2_i8],
        flags,
    );
    let fragment = prop_oneof![
        6 => select(vec![0_u16, 0x4000, 0x2000]),
        1 => select(vec![1, 0x2001, 0x1000, 0x1fff, 0x8000]),
    ];
    let payload = prop_oneof![2 => Just(0_usize), 2 => 0..40_usize, 1 => 0..400_usize];
    let length = prop_oneof![
        8 => Just(Length::True),
        2 => (-2..=2_i8).prop_map(Length::Need),
        1 => any::<u16>().prop_map(Length::Lie),
        1 => (0..80_u16).prop_map(Length::Lie),
    ];
    let damage = prop_oneof![
        8 => Just(None),
        1 => any::<u8>().prop_map(|byte| Some((0, byte))),
        1 => (0..60_usize, any::<u8>()).prop_map(Some),
    ];
    let cut = prop_oneof![8 => Just(usize::MAX), 1 => 0..300_usize, 1 => 20..90_usize];
    let options = prop_oneof![4 => Just(0_usize), 1 => 1..=10_usize];
    (
        who,
        options,
        fragment,
        extensions(),
        payload,
        length,
        damage,
        cut,
    )
        .prop_map(
            |(who, options, fragment, extensions, payload, length, damage, cut)| {
                let (v6, (door, step), protocol, source, (destination, stray), port, flags) = who;
                Packet {
                    v6,
                    door,
                    step,
                    protocol,
                    source,
                    destination,
                    stray,
                    port,
                    flags,
                    options,
                    fragment,
                    extensions,
                    payload,
                    length,
                    damage,
                    cut,
                }
            },
        )
}

fn extensions() -> impl Strategy<Value = Vec<(u8, u8, u16)>> {
    let kind = prop_oneof![
        20 => select(vec![0_u8, 43, 44, 60]),
        1 => select(vec![51, 50, 59, 6, 17]),
    ];
    let units = prop_oneof![6 => Just(0_u8), 2 => 0..4_u8, 1 => 10..30_u8, 1 => any::<u8>()];
    let word = prop_oneof![
        9 => select(vec![0_u16, 1, 6]),
        1 => select(vec![8, 0xfff8]),
        1 => any::<u16>(),
    ];
    prop_oneof![
        1 => Just(Vec::new()),
        2 => prop::collection::vec((kind, units, word), 0..5),
    ]
}

/// What a packet takes from the doors.
struct Choice {
    protocol: u8,
    port: u16,
    flags: u8,
    destination: IpAddr,
}

impl Packet {
    /// By the link's header.
    pub fn ethertype(&self) -> u16 {
        if self.v6 { ETH_P_IPV6 } else { ETH_P_IP }
    }

    pub fn bytes(&self, world: &World) -> Vec<u8> {
        let choice = self.choice(world);
        let mut bytes = if self.v6 {
            self.v6(&choice)
        } else {
            self.v4(&choice)
        };
        if let Some((at, byte)) = self.damage
            && at < bytes.len()
        {
            bytes[at] = byte;
        }
        bytes.truncate(self.cut);
        bytes
    }

    fn choice(&self, world: &World) -> Choice {
        let other = ip(if self.v6 {
            "2001:db8::77"
        } else {
            "203.0.113.77"
        });
        let mut pool: Vec<IpAddr> = world.local.clone();
        pool.extend(world.patterns.iter().filter_map(|pattern| pattern.target));
        pool.push(other);
        pool.retain(|address| address.is_ipv6() == self.v6);
        let mut choice = Choice {
            protocol: self.protocol.unwrap_or(6),
            port: 7000,
            flags: self.flags.unwrap_or(2),
            destination: *self.destination.get(&pool),
        };
        let Some(door) = (!world.patterns.is_empty()).then(|| self.door.get(&world.patterns))
        else {
            return choice;
        };
        let accepted: Vec<IpAddr> = pool
            .iter()
            .copied()
            .filter(|at| door.accepts_destination(*at, world.local.contains(at)))
            .collect();
        if !self.stray && !accepted.is_empty() {
            choice.destination = *self.destination.get(&accepted);
        }
        if let Some(sequence) = &door.sequence {
            let step = self.step.get(sequence.steps());
            let protocol = if step.protocol == Protocol::Tcp {
                6
            } else {
                17
            };
            choice.protocol = self.protocol.unwrap_or(protocol);
            choice.port = step.port.wrapping_add_signed(self.port.into());
        }
        choice.flags = self.flags.unwrap_or(door.flags.set);
        choice
    }

    fn v4(&self, choice: &Choice) -> Vec<u8> {
        let header = 20 + 4 * self.options;
        let transport = self.transport(choice);
        let total = self.length_field(header, choice, &transport);
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([64, choice.protocol, 0, 0]);
        bytes.extend(octets(ip(SOURCES_V4[self.source.index(SOURCES_V4.len())])));
        bytes.extend(octets(choice.destination));
        bytes.resize(header, 1);
        bytes.extend(transport);
        bytes
    }

    fn v6(&self, choice: &Choice) -> Vec<u8> {
        let mut chain = Vec::new();
        let mut kinds: Vec<u8> = self
            .extensions
            .iter()
            .map(|extension| extension.0)
            .collect();
        kinds.push(choice.protocol);
        for (&(kind, units, word), next) in self.extensions.iter().zip(&kinds[1..]) {
            let start = chain.len();
            chain.extend([*next, units]);
            chain.extend(word.to_be_bytes());
            // In a fragment header the second byte is reserved, and does not count.
            let units = if kind == 44 { 0 } else { units };
            chain.resize(start + 8 + 8 * usize::from(units), 0);
        }
        let transport = self.transport(choice);
        let end = self.length_field(40 + chain.len(), choice, &transport);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(end.wrapping_sub(40).to_be_bytes());
        bytes.extend([kinds[0], 64]);
        bytes.extend(octets(ip(SOURCES_V6[self.source.index(SOURCES_V6.len())])));
        bytes.extend(octets(choice.destination));
        bytes.extend(chain);
        bytes.extend(transport);
        bytes
    }

    fn length_field(&self, offset: usize, choice: &Choice, transport: &[u8]) -> u16 {
        let need = if choice.protocol == 6 { 14 } else { 8 };
        let length = match self.length {
            Length::True => offset + transport.len(),
            Length::Need(more) => (offset + need).wrapping_add_signed(more.into()),
            Length::Lie(length) => length.into(),
        };
        length as u16
    }

    fn transport(&self, choice: &Choice) -> Vec<u8> {
        let mut bytes = vec![0x30, 0x39];
        bytes.extend(choice.port.to_be_bytes());
        bytes.resize(if choice.protocol == 6 { 20 } else { 8 }, 0);
        if choice.protocol == 6 {
            bytes[13] = choice.flags;
        }
        bytes.resize(bytes.len() + self.payload, 0);
        bytes
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
