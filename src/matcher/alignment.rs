//! Ways to read the knocks of one source as the beginning of a sequence, and how they are stored.
#![forbid(unsafe_code)]

use crate::door::Millis;
use crate::limits::{MAX_STEPS, MAX_STRAYS};
use std::cmp::Reverse;

const _: () = assert!(MAX_STEPS <= 32, "a stage is 5 bits");
const _: () = assert!(MAX_STRAYS <= 3, "strays are 2 bits");

/// Starts are stored modulo 2^40 ms, 34 years: a seq_timeout of more never ends.
const START_BITS: u32 = 40;

/// One way to read an attempt's knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// How many steps are done, from 1 to [`MAX_STEPS`] - 1.
    pub stage: u8,
    /// When its first knock came.
    pub start: Millis,
    /// Knocks since then that were neither due nor a repeat.
    pub strays: u8,
    /// A tripwire was hit since then.
    pub tripped: bool,
}

/// All alignments of an attempt, one for each stage at most, highest stage first.
pub(super) type Readings = heapless::Vec<Alignment, { MAX_STEPS - 1 }>;

/// An alignment as it is stored; all zero is none.
pub(super) type Packed = [u8; 6];

impl Alignment {
    /// One whose first knock comes now.
    pub fn begin(now: Millis) -> Alignment {
        Alignment {
            stage: 1,
            start: now,
            strays: 0,
            tripped: false,
        }
    }

    /// Of two at one stage the greater one stays: the one that started later, then the cleaner one.
    pub fn rank(&self) -> impl Ord + use<> {
        (self.start, Reverse(self.strays), Reverse(self.tripped))
    }

    /// To its stored form.
    pub fn pack(self) -> Packed {
        let start = self.start & ((1 << START_BITS) - 1);
        let rest = self.stage | self.strays << 5 | u8::from(self.tripped) << 7;
        let [a, b, c, d, e, ..] = start.to_le_bytes();
        [a, b, c, d, e, rest]
    }

    /// From its stored form; `now`: not before its start.
    pub fn unpack(packed: Packed, now: Millis) -> Option<Alignment> {
        let [a, b, c, d, e, rest] = packed;
        let stored = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
        let age = now.wrapping_sub(stored) & ((1 << START_BITS) - 1);
        (rest & 31 != 0).then(|| Alignment {
            stage: rest & 31,
            start: now.saturating_sub(age),
            strays: rest >> 5 & 3,
            tripped: rest >> 7 != 0,
        })
    }
}

/// Puts an alignment behind those of higher stages; where one is at its stage already, the one of higher rank stays.
pub(super) fn put(readings: &mut Readings, alignment: Alignment) {
    match readings.last_mut() {
        Some(last) if last.stage == alignment.stage => {
            if last.rank() < alignment.rank() {
                *last = alignment;
            }
        }
        // There are no more stages than places.
        _ => drop(readings.push(alignment)),
    }
}
