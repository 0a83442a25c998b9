//! The attempts of every source, in a table of fixed size.
//!
//! Everything is reserved by [`Table::new`]; pages that no attempt has used stay untouched. Attempts of one source
//! share a hash chain. Who has to go when the table is full is found through lists by age, one for each class:
//! stages 1, 2, 3, and all above. The lowest class goes first, in it the attempt that changed least recently; so a
//! flood of first knocks never evicts someone who is halfway. A class that holds less than its share, a quarter of
//! the table, is spared: otherwise whoever knows the first steps of one door could fill the higher classes, and
//! then each newcomer would evict the one before.
#![forbid(unsafe_code)]

use crate::door::Millis;
use crate::limits::{MAX_ATTEMPTS, MAX_STEPS};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::{Index, IndexMut};

const CLASSES: usize = 4;

const _: () = assert!(MAX_ATTEMPTS < u16::MAX as usize, "a slot is 16 bits");
const _: () = assert!(
    MAX_STEPS <= 32,
    "the stages below the last are bits 1 to 31 of `live`"
);

/// The place of an attempt, from 1; valid until the attempt is removed.
pub(super) type Slot = NonZeroU16;

/// One way to read the knocks of an attempt as the beginning of the sequence. Its stage says where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// When its first knock came.
    pub start: Millis,
    /// Knocks since then that were neither due nor a repeat.
    pub strays: u8,
}

impl Alignment {
    fn pack(self) -> u64 {
        self.start << 8 | u64::from(self.strays)
    }

    fn unpack(packed: u64) -> Alignment {
        Alignment {
            start: packed >> 8,
            strays: packed as u8,
        }
    }
}

/// What tells a copy of a TCP packet from a new knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub source_port: u16,
    pub port: u16,
    pub sequence: u32,
}

/// One source's progress at one door.
#[derive(Debug)]
pub(super) struct Attempt {
    pub source: IpAddr,
    pub door: u16,
    /// The stage that the last event told of; 0: that one has ended, and what is left was never told.
    pub told: u8,
    /// Bit s: there is an alignment at stage s.
    live: u32,
    /// When there is something to expire.
    pub deadline: Millis,
    /// The TCP packet that advanced this attempt last, and when its last copy came.
    pub segment: Option<(Segment, Millis)>,
    bucket: u16,
    class: u8,
    next_in_bucket: Option<Slot>,
    older: Option<Slot>,
    newer: Option<Slot>,
}

impl Attempt {
    pub fn is_live(&self, stage: u8) -> bool {
        self.live & bit(stage) != 0
    }

    pub fn is_over(&self) -> bool {
        self.live == 0
    }

    /// The stages that have an alignment, highest first.
    pub fn stages(&self) -> impl Iterator<Item = u8> + use<> {
        let mut left = self.live;
        std::iter::from_fn(move || {
            let stage = left.checked_ilog2()? as u8;
            left &= !bit(stage);
            Some(stage)
        })
    }
}

fn bit(stage: u8) -> u32 {
    1u32.checked_shl(stage.into()).unwrap_or(0)
}

#[derive(Clone, Copy, Default)]
struct Ages {
    oldest: Option<Slot>,
    newest: Option<Slot>,
    count: usize,
}

pub(super) struct Table {
    /// Grows up to its capacity; slots of removed attempts are used again.
    attempts: Vec<Attempt>,
    /// By stage, then by slot, so that a flood that reaches stage 1 touches the pages of stage 1 only.
    alignments: Vec<u64>,
    buckets: Vec<Option<Slot>>,
    /// Removed slots, linked by `next_in_bucket`.
    free: Option<Slot>,
    ages: [Ages; CLASSES],
    capacity: usize,
    seed: u64,
    /// No attempt's deadline is before this.
    pub soonest: Millis,
}

impl Index<Slot> for Table {
    type Output = Attempt;
    fn index(&self, slot: Slot) -> &Attempt {
        &self.attempts[usize::from(slot.get()) - 1]
    }
}

impl IndexMut<Slot> for Table {
    fn index_mut(&mut self, slot: Slot) -> &mut Attempt {
        &mut self.attempts[usize::from(slot.get()) - 1]
    }
}

impl Table {
    /// An empty table for `capacity` attempts, at most [`MAX_ATTEMPTS`].
    pub fn new(capacity: usize, seed: u64) -> Table {
        Table {
            attempts: Vec::with_capacity(capacity),
            alignments: vec![0; capacity * (MAX_STEPS - 1)],
            buckets: vec![None; capacity.next_power_of_two()],
            free: None,
            ages: [Ages::default(); CLASSES],
            capacity,
            seed,
            soonest: Millis::MAX,
        }
    }

    /// How many attempts there are.
    pub fn len(&self) -> usize {
        self.ages.iter().map(|ages| ages.count).sum()
    }

    /// Where the attempts of this source are looked for.
    pub fn bucket(&self, source: IpAddr) -> u16 {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        source.hash(&mut hasher);
        (hasher.finish() as usize & (self.buckets.len() - 1)) as u16
    }

    /// The attempt of this source at that door. `bucket` is the source's.
    pub fn find(&self, bucket: u16, source: IpAddr, door: u16) -> Option<Slot> {
        let mut next = self.buckets[usize::from(bucket)];
        while let Some(slot) = next {
            let attempt = &self[slot];
            if attempt.door == door && attempt.source == source {
                return Some(slot);
            }
            next = attempt.next_in_bucket;
        }
        None
    }

