//! How tripwires affect a knock, in short examples.

use crate::script::{ACK, Lab, door, host, knock, rules, step};
use knockd_rs::knock::Matching::{self, Strict, Tolerant};
use knockd_rs::knock::Pattern;
use knockd_rs::knock::tripwire::{BanRule, PortRange, Tripwires};
use knockd_rs::matcher::Rules;

fn lab_for(doors: &[Pattern], matching: Matching, tripwires: Tripwires) -> Lab {
    Lab::with(
        doors,
        Rules {
            tripwires,
            ..rules(matching)
        },
    )
}

fn lab() -> Lab {
    let wires = Tripwires::listed(vec![PortRange { low: 1, high: 1023 }]);
    lab_for(&[door("7000,151,9000", 5_000)], Tolerant, wires)
}

#[test]
fn the_second_tripwire_ends_an_attempt_and_one_may_be_chance() {
    for (steps, expected) in [
        ("7000 80 151 9000", "1 2 3 !"),
        ("7000 80 151 81 9000", "1 2 x2"),
        ("7000 80 81 151 9000", "1 x1"),
        ("7000 80:udp 81 151 9000", "1 x1"),
        ("80 81 82 7000 151 9000 80 81", "1 2 3 !"),
        ("7000 80 81 7000 151 9000", "1 x1 1 2 3 !"),
        ("7000 80 7000 81 151 9000", "1 2 3 !"),
    ] {
        let mut lab = lab();
        lab.knocks(steps);
        assert_eq!(lab.take_events(), expected, "{steps}");
    }
}

#[test]
fn one_tripwire_hit_again_and_again_is_one() {
    let mut lab = lab();
    lab.knocks("7000 80 80 80 151 80 9000");
    assert_eq!(lab.take_events(), "1 2 3 !");
}

#[test]
fn only_tcp_syn_without_ack_counts_and_only_where_the_door_is() {
    let mut lab = lab();
    lab.knocks("7000");
    for (id, port) in (0..20).zip(["80", "81", "82"].iter().cycle()) {
        let mut packet = knock(host(2), step(port), id);
        lab.packet(&packet, false);
        packet.flags |= ACK;
        lab.packet(&packet, true);
    }
    lab.knocks("151 9000");
    assert_eq!(lab.take_events(), "1 2 3 !");
}

#[test]
fn tripwires_of_one_source_do_not_touch_another() {
    let mut lab = lab();
    lab.knocks("7000");
    lab.knocks_from(host(3), "7000 80 81 82 83");
    lab.knocks("151 9000");
    assert_eq!(lab.take_events(), "1 1 x1 2 3 !");
}

/// Ports 1 to 1023 are tripwires. The third hit within 5 s bans the source.
fn lab_that_bans(matching: Matching) -> Lab {
    let rules = Rules {
        tripwires: Tripwires::listed(vec![PortRange { low: 1, high: 1023 }]),
        ban: Some(BanRule {
            hits: 3,
            window: 5_000,
        }),
        ..rules(matching)
    };
    Lab::with(&[door("7000,151,9000", 5_000)], rules)
}

#[test]
fn the_third_tripwire_bans_with_or_without_an_attempt() {
    let mut lab = lab_that_bans(Tolerant);
    lab.knocks("80 81 80 81");
    assert_eq!(lab.take_events(), "");
    lab.knocks("7000 82 151 83 9000");
    assert_eq!(lab.take_events(), "1 scanned 2 x2 scanned");
    lab.knocks_from(host(3), "80 81");
    lab.wait(5_000);
    lab.knocks_from(host(3), "82 83");
    assert_eq!(lab.take_events(), "", "too long ago");
    // Some steps of a knock are among the tripwire ports. They never count as hits.
    lab.knocks_from(host(4), "7000 151 9000 7000 151 9000 7000 151 9000");
    assert!(lab.take_events().ends_with("1 2 3 ! 1 2 3 ! 1 2 3 !"));
}

#[test]
fn udp_replies_forwarded_packets_and_strict_matching_ban_no_one() {
    let mut lab = lab_that_bans(Tolerant);
    for (id, port) in (0..).zip(["80", "81", "82", "83", "84"]) {
        let mut packet = knock(host(2), step(port), id);
        lab.packet(&packet, false);
        packet.flags |= ACK;
        lab.packet(&packet, true);
        lab.knocks(&format!("{port}:udp"));
    }
    assert_eq!(lab.take_events(), "");
    let mut lab = lab_that_bans(Strict);
    lab.knocks("80 81 82 83");
    assert_eq!(lab.take_events(), "");
}

#[test]
fn strict_matching_has_none() {
    let wires = Tripwires::listed(vec![PortRange { low: 1, high: 1023 }]);
    let mut lab = lab_for(&[door("7000,151,9000", 5_000)], Strict, wires);
    lab.knocks("7000 80 81 82 151 9000");
    assert_eq!(lab.take_events(), "1 2 3 !");
}

#[test]
fn the_next_sequence_of_a_list_has_its_own_neighbours() {
    let wires = Tripwires::auto(&[], || 1);
    let mut lab = lab_for(&[door("700,800,900", 5_000)], Tolerant, wires);
    lab.knocks("700 701 799 800 900");
    assert_eq!(lab.take_events(), "1 x1");
    lab.matcher
        .set_sequence(0, Some(crate::script::sequence("500,600,650")));
    lab.knocks("500 701 799 600 650");
    assert_eq!(lab.take_events(), "1 2 3 !");
    lab.knocks("500 501 599 600 650");
    assert_eq!(lab.take_events(), "1 x1");
}
