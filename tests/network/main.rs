//! Tests daemon and client on real networks: namespaces, iptables, nmap, real sockets.
//!
//! KNOCKD_BIN and KNOCK_BIN select other programs to test, such as a release build or knockd 0.8
//! itself.
#![allow(clippy::unwrap_used)] // A test panics by design.

mod any;
mod bans;
mod clients;
mod commands;
mod control;
mod disk;
mod files;
mod filter;
mod flood;
mod follow;
mod hostile;
mod latency;
mod lease;
mod lifecycle;
mod links;
mod log;
mod onetime;
mod order;
mod pairs;
mod ppp;
mod restart;
mod retransmissions;
mod rights;
mod scans;
mod shutdown;
mod split;
mod starting;
mod storm;
mod story;
mod trap;
mod two_daemons;
mod unit;

use knockd_testlab as lab;
use lab::lines;
use libtest_mimic::{Arguments, Completion, Trial};
use std::sync::{PoisonError, RwLock};

/// A name and a function.
type Test = (&'static str, fn());

/// Tests that can run in parallel.
const TESTS: &[&[Test]] = &[
    story::TESTS,
    links::TESTS,
    ppp::TESTS,
    flood::TESTS,
    follow::TESTS,
    any::TESTS,
    trap::TESTS,
    onetime::TESTS,
    lease::TESTS,
    lifecycle::TESTS,
    split::TESTS,
    starting::TESTS,
    hostile::TESTS,
    rights::TESTS,
    files::TESTS,
    log::TESTS,
    shutdown::TESTS,
    restart::TESTS,
    disk::TESTS,
    commands::TESTS,
    order::TESTS,
    control::TESTS,
    two_daemons::TESTS,
    storm::TESTS,
    scans::TESTS,
    bans::TESTS,
    clients::TESTS,
    retransmissions::TESTS,
    pairs::TESTS,
    filter::TESTS,
];

/// Held shared by every test while it runs. A test that measures time holds it exclusively.
static QUIET: RwLock<()> = RwLock::new(());

fn main() -> std::process::ExitCode {
    let mut args = Arguments::from_args();
    if args.list {
        return libtest_mimic::run(&args, trials(&args, None, None)).exit_code();
    }
    // The tests mostly wait, so more of them run at once than there are CPUs.
    args.test_threads.get_or_insert(6);
    let missing = lab::missing();
    match &missing {
        Some(reason) => eprintln!("the network tests are skipped: {reason}"),
        None => lab::sweep(),
    }
    let no_systemd = missing.clone().or_else(unit::missing);
    if let (None, Some(reason)) = (&missing, &no_systemd) {
        eprintln!("the tests of the systemd unit are skipped: {reason}");
    }
    let conclusion = libtest_mimic::run(&args, trials(&args, missing, no_systemd));
    lab::remove_knock_link();
    conclusion.exit_code()
}

/// All tests. `missing` says why none can run, `no_systemd` why those of the unit cannot.
fn trials(args: &Arguments, missing: Option<String>, no_systemd: Option<String>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for &(name, test) in TESTS.iter().copied().flatten() {
        trials.push(trial(name, test, false, &missing));
    }
    for &(name, test) in unit::TESTS {
        trials.push(trial(name, test, false, &no_systemd));
    }
    trials.push(trial(
        "latency_below_5_ms",
        latency::is_far_below_the_original,
        true,
        &missing,
    ));
    trials.push(trial(
        "a_killed_listener_is_back_within_100_ms",
        split::a_killed_listener_is_back_within_100_ms,
        true,
        &missing,
    ));
    trials.push(trial(
        "a_redial_is_followed_within_100_ms",
        follow::a_redial_is_followed_within_100_ms,
        true,
        &missing,
    ));
    trials.push(trial(
        "every_knock_opens_in_a_flood",
        flood::every_knock_opens_in_a_flood,
        true,
        &missing,
    ));
    // Too long for every run; scripts/test-scans requests it.
    if args.ignored {
        let scans = trial("full_nmap_scans", scans::full_nmap_scans, false, &missing);
        trials.push(scans.with_ignored_flag(true));
    }
    trials
}

fn trial(name: &'static str, test: fn(), alone: bool, missing: &Option<String>) -> Trial {
    let missing = missing.clone();
    Trial::ignorable_test(name, move || {
        if let Some(reason) = missing {
            return lab::not_run(reason);
        }
        if alone {
            let _turn = QUIET.write().unwrap_or_else(PoisonError::into_inner);
            test();
        } else {
            let _turn = QUIET.read().unwrap_or_else(PoisonError::into_inner);
            test();
        }
        Ok(Completion::Completed)
    })
}
