//! Random packets that almost match the doors of a world.
#![forbid(unsafe_code)]

use super::world::{ETH_P_IP, ETH_P_IPV6, World, ip};
use knockd_rs::knock::Protocol;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::net::IpAddr;

const SOURCES_V4: [&str; 12] = [
    "198.51.100.9",
    "198.51.100.10",
    "192.0.2.1",
    "10.0.0.1",
    "223.255.255.255",
    "0.0.0.1",
    "0.255.255.255",
    "1.0.0.0",
    "0.0.0.0",
    "224.0.0.0",
    "240.0.0.1",
    "255.255.255.255",
];

const SOURCES_V6: [&str; 11] = [
    "2001:db8::9",
    "fe80::9",
    "::1",
    "1::",
    "0:0:1::",
    "::ffff:198.51.100.9",
    "::1:ffff:198.51.100.9",
    "::fffe:198.51.100.9",
    "fe00::",
    "::",
    "ff02::1",
];

/// A packet that matches one of the doors in most respects. Whatever depends on the doors is an
/// index.
#[derive(Clone, Debug)]
pub struct Packet {
    v6: bool,
    door: Index,
    step: Index,
    /// `None` in this and the following fields: the door's value.
    protocol: Option<u8>,
    source: Index,
    destination: Index,
    /// Any address, instead of one that the door accepts.
    stray: bool,
    /// The difference to the step's port.
    port: i8,
    flags: Option<u8>,
    /// IPv4: number of 32-bit words of options.
    options: usize,
    /// IPv4: flags and fragment offset.
    fragment: u16,
    /// IPv6: (kind, length in units of 8 bytes without the first 8, bytes 2 and 3).
    extensions: Vec<(u8, u8, u16)>,
    payload: usize,
    length: Length,
    /// One overwritten byte: its offset within the first 60, and its value.
    damage: Option<(usize, u8)>,
    /// The maximum length; the rest is cut off.
    cut: usize,
}

/// The packet length in the IP header.
#[derive(Clone, Debug)]
enum Length {
    True,
    /// The length of the transport header plus this.
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

/// The values that a packet takes from the doors.
struct Choice {
    protocol: u8,
    port: u16,
    flags: u8,
    destination: IpAddr,
}

impl Packet {
    /// As in the link header.
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
            // In a fragment header the second byte is reserved and does not count.
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
