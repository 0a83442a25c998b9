//! Tests of the oracle alone: it must find all violations and nothing else. (`cargo test` has no
//! harness here, so main runs them.)

use super::*;

/// Lists the tests with their names.
macro_rules! tests {
    ($($test:ident),*,) => {
        pub const TESTS: &[(&str, fn())] = &[$((stringify!($test), $test)),*];
    };
}

tests! {
    a_door_without_a_knock_is_closed,
    a_certain_knock_opens_until_its_deadline,
    two_rules_are_never_right,
    an_uncertain_knock_may_open_and_must_close,
    a_knock_that_renews_keeps_it_open,
    a_look_that_took_long_proves_less,
    load_makes_the_bounds_wider_for_a_while,
    slow_commands_have_their_time,
    a_knock_waits_for_the_commands_of_an_earlier_one_of_its_source,
    a_kill_leaves_what_was_open,
    a_kill_at_a_start_command_promises_nothing,
    what_was_closed_at_a_kill_stays_closed,
    a_daemon_that_is_started_late_closes_expired_doors,
    a_flush_with_usr1_comes_back_and_keeps_the_deadline,
    a_kill_soon_after_usr1_promises_nothing,
    usr1_does_not_open_what_is_closed,
    term_closes_all_but_what_it_says,
    all_is_closed_when_every_deadline_is_over,
    a_command_runs_once_for_each_knock,
}

const KEY: Key = Key { door: 0, source: 3 };
const SLOW: Key = Key { door: 1, source: 3 };

fn model() -> Model {
    let plain = Times {
        lease: 8000,
        start: 0,
        stop: 0,
        fails: false,
    };
    let slow = Times {
        lease: 8000,
        start: 500,
        stop: 700,
        fails: false,
    };
    let mut model = Model::new(vec![plain, slow]);
    model.apply(0, &Event::Ready);
    model
}

fn knock(model: &mut Model, key: Key, certain: bool, at: Ms) {
    let sent = at + 1;
    model.apply(at, &Event::Knocked { key, certain, sent });
}

fn expected(model: &Model, at: Ms) -> Expected {
    model.expected(KEY, at, at)
}

fn violations(model: &mut Model, at: Ms, rules: usize) -> usize {
    let rules = if rules == 0 { None } else { Some((KEY, rules)) };
    let seen = Seen {
        from: at,
        to: at,
        rules: rules.into_iter().collect(),
    };
    model.judge(&seen).len()
}

fn a_door_without_a_knock_is_closed() {
    let mut model = model();
    assert_eq!(expected(&model, 5000), Expected::Closed);
    assert_eq!(violations(&mut model, 5000, 1), 1);
    assert_eq!(violations(&mut model, 5000, 0), 0);
}

fn a_certain_knock_opens_until_its_deadline() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    assert_eq!(expected(&model, 999 + OPEN_WITHIN), Expected::Either);
    assert_eq!(expected(&model, 1001 + OPEN_WITHIN), Expected::Open);
    assert_eq!(expected(&model, 9001), Expected::Open);
    assert_eq!(expected(&model, 9002), Expected::Either);
    assert_eq!(expected(&model, 9001 + CLOSE_WITHIN), Expected::Either);
    assert_eq!(expected(&model, 9002 + CLOSE_WITHIN), Expected::Closed);
    assert_eq!(violations(&mut model, 5000, 0), 1);
    assert_eq!(violations(&mut model, 5000, 1), 0);
    assert_eq!(violations(&mut model, 12000, 1), 1, "left open");
}

fn two_rules_are_never_right() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    for at in [1001, 5000, 9500, 15000] {
        assert_eq!(violations(&mut model, at, 2), 1);
    }
}

fn an_uncertain_knock_may_open_and_must_close() {
    let mut model = model();
    knock(&mut model, KEY, false, 1000);
    assert_eq!(expected(&model, 5000), Expected::Either);
    assert_eq!(expected(&model, 20000), Expected::Closed);
}

fn a_knock_that_renews_keeps_it_open() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    knock(&mut model, KEY, true, 7000);
    assert_eq!(expected(&model, 8000), Expected::Open);
    assert_eq!(expected(&model, 15000), Expected::Open);
    assert_eq!(expected(&model, 20000), Expected::Closed);
}

fn a_look_that_took_long_proves_less() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    assert_eq!(model.expected(KEY, 2000, 5000), Expected::Either);
    assert_eq!(model.expected(KEY, 5000, 9100), Expected::Either);
    assert_eq!(model.expected(KEY, 9100, 30000), Expected::Either);
}

fn load_makes_the_bounds_wider_for_a_while() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    model.apply(3000, &Event::Load(100));
    assert_eq!(expected(&model, 3000), Expected::Either);
    assert_eq!(
        expected(&model, 1001 + OPEN_WITHIN + 100 * LOAD_FACTOR),
        Expected::Open
    );
    model.apply(3001 + LOAD_MEMORY, &Event::Load(1));
    assert_eq!(model.load(), LOAD_FACTOR);
}

fn slow_commands_have_their_time() {
    let mut model = model();
    knock(&mut model, SLOW, true, 1000);
    assert_eq!(model.expected(SLOW, 3000, 3000), Expected::Either);
    assert_eq!(model.expected(SLOW, 3800, 3800), Expected::Open);
    assert_eq!(model.expected(SLOW, 11000, 11000), Expected::Either);
    assert_eq!(model.expected(SLOW, 13000, 13000), Expected::Closed);
}

