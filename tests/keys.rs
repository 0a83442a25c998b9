//! Checks signed knocks against the published vectors (tests/keys/vectors.json) and at edges that
//! the vectors do not cover.

use knockd_rs::keys::judge::{DeviceKey, judge};
use knockd_rs::keys::numbers::{ENTRY, FILE, KeyNumber};
use knockd_rs::keys::packet::{KeyAction, KeyPacket, PACKET};
use knockd_rs::keys::text::{AddressPolicy, NoKey, key_line, secret_of_text, text_of_secret};
use knockd_rs::keys::{Secret, stun};
use proptest::prelude::*;
use serde_json::Value;
use std::net::IpAddr;

fn vectors(kind: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(include_str!("keys/vectors.json")).expect("JSON");
    let of_kind: Vec<Value> = all.into_iter().filter(|v| v["kind"] == kind).collect();
    assert!(!of_kind.is_empty(), "{kind}");
    of_kind
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal digits");
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16)
                .expect("hexadecimal digits")
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn secret(value: &Value) -> Secret {
    Secret::new(bytes(value).try_into().expect("20 bytes"))
}

const SECRET: [u8; 20] = [7; 20];

fn key(secret: &Secret, address: AddressPolicy, doors: &[&str], last: Option<u64>) -> DeviceKey {
    let doors = doors.iter().enumerate();
    let doors = doors.map(|(at, name)| (at as u16, name.as_bytes()));
    let mut key = DeviceKey::new("alice", secret, address, doors);
    key.last = last;
    key
}

#[test]
fn a_secret_gives_id_text_and_tags() {
    for v in vectors("key") {
        let secret = secret(&v["secret"]);
        assert_eq!(hex(&secret.id()), v["id"], "{v}");
        assert_eq!(text_of_secret(&secret), v["text"], "{v}");
        assert_eq!(hex(&secret.door_tag(b"SSH")), v["tag_SSH"], "{v}");
    }
}

#[test]
fn a_key_is_read_as_people_write_it_and_typing_errors_are_found() {
    let good = vectors("key").remove(0);
    for v in vectors("key text") {
        let read = secret_of_text(v["text"].as_str().unwrap().as_bytes());
        match v["good"].as_bool().unwrap() {
            true => assert!(read.ok() == Some(secret(&good["secret"])), "{v}"),
            false => assert!(read.is_err(), "{v}"),
        }
    }
}

