//! Which knocks open which door: (knock, now) in, [`Event`]s out.
//!
//! `tolerant` is the default rule, `strict` is knockd 0.8's; `table` keeps the attempts, `copies` the packets that counted, `hits` what counts
//! towards a ban. All of it is bounded, the tables are allocated by [`Matcher::new`], and nothing that one source does changes what another
//! gets, until the table is full.
#![forbid(unsafe_code)]

mod alignment;
mod copies;
mod hash;
mod hits;
mod strict;
mod table;
mod tolerant;
mod tripped;

use crate::knock::tripwire::{BanRule, Tripwires};
use crate::knock::{Knock, Matching, Pattern, Protocol, Sequence};
use crate::util::time::Millis;
use alignment::Moment;
use copies::Copies;
use hits::Hits;
use std::net::IpAddr;
use table::{Slot, Table, deadline};

/// What happened to an attempt. `door` is an index into [`Matcher::patterns`]. An attempt that is evicted from a full
/// table, or whose door gets another sequence, ends without an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A source has hit as many tripwires as ban it, or one more.
    Scanned {
        /// Whose packets these are, if they are not forged.
        source: IpAddr,
    },
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

/// How knocks are matched, for all doors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The rule.
    pub matching: Matching,
    /// Attempts remembered at once, within [`MAX_ATTEMPTS`](crate::limits::MAX_ATTEMPTS).
    pub max_attempts: usize,
    /// What ends an attempt; without effect on strict matching.
    pub tripwires: Tripwires,
    /// When a source is to be banned.
    pub ban: Option<BanRule>,
}

/// The doors and all attempts at them.
pub struct Matcher {
    patterns: Vec<Pattern>,
    matching: Matching,
    tripwires: Tripwires,
    hits: Option<Hits>,
    table: Table,
    copies: Copies,
    /// Of the last packet.
    moment: Moment,
}

impl Matcher {
    /// A matcher for these doors, at most [`MAX_DOORS`](crate::limits::MAX_DOORS). `seed`: random, keeps a stranger from
    /// choosing addresses that fall into one hash chain.
    pub fn new(patterns: Vec<Pattern>, rules: Rules, seed: u64) -> Matcher {
        Matcher {
            patterns,
            matching: rules.matching,
            tripwires: rules.tripwires,
            hits: rules.ban.map(Hits::new),
            table: Table::new(rules.max_attempts, seed),
            copies: Copies::new(rules.max_attempts, seed),
            moment: Moment::default(),
        }
    }

    /// One packet. `local`: its destination is an address of the interface that it came in by. Events of several
    /// doors come in the order of the doors, after those of [`Matcher::expire`].
    pub fn knock(&mut self, knock: &Knock, local: bool, now: Millis, tell: &mut dyn FnMut(Event)) {
        self.expire(now, tell);
        let trips =
            self.matching == Matching::Tolerant && self.tripwires.is_hit_by(knock, &self.patterns);
        let (patterns, table) = (&self.patterns, &mut self.table);
        match self.matching {
            Matching::Tolerant if trips => tripped::hit(patterns, table, knock, local, now, tell),
            Matching::Tolerant => {
                self.moment = self.moment.next(now);
                let now = self.moment;
                let packet = tolerant::KnockAt { knock, local, now };
                tolerant::knock(patterns, table, &mut self.copies, &packet, tell);
            }
            Matching::Strict => strict::knock(patterns, table, knock, local, now, tell),
        }
        // Not UDP: answers to what the LAN has asked come to any port. Nor what only passes through.
        if trips
            && local
            && knock.step.protocol == Protocol::Tcp
            && let Some(hits) = &mut self.hits
        {
            let source = knock.source;
            let hash = self.table.place(source).bucket;
            if hits.add(hash, source, knock.step.port, now) {
                tell(Event::Scanned { source });
            }
        }
    }

    /// Tells and forgets what has timed out. To be called at [`Matcher::next_expiry`]; before, it does nothing.
    pub fn expire(&mut self, now: Millis, tell: &mut dyn FnMut(Event)) {
        if self.next_expiry().is_none_or(|due| now < due) {
            return;
        }
        let mut tick = 0;
        while let Some((first, after)) = self.table.next_due(tick, now) {
            tick = after;
            let mut next = Some(first);
            while let Some(slot) = next {
                next = self.table.after_due(slot);
                let pattern = &self.patterns[usize::from(self.table.door(slot))];
                expire_attempt(pattern, &mut self.table, slot, now, tell);
            }
        }
        let patterns = &self.patterns;
        self.table.have_looked(now, |table, slot| {
            let pattern = &patterns[usize::from(table.door(slot))];
            deadline(
                table.told(slot),
                &table.readings(slot, now),
                pattern.seq_timeout,
            )
        });
    }

    /// When [`Matcher::expire`] must be called next; `None`: nothing is open. It may find nothing to tell then.
    pub fn next_expiry(&self) -> Option<Millis> {
        self.table.next_look()
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
            if self.table.door(slot) == door {
                self.table.remove(slot);
            }
        }
    }

    /// How many attempts are under way.
    pub fn attempts(&self) -> usize {
        self.table.len()
    }

    /// The tripwires.
    pub fn tripwires(&self) -> &Tripwires {
        &self.tripwires
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
    let mut readings = table.readings(slot, now);
    let before = readings.len();
    readings.retain(|alignment| now.saturating_sub(alignment.start.millis()) < pattern.seq_timeout);
    if readings.len() == before && before > 0 {
        return true;
    }
    let told = table.told(slot);
    if told > 0 && !readings.iter().any(|alignment| alignment.stage == told) {
        table.set_told(slot, 0);
        tell(Event::TimedOut {
            door: table.door(slot),
            source: table.source(slot),
            stage: told,
        });
    }
    if readings.is_empty() {
        table.remove(slot);
        return false;
    }
    table.keep(slot, &readings, pattern.seq_timeout);
    true
}
