//! The attempts of every source, in a table of fixed size.
//!
//! Everything is reserved by [`Table::new`]; pages that no attempt has used stay untouched. A slot holds an attempt with
//! up to [`CELLS`] alignments; more (false starts at a door that repeats its first step) take further slots. Attempts of one
//! source share a hash chain, under a random key ([`Keys`]).
//!
//! Who has to go is found through lists by age, one for each class: stages 1, 2, 3, and all above. The lowest class goes
//! first, in it the attempt that changed least recently; so a flood of first knocks never evicts someone who is halfway. A
//! class that holds less than a quarter is spared: otherwise whoever knows the first steps of one door could fill the higher
//! classes, and then each newcomer would evict the one before.
//!
//! There are such lists for the whole table, which decide when it is full, and for each network (an IPv4 /24, an IPv6 /64),
//! which decide when a network has its share. Networks are told apart by a hash under the same key, so two may share a share.
//!
//! Deadlines are in a wheel of [`WHEEL`] lists, one for each tick of [`TICK_MS`]. Insert, look-up, eviction and expiry
//! cost the same however many attempts there are.
#![forbid(unsafe_code)]

mod lists;
mod wheel;

use super::alignment::{Alignment, Packed, Readings};
use super::hash::{HashSlot, Keys, octets};
use crate::limits::{MAX_ATTEMPTS, MAX_DOORS, MIN_NETWORK_SHARE, NETWORK_SHARES};
use crate::util::time::Millis;
use lists::{Links, List, first, link, unlink};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

/// Alignments in one slot: all that a door of four steps has.
const CELLS: usize = 3;

const CLASSES: usize = 4;

/// Ticks until the wheel is round: 32 s, more than the default seq_timeout. Later deadlines wait for another round.
const WHEEL: usize = 1024;

/// Bytes that an allocator gets from the system as they are, all zero: musl and glibc from 128 KiB on.
const UNTOUCHED: usize = 132 * 1024;

/// Attempts for each list of networks, if all come from different ones.
const NETWORK_CROWD: usize = 16;

const _: () = assert!(*MAX_ATTEMPTS.end() < u16::MAX as usize, "a slot is 16 bits");
const _: () = assert!(
    MAX_DOORS == 256,
    "a door is 8 bits, and an index of `Attempts`"
);
const _: () = assert!(size_of::<Entry>() <= 64);

/// The place of an attempt, from 1; valid until the attempt is removed.
pub(super) type Slot = NonZeroU16;

/// Which list of a slot's links.
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
    /// The slot of further alignments.
    more: Option<Slot>,
    /// The next in the hash chain, or of the free slots.
    next: Option<Slot>,
    links: [Links; 3],
    /// In which list of the wheel it is.
    due: u16,
    /// The port of the tripwire hit last; 0: none was.
    tripwire: u16,
    door: u8,
    /// The stage that the last event told of, 5 bits; the class, 2 bits; whether the source is IPv6.
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

/// The attempts of one source, found by one walk through its hash chain.
pub(super) struct Attempts {
    pub place: HashSlot,
    source: IpAddr,
    slots: [Option<Slot>; MAX_DOORS],
    evictions: u32,
}

impl Attempts {
    /// The attempt at that door. A new attempt may have evicted it meanwhile; then the table is asked.
    pub fn at(&self, table: &Table, door: u16) -> Option<Slot> {
        let slot = self.slots[usize::from(door)]?;
        match table.evictions == self.evictions {
            true => Some(slot),
            false => table.find(self.place, self.source, door),
        }
    }

    /// The attempt at that door has ended.
    pub fn ended(&mut self, door: u16) {
        self.slots[usize::from(door)] = None;
    }
}

