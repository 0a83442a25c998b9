//! Records events and violations, to help find the cause of a failure.

use crate::model::Ms;
use std::collections::{BTreeMap, VecDeque};

/// The number of events shown for a failure.
const SHOWN: usize = 50;

#[derive(Default)]
pub struct History {
    last: VecDeque<String>,
    counts: BTreeMap<&'static str, usize>,
    /// The violations.
    pub violations: Vec<String>,
    pub openings: usize,
    pub closings: usize,
}

impl History {
    /// Records an event.
    pub fn note(&mut self, at: Ms, name: &'static str, detail: &str) {
        *self.counts.entry(name).or_default() += 1;
        self.note_detail(at, &format!("{name} {detail}"));
    }

    /// Records a detail of an event, without counting it.
    pub fn note_detail(&mut self, at: Ms, text: &str) {
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back(format!("{} {text}", time(at)));
    }

    /// Records a violation.
    pub fn violation(&mut self, at: Ms, text: &str) {
        self.violations.push(format!("{} {text}", time(at)));
    }

    /// The last events, oldest first.
    pub fn last_events(&self) -> String {
        self.last.iter().map(|line| format!("  {line}\n")).collect()
    }

    /// How often each event was played.
    pub fn table(&self) -> String {
        let row = |(name, count): (&&str, &usize)| format!("  {count:>6}  {name}\n");
        self.counts.iter().map(row).collect()
    }
}

fn time(at: Ms) -> String {
    format!("{:>4}.{:03} s", at / 1000, at % 1000)
}
