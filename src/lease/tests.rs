//! The promises of the lease book, tested with a simulated keeper.

mod rules;

use super::*;
use crate::limits::{MAX_BAN_LEASES, MAX_LEASES};
use crate::util::process::Pid;
use proptest::prelude::*;

const TIMEOUT: Millis = 1000;

const GROUP: ProcessGroup = ProcessGroup {
    leader: Pid(2),
    started: 0,
};

fn opening(source: u8) -> Opening {
    Opening {
        kind: LeaseKind::Door("SSH".to_string()),
        source: IpAddr::from([10, 9, 0, source]),
        start: b"start".to_vec(),
        stop: b"stop".to_vec(),
        cmd_timeout: TIMEOUT,
        turn: Turn::default(),
    }
}

/// Executes actions: tracks the running command of each lease, and checks invariants.
#[derive(Default)]
struct Hands {
    running: Vec<(LeaseId, bool)>,
    /// The last action for each source's door: started (true) or stopped.
    opened: std::collections::BTreeMap<IpAddr, bool>,
    starts: usize,
    stops: usize,
}

impl Hands {
    fn carry_out(&mut self, book: &mut LeaseBook, actions: &mut Vec<Action>) {
        for action in actions.drain(..) {
            let (id, start) = match action {
                Action::RunStart(id) => (id, true),
                Action::RunStop(id) => (id, false),
                _ => continue,
            };
            assert!(
                self.running.iter().all(|(other, _)| *other != id),
                "one command at a time"
            );
            assert!(book.get(id).is_some(), "a command without a lease");
            book.command_started(id, GROUP);
            self.running.push((id, start));
        }
    }

    fn end(&mut self, index: usize, book: &mut LeaseBook, now: Millis, actions: &mut Vec<Action>) {
        let (id, start) = self.running.swap_remove(index);
        let source = book.get(id).unwrap().source;
        self.opened.insert(source, start);
        *(if start {
            &mut self.starts
        } else {
            &mut self.stops
        }) += 1;
        if start && now.is_multiple_of(3) {
            book.start_failed(id);
        }
        book.command_ended(id, now, actions);
    }
}

fn open_now(book: &mut LeaseBook, source: u8, now: Millis) -> Vec<Action> {
    let mut actions = Vec::new();
    book.open(opening(source), Reknock::Renew, now, &mut actions)
        .unwrap();
    actions
}

/// Returns a book with one lease, number 0, open until [`TIMEOUT`].
fn with_open_lease() -> LeaseBook {
    let mut book = LeaseBook::default();
    assert_eq!(open_now(&mut book, 2, 0), [Action::RunStart(0)]);
    let mut actions = Vec::new();
    book.command_ended(0, 0, &mut actions);
    assert_eq!(actions, []);
    assert_eq!(book.next_expiry(), Some(TIMEOUT));
    book
}

#[test]
fn the_time_runs_from_the_end_of_the_start_command() {
    let mut book = LeaseBook::default();
    open_now(&mut book, 2, 0);
    assert_eq!(book.next_expiry(), None);
    let mut actions = Vec::new();
    book.command_ended(0, 700, &mut actions);
    book.expire(700 + TIMEOUT - 1, &mut actions);
    assert_eq!(actions, []);
    book.expire(700 + TIMEOUT, &mut actions);
    assert_eq!(actions, [Action::LogTimeout(0), Action::RunStop(0)]);
    book.command_ended(0, 2000, &mut actions);
    assert!(book.leases().is_empty());
}

/// 32-bit milliseconds since boot overflow after 49 days, seconds in 31 or 32 bits after 68 or 136
/// years.
#[test]
fn a_machine_that_has_run_for_long_closes_in_time() {
    for end in [1 << 32, 1000 << 31, 1000 << 32] {
        let (mut book, mut actions) = (LeaseBook::default(), Vec::new());
        let now = end - TIMEOUT / 2;
        open_now(&mut book, 2, now);
        book.command_ended(0, now, &mut actions);
        let place = journal::BootContext {
            boot: "boot".to_string(),
            net: 1,
        };
        let text = journal::encode(&place, book.leases().iter());
        let leases = journal::decode(&text).unwrap().leases;
        let mut book = LeaseBook::default();
        book.restore(leases, &mut actions);
        book.expire(now + TIMEOUT - 1, &mut actions);
        assert_eq!(
            (book.next_expiry(), actions.len()),
            (Some(now + TIMEOUT), 0)
        );
        book.expire(now + TIMEOUT, &mut actions);
        assert_eq!(actions, [Action::LogTimeout(0), Action::RunStop(0)]);
    }
}

