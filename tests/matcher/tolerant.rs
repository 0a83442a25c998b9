//! The default rule in small stories.

use crate::script::{ACK, Lab, door, host, knock, step};
use knockd_rs::door::Matching::Tolerant;
use knockd_rs::limits::{MAX_STRAYS, RETRANSMISSION_MS};

fn lab(steps: &str) -> Lab {
    Lab::new(&[door(steps, 5_000)], Tolerant)
}

/// What is told when these steps are knocked at a door with that sequence.
#[track_caller]
fn assert_told(sequence: &str, steps: &str, told: &str) {
    let mut lab = lab(sequence);
    lab.knocks(steps);
    assert_eq!(lab.told(), told, "{sequence}: {steps}");
}

#[test]
fn the_sequence_in_order_opens_and_is_forgotten() {
    assert_told("7000,8000,9000", "7000 8000 9000", "1 2 3 !");
    assert_told("7000,8000,9000", "7000 8000 9000 9000", "1 2 3 !");
    assert_told(
        "7000,8000,9000",
        "7000 8000 9000 7000 8000 9000",
        "1 2 3 ! 1 2 3 !",
    );
    assert_told("7,7:udp", "7 7:udp", "1 2 !");
}

#[test]
fn another_order_does_not_open() {
    assert_told("7000,8000,9000", "7000 9000 8000", "1 2");
    assert_told("7000,8000,9000", "9000 8000 7000", "1");
}

#[test]
fn a_door_of_one_step_opens_on_every_knock() {
    assert_told("1000", "1000 1000", "1 ! 1 !");
    let mut lab = lab("1000");
    lab.knocks("1000");
    assert_eq!(lab.matcher.next_expiry(), None, "nothing is remembered");
}

#[test]
fn repeats_are_ignored_and_tell_nothing() {
    assert_told("7000,8000,9000", "7000 7000 8000 8000 9000", "1 2 3 !");
    assert_told(
        "7000,8000,9000",
        "7000 8000 8000 8000 8000 8000 9000",
        "1 2 3 !",
    );
    assert_told("1,1,2", "1 1 1 1 2", "1 2 3 !");
    assert_told("7,8,7,9", "7 8 7 7 9", "1 2 3 4 !");
}

#[test]
fn a_false_start_is_forgiven() {
    assert_told("7000,8000,9000", "7000 8000 7000 8000 9000", "1 2 1 2 3 !");
    assert_told(
        "7000,8000,9000,5",
        "7000 8000 9000 7000 8000 9000 5",
        "1 2 3 1 2 3 4 !",
    );
    assert_told("1,1,2,3", "1 1 2 1 1 2 3", "1 2 3 2 3 4 !");
}

#[test]
fn strays_up_to_the_bound_are_forgiven() {
    assert_eq!(MAX_STRAYS, 2);
    assert_told("7,8,9,10", "7 8 10 10 9 10", "1 2 3 4 !");
    assert_told("7,8,9,10", "7 8 10 10 10 9 10", "1 2 x2");
    assert_told("7,8,9,10", "7 8 10 10 10 7 8 9 10", "1 2 x2 1 2 3 4 !");
}

#[test]
fn only_the_doors_own_ports_count() {
    let doors = [door("1,2,3", 5_000), door("5,6", 5_000)];
    let mut lab = Lab::new(&doors, Tolerant);
    lab.knocks("1 6 6 6 6 2 6 3");
    assert_eq!(lab.told(), "A1 A2 A3 A!");
    lab.knocks("1 1:udp 2:udp 2 3");
    assert_eq!(lab.told(), "A1 A2 A3 A!");
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
    assert_eq!(lab.told(), "1 2 3 !");
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
    assert_eq!(lab.told(), "A1 B1 C1 C! D1");
    lab.knocks("2");
    assert_eq!(lab.told(), "A2 A! B2 D2 D!");
    lab.knocks("3");
    assert_eq!(lab.told(), "B3 B!");
}

