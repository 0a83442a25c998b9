//! The attempts of all sources, in a table of fixed size.
//!
//! [`Table::new`] reserves all memory; pages stay untouched until an attempt uses them. A slot
//! holds an attempt with up to [`CELLS`] alignments. More of them (false starts at a door that
//! repeats its first step) use further slots. The attempts of one source share a hash chain, under
//! a random key ([`Keys`]).
//!
//! Lists by age find the attempt to evict, one list for each class: stages 1, 2, 3, and all above.
//! The lowest class goes first, and in it the attempt that changed least recently, so that a flood
//! of first knocks never evicts a source that is halfway. A class below a quarter of the table is
//! spared. Otherwise an attacker who knows the first steps of one door could fill the higher
//! classes, and each new attempt would evict the previous one.
//!
//! There is one set of lists for the whole table, used when it is full, and one for each network
//! (an IPv4 /24, an IPv6 /64), used when a network has its share. Networks are distinguished by a
//! hash under the same key, so two of them can have a common share.
//!
//! Deadlines are in a wheel of [`WHEEL`] lists, one for each tick of [`TICK_MS`]. The cost of
//! insertion, look-up, eviction and expiry does not depend on the number of attempts.
#![forbid(unsafe_code)]

mod lists;
mod wheel;

use super::alignment::{Alignment, Alignments, Packed};
use super::hash::{HashSlot, Keys, octets};
use crate::limits::{MAX_ATTEMPTS, MAX_DOORS, MIN_NETWORK_SHARE, NETWORK_SHARES};
use crate::util::time::Millis;
use lists::{Links, List, first, link, unlink};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

/// Alignments in one slot: enough for a door of four steps.
const CELLS: usize = 3;

const CLASSES: usize = 4;

/// Ticks of one round of the wheel: 32 s, more than the default seq_timeout. Later deadlines stay
/// for another round.
const WHEEL: usize = 1024;

/// From this size on the allocators of musl and glibc pass on zeroed pages from the kernel: 128
/// KiB.
const UNTOUCHED: usize = 132 * 1024;

/// Attempts for each list of networks, if all come from different ones.
const NETWORK_CROWD: usize = 16;

const _: () = assert!(*MAX_ATTEMPTS.end() < u16::MAX as usize, "a slot is 16 bits");
const _: () = assert!(
    MAX_DOORS == 256,
    "a door is 8 bits, and an index of `Attempts`"
);
const _: () = assert!(size_of::<Entry>() <= 64);

/// The slot number of an attempt, from 1. Valid until the attempt is removed.
pub(super) type Slot = NonZeroU16;

/// The lists that a slot can be in.
#[derive(Clone, Copy)]
enum Chain {
    Age,
    Network,
    Due,
}

/// A slot.
struct Entry {
    source: [u8; 16],
    cells: [Packed; CELLS],
    /// The slot with further alignments.
    more: Option<Slot>,
    /// The next slot of the hash chain, or of the free slots.
    next: Option<Slot>,
    links: [Links; 3],
    /// Its list of the wheel.
    due: u16,
    /// The port of the last tripwire hit; 0 if there was none.
    tripwire: u16,
    door: u8,
    /// The stage of the last event (5 bits), the class (2 bits), and whether the source is IPv6.
    state: u8,
}

impl Entry {
    fn new(source: IpAddr, door: u16) -> Entry {
        let (source, v6) = octets(source);
        Entry {
            source,
            cells: Default::default(),
            more: None,
            next: None,
            links: Default::default(),
            due: 0,
            tripwire: 0,
            door: door as u8,
            state: u8::from(v6) << 7,
        }
    }

    fn class(&self) -> usize {
        usize::from(self.state >> 5 & 3)
    }

    fn is(&self, source: ([u8; 16], bool), door: u16) -> bool {
        u16::from(self.door) == door && (self.source, self.state >> 7 != 0) == source
    }
}

/// The attempts of one source, from one walk through its hash chain.
pub(super) struct Attempts {
    pub place: HashSlot,
    source: IpAddr,
    slots: [Option<Slot>; MAX_DOORS],
    evictions: u32,
}

