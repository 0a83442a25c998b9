//! The journal's format: the lease book as text, from which the next daemon learns what to close
//! after this one was killed.
//!
//! ```text
//! knockd-rs journal 2
//! boot 6f0e... net 4026531840
//! sum 8c1f0a34d1e9b672
//! lease 10.9.0.2 open 123456 20000 0 0
//! SSH
//! iptables -I INPUT -s 10.9.0.2 -p tcp --dport 22 -j ACCEPT
//! iptables -D INPUT -s 10.9.0.2 -p tcp --dport 22 -j ACCEPT
//! sum 1b5bd2f9703c44ee
//! end
//! ```
//! A lease has its source, phase (`starting`, `open`, `stopping`: [`Phase`]), deadline (ms of
//! CLOCK_MONOTONIC, 0 if there is none yet), cmd_timeout (ms), and the leader and start time of its
//! command's process group (0 0 if none runs). Door, start and stop command follow, one line each.
//! The door's line is empty for a ban. A sum is the [`checksum`] of all bytes before its line.
//!
//! **Only commands that were in the config when their door opened are run from it.** A journal is
//! used up to the first wrong sum, so that no changed, truncated or invented byte is run. The
//! keeper uses only a journal of its own (owner, mode, type of file). The sum has no key: it would
//! lie in the same directory, and only root can write there. A command need not be in the current
//! config: a lease outlives a reload, even if its door is gone.
#![forbid(unsafe_code)]

use crate::lease::{AfterStop, Lease, LeaseKind, Phase, Turn};
use crate::limits::{MAX_BAN_LEASES, MAX_LEASES};
use crate::util::number::parse_uint;
use crate::util::process::{Pid, ProcessGroup};
use std::io::Write;

/// The context in which a journal is valid: after a reboot or in another network namespace there is
/// nothing left to close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootContext {
    /// /proc/sys/kernel/random/boot_id
    pub boot: String,
    /// The inode of /proc/self/ns/net; 0 if the kernel has no namespaces.
    pub net: u64,
}

/// A decoded journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// The context in which it was written.
    pub place: BootContext,
    /// The leases before the first invalid entry.
    pub leases: Vec<Lease>,
    /// All entries are valid.
    pub whole: bool,
}

const TITLE: &str = "knockd-rs journal 2";

/// Returns the checksum (FNV-1a, 64 bits) of these bytes, continued from that of the previous
/// bytes; start with [`NO_BYTES`]. It detects each change of a single byte.
pub fn checksum(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The [`checksum`] of no bytes.
pub const NO_BYTES: u64 = 0xcbf2_9ce4_8422_2325;

/// Encodes these leases.
pub fn encode<'a>(place: &BootContext, leases: impl Iterator<Item = &'a Lease>) -> Vec<u8> {
    let mut text = Vec::new();
    let (mut sum, mut summed) = (NO_BYTES, 0);
    let mut add_sum = |text: &mut Vec<u8>| {
        sum = checksum(sum, text.get(summed..).unwrap_or_default());
        summed = text.len();
        // Writing into a Vec cannot fail.
        let _ = writeln!(text, "sum {sum:016x}");
    };
    let _ = writeln!(text, "{TITLE}\nboot {} net {}", place.boot, place.net);
    add_sum(&mut text);
    for lease in leases {
        let (phase, until) = match lease.phase {
            Phase::Starting { .. } => ("starting", 0),
            Phase::Open { until } => ("open", until),
            Phase::Stopping { .. } => ("stopping", 0),
        };
        let group = lease.running.unwrap_or(ProcessGroup {
            leader: Pid(0),
            started: 0,
        });
        let _ = writeln!(
            text,
            "lease {} {phase} {until} {} {} {}",
            lease.source, lease.cmd_timeout, group.leader, group.started
        );
        for line in [door(lease).as_bytes(), &lease.start, &lease.stop] {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        add_sum(&mut text);
    }
    text.extend_from_slice(b"end\n");
    text
}

/// The line of a lease's door.
fn door(lease: &Lease) -> &str {
    match &lease.kind {
        LeaseKind::Door(name) => name,
        LeaseKind::Ban => "",
    }
}

/// Decodes a journal up to the first invalid entry. Returns `None` if it is not a journal.
pub fn decode(text: &[u8]) -> Option<Journal> {
    let mut lines = Lines {
        rest: text,
        sum: NO_BYTES,
    };
    if lines.next()? != TITLE.as_bytes() {
        return None;
    }
    let place = lines.next_text()?;
    let (boot, net) = place.strip_prefix("boot ")?.split_once(' ')?;
    let net = net.strip_prefix("net ")?;
    let place = BootContext {
        boot: boot.to_string(),
        net: parse_uint(net.as_bytes(), u64::MAX)?,
    };
    lines.check_sum()?;
    let mut leases = Vec::new();
    let whole = loop {
        match lines.next_text() {
            Some("end") => break lines.rest.is_empty(),
            Some(head) if leases.len() < MAX_LEASES + MAX_BAN_LEASES => match lines.lease(head) {
                Some(lease) => leases.push(lease),
                None => break false,
            },
            _ => break false,
        }
    };
    Some(Journal {
        place,
        leases,
        whole,
    })
}

/// The lines of a journal that were not read yet.
struct Lines<'a> {
    rest: &'a [u8],
    /// The checksum of what was read.
    sum: u64,
}

