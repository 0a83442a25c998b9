//! The oracle. From the events and their times it derives what must be open, what must be closed,
//! and what can be either. It has no clock, no firewall and no daemon, and ignores what the daemon
//! prints.
//!
//! A door for a source (a [`Key`]) must be open while a *promise* holds: from an undisturbed
//! complete knock until cmd_timeout after it. It must be closed once its last possible deadline has
//! passed while a daemon has been running, or if no one has knocked since it was closed. Otherwise
//! it can be either.

mod runs;
pub mod tests;

pub use runs::Runs;
use std::collections::{BTreeMap, VecDeque};

/// Milliseconds since the run began.
pub type Ms = u64;

/// An undisturbed complete knock opens its door within this time plus the duration of its commands
/// ...
pub const OPEN_WITHIN: Ms = 1000;
/// ... and an expired lease is closed within this time plus the duration of its commands.
pub const CLOSE_WITHIN: Ms = 1200;
/// A daemon started after a kill lets the commands of its predecessor finish for 2 s
/// (`limits::ORPHAN_MS`).
pub const ORPHANS: Ms = 2500;
/// The commands of a source's knock wait at most this long for those of its earlier knocks at other
/// doors (`limits::ORDER_MS`).
pub const ORDER: Ms = 2000;
/// After SIGUSR1 every open door has its rule again within this time plus twice the duration of its
/// commands.
pub const REAPPLY_WITHIN: Ms = 1500;
/// All bounds are extended by the load times this factor. The load is the recent time to list the
/// firewall's rules. Several commands can share the CPUs with the one in question ...
pub const LOAD_FACTOR: Ms = 10;
/// ... and after SIGUSR1 all of them do.
const REAPPLY_FACTOR: Ms = 3;
/// How long the slowest recent listing is remembered.
pub const LOAD_MEMORY: Ms = 10_000;

/// A door for a source; both are indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub door: usize,
    pub source: usize,
}

/// The times of a door.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// cmd_timeout.
    pub lease: Ms,
    /// How long its start command sleeps.
    pub start: Ms,
    /// How long its stop command sleeps.
    pub stop: Ms,
    /// Its start command fails, so the next knock stops it and starts it again.
    pub fails: bool,
}

/// An event.
#[derive(Clone, Debug)]
pub enum Event {
    /// Listing the rules took this long, or began this late.
    Load(Ms),
    /// The last packet of a complete knock is about to be sent, and has been sent at `sent`.
    /// `certain` says that the daemon must see the complete knock.
    Knocked { key: Key, certain: bool, sent: Ms },
    /// The keeper is killed.
    Killed,
    /// A daemon is ready.
    Ready,
    /// The rules are flushed; SIGUSR1 follows.
    Flushing,
    /// SIGUSR1 was sent.
    Reapplied,
    /// SIGTERM is sent, which closes everything that is open.
    Closing,
    /// That daemon has exited and reported that it could not close `unfinished` in time.
    Ended { unfinished: Vec<Key> },
}

/// The required state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expected {
    Open,
    Closed,
    Either,
}

/// What the firewall showed at some moment between `from` and `to`: the number of rules for each
/// key.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub from: Ms,
    pub to: Ms,
    pub rules: BTreeMap<Key, usize>,
}

/// A state that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub key: Key,
    pub expected: Expected,
    pub rules: usize,
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    since: Ms,
    until: Ms,
}

#[derive(Clone, Debug, Default)]
struct State {
    promises: Vec<Promise>,
    /// If a daemon runs, it can be open until then. `None`: it is closed.
    deadline: Option<Ms>,
    closed_since: Ms,
    /// Until then, apart from the load, its commands can run or wait, and later knocks of the
    /// source wait for them.
    busy_until: Ms,
}

/// The period in which SIGUSR1 removes rules and adds them again.
#[derive(Clone, Copy, Debug)]
struct Disturbance {
    since: Ms,
    /// `None`: SIGUSR1 has not been sent yet.
    until: Option<Ms>,
}