impl Attempts {
    /// Returns the attempt at that door. If a new attempt may have evicted it, looks in the table.
    pub fn at(&self, table: &Table, door: u16) -> Option<Slot> {
        let slot = self.slots[usize::from(door)]?;
        match table.evictions == self.evictions {
            true => Some(slot),
            false => table.find(self.place, self.source, door),
        }
    }

    /// Removes the attempt at that door.
    pub fn ended(&mut self, door: u16) {
        self.slots[usize::from(door)] = None;
    }
}

pub(super) struct Table {
    /// Grows up to its capacity. Slots of removed attempts are used again.
    entries: Vec<Entry>,
    buckets: Vec<Option<Slot>>,
    /// Removed slots, linked by `next`.
    free: Option<Slot>,
    /// The lists by age: for each class of the whole table, then for each class of each network.
    /// Then the lists of the wheel, and padding, so that the allocator maps it from the kernel,
    /// untouched.
    lists: Vec<List>,
    /// The number of lists by age.
    by_age: usize,
    /// Bit n of word m: list 64 m + n of the wheel is not empty.
    busy: [u64; WHEEL / 64],
    /// All ticks before this one were handled.
    looked: u64,
    capacity: usize,
    /// The share of one network.
    share: usize,
    keys: Keys,
    /// No attempt has a deadline before this time.
    soonest: Millis,
    /// The number of evicted attempts.
    evictions: u32,
}

impl Table {
    /// Creates an empty table for `capacity` attempts, within [`MAX_ATTEMPTS`].
    pub fn new(capacity: usize, seed: u64) -> Table {
        Table::with_share(
            capacity,
            MIN_NETWORK_SHARE.max(capacity / NETWORK_SHARES),
            seed,
        )
    }

    fn with_share(capacity: usize, share: usize, seed: u64) -> Table {
        let networks = (capacity / NETWORK_CROWD).max(1).next_power_of_two();
        let by_age = (1 + networks) * CLASSES;
        Table {
            entries: Vec::with_capacity(capacity),
            buckets: vec![None; capacity.next_power_of_two()],
            free: None,
            lists: vec![[0; 3]; (by_age + WHEEL).max(UNTOUCHED / size_of::<List>())],
            by_age,
            busy: [0; WHEEL / 64],
            looked: 0,
            capacity,
            share,
            keys: Keys::new(seed),
            soonest: Millis::MAX,
            evictions: 0,
        }
    }

    fn entry(&self, slot: Slot) -> &Entry {
        &self.entries[usize::from(slot.get()) - 1]
    }

