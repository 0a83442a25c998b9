//! The default rule in short examples.

use crate::script::{ACK, Lab, door, host, knock, step};
use knockd_rs::knock::Matching::Tolerant;
use knockd_rs::limits::{FIRST_COPY_MS, MAX_STRAYS};

fn lab(steps: &str) -> Lab {
    Lab::new(&[door(steps, 5_000)], Tolerant)
}

/// Checks the events when `steps` are knocked at a door with `sequence`.
#[track_caller]
fn assert_events(sequence: &str, steps: &str, expected: &str) {
    let mut lab = lab(sequence);
    lab.knocks(steps);
    assert_eq!(lab.take_events(), expected, "{sequence}: {steps}");
}

#[test]
fn the_sequence_in_order_opens_and_is_forgotten() {
    assert_events("7000,8000,9000", "7000 8000 9000", "1 2 3 !");
    assert_events("7000,8000,9000", "7000 8000 9000 9000", "1 2 3 !");
    assert_events(
        "7000,8000,9000",
        "7000 8000 9000 7000 8000 9000",
        "1 2 3 ! 1 2 3 !",
    );
    assert_events("7,7:udp", "7 7:udp", "1 2 !");
}

#[test]
fn another_order_does_not_open() {
    assert_events("7000,8000,9000", "7000 9000 8000", "1 2");
    assert_events("7000,8000,9000", "9000 8000 7000", "1");
}

#[test]
fn a_door_of_one_step_opens_on_every_knock() {
    assert_events("1000", "1000 1000", "1 ! 1 !");
    let mut lab = lab("1000");
    lab.knocks("1000");
    assert_eq!(lab.matcher.next_expiry(), None, "nothing is remembered");
}

#[test]
fn repeats_are_ignored_and_report_nothing() {
    assert_events("7000,8000,9000", "7000 7000 8000 8000 9000", "1 2 3 !");
    assert_events(
        "7000,8000,9000",
        "7000 8000 8000 8000 8000 8000 9000",
        "1 2 3 !",
    );
    assert_events("1,1,2", "1 1 1 1 2", "1 2 3 !");
    assert_events("7,8,7,9", "7 8 7 7 9", "1 2 3 4 !");
}

#[test]
fn a_false_start_is_forgiven() {
    assert_events("7000,8000,9000", "7000 8000 7000 8000 9000", "1 2 1 2 3 !");
    assert_events(
        "7000,8000,9000,5",
        "7000 8000 9000 7000 8000 9000 5",
        "1 2 3 1 2 3 4 !",
    );
    assert_events("1,1,2,3", "1 1 2 1 1 2 3", "1 2 3 2 3 4 !");
}

#[test]
fn strays_up_to_the_bound_are_forgiven() {
    assert_eq!(MAX_STRAYS, 2);
    assert_events("7,8,9,10", "7 8 10 10 9 10", "1 2 3 4 !");
    assert_events("7,8,9,10", "7 8 10 10 10 9 10", "1 2 x2");
    assert_events("7,8,9,10", "7 8 10 10 10 7 8 9 10", "1 2 x2 1 2 3 4 !");
}

#[test]
fn only_the_doors_own_ports_count() {
    let doors = [door("1,2,3", 5_000), door("5,6", 5_000)];
    let mut lab = Lab::new(&doors, Tolerant);
    lab.knocks("1 6 6 6 6 2 6 3");
    assert_eq!(lab.take_events(), "A1 A2 A3 A!");
    lab.knocks("1 1:udp 2:udp 2 3");
    assert_eq!(lab.take_events(), "A1 A2 A3 A!");
}

#[test]
fn unfit_flags_and_other_destinations_do_not_count() {
    let mut lab = lab("7,8,9");
    lab.knocks("7 8");
    for id in 100..110 {
        let mut packet = knock(host(2), step("7"), id);
        packet.flags = ACK;
        lab.packet(&packet, true);
        lab.packet(&knock(host(2), step("7"), id), false);
    }
    lab.knocks("9");
    assert_eq!(lab.take_events(), "1 2 3 !");
}

#[test]
fn doors_with_a_common_beginning_advance_together_in_the_order_of_the_config() {
    let doors = [
        door("1,2", 5_000),
        door("1,2,3", 5_000),
        door("1", 5_000),
        door("1,2", 5_000),
    ];
    let mut lab = Lab::new(&doors, Tolerant);
    lab.knocks("1");
    assert_eq!(lab.take_events(), "A1 B1 C1 C! D1");
    lab.knocks("2");
    assert_eq!(lab.take_events(), "A2 A! B2 D2 D!");
    lab.knocks("3");
    assert_eq!(lab.take_events(), "B3 B!");
}

fn assert_events_at(doors: &[&str], steps: &str, expected: &str) {
    let patterns: Vec<_> = doors.iter().map(|steps| door(steps, 5_000)).collect();
    let mut lab = Lab::new(&patterns, Tolerant);
    lab.knocks(steps);
    assert_eq!(lab.take_events(), expected, "{doors:?}: {steps}");
}

