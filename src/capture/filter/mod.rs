//! The kernel filter: doors and local addresses in, a classic BPF program out, for an AF_PACKET/SOCK_DGRAM socket, where
//! the packet starts at its IP header. It passes the packets that are a knock ([`crate::capture::packet::decode`]) which a
//! door wants ([`Pattern::wants`]), or that hits a tripwire where some door can be knocked at; as long as that fits into the
//! instructions that old kernels take, nothing else costs a wake-up.
//!
//! Most packets of a router are well-formed and not for a door. So the program asks first what tells those apart (address, protocol,
//! port, flags), and only of what is left whether it came in and is sound. Whether an IPv4 header's own version, lengths and the packet's
//! agree it does not ask, for nobody sends others; user space does.
//!
//! Instructions that run on a kernel that knows of VLAN tags, with one IPv4 address and n ranges of ports: 4 for a packet that is not IP, at
//! most 10 for another address or protocol, 16 + log2 n for another port, 28 + log2 n for one that passes.
//!
//! Sizes in instructions, for doors with three TCP SYN steps: one door, one IPv4 address: 30; one IPv4 and two IPv6
//! addresses: 132, of which the IPv6 extension headers take 54; a second such door: 136; one with `Tripwire = auto`: about
//! 360. About 390 ports fit exactly.
#![forbid(unsafe_code)]

mod emit;

use crate::knock::tripwire::{PortRange, TCP_RULE, Tripwires};
use crate::knock::{FlagRule, Pattern, Protocol};
use crate::util::bpf::Instruction;
use crate::util::number::number;
use std::net::IpAddr;

/// What the running kernel's filters can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// It can tell whether a frame has a VLAN tag; see [`knows_vlan_tag`].
    pub vlan_tag_present: bool,
}

/// Whether the kernel of this uname release (such as `3.10.108-d1`) can tell in a filter that a frame has a VLAN tag: 3.8
/// and later. An older one drops every packet that it is asked this about.
pub fn knows_vlan_tag(release: &str) -> bool {
    let mut numbers = release.as_bytes().split(|byte| !byte.is_ascii_digit());
    let mut next = || number(numbers.next()?, u32::MAX.into());
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
    /// It passes nothing but what the doors want. Else there was no room, and it passes more; it never misses a knock.
    pub exact: bool,
}

/// The filter for these doors and tripwires on a socket whose interface has these addresses. With `ipv4_only` it passes no IPv6.
/// The same input gives the same program.
///
/// When the exact program is too long, nearest ports become one range, no more than it takes; where that is not enough, the address is
/// left out, too.
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
            // There always is one: with one range for TCP and one for UDP it takes about 200 instructions.
            ..shortest_join(&anywhere, kernel).unwrap_or_default()
        }
    })
}

/// The program of this plan with no more ports joined than it takes to be short enough.
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

/// Which of the 64 combinations of TCP flags are wanted: bit n stands for the combination n of byte 13. Whatever rules
/// come together at a port, this is their union.
type FlagTable = u64;

/// All combinations; what UDP has.
const ANY_FLAGS: FlagTable = u64::MAX;

fn flag_table(rule: FlagRule) -> FlagTable {
    (0..64)
        .filter(|&flags| rule.fits(flags))
        .fold(0, |table, flags| table | 1 << flags)
}

/// What the program has to tell apart.
struct Plan {
    /// What is wanted at some addresses: ranges in ascending order, apart from each other. Never empty ones.
    classes: Vec<Vec<Range>>,
    /// Each address that a knock may be for, in ascending order, with its class.
    places: Vec<(IpAddr, usize)>,
    /// The address is not tested; there is one class.
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

    /// The same with the address left out: whatever is wanted somewhere is wanted everywhere.
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

    /// The same with near ports made one range, see [`join`].
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

/// The tripwires, none of which is a port of a door.
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
            // Nothing goes to port 0, see `packet`.
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

/// Adds a range in its place; one that begins with the same port is the same, with the flags of both.
fn add(ranges: &mut Vec<Range>, range: Range) {
    match ranges.binary_search_by_key(&(range.protocol, range.low), |it| (it.protocol, it.low)) {
        Ok(at) => ranges[at].flags |= range.flags,
        Err(at) => ranges.insert(at, range),
    }
}

/// Neighbours with the same flags become one range. So do ranges that are near each other, with the flags of both: by
/// distance, and among equal distances by port, up to `reach` (distance * 65536 + port; 0: none).
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
