//! The journal's format: the lease book as text, so that a daemon that was killed knows what it has to close.
//!
//! ```text
//! knockd-rs journal 1
//! boot 6f0e... net 4026531840
//! lease 10.9.0.2 open 123456 20000 0 0
//! SSH
//! iptables -I INPUT -s 10.9.0.2 -p tcp --dport 22 -j ACCEPT
//! iptables -D INPUT -s 10.9.0.2 -p tcp --dport 22 -j ACCEPT
//! end
//! ```
//! A lease is its source, phase, deadline (ms of CLOCK_MONOTONIC, 0 when there is none yet), cmd_timeout (ms), and the leader
//! and start time of its command's process group (0 0: none runs); then its door, start and stop command, a line each.
#![forbid(unsafe_code)]

use crate::lease::{Group, Lease, Phase, Then};
use crate::limits::MAX_LEASES;
use std::io::Write;

/// Where a journal means something: after a reboot or in another network namespace there is nothing left to close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// /proc/sys/kernel/random/boot_id
    pub boot: String,
    /// The inode of /proc/self/ns/net; 0 where the kernel has no namespaces.
    pub net: u64,
}

const TITLE: &str = "knockd-rs journal 1";

/// The journal of these leases.
pub fn encode<'a>(place: &Place, leases: impl Iterator<Item = &'a Lease>) -> Vec<u8> {
    let mut text = Vec::new();
    // Writing into a Vec cannot fail.
    let _ = writeln!(text, "{TITLE}\nboot {} net {}", place.boot, place.net);
    for lease in leases {
        let (phase, until) = match lease.phase {
            Phase::Starting { .. } => ("starting", 0),
            Phase::Open { until } => ("open", until),
            Phase::Stopping { .. } => ("stopping", 0),
        };
        let group = lease.running.unwrap_or(Group {
            leader: 0,
            started: 0,
        });
        let _ = writeln!(
            text,
            "lease {} {phase} {until} {} {} {}",
            lease.source, lease.cmd_timeout, group.leader, group.started
        );
        for line in [lease.door.as_bytes(), &lease.start, &lease.stop] {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }
    text.extend_from_slice(b"end\n");
    text
}

/// The place and leases of a journal; `None` if it is not one, or not whole.
pub fn decode(text: &[u8]) -> Option<(Place, Vec<Lease>)> {
    // No shell takes a NUL, so no command has one.
    if text.contains(&0) {
        return None;
    }
    let mut lines = text.split(|byte| *byte == b'\n');
    if lines.next()? != TITLE.as_bytes() {
        return None;
    }
    let place = std::str::from_utf8(lines.next()?).ok()?;
    let (boot, net) = place.strip_prefix("boot ")?.split_once(" net ")?;
    let place = Place {
        boot: boot.to_string(),
        net: net.parse().ok()?,
    };
    let mut leases = Vec::new();
    loop {
        let line = std::str::from_utf8(lines.next()?).ok()?;
        if line == "end" {
            return Some((place, leases));
        }
        let mut fields = line.strip_prefix("lease ")?.split(' ');
        let source = fields.next()?.parse().ok()?;
        let phase = fields.next()?;
        let until = fields.next()?.parse().ok()?;
        let cmd_timeout = fields.next()?.parse().ok()?;
        let leader = fields.next()?.parse().ok()?;
        let started = fields.next()?.parse().ok()?;
        let phase = match phase {
            "starting" => Phase::Starting {
                until: None,
                reapply: false,
            },
            "open" => Phase::Open { until },
            "stopping" => Phase::Stopping { then: Then::Over },
            _ => return None,
        };
        if leases.len() == MAX_LEASES || fields.next().is_some() {
            return None;
        }
        leases.push(Lease {
            id: 0,
            source,
            phase,
            cmd_timeout,
            // A leader of 0 or 1 would be this process's own group or every process: never a group of ours.
            running: (leader > 1).then_some(Group { leader, started }),
            door: String::from_utf8(lines.next()?.to_vec()).ok()?,
            start: lines.next()?.to_vec(),
            stop: lines.next()?.to_vec(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn command() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| {
            bytes
                .into_iter()
                .filter(|byte| !b"\n\0".contains(byte))
                .collect()
        })
    }

    fn lease() -> impl Strategy<Value = Lease> {
        let phase = prop_oneof![
            Just(Phase::Starting {
                until: None,
                reapply: false
            }),
            any::<u64>().prop_map(|until| Phase::Open { until }),
            Just(Phase::Stopping { then: Then::Over }),
        ];
        let running = prop::option::of((2i32.., any::<u64>()))
            .prop_map(|group| group.map(|(leader, started)| Group { leader, started }));
        (
            any::<IpAddr>(),
            "[^\n\0]{0,20}",
            command(),
            command(),
            any::<u64>(),
            phase,
            running,
        )
            .prop_map(
                |(source, door, start, stop, cmd_timeout, phase, running)| Lease {
                    id: 0,
                    door,
                    source,
                    start,
                    stop,
                    cmd_timeout,
                    phase,
                    running,
                },
            )
    }

    fn place() -> Place {
        Place {
            boot: "6f0e4b4e".to_string(),
            net: 4_026_531_840,
        }
    }

    proptest! {
        #[test]
        fn a_journal_comes_back_as_it_was(leases in prop::collection::vec(lease(), 0..5)) {
            let text = encode(&place(), leases.iter());
            prop_assert_eq!(decode(&text), Some((place(), leases)));
        }

        #[test]
        fn a_journal_that_was_cut_is_refused(leases in prop::collection::vec(lease(), 0..5), cut in 2usize..200) {
            let text = encode(&place(), leases.iter());
            // The last two bytes, "d" and the line end, are the shortest cut that can be seen.
            let length = text.len().saturating_sub(cut);
            prop_assert_eq!(decode(&text[..length]), None);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
