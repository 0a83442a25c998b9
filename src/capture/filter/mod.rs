//! Compiles doors and local addresses into a classic BPF program for an AF_PACKET/SOCK_DGRAM
//! socket, where the packet starts at its IP header. The program passes knocks
//! ([`crate::capture::packet::decode`]) that a door wants ([`Pattern::wants`]), and hits of
//! tripwires at addresses with a door. As long as that fits into the instructions that old kernels
//! accept, no other packet wakes the listener.
//!
//! Most packets of a router are well-formed and not for a door. So the program first tests what
//! distinguishes those (address, protocol, port, flags). Only for the rest does it test whether the
//! packet came in and is valid. It does not test whether the version and lengths of an IPv4 header
//! agree with the packet: such packets are rare, and user space tests it.
//!
//! Executed instructions, on a kernel that knows VLAN tags, with one IPv4 address and n ranges of
//! ports: 4 for a packet that is not IP, at most 10 for another address or protocol, 16 + log2 n
//! for another port, 28 + log2 n for one that passes.
//!
//! Program sizes in instructions, for doors with three TCP SYN steps: 30 with one door and one IPv4
//! address; 132 with one IPv4 and two IPv6 addresses, of which the IPv6 extension headers take 54;
//! 136 with a second such door; about 360 with `Tripwire = auto`. About 390 ports fit exactly.
#![forbid(unsafe_code)]

mod emit;

use crate::knock::tripwire::{PortRange, TCP_RULE, Tripwires};
use crate::knock::{FlagRule, Pattern, Protocol};
use crate::util::bpf::Instruction;
use crate::util::number::parse_uint;
use std::net::IpAddr;

/// Capabilities of the running kernel's filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// It can test whether a frame has a VLAN tag; see [`knows_vlan_tag`].
    pub vlan_tag_present: bool,
}

/// Returns whether the kernel of this uname release (such as `3.10.108-d1`) can test in a filter
/// whether a frame has a VLAN tag: 3.8 and later. Older kernels drop every packet at this test.
pub fn knows_vlan_tag(release: &str) -> bool {
    let mut numbers = release.as_bytes().split(|byte| !byte.is_ascii_digit());
    let mut next = || parse_uint(numbers.next()?, u32::MAX.into());
    match (next(), next()) {
        (Some(major), Some(minor)) => (major, minor) >= (3, 8),
        _ => false,
    }
}

/// A compiled filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The program, at most [`crate::limits::MAX_FILTER_INSTRUCTIONS`].
    pub program: Vec<Instruction>,
    /// It passes only what the doors want. Otherwise there was no room, and it passes more. It
    /// never misses a knock.
    pub exact: bool,
}

/// Compiles the filter for these doors and tripwires on a socket whose interface has these
/// addresses. With `ipv4_only` it passes no IPv6. The same input gives the same program.
///
/// If the exact program is too long, joins the nearest ports to ranges, as few as needed. If that
/// is not enough, omits the test of the address, too.
pub fn compile(
    patterns: &[Pattern],
    tripwires: &Tripwires,
    local: &[IpAddr],
    kernel: Kernel,
    ipv4_only: bool,
) -> Filter {
    let tripwires = tripwire_ranges(tripwires, patterns);
    let plan = Plan::new(patterns, &tripwires, local, ipv4_only);
    shortest_join(&plan, kernel).unwrap_or_else(|| {
        let anywhere = plan.anywhere(patterns, &tripwires, local);
        Filter {
            exact: false,
            // There always is one: with one range for TCP and one for UDP it has about 200
            // instructions.
            ..shortest_join(&anywhere, kernel).unwrap_or_default()
        }
    })
}

/// Compiles this plan, and joins only as many ports as needed to make it short enough.
fn shortest_join(plan: &Plan, kernel: Kernel) -> Option<Filter> {
    let attempt = |reach| {
        let program = emit::program(&plan.join(reach), kernel)?;
        let exact = reach == 0;
        Some(Filter { program, exact })
    };
    if let Some(exact) = attempt(0) {
        return Some(exact);
    }
    let mut best = attempt(u32::MAX)?;
    let (mut low, mut high) = (1, u32::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        match attempt(middle) {
            Some(filter) => (best, high) = (filter, middle),
            None => low = middle + 1,
        }
    }
    Some(best)
}

/// Ports of one transport that are wanted with the same flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    protocol: Protocol,
    low: u16,
    high: u16,
    flags: FlagTable,
}

/// The wanted ones of the 64 combinations of TCP flags: bit n stands for combination n of byte 13.
/// If several rules apply to a port, this is their union.
type FlagTable = u64;

/// All combinations, for UDP.
const ANY_FLAGS: FlagTable = u64::MAX;

fn flag_table(rule: FlagRule) -> FlagTable {
    (0..64)
        .filter(|&flags| rule.fits(flags))
        .fold(0, |table, flags| table | 1 << flags)
}