fn a_knock_waits_for_the_commands_of_an_earlier_one_of_its_source() {
    let mut model = model();
    let other = Key { source: 4, ..KEY };
    knock(&mut model, SLOW, true, 1000);
    knock(&mut model, KEY, true, 1100);
    knock(&mut model, other, true, 1100);
    let opens = 1101 + OPEN_WITHIN;
    assert_eq!(model.expected(other, opens, opens), Expected::Open);
    assert_eq!(expected(&model, opens + 1199), Expected::Either);
    assert_eq!(expected(&model, opens + 1200), Expected::Open);
    let closed = 9102 + CLOSE_WITHIN;
    assert_eq!(model.expected(other, closed, closed), Expected::Closed);
    assert_eq!(expected(&model, closed + 1199), Expected::Either);
    assert_eq!(expected(&model, closed + 1200), Expected::Closed);
    knock(&mut model, KEY, true, 20000);
    assert_eq!(expected(&model, 20001 + OPEN_WITHIN), Expected::Open);
    // It does not have to wait for its own door.
    knock(&mut model, SLOW, true, 40000);
    assert_eq!(model.wait(SLOW, 40100), 0);
    assert_eq!(model.wait(KEY, 40100), 1200);
}

fn a_kill_leaves_what_was_open() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    model.apply(5000, &Event::Killed);
    assert_eq!(expected(&model, 6000), Expected::Open);
    assert_eq!(
        expected(&model, 30000),
        Expected::Either,
        "no daemon closes it"
    );
    model.apply(7000, &Event::Ready);
    assert_eq!(expected(&model, 8000), Expected::Open);
    assert_eq!(expected(&model, 9500), Expected::Either);
    assert_eq!(
        expected(&model, 7001 + ORPHANS + CLOSE_WITHIN),
        Expected::Closed
    );
}

fn a_kill_at_a_start_command_promises_nothing() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    model.apply(1100, &Event::Killed);
    model.apply(1500, &Event::Ready);
    assert_eq!(expected(&model, 5000), Expected::Either);
    assert_eq!(expected(&model, 30000), Expected::Closed);
}

fn what_was_closed_at_a_kill_stays_closed() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    model.apply(20000, &Event::Killed);
    assert_eq!(expected(&model, 20001), Expected::Closed);
    assert_eq!(violations(&mut model, 40000, 1), 1);
}

fn a_daemon_that_is_started_late_closes_expired_doors() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    model.apply(5000, &Event::Killed);
    model.apply(60000, &Event::Ready);
    assert_eq!(expected(&model, 60500), Expected::Either);
    assert_eq!(violations(&mut model, 60001 + ORPHANS + CLOSE_WITHIN, 1), 1);
}

fn a_flush_with_usr1_comes_back_and_keeps_the_deadline() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    model.apply(3000, &Event::Flushing);
    assert_eq!(expected(&model, 3100), Expected::Either);
    model.apply(3200, &Event::Reapplied);
    assert_eq!(expected(&model, 3300), Expected::Either);
    assert_eq!(expected(&model, 3201 + REAPPLY_WITHIN), Expected::Open);
    assert_eq!(expected(&model, 12000), Expected::Closed);
}

fn a_kill_soon_after_usr1_promises_nothing() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    model.apply(3000, &Event::Reapplied);
    model.apply(3100, &Event::Killed);
    model.apply(3200, &Event::Ready);
    assert_eq!(expected(&model, 8000), Expected::Either);
}

fn usr1_does_not_open_what_is_closed() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    model.apply(20000, &Event::Reapplied);
    assert_eq!(violations(&mut model, 20100, 1), 1);
}

fn term_closes_all_but_what_it_says() {
    let mut model = model();
    knock(&mut model, KEY, true, 1000);
    knock(&mut model, SLOW, true, 1000);
    model.apply(4000, &Event::Closing);
    assert_eq!(expected(&model, 4500), Expected::Either);
    let unfinished = vec![SLOW];
    model.apply(6000, &Event::Ended { unfinished });
    assert_eq!(expected(&model, 5900), Expected::Either, "before the end");
    assert_eq!(expected(&model, 6000), Expected::Closed);
    assert_eq!(model.expected(SLOW, 30000, 30000), Expected::Either);
    model.apply(31000, &Event::Ready);
    assert_eq!(model.expected(SLOW, 50000, 50000), Expected::Closed);
}

fn all_is_closed_when_every_deadline_is_over() {
    let mut model = model();
    assert!(model.all_closed(0));
    knock(&mut model, KEY, true, 1000);
    assert!(!model.all_closed(5000));
    assert!(model.all_closed(9002 + CLOSE_WITHIN));
}

fn a_command_runs_once_for_each_knock() {
    let mut runs = Runs::default();
    runs.knocked(1, true, 1000);
    runs.knocked(1, false, 1200);
    assert!(runs.knows(1) && !runs.knows(2));
    assert!(runs.judge(|_| 0).is_empty(), "it is not late yet");
    runs.passed(1001 + OPEN_WITHIN, 0);
    assert_eq!(runs.judge(|_| 0), [(1, 1, 0, 2)]);
    assert!(runs.judge(|_| 1).is_empty());
    assert_eq!(runs.judge(|_| 3), [(1, 1, 3, 2)]);
    runs.knocked(1, true, 5000);
    runs.ended(5001, 0);
    runs.passed(60000, 0);
    assert!(runs.judge(|_| 1).is_empty(), "it was ended before it began");
}
