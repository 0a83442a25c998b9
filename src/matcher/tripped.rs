//! What a tripwire does. One hit can be an accident: an alignment survives it. The second hit, on
//! another port, ends it.
#![forbid(unsafe_code)]

use super::alignment::Mark;
use super::table::Table;
use super::{Event, expire_attempt};
use crate::knock::{Knock, Pattern};
use crate::util::time::Millis;

/// Handles one packet that hits a tripwire.
pub(super) fn hit(
    patterns: &[Pattern],
    table: &mut Table,
    knock: &Knock,
    local: bool,
    now: Millis,
    tell: &mut dyn FnMut(Event),
) {
    let source = knock.source;
    let place = table.place(source);
    if table.is_empty(place) {
        return;
    }
    for (door, pattern) in (0u16..).zip(patterns) {
        if !pattern.accepts_destination(knock.destination, local) {
            continue;
        }
        let Some(slot) = table.find(place, source, door) else {
            continue;
        };
        // A client that retries one port is not a scanner.
        if !expire_attempt(pattern, table, slot, now, tell)
            || table.replace_tripwire(slot, knock.step.port) == knock.step.port
        {
            continue;
        }
        let mut alignments = table.alignments(slot, now);
        alignments.retain_mut(|alignment| {
            let second = alignment.is(Mark::Tripped);
            alignment.mark(Mark::Tripped);
            !second
        });
        let reported = table.reported_stage(slot);
        if reported > 0
            && alignments
                .iter()
                .all(|alignment| alignment.stage != reported)
        {
            table.set_told(slot, 0);
            tell(Event::Failed {
                door,
                source,
                stage: reported,
            });
        }
        if alignments.is_empty() {
            table.remove(slot);
        } else {
            table.store(slot, &alignments, pattern.seq_timeout);
        }
    }
}
