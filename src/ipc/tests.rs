//! Records survive encoding and decoding, and other bytes are refused.

use super::*;
use crate::knock::{FlagRule, Protocol};
use crate::limits::{MAX_STATUS_ADDRESSES, MAX_STEPS};
use crate::util::quote::is_deceptive;
use proptest::prelude::*;

fn ip() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>()
}

/// Text as a correct listener sends it.
fn text(most: usize) -> impl Strategy<Value = String> {
    let text = prop::collection::vec(any::<char>(), 0..=most);
    let fit = |text: Vec<char>| text.into_iter().filter(|it| !is_deceptive(*it)).collect();
    text.prop_map(fit)
}

fn step() -> impl Strategy<Value = Step> {
    (any::<bool>(), any::<u16>()).prop_map(|(udp, port)| Step {
        protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
        port,
    })
}

fn sequence() -> impl Strategy<Value = Option<Sequence>> {
    prop::collection::vec(step(), 0..=MAX_STEPS).prop_map(|steps| Sequence::new(&steps))
}

fn progress() -> impl Strategy<Value = Progress> {
    (any::<u16>(), ip(), any::<u8>()).prop_map(|(door, source, stage)| Progress {
        door,
        source,
        stage,
    })
}

fn tripwire() -> impl Strategy<Value = Tripwire<u16>> {
    prop_oneof![
        Just(Tripwire::None),
        Just(Tripwire::Auto),
        any::<u16>().prop_map(Tripwire::Ports),
    ]
}

fn ban() -> impl Strategy<Value = Option<BanRule>> {
    let rule = (1u8.., any::<u64>()).prop_map(|(hits, window)| BanRule { hits, window });
    prop::option::of(rule)
}

fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
    let range = any::<(u16, u16)>().prop_map(|(low, high)| PortRange { low, high });
    prop::collection::vec(range, 0..=RANGES_AT_ONCE)
}

fn to_listener() -> impl Strategy<Value = ToListener> {
    let setup = (
        any::<(u16, [bool; 5], u32, u16)>(),
        tripwire(),
        ban(),
        text(40),
    )
        .prop_map(
            |(
                (
                    doors,
                    [strict, only_ip_v4, verbose, debug, wait_for_interfaces],
                    log_rate,
                    max_attempts,
                ),
                tripwire,
                ban,
                interface,
            )| {
                ToListener::Setup(Setup {
                    doors,
                    matching: if strict {
                        Matching::Strict
                    } else {
                        Matching::Tolerant
                    },
                    max_attempts,
                    tripwire,
                    ban,
                    only_ip_v4,
                    verbose,
                    debug,
                    log_rate,
                    wait_for_interfaces,
                    interface,
                })
            },
        );
    let door = (
        sequence(),
        any::<(u64, u8, u8, bool)>(),
        prop::option::of(ip()),
    )
        .prop_map(
            |(sequence, (seq_timeout, set, clear, one_time), target)| ToListener::Door {
                pattern: Pattern {
                    sequence,
                    seq_timeout,
                    flags: FlagRule { set, clear },
                    target,
                },
                one_time,
            },
        );
    let next = (any::<(u16, u32)>(), sequence()).prop_map(|((door, generation), sequence)| {
        ToListener::Sequence {
            door,
            generation,
            sequence,
        }
    });
    let ranges = ranges().prop_map(ToListener::Tripwires);
    prop_oneof![
        setup,
        door,
        ranges,
        Just(ToListener::Start),
        Just(ToListener::Report),
        next
    ]
}

fn to_keeper() -> impl Strategy<Value = ToKeeper> {
    let seen = (ip(), ip(), step(), any::<(u8, u16, u32)>()).prop_map(
        |(source, destination, step, (flags, source_port, serial))| {
            ToKeeper::Seen(Knock {
                source,
                destination,
                step,
                flags,
                source_port,
                serial,
            })
        },
    );
    prop_oneof![
        any::<bool>().prop_map(|listens| ToKeeper::Ready { listens }),
        text(50).prop_map(ToKeeper::Refused),
        progress().prop_map(ToKeeper::Stage),
        (any::<(u16, u32)>(), ip()).prop_map(|((door, generation), source)| {
            ToKeeper::Opened {
                door,
                source,
                generation,
            }
        }),
        ip().prop_map(ToKeeper::Scanned),
        progress().prop_map(ToKeeper::TimedOut),
        progress().prop_map(ToKeeper::Failed),
        any::<u32>().prop_map(ToKeeper::LeftOut),
        text(50).prop_map(ToKeeper::Notice),
        text(50).prop_map(ToKeeper::Problem),
        text(50).prop_map(ToKeeper::Debug),
        seen,
        interface().prop_map(ToKeeper::Interface),
        any::<Counters>().prop_map(ToKeeper::Counters),
    ]
}

fn interface() -> impl Strategy<Value = Interface> {
    let addresses = prop::collection::vec(ip(), 0..=MAX_STATUS_ADDRESSES);
    // The longest selector is a name, a colon and a label.
    (text(31), text(15), addresses, any::<u16>()).prop_map(|(wanted, name, addresses, more)| {
        Interface {
            wanted,
            name,
            addresses,
            more,
        }
    })
}

proptest! {
    #[test]
    fn records_to_the_listener_come_back_as_they_were(record in to_listener()) {
        prop_assert_eq!(ToListener::decode(&record.clone().encode()), Some(record));
    }

    #[test]
    fn records_to_the_keeper_come_back_as_they_were(record in to_keeper()) {
        prop_assert_eq!(ToKeeper::decode(&record.clone().encode()), Some(record));
    }

    #[test]
    fn cut_or_longer_records_are_refused(record in to_keeper(), cut in 1usize..8) {
        let mut bytes = record.encode().to_vec();
        bytes.push(0);
        prop_assert_eq!(ToKeeper::decode(&bytes), None);
        bytes.truncate(bytes.len().saturating_sub(1 + cut));
        prop_assert_eq!(ToKeeper::decode(&bytes), None);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..MAX_RECORD)) {
        let _ = ToKeeper::decode(&bytes);
        let _ = ToListener::decode(&bytes);
    }
}

#[test]
fn text_that_could_forge_a_log_line_is_refused() {
    for text in [
        "eth0 is gone\n10.9.0.2: SSH: OPEN SESAME",
        "\u{202e}x",
        "\u{2028}x",
    ] {
        let record = ToKeeper::Notice(text.to_string());
        assert_eq!(ToKeeper::decode(&record.encode()), None, "{text:?}");
    }
}

#[test]
fn text_that_is_longer_than_its_record_is_refused() {
    let mut bytes = ToKeeper::Notice("x".repeat(MAX_TEXT)).encode();
    assert!(ToKeeper::decode(&bytes).is_some());
    bytes[2] += 1;
    assert_eq!(ToKeeper::decode(&bytes), None);
}

#[test]
fn the_longest_records_fit() {
    let text = "x".repeat(MAX_TEXT + 1);
    let setup = ToListener::Setup(Setup {
        doors: 1,
        matching: Matching::Strict,
        max_attempts: 1,
        tripwire: Tripwire::Ports(1),
        ban: Some(BanRule { hits: 3, window: 1 }),
        only_ip_v4: true,
        verbose: true,
        debug: true,
        log_rate: 1,
        wait_for_interfaces: false,
        interface: text,
    });
    let Some(ToListener::Setup(Setup { interface, .. })) = ToListener::decode(&setup.encode())
    else {
        panic!("the longest setup does not come back");
    };
    assert_eq!(interface.len(), MAX_TEXT);
    assert!(interface.ends_with("xx..."), "a cut shows: {interface}");
}
