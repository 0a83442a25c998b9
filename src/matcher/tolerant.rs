//! The default rule: reads knocks as complete sequences.
//!
//! 1. A knock that has opened a door is used up. It opens no other door, except one whose sequence
//!    begins with the opened one and continues.
//! 2. Forgiven are copies of a packet (`copies`), repeats of the last step, false starts, and
//!    [`MAX_STRAYS`] wrong knocks on the door's own ports. Knocks on other doors' ports do not
//!    matter.
//! 3. If one knock could complete or continue several attempts, the one that needed no forgiveness
//!    gets it, then the one that began first.
//!
//! An attempt is a set of *alignments*: ways to read the source's knocks as the beginning of the
//! sequence, at most one for each stage. A knock takes two passes over the doors. The first pass
//! ([`look`]) finds the alignments that this knock would complete, withholds it from those whose
//! knocks fit an alignment of another door better ([`Going::withholds`]), and selects the best of
//! the rest. The second pass moves the alignments. If no door opens ([`Alignment::follow`]):
//!
//! - an alignment that expects the knock advances one stage; a complete one was withheld, and ends;
//! - otherwise, if the knock repeats its last step, it stays;
//! - otherwise the alignment is *broken*, and if the knock is on the door's own ports it is a
//!   stray;
//! - if the knock is the first step, a new alignment starts at stage 1.
//!
//! If doors open ([`Candidates::leaves`]), an alignment whose beginning is those knocks continues.
//! Other alignments that share a completed step with them end, unless their door does not count the
//! destination. The rest stays as if the knock had not come.
//!
//! If two alignments meet at one stage, the one that started later stays, then the one with fewer
//! strays. No alignment lives longer than seq_timeout. An alignment never overtakes an older one of
//! the same door, so the higher stage is always the older.
//!
//! Sequences that are knocked one after the other, with any copies and pauses within seq_timeout,
//! open exactly their doors, each at its last knock, unless the knocks can be read in two ways (one
//! sequence and the beginning of the next are together the sequence of another door);
//! `tests/matcher/whole.rs` shows it. Whenever the rule of knockd 0.8 opens a door, this rule opens
//! it at that moment, or has opened it since that rule last did. There are two exceptions: another
//! door has opened with one of these knocks, or the last one continues an older attempt at another
//! door that fits every knock (`tests/matcher/promises.rs`).
//!
//! The reported stage is the highest that a knock reached by advancing or starting an alignment. A
//! knock that repeats the step reported last reports nothing, unless it reaches a higher stage
//! (7000 7000 reports stage 1 once, 7000 8000 7000 reports 1, 2, 1). When the alignment at the
//! stage reported last ends, that is a failure. What was never reported ends silently.
#![forbid(unsafe_code)]

use super::alignment::{Alignment, Alignments, Mark, Moment, put};
use super::copies::Copies;
use super::table::{Attempts, Slot, Table};
use super::{Event, expire_attempt};
use crate::knock::{Knock, Pattern, Step};
use crate::limits::{MAX_DOORS, MAX_STRAYS};

/// A received packet.
pub(super) struct KnockAt<'a> {
    /// The decoded knock.
    pub knock: &'a Knock,
    /// The destination is an address of the interface that the packet came in by.
    pub local: bool,
    /// The time of arrival.
    pub now: Moment,
}