/// The state of all keys.
pub struct Model {
    doors: Vec<Times>,
    states: BTreeMap<Key, State>,
    running: bool,
    disturbances: Vec<Disturbance>,
    loads: VecDeque<(Ms, Ms)>,
    /// How often each answer was given.
    pub answers: BTreeMap<Expected, usize>,
}

impl Model {
    /// Everything is closed, and no daemon runs.
    pub fn new(doors: Vec<Times>) -> Model {
        Model {
            doors,
            states: BTreeMap::new(),
            running: false,
            disturbances: Vec::new(),
            loads: VecDeque::new(),
            answers: BTreeMap::new(),
        }
    }

    /// The extension of each bound by the load.
    pub fn load(&self) -> Ms {
        let longest = self.loads.iter().map(|(_, lasted)| *lasted).max();
        LOAD_FACTOR * longest.unwrap_or(0)
    }

    fn commands(&self, key: Key) -> Ms {
        let times = self.doors[key.door];
        times.start + times.stop
    }

    fn open_slack(&self, key: Key) -> Ms {
        OPEN_WITHIN + self.commands(key) + self.load()
    }

    fn close_slack(&self, key: Key) -> Ms {
        CLOSE_WITHIN + self.commands(key) + self.load()
    }

    /// How long the commands of a knock at `at` can wait for those of the source's earlier knocks.
    pub fn wait(&self, key: Key, at: Ms) -> Ms {
        let precedes = |(other, state): &(&Key, &State)| {
            other.source == key.source
                && other.door != key.door
                && at <= state.busy_until + self.load()
        };
        let earlier = self.states.iter().filter(precedes);
        let sum: Ms = earlier.map(|(other, _)| self.commands(*other)).sum();
        sum.min(ORDER)
    }

    fn is_disturbed(&self, key: Key, from: Ms, to: Ms) -> bool {
        let slack = REAPPLY_WITHIN + 2 * self.commands(key) + REAPPLY_FACTOR * self.load();
        self.disturbances.iter().any(|disturbance| {
            disturbance.since <= to && disturbance.until.is_none_or(|until| from <= until + slack)
        })
    }

    fn must_be_closed(&self, key: Key, state: &State, from: Ms) -> bool {
        match state.deadline {
            None => from >= state.closed_since,
            Some(deadline) => self.running && from > deadline + self.close_slack(key),
        }
    }

    /// What a look at the firewall between `from` and `to` must show.
    pub fn expected(&self, key: Key, from: Ms, to: Ms) -> Expected {
        let Some(state) = self.states.get(&key) else {
            return Expected::Closed;
        };
        if self.must_be_closed(key, state, from) {
            return Expected::Closed;
        }
        let slack = self.open_slack(key);
        let promised = state
            .promises
            .iter()
            .any(|promise| promise.since + slack <= from && to <= promise.until);
        if promised && !self.is_disturbed(key, from, to) {
            return Expected::Open;
        }
        Expected::Either
    }

    /// Whether everything must be closed.
    pub fn all_closed(&self, now: Ms) -> bool {
        let closed = |(key, state): (&Key, &State)| self.must_be_closed(*key, state, now);
        self.states.iter().all(closed)
    }

    /// The violations in what was seen.
    pub fn judge(&mut self, seen: &Seen) -> Vec<Violation> {
        let mut keys: Vec<Key> = self.states.keys().copied().collect();
        keys.extend(seen.rules.keys());
        keys.sort();
        keys.dedup();
        let mut violations = Vec::new();
        for key in keys {
            let rules = seen.rules.get(&key).copied().unwrap_or(0);
            let expected = self.expected(key, seen.from, seen.to);
            *self.answers.entry(expected).or_default() += 1;
            let fits = match expected {
                Expected::Open => rules == 1,
                Expected::Closed => rules == 0,
                Expected::Either => rules <= 1,
            };
            if !fits {
                violations.push(Violation {
                    key,
                    expected,
                    rules,
                });
            }
        }
        violations
    }