    fn entry_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[usize::from(slot.get()) - 1]
    }

    /// The number of attempts.
    pub fn len(&self) -> usize {
        self.held(0)
    }

    /// The number of attempts in a family of lists: 0 is the whole table, n + 1 is network n.
    fn held(&self, family: usize) -> usize {
        let lists = &self.lists[family * CLASSES..][..CLASSES];
        lists.iter().map(|list| usize::from(list[2])).sum()
    }

    /// Returns the position of this source.
    pub fn place(&self, source: IpAddr) -> HashSlot {
        let networks = self.by_age / CLASSES - 1;
        self.keys.place(source, self.buckets.len(), networks)
    }

    /// Returns whether that position has no attempts at all.
    pub fn is_empty(&self, place: HashSlot) -> bool {
        self.buckets[usize::from(place.bucket)].is_none()
    }

    /// Finds the attempt of this source at that door. `place` is the source's position.
    pub fn find(&self, place: HashSlot, source: IpAddr, door: u16) -> Option<Slot> {
        let source = octets(source);
        let mut next = self.buckets[usize::from(place.bucket)];
        while let Some(slot) = next {
            let entry = self.entry(slot);
            if entry.is(source, door) {
                return Some(slot);
            }
            next = entry.next;
        }
        None
    }

    /// Returns all attempts of this source.
    pub fn attempts(&self, source: IpAddr) -> Attempts {
        let place = self.place(source);
        let mut slots = [None; MAX_DOORS];
        let wanted = octets(source);
        let mut next = self.buckets[usize::from(place.bucket)];
        while let Some(slot) = next {
            let entry = self.entry(slot);
            if entry.is(wanted, entry.door.into()) {
                slots[usize::from(entry.door)] = Some(slot);
            }
            next = entry.next;
        }
        Attempts {
            place,
            source,
            slots,
            evictions: self.evictions,
        }
    }

    /// Adds an attempt without alignments. The caller must store one with `store_and_touch` next.
    /// May evict another attempt.
    pub fn insert(&mut self, place: HashSlot, source: IpAddr, door: u16) -> Option<Slot> {
        let network = usize::from(place.network) + 1;
        if self.held(network) >= self.share
            && let Some(slot) = self.last_in_rank(network, self.share)
        {
            self.evict(slot);
        }
        let slot = self.alloc_slot(None)?;
        *self.entry_mut(slot) = Entry::new(source, door);
        let first = self.buckets[usize::from(place.bucket)].replace(slot);
        self.entry_mut(slot).next = first;
        self.enlist(slot, place, 0);
        self.set_due(slot, Millis::MAX);
        Some(slot)
    }

    /// Removes an attempt.
    pub fn remove(&mut self, slot: Slot) {
        let place = self.place(self.source(slot));
        self.unlist(slot, place);
        self.clear_due(slot);
        let mut before = None;
        let mut next = self.buckets[usize::from(place.bucket)];
        while let Some(here) = next.filter(|here| *here != slot) {
            before = next;
            next = self.entry(here).next;
        }
        let after = self.entry(slot).next;
        match before {
            None => self.buckets[usize::from(place.bucket)] = after,
            Some(before) => self.entry_mut(before).next = after,
        }
        self.free_slots(Some(slot));
    }

    fn evict(&mut self, slot: Slot) {
        self.evictions = self.evictions.wrapping_add(1);
        self.remove(slot);
    }

    /// Returns a free slot. If there is none, evicts an attempt, but never `keep`.
    fn alloc_slot(&mut self, keep: Option<Slot>) -> Option<Slot> {
        if self.free.is_none() && self.entries.len() < self.capacity {
            self.entries
                .push(Entry::new(Ipv4Addr::UNSPECIFIED.into(), 0));
            return NonZeroU16::new(self.entries.len() as u16);
        }
        if self.free.is_none() {
            let least = self.last_in_rank(0, self.capacity)?;
            if Some(least) == keep {
                return None;
            }
            self.evict(least);
        }
        let slot = self.free?;
        self.free = self.entry(slot).next;
        Some(slot)
    }

    /// Frees these slots, linked by `more`.
    fn free_slots(&mut self, mut first: Option<Slot>) {
        while let Some(slot) = first {
            let free = self.free.replace(slot);
            let entry = self.entry_mut(slot);
            entry.next = free;
            first = entry.more.take();
        }
    }

    /// Returns the attempt to evict from a family of lists whose share is `share`.
    fn last_in_rank(&self, family: usize, share: usize) -> Option<Slot> {
        let lists = family * CLASSES..(family + 1) * CLASSES;
        let is_fair = |list: &usize| usize::from(self.lists[*list][2]) >= (share / CLASSES).max(1);
        // If attempts use several slots each, no class may have a quarter.
        let list = (lists.clone().find(is_fair))
            .or_else(|| lists.max_by_key(|list| self.lists[*list][2]))?;
        first(&self.lists[list])
    }

    /// Returns the source of the attempt.
    pub fn source(&self, slot: Slot) -> IpAddr {
        let Entry { source, state, .. } = self.entry(slot);
        let [a, b, c, d, ..] = *source;
        match state >> 7 {
            0 => Ipv4Addr::new(a, b, c, d).into(),
            _ => Ipv6Addr::from(*source).into(),
        }
    }

    /// Returns the door of the attempt.
    pub fn door(&self, slot: Slot) -> u16 {
        self.entry(slot).door.into()
    }

    /// Returns the stage of the last event; 0 if that alignment has ended and the rest was never
    /// reported.
    pub fn reported_stage(&self, slot: Slot) -> u8 {
        self.entry(slot).state & 31
    }

    /// Stores the stage of the last event.
    pub fn set_told(&mut self, slot: Slot, stage: u8) {
        let state = &mut self.entry_mut(slot).state;
        *state = *state & !31 | stage & 31;
    }

    /// Stores the tripwire that was hit. Returns the previous one.
    pub fn replace_tripwire(&mut self, slot: Slot, port: u16) -> u16 {
        std::mem::replace(&mut self.entry_mut(slot).tripwire, port)
    }

    /// Returns the alignments.
    pub fn alignments(&self, slot: Slot, now: Millis) -> Alignments {
        let mut alignments = Alignments::new();
        let mut next = Some(slot);
        while let Some(slot) = next {
            let entry = self.entry(slot);
            let cells = entry
                .cells
                .iter()
                .map_while(|cell| Alignment::unpack(*cell, now));
            alignments.extend(cells.take(alignments.capacity() - alignments.len()));
            next = entry.more;
        }
        alignments
    }

    /// Stores changed alignments, and makes the attempt the newest of the class of its highest
    /// stage.
    pub fn store_and_touch(
        &mut self,
        slot: Slot,
        place: HashSlot,
        alignments: &Alignments,
        seq_timeout: Millis,
    ) {
        let stage = alignments.first().map_or(1, |highest| highest.stage);
        self.unlist(slot, place);
        self.enlist(slot, place, usize::from(stage - 1).min(CLASSES - 1));
        self.store(slot, alignments, seq_timeout);
    }

    /// Stores the remaining alignments.
    pub fn store(&mut self, slot: Slot, alignments: &Alignments, seq_timeout: Millis) {
        self.clear_due(slot);
        let deadline = deadline(self.reported_stage(slot), alignments, seq_timeout);
        self.set_due(slot, deadline);
        let (mut at, mut chunks) = (slot, alignments.chunks(CELLS));
        loop {
            let mut cells = [Packed::default(); CELLS];
            for (cell, alignment) in cells.iter_mut().zip(chunks.next().unwrap_or_default()) {
                *cell = alignment.pack();
            }
            self.entry_mut(at).cells = cells;
            let more = self.entry(at).more;
            if chunks.len() == 0 {
                self.entry_mut(at).more = None;
                return self.free_slots(more);
            }
            let Some(next) = more.or_else(|| self.alloc_slot(Some(slot))) else {
                return;
            };
            if more.is_none() {
                self.entry_mut(next).more = None;
                self.entry_mut(at).more = Some(next);
            }
            at = next;
        }
    }

    /// Returns the first of all attempts, in no particular order; [`Table::after`] returns the
    /// others.
    pub fn first(&self) -> Option<Slot> {
        self.lists[..CLASSES].iter().find_map(first)
    }

    /// Returns the attempt after this one. Call it before removing this one.
    pub fn after(&self, slot: Slot) -> Option<Slot> {
        let entry = self.entry(slot);
        let higher = &self.lists[entry.class() + 1..CLASSES];
        entry.links[Chain::Age as usize][1].or_else(|| higher.iter().find_map(first))
    }

    /// Returns the lists of an attempt of this class.
    fn lists(place: HashSlot, class: usize) -> [(Chain, usize); 2] {
        let network = usize::from(place.network) + 1;
        [
            (Chain::Age, class),
            (Chain::Network, network * CLASSES + class),
        ]
    }

    fn enlist(&mut self, slot: Slot, place: HashSlot, class: usize) {
        for (chain, list) in Table::lists(place, class) {
            link(&mut self.entries, &mut self.lists[list], chain, slot);
        }
        let state = &mut self.entry_mut(slot).state;
        *state = *state & !(3 << 5) | (class as u8) << 5;
    }

    fn unlist(&mut self, slot: Slot, place: HashSlot) {
        for (chain, list) in Table::lists(place, self.entry(slot).class()) {
            unlink(&mut self.entries, &mut self.lists[list], chain, slot);
        }
    }
}

/// Returns the deadline: the end of the stage reported last or, if none was reported, the end of
/// the last alignment.
pub(super) fn deadline(reported: u8, alignments: &Alignments, seq_timeout: Millis) -> Millis {
    // Of two alignments, the lower stage started later.
    let reported = alignments
        .iter()
        .find(|alignment| alignment.stage == reported);
    let start = reported
        .or(alignments.last())
        .map_or(0, |alignment| alignment.start.millis());
    start.saturating_add(seq_timeout)
}

#[cfg(test)]
mod tests;
