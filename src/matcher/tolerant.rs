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

use super::table::{Alignment, Segment, Slot, Table};
use super::{Event, expire_attempt};
use crate::door::{Knock, Millis, Pattern, Protocol, Sequence};
use crate::limits::{MAX_STRAYS, RETRANSMISSION_MS};
use std::cmp::Reverse;

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
    let mut bucket = None;
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
        let bucket = *bucket.get_or_insert_with(|| table.bucket(source));
        let slot = match table.find(bucket, source, door) {
            Some(slot) if expire_attempt(pattern, table, slot, now, tell) => slot,
            _ if sequence.steps()[0] == knock.step => table.insert(bucket, source, door),
            _ => continue,
        };
        if is_copy(table, slot, knock, now) {
            continue;
        }
        match advance(sequence, table, slot, knock, now) {
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
                tell_progress(sequence, table, slot, knock, reached, tell);
                if table[slot].is_over() {
                    table.remove(slot);
                } else {
                    table.settle(slot, pattern.seq_timeout);
                }
            }
        }
    }
}

/// Whether this is a copy of the TCP packet that advanced the attempt last. The time runs from the last copy, since the
/// kernel's second retransmission comes a little more than 3 s after the packet, but 2 s after the first.
fn is_copy(table: &mut Table, slot: Slot, knock: &Knock, now: Millis) -> bool {
    match &mut table[slot].segment {
        Some((segment, seen))
            if segment_of(knock) == Some(*segment)
                && now.saturating_sub(*seen) <= RETRANSMISSION_MS =>
        {
            *seen = now;
            true
        }
        _ => false,
    }
}

fn segment_of(knock: &Knock) -> Option<Segment> {
    (knock.step.protocol == Protocol::Tcp).then_some(Segment {
        source_port: knock.source_port,
        port: knock.step.port,
        sequence: knock.tcp_sequence,
    })
}

/// Moves the alignments. The highest stage that one of them reached; the last stage as soon as one is there.
fn advance(
    sequence: &Sequence,
    table: &mut Table,
    slot: Slot,
    knock: &Knock,
    now: Millis,
) -> Option<u8> {
    let steps = sequence.steps();
    let mut reached = None;
    // Highest first: whoever goes up finds only who stays there.
    for stage in table[slot].stages() {
        let Some(mut alignment) = table.alignment(slot, stage) else {
            continue;
        };
        let done = usize::from(stage);
        if steps[done] == knock.step {
            reached = reached.or(Some(stage + 1));
            if done + 1 == steps.len() {
                return reached;
            }
            table.drop(slot, stage);
            let rank = |a: Alignment| (a.start, Reverse(a.strays));
            if table
                .alignment(slot, stage + 1)
                .is_none_or(|other| rank(other) < rank(alignment))
            {
                table.put(slot, stage + 1, alignment);
            }
        } else if steps[done - 1] != knock.step {
            alignment.strays += 1;
            if alignment.strays > MAX_STRAYS {
                table.drop(slot, stage);
            } else {
                table.put(slot, stage, alignment);
            }
        }
    }
    if steps[0] == knock.step {
        table.put(
            slot,
            1,
            Alignment {
                start: now,
                strays: 0,
            },
        );
        reached = reached.or(Some(1));
    }
    if reached.is_some()
        && let Some(segment) = segment_of(knock)
    {
        table[slot].segment = Some((segment, now));
    }
    reached
}

/// Tells the stage reached, or that the stage told last has ended.
fn tell_progress(
    sequence: &Sequence,
    table: &mut Table,
    slot: Slot,
    knock: &Knock,
    reached: Option<u8>,
    tell: &mut dyn FnMut(Event),
) {
    let attempt = &mut table[slot];
    let (door, source, told) = (attempt.door, attempt.source, attempt.told);
    let repeats = told > 0 && sequence.steps()[usize::from(told) - 1] == knock.step;
    match reached {
        Some(stage) if stage > told || !repeats => {
            attempt.told = stage;
            tell(Event::Stage {
                door,
                source,
                stage,
            });
        }
        _ if told > 0 && !attempt.is_live(told) => {
            attempt.told = 0;
            tell(Event::Failed {
                door,
                source,
                stage: told,
            });
        }
        _ => {}
    }
}