    /// Applies an event. `at` never decreases.
    pub fn apply(&mut self, at: Ms, event: &Event) {
        if let Event::Load(lasted) = event {
            self.loads.push_back((at, *lasted));
            self.loads.retain(|(when, _)| when + LOAD_MEMORY >= at);
            return;
        }
        self.settle(at);
        match event {
            Event::Load(_) => {}
            Event::Knocked { key, certain, sent } => self.knocked(*key, *certain, *sent),
            Event::Killed => self.killed(at),
            Event::Ready => {
                self.running = true;
                self.extend(|_| at + ORPHANS);
            }
            Event::Flushing if !self.running => self.break_promises(),
            Event::Flushing => self.disturbances.push(Disturbance {
                since: at,
                until: None,
            }),
            Event::Reapplied => self.reapplied(at),
            Event::Closing => {
                self.running = false;
                self.break_promises();
                self.disturbances.clear();
            }
            Event::Ended { unfinished } => {
                for (key, state) in &mut self.states {
                    if !unfinished.contains(key) && state.deadline.take().is_some() {
                        state.closed_since = at;
                    }
                }
            }
        }
    }

    /// Marks every door that must be closed now, until the next knock.
    fn settle(&mut self, at: Ms) {
        let is_closed = |key: &Key, state: &State| {
            state.deadline.is_some() && self.must_be_closed(*key, state, at)
        };
        let closed: Vec<Key> = self
            .states
            .iter()
            .filter(|(key, state)| is_closed(key, state))
            .map(|(key, _)| *key)
            .collect();
        for key in closed {
            self.states.insert(
                key,
                State {
                    closed_since: at,
                    ..State::default()
                },
            );
        }
        let longest = self
            .doors
            .iter()
            .map(|times| times.start + times.stop)
            .max();
        let slack = REAPPLY_WITHIN + 2 * longest.unwrap_or(0) + REAPPLY_FACTOR * self.load();
        self.disturbances.retain(|d| {
            d.until
                .is_none_or(|until| at <= until + slack + LOAD_MEMORY)
        });
    }

    fn knocked(&mut self, key: Key, certain: bool, sent: Ms) {
        let lease = self.doors[key.door].lease;
        let wait = self.wait(key, sent);
        // Its start command may have to wait for a stop command first.
        let deadline = sent + wait + self.commands(key) + lease;
        let busy_until = sent + ORDER + self.open_slack(key);
        let state = self.states.entry(key).or_default();
        state.deadline = Some(state.deadline.unwrap_or(0).max(deadline));
        state.busy_until = state.busy_until.max(busy_until);
        if self.doors[key.door].fails {
            state.promises.clear();
        }
        if certain {
            state.promises.push(Promise {
                since: sent + wait,
                until: sent + lease,
            });
        }
    }

    /// A door certainly recorded as open in the journal stays open. The next daemon stops one whose
    /// command was running.
    fn killed(&mut self, at: Ms) {
        self.running = false;
        let mut states = std::mem::take(&mut self.states);
        for (key, state) in &mut states {
            let slack = self.open_slack(*key);
            let disturbed = self.is_disturbed(*key, at, at);
            state
                .promises
                .retain(|promise| promise.since + slack <= at && !disturbed);
        }
        self.states = states;
        self.disturbances.clear();
    }

    fn reapplied(&mut self, at: Ms) {
        match self.disturbances.last_mut() {
            Some(last) if last.until.is_none() => last.until = Some(at),
            _ => self.disturbances.push(Disturbance {
                since: at,
                until: Some(at),
            }),
        }
        // The deadline can pass while it is stopped and started again, twice.
        self.extend(|commands| at + 2 * commands);
        for (key, state) in &mut self.states {
            if state.deadline.is_some() {
                let times = self.doors[key.door];
                let busy_until = at + REAPPLY_WITHIN + 2 * (times.start + times.stop);
                state.busy_until = state.busy_until.max(busy_until);
            }
        }
    }

    fn break_promises(&mut self) {
        for state in self.states.values_mut() {
            state.promises.clear();
        }
    }

    /// Doors that may be open can stay open until then, whatever their deadline. The argument of
    /// `until` is the duration of their commands.
    fn extend(&mut self, until: impl Fn(Ms) -> Ms) {
        let doors = &self.doors;
        for (key, state) in &mut self.states {
            let times = doors[key.door];
            if let Some(deadline) = &mut state.deadline {
                *deadline = (*deadline).max(until(times.start + times.stop));
            }
        }
    }
}