#[test]
fn a_knock_that_opens_one_door_starts_another() {
    let mut lab = Lab::new(&[door("7,8,9", 5_000), door("9,8,7", 5_000)], Tolerant);
    lab.knocks("7 8 9");
    assert_eq!(
        lab.told(),
        "A1 A2 A3 A! B1",
        "the knock 8 came before the 9 that starts B"
    );
    lab.knocks("8 7");
    assert_eq!(lab.told(), "B2 A1 B3 B!");
}

/// The second SYN to the same port counts, copies of the first do not.
#[test]
fn a_retransmission_is_no_second_knock() {
    let mut lab = lab("22,22,80");
    let first = knock(host(2), step("22"), 7);
    lab.packet(&first, true);
    // The kernel sends again 1 s and 3 s after the first, and a little late.
    lab.wait(1_020);
    lab.packet(&first, true);
    lab.wait(2_040);
    lab.packet(&first, true);
    assert_eq!(lab.told(), "1");
    lab.packet(&knock(host(2), step("22"), 8), true);
    lab.packet(&knock(host(2), step("80"), 9), true);
    assert_eq!(lab.told(), "2 3 !");
}

#[test]
fn what_differs_in_ports_or_sequence_number_or_comes_late_is_no_retransmission() {
    let first = knock(host(2), step("22"), 7);
    let other_port = knockd_rs::door::Knock {
        source_port: 9,
        ..first
    };
    let other_sequence = knockd_rs::door::Knock {
        tcp_sequence: 9,
        ..first
    };
    for (second, wait, told) in [
        (first, RETRANSMISSION_MS, "1"),
        (first, RETRANSMISSION_MS + 1, "1 2 !"),
        (other_port, 0, "1 2 !"),
        (other_sequence, 0, "1 2 !"),
    ] {
        let mut lab = lab("22,22");
        lab.packet(&first, true);
        lab.wait(wait);
        lab.packet(&second, true);
        assert_eq!(lab.told(), told);
    }
}

#[test]
fn equal_udp_packets_are_knocks_each() {
    let mut lab = lab("22:udp,22:udp,151,15:udp");
    let packet = knock(host(2), step("22:udp"), 7);
    lab.packet(&packet, true);
    lab.packet(&packet, true);
    lab.knocks("151 15:udp");
    assert_eq!(lab.told(), "1 2 3 4 !");
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
        lab.told(),
        "1 2 3 !",
        "the first 7 was too old, the second was not"
    );
    lab.knocks("7 8");
    lab.wait(5_000);
    lab.knocks("9");
    assert_eq!(lab.told(), "1 2 ~2");
}

#[test]
fn what_was_told_last_times_out_at_its_moment() {
    let mut lab = lab("1,1,2,3");
    lab.knocks("1");
    lab.wait(1_000);
    lab.knocks("1 2");
    lab.wait(3_999);
    assert_eq!(lab.told(), "1 2 3");
    lab.wait(1);
    assert_eq!(lab.told(), "~3");
    // The second 1 can still be the first knock.
    lab.knocks("1");
    assert_eq!(lab.told(), "2");
    lab.wait(1_000);
    assert_eq!(lab.told(), "~2");
    lab.wait_for_all();
    assert_eq!(lab.told(), "", "what is left was never told");
}

#[test]
fn sources_and_address_families_are_apart() {
    let mut lab = lab("7,8");
    lab.knocks_from(host(2), "7");
    lab.knocks_from("::ffff:10.9.0.2".parse().expect("an address"), "8");
    lab.knocks_from(host(3), "8");
    assert_eq!(lab.told(), "1");
    lab.knocks_from(host(2), "8");
    assert_eq!(lab.told(), "2 !");
}

#[test]
fn thirty_two_steps_open() {
    let steps: Vec<String> = (1..=32).map(|port| port.to_string()).collect();
    let mut lab = lab(&steps.join(","));
    lab.knocks(&steps.join(" "));
    assert!(lab.told().ends_with(" 31 32 !"));
    let mut lab = self::lab(&vec!["1"; 32].join(","));
    lab.knocks(&vec!["1"; 32].join(" "));
    assert!(lab.told().ends_with(" 31 32 !"));
}
