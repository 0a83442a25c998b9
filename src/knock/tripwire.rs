//! Tripwires: ports that no client has a reason to use. The second one hit within an attempt ends
//! it, so a scan that hits the ports of a door in order does not open it.
#![forbid(unsafe_code)]

use crate::knock::{FlagRule, Knock, Pattern, Protocol, Step, TCP_FLAGS};
use crate::limits::{AUTO_TRIPWIRES, FIRST_LAN_PORT, GUARDS};
use crate::util::number::parse_hex_u16;
use crate::util::time::Millis;

/// A TCP hit has SYN without ACK. Other packets are replies, not scans.
pub const TCP_RULE: FlagRule = FlagRule {
    set: TCP_FLAGS[1].1,
    clear: TCP_FLAGS[4].1,
};

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The first port, from 1.
    pub low: u16,
    /// The last port.
    pub high: u16,
}

impl PortRange {
    /// A range of one port.
    pub fn single(port: u16) -> PortRange {
        PortRange {
            low: port,
            high: port,
        }
    }
}

/// The value of `Tripwire`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tripwire<T> {
    /// No tripwires.
    #[default]
    None,
    /// The ports on both sides of the doors' steps, and random ones.
    Auto,
    /// The listed ports.
    Ports(T),
}

/// The number of hits within a time that leads to a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanRule {
    /// `TripwireHits`, from 1 to [`MAX_HITS`](crate::limits::MAX_HITS).
    pub hits: u8,
    /// `TripwireWindow`.
    pub window: Millis,
}

/// Sorts ranges and joins those that overlap or touch.
pub fn merge(unsorted: Vec<PortRange>) -> Vec<PortRange> {
    let mut ranges = Vec::new();
    for range in unsorted {
        // Less code than sorting. The new range is nearly always the last.
        let at = ranges.partition_point(|other| *other < range);
        ranges.insert(at, range);
    }
    ranges.dedup_by(|next, kept| {
        let touches = u32::from(next.low) <= u32::from(kept.high) + 1;
        if touches {
            kept.high = kept.high.max(next.high);
        }
        touches
    });
    ranges
}

/// Returns whether one of these ranges, in the form that [`merge`] returns, contains the port.
fn has(ranges: &[PortRange], port: u16) -> bool {
    let at = ranges.partition_point(|range| range.high < port);
    ranges.get(at).is_some_and(|range| range.low <= port)
}

/// The maximum of random numbers that [`Tripwires::auto`] draws for each transport.
pub const MAX_DRAWS: usize = 16 * AUTO_TRIPWIRES;

/// The tripwires of a config. Ports of its doors are never tripwires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tripwires {
    /// In the form that [`merge`] returns.
    tcp: Vec<PortRange>,
    udp: Vec<PortRange>,
    /// The ports on both sides of each step are also tripwires, as far as [`reach`] ...
    guards: bool,
    /// ... except these, which have a listening service.
    services: Vec<PortRange>,
}

impl Tripwires {
    /// Only the listed ports.
    pub fn listed(ports: Vec<PortRange>) -> Tripwires {
        let ports = merge(ports);
        Tripwires {
            tcp: ports.clone(),
            udp: ports,
            ..Tripwires::default()
        }
    }

    /// The ports on both sides of each step and, for each transport, [`AUTO_TRIPWIRES`] random
    /// ports without a listening service. `random` needs 16 random bits. Random UDP ports are below
    /// [`FIRST_LAN_PORT`], because replies to clients on the LAN would wake the listener.
    pub fn auto(services: &[u16], mut random: impl FnMut() -> u64) -> Tripwires {
        let services = merge(services.iter().copied().map(PortRange::single).collect());
        let mut draw = |below: u64| {
            let mut ports = Vec::new();
            // Also ends if every port has a service.
            for _ in 0..MAX_DRAWS {
                let range = PortRange::single((random() % (below - 1) + 1) as u16);
                if !has(&services, range.low) && !ports.contains(&range) {
                    ports.push(range);
                }
                if ports.len() == AUTO_TRIPWIRES {
                    break;
                }
            }
            merge(ports)
        };
        Tripwires {
            tcp: draw(1 << 16),
            udp: draw(FIRST_LAN_PORT),
            guards: true,
            services,
        }
    }

    /// Returns whether this knock hits a tripwire and is not for one of these doors.
    pub fn is_hit_by(&self, knock: &Knock, patterns: &[Pattern]) -> bool {
        let port = knock.step.port;
        let (ports, fits) = match knock.step.protocol {
            Protocol::Tcp => (&self.tcp, TCP_RULE.fits(knock.flags)),
            Protocol::Udp => (&self.udp, true),
        };
        let is_listed = has(ports, port);
        if !(fits && (is_listed || self.guards)) {
            return false;
        }
        let mut is_guard = false;
        for sequence in patterns.iter().flat_map(|pattern| &pattern.sequence) {
            for step in sequence.steps() {
                let apart = step.port.abs_diff(port);
                if apart == 0 {
                    return false;
                }
                is_guard |= apart <= reach(*step, knock.step.protocol);
            }
        }
        is_listed || is_guard && !has(&self.services, port)
    }