    /// A new attempt, without alignments; one must be put and the attempt settled next. May evict another.
    pub fn insert(&mut self, bucket: u16, source: IpAddr, door: u16) -> Slot {
        if self.len() == self.capacity {
            let share = self.capacity / CLASSES;
            let mut lists = self.ages.iter().filter(|ages| ages.count >= share);
            if let Some(slot) = lists.find_map(|ages| ages.oldest) {
                self.remove(slot);
            }
        }
        let attempt = Attempt {
            source,
            door,
            told: 0,
            live: 0,
            deadline: Millis::MAX,
            segment: None,
            bucket,
            class: 0,
            next_in_bucket: self.buckets[usize::from(bucket)],
            older: None,
            newer: None,
        };
        let slot = match self.free {
            Some(slot) => {
                self.free = self[slot].next_in_bucket;
                self[slot] = attempt;
                slot
            }
            None => {
                self.attempts.push(attempt);
                NonZeroU16::MIN.saturating_add(self.attempts.len() as u16 - 1)
            }
        };
        self.buckets[usize::from(bucket)] = Some(slot);
        self.enlist(slot, 0);
        slot
    }

    /// Forgets an attempt.
    pub fn remove(&mut self, slot: Slot) {
        self.unlist(slot);
        let Attempt {
            bucket,
            next_in_bucket,
            ..
        } = self[slot];
        let mut next = self.buckets[usize::from(bucket)];
        if next == Some(slot) {
            self.buckets[usize::from(bucket)] = next_in_bucket;
        } else {
            while let Some(before) = next {
                next = self[before].next_in_bucket;
                if next == Some(slot) {
                    self[before].next_in_bucket = next_in_bucket;
                    break;
                }
            }
        }
        self[slot].next_in_bucket = self.free;
        self.free = Some(slot);
    }

    /// After a change: the attempt is the newest of the class of its highest stage, and has a deadline.
    pub fn settle(&mut self, slot: Slot, seq_timeout: Millis) {
        let stage = self[slot].stages().next().unwrap_or(1);
        self.unlist(slot);
        self.enlist(
            slot,
            (usize::from(stage).saturating_sub(1)).min(CLASSES - 1),
        );
        self.set_deadline(slot, seq_timeout);
    }

    /// The deadline is when the stage told last ends, or where none is told, when all ends.
    pub fn set_deadline(&mut self, slot: Slot, seq_timeout: Millis) {
        let attempt = &self[slot];
        // Of two alignments, the lower stage started later.
        let stage = if attempt.told > 0 {
            Some(attempt.told)
        } else {
            attempt.stages().last()
        };
        let start = stage
            .and_then(|stage| self.alignment(slot, stage))
            .map_or(0, |a| a.start);
        let deadline = start.saturating_add(seq_timeout);
        self[slot].deadline = deadline;
        self.soonest = self.soonest.min(deadline);
    }

    /// The alignment at that stage.
    pub fn alignment(&self, slot: Slot, stage: u8) -> Option<Alignment> {
        if !self[slot].is_live(stage) {
            return None;
        }
        Some(Alignment::unpack(self.alignments[self.cell(slot, stage)]))
    }

    /// Puts an alignment at that stage, from 1 to [`MAX_STEPS`] - 1, in the place of any other.
    pub fn put(&mut self, slot: Slot, stage: u8, alignment: Alignment) {
        let cell = self.cell(slot, stage);
        self.alignments[cell] = alignment.pack();
        self[slot].live |= bit(stage);
    }

    /// Drops the alignment at that stage.
    pub fn drop(&mut self, slot: Slot, stage: u8) {
        self[slot].live &= !bit(stage);
    }

    fn cell(&self, slot: Slot, stage: u8) -> usize {
        (usize::from(stage) - 1) * self.capacity + usize::from(slot.get()) - 1
    }

    /// The first of all attempts, in no order that matters; [`Table::after`] gives the others.
    pub fn first(&self) -> Option<Slot> {
        self.ages.iter().find_map(|ages| ages.oldest)
    }

    /// The attempt after this one. Ask before removing it.
    pub fn after(&self, slot: Slot) -> Option<Slot> {
        let attempt = &self[slot];
        let higher = &self.ages[usize::from(attempt.class) + 1..];
        attempt
            .newer
            .or_else(|| higher.iter().find_map(|ages| ages.oldest))
    }

    fn enlist(&mut self, slot: Slot, class: usize) {
        let newest = self.ages[class].newest.replace(slot);
        match newest {
            Some(before) => self[before].newer = Some(slot),
            None => self.ages[class].oldest = Some(slot),
        }
        self.ages[class].count += 1;
        let attempt = &mut self[slot];
        attempt.class = class as u8;
        attempt.older = newest;
        attempt.newer = None;
    }

    fn unlist(&mut self, slot: Slot) {
        let Attempt {
            class,
            older,
            newer,
            ..
        } = self[slot];
        let class = usize::from(class);
        match older {
            Some(older) => self[older].newer = newer,
            None => self.ages[class].oldest = newer,
        }
        match newer {
            Some(newer) => self[newer].older = older,
            None => self.ages[class].newest = older,
        }
        self.ages[class].count -= 1;
    }
}

#[cfg(test)]
mod tests;
