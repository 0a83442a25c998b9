//! Time-outs, one-time sequences, and the time at which the matcher asks to be woken.

use crate::script::{Lab, door, doors_and_packets, host, run, sequence, stranger};
use knockd_rs::knock::Matching::{self, Strict, Tolerant};
use knockd_rs::limits::{FEW_ATTEMPTS, TICK_MS};
use proptest::prelude::*;

const BOTH: [Matching; 2] = [Tolerant, Strict];

#[test]
fn an_idle_matcher_never_wakes() {
    for matching in BOTH {
        let mut lab = Lab::new(&[door("7,8", 5_000)], matching);
        assert_eq!(lab.matcher.next_expiry(), None);
        lab.knocks("7");
        assert_eq!(lab.matcher.next_expiry(), Some(lab.now + 5_000));
        lab.knocks("8");
        assert_eq!(lab.matcher.next_expiry(), None, "after it opened");
        lab.knocks("7");
        lab.wait(5_000);
        assert_eq!(lab.matcher.next_expiry(), None, "after it timed out");
        lab.knocks("7");
        lab.matcher.set_sequence(0, None);
        assert_eq!(lab.matcher.next_expiry(), None, "after it was disabled");
    }
}

#[test]
fn each_attempt_times_out_at_its_own_moment() {
    for matching in BOTH {
        let mut lab = Lab::new(&[door("7,8", 5_000), door("7,9", 3_000)], matching);
        lab.knocks("7");
        lab.wait(1_000);
        lab.knocks_from(host(3), "7");
        assert_eq!(lab.take_events(), "A1 B1 A1 B1");
        lab.wait(1_999);
        assert_eq!(lab.take_events(), "");
        for (wait, expected) in [
            (1, "B~1"),
            (999, ""),
            (1, "B~1"),
            (999, ""),
            (1, "A~1"),
            (1_000, "A~1"),
        ] {
            lab.wait(wait);
            assert_eq!(lab.take_events(), expected);
        }
    }
}

#[test]
fn expire_before_its_time_does_nothing() {
    let mut lab = Lab::new(&[door("7,8", 5_000)], Tolerant);
    lab.knocks("7");
    lab.matcher
        .expire(lab.now + 4_999, &mut |event| panic!("{event:?}"));
    assert_eq!(lab.matcher.next_expiry(), Some(lab.now + 5_000));
}

/// The log lines are then in the order of the events, however late the listener wakes.
#[test]
fn a_knock_first_reports_the_time_outs_of_others() {
    for matching in BOTH {
        let mut lab = Lab::new(&[door("7,8", 5_000)], matching);
        lab.knocks_from(host(3), "7");
        lab.now += 5_000;
        lab.knocks("7");
        assert_eq!(lab.take_events(), "1 ~1 1");
    }
}

#[test]
fn without_time_only_one_step_opens() {
    for matching in BOTH {
        let mut lab = Lab::new(&[door("7,8", 0), door("9", 0)], matching);
        lab.knocks("7");
        assert_eq!(lab.matcher.next_expiry(), Some(lab.now));
        lab.wait(0);
        lab.knocks("8 9");
        assert_eq!(lab.take_events(), "A1 A~1 B1 B!");
        lab.knocks("7 8");
        assert_eq!(lab.take_events(), "A1 A~1");
    }
}

#[test]
fn endless_time_never_ends() {
    for matching in BOTH {
        let mut lab = Lab::new(&[door("7,8", u64::MAX)], matching);
        lab.knocks("7");
        lab.wait(1 << 50);
        lab.knocks("8");
        assert_eq!(lab.take_events(), "1 2 !");
    }
}

