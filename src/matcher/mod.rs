//! Which knocks open which door: (knock, now) in, [`Event`]s out.
//!
//! `tolerant` is the rule by default, `strict` is knockd 0.8's; `table` keeps the attempts. All of it is bounded and
//! allocated by [`Matcher::new`], and nothing that one source does changes what another gets, until the table is full.
#![forbid(unsafe_code)]

mod strict;
mod table;
mod tolerant;

use crate::door::{Knock, Matching, Millis, Pattern, Sequence};
use crate::limits::{FEW_ATTEMPTS, MAX_ATTEMPTS, SWEEP_PAUSE_MS};
use std::net::IpAddr;
use table::{Slot, Table};

/// What happened to an attempt. `door` is an index into [`Matcher::patterns`]. An attempt that is evicted from a full
/// table, or whose door gets another sequence, ends without an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A knock took the source to that stage. One knock tells at most one stage of a door, the highest that it reached.
    Stage {
        /// The door.
        door: u16,
        /// Who knocked.
        source: IpAddr,
        /// How many steps are done, from 1.
        stage: u8,
    },
    /// The sequence is complete. Comes right after the last stage.
    Opened {
        /// The door.
        door: u16,
        /// Who knocked.
        source: IpAddr,
    },
    /// seq_timeout has passed since the first knock of what was told last.
    TimedOut {
        /// The door.
        door: u16,
        /// Who knocked.
        source: IpAddr,
        /// The stage that was told last.
        stage: u8,
    },
    /// Wrong knocks have ended what was told last.
    Failed {
        /// The door.
        door: u16,
        /// Who knocked.
        source: IpAddr,
        /// The stage that was told last.
        stage: u8,
    },
}

/// The doors and all attempts at them.
pub struct Matcher {
    patterns: Vec<Pattern>,
    matching: Matching,
    table: Table,
    /// When `expire` looked at all attempts last.
    swept: Millis,
}

impl Matcher {
    /// A matcher for these doors, at most [`MAX_DOORS`](crate::limits::MAX_DOORS). `seed`: random, keeps a stranger from
    /// choosing addresses that fall into one hash chain.
    pub fn new(patterns: Vec<Pattern>, matching: Matching, seed: u64) -> Matcher {
        Matcher {
            patterns,
            matching,
            table: Table::new(MAX_ATTEMPTS, seed),
            swept: 0,
        }
    }

    /// One packet. `local`: its destination is an address of the interface that it came in by. Events of several
    /// doors come in the order of the doors, after those of [`Matcher::expire`].
    pub fn knock(&mut self, knock: &Knock, local: bool, now: Millis, tell: &mut dyn FnMut(Event)) {
        self.expire(now, tell);
        let rule = match self.matching {
            Matching::Tolerant => tolerant::knock,
            Matching::Strict => strict::knock,
        };
        rule(&self.patterns, &mut self.table, knock, local, now, tell);
    }

    /// Tells and forgets what has timed out. To be called at [`Matcher::next_expiry`]; before, it does nothing.
    pub fn expire(&mut self, now: Millis, tell: &mut dyn FnMut(Event)) {
        if self.next_expiry().is_none_or(|due| now < due) {
            return;
        }
        self.swept = now;
        self.table.soonest = Millis::MAX;
        let mut next = self.table.first();
        while let Some(slot) = next {
            next = self.table.after(slot);
            let attempt = &self.table[slot];
            if attempt.deadline > now {
                self.table.soonest = self.table.soonest.min(attempt.deadline);
            } else {
                let pattern = &self.patterns[usize::from(attempt.door)];
                expire_attempt(pattern, &mut self.table, slot, now, tell);
            }
        }
    }

    /// When [`Matcher::expire`] must be called next; `None`: nothing is open. It may find nothing to tell then.
    pub fn next_expiry(&self) -> Option<Millis> {
        match self.table.len() {
            0 => None,
            1..=FEW_ATTEMPTS => Some(self.table.soonest),
            _ => Some(
                self.table
                    .soonest
                    .max(self.swept.saturating_add(SWEEP_PAUSE_MS)),
            ),
        }
    }

    /// Gives a door its next sequence, or none, and ends its attempts without events. Not for each packet: visits
    /// all attempts.
    pub fn set_sequence(&mut self, door: u16, sequence: Option<Sequence>) {
        let Some(pattern) = self.patterns.get_mut(usize::from(door)) else {
            return;
        };
        pattern.sequence = sequence;
        let mut next = self.table.first();
        while let Some(slot) = next {
            next = self.table.after(slot);
            if self.table[slot].door == door {
                self.table.remove(slot);
            }
        }
    }

    /// How many attempts are under way.
    pub fn attempts(&self) -> usize {
        self.table.len()
    }

    /// The doors.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }
}

/// Drops the alignments of an attempt that are too old, tells if the stage told last was one, and forgets the attempt
/// if nothing is left. Whether something is left.
fn expire_attempt(
    pattern: &Pattern,
    table: &mut Table,
    slot: Slot,
    now: Millis,
    tell: &mut dyn FnMut(Event),
) -> bool {
    for stage in table[slot].stages() {
        let start = table
            .alignment(slot, stage)
            .map_or(0, |alignment| alignment.start);
        if now.saturating_sub(start) >= pattern.seq_timeout {
            table.drop(slot, stage);
        }
    }
    let attempt = &mut table[slot];
    if attempt.told > 0 && !attempt.is_live(attempt.told) {
        let (door, source, stage) = (attempt.door, attempt.source, attempt.told);
        attempt.told = 0;
        tell(Event::TimedOut {
            door,
            source,
            stage,
        });
    }
    if attempt.is_over() {
        table.remove(slot);
        return false;
    }
    table.set_deadline(slot, pattern.seq_timeout);
    true
}