#[test]
fn a_second_knock_renews_the_time_and_runs_nothing() {
    let mut book = with_open_lease();
    assert_eq!(open_now(&mut book, 2, 600), [Action::LogRenewed(0)]);
    assert_eq!(book.next_expiry(), Some(600 + TIMEOUT));
    assert_eq!(
        open_now(&mut book, 3, 600),
        [Action::RunStart(1)],
        "another source has its own"
    );
}

#[test]
fn a_second_knock_runs_a_start_command_that_failed_once_more() {
    let mut book = LeaseBook::default();
    open_now(&mut book, 2, 0);
    let mut actions = Vec::new();
    book.start_failed(0);
    book.command_ended(0, 0, &mut actions);
    assert_eq!(book.next_expiry(), Some(TIMEOUT), "it closes all the same");
    // First undo what it did before it failed.
    assert_eq!(open_now(&mut book, 2, 500), [Action::RunStop(0)]);
    book.command_ended(0, 510, &mut actions);
    assert_eq!(actions, [Action::RunStart(0)]);
    actions.clear();
    book.command_ended(0, 520, &mut actions);
    assert_eq!(book.next_expiry(), Some(520 + TIMEOUT));
    assert_eq!(open_now(&mut book, 2, 530), [Action::LogRenewed(0)]);
}

/// Like the command of a close door without a stop command.
#[test]
fn a_second_knock_after_another_doors_command_runs_stop_and_start() {
    let mut book = with_open_lease();
    let source = opening(2).source;
    book.undone(|lease| lease.source == opening(3).source);
    assert_eq!(open_now(&mut book, 2, 500), [Action::LogRenewed(0)]);
    book.undone(|lease| lease.source == source);
    assert_eq!(open_now(&mut book, 2, 600), [Action::RunStop(0)]);
    let mut actions = Vec::new();
    book.command_ended(0, 610, &mut actions);
    assert_eq!(actions, [Action::RunStart(0)]);
    // Opened, closed and opened again while the first start command runs.
    book.undone(|lease| lease.source == source);
    assert_eq!(open_now(&mut book, 2, 620), []);
    actions.clear();
    book.command_ended(0, 630, &mut actions);
    assert_eq!(actions, [Action::RunStop(0)]);
    actions.clear();
    book.command_ended(0, 640, &mut actions);
    assert_eq!(actions, [Action::RunStart(0)]);
    book.command_ended(0, 650, &mut actions);
    assert_eq!(open_now(&mut book, 2, 660), [Action::LogRenewed(0)]);
}

#[test]
fn stacking_runs_start_and_stop_for_each_knock() {
    let mut book = with_open_lease();
    let mut actions = Vec::new();
    book.open(opening(2), Reknock::Stack, 600, &mut actions)
        .unwrap();
    assert_eq!(actions, [Action::RunStart(1)]);
}

#[test]
fn a_knock_while_the_stop_command_runs_opens_again_after_it() {
    let mut book = with_open_lease();
    let mut actions = Vec::new();
    book.expire(TIMEOUT, &mut actions);
    actions.clear();
    assert_eq!(open_now(&mut book, 2, TIMEOUT), []);
    book.command_ended(0, TIMEOUT + 5, &mut actions);
    assert_eq!(actions, [Action::RunStart(0)]);
    book.command_ended(0, TIMEOUT + 10, &mut actions);
    assert_eq!(book.next_expiry(), Some(2 * TIMEOUT + 10));
}

