//! Lists through the slots of the table, linked both ways.
#![forbid(unsafe_code)]

use super::{Chain, Entry, Slot};

/// The slots before and after one.
pub(super) type Links = [Option<Slot>; 2];

/// The first and the last slot of a list.
pub(super) type Ends = [Option<Slot>; 2];

fn links(entries: &mut [Entry], chain: Chain, slot: Slot) -> &mut Links {
    &mut entries[usize::from(slot.get()) - 1].links[chain as usize]
}

/// Makes the slot the last of that list.
pub(super) fn link(entries: &mut [Entry], ends: &mut Ends, chain: Chain, slot: Slot) {
    let before = ends[1].replace(slot);
    match before {
        Some(before) => links(entries, chain, before)[1] = Some(slot),
        None => ends[0] = Some(slot),
    }
    *links(entries, chain, slot) = [before, None];
}

/// Takes the slot out of that list.
pub(super) fn unlink(entries: &mut [Entry], ends: &mut Ends, chain: Chain, slot: Slot) {
    let [before, after] = *links(entries, chain, slot);
    match before {
        Some(before) => links(entries, chain, before)[1] = after,
        None => ends[0] = after,
    }
    match after {
        Some(after) => links(entries, chain, after)[0] = before,
        None => ends[1] = before,
    }
}
