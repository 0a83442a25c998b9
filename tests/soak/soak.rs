//! One run: the world, the daemon and the oracle, and their common clock.

use crate::bans::{Bans, scanner_of};
use crate::doors::{self, DOORS, Link, NOTE, SOURCES, key_of};
use crate::history::History;
use crate::lab::Daemon;
use crate::lab::Random;
use crate::model::{Event, Key, Model, Ms, Runs};
use crate::watch::{Look, Watch, since};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

pub struct Soak {
    pub epoch: Instant,
    pub random: Random,
    pub model: Model,
    pub bans: Bans,
    /// For each source, the runs of the command of the door without a stop command.
    pub runs: Runs,
    /// The uses of each line of the one-time list.
    pub uses: Runs,
    pub history: History,
    /// The running daemon, if any.
    pub daemon: Option<Daemon>,
    watch: Watch,
    pub world: World,
    /// INPUT of both families at the start.
    pub closed: String,
    /// All rules at the start.
    pub rules: String,
    base: BTreeSet<String>,
    before: BTreeMap<Key, usize>,
    /// Until this time, packets that a source has sent to a door can form a complete knock with its
    /// next packets.
    pub dirty: BTreeMap<Key, Ms>,
    /// Whether the listener certainly receives packets by that link and address family.
    pub settled: [[bool; 2]; 2],
    /// The current variant of the config file, and the previous one.
    pub variant: u16,
    pub stale: u16,
    /// Whether a reload may be in progress.
    pub reloading: bool,
    /// How many listeners were killed since the last restart or reload.
    pub listener_kills: u32,
    /// How many were killed in the life of this daemon.
    pub listener_kills_in_life: usize,
    /// Since when the state directory's file system is full.
    pub state_full: Option<Ms>,
    pub log_full: bool,
    /// Until then the journal may not be written, so the daemon must not be killed.
    pub no_kill_until: Ms,
    pub once_until: Ms,
    pub fences: usize,
    /// Whether to knock rarely at doors with slow commands.
    pub hurry: bool,
    pub longest_load: Ms,
    pub at_rest: crate::health::AtRest,
}

impl Soak {
    pub fn new(seed: u64) -> Soak {
        let epoch = Instant::now();
        let world = World::new();
        let watch = Watch::start(&world.router, epoch);
        let first = watch.next(60_000).expect("the rules at the start");
        Soak {
            rules: world.rules(),
            epoch,
            random: Random::new(seed),
            model: Model::new(doors::times()),
            bans: Bans::default(),
            runs: Runs::default(),
            uses: Runs::default(),
            history: History::default(),
            daemon: None,
            watch,
            world,
            base: first.text.lines().map(str::to_string).collect(),
            closed: first.text,
            before: BTreeMap::new(),
            dirty: BTreeMap::new(),
            settled: [[false; 2]; 2],
            variant: 0,
            stale: 0,
            reloading: false,
            listener_kills: 0,
            listener_kills_in_life: 0,
            state_full: None,
            log_full: false,
            no_kill_until: 0,
            once_until: 0,
            fences: 0,
            hurry: false,
            longest_load: 0,
            at_rest: crate::health::AtRest::default(),
        }
    }

    pub fn now(&self) -> Ms {
        since(self.epoch)
    }

    /// Whether there was a violation.
    pub fn failed(&self) -> bool {
        !self.history.violations.is_empty()
    }

    pub fn note(&mut self, name: &'static str, detail: &str) {
        self.history.note(since(self.epoch), name, detail);
    }

    pub fn violation(&mut self, text: &str) {
        self.history.violation(since(self.epoch), text);
    }

    /// Judges what the firewall has shown so far, then updates the model.
    pub fn record(&mut self, event: Event) {
        self.look_until(0);
        if matches!(event, Event::Killed | Event::Closing) {
            let (now, load) = (since(self.epoch), self.model.load());
            self.runs.ended(now, load);
            self.uses.ended(now, load);
        }
        self.model.apply(since(self.epoch), &event);
    }

    /// Lets time pass and judges.
    pub fn pass(&mut self, time: Ms) {
        self.look_until(self.now() + time);
    }

