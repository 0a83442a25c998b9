//! Random inputs of filters, and the plain rule for what they pass.
#![forbid(unsafe_code)]

use knockd_rs::capture::filter::{self, Filter, Kernel};
use knockd_rs::capture::packet;
use knockd_rs::knock::tripwire::{PortRange, Tripwires};
use knockd_rs::knock::{FlagRule, Knock, Pattern, Protocol, Sequence, Step};
use knockd_rs::limits::MAX_STEPS;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;

pub const ETH_P_IP: u16 = 0x0800;
pub const ETH_P_IPV6: u16 = 0x86dd;

/// Few enough that targets, local addresses and packets often coincide. Includes adjacent
/// addresses, and IPv6 addresses that differ in each word.
pub const ADDRESSES: [&str; 14] = [
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

/// The inputs of a filter.
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

    /// What the filter may pass: packets that are wanted, and IPv4 packets that would be wanted
    /// apart from lengths or version in their header.
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
            serial: 0,
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

    /// The plain rule: whether this packet, with this protocol in the link header, is a knock that
    /// a door wants, or hits a tripwire where a door can be knocked at.
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

/// Whether any packet at all can be a knock at this door.
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

/// Ports from a small set, so that doors share them and adjacent ports occur; or any port.
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

/// Near the ports of [`step`], so that doors and tripwires overlap; or random; or a thousand.
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
    // Include the addresses of a host that has very many.
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