#[test]
fn a_knock_that_has_opened_a_door_is_used_up() {
    // The 9 that opens A does not start B.
    assert_events_at(&["7,8,9", "9,8,7"], "7 8 9", "A1 A2 A3 A!");
    assert_events_at(&["7,8,9", "9,8,7"], "7 8 9 8 7", "A1 A2 A3 A! A1");
}

#[test]
fn closing_again_and_again_never_opens() {
    assert_events_at(
        &["7,8,9", "9,8,7"],
        "9 8 7 9 8 7 9 8 7",
        "B1 B2 B3 B! B1 B2 B3 B! B1 B2 B3 B!",
    );
    assert_events_at(
        &["1,2,3", "2,3,1"],
        "2 3 1 2 3 1",
        "B1 B2 B3 B! B1 B2 B3 B!",
    );
}

#[test]
fn a_door_within_another_is_withheld_while_the_others_attempt_fits() {
    assert_events_at(&["2,3", "1,2,3,4"], "1 2 3 4", "B1 A1 B2 Ax1 B3 B4 B!");
    assert_events_at(
        &["2,3", "1,2,3,4"],
        "1 2 3 2 3",
        "B1 A1 B2 Ax1 B3 A1 A2 A! Bx3",
    );
    assert_events_at(&["2", "1,2,3"], "1 2 3 2", "B1 B2 B3 B! A1 A!");
}

#[test]
fn a_longer_door_goes_on_when_its_beginning_has_opened() {
    assert_events_at(&["1,2", "1,2,3"], "1 2 3", "A1 B1 A2 A! B2 B3 B!");
    // AfterStop two wrong knocks are forgiven, including repeats.
    assert_events_at(&["1,2", "1,2,3"], "1 2 2 2 3", "A1 B1 A2 A! B2 B3 B!");
    assert_events_at(&["1,2", "1,2,3"], "1 2 2 2 2 3", "A1 B1 A2 A! B2 Bx2");
}

#[test]
fn an_opening_at_another_address_uses_up_nothing() {
    let other = "10.9.0.99".parse().expect("an address");
    let doors = [
        knockd_rs::knock::Pattern {
            target: Some(other),
            ..door("7,8", 5_000)
        },
        door("7,8", 5_000),
    ];
    let mut lab = Lab::new(&doors, Tolerant);
    for (id, (port, elsewhere)) in (1..).zip([("7", true), ("7", false), ("8", true), ("8", false)])
    {
        let mut packet = knock(host(2), step(port), id);
        if elsewhere {
            packet.destination = other;
        }
        lab.packet(&packet, !elsewhere);
    }
    assert_eq!(lab.take_events(), "A1 B1 A2 A! B2 B!");
}

/// The second SYN to a port counts; copies of the first one do not.
#[test]
fn a_retransmission_is_no_second_knock() {
    let mut lab = Lab::new(&[door("22,22,80", 60_000)], Tolerant);
    let first = knock(host(2), step("22"), 7);
    lab.packet(&first, true);
    // The kernel retransmits 1, 3, 7, 15 and 31 s after the first packet, slightly late.
    for pause in [1_020, 2_040, 4_080, 8_160, 16_320] {
        lab.wait(pause);
        lab.packet(&first, true);
    }
    assert_eq!(lab.take_events(), "1");
    lab.packet(&knock(host(2), step("22"), 8), true);
    lab.packet(&knock(host(2), step("80"), 9), true);
    assert_eq!(lab.take_events(), "2 3 !");
}

/// The router drops SYNs, so the first port is retransmitted while the others are knocked and after
/// the door has opened.
#[test]
fn copies_of_every_step_never_count() {
    let doors = [
        door("7,8,9", 15_000),
        door("9,8,7", 15_000),
        door("8", 15_000),
    ];
    let mut lab = Lab::new(&doors[..2], Tolerant);
    let packets = ["7", "8", "9"].map(step);
    for pause in [0, 1_000, 2_000, 4_000, 8_000] {
        lab.wait(pause);
        for (id, step) in (1..).zip(packets) {
            lab.packet(&knock(host(2), step, id), true);
        }
    }
    assert_eq!(lab.take_events(), "A1 A2 A3 A!");
    let mut lab = Lab::new(&doors[2..], Tolerant);
    for _ in 0..3 {
        lab.packet(&knock(host(2), packets[1], 1), true);
    }
    assert_eq!(lab.take_events(), "1 !", "at a door of one step, too");
}

#[test]
fn what_differs_in_ports_or_serial_or_comes_late_is_no_copy() {
    let first = knock(host(2), step("22"), 7);
    let other_port = knockd_rs::knock::Knock {
        source_port: 9,
        ..first
    };
    let other_serial = knockd_rs::knock::Knock { serial: 9, ..first };
    let wait = u64::from(FIRST_COPY_MS);
    for (second, wait, expected) in [
        (first, wait, "1"),
        (first, wait + 1, "1 2 !"),
        (other_port, 0, "1 2 !"),
        (other_serial, 0, "1 2 !"),
    ] {
        let mut lab = lab("22,22");
        lab.packet(&first, true);
        lab.wait(wait);
        lab.packet(&second, true);
        assert_eq!(lab.take_events(), expected);
    }
}