    /// All tripwires of one transport, without the ports of these doors, in the form that [`merge`]
    /// returns.
    pub fn ranges(&self, protocol: Protocol, patterns: &[Pattern]) -> Vec<PortRange> {
        let mut ranges = match protocol {
            Protocol::Tcp => self.tcp.clone(),
            Protocol::Udp => self.udp.clone(),
        };
        // The ports that are not tripwires.
        let mut doors: Vec<PortRange> = self.services.clone();
        for sequence in patterns.iter().flat_map(|pattern| &pattern.sequence) {
            for step in sequence.steps() {
                doors.push(PortRange::single(step.port));
                if self.guards {
                    let reach = reach(*step, protocol);
                    ranges.push(PortRange {
                        low: step.port.saturating_sub(reach).max(1),
                        high: step.port.saturating_add(reach),
                    });
                }
            }
        }
        let doors = merge(doors);
        let mut apart = Vec::new();
        for PortRange { mut low, high } in merge(ranges) {
            let first = doors.partition_point(|door| door.high < low);
            for door in doors[first..].iter().take_while(|door| door.low <= high) {
                if low < door.low {
                    apart.push(PortRange {
                        low,
                        high: door.low - 1,
                    });
                }
                low = door.high.saturating_add(1);
            }
            if low <= high && !has(&doors, low) {
                apart.push(PortRange { low, high });
            }
        }
        apart
    }
}

/// The number of ports on each side of a step that are tripwires for this transport. Only one where
/// more would be expensive: for the other transport, whose filter does not contain the step itself,
/// and for UDP ports at which replies to the LAN arrive.
fn reach(step: Step, protocol: Protocol) -> u16 {
    let is_cheap = match protocol {
        Protocol::Tcp => true,
        Protocol::Udp => u64::from(step.port) + u64::from(GUARDS) < FIRST_LAN_PORT,
    };
    match is_cheap && step.protocol == protocol {
        true => GUARDS,
        false => 1,
    }
}