/// Handles one packet.
pub(super) fn knock(
    patterns: &[Pattern],
    table: &mut Table,
    copies: &mut Copies,
    packet: &KnockAt<'_>,
    tell: &mut dyn FnMut(Event),
) {
    let KnockAt { knock, local, now } = *packet;
    if !patterns.iter().any(|pattern| pattern.wants(knock, local)) {
        return;
    }
    let source = knock.source;
    let mut attempts = table.attempts(source);
    for (door, pattern) in (0u16..).zip(patterns) {
        if let Some(slot) = attempts.at(table, door)
            && !expire_attempt(pattern, table, slot, now.millis(), tell)
        {
            attempts.ended(door);
        }
    }
    let finder = copies.finder(knock);
    if copies.is_copy(finder, now.millis()) {
        return;
    }
    let opening = look(patterns, table, &attempts, packet);
    let opens = !opening.doors.is_empty();
    let mut is_used = opens;
    for (door, pattern) in (0u16..).zip(patterns) {
        let Some(view) = View::new(pattern, packet) else {
            continue;
        };
        let found = attempts.at(table, door);
        if opening.doors.contains(&door) {
            if let Some(slot) = found {
                table.remove(slot);
            }
            tell(Event::Stage {
                door,
                source,
                stage: view.steps.len() as u8,
            });
            tell(Event::Opened { door, source });
            continue;
        }
        let starts = view.is_first() && (!opens || opening.start == now);
        let slot = match found {
            Some(slot) if opens || view.counts => Some(slot),
            None if starts => table.insert(attempts.place, source, door),
            _ => None,
        };
        let Some(slot) = slot else { continue };

        let mut alignments = Alignments::new();
        let mut reached = None;
        // Highest first, so that an alignment that advances meets only those that stay.
        for before in &table.alignments(slot, now.millis()) {
            is_used |= view.is_due(before);
            let after = match opens {
                true => opening.leaves(patterns, &view, *before),
                false => view.follow(*before),
            };
            if let Some(after) = after {
                reached = reached.or((after.stage > before.stage).then_some(after.stage));
                put(&mut alignments, after);
            }
        }
        if starts {
            is_used = true;
            reached = reached.or(Some(1));
            if alignments.last().is_some_and(|lowest| lowest.stage == 1) {
                alignments.pop();
            }
            let mut first = Alignment::begin(now);
            if opens {
                first.mark(Mark::Used);
            }
            put(&mut alignments, first);
        }
        report_progress(&view, table, slot, (reached, &alignments), tell);
        if alignments.is_empty() {
            table.remove(slot);
        } else if view.wants {
            table.store_and_touch(slot, attempts.place, &alignments, pattern.seq_timeout);
        } else {
            table.store(slot, &alignments, pattern.seq_timeout);
        }
    }
    if is_used {
        copies.record(finder, now.millis());
    }
}

/// What a knock means for one door.
struct View<'a> {
    steps: &'a [Step],
    step: Step,
    /// The door counts the destination ...
    here: bool,
    /// ... and the flags ...
    counts: bool,
    /// ... and the port is one of its steps.
    wants: bool,
}

impl<'a> View<'a> {
    /// Returns `None` if the door has no sequence.
    fn new(pattern: &'a Pattern, packet: &KnockAt<'_>) -> Option<View<'a>> {
        let KnockAt { knock, local, .. } = *packet;
        let steps = pattern.sequence.as_ref()?.steps();
        let here = pattern.accepts_destination(knock.destination, local);
        let counts = here && pattern.fits_flags(knock);
        Some(View {
            steps,
            step: knock.step,
            here,
            counts,
            wants: counts && steps.contains(&knock.step),
        })
    }

    /// Returns whether the alignment expects this step.
    fn is_due(&self, alignment: &Alignment) -> bool {
        self.wants && self.steps.get(usize::from(alignment.stage)) == Some(&self.step)
    }

    /// Returns whether one more knock completes the alignment.
    fn is_last_for(&self, alignment: &Alignment) -> bool {
        usize::from(alignment.stage) + 1 == self.steps.len()
    }

    /// Returns whether it is the first of several steps.
    fn is_first(&self) -> bool {
        self.wants && self.steps.len() > 1 && self.steps[0] == self.step
    }

    /// Returns the alignment after a knock that opens no door. `None` if it has ended.
    fn follow(&self, mut alignment: Alignment) -> Option<Alignment> {
        if self.is_due(&alignment) {
            alignment.stage += 1;
            return (usize::from(alignment.stage) < self.steps.len()).then_some(alignment);
        }
        let last = self.steps.get(usize::from(alignment.stage) - 1);
        let used = alignment.is(Mark::Used);
        if self.wants && last == Some(&self.step) && !used {
            alignment.mark(Mark::Repeats);
            return Some(alignment);
        }
        alignment.mark(Mark::Broken);
        alignment.strays += u8::from(self.wants || used);
        (alignment.strays <= MAX_STRAYS).then_some(alignment)
    }
}

/// The alignments that continue with this knock, do not complete with it, and fit every knock since
/// they began.
#[derive(Default)]
struct Going {
    /// The start of the oldest, and whether it has repeats.
    oldest: Option<(Moment, bool)>,
    /// One of their doors.
    door: Option<u16>,
    /// They belong to several doors.
    several: bool,
}

impl Going {
    fn add(&mut self, door: u16, alignment: &Alignment) {
        let this = (alignment.start, alignment.is(Mark::Repeats));
        self.oldest = Some(self.oldest.map_or(this, |oldest| oldest.min(this)));
        let other = self.door.replace(door);
        self.several |= other.is_some_and(|other| other != door);
    }

