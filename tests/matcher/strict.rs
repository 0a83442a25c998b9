//! Behaviour of the strict rule that the recorded cases do not cover.

use crate::script::{ACK, Lab, door, host, knock, step};
use knockd_rs::knock::Matching::Strict;
use knockd_rs::knock::{Knock, Pattern};

#[test]
fn a_wrong_knock_fails_all_attempts_and_is_swallowed() {
    let mut lab = Lab::new(
        &[door("1,2,3", 5_000), door("1,2,4", 5_000), door("5", 5_000)],
        Strict,
    );
    lab.knocks("1 5");
    assert_eq!(lab.take_events(), "A1 B1 Ax1 Bx1");
    lab.knocks("5 1 2 1 2 3");
    assert_eq!(lab.take_events(), "C1 C! A1 B1 A2 B2 Ax2 Bx2");
}

#[test]
fn a_knock_with_flags_that_do_not_fit_my_door_is_ignored_but_starts_no_other() {
    let any_flags = Pattern {
        flags: Default::default(),
        ..door("5,6", 5_000)
    };
    let mut lab = Lab::new(&[door("1,2,3", 5_000), any_flags], Strict);
    lab.knocks("1");
    lab.packet(
        &Knock {
            flags: ACK,
            ..knock(host(2), step("5"), 99)
        },
        true,
    );
    lab.knocks("2 3");
    assert_eq!(lab.take_events(), "A1 A2 A3 A!");
    lab.packet(
        &Knock {
            flags: ACK,
            ..knock(host(2), step("5"), 99)
        },
        true,
    );
    assert_eq!(lab.take_events(), "B1");
}

#[test]
fn attempts_at_doors_with_another_target_do_not_swallow() {
    let target = Pattern {
        target: Some(host(99)),
        ..door("7,8", 5_000)
    };
    let mut lab = Lab::new(&[target, door("7,8", 5_000)], Strict);
    let away = |text, id| Knock {
        destination: host(99),
        ..knock(host(2), step(text), id)
    };
    lab.packet(&away("7", 1), false);
    lab.knocks("7 7");
    lab.packet(&away("8", 2), false);
    assert_eq!(lab.take_events(), "A1 B1 Bx1 A2 A!");
}

#[test]
fn a_copy_is_a_knock() {
    let mut lab = Lab::new(&[door("7,8", 5_000)], Strict);
    lab.packet(&knock(host(2), step("7"), 1), true);
    lab.packet(&knock(host(2), step("7"), 1), true);
    assert_eq!(lab.take_events(), "1 x1");
}

#[test]
fn time_is_exact() {
    let mut lab = Lab::new(&[door("7,8", 2_000)], Strict);
    lab.knocks("7");
    lab.wait(1_999);
    lab.knocks("8 7");
    lab.wait(2_000);
    lab.knocks("8");
    assert_eq!(lab.take_events(), "1 2 ! 1 ~1");
}