#[test]
fn applying_again_stops_starts_and_keeps_the_deadline() {
    let mut book = with_open_lease();
    let mut actions = Vec::new();
    book.reapply(&mut actions);
    assert_eq!(actions, [Action::RunStop(0)]);
    book.command_ended(0, 100, &mut actions);
    assert_eq!(actions, [Action::RunStop(0), Action::RunStart(0)]);
    book.command_ended(0, 200, &mut actions);
    assert_eq!(book.next_expiry(), Some(TIMEOUT));
}

#[test]
fn applying_again_during_the_start_command_waits_for_its_end() {
    let mut book = LeaseBook::default();
    open_now(&mut book, 2, 0);
    let mut actions = Vec::new();
    book.reapply(&mut actions);
    assert_eq!(actions, []);
    book.command_ended(0, 100, &mut actions);
    assert_eq!(actions, [Action::RunStop(0)]);
    actions.clear();
    book.command_ended(0, 200, &mut actions);
    assert_eq!(actions, [Action::RunStart(0)]);
    book.command_ended(0, 300, &mut actions);
    assert_eq!(
        book.next_expiry(),
        Some(100 + TIMEOUT),
        "from the end of the first start"
    );
}

#[test]
fn closing_forgets_starts_that_never_began() {
    let mut book = LeaseBook::default();
    open_now(&mut book, 2, 0);
    open_now(&mut book, 3, 0);
    let mut actions = Vec::new();
    book.command_started(0, GROUP);
    book.end(&|_| true, true, &mut actions);
    assert_eq!(actions, []);
    assert_eq!(book.leases().len(), 1, "the one whose start command runs");
    book.command_ended(0, 10, &mut actions);
    book.expire(10, &mut actions);
    assert_eq!(actions, [Action::LogTimeout(0), Action::RunStop(0)]);
    book.command_ended(0, 20, &mut actions);
    assert!(book.leases().is_empty());
}

#[test]
fn what_was_at_a_command_is_stopped_after_a_restart_and_what_was_open_runs_on() {
    let mut book = with_open_lease();
    open_now(&mut book, 3, 0);
    let mut actions = Vec::new();
    let mut restored = LeaseBook::default();
    restored.restore(book.leases().to_vec(), &mut actions);
    assert_eq!(actions, [Action::RunStop(1)]);
    assert_eq!(restored.next_expiry(), Some(TIMEOUT));
}

#[test]
fn a_lease_that_was_taken_over_is_renewed_and_applied_again_like_any_other() {
    let book = with_open_lease();
    let mut actions = Vec::new();
    let mut restored = LeaseBook::default();
    restored.restore(book.leases().to_vec(), &mut actions);
    assert_eq!(open_now(&mut restored, 2, 600), [Action::LogRenewed(0)]);
    assert_eq!(restored.next_expiry(), Some(600 + TIMEOUT));
    restored.reapply(&mut actions);
    assert_eq!(actions, [Action::RunStop(0)]);
}

#[test]
fn the_book_is_bounded() {
    let mut book = LeaseBook::default();
    let mut actions = Vec::new();
    for number in 0..MAX_LEASES as u32 {
        let source = IpAddr::from(number.to_be_bytes());
        let opening = Opening {
            source,
            ..opening(0)
        };
        book.open(opening, Reknock::Renew, 0, &mut actions).unwrap();
    }
    assert_eq!(
        book.open(opening(2), Reknock::Renew, 0, &mut actions),
        Err(Full)
    );
}

#[derive(Clone, Debug)]
enum Event {
    Knock(u8),
    CommandEnds(usize),
    Wait(Millis),
    Reapply,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0u8..4).prop_map(Event::Knock),
        5 => any::<usize>().prop_map(Event::CommandEnds),
        3 => (0..2 * TIMEOUT).prop_map(Event::Wait),
        1 => Just(Event::Reapply),
    ]
}

