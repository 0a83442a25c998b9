//! What was done and what was wrong, for whoever has to find out why.

use crate::model::Ms;
use std::collections::{BTreeMap, VecDeque};

/// Events that a failure shows.
const SHOWN: usize = 50;

#[derive(Default)]
pub struct History {
    last: VecDeque<String>,
    counts: BTreeMap<&'static str, usize>,
    /// What was wrong.
    pub violations: Vec<String>,
    pub openings: usize,
    pub closings: usize,
}

impl History {
    /// An event.
    pub fn note(&mut self, at: Ms, name: &'static str, detail: &str) {
        *self.counts.entry(name).or_default() += 1;
        self.tell(at, &format!("{name} {detail}"));
    }

    /// What belongs to an event, uncounted.
    pub fn tell(&mut self, at: Ms, text: &str) {
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back(format!("{} {text}", time(at)));
    }

    /// Something is wrong.
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
