//! Counts what the firewall does not show: how often the command of a door without a stop command
//! must have run and can have run, and how often a line of a one-time list was used.

use super::{Ms, OPEN_WITHIN};
use std::collections::BTreeMap;

/// For each source or line, by index.
#[derive(Default)]
pub struct Runs {
    sources: BTreeMap<usize, Counts>,
}

#[derive(Default)]
struct Counts {
    certain: usize,
    at_most: usize,
    /// Certain knocks whose command may not have started yet.
    fresh: Vec<Ms>,
}

impl Runs {
    /// Records a complete knock that was sent at `sent`, or whose command may have had to wait
    /// until then.
    pub fn knocked(&mut self, source: usize, certain: bool, sent: Ms) {
        let counts = self.sources.entry(source).or_default();
        counts.at_most += 1;
        if certain {
            counts.fresh.push(sent);
        }
    }

    /// Records that time has passed, with this load.
    pub fn passed(&mut self, now: Ms, load: Ms) {
        for counts in self.sources.values_mut() {
            let before = counts.fresh.len();
            counts.fresh.retain(|sent| sent + OPEN_WITHIN + load > now);
            counts.certain += before - counts.fresh.len();
        }
    }

    /// Records that the daemon has exited: a command that may not have started may never start.
    pub fn ended(&mut self, now: Ms, load: Ms) {
        self.passed(now, load);
        self.sources
            .values_mut()
            .for_each(|counts| counts.fresh.clear());
    }

    /// Whether it was ever knocked.
    pub fn knows(&self, source: usize) -> bool {
        self.sources.contains_key(&source)
    }

    /// The sources whose command did not run as often as required: index, minimum, found, maximum.
    pub fn judge(&self, found: impl Fn(usize) -> usize) -> Vec<(usize, usize, usize, usize)> {
        let all = self.sources.iter();
        all.map(|(source, counts)| (*source, counts.certain, found(*source), counts.at_most))
            .filter(|(_, least, found, most)| found < least || found > most)
            .collect()
    }
}
