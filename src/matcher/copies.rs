//! Recognises copies of packets that counted: retransmissions, and duplicates made by the network.
//!
//! A copy has the same source, destination, ports and serial as a packet that counted. The time
//! since the last copy must not exceed [`FIRST_COPY_MS`] or [`COPY_FACTOR`] times the longest pause
//! between two copies so far, and never [`LAST_COPY_MS`]. TCP doubles the pauses between
//! retransmissions of a SYN (RFC 6298; Linux: 1, 2, 4, 8, 16, 32 s; since 6.5 the first five come
//! one second apart). So a factor of 7 covers one lost copy (2 + 4) and jitter, and 4 s covers
//! systems whose first pause is 3 s. A fixed time would not do: 3 s would miss the SYN after 7 s,
//! and 35 s would ignore a tool that sends the same packet for each knock.
#![forbid(unsafe_code)]

use super::hash::Keys;
use crate::knock::{Knock, Protocol};
use crate::limits::{COPY_FACTOR, FIRST_COPY_MS, LAST_COPY_MS};
use crate::util::time::Millis;

/// Packets in one set of the table, one cache line; the oldest is evicted.
const WAYS: usize = 8;

/// Bits of the time of the last copy: 4.6 hours.
const SEEN_BITS: u32 = 24;
const SEEN_MASK: u32 = (1 << SEEN_BITS) - 1;

/// Unit in ms of the longest pause between two copies, which has 8 bits and is rounded up.
const PAUSE_UNIT_MS: u32 = 64;

const _: () = assert!(
    255 * PAUSE_UNIT_MS * COPY_FACTOR >= LAST_COPY_MS,
    "the pause has enough bits"
);

/// A packet that counted: its hash, which is never 0, and above the time of the last copy the
/// longest pause between two copies. All zero means empty. An array, because the allocator provides
/// zeroed arrays without touching them.
type Packet = [u32; 2];

fn packet(tag: u32, pause: u32, now: Millis) -> Packet {
    let units = pause.div_ceil(PAUSE_UNIT_MS).min(255);
    [tag, units << SEEN_BITS | now as u32 & SEEN_MASK]
}

/// Returns the time since the last copy.
fn age([_, times]: Packet, now: Millis) -> u32 {
    (now as u32).wrapping_sub(times) & SEEN_MASK
}

fn pause([_, times]: Packet) -> u32 {
    (times >> SEEN_BITS) * PAUSE_UNIT_MS
}

/// The packets of all sources that counted, 8 bytes each. The table has a fixed size, and its pages
/// stay untouched until they are used. An unrelated packet is taken for a copy with a probability
/// of 8 in 2^31.
pub(super) struct Copies {
    sets: Vec<[Packet; WAYS]>,
    keys: [Keys; 2],
}

/// The position of a packet: its set and its tag there. `None` if its copies cannot be recognised.
pub(super) type Finder = Option<(usize, u32)>;

impl Copies {
    /// Creates a table for at least `capacity` packets.
    pub fn new(capacity: usize, seed: u64) -> Copies {
        Copies {
            sets: vec![[[0; 2]; WAYS]; (capacity / WAYS).next_power_of_two()],
            keys: [1, 2].map(|more| Keys::new(seed.wrapping_add(more))),
        }
    }

    /// Computes the position of a packet from what its copies have in common.
    pub fn finder(&self, knock: &Knock) -> Finder {
        let [first, second] = &self.keys;
        let udp = u32::from(knock.step.protocol == Protocol::Udp);
        let words = [
            first.hash_address(knock.source),
            first.hash_address(knock.destination) ^ udp,
            u32::from(knock.source_port) << 16 | u32::from(knock.step.port),
            knock.serial,
        ];
        (knock.serial != 0).then(|| {
            let set = first.hash(words) as usize & (self.sets.len() - 1);
            (set, second.hash(words) | 1)
        })
    }

    /// Returns whether this is a copy. If so, updates its time.
    pub fn is_copy(&mut self, finder: Finder, now: Millis) -> bool {
        let Some((set, tag)) = finder else {
            return false;
        };
        let Some(found) = self.sets[set].iter_mut().find(|found| found[0] == tag) else {
            return false;
        };
        let (age, pause) = (age(*found, now), pause(*found));
        let is_copy = age <= (COPY_FACTOR * pause).clamp(FIRST_COPY_MS, LAST_COPY_MS);
        if is_copy {
            *found = packet(tag, pause.max(age), now);
        }
        is_copy
    }

    /// Stores a packet that counted.
    pub fn record(&mut self, finder: Finder, now: Millis) {
        let Some((set, tag)) = finder else { return };
        let goes_first = |found: &&mut Packet| match found[0] {
            other if other == tag => u32::MAX,
            0 => u32::MAX - 1,
            _ => age(**found, now),
        };
        if let Some(oldest) = self.sets[set].iter_mut().max_by_key(goes_first) {
            *oldest = packet(tag, 0, now);
        }
    }
}
