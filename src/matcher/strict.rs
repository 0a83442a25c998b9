//! The rule of knockd 0.8, but exact in time and without losing younger attempts.
//!
//! The rule sees knocks that at least one door wants. If the source has attempts at doors that
//! count the destination, each of them advances, ignores the knock because of its flags, or fails.
//! Then the knock starts no attempt, not even if all fail. Only without such attempts does the
//! knock start one at each door whose first step it is. An attempt has one alignment and no strays.
#![forbid(unsafe_code)]

use super::alignment::{Alignment, Alignments, Moment};
use super::table::Table;
use super::{Event, expire_attempt};
use crate::knock::{Knock, Pattern};
use crate::util::time::Millis;

/// Handles one packet.
pub(super) fn knock(
    patterns: &[Pattern],
    table: &mut Table,
    knock: &Knock,
    local: bool,
    now: Millis,
    tell: &mut dyn FnMut(Event),
) {
    if !patterns.iter().any(|pattern| pattern.wants(knock, local)) {
        return;
    }
    let source = knock.source;
    let place = table.place(source);
    let doors = || {
        (0u16..)
            .zip(patterns)
            .filter(|(_, pattern)| pattern.accepts_destination(knock.destination, local))
    };

    let mut busy = false;
    for (door, pattern) in doors() {
        if let Some(slot) = table.find(place, source, door) {
            busy |= expire_attempt(pattern, table, slot, now, tell);
        }
    }
    for (door, pattern) in doors().filter(|(_, pattern)| pattern.fits_flags(knock)) {
        let Some(sequence) = &pattern.sequence else {
            continue;
        };
        let found = table.find(place, source, door);
        if busy && found.is_none() {
            continue;
        }
        let done = found.map_or(0, |slot| table.reported_stage(slot));
        let (due, stage) = (sequence.steps().get(usize::from(done)), done + 1);
        if due != Some(&knock.step) {
            if let Some(slot) = found {
                table.remove(slot);
                tell(Event::Failed {
                    door,
                    source,
                    stage: done,
                });
            }
            continue;
        }
        tell(Event::Stage {
            door,
            source,
            stage,
        });
        if usize::from(stage) == sequence.steps().len() {
            if let Some(slot) = found {
                table.remove(slot);
            }
            tell(Event::Opened { door, source });
            continue;
        }
        let Some(slot) = found.or_else(|| table.insert(place, source, door)) else {
            continue;
        };
        let before = table.alignments(slot, now).first().copied();
        let alignment = Alignment {
            stage,
            ..before.unwrap_or(Alignment::begin(Moment::first_of(now)))
        };
        table.set_told(slot, stage);
        table.store_and_touch(
            slot,
            place,
            &Alignments::from_iter([alignment]),
            pattern.seq_timeout,
        );
    }
}
