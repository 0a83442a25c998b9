//! Alignments: ways to read the knocks of one source as the beginning of a sequence, and their
//! stored form.
#![forbid(unsafe_code)]

use crate::limits::{MAX_STEPS, MAX_STRAYS};
use crate::util::time::Millis;
use std::cmp::Reverse;

const _: () = assert!(MAX_STEPS <= 32, "a stage is 5 bits");
const _: () = assert!(MAX_STRAYS <= 3, "strays are 2 bits");

/// Bits that number the packets of one millisecond: they order up to 8 million packets per second.
const NUMBER_BITS: u32 = 13;
const LAST_NUMBER: u64 = (1 << NUMBER_BITS) - 1;

/// Start times are stored modulo 2^40 ms (34 years), so that the rest fits into this number of
/// bits. A longer seq_timeout never ends.
const REST_BITS: u32 = 64 - 40 - NUMBER_BITS;

/// The time of a packet: its millisecond, and its number within that millisecond. This orders all
/// packets, also those that `knock` sends within one millisecond. No two packets have the same
/// value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// The first packet of that millisecond.
    pub fn first_of(now: Millis) -> Moment {
        Moment(now << NUMBER_BITS)
    }

    /// The value of the next packet. `now` must not be before this one.
    pub fn next(self, now: Millis) -> Moment {
        if self.millis() != now {
            return Moment::first_of(now);
        }
        Moment(self.0 + u64::from(self.0 & LAST_NUMBER != LAST_NUMBER))
    }

    /// The millisecond.
    pub fn millis(self) -> Millis {
        self.0 >> NUMBER_BITS
    }
}

/// Events in the life of an alignment.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Mark {
    /// A tripwire was hit.
    Tripped = 1,
    /// The door counted a knock that was neither the next step nor a repeat of the last one: a
    /// stray, or a knock on another door's port. In knockd 0.8 it would have ended the attempt.
    Broken = 2,
    /// A new packet repeated the last step.
    Repeats = 4,
    /// A shorter door, whose sequence is the beginning of this one, opened with the same knocks.
    Used = 8,
}

/// One way to read the knocks of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// The first knock.
    pub start: Moment,
    /// The number of completed steps, 1 to [`MAX_STEPS`] - 1. Only while a knock is handled can it
    /// be one higher.
    pub stage: u8,
    /// Forgiven strays since the first knock.
    pub strays: u8,
    /// Bits of [`Mark`].
    pub marks: u8,
}

/// All alignments of an attempt, at most one for each stage, highest stage first.
pub(super) type Alignments = heapless::Vec<Alignment, { MAX_STEPS - 1 }>;

/// A stored alignment: 53 bits for the start, 4 for the marks, 2 for the strays, 5 for the stage.
/// All zero means none.
pub(super) type Packed = u64;

impl Alignment {
    /// An alignment that starts with this knock.
    pub fn begin(now: Moment) -> Alignment {
        Alignment {
            start: now,
            stage: 1,
            strays: 0,
            marks: 0,
        }
    }

    /// Returns whether this event has happened.
    pub fn is(&self, mark: Mark) -> bool {
        self.marks & mark as u8 != 0
    }

    /// Records that this event has happened.
    pub fn mark(&mut self, mark: Mark) {
        self.marks |= mark as u8;
    }

    /// The rank of two alignments at one stage: the higher one stays. The later start wins, then
    /// the fewer flaws.
    pub fn rank(&self) -> impl Ord + use<> {
        let start = self.start.millis();
        let tripped = self.is(Mark::Tripped);
        (start, Reverse((self.strays, tripped)), self.start)
    }

    /// Encodes the alignment.
    pub fn pack(self) -> Packed {
        let rest = u16::from(self.marks) << 7 | u16::from(self.strays) << 5 | u16::from(self.stage);
        self.start.0 << REST_BITS | u64::from(rest)
    }

    /// Decodes an alignment. `now` must not be before its start.
    pub fn unpack(packed: Packed, now: Millis) -> Option<Alignment> {
        let rest = packed as u16;
        let last = now << NUMBER_BITS | LAST_NUMBER;
        let age = last.wrapping_sub(packed >> REST_BITS) << REST_BITS >> REST_BITS;
        (rest & 31 != 0).then(|| Alignment {
            start: Moment(last.saturating_sub(age)),
            stage: rest as u8 & 31,
            strays: (rest >> 5) as u8 & 3,
            marks: (rest >> 7) as u8 & 15,
        })
    }
}

/// Inserts an alignment behind those of higher stages. If there is one at the same stage, the one
/// of higher rank stays.
pub(super) fn put(alignments: &mut Alignments, alignment: Alignment) {
    match alignments.last_mut() {
        Some(last) if last.stage == alignment.stage => {
            if last.rank() < alignment.rank() {
                *last = alignment;
            }
        }
        // Never full: there is room for every stage.
        _ => drop(alignments.push(alignment)),
    }
}
