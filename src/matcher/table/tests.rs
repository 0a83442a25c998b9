use super::*;
use crate::limits::{DEFAULT_ATTEMPTS, MAX_STEPS};
use crate::matcher::alignment::Moment;
use proptest::prelude::*;
use std::collections::HashMap;

const SEQ_TIMEOUT: Millis = 1_000;

/// 10.0.HIGH.LOW: the high byte is the network.
fn source(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn at(stage: u8, start: Millis) -> Alignment {
    Alignment {
        stage,
        ..Alignment::begin(Moment::first_of(start))
    }
}

fn store_and_touch(table: &mut Table, slot: Slot, place: HashSlot, alignments: &[Alignment]) {
    let alignments = alignments.iter().copied().collect();
    table.store_and_touch(slot, place, &alignments, SEQ_TIMEOUT);
}

/// Creates an attempt at that stage.
fn add(table: &mut Table, place: HashSlot, key: (u32, u16), stage: u8) -> Slot {
    let slot = table.insert(place, source(key.0), key.1).expect("a slot");
    store_and_touch(table, slot, place, &[at(stage, 0)]);
    slot
}

fn all(table: &Table) -> Vec<(IpAddr, u16)> {
    std::iter::successors(table.first(), |slot| table.after(*slot))
        .map(|slot| (table.source(slot), table.door(slot)))
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Set((u32, u16), u8),
    Remove((u32, u16)),
}

fn op() -> impl Strategy<Value = Op> {
    // Three networks of ten.
    let key = (
        (0u32..3, 0u32..10).prop_map(|(network, host)| network << 8 | host),
        0u16..3,
    );
    prop_oneof![
        3 => (key.clone(), 1u8..7).prop_map(|(key, stage)| Op::Set(key, stage)),
        1 => key.prop_map(Op::Remove),
    ]
}

/// The attempts to evict, in the order of their last change, if that number is allowed.
fn last_in_rank(model: &[((u32, u16), u8)], allowed: usize) -> Option<(u32, u16)> {
    let class = |stage: u8| stage.min(4);
    let held = |c| model.iter().filter(|(_, s)| class(*s) == c).count();
    let goes = (1..=4).find(|c| held(*c) > 0 && held(*c) >= allowed / 4)?;
    model
        .iter()
        .find(|(_, s)| class(*s) == goes)
        .map(|(key, _)| *key)
}

proptest! {
    /// The model: attempts in the order of their last change. It finds the one to evict by
    /// counting.
    #[test]
    fn finds_what_is_there_and_evicts_by_class_and_age(
        capacity in 1usize..20,
        share in 1usize..12,
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut table = Table::with_share(capacity, share, 1);
        let mut model: Vec<((u32, u16), u8)> = Vec::new();
        for op in ops {
            let (Op::Set(key, _) | Op::Remove(key)) = op;
            let place = table.place(source(key.0));
            let slot = table.find(place, source(key.0), key.1);
            let known = model.iter().position(|(k, _)| *k == key).map(|at| model.remove(at));
            prop_assert_eq!(slot.is_some(), known.is_some());
            match (op, slot) {
                (Op::Set(_, stage), Some(slot)) => {
                    store_and_touch(&mut table, slot, place, &[at(stage, 0)]);
                    model.push((key, stage));
                }
                (Op::Set(_, stage), None) => {
                    let network = |key: (u32, u16)| table.place(source(key.0)).network;
                    let near: Vec<_> =
                        model.iter().filter(|(k, _)| network(*k) == place.network).copied().collect();
                    if near.len() >= share {
                        let goes = last_in_rank(&near, share);
                        model.retain(|(key, _)| Some(*key) != goes);
                    }
                    if model.len() == capacity {
                        let goes = last_in_rank(&model, capacity);
                        model.retain(|(key, _)| Some(*key) != goes);
                    }
                    add(&mut table, place, key, stage);
                    model.push((key, stage));
                }
                (Op::Remove(_), Some(slot)) => table.remove(slot),
                (Op::Remove(_), None) => {}
            }
            prop_assert_eq!(table.len(), model.len());
            let mut expected = model.clone();
            expected.sort_by_key(|(_, stage)| *stage.min(&4));
            let expected: Vec<_> = expected.iter().map(|((s, d), _)| (source(*s), *d)).collect();
            prop_assert_eq!(all(&table), expected);
        }
    }

    #[test]
    fn a_hash_chain_survives_removal_in_any_order(
        order in Just((0u32..200).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut table = Table::with_share(200, 200, 1);
        // Few chains for all sources.
        table.buckets = vec![None; 2];
        let mut model: HashMap<u32, Slot> = HashMap::new();
        for n in 0..200 {
            let place = table.place(source(n));
            model.insert(n, add(&mut table, place, (n, 0), 1));
        }
        for (removed, n) in order.into_iter().enumerate() {
            table.remove(model.remove(&n).expect("each is removed once"));
            // Reuses slots, so that the chain grows while it shrinks.
            if removed % 3 == 0 {
                let place = table.place(source(1_000 + n));
                model.insert(1_000 + n, add(&mut table, place, (1_000 + n, 0), 1));
            }
            for (n, slot) in &model {
                prop_assert_eq!(table.find(table.place(source(*n)), source(*n), 0), Some(*slot));
            }
            prop_assert_eq!(table.find(table.place(source(n)), source(n), 0), None);
        }
    }

    #[test]
    fn an_alignment_survives_packing(
        age in 0u64..1 << 40,
        start in 0u64..1 << 49,
        packets in 0usize..9_000,
        (stage, strays) in (1u8..32, 0u8..4),
        marks in 0u8..16,
    ) {
        let start = (0..packets).fold(Moment::first_of(start), |moment, _| moment.next(start));
        let now = start.millis() + age;
        let alignment = Alignment { start, stage, strays, marks };
        prop_assert_eq!(Alignment::unpack(alignment.pack(), now), Some(alignment));
    }

    /// The model: finds expired attempts by checking all.
    #[test]
    fn deadlines_are_found_when_they_are_due(
        ops in prop::collection::vec((0u32..40, prop_oneof![0u64..3_000, Just(40_000), Just(500_000)], 0u64..600), 1..150),
    ) {
        let mut table = Table::with_share(64, 64, 1);
        let mut model: HashMap<u32, Millis> = HashMap::new();
        let mut now = 10_000;
        for (n, start, pause) in ops {
            let start = start + now;
            let place = table.place(source(n));
            let slot = table.find(place, source(n), 0).or_else(|| table.insert(place, source(n), 0));
            store_and_touch(&mut table, slot.expect("a slot"), place, &[at(1, start)]);
            model.insert(n, start + SEQ_TIMEOUT);
            now += pause * pause / 100;
            let soonest = model.values().min().copied();
            prop_assert!(table.next_look() <= soonest, "not after the first deadline");
            let due = |table: &Table, slot| deadline(0, &table.alignments(slot, now + 1_000_000), SEQ_TIMEOUT);
            let mut tick = 0;
            while let Some((first, after)) = table.next_due(tick, now) {
                tick = after;
                let mut next = Some(first);
                while let Some(slot) = next {
                    next = table.after_due(slot);
                    if due(&table, slot) <= now {
                        table.remove(slot);
                    }
                }
            }
            table.mark_handled(now, due);
            model.retain(|_, deadline| *deadline > now);
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.next_look(), model.values().min().copied(), "exact when they are few");
        }
    }
}

#[test]
fn each_attempt_keeps_all_its_alignments() {
    const EACH: usize = MAX_STEPS - 1;
    let slots_each = EACH.div_ceil(CELLS);
    let mut table = Table::new(DEFAULT_ATTEMPTS, 1);
    let fit = DEFAULT_ATTEMPTS / slots_each;
    let expected = |n: u32, few: usize| -> Vec<Alignment> {
        let stages = (1..MAX_STEPS as u8).rev().take(few);
        stages
            .map(|stage| Alignment {
                strays: stage % 4,
                ..at(stage, n.into())
            })
            .collect()
    };
    let mut slots = Vec::new();
    for n in 0..fit as u32 {
        // One from each network, so that no share is exhausted.
        let source = source(n << 8);
        let place = table.place(source);
        let slot = table.insert(place, source, 0).expect("a slot");
        store_and_touch(&mut table, slot, place, &expected(n, EACH));
        slots.push(slot);
    }
    assert_eq!(table.len(), fit, "none was evicted");
    for (n, slot) in (0..).zip(&slots) {
        assert_eq!(
            table.alignments(*slot, 100_000).as_slice(),
            expected(n, EACH)
        );
    }
    // Slots that are no longer needed are used again.
    for (n, slot) in (0..).zip(&slots) {
        let place = table.place(table.source(*slot));
        store_and_touch(&mut table, *slot, place, &expected(n, 4));
    }
    for n in 0..(DEFAULT_ATTEMPTS - 2 * fit) as u32 {
        let place = table.place(source(0x80_0000 + (n << 8)));
        add(&mut table, place, (0x80_0000 + (n << 8), 0), 1);
    }
    assert_eq!(table.len(), DEFAULT_ATTEMPTS - fit, "none was evicted");
    for (n, slot) in (0..).zip(&slots) {
        assert_eq!(table.alignments(*slot, 100_000).as_slice(), expected(n, 4));
    }
}

#[test]
fn many_alignments_in_a_full_table_evict_others_and_never_themselves() {
    let mut table = Table::with_share(20, 20, 1);
    for n in 0..200 {
        let place = table.place(source(n));
        let slot = table.insert(place, source(n), 0).expect("a slot");
        let many: Vec<_> = (1..MAX_STEPS as u8)
            .rev()
            .map(|stage| at(stage, 0))
            .collect();
        store_and_touch(&mut table, slot, place, &many);
        assert_eq!(table.find(place, source(n), 0), Some(slot));
        assert_eq!(table.alignments(slot, 0).as_slice(), many);
    }
}

#[test]
fn the_seed_changes_the_places() {
    let places = |seed| {
        let table = Table::new(DEFAULT_ATTEMPTS, seed);
        (0..100)
            .map(|n| table.place(source(n << 8)))
            .collect::<Vec<_>>()
    };
    assert_ne!(places(1), places(2));
    assert_eq!(places(1), places(1));
}

/// Consecutive addresses, addresses that differ only in upper bits, and those of one network. With
/// a random hash, 4096 of them in 16384 buckets have 512 pairs.
#[test]
fn no_pattern_of_addresses_crowds_the_buckets() {
    type Pattern = (&'static str, fn(u32) -> IpAddr);
    let patterns: [Pattern; 5] = [
        ("a row", source),
        ("one of each 256", |n| source(n << 8)),
        ("upper bits", |n| Ipv4Addr::from_bits(n << 20).into()),
        ("hosts", |n| {
            Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n)).into()
        }),
        ("networks", |n| {
            Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n) << 64 | 1).into()
        }),
    ];
    for seed in 0..50 {
        let table = Table::new(DEFAULT_ATTEMPTS, seed);
        for (name, address) in patterns {
            let mut buckets = vec![0_usize; table.buckets.len()];
            (0..4096).for_each(|n| buckets[usize::from(table.place(address(n)).bucket)] += 1);
            let pairs: usize = buckets
                .iter()
                .map(|held| held * held.saturating_sub(1) / 2)
                .sum();
            assert!(
                (350..700).contains(&pairs),
                "{name}, seed {seed}: {pairs} pairs"
            );
        }
    }
}

#[test]
fn a_network_is_a_24_or_a_64() {
    let table = Table::new(DEFAULT_ATTEMPTS, 1);
    let network = |address: &str| table.place(address.parse().expect(address)).network;
    assert_eq!(network("192.0.2.1"), network("192.0.2.255"));
    assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
    assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:1"));
    assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
}

/// A slot takes 64 bytes, plus its bucket and its part of the lists of networks.
#[test]
fn an_attempt_costs_64_bytes_and_4_to_find_it() {
    assert_eq!(size_of::<Entry>(), 64);
    let table = Table::new(DEFAULT_ATTEMPTS, 1);
    let index = 2 * table.buckets.len() + 6 * table.by_age;
    assert!(index <= 4 * DEFAULT_ATTEMPTS, "{index}");
}