    fn look_until(&mut self, until: Ms) {
        while let Some(look) = self.watch.next(until) {
            self.judge(&look);
        }
    }

    /// Judges until a look that began at `moment` or later.
    pub fn look_after(&mut self, moment: Ms) -> Look {
        loop {
            let deadline = self.now() + 60_000;
            let look = self.watch.next(deadline).expect("a look at the rules");
            self.judge(&look);
            if look.seen.from >= moment {
                return look;
            }
        }
    }

    fn judge(&mut self, look: &Look) {
        let seen = &look.seen;
        self.model.apply(seen.to, &Event::Load(look.load));
        self.longest_load = self.longest_load.max(look.load);
        self.runs.passed(seen.from, self.model.load());
        self.uses.passed(seen.from, self.model.load());
        for violation in self.model.judge(seen) {
            let Key { door, source } = violation.key;
            let text = format!(
                "{} for {}: {} rules, must be {:?} (seen between {} and {} ms, load {} ms)",
                DOORS[door].name,
                SOURCES[source].address,
                violation.rules,
                violation.expected,
                seen.from,
                seen.to,
                self.model.load()
            );
            self.violation(&text);
        }
        for line in look.text.lines() {
            let is_known = key_of(line).is_some() || scanner_of(line).is_some();
            if !is_known && !self.base.contains(line) {
                self.violation(&format!("an unexpected rule: {line}"));
            }
        }
        self.judge_bans(&look.text, seen.from);
        let opened = |key: &&Key| !self.before.contains_key(key);
        self.history.openings += seen.rules.keys().filter(opened).count();
        let closed = |key: &&Key| !seen.rules.contains_key(key);
        self.history.closings += self.before.keys().filter(closed).count();
        self.before.clone_from(&seen.rules);
    }

    /// Waits until `is_so` holds, and judges in the meantime. Returns `false` if it does not hold
    /// within that time, extended by the load.
    pub fn wait_until(&mut self, within: Ms, mut is_so: impl FnMut(&mut Soak) -> bool) -> bool {
        let begin = self.now();
        loop {
            if is_so(self) {
                return true;
            }
            if self.now() > begin + within + self.model.load() {
                return false;
            }
            self.pass(5);
        }
    }

    pub fn is_clean(&self, key: Key) -> bool {
        self.dirty.get(&key).is_none_or(|until| *until < self.now())
    }

    /// Records that packets sent by this source to this door may still count for some time.
    pub fn mark_dirty(&mut self, key: Key) {
        let until = self.now() + doors::SEQ_TIMEOUT * 1000 + 1500 + self.model.load();
        self.dirty.insert(key, until);
    }

    /// Records that the listener's view of that link must be verified again. `None`: of all links.
    pub fn unsettle(&mut self, link: Option<Link>) {
        match link {
            Some(link) => self.settled[link as usize] = [false; 2],
            None => self.settled = [[false; 2]; 2],
        }
    }

    /// Checks how often the command of the door without a stop command ran for each source, and
    /// which lines of the one-time list are used.
    pub fn judge_notes(&mut self) {
        let notes = self.world.home.read("notes");
        let found = |source: usize| {
            let address = SOURCES[source].address;
            notes.lines().filter(|line| *line == address).count()
        };
        for (source, least, found, most) in self.runs.judge(found) {
            self.violation(&format!(
                "{} for {}: ran {found} times, must be {least} to {most}",
                DOORS[NOTE].name, SOURCES[source].address
            ));
        }
        let used = self.used_lines();
        for (line, least, found, _) in self.uses.judge(|line| usize::from(used[line])) {
            // A second knock with the same line uses nothing.
            if found < least.min(1) {
                self.violation(&format!(
                    "line {line} of the one-time list was used and is not marked"
                ));
            }
        }
        let by_nobody = |line: &usize| used[*line] && !self.uses.knows(*line);
        if let Some(line) = (0..used.len()).find(by_nobody) {
            self.violation(&format!(
                "line {line} of the one-time list is marked and was never used"
            ));
        }
    }
}