pub(super) struct Table {
    /// Grows up to its capacity; slots of removed attempts are used again.
    entries: Vec<Entry>,
    buckets: Vec<Option<Slot>>,
    /// Removed slots, linked by `next`.
    free: Option<Slot>,
    /// By age: for each class of the whole table, then for each class of each network; then the wheel; and what makes it so long
    /// that the allocator maps it for us, untouched.
    lists: Vec<List>,
    /// How many of those are by age.
    by_age: usize,
    /// Bit n of word m: list 64 m + n of the wheel is not empty.
    busy: [u64; WHEEL / 64],
    /// All ticks before this have been looked at.
    looked: u64,
    capacity: usize,
    /// Attempts of one network.
    share: usize,
    keys: Keys,
    /// No attempt's deadline is before this.
    soonest: Millis,
    /// How many attempts had to go for others.
    evictions: u32,
}

impl Table {
    /// An empty table for `capacity` attempts, within [`MAX_ATTEMPTS`].
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

    /// How many attempts there are.
    pub fn len(&self) -> usize {
        self.held(0)
    }

    /// How many attempts a family of lists has: 0 is the whole table, n + 1 network n.
    fn held(&self, family: usize) -> usize {
        let lists = &self.lists[family * CLASSES..][..CLASSES];
        lists.iter().map(|list| usize::from(list[2])).sum()
    }

    /// Where the attempts of this source are looked for.
    pub fn place(&self, source: IpAddr) -> HashSlot {
        let networks = self.by_age / CLASSES - 1;
        self.keys.place(source, self.buckets.len(), networks)
    }

    /// Whether there is no attempt at all there.
    pub fn is_empty(&self, place: HashSlot) -> bool {
        self.buckets[usize::from(place.bucket)].is_none()
    }

    /// The attempt of this source at that door. `place` is the source's.
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

    /// All attempts of this source.
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

    /// A new attempt, without alignments; it must be settled with one next. May evict another.
    pub fn insert(&mut self, place: HashSlot, source: IpAddr, door: u16) -> Option<Slot> {
        let network = usize::from(place.network) + 1;
        if self.held(network) >= self.share
            && let Some(slot) = self.last_in_rank(network, self.share)
        {
            self.evict(slot);
        }
        let slot = self.take(None)?;
        *self.entry_mut(slot) = Entry::new(source, door);
        let first = self.buckets[usize::from(place.bucket)].replace(slot);
        self.entry_mut(slot).next = first;
        self.enlist(slot, place, 0);
        self.set_due(slot, Millis::MAX);
        Some(slot)
    }