/// Adds the local ports of sockets in that state, from the text of /proc/net/tcp, tcp6, udp or
/// udp6: `0A` is a listening TCP socket, `07` a UDP socket that is not connected (proc(5)).
pub fn add_ports_in_state(text: &str, state: &str, ports: &mut Vec<u16>) {
    for line in text.split('\n') {
        let mut words = line.split_ascii_whitespace();
        if let Some((_, port)) = words.nth(1).and_then(|local| local.split_once(':'))
            && words.nth(1).unwrap_or_default() == state
        {
            ports.extend(parse_hex_u16(port.as_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knock::{Sequence, Step};
    use proptest::prelude::*;

    fn door(ports: &[u16]) -> Pattern {
        let step = |port: &u16| Step {
            protocol: Protocol::Tcp,
            port: *port,
        };
        let steps: Vec<Step> = ports.iter().map(step).collect();
        Pattern {
            sequence: Sequence::new(&steps),
            seq_timeout: 1_000,
            flags: FlagRule::default(),
            target: None,
        }
    }

    fn knock(protocol: Protocol, port: u16, flags: u8) -> Knock {
        Knock {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            step: Step { protocol, port },
            flags,
            source_port: 1,
            serial: 1,
        }
    }

    /// Counts up in large steps.
    fn counter(mut n: u64) -> impl FnMut() -> u64 {
        move || {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            n >> 33
        }
    }

    fn tripwires() -> impl Strategy<Value = (Tripwires, Vec<Pattern>)> {
        let port = || prop_oneof![1u16..40, 65_500u16..=65_535];
        let ranges = prop::collection::vec((port(), port()), 0..8).prop_map(|pairs| {
            pairs
                .into_iter()
                .map(|(a, b)| PortRange {
                    low: a.min(b),
                    high: a.max(b).min(a.min(b).saturating_add(10)),
                })
                .collect()
        });
        let services = prop::collection::vec(port(), 0..5);
        let doors = prop::collection::vec(prop::collection::vec(port(), 1..5), 0..4);
        (ranges, services, any::<bool>(), any::<u64>(), doors).prop_map(
            |(ranges, services, auto, seed, doors)| {
                let tripwires = match auto {
                    true => Tripwires::auto(&services, counter(seed)),
                    false => Tripwires::listed(ranges),
                };
                (tripwires, doors.iter().map(|ports| door(ports)).collect())
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_ranges_are_the_ports_that_are_hit((tripwires, doors) in tripwires()) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let ranges = tripwires.ranges(protocol, &doors);
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].high < pair[1].low);
                }
                for port in 1..=u16::MAX {
                    let hit = tripwires.is_hit_by(&knock(protocol, port, TCP_RULE.set), &doors);
                    let listed = ranges.iter().any(|range| (range.low..=range.high).contains(&port));
                    prop_assert_eq!(hit, listed, "{}", port);
                }
            }
        }
    }

    #[test]
    fn tcp_counts_with_syn_and_without_ack_only() {
        let tripwires = Tripwires::listed(vec![PortRange { low: 1, high: 9 }]);
        for (flags, hit) in [
            (0x02, true),
            (0x12, false),
            (0x10, false),
            (0, false),
            (0x2a, true),
        ] {
            assert_eq!(
                tripwires.is_hit_by(&knock(Protocol::Tcp, 5, flags), &[]),
                hit
            );
        }
        assert!(tripwires.is_hit_by(&knock(Protocol::Udp, 5, 0), &[]));
        assert!(
            !tripwires.is_hit_by(&knock(Protocol::Udp, 5, 0), &[door(&[5])]),
            "a door's port"
        );
    }

    #[test]
    fn auto_is_the_guards_and_64_others_where_nothing_listens() {
        let doors = [door(&[22, 7000, 1, 65_535])];
        let services: Vec<u16> = (1_000..=20_000).chain([21]).collect();
        let tripwires = Tripwires::auto(&services, counter(7));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let ranges = tripwires.ranges(protocol, &doors);
            let ports: Vec<u16> = ranges
                .iter()
                .flat_map(|range| range.low..=range.high)
                .collect();
            // TCP: 2 to 9, 14 to 30 except 21 and 22, and 65527 to 65534.
            let guards = match protocol {
                Protocol::Tcp => 8 + 15 + 8,
                Protocol::Udp => 1 + 1 + 1,
            };
            // Random ports can coincide with those next to steps.
            assert!(
                (guards + AUTO_TRIPWIRES - 3..=guards + AUTO_TRIPWIRES).contains(&ports.len()),
                "{}",
                ports.len()
            );
            assert!(ports.contains(&23) && ports.contains(&2) && ports.contains(&65_534));
            assert!(ports.iter().all(|port| !services.contains(port)));
            let random = ports.iter().filter(|port| **port != 65_534).max();
            assert!(protocol == Protocol::Tcp || random < Some(&(FIRST_LAN_PORT as u16)));
        }
        let all: Vec<u16> = (1..=u16::MAX).collect();
        assert_eq!(
            Tripwires::auto(&all, counter(7)).ranges(Protocol::Tcp, &doors),
            []
        );
    }

    #[test]
    fn a_step_has_eight_guards_on_each_side_where_they_are_cheap() {
        const TCP: Protocol = Protocol::Tcp;
        const UDP: Protocol = Protocol::Udp;
        type Ports = &'static [(u16, u16)];
        let near: Ports = &[(6992, 6999), (7001, 7008)];
        let adjacent: Ports = &[(6999, 6999), (7001, 7001)];
        let beside_lan: Ports = &[(32759, 32759), (32761, 32761)];
        let edges: Ports = &[(1, 2), (4, 11), (65526, 65533), (65535, 65535)];
        let gaps: Ports = &[(6992, 6994), (6996, 6999), (7002, 7002), (7004, 7011)];
        for (steps, services, scan, expected) in [
            ((TCP, &[7000][..]), &[][..], TCP, near),
            ((TCP, &[7000]), &[], UDP, adjacent),
            ((UDP, &[7000]), &[], UDP, near),
            ((UDP, &[7000]), &[], TCP, adjacent),
            // Replies to the LAN arrive here.
            ((UDP, &[32760]), &[], UDP, beside_lan),
            ((TCP, &[3, 65534]), &[], TCP, edges),
            ((TCP, &[7000, 7003]), &[6995, 7001], TCP, gaps),
        ] {
            let step = |port: &u16| Step {
                protocol: steps.0,
                port: *port,
            };
            let ports: Vec<Step> = steps.1.iter().map(step).collect();
            let mut pattern = door(&[1]);
            pattern.sequence = Sequence::new(&ports);
            let mut tripwires = Tripwires::auto(services, counter(7));
            (tripwires.tcp, tripwires.udp) = Default::default();
            let ranges = tripwires.ranges(scan, &[pattern]);
            let ranges: Vec<_> = ranges.iter().map(|range| (range.low, range.high)).collect();
            assert_eq!(ranges, expected, "{steps:?} {services:?} {scan}");
        }
    }

    #[test]
    fn what_listens_is_read_from_proc() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                      0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n   \
                      1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n   \
                      2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0\n\nx\n";
        let mut ports = Vec::new();
        for state in ["0A", "01"] {
            add_ports_in_state(text, state, &mut ports);
        }
        assert_eq!(ports, [22, 80, 8080]);
    }
}
