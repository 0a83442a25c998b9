//! Ways to read the knocks of one source as the beginning of a sequence, and how they are stored.
#![forbid(unsafe_code)]

use crate::limits::{MAX_STEPS, MAX_STRAYS};
use crate::util::time::Millis;
use std::cmp::Reverse;

const _: () = assert!(MAX_STEPS <= 32, "a stage is 5 bits");
const _: () = assert!(MAX_STRAYS <= 3, "strays are 2 bits");

/// Bits that number the packets of one millisecond: up to 8 million packets per second have an order.
const NUMBER_BITS: u32 = 13;
const LAST_NUMBER: u64 = (1 << NUMBER_BITS) - 1;

/// Starts are stored modulo 2^40 ms, 34 years, beside this many bits for the rest: a longer seq_timeout never ends.
const REST_BITS: u32 = 64 - 40 - NUMBER_BITS;

/// When a packet came: its millisecond and its number within that millisecond. This orders packets, also those that `knock` sends within
/// one millisecond, and no two packets have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// The first packet of that millisecond.
    pub fn first_of(now: Millis) -> Moment {
        Moment(now << NUMBER_BITS)
    }

    /// The packet after this one; `now`: not before it.
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

/// What happened to an alignment since its first knock.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Mark {
    /// A tripwire was hit.
    Tripped = 1,
    /// A knock came that its door counts and that was neither due nor a repeat of the last step: a stray, or a knock on another door's
    /// port. knockd 0.8 would have failed it there.
    Broken = 2,
    /// The last step was repeated by a new packet.
    Repeats = 4,
    /// A shorter door, whose sequence is the beginning of this one's, has opened with it.
    Used = 8,
}

/// One way to read an attempt's knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Its first knock.
    pub start: Moment,
    /// How many steps are done, from 1 to [`MAX_STEPS`] - 1; more only while a knock is handled.
    pub stage: u8,
    /// Forgiven knocks since the first.
    pub strays: u8,
    /// Bits of [`Mark`].
    pub marks: u8,
}

/// All alignments of an attempt, one for each stage at most, highest stage first.
pub(super) type Readings = heapless::Vec<Alignment, { MAX_STEPS - 1 }>;

/// An alignment as it is stored: 53 bits of its start, 4 marks, 2 bits of its strays, 5 of its stage. All zero is none.
pub(super) type Packed = u64;

impl Alignment {
    /// One whose first knock is this one.
    pub fn begin(now: Moment) -> Alignment {
        Alignment {
            start: now,
            stage: 1,
            strays: 0,
            marks: 0,
        }
    }

    /// Whether that has happened.
    pub fn is(&self, mark: Mark) -> bool {
        self.marks & mark as u8 != 0
    }

    /// That has happened.
    pub fn mark(&mut self, mark: Mark) {
        self.marks |= mark as u8;
    }

    /// Of two at one stage the greater one stays: the one that started later, then the cleaner one.
    pub fn rank(&self) -> impl Ord + use<> {
        let start = self.start.millis();
        let tripped = self.is(Mark::Tripped);
        (start, Reverse((self.strays, tripped)), self.start)
    }

    /// To its stored form.
    pub fn pack(self) -> Packed {
        let rest = u16::from(self.marks) << 7 | u16::from(self.strays) << 5 | u16::from(self.stage);
        self.start.0 << REST_BITS | u64::from(rest)
    }

    /// From its stored form; `now`: not before its start.
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