    /// Returns whether one of them, at another door, withholds the knock from an alignment that it
    /// would complete: one that began earlier and contains it; one that began with the same knock
    /// and fits better; or any, if the beginning of this one was used and it did not simply
    /// continue. Alignments of the same door began later.
    fn withholds(&self, door: u16, complete: &Alignment) -> bool {
        let broken = complete.is(Mark::Broken);
        let worse = (complete.start, broken || complete.is(Mark::Repeats));
        let fits_better = (self.oldest)
            .is_some_and(|oldest| oldest < worse || broken && oldest.0 == complete.start);
        let elsewhere = self.several || self.door.is_some_and(|other| other != door);
        fits_better || elsewhere && broken && complete.is(Mark::Used)
    }
}

/// The doors that a knock opens: all those whose alignments are equally good.
struct Candidates {
    /// In the order of the config.
    doors: heapless::Vec<u16, MAX_DOORS>,
    /// The first knock of their sequences.
    start: Moment,
}

impl Candidates {
    /// Returns the alignment at a door that does not open. `None` if it has ended.
    fn leaves(
        &self,
        patterns: &[Pattern],
        view: &View<'_>,
        mut alignment: Alignment,
    ) -> Option<Alignment> {
        let opened = || {
            let doors = self.doors.iter().map(|door| &patterns[usize::from(*door)]);
            doors.filter_map(|pattern| Some(pattern.sequence.as_ref()?.steps()))
        };
        let (done, _) = view.steps.split_at(usize::from(alignment.stage));
        let goes_on = view.is_due(&alignment)
            && !view.is_last_for(&alignment)
            && alignment.start == self.start
            && opened().any(|steps| steps.split_last() == Some((&view.step, done)));
        if goes_on {
            alignment.stage += 1;
            alignment.mark(Mark::Used);
            return Some(alignment);
        }
        let is_used_up = || {
            let mut long = opened().filter(|steps| steps.len() > 1);
            view.here && long.any(|steps| done.iter().any(|step| steps.contains(step)))
        };
        if alignment.is(Mark::Used) || is_used_up() {
            return None;
        }
        if view.counts {
            alignment.mark(Mark::Broken);
        }
        Some(alignment)
    }
}

/// Finds the doors that this knock opens.
fn look(
    patterns: &[Pattern],
    table: &Table,
    attempts: &Attempts,
    packet: &KnockAt<'_>,
) -> Candidates {
    let now = packet.now;
    let at_wanting_doors = |visit: &mut dyn FnMut(u16, &View<'_>, &Alignments)| {
        for (door, pattern) in (0u16..).zip(patterns) {
            if let Some(view) = View::new(pattern, packet).filter(|view| view.wants) {
                let slot = attempts.at(table, door);
                let alignments = slot.map(|slot| table.alignments(slot, now.millis()));
                visit(door, &view, &alignments.unwrap_or_default());
            }
        }
    };
    let mut going = Going::default();
    at_wanting_doors(&mut |door, view, alignments| {
        for alignment in alignments {
            let ends = view.is_last_for(alignment);
            if view.is_due(alignment) && !ends && !alignment.is(Mark::Broken) {
                going.add(door, alignment);
            }
        }
    });
    let mut opening = Candidates {
        doors: heapless::Vec::new(),
        start: now,
    };
    let mut best = None;
    at_wanting_doors(&mut |door, view, alignments| {
        let complete = match (view.steps, alignments.first()) {
            ([_], _) => Alignment::begin(now),
            (_, Some(highest)) if view.is_due(highest) && view.is_last_for(highest) => *highest,
            _ => return,
        };
        if going.withholds(door, &complete) {
            return;
        }
        let broken = complete.is(Mark::Broken);
        let rank = (broken, complete.start, complete.is(Mark::Repeats));
        if best.is_none_or(|best| rank < best) {
            best = Some(rank);
            opening.start = complete.start;
            opening.doors.clear();
        }
        if best == Some(rank) {
            // Never full: there is room for every door.
            let _ = opening.doors.push(door);
        }
    });
    opening
}

/// Reports the stage reached, or the end of the stage reported last.
fn report_progress(
    view: &View<'_>,
    table: &mut Table,
    slot: Slot,
    (reached, alignments): (Option<u8>, &Alignments),
    tell: &mut dyn FnMut(Event),
) {
    let (door, source, reported) = (
        table.door(slot),
        table.source(slot),
        table.reported_stage(slot),
    );
    let repeats = reported > 0 && view.steps[usize::from(reported) - 1] == view.step;
    match reached {
        Some(stage) if stage > reported || !repeats => {
            table.set_told(slot, stage);
            tell(Event::Stage {
                door,
                source,
                stage,
            });
        }
        _ if reported > 0
            && alignments
                .iter()
                .all(|alignment| alignment.stage != reported) =>
        {
            table.set_told(slot, 0);
            tell(Event::Failed {
                door,
                source,
                stage: reported,
            });
        }
        _ => {}
    }
}
