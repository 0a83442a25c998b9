//! The daemon's resources: descriptors, memory, processes.

use crate::lab::children;
use crate::model::Ms;
use crate::soak::Soak;
use std::fs;

/// Resident memory may vary by this much (kB) between two rests.
const RSS_MARGIN: usize = 2048;
/// Extra descriptors while it works: a replacement listener, and commands that are about to start.
/// A higher number must soon drop.
const BUSY_DESCRIPTORS: usize = 4;
/// A zombie is reaped, and unneeded descriptors are closed, within this time.
const REAPED_WITHIN: Ms = 2_000;

/// The resources of keeper and listener at the first rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtRest {
    descriptors: Option<[usize; 2]>,
    memory: Option<[usize; 2]>,
}

impl Soak {
    /// Checks a working daemon.
    pub fn judge_health(&mut self) {
        if self.has_ended() {
            return self.violation("the daemon has ended by itself");
        }
        let keeper = self.daemon().pid();
        if let Some([usual, _]) = self.at_rest.descriptors {
            let few = |_: &mut Soak| descriptors(keeper) <= usual + BUSY_DESCRIPTORS;
            if !self.wait_until(REAPED_WITHIN, few) {
                let found = descriptors(keeper);
                self.violation(&format!(
                    "the keeper has {found} descriptors, at rest {usual}"
                ));
            }
        }
        self.judge_zombies();
    }

    fn judge_zombies(&mut self) {
        let zombies = |soak: &Soak| -> Vec<u32> {
            let all = children(soak.daemon().pid());
            all.into_iter().filter(|pid| is_zombie(*pid)).collect()
        };
        let before = zombies(self);
        let reaped = self.wait_until(REAPED_WITHIN, |soak| {
            let now = zombies(soak);
            !before.iter().any(|pid| now.contains(pid))
        });
        if !reaped {
            self.violation(&format!("zombies: {before:?}"));
        }
    }

    /// Checks an idle daemon: the firewall is as at the start, and the daemon as at the first rest.
    pub fn judge_rest(&mut self) {
        let moment = self.now();
        let look = self.look_after(moment);
        if look.text != self.closed {
            let (found, closed) = (look.text, self.closed.clone());
            self.violation(&format!(
                "the firewall at rest is not as it was:\n{found}it was:\n{closed}"
            ));
        }
        self.judge_notes();
        self.judge_zombies();
        let quiet = self.wait_until(REAPED_WITHIN, |soak| {
            children(soak.daemon().pid()).len() == 1 && soak.listeners().len() == 1
        });
        if !quiet {
            let found: Vec<String> = children(self.daemon().pid())
                .into_iter()
                .map(|pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
                .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
                .collect();
            return self.violation(&format!("children of the keeper at rest: {found:?}"));
        }
        let pids = [self.daemon().pid(), self.listeners()[0]];
        let found = pids.map(descriptors);
        let usual = *self.at_rest.descriptors.get_or_insert(found);
        if found != usual {
            self.violation(&format!(
                "descriptors of keeper and listener at rest: {found:?}, were {usual:?}"
            ));
        }
        let found = pids.map(memory);
        let usual = *self.at_rest.memory.get_or_insert(found);
        if found
            .iter()
            .zip(usual)
            .any(|(found, usual)| *found > usual + RSS_MARGIN)
        {
            self.violation(&format!(
                "resident memory of keeper and listener at rest: {found:?} kB, was {usual:?} kB"
            ));
        }
    }

    /// The resources of keeper and listener at rest, for the report.
    pub fn show_health(&self) -> String {
        let [descriptors, memory] = [self.at_rest.descriptors, self.at_rest.memory].map(|found| {
            found.map_or("?".to_string(), |[keeper, listener]| {
                format!("{keeper} + {listener}")
            })
        });
        format!("descriptors at rest {descriptors}, resident kB at rest {memory}")
    }
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count())
}

/// Resident memory in kB.
fn memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('Z'))
}