/// With many attempts the time-outs can be logged late, but an expired attempt never matches.
#[test]
fn many_deadlines_do_not_cost_a_look_each() {
    for matching in BOTH {
        let mut lab = Lab::new(&[door("7,8", 5_000)], matching);
        let many = 4 * FEW_ATTEMPTS as u32;
        for n in 0..many {
            lab.knocks_from(stranger(n), "7");
            lab.wait(1);
        }
        lab.take_events();
        lab.wait(5_000 - u64::from(many));
        let (mut looks, mut lines) = (0, 0);
        while let Some(due) = lab.matcher.next_expiry() {
            looks += 1;
            lab.wait(due - lab.now);
            lines += lab.events.drain(..).count() as u32;
        }
        assert_eq!(lines, many);
        assert!(
            looks < FEW_ATTEMPTS as u32 + many / TICK_MS as u32,
            "{looks} looks"
        );
        assert_eq!(
            lab.now,
            1_000 + 5_000 + u64::from(many) - 1,
            "the last line is on time"
        );
    }
}

#[test]
fn a_late_line_does_not_make_a_late_knock_good() {
    for matching in BOTH {
        let mut lab = Lab::new(&[door("7,8", 5_000)], matching);
        lab.knocks("7");
        lab.wait(1);
        for n in 0..2 * FEW_ATTEMPTS as u32 {
            lab.knocks_from(stranger(n), "7");
        }
        lab.wait(4_998);
        // Check once now, so that the next check is some time away.
        lab.knocks_from(stranger(9_999), "7");
        lab.take_events();
        lab.now += 1;
        lab.knocks("8");
        assert_eq!(lab.take_events(), "~1");
    }
}

#[test]
fn a_new_sequence_ends_the_attempts_of_its_door_alone() {
    for matching in BOTH {
        let mut lab = Lab::new(&[door("1,2", 5_000), door("1,3", 5_000)], matching);
        for n in 2..6 {
            lab.knocks_from(host(n), "1");
        }
        lab.take_events();
        lab.matcher.set_sequence(0, Some(sequence("3,2,4,5,6,7")));
        assert_eq!(lab.take_events(), "");
        lab.knocks("2");
        assert_eq!(
            lab.take_events(),
            if matching == Strict { "Bx1" } else { "" }
        );
        lab.knocks_from(host(3), "3");
        assert_eq!(lab.take_events(), "B2 B!", "the knock is used up");
        lab.knocks_from(host(9), "3 2 4 5 6 7");
        assert_eq!(lab.take_events(), "A1 A2 A3 A4 A5 A6 A!");
    }
}

#[test]
fn a_door_without_sequence_opens_when_it_gets_the_longest() {
    let steps: Vec<String> = (1..=32).map(|port| port.to_string()).collect();
    for matching in BOTH {
        let mut lab = Lab::new(&[door("1", 5_000)], matching);
        lab.matcher.set_sequence(0, None);
        lab.knocks("1");
        assert_eq!(lab.take_events(), "");
        lab.matcher
            .set_sequence(0, Some(sequence(&steps.join(","))));
        lab.matcher.set_sequence(7, Some(sequence("1")));
        lab.knocks(&steps.join(" "));
        assert!(lab.take_events().ends_with(" 32 !"));
    }
}

proptest! {
    /// Milliseconds since the boot overflow 32 bits after 49 days and 40 bits (as starts are
    /// stored) after 34 years. Seconds overflow 31 and 32 bits after 68 and 136 years.
    #[test]
    fn a_machine_that_has_run_for_long_opens_as_ever(
        (doors, packets) in doors_and_packets(true, true),
        end in prop::sample::select(vec![1u64 << 32, 1 << 40, 1000 << 31, 1000 << 32]),
        ticks in 0u64..500,
    ) {
        let after = |uptime: u64| -> Vec<_> {
            let packets = packets.iter();
            packets.map(|(time, knock, local)| (uptime + time, *knock, *local)).collect()
        };
        for matching in BOTH {
            let soon = run(&doors, matching, &after(1 << 20));
            prop_assert_eq!(soon, run(&doors, matching, &after(end - ticks * TICK_MS)));
        }
    }
}