#[test]
fn a_copy_comes_at_most_seven_times_the_longest_pause_or_70_s_after_the_last() {
    let mut lab = Lab::new(&[door("22,22", 200_000)], Tolerant);
    let packet = knock(host(2), step("22"), 7);
    lab.packet(&packet, true);
    for (pause, expected) in [
        (1_000, ""),
        (7_100, ""),
        (49_000, ""),
        (70_000, ""),
        (70_001, "2 !"),
    ] {
        lab.take_events();
        lab.wait(pause);
        lab.packet(&packet, true);
        assert_eq!(lab.take_events(), expected, "{pause} ms");
    }
}

/// hping3 and others always send serial 0; UDP over IPv6 has no serial.
#[test]
fn packets_without_a_serial_are_knocks_each() {
    let mut packet = knock(host(2), step("22:udp"), 7);
    packet.serial = 0;
    let mut lab = lab("22:udp,22:udp,151,15:udp");
    lab.packet(&packet, true);
    lab.packet(&packet, true);
    lab.knocks("151 15:udp");
    assert_eq!(lab.take_events(), "1 2 3 4 !");
    packet = knock(host(2), step("22"), 7);
    packet.serial = 0;
    let mut lab = self::lab("22,22");
    lab.packet(&packet, true);
    lab.packet(&packet, true);
    assert_eq!(lab.take_events(), "1 2 !");
}

#[test]
fn copies_over_ipv6_are_recognised_by_address_and_sequence_number() {
    let mut lab = lab("22,22");
    let source = "2001:db8::9".parse().expect("an address");
    let near = "2001:db8::a".parse().expect("an address");
    let packet = knock(source, step("22"), 7);
    lab.packet(&packet, true);
    lab.packet(&packet, true);
    assert_eq!(lab.take_events(), "1");
    lab.packet(&knock(near, step("22"), 7), true);
    assert_eq!(lab.take_events(), "1", "another host with the same numbers");
    lab.packet(&knock(source, step("22"), 8), true);
    assert_eq!(lab.take_events(), "2 !");
}

#[test]
fn a_udp_packet_is_recognised_by_its_ip_identification() {
    let mut lab = lab("22:udp,22:udp,15:udp");
    let packet = knock(host(2), step("22:udp"), 7);
    lab.packet(&packet, true);
    lab.packet(&packet, true);
    assert_eq!(lab.take_events(), "1");
    lab.knocks("22:udp 15:udp");
    assert_eq!(lab.take_events(), "2 3 !");
}

#[test]
fn time_runs_from_the_first_knock_that_is_kept() {
    let mut lab = lab("7,8,9");
    lab.knocks("7");
    lab.wait(4_000);
    lab.knocks("7 8");
    lab.wait(4_999);
    lab.knocks("9");
    assert_eq!(
        lab.take_events(),
        "1 2 3 !",
        "the first 7 was too old, the second was not"
    );
    lab.knocks("7 8");
    lab.wait(5_000);
    lab.knocks("9");
    assert_eq!(lab.take_events(), "1 2 ~2");
}

#[test]
fn the_last_reported_stage_times_out_on_time() {
    let mut lab = lab("1,1,2,3");
    lab.knocks("1");
    lab.wait(1_000);
    lab.knocks("1 2");
    lab.wait(3_999);
    assert_eq!(lab.take_events(), "1 2 3");
    lab.wait(1);
    assert_eq!(lab.take_events(), "~3");
    // The second 1 can still be the first knock.
    lab.knocks("1");
    assert_eq!(lab.take_events(), "2");
    lab.wait(1_000);
    assert_eq!(lab.take_events(), "~2");
    lab.wait_for_all();
    assert_eq!(lab.take_events(), "", "the rest was never reported");
}

#[test]
fn sources_and_address_families_are_apart() {
    let mut lab = lab("7,8");
    lab.knocks_from(host(2), "7");
    lab.knocks_from("::ffff:10.9.0.2".parse().expect("an address"), "8");
    lab.knocks_from(host(3), "8");
    assert_eq!(lab.take_events(), "1");
    lab.knocks_from(host(2), "8");
    assert_eq!(lab.take_events(), "2 !");
}

#[test]
fn thirty_two_steps_open() {
    let steps: Vec<String> = (1..=32).map(|port| port.to_string()).collect();
    let mut lab = lab(&steps.join(","));
    lab.knocks(&steps.join(" "));
    assert!(lab.take_events().ends_with(" 31 32 !"));
    let mut lab = self::lab(&vec!["1"; 32].join(","));
    lab.knocks(&vec!["1"; 32].join(" "));
    assert!(lab.take_events().ends_with(" 31 32 !"));
}