#[test]
fn packets_are_judged_as_published() {
    for v in vectors("packet") {
        let policy = match v["key"]["address"].as_str().unwrap() {
            "any" => AddressPolicy::Any,
            "sender" => AddressPolicy::Sender,
            "stated" => AddressPolicy::Stated,
            other => panic!("{other}"),
        };
        let doors: Vec<&str> = v["doors"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut keys = [key(
            &secret(&v["secret"]),
            policy,
            &doors,
            v["last"].as_u64(),
        )];
        let sender: IpAddr = v["sender"].as_str().unwrap().parse().unwrap();
        let expected = &v["result"];
        let judgement = judge(&bytes(&v["packet"]), sender, &mut keys);
        assert_eq!(judgement.key.is_some(), expected["key"] == "alice", "{v}");
        assert_eq!(judgement.uses_number, expected["used"], "{v}");
        match judgement.result {
            Err(refusal) => assert_eq!(refusal.text(), expected["verdict"], "{v}"),
            Ok(order) => {
                let verdict = match order.action {
                    KeyAction::Open => "open",
                    KeyAction::Close => "close",
                };
                assert_eq!(verdict, expected["verdict"], "{v}");
                assert_eq!(doors[usize::from(order.door)], expected["door"], "{v}");
                assert_eq!(order.address.to_string(), expected["address"], "{v}");
                assert_eq!(order.seconds, expected["seconds"], "{v}");
            }
        }
        assert_eq!(keys[0].last, v["last_then"].as_u64(), "{v}");
    }
}

#[test]
fn a_datagram_is_unwrapped_as_published() {
    for v in vectors("unwrap") {
        let packet = stun::unwrap(&bytes(&v["payload"]));
        assert_eq!(
            packet.map(|packet| hex(&packet)).as_deref(),
            v["packet"].as_str(),
            "{v}"
        );
    }
}

/// A state file in which `id` has entry `index`. A region of `None` holds bytes that are not a
/// valid entry.
fn file(id: [u8; 8], index: usize, regions: [Option<u64>; 2]) -> Vec<u8> {
    let mut file = vec![0; FILE];
    for (region, number) in regions.into_iter().enumerate() {
        let at = region * FILE / 2 + index * ENTRY;
        let entry = match number {
            Some(number) => {
                KeyNumber::free(&[0; FILE], id)
                    .expect("a free entry")
                    .entry(number)
                    .1
            }
            None => [0xff; ENTRY],
        };
        file[at..at + ENTRY].copy_from_slice(&entry);
    }
    file
}

#[test]
fn entries_of_the_file_of_numbers_are_as_published() {
    for v in vectors("entry") {
        let id = bytes(&v["id"]).try_into().unwrap();
        let number = v["counter"].as_u64().unwrap();
        let (_, entry) = KeyNumber::free(&[0; FILE], id).unwrap().entry(number);
        assert_eq!(hex(&entry), v["entry"], "{v}");
    }
    let id = Secret::new(std::array::from_fn(|at| at as u8)).id();
    for v in vectors("counter file") {
        let index = v["entry"].as_u64().unwrap() as usize;
        let file = file(id, index, [v["a"].as_u64(), v["b"].as_u64()]);
        let number = KeyNumber::find(&file, id).unwrap();
        assert_eq!(number.last(), v["counter"], "{v}");
        let (at, entry) = number.entry(9);
        assert_eq!(
            (at, hex(&entry).as_str()),
            (
                v["next_write_at"].as_u64().unwrap(),
                v["next_write"].as_str().unwrap()
            ),
            "{v}"
        );
    }
}

#[test]
fn a_write_that_is_cut_at_any_byte_leaves_the_old_number_or_the_new_one() {
    let id = Secret::new(SECRET).id();
    for regions in [
        [Some(4), Some(5)],
        [Some(6), Some(5)],
        [None, Some(5)],
        [Some(5), None],
    ] {
        let before = file(id, 3, regions);
        let number = KeyNumber::find(&before, id).unwrap();
        let (at, entry) = number.entry(9);
        for cut in 0..=ENTRY {
            // The rest of the entry may be unchanged, erased or zero if the write did not finish.
            for rest in [None, Some(0xff), Some(0)] {
                let mut file = before.clone();
                let place = &mut file[at as usize..][..ENTRY];
                if let Some(rest) = rest {
                    place.fill(rest);
                }
                place[..cut].copy_from_slice(&entry[..cut]);
                let last = KeyNumber::find(&file, id).map(|number| number.last());
                let whole = cut == ENTRY
                    || file[..] == {
                        let mut done = before.clone();
                        done[at as usize..][..ENTRY].copy_from_slice(&entry);
                        done
                    };
                let expected = if whole { 9 } else { number.last() };
                assert_eq!(
                    last,
                    Some(expected),
                    "{regions:?} cut at {cut}, rest {rest:?}"
                );
            }
        }
    }
}

#[test]
fn numbers_go_to_the_two_regions_in_turn() {
    let id = Secret::new(SECRET).id();
    let mut file = vec![0; FILE];
    assert_eq!(KeyNumber::find(&file, id), None);
    let mut number = KeyNumber::free(&file, id).unwrap();
    let mut places = Vec::new();
    for value in 1..=4 {
        let (at, entry) = number.entry(value);
        file[at as usize..][..ENTRY].copy_from_slice(&entry);
        number.wrote(value);
        assert_eq!(KeyNumber::find(&file, id), Some(number));
        assert_eq!(number.last(), value);
        places.push(at);
    }
    assert_eq!(places, [0, 4096, 0, 4096]);
    // Another key does not share the entry.
    assert_eq!(KeyNumber::free(&file, [1; 8]).unwrap().entry(1).0, 32);
    assert_eq!(KeyNumber::find(&file, [1; 8]), None);
    assert!(KeyNumber::free(&vec![1; FILE], id).is_none());
    assert!(KeyNumber::free(&[], id).is_none());
}

#[test]
fn a_key_whose_number_is_lost_opens_nothing() {
    let secret = Secret::new(SECRET);
    let mut keys = [key(&secret, AddressPolicy::Any, &["SSH"], None)];
    let packet = KeyPacket {
        id: secret.id(),
        number: 5,
        door: [0; 4],
        seconds: 0,
        action: KeyAction::Open,
        address: None,
    };
    let bytes = packet.sign(&secret.packet_key());
    let sender = "203.0.113.9".parse().unwrap();
    assert!(judge(&bytes, sender, &mut keys).result.is_err());
    assert_eq!(keys[0].last, None);
    keys[0].last = Some(4);
    assert!(judge(&bytes, sender, &mut keys).result.is_ok());
    // A counter is never accepted twice.
    assert!(judge(&bytes, sender, &mut keys).result.is_err());
}

#[test]
fn lines_of_a_keys_file_are_read_or_refused_with_a_reason() {
    const KEY: &str = "AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQT-WGEZ";
    let read =
        |text: &str| key_line(text).map(|line| line.map(|key| (key.name.to_string(), key.address)));
    let good = |address| Some(Ok(("a.b_c-1".to_string(), address)));
    assert_eq!(read(&format!("a.b_c-1 {KEY}")), good(AddressPolicy::Any));
    assert_eq!(
        read(&format!("  a.b_c-1\t{KEY} address=any # phone")),
        good(AddressPolicy::Any)
    );
    assert_eq!(
        read(&format!("a.b_c-1 {KEY} address=sender")),
        good(AddressPolicy::Sender)
    );
    assert_eq!(
        read(&format!("a.b_c-1 {KEY} address=stated")),
        good(AddressPolicy::Stated)
    );
    for nothing in ["", "   ", "# a comment", "\t#x"] {
        assert_eq!(read(nothing), None);
    }
    let long = format!("{} {KEY}", "x".repeat(33));
    for (text, why) in [
        (format!("Alice {KEY}"), NoKey::Name),
        (long, NoKey::Name),
        ("alice".to_string(), NoKey::Length),
        ("alice AAAQ".to_string(), NoKey::Length),
        (format!("alice {}", KEY.replace('B', "8")), NoKey::Letter),
        (format!("alice {}", KEY.replace('B', "C")), NoKey::Check),
        (format!("alice {KEY} address=all"), NoKey::Address),
        (format!("alice {KEY} address=any more"), NoKey::Address),
    ] {
        assert_eq!(read(&text), Some(Err(why)), "{text}");
    }
}

proptest! {
    #[test]
    fn a_key_survives_being_written_down(bytes: [u8; 20]) {
        let secret = Secret::new(bytes);
        let text = text_of_secret(&secret);
        prop_assert_eq!(text.len(), 37);
        prop_assert!(secret_of_text(text.to_lowercase().as_bytes()).ok() == Some(secret));
    }

    #[test]
    fn one_wrong_letter_is_found_nearly_always(bytes: [u8; 20], at in 0usize..36, shift in 1usize..32) {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut text: Vec<u8> = text_of_secret(&Secret::new(bytes)).bytes().filter(|b| *b != b'-').collect();
        let old = LETTERS.iter().position(|letter| *letter == text[at]).unwrap();
        text[at] = LETTERS[(old + shift) % 32];
        let read = secret_of_text(&text);
        // The check letters have 20 bits, so one in a million mistyped keys is accepted, as a
        // different key.
        prop_assert!(read.is_err() || read.ok() != Some(Secret::new(bytes)));
    }

    #[test]
    fn what_is_signed_says_the_same_when_it_is_read(
        number in 1..=i64::MAX as u64, door: [u8; 4], seconds: u32, close: bool,
        address in prop_oneof![Just(None), any::<[u8; 4]>().prop_map(|a| Some(a.into())), any::<[u8; 16]>().prop_map(|a| Some(a.into()))],
        bit in 0..PACKET * 8,
    ) {
        let secret = Secret::new(SECRET);
        let action = if close { KeyAction::Close } else { KeyAction::Open };
        let packet = KeyPacket { id: secret.id(), number, door, seconds, action, address };
        let mut bytes = packet.sign(&secret.packet_key());
        prop_assert_eq!(KeyPacket::of_bytes(&bytes), Some(packet));
        prop_assert_eq!(stun::unwrap(&bytes), Some(bytes));
        // Changing any bit invalidates the message.
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut keys = [key(&secret, AddressPolicy::Any, &["SSH"], Some(0))];
        let judgement = judge(&bytes, "203.0.113.9".parse().unwrap(), &mut keys);
        prop_assert!(judgement.result.is_err() && !judgement.uses_number);
        prop_assert_eq!(keys[0].last, Some(0));
    }

    #[test]
    fn hostile_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), file in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = stun::unwrap(&bytes);
        let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        stun.extend(&bytes);
        let _ = stun::unwrap(&stun);
        let _ = secret_of_text(&bytes);
        let _ = key_line(&String::from_utf8_lossy(&bytes));
        prop_assert_eq!(KeyNumber::find(&file, [0; 8]), None);
        let secret = Secret::new(SECRET);
        let mut keys = [key(&secret, AddressPolicy::Any, &["SSH"], Some(0))];
        prop_assert!(judge(&bytes, "203.0.113.9".parse().unwrap(), &mut keys).result.is_err());
    }
}
