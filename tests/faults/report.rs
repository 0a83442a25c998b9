//! The table of faults, and the failures.

use crate::board::Site;
use crate::stories::Outcome;
use crate::{Case, lab};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Instant;

#[derive(Default)]
struct Row {
    /// Calls made in the stories without a fault.
    calls: u32,
    injected: u32,
    survived: u32,
    /// The call was not made in this run.
    missed: u32,
}

/// The results of all cases.
pub struct Report {
    cases: usize,
    done: usize,
    rows: BTreeMap<&'static str, Row>,
    /// What programs printed when they refused to start.
    refusals: BTreeSet<String>,
    verbose: bool,
    begin: Instant,
}

impl Report {
    pub fn new(verbose: bool) -> Report {
        Report {
            cases: 0,
            done: 0,
            rows: BTreeMap::new(),
            refusals: BTreeSet::new(),
            verbose,
            begin: Instant::now(),
        }
    }

    /// Records calls that were made without a fault.
    pub fn made(&mut self, site: &Site) {
        self.rows.entry(site.function).or_default().calls += site.calls;
    }

    /// Sets the number of cases to run.
    pub fn expect(&mut self, cases: usize) {
        println!("{cases} cases");
        self.cases = cases;
    }

    pub fn add(&mut self, case: &Case, result: Result<Outcome, String>) {
        self.done += 1;
        if self.done.is_multiple_of(100) {
            println!("faults: {} of {} cases", self.done, self.cases);
        }
        let row = self.rows.entry(case.site.function).or_default();
        match result {
            Ok(outcome) if outcome.fired => {
                row.injected += 1;
                row.survived += 1;
                self.refusals.extend(outcome.refusal);
            }
            Ok(_) => {
                row.missed += 1;
                if self.verbose {
                    println!("missed {}", case.name());
                }
            }
            Err(violation) => {
                row.injected += 1;
                println!(
                    "VIOLATED {}: {violation}\n{}",
                    case.name(),
                    call_path(case.site)
                );
            }
        }
    }

    /// Prints the table. Returns `true` if every case survived and the test did its job.
    pub fn end(self) -> bool {
        if self.verbose {
            for words in &self.refusals {
                println!("refused: {}", words.trim_end().replace('\n', "\n         "));
            }
        }
        let line = |name: &str, row: &Row| {
            println!(
                "{name:<12} {:>7} {:>9} {:>9} {:>12}",
                row.calls, row.injected, row.survived, row.missed
            );
        };
        println!(
            "{:<12} {:>7} {:>9} {:>9} {:>12}",
            "function", "calls", "injected", "survived", "not reached"
        );
        let mut all = Row::default();
        let tried = |row: &Row| row.injected + row.missed > 0;
        for (function, row) in self.rows.iter().filter(|(_, row)| tried(row)) {
            line(function, row);
            all.calls += row.calls;
            all.injected += row.injected;
            all.survived += row.survived;
            all.missed += row.missed;
        }
        line("all", &all);
        println!("in {:.0} s", self.begin.elapsed().as_secs_f32());
        if all.missed * 10 > all.injected {
            println!("too many calls were not reached, so this run tested too little");
            return false;
        }
        all.injected > 0 && all.injected == all.survived
    }
}

/// The call path through the program, if binutils are installed.
fn call_path(site: &Site) -> String {
    let output = Command::new("addr2line")
        .args(["-Cfpse"])
        .arg(lab::daemon_binary())
        .args(site.frames.iter().map(|frame| format!("{:#x}", frame - 1)))
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let ours = text.lines().filter(|line| line.contains("knockd_rs::"));
    ours.take(14).map(|line| format!("    {line}\n")).collect()
}
