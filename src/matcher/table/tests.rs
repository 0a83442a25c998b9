use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::Ipv4Addr;

const SEQ_TIMEOUT: Millis = 1_000;

fn source(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

/// An attempt at that stage, in the bucket of its source or in a chosen one.
fn add(table: &mut Table, bucket: Option<u16>, key: (u32, u16), stage: u8) -> Slot {
    let source = source(key.0);
    let slot = table.insert(
        bucket.unwrap_or_else(|| table.bucket(source)),
        source,
        key.1,
    );
    table.put(
        slot,
        stage,
        Alignment {
            start: 0,
            strays: 0,
        },
    );
    table.settle(slot, SEQ_TIMEOUT);
    slot
}

fn all(table: &Table) -> Vec<(IpAddr, u16)> {
    std::iter::successors(table.first(), |slot| table.after(*slot))
        .map(|slot| (table[slot].source, table[slot].door))
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Set((u32, u16), u8),
    Remove((u32, u16)),
}

fn op() -> impl Strategy<Value = Op> {
    let key = (0u32..30, 0u16..3);
    prop_oneof![
        3 => (key.clone(), 1u8..7).prop_map(|(key, stage)| Op::Set(key, stage)),
        1 => key.prop_map(Op::Remove),
    ]
}

proptest! {
    /// The model: attempts in the order of their last change, and who goes found by counting.
    #[test]
    fn finds_what_is_there_and_evicts_by_class_and_age(
        capacity in 1usize..20,
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut table = Table::new(capacity, 1);
        let mut model: Vec<((u32, u16), u8)> = Vec::new();
        for op in ops {
            let (Op::Set(key, _) | Op::Remove(key)) = op;
            let slot = table.find(table.bucket(source(key.0)), source(key.0), key.1);
            let known = model.iter().position(|(k, _)| *k == key).map(|at| model.remove(at));
            prop_assert_eq!(slot.is_some(), known.is_some());
            match (op, slot) {
                (Op::Set(_, stage), Some(slot)) => {
                    for old in table[slot].stages() {
                        table.drop(slot, old);
                    }
                    table.put(slot, stage, Alignment { start: 0, strays: 0 });
                    table.settle(slot, SEQ_TIMEOUT);
                    model.push((key, stage));
                }
                (Op::Set(_, stage), None) => {
                    if model.len() == capacity {
                        let class = |stage: u8| stage.min(4);
                        let held = |c| model.iter().filter(|(_, s)| class(*s) == c).count();
                        let goes = (1..=4).find(|c| held(*c) > 0 && held(*c) >= capacity / 4);
                        let at = model.iter().position(|(_, s)| Some(class(*s)) == goes);
                        model.remove(at.expect("a full table has someone to evict"));
                    }
                    add(&mut table, None, key, stage);
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
        let mut table = Table::new(200, 1);
        let mut model: HashMap<u32, Slot> =
            (0..200).map(|n| (n, add(&mut table, Some(7), (n, 0), 1))).collect();
        for (removed, n) in order.into_iter().enumerate() {
            table.remove(model.remove(&n).expect("each is removed once"));
            // Slots are used again, so that the chain is also grown while it shrinks.
            if removed % 3 == 0 {
                model.insert(1_000 + n, add(&mut table, Some(7), (1_000 + n, 0), 1));
            }
            for (n, slot) in &model {
                prop_assert_eq!(table.find(7, source(*n), 0), Some(*slot));
            }
            prop_assert_eq!(table.find(7, source(n), 0), None);
        }
    }

    #[test]
    fn an_alignment_survives_packing(start in 0u64..1 << 56, strays: u8) {
        let alignment = Alignment { start, strays };
        prop_assert_eq!(Alignment::unpack(alignment.pack()), alignment);
    }
}

#[test]
fn each_slot_has_its_own_place_for_each_stage() {
    let mut table = Table::new(MAX_ATTEMPTS, 1);
    let stages = || 1..MAX_STEPS as u8;
    let slots: Vec<_> = (0..MAX_ATTEMPTS as u32)
        .map(|n| add(&mut table, None, (n, 0), 1))
        .collect();
    for slot in &slots {
        for stage in stages() {
            table.put(
                *slot,
                stage,
                Alignment {
                    start: slot.get().into(),
                    strays: stage,
                },
            );
        }
    }
    for slot in &slots {
        assert!(table[*slot].stages().eq(stages().rev()));
        for stage in stages() {
            let expected = Alignment {
                start: slot.get().into(),
                strays: stage,
            };
            assert_eq!(table.alignment(*slot, stage), Some(expected));
        }
    }
}

#[test]
fn the_seed_changes_the_buckets() {
    let buckets = |seed| {
        let table = Table::new(MAX_ATTEMPTS, seed);
        (0..100)
            .map(|n| table.bucket(source(n)))
            .collect::<Vec<_>>()
    };
    assert_ne!(buckets(1), buckets(2));
    assert_eq!(buckets(1), buckets(1));
}

#[test]
fn an_attempt_at_a_door_of_four_steps_costs_at_most_100_bytes() {
    assert!(
        size_of::<Attempt>() + 3 * size_of::<u64>() + 2 <= 100,
        "{}",
        size_of::<Attempt>()
    );
}