proptest! {
    /// After any events, no lease has two commands at once, every finished lease ended with its
    /// stop command, and after a shutdown every door is shut.
    #[test]
    fn what_opened_closes(
        events in prop::collection::vec(event(), 0..60),
        stack in any::<bool>(),
    ) {
        let reknock = if stack { Reknock::Stack } else { Reknock::Renew };
        let (mut book, mut hands) = (LeaseBook::default(), Hands::default());
        let mut actions = Vec::new();
        let mut now = 0;
        for event in events {
            match event {
                Event::Knock(source) => book.open(opening(source), reknock, now, &mut actions).unwrap(),
                Event::CommandEnds(which) if !hands.running.is_empty() => {
                    let index = which % hands.running.len();
                    hands.end(index, &mut book, now, &mut actions);
                }
                Event::CommandEnds(_) => {}
                Event::Wait(time) => {
                    now += time;
                    book.expire(now, &mut actions);
                }
                Event::Reapply => book.reapply(&mut actions),
            }
            hands.carry_out(&mut book, &mut actions);
            let working = |lease: &&Lease| !matches!(lease.phase, Phase::Open { .. });
            prop_assert_eq!(book.leases().iter().filter(working).count(), hands.running.len());
        }
        book.end(&|_| true, true, &mut actions);
        hands.carry_out(&mut book, &mut actions);
        while !hands.running.is_empty() {
            hands.end(0, &mut book, now, &mut actions);
            book.expire(now, &mut actions);
            hands.carry_out(&mut book, &mut actions);
        }
        prop_assert!(book.leases().is_empty());
        prop_assert_eq!(hands.starts, hands.stops);
        prop_assert!(hands.opened.values().all(|open| !open));
    }
}

#[test]
fn a_deadline_that_passes_while_the_rules_are_put_back_ends_the_lease() {
    let (mut book, mut actions) = (LeaseBook::default(), Vec::new());
    book.open(opening(2), Reknock::Renew, 0, &mut actions)
        .unwrap();
    let id = book.leases()[0].id;
    book.command_ended(id, 0, &mut actions);
    let Phase::Open { until } = book.leases()[0].phase else {
        panic!("{:?}", book.leases());
    };
    // Killed during the stop command.
    book.reapply(&mut actions);
    actions.clear();
    book.command_ended(id, until, &mut actions);
    assert_eq!((book.leases().len(), actions.len()), (0, 0));
}

fn ban(source: u16) -> Opening {
    let [high, low] = source.to_be_bytes();
    Opening {
        kind: LeaseKind::Ban,
        source: IpAddr::from([203, 0, high, low]),
        ..opening(0)
    }
}

#[test]
fn bans_and_doors_take_no_room_from_one_another() {
    let mut book = LeaseBook::default();
    let mut actions = Vec::new();
    let mut open =
        |book: &mut LeaseBook, opening| book.open(opening, Reknock::Renew, 0, &mut actions).is_ok();
    let bans = (0..1000).filter(|n| open(&mut book, ban(*n))).count();
    assert_eq!(bans, MAX_BAN_LEASES);
    let doors = (0..1000).map(|n: u16| Opening {
        source: ban(n).source,
        ..opening(0)
    });
    let doors = doors.filter(|door| open(&mut book, door.clone())).count();
    assert_eq!(doors, MAX_LEASES);
    assert_eq!(summary(book.leases()), "256 open doors and 512 bans");
}

#[test]
fn a_ban_lasts_from_its_start_to_its_end_and_the_next_to_end_is_known() {
    let mut book = LeaseBook::default();
    let mut actions = Vec::new();
    let [a, b] = [1, 2].map(|n| ban(n).source);
    for (n, now) in [(1, 0), (2, 10)] {
        book.open(ban(n), Reknock::Renew, now, &mut actions)
            .unwrap();
        assert!(book.is_banned(ban(n).source), "also while its command runs");
    }
    for id in [0, 1] {
        book.command_ended(id, u64::from(id) * 10, &mut actions);
    }
    assert_eq!(book.bans(), (2, Some(a)));
    // A client that scans again is banned again, with the old commands.
    let changed = Opening {
        start: b"other".to_vec(),
        ..ban(1)
    };
    book.open(changed, Reknock::Renew, 20, &mut actions)
        .unwrap();
    assert_eq!(book.bans(), (2, Some(b)));
    book.expire(TIMEOUT + 10, &mut actions);
    assert_eq!(book.bans(), (1, Some(a)));
    assert!(
        book.is_banned(a) && !book.is_banned(b),
        "{b} is being released"
    );
    assert!(!book.is_banned(opening(1).source));
}