impl<'a> Lines<'a> {
    /// Returns the next line if it is complete.
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = self.rest.split_at_checked(end + 1)?;
        self.rest = rest;
        self.sum = checksum(self.sum, line);
        line.strip_suffix(b"\n")
    }

    fn next_text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.next()?).ok()
    }

    /// Reads and verifies the checksum of everything before.
    fn check_sum(&mut self) -> Option<()> {
        let right = format!("sum {:016x}", self.sum);
        (self.next()? == right.as_bytes()).then_some(())
    }

    /// Reads the lease that begins with this line.
    fn lease(&mut self, head: &str) -> Option<Lease> {
        let mut fields = head.strip_prefix("lease ")?.split(' ');
        let source = fields.next()?.parse().ok()?;
        let phase = fields.next()?;
        let mut next = |most| parse_uint(fields.next()?.as_bytes(), most);
        let (until, cmd_timeout) = (next(u64::MAX)?, next(u64::MAX)?);
        let (leader, started) = (Pid(next(i32::MAX as u64)? as i32), next(u64::MAX)?);
        let phase = match phase {
            "starting" => Phase::Starting {
                until: None,
                reapply: false,
            },
            "open" => Phase::Open { until },
            "stopping" => Phase::Stopping {
                then: AfterStop::Remove,
            },
            _ => return None,
        };
        if fields.next().is_some() {
            return None;
        }
        let lease = Lease {
            id: 0,
            source,
            phase,
            cmd_timeout,
            turn: Turn::default(),
            // A leader of 0 or 1 would be this process's own group or every process, never a
            // command.
            running: (leader.0 > 1).then_some(ProcessGroup { leader, started }),
            kind: match self.next_text()? {
                "" => LeaseKind::Ban,
                door => LeaseKind::Door(door.to_string()),
            },
            start: self.next()?.to_vec(),
            stop: self.next()?.to_vec(),
        };
        self.check_sum()?;
        // No command contains a NUL: a shell cannot take it.
        let texts = [door(&lease).as_bytes(), &lease.start, &lease.stop];
        (!texts.iter().any(|text| text.contains(&0))).then_some(lease)
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
            Just(Phase::Stopping {
                then: AfterStop::Remove
            }),
        ];
        let running = prop::option::of((2i32.., any::<u64>())).prop_map(|group| {
            group.map(|(leader, started)| ProcessGroup {
                leader: Pid(leader),
                started,
            })
        });
        (
            any::<IpAddr>(),
            prop::option::of("[^\n\0]{1,20}"),
            command(),
            command(),
            any::<u64>(),
            phase,
            running,
        )
            .prop_map(
                |(source, door, start, stop, cmd_timeout, phase, running)| Lease {
                    id: 0,
                    kind: door.map_or(LeaseKind::Ban, LeaseKind::Door),
                    source,
                    start,
                    stop,
                    cmd_timeout,
                    turn: Turn::default(),
                    phase,
                    running,
                },
            )
    }

    fn place() -> BootContext {
        BootContext {
            boot: "6f0e4b4e".to_string(),
            net: 4_026_531_840,
        }
    }

    fn leases() -> impl Strategy<Value = Vec<Lease>> {
        prop::collection::vec(lease(), 0..5)
    }

    /// Returns the leases of bytes that were made from a valid journal. They must be the first
    /// leases of that journal.
    fn prefix_of(leases: &[Lease], spoilt: &[u8]) -> Result<Vec<Lease>, TestCaseError> {
        let Some(found) = decode(spoilt) else {
            return Ok(Vec::new());
        };
        prop_assert_eq!(found.place, place());
        let first = leases.get(..found.leases.len());
        prop_assert_eq!(first, Some(found.leases.as_slice()));
        Ok(found.leases)
    }

    proptest! {
        #[test]
        fn a_journal_comes_back_as_it_was(leases in leases()) {
            let text = encode(&place(), leases.iter());
            prop_assert_eq!(decode(&text), Some(Journal { place: place(), leases, whole: true }));
        }

        #[test]
        fn a_journal_that_was_cut_is_used_up_to_there(leases in leases()) {
            let text = encode(&place(), leases.iter());
            let mut records = 0;
            for length in 0..text.len() {
                let cut = &text[..length];
                let used = prefix_of(&leases, cut)?;
                prop_assert!(!decode(cut).is_some_and(|journal| journal.whole));
                // An entry counts as soon as its checksum is complete.
                let sums = cut.split_inclusive(|byte| *byte == b'\n');
                let sums = sums.filter(|line| line.starts_with(b"sum ") && line.ends_with(b"\n"));
                prop_assert!(used.len() >= records);
                records = used.len();
                if leases.iter().all(|lease| !has_line(lease, b"sum ")) {
                    prop_assert_eq!(records, sums.count().saturating_sub(1));
                }
            }
            prop_assert_eq!(records, leases.len());
        }

        #[test]
        fn a_byte_that_was_changed_is_seen(leases in leases(), change in 1u8..) {
            let text = encode(&place(), leases.iter());
            for index in 0..text.len() {
                let mut changed = text.clone();
                changed[index] ^= change;
                prefix_of(&leases, &changed)?;
                prop_assert!(!decode(&changed).is_some_and(|journal| journal.whole));
            }
        }

        #[test]
        fn what_was_taken_out_or_put_in_is_seen(
            leases in leases(),
            place in any::<(prop::sample::Index, prop::sample::Index)>(),
            noise in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let text = encode(&self::place(), leases.iter());
            let (from, to) = (place.0.index(text.len()), place.1.index(text.len()));
            let mut spoilt = text.clone();
            spoilt.splice(from.min(to)..from.max(to), noise);
            prefix_of(&leases, &spoilt)?;
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_find_a_lease(
            titled in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let title = if titled { format!("{TITLE}\n") } else { String::new() };
            let text = [title.as_bytes(), &bytes].concat();
            prop_assert_eq!(decode(&text), None);
        }
    }

    fn has_line(lease: &Lease, beginning: &[u8]) -> bool {
        let texts = [door(lease).as_bytes(), &lease.start, &lease.stop];
        texts.iter().any(|text| text.starts_with(beginning))
    }

    #[test]
    fn more_leases_than_the_book_takes_are_not_used() {
        let lease = Lease {
            id: 0,
            kind: LeaseKind::Door("A".to_string()),
            source: IpAddr::from([10, 9, 0, 2]),
            start: Vec::new(),
            stop: b"shut".to_vec(),
            cmd_timeout: 1,
            turn: Turn::default(),
            phase: Phase::Open { until: 1 },
            running: None,
        };
        let most = MAX_LEASES + MAX_BAN_LEASES;
        let text = encode(&place(), std::iter::repeat_n(&lease, most + 1));
        let journal = decode(&text).unwrap();
        assert_eq!((journal.leases.len(), journal.whole), (most, false));
    }
}
