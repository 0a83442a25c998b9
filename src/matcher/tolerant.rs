//! The rule by default: retransmissions, repeats, false starts and a few stray knocks are forgiven.
//!
//! Only knocks that a door wants count for it. An attempt is a set of *alignments*: ways to read the source's knocks as
//! the beginning of the sequence, at most one for each stage, each with the time of its first knock and its strays.
//! On a knock that counts, and is no copy of the TCP packet that advanced the attempt last,
//!
//! - an alignment for which it is the step due goes one stage up; reaching the end opens, and forgets all;
//! - else, one for which it repeats the step last done stays;
//! - else it is a stray for that alignment, which ends with more than [`MAX_STRAYS`] of them;
//! - if it is the first step, a new alignment starts at stage 1.
//!
//! Where two meet on one stage, the one that started later stays, then the one with fewer strays. None lives longer
//! than seq_timeout. An alignment never overtakes one that started before, so the higher stage is always the
//! older. Whoever knocks the sequence straight through has an alignment that started last of those at its stage
//! and has no strays: that one always gets through, so whatever opens by the strict rule opens here, then or before.
//!
//! What is told: the highest stage that a knock reached by advancing or starting an alignment; but a knock that
//! repeats the step told last tells nothing, unless it goes higher (7000 7000 tells stage 1 once, 7000 8000 7000 tells
//! 1, 2, 1). When the alignment at the stage told last ends, that is told; what was never told ends silently.
#![forbid(unsafe_code)]

use super::alignment::{Alignment, Readings, put};
use super::table::{Slot, Table};
use super::{Event, expire_attempt};
use crate::door::{Knock, Millis, Pattern, Protocol, Sequence};
use crate::limits::{MAX_STRAYS, RETRANSMISSION_MS};

/// One packet, for each door that wants it, in order.
pub(super) fn knock(
    patterns: &[Pattern],
    table: &mut Table,
    knock: &Knock,
    local: bool,
    now: Millis,
    tell: &mut dyn FnMut(Event),
) {
    let source = knock.source;
    let mut place = None;
    for (door, pattern) in (0u16..).zip(patterns) {
        let Some(sequence) = pattern
            .sequence
            .as_ref()
            .filter(|_| pattern.wants(knock, local))
        else {
            continue;
        };
        if sequence.steps().len() == 1 {
            tell(Event::Stage {
                door,
                source,
                stage: 1,
            });
            tell(Event::Opened { door, source });
            continue;
        }
        let place = *place.get_or_insert_with(|| table.place(source));
        let slot = match table.find(place, source, door) {
            Some(slot) if expire_attempt(pattern, table, slot, now, tell) => Some(slot),
            _ if sequence.steps()[0] == knock.step => table.insert(place, source, door),
            _ => None,
        };
        let Some(slot) = slot else { continue };
        if is_copy(table, slot, knock, now) {
            continue;
        }
        let (readings, reached) = advance(sequence, &table.readings(slot, now), knock, now);
        if reached.is_some()
            && let Some(segment) = segment_of(knock)
        {
            table.set_segment(slot, segment, now);
        }
        match reached {
            Some(stage) if usize::from(stage) == sequence.steps().len() => {
                table.remove(slot);
                tell(Event::Stage {
                    door,
                    source,
                    stage,
                });
                tell(Event::Opened { door, source });
            }
            reached => {
                tell_progress(sequence, table, slot, knock, (reached, &readings), tell);
                if readings.is_empty() {
                    table.remove(slot);
                } else {
                    table.settle(slot, place, &readings, pattern.seq_timeout);
                }
            }
        }
    }
}

/// Whether this is a copy of the TCP packet that advanced the attempt last. The time runs from the last copy, since the
/// kernel's second retransmission comes a little more than 3 s after the packet, but 2 s after the first.
fn is_copy(table: &mut Table, slot: Slot, knock: &Knock, now: Millis) -> bool {
    let Some(segment) = segment_of(knock) else {
        return false;
    };
    let is_copy =
        (table.segment_age(slot, segment, now)).is_some_and(|age| age <= RETRANSMISSION_MS);
    if is_copy {
        table.set_segment(slot, segment, now);
    }
    is_copy
}

/// A digest of what a TCP packet and its copies have in common, never 0. Of others one in 2^31 has the same: a knock that is taken for
/// a copy.
fn segment_of(knock: &Knock) -> Option<u32> {
    let ports = u64::from(knock.source_port) << 16 | u64::from(knock.step.port);
    let mixed = (u64::from(knock.tcp_sequence) << 32 | ports).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (knock.step.protocol == Protocol::Tcp).then_some((mixed ^ mixed >> 32) as u32 | 1)
}

/// Moves the alignments. Beside them, the highest stage that one of them reached; the last stage as soon as one is there.
fn advance(
    sequence: &Sequence,
    before: &Readings,
    knock: &Knock,
    now: Millis,
) -> (Readings, Option<u8>) {
    let steps = sequence.steps();
    let mut readings = Readings::new();
    let mut reached = None;
    // Highest first: whoever goes up finds only who stays there.
    for alignment in before {
        let mut alignment = *alignment;
        let done = usize::from(alignment.stage);
        if steps.get(done) == Some(&knock.step) {
            alignment.stage += 1;
            reached = reached.or(Some(alignment.stage));
            if done + 1 == steps.len() {
                break;
            }
        } else if steps[done - 1] != knock.step {
            alignment.strays += 1;
            if alignment.strays > MAX_STRAYS {
                continue;
            }
        }
        put(&mut readings, alignment);
    }
    if steps[0] == knock.step {
        if readings.last().is_some_and(|lowest| lowest.stage == 1) {
            readings.pop();
        }
        put(&mut readings, Alignment::begin(now));
        reached = reached.or(Some(1));
    }
    (readings, reached)
}

/// Tells the stage reached, or that the stage told last has ended.
fn tell_progress(
    sequence: &Sequence,
    table: &mut Table,
    slot: Slot,
    knock: &Knock,
    (reached, readings): (Option<u8>, &Readings),
    tell: &mut dyn FnMut(Event),
) {
    let (door, source, told) = (table.door(slot), table.source(slot), table.told(slot));
    let repeats = told > 0 && sequence.steps()[usize::from(told) - 1] == knock.step;
    match reached {
        Some(stage) if stage > told || !repeats => {
            table.set_told(slot, stage);
            tell(Event::Stage {
                door,
                source,
                stage,
            });
        }
        _ if told > 0 && readings.iter().all(|alignment| alignment.stage != told) => {
            table.set_told(slot, 0);
            tell(Event::Failed {
                door,
                source,
                stage: told,
            });
        }
        _ => {}
    }
}
