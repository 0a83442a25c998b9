//! Every system call of the knock story fails once, and the promises hold.
//!
//! Each story is told once to see which calls it makes, and from where; then once for each of these and each error that it can meet. Built
//! with `--features faults`; `scripts/faults` runs all of it, `scripts/test` a part.
#![allow(clippy::unwrap_used)] // A test panics by design.

#[path = "../lab/mod.rs"]
#[allow(dead_code)] // It serves other tests too.
mod lab;
mod plan;
mod stage;
mod stories;
mod subject;

use knockd_rs::sys::faults::{Fault, Kind, Site};
use lab::Scene;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use stories::{STORIES, Story};

/// One run of a story.
struct Case<'a> {
    story: &'a Story,
    site: &'a Site,
    nth: u32,
    kind: Kind,
}

impl Case<'_> {
    fn name(&self) -> String {
        let Case {
            story,
            site,
            nth,
            kind,
        } = self;
        let kind = plan::name(*kind);
        format!(
            "{} {:?} {} {:016x} {nth} {kind}",
            story.0, site.role, site.function, site.key
        )
    }
}

#[derive(Default)]
struct Row {
    calls: u32,
    injected: u32,
    survived: u32,
    missed: u32,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let whole = arguments.iter().any(|argument| argument == "--whole");
    let verbose = arguments.iter().any(|argument| argument == "--verbose");
    let words: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if let Some(reason) = lab::missing() {
        eprintln!("the faults are skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    lab::sweep();
    let begin = Instant::now();
    std::panic::set_hook(Box::new(|_| {}));
    let scene = Scene::new();
    let mut told = Vec::new();
    for story in STORIES {
        match catch_unwind(AssertUnwindSafe(|| story.1(&scene, None))) {
            Ok(outcome) => told.push((story, outcome.sites)),
            Err(panic) => {
                eprintln!("{}: without a fault: {}", story.0, message(&*panic));
                return ExitCode::FAILURE;
            }
        }
    }
    let mut cases = Vec::new();
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for (story, sites) in &told {
        for site in sites {
            rows.entry(site.function).or_default().calls += site.calls;
            let calls = if whole { site.calls } else { 1 };
            for nth in 1..=calls {
                for kind in plan::kinds(site, whole) {
                    cases.push(Case {
                        story,
                        site,
                        nth,
                        kind,
                    });
                }
            }
        }
    }
    cases.retain(|case| {
        let name = case.name();
        words.iter().all(|word| name.contains(word.as_str()))
    });
    println!("{} runs", cases.len());
    let rows = Mutex::new(rows);
    let next = AtomicUsize::new(0);
    let failures = AtomicUsize::new(0);
    let refusals = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut scene = Scene::new();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let fault = Fault {
                        site: case.site.key,
                        nth: case.nth,
                        kind: case.kind,
                    };
                    let start = Instant::now();
                    let result =
                        catch_unwind(AssertUnwindSafe(|| case.story.1(&scene, Some(fault))));
                    let mut rows = rows.lock().unwrap();
                    let row = rows.entry(case.site.function).or_default();
                    match result {
                        Ok(outcome) if outcome.fired => {
                            row.injected += 1;
                            row.survived += 1;
                            if let Some(why) = outcome.refusal {
                                refusals.lock().unwrap().insert(why);
                            }
                        }
                        Ok(_) => row.missed += 1,
                        Err(panic) => {
                            // Something may be left in this one.
                            scene = Scene::new();
                            row.injected += 1;
                            failures.fetch_add(1, Ordering::SeqCst);
                            println!(
                                "VIOLATED {}: {}\n{}",
                                case.name(),
                                message(&*panic),
                                way(case.site)
                            );
                        }
                    }
                    if verbose {
                        println!("{:?} {}", start.elapsed(), case.name());
                    }
                }
            });
        }
    });
    if verbose {
        for why in refusals.into_inner().unwrap() {
            println!("refused: {why}");
        }
    }
    println!(
        "{:<12} {:>7} {:>9} {:>9} {:>7}",
        "function", "calls", "injected", "survived", "missed"
    );
    for (function, row) in rows.into_inner().unwrap() {
        println!(
            "{function:<12} {:>7} {:>9} {:>9} {:>7}",
            row.calls, row.injected, row.survived, row.missed
        );
    }
    println!("{:?}", begin.elapsed());
    match failures.into_inner() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
        .unwrap_or_default()
}

/// The way to that call through the program.
fn way(site: &Site) -> String {
    let output = Command::new("addr2line")
        .args(["-Cfpse"])
        .arg(lab::daemon_binary())
        .args(site.frames.iter().map(|frame| format!("{:#x}", frame - 1)))
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let ours = text
        .lines()
        .filter(|line| line.contains("knockd_rs::") && !line.contains("faults"));
    ours.take(14).map(|line| format!("    {line}\n")).collect()
}
