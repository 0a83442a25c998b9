//! The deadlines of attempts, in one list for each tick.
#![forbid(unsafe_code)]

use super::lists::{first, link, unlink};
use super::{Chain, Slot, Table, WHEEL};
use crate::limits::{FEW_ATTEMPTS, TICK_MS};
use crate::util::time::Millis;

impl Table {
    pub(super) fn set_due(&mut self, slot: Slot, deadline: Millis) {
        let due = (deadline / TICK_MS) as usize % WHEEL;
        link(
            &mut self.entries,
            &mut self.lists[self.by_age + due],
            Chain::Due,
            slot,
        );
        self.busy[due / 64] |= 1 << (due % 64);
        self.entry_mut(slot).due = due as u16;
        self.soonest = self.soonest.min(deadline);
    }

    pub(super) fn clear_due(&mut self, slot: Slot) {
        let due = usize::from(self.entry(slot).due);
        unlink(
            &mut self.entries,
            &mut self.lists[self.by_age + due],
            Chain::Due,
            slot,
        );
        if first(&self.lists[self.by_age + due]).is_none() {
            self.busy[due / 64] &= !(1 << (due % 64));
        }
    }

    /// Returns when deadlines must be checked next. `None` if there is no attempt.
    pub fn next_look(&self) -> Option<Millis> {
        match self.len() {
            0 => None,
            1..=FEW_ATTEMPTS => Some(self.soonest),
            _ => Some((self.soonest / TICK_MS + 1).saturating_mul(TICK_MS)),
        }
    }

    /// Searches from that tick on for the next list that may have a deadline up to now. Returns its
    /// first attempt, and the tick to continue with.
    pub fn next_due(&self, from: u64, now: Millis) -> Option<(Slot, u64)> {
        let end = now / TICK_MS + 1;
        // One round covers all lists.
        let from = from.max(self.looked).max(end.saturating_sub(WHEEL as u64));
        let tick = from + self.next_busy(from).filter(|ahead| from + *ahead < end)?;
        Some((
            first(&self.lists[self.by_age + tick as usize % WHEEL])?,
            tick + 1,
        ))
    }

    /// Returns the next attempt of the same list. Call it before removing this one.
    pub fn after_due(&self, slot: Slot) -> Option<Slot> {
        self.entry(slot).links[Chain::Due as usize][1]
    }

    /// Returns the number of ticks from that one to the next whose list is not empty.
    fn next_busy(&self, tick: u64) -> Option<u64> {
        let start = tick as usize % WHEEL;
        let words = self.busy.len();
        // The first word appears again at the end, for its lower bits.
        (0..=words).find_map(|word| {
            let at = start / 64 + word;
            let bits = self.busy[at % words]
                & if word == 0 {
                    u64::MAX << (start % 64)
                } else {
                    u64::MAX
                };
            (bits != 0).then(|| (64 * at + bits.trailing_zeros() as usize - start) as u64)
        })
    }

    /// Marks all ticks up to now as handled. `deadline` computes that of an attempt.
    pub fn mark_handled(&mut self, now: Millis, deadline: impl Fn(&Table, Slot) -> Millis) {
        self.looked = now / TICK_MS;
        self.soonest = if self.len() <= FEW_ATTEMPTS {
            let all = std::iter::successors(self.first(), |slot| self.after(*slot));
            all.map(|slot| deadline(self, slot))
                .min()
                .unwrap_or(Millis::MAX)
        } else {
            let ahead = self.next_busy(self.looked).unwrap_or(0);
            (self.looked + ahead).saturating_mul(TICK_MS)
        };
    }
}
