//! Decides which knocks open which door: (knock, now) in, [`Event`]s out.
//!
//! `tolerant` is the default rule, `strict` is that of knockd 0.8. `table` stores the attempts,
//! `copies` the packets that counted, `hits` the tripwire hits for bans. All are bounded, and
//! [`Matcher::new`] allocates the tables. Until the table is full, nothing that one source does
//! affects another.
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

/// An event of an attempt. `door` is an index into [`Matcher::patterns`]. An attempt ends without
/// an event if it is evicted from a full table, or if its door gets another sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A source has hit enough tripwires for a ban, or another one after that.
    Scanned {
        /// The source of these packets, unless it is forged.
        source: IpAddr,
    },
    /// A knock took the source to that stage. One knock reports at most one stage of a door, the
    /// highest that it reached.
    Stage {
        /// The door.
        door: u16,
        /// The client.
        source: IpAddr,
        /// The number of completed steps, from 1.
        stage: u8,
    },
    /// The sequence is complete. Follows the last stage at once.
    Opened {
        /// The door.
        door: u16,
        /// The client.
        source: IpAddr,
    },
    /// seq_timeout has passed since the first knock of the attempt whose stage was reported last.
    TimedOut {
        /// The door.
        door: u16,
        /// The client.
        source: IpAddr,
        /// The stage that was reported last.
        stage: u8,
    },
    /// Wrong knocks have ended the attempt whose stage was reported last.
    Failed {
        /// The door.
        door: u16,
        /// The client.
        source: IpAddr,
        /// The stage that was reported last.
        stage: u8,
    },
}

/// Settings for all doors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The rule.
    pub matching: Matching,
    /// The maximum number of attempts, within [`MAX_ATTEMPTS`](crate::limits::MAX_ATTEMPTS).
    pub max_attempts: usize,
    /// Ports that end an attempt. Strict matching ignores them.
    pub tripwires: Tripwires,
    /// When a source is banned.
    pub ban: Option<BanRule>,
}

/// The doors and all attempts.
pub struct Matcher {
    patterns: Vec<Pattern>,
    matching: Matching,
    tripwires: Tripwires,
    hits: Option<Hits>,
    table: Table,
    copies: Copies,
    /// The time of the last packet.
    moment: Moment,
}

impl Matcher {
    /// Creates a matcher for these doors, at most [`MAX_DOORS`](crate::limits::MAX_DOORS). The
    /// random `seed` prevents an attacker from choosing addresses that share a hash chain.
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

    /// Handles one packet. `local`: the destination is an address of the interface that the packet
    /// came in by. Reports the events of [`Matcher::expire`] first, then those of the doors in
    /// their order.
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
        // Not UDP, because replies to clients on the LAN arrive at any port. Not packets that are
        // only forwarded.
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

    /// Reports and removes attempts that have timed out. Call it at [`Matcher::next_expiry`];
    /// before that it does nothing.
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
        self.table.mark_handled(now, |table, slot| {
            let pattern = &patterns[usize::from(table.door(slot))];
            deadline(
                table.reported_stage(slot),
                &table.alignments(slot, now),
                pattern.seq_timeout,
            )
        });
    }

    /// Returns when [`Matcher::expire`] must be called next. `None` if there is no attempt. The
    /// call may find nothing to report.
    pub fn next_expiry(&self) -> Option<Millis> {
        self.table.next_look()
    }

    /// Gives a door its next sequence, or none, and ends its attempts without events. Visits all
    /// attempts, so do not call it for each packet.
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

    /// The number of attempts under way.
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

/// Drops the alignments of an attempt that are too old, and reports a timeout if the stage reported
/// last was one of them. Removes the attempt if none is left. Returns whether one is left.
fn expire_attempt(
    pattern: &Pattern,
    table: &mut Table,
    slot: Slot,
    now: Millis,
    tell: &mut dyn FnMut(Event),
) -> bool {
    let mut alignments = table.alignments(slot, now);
    let before = alignments.len();
    alignments
        .retain(|alignment| now.saturating_sub(alignment.start.millis()) < pattern.seq_timeout);
    if alignments.len() == before && before > 0 {
        return true;
    }
    let reported = table.reported_stage(slot);
    if reported > 0
        && !alignments
            .iter()
            .any(|alignment| alignment.stage == reported)
    {
        table.set_told(slot, 0);
        tell(Event::TimedOut {
            door: table.door(slot),
            source: table.source(slot),
            stage: reported,
        });
    }
    if alignments.is_empty() {
        table.remove(slot);
        return false;
    }
    table.store(slot, &alignments, pattern.seq_timeout);
    true
}