/// What the program has to distinguish.
struct Plan {
    /// The wanted ports for a set of addresses: ascending ranges that do not touch. Never empty.
    classes: Vec<Vec<Range>>,
    /// Each destination address of a knock, in ascending order, with its class.
    places: Vec<(IpAddr, usize)>,
    /// The address is not tested, and there is one class.
    any_address: bool,
}

impl Plan {
    fn new(patterns: &[Pattern], tripwires: &[Range], local: &[IpAddr], ipv4_only: bool) -> Plan {
        let targets = patterns.iter().filter_map(|pattern| pattern.target);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in local.iter().copied().chain(targets) {
            if (address.is_ipv4() || !ipv4_only)
                && let Err(place) = addresses.binary_search(&address)
            {
                addresses.insert(place, address);
            }
        }

        let mut plan = Plan {
            classes: Vec::new(),
            places: Vec::new(),
            any_address: false,
        };
        for address in addresses {
            let is_local = local.contains(&address);
            let wanted = ranges(patterns, tripwires, &|p| {
                p.accepts_destination(address, is_local)
            });
            if wanted.is_empty() {
                continue;
            }
            let class = plan
                .classes
                .iter()
                .position(|class| *class == wanted)
                .unwrap_or_else(|| {
                    plan.classes.push(wanted);
                    plan.classes.len() - 1
                });
            plan.places.push((address, class));
        }
        plan
    }

    /// The same without the address: what is wanted at one address is wanted everywhere.
    fn anywhere(&self, patterns: &[Pattern], tripwires: &[Range], local: &[IpAddr]) -> Plan {
        let wanted = ranges(patterns, tripwires, &|pattern| {
            self.places
                .iter()
                .any(|&(at, _)| pattern.accepts_destination(at, local.contains(&at)))
        });
        let places = self
            .places
            .iter()
            .map(|&(address, _)| (address, 0))
            .collect();
        Plan {
            classes: vec![wanted],
            places,
            any_address: true,
        }
    }

    /// The same with near ports joined, see [`join`].
    fn join(&self, reach: u32) -> Plan {
        let mut classes = self.classes.clone();
        for ranges in &mut classes {
            join(ranges, reach);
        }
        Plan {
            classes,
            places: self.places.clone(),
            any_address: self.any_address,
        }
    }
}

/// The tripwires, without ports of doors.
fn tripwire_ranges(tripwires: &Tripwires, patterns: &[Pattern]) -> Vec<Range> {
    let mut ranges = Vec::new();
    for (protocol, flags) in [
        (Protocol::Tcp, flag_table(TCP_RULE)),
        (Protocol::Udp, ANY_FLAGS),
    ] {
        for PortRange { low, high } in tripwires.ranges(protocol, patterns) {
            ranges.push(Range {
                protocol,
                low,
                high,
                flags,
            });
        }
    }
    ranges
}

/// The ports that these doors want, and the tripwires if there is such a door.
fn ranges(
    patterns: &[Pattern],
    tripwires: &[Range],
    accepts: &dyn Fn(&Pattern) -> bool,
) -> Vec<Range> {
    let mut ranges = Vec::new();
    for pattern in patterns.iter().filter(|pattern| accepts(pattern)) {
        let tcp_flags = flag_table(pattern.flags);
        for step in pattern
            .sequence
            .iter()
            .flat_map(|sequence| sequence.steps())
        {
            let flags = match step.protocol {
                Protocol::Tcp => tcp_flags,
                Protocol::Udp => ANY_FLAGS,
            };
            // `packet` never accepts port 0.
            if step.port != 0 && flags != 0 {
                let range = Range {
                    protocol: step.protocol,
                    low: step.port,
                    high: step.port,
                    flags,
                };
                add(&mut ranges, range);
            }
        }
    }
    if !ranges.is_empty() {
        tripwires.iter().for_each(|wire| add(&mut ranges, *wire));
    }
    join(&mut ranges, 0);
    ranges
}

/// Inserts a range. If one with the same first port exists, merges their flags.
fn add(ranges: &mut Vec<Range>, range: Range) {
    match ranges.binary_search_by_key(&(range.protocol, range.low), |it| (it.protocol, it.low)) {
        Ok(at) => ranges[at].flags |= range.flags,
        Err(at) => ranges.insert(at, range),
    }
}

/// Joins adjacent ranges with the same flags, and ranges that are near each other, merging their
/// flags: ordered by distance, then by port, up to `reach` (distance * 65536 + port; 0: none).
fn join(ranges: &mut Vec<Range>, reach: u32) {
    ranges.dedup_by(|next, kept| {
        if next.protocol != kept.protocol {
            return false;
        }
        let apart = u32::from(next.low - kept.high);
        let near = apart << 16 | u32::from(next.low) <= reach;
        let join = near || (apart == 1 && next.flags == kept.flags);
        if join {
            kept.high = next.high;
            kept.flags |= next.flags;
        }
        join
    });
}
