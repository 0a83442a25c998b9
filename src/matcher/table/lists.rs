//! Doubly linked lists through the slots of the table.
#![forbid(unsafe_code)]

use super::{Chain, Entry, Slot};

/// The previous and the next slot.
pub(super) type Links = [Option<Slot>; 2];

/// A list: its first and last slot, 0 for none, and its length. All zero is an empty list.
pub(super) type List = [u16; 3];

/// Returns the first slot of a list.
pub(super) fn first(list: &List) -> Option<Slot> {
    Slot::new(list[0])
}

fn links(entries: &mut [Entry], chain: Chain, slot: Slot) -> &mut Links {
    &mut entries[usize::from(slot.get()) - 1].links[chain as usize]
}

/// Appends the slot to the list.
pub(super) fn link(entries: &mut [Entry], list: &mut List, chain: Chain, slot: Slot) {
    let before = Slot::new(list[1]);
    match before {
        Some(before) => links(entries, chain, before)[1] = Some(slot),
        None => list[0] = slot.get(),
    }
    list[1] = slot.get();
    list[2] += 1;
    *links(entries, chain, slot) = [before, None];
}

/// Removes the slot from the list.
pub(super) fn unlink(entries: &mut [Entry], list: &mut List, chain: Chain, slot: Slot) {
    let [before, after] = *links(entries, chain, slot);
    match before {
        Some(before) => links(entries, chain, before)[1] = after,
        None => list[0] = after.map_or(0, Slot::get),
    }
    match after {
        Some(after) => links(entries, chain, after)[0] = before,
        None => list[1] = before.map_or(0, Slot::get),
    }
    list[2] -= 1;
}