    /// Forgets an attempt.
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
        self.give_back(Some(slot));
    }

    fn evict(&mut self, slot: Slot) {
        self.evictions = self.evictions.wrapping_add(1);
        self.remove(slot);
    }

    /// An unused slot. When there is none the least attempt goes, but not `keep`.
    fn take(&mut self, keep: Option<Slot>) -> Option<Slot> {
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

    /// Makes these slots, linked by `more`, unused.
    fn give_back(&mut self, mut first: Option<Slot>) {
        while let Some(slot) = first {
            let free = self.free.replace(slot);
            let entry = self.entry_mut(slot);
            entry.next = free;
            first = entry.more.take();
        }
    }

    /// Who goes first of those in a family of lists, of which `share` are allowed.
    fn last_in_rank(&self, family: usize, share: usize) -> Option<Slot> {
        let lists = family * CLASSES..(family + 1) * CLASSES;
        let is_fair = |list: &usize| usize::from(self.lists[*list][2]) >= (share / CLASSES).max(1);
        // No class has a quarter where attempts take several slots each.
        let list = (lists.clone().find(is_fair))
            .or_else(|| lists.max_by_key(|list| self.lists[*list][2]))?;
        first(&self.lists[list])
    }

    /// Who this attempt is.
    pub fn source(&self, slot: Slot) -> IpAddr {
        let Entry { source, state, .. } = self.entry(slot);
        let [a, b, c, d, ..] = *source;
        match state >> 7 {
            0 => Ipv4Addr::new(a, b, c, d).into(),
            _ => Ipv6Addr::from(*source).into(),
        }
    }

    /// The door that it is at.
    pub fn door(&self, slot: Slot) -> u16 {
        self.entry(slot).door.into()
    }

    /// The stage that the last event told of; 0: that one has ended, and what is left was never told.
    pub fn told(&self, slot: Slot) -> u8 {
        self.entry(slot).state & 31
    }

    /// Says what was told.
    pub fn set_told(&mut self, slot: Slot, stage: u8) {
        let state = &mut self.entry_mut(slot).state;
        *state = *state & !31 | stage & 31;
    }

    /// Remembers which tripwire was hit; returns the one before.
    pub fn replace_tripwire(&mut self, slot: Slot, port: u16) -> u16 {
        std::mem::replace(&mut self.entry_mut(slot).tripwire, port)
    }

    /// The alignments.
    pub fn readings(&self, slot: Slot, now: Millis) -> Readings {
        let mut readings = Readings::new();
        let mut next = Some(slot);
        while let Some(slot) = next {
            let entry = self.entry(slot);
            let cells = entry
                .cells
                .iter()
                .map_while(|cell| Alignment::unpack(*cell, now));
            readings.extend(cells.take(readings.capacity() - readings.len()));
            next = entry.more;
        }
        readings
    }

    /// After a change: stores the alignments; the attempt is the newest of the class of its highest stage.
    pub fn settle(
        &mut self,
        slot: Slot,
        place: HashSlot,
        readings: &Readings,
        seq_timeout: Millis,
    ) {
        let stage = readings.first().map_or(1, |highest| highest.stage);
        self.unlist(slot, place);
        self.enlist(slot, place, usize::from(stage - 1).min(CLASSES - 1));
        self.keep(slot, readings, seq_timeout);
    }

    /// Stores what is left of the alignments.
    pub fn keep(&mut self, slot: Slot, readings: &Readings, seq_timeout: Millis) {
        self.clear_due(slot);
        let deadline = deadline(self.told(slot), readings, seq_timeout);
        self.set_due(slot, deadline);
        let (mut at, mut chunks) = (slot, readings.chunks(CELLS));
        loop {
            let mut cells = [Packed::default(); CELLS];
            for (cell, alignment) in cells.iter_mut().zip(chunks.next().unwrap_or_default()) {
                *cell = alignment.pack();
            }
            self.entry_mut(at).cells = cells;
            let more = self.entry(at).more;
            if chunks.len() == 0 {
                self.entry_mut(at).more = None;
                return self.give_back(more);
            }
            let Some(next) = more.or_else(|| self.take(Some(slot))) else {
                return;
            };
            if more.is_none() {
                self.entry_mut(next).more = None;
                self.entry_mut(at).more = Some(next);
            }
            at = next;
        }
    }

    /// The first of all attempts, in no order that matters; [`Table::after`] gives the others.
    pub fn first(&self) -> Option<Slot> {
        self.lists[..CLASSES].iter().find_map(first)
    }

    /// The attempt after this one. Ask before removing it.
    pub fn after(&self, slot: Slot) -> Option<Slot> {
        let entry = self.entry(slot);
        let higher = &self.lists[entry.class() + 1..CLASSES];
        entry.links[Chain::Age as usize][1].or_else(|| higher.iter().find_map(first))
    }

    /// The lists that an attempt of this class is in.
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

/// When there is something to expire: when the stage told last ends, or where none is told, when all ends.
pub(super) fn deadline(told: u8, readings: &Readings, seq_timeout: Millis) -> Millis {
    // Of two alignments, the lower stage started later.
    let told = readings.iter().find(|alignment| alignment.stage == told);
    let start = told
        .or(readings.last())
        .map_or(0, |alignment| alignment.start.millis());
    start.saturating_add(seq_timeout)
}

#[cfg(test)]
mod tests;
