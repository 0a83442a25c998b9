//! Makes every system call of the knock stories fail once and checks that the guarantees hold.
//!
//! A first run of each story records which calls it makes and by which path through the program.
//! AfterStop the story runs once for each of these calls and each error that it can return.
//! `scripts/test` tries the first call of each path, `scripts/faults` every call and more errors.
//!
//! usage: faults [--whole] [--jobs N] [--verbose] [WORD...]
//!
//! WORD selects the cases whose names contain all the words.
#![allow(clippy::unwrap_used)] // A test panics by design.

mod board;
mod library;
mod plan;
mod report;
mod stage;
mod stories;
mod subject;

use board::{Fault, Kind, Site};
use knockd_testlab as lab;
use lab::Scene;
use report::Report;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use stories::{Outcome, STORIES, Story};

/// The stories spend most of their time waiting, so more of them run at once than there are CPUs.
const JOBS: usize = 16;

/// One run of a story.
pub struct Case<'a> {
    story: &'a Story,
    site: &'a Site,
    nth: u32,
    kind: Kind,
}

impl Case<'_> {
    /// For example `life keeper rename 1cbd9efb7a5a3ad0 1 ENOSPC`: story, process, function, call
    /// path, number of the call, error.
    pub fn name(&self) -> String {
        let Case {
            story,
            site,
            nth,
            kind,
        } = self;
        let role = format!("{:?}", site.role).to_lowercase();
        let kind = plan::name(*kind);
        format!(
            "{} {role} {} {:016x} {nth} {kind}",
            story.0, site.function, site.key
        )
    }

    fn run(&self, scene: &Scene) -> Result<Outcome, String> {
        let fault = Fault {
            site: self.site.key,
            nth: self.nth,
            kind: self.kind,
        };
        tell(self.story, scene, Some(fault))
    }
}

struct Arguments {
    whole: bool,
    verbose: bool,
    jobs: usize,
    words: Vec<String>,
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        whole: false,
        verbose: false,
        jobs: JOBS,
        words: Vec::new(),
    };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--whole" => arguments.whole = true,
            "--verbose" => arguments.verbose = true,
            "--jobs" => arguments.jobs = given.next().unwrap().parse().unwrap(),
            _ => arguments.words.push(argument),
        }
    }
    arguments
}

fn main() -> ExitCode {
    let arguments = arguments();
    let left_out = plan::calls_left_out();
    if !left_out.is_empty() {
        eprintln!("src/sys calls functions for which no fault can be injected: {left_out:?}");
        return ExitCode::FAILURE;
    }
    if let Some(reason) = lab::missing() {
        eprintln!("the faults are skipped: {reason}");
        return match lab::is_root() {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        };
    }
    lab::sweep();
    // Build it before the panic hook is set, so that a build error is shown.
    library::path();
    // A violation is a panic. The report prints it.
    std::panic::set_hook(Box::new(|_| {}));
    let passed = sweep(&arguments);
    lab::remove_knock_link();
    match passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn sweep(arguments: &Arguments) -> bool {
    let scene = Scene::new();
    let mut finished = Vec::new();
    for story in STORIES {
        match tell(story, &scene, None) {
            Ok(outcome) => finished.push((story, outcome.sites)),
            Err(violation) => {
                println!("{} without any fault: {violation}", story.0);
                return false;
            }
        }
    }
    drop(scene);
    let mut report = Report::new(arguments.verbose);
    let mut cases = Vec::new();
    for (story, sites) in &finished {
        for site in sites {
            report.made(site);
            let calls = if arguments.whole { site.calls } else { 1 };
            for nth in 1..=calls {
                let kinds = plan::kinds(site, arguments.whole).into_iter();
                cases.extend(kinds.map(|kind| Case {
                    story,
                    site,
                    nth,
                    kind,
                }));
            }
        }
    }
    cases.retain(|case| {
        let name = case.name();
        arguments.words.iter().all(|word| name.contains(word))
    });
    report.expect(cases.len());
    let report = Mutex::new(report);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.min(cases.len()) {
            scope.spawn(|| {
                let mut scene = Scene::new();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let mut result = case.run(&scene);
                    if result.as_ref().is_ok_and(|outcome| !outcome.fired) {
                        // The path of a call can depend on which events coincide, so try once more.
                        result = case.run(&scene);
                    }
                    if result.is_err() {
                        // The old scene can contain leftovers.
                        scene = Scene::new();
                    }
                    report.lock().unwrap().add(case, result);
                }
            });
        }
    });
    report.into_inner().unwrap().end()
}

fn tell(story: &Story, scene: &Scene, fault: Option<Fault>) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| story.1(scene, fault))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        text.unwrap_or_default()
    })
}
