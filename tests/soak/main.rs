//! The soak: random events for a given time, and an oracle that knows what must be open. Run it
//! with `scripts/soak`.
//!
//! `soak SECONDS [--seed N]` plays everything. `soak --kills N [--seed N]` kills keeper and
//! listener N times. With other arguments or none, as in a plain `cargo test`, it runs the tests of
//! the oracle.
#![allow(clippy::unwrap_used)] // A test panics by design.

mod bans;
mod doors;
mod events;
mod health;
mod history;
mod kills;
mod knocks;
mod model;
mod play;
mod service;
mod soak;
mod watch;
mod world;

use knockd_testlab as lab;
use libtest_mimic::{Arguments, Trial};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};

/// Set inside the namespaces: the directory for temporary files.
const INSIDE: &str = "KNOCKD_SOAK_INSIDE";

/// What to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Seconds(u64),
    Kills(usize),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((plan, seed)) = parse(&arguments) else {
        let tests = model::tests::TESTS.iter();
        let trials = tests.map(|&(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
        });
        return libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code();
    };
    if std::env::var_os(INSIDE).is_none() {
        return enter(plan, seed.unwrap_or_else(fresh_seed));
    }
    if let Some(reason) = lab::missing() {
        eprintln!("the soak cannot run: {reason}");
        return ExitCode::FAILURE;
    }
    let passed = run(plan, seed.unwrap_or(0));
    lab::remove_knock_link();
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(arguments: &[String]) -> Option<(Plan, Option<u64>)> {
    let (mut plan, mut seed) = (None, None);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => seed = Some(arguments.next()?.parse().ok()?),
            "--kills" => plan = Some(Plan::Kills(arguments.next()?.parse().ok()?)),
            seconds => plan = Some(Plan::Seconds(seconds.parse().ok()?)),
        }
    }
    Some((plan?, seed))
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) % 1_000_000
}

/// Runs this program again in its own mount and PID namespaces, so that everything it starts ends
/// with it, however it ends. A shell is the init there and reaps what a killed daemon leaves.
fn enter(plan: Plan, seed: u64) -> ExitCode {
    let plan = match plan {
        Plan::Seconds(seconds) => vec![seconds.to_string()],
        Plan::Kills(number) => vec!["--kills".to_string(), number.to_string()],
    };
    let directory = std::env::temp_dir().join(format!("soak-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("directory");
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c"])
        .arg(
            "mount -t tmpfs tmpfs \"$TMPDIR\" && mkdir -p /run/netns &&
             mount -t tmpfs tmpfs /run/netns || exit
             \"$@\" &
             wait $!",
        )
        .arg("sh")
        .arg(std::env::current_exe().expect("this program"))
        .args(plan)
        .args(["--seed", &seed.to_string()])
        .env("TMPDIR", &directory)
        .env(INSIDE, "yes")
        .status();
    let _ = std::fs::remove_dir(&directory);
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("unshare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the plan and reports. Returns `false` if there was a violation.
fn run(plan: Plan, seed: u64) -> bool {
    println!("seed {seed}");
    let mut soak = soak::Soak::new(seed);
    let played = catch_unwind(AssertUnwindSafe(|| match plan {
        Plan::Seconds(seconds) => soak.play(seconds),
        Plan::Kills(number) => soak.play_kills(number),
    }));
    let wrong = played.is_err() || soak.failed();
    if wrong {
        println!("the last events:\n{}", soak.history.last_events());
        if let Some(daemon) = &soak.daemon {
            println!("the daemon's output:");
            daemon
                .tail(400)
                .iter()
                .for_each(|line| println!("  {line}"));
        }
    }
    println!("events played:\n{}", soak.history.table());
    println!(
        "doors opened {}, closed {}",
        soak.history.openings, soak.history.closings
    );
    println!("looks at a door for a source: {:?}", soak.model.answers);
    println!(
        "{}, longest load {} ms",
        soak.show_health(),
        soak.longest_load
    );
    println!("violations {}", soak.history.violations.len());
    for violation in &soak.history.violations {
        println!("  {violation}");
    }
    if wrong {
        println!("FAILED with seed {seed}");
    }
    !wrong
}
