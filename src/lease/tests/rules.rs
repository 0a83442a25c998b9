//! The lease book against an oracle that knows which rules its commands have created: a start
//! command adds one, a stop command removes one if there is one (`iptables -I`, `-D`), a firewall
//! restart removes all. Each takes effect at some moment between the start and the end of its
//! command, and a crash can come before or after it.

use crate::lease::journal::{self, BootContext};
use crate::lease::*;
use crate::util::process::Pid;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::{BTreeMap, BTreeSet};

const TIMEOUT: Millis = 1000;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A complete knock of that source.
    Knock(u8),
    /// A command is forked.
    Begin(usize),
    /// The command takes effect.
    Effect(usize),
    /// The command ends; a start command can fail.
    End { which: usize, fails: bool },
    /// Time passes.
    Wait(Millis),
    /// The firewall is restarted.
    Flush,
    /// SIGUSR1, that number of times.
    Reapply(u8),
    /// The firewall is restarted, SIGUSR1 arrives, and all commands finish.
    Restore,
    /// SIGKILL and a new start.
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    let any_index = any::<usize>();
    prop_oneof![
        4 => (0u8..3).prop_map(Event::Knock),
        6 => any_index.prop_map(Event::Begin),
        4 => any_index.prop_map(Event::Effect),
        6 => (any_index, prop::bool::weighted(0.1)).prop_map(|(which, fails)| Event::End { which, fails }),
        3 => (0..2 * TIMEOUT).prop_map(Event::Wait),
        1 => Just(Event::Flush),
        2 => (1u8..50).prop_map(Event::Reapply),
        1 => Just(Event::Restore),
        1 => Just(Event::Crash),
    ]
}

/// A command that was forked.
struct Running {
    id: LeaseId,
    source: IpAddr,
    is_start: bool,
    took_effect: bool,
}

struct World {
    book: LeaseBook,
    reknock: Reknock,
    now: Millis,
    waiting: Vec<(LeaseId, bool)>,
    running: Vec<Running>,
    rules: BTreeMap<IpAddr, usize>,
    /// Expired leases: only another knock starts them again.
    over: BTreeSet<LeaseId>,
}

impl World {
    fn new(reknock: Reknock) -> World {
        World {
            book: LeaseBook::default(),
            reknock,
            now: 0,
            waiting: Vec::new(),
            running: Vec::new(),
            rules: BTreeMap::new(),
            over: BTreeSet::new(),
        }
    }

    fn accept(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::RunStart(id) => {
                    assert!(!self.over.contains(&id), "a start of a lease that is over");
                    self.waiting.push((id, true));
                }
                Action::RunStop(id) => self.waiting.push((id, false)),
                Action::LogTimeout(id) => drop(self.over.insert(id)),
                Action::LogRenewed(_) => {}
            }
        }
    }

    fn begin(&mut self, which: usize) {
        if self.waiting.is_empty() {
            return;
        }
        let (id, is_start) = self.waiting.remove(which % self.waiting.len());
        let source = self.book.get(id).expect("a lease for its command").source;
        self.running.push(Running {
            id,
            source,
            is_start,
            took_effect: false,
        });
        let group = ProcessGroup {
            leader: Pid(2),
            started: 0,
        };
        self.book.command_started(id, group);
    }

    fn effect(&mut self, which: usize) {
        if self.running.is_empty() {
            return;
        }
        let number = self.running.len();
        let command = &mut self.running[which % number];
        if !std::mem::replace(&mut command.took_effect, true) {
            let rules = self.rules.entry(command.source).or_default();
            *rules = match command.is_start {
                true => *rules + 1,
                false => rules.saturating_sub(1),
            };
        }
    }

    fn end(&mut self, which: usize, fails: bool) {
        if self.running.is_empty() {
            return;
        }
        let index = which % self.running.len();
        // The effect of a stop command that fails is unknown.
        if !(fails && self.running[index].is_start) {
            self.effect(index);
        }
        let ended = self.running.remove(index);
        let mut actions = Vec::new();
        self.book.command_ended(ended.id, self.now, &mut actions);
        self.accept(actions);
    }

    fn run_all(&mut self) {
        while !self.waiting.is_empty() || !self.running.is_empty() {
            self.begin(0);
            self.end(0, false);
        }
    }

    /// The next daemon ends running commands in any state. Waiting ones never ran.
    fn crash(&mut self) {
        let place = BootContext {
            boot: "b".to_string(),
            net: 1,
        };
        let text = journal::encode(&place, self.book.leases().iter());
        let found = journal::decode(&text).expect("a journal");
        self.waiting.clear();
        self.running.clear();
        let mut actions = Vec::new();
        self.book = LeaseBook::default();
        self.book.restore(found.leases, &mut actions);
        self.book.expire(self.now, &mut actions);
        let leases = self.book.leases().iter();
        let stopping = leases.filter(|lease| matches!(lease.phase, Phase::Stopping { .. }));
        self.over = stopping.map(|lease| lease.id).collect();
        self.accept(actions);
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        let mut actions = Vec::new();
        match event {
            Event::Knock(source) => {
                let source = IpAddr::from([10, 9, 0, source]);
                let book = &self.book;
                if self.reknock == Reknock::Renew {
                    self.over
                        .retain(|id| book.get(*id).is_some_and(|l| l.source != source));
                }
                let opening = Opening {
                    kind: LeaseKind::Door("SSH".to_string()),
                    source,
                    start: b"start".to_vec(),
                    stop: b"stop".to_vec(),
                    cmd_timeout: TIMEOUT,
                    turn: Turn::default(),
                };
                let opened = self
                    .book
                    .open(opening, self.reknock, self.now, &mut actions);
                prop_assert!(opened.is_ok());
            }
            Event::Begin(which) => self.begin(which),
            Event::Effect(which) => self.effect(which),
            Event::End { which, fails } => self.end(which, fails),
            Event::Wait(time) => {
                self.now += time;
                self.book.expire(self.now, &mut actions);
            }
            Event::Flush => self.rules.clear(),
            Event::Reapply(times) => {
                self.book.reapply(&mut actions);
                let once = actions.len();
                (1..times).for_each(|_| self.book.reapply(&mut actions));
                prop_assert_eq!(actions.len(), once, "once per lease");
            }
            Event::Restore => {
                self.rules.clear();
                self.book.reapply(&mut actions);
                self.accept(std::mem::take(&mut actions));
                self.run_all();
                // With `stack`, one lease's stop command removes the rule of another, which is
                // equal.
                if self.reknock == Reknock::Renew {
                    for lease in self.book.leases() {
                        prop_assert_eq!(self.rules.get(&lease.source), Some(&1));
                    }
                }
            }
            Event::Crash => self.crash(),
        }
        self.accept(actions);
        Ok(())
    }

    /// Checks that each lease has at most one rule, and that no rule has no lease.
    fn check(&self) -> Result<(), TestCaseError> {
        for (source, rules) in &self.rules {
            let leases = self.book.leases().iter();
            let leases = leases.filter(|lease| lease.source == *source).count();
            prop_assert!(*rules <= leases, "{} rules for {} leases", rules, leases);
            if self.reknock == Reknock::Renew {
                prop_assert!(leases <= 1, "{} leases of one source", leases);
            }
        }
        for lease in self.book.leases() {
            let mine = |id: LeaseId| id == lease.id;
            let commands = self.running.iter().filter(|c| mine(c.id)).count()
                + self.waiting.iter().filter(|(id, _)| mine(*id)).count();
            let is_open = matches!(lease.phase, Phase::Open { .. });
            prop_assert_eq!(commands, usize::from(!is_open), "one command at a time");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn never_more_rules_than_leases_and_none_at_the_end(
        events in prop::collection::vec(event(), 0..80),
        stack in any::<bool>(),
        ends_by_signal in any::<bool>(),
    ) {
        let reknock = if stack { Reknock::Stack } else { Reknock::Renew };
        let mut world = World::new(reknock);
        for event in events {
            world.happen(event)?;
            world.check()?;
        }
        if ends_by_signal {
            let mut actions = Vec::new();
            world.book.end(&|_| true, true, &mut actions);
            // As in the keeper: drop waiting commands without a lease.
            let World { book, waiting, .. } = &mut world;
            waiting.retain(|(id, _)| book.get(*id).is_some());
            world.accept(actions);
            world.run_all();
            // Leases that had to wait for the end of their start command.
            world.happen(Event::Wait(0))?;
            world.run_all();
        } else {
            world.run_all();
            world.happen(Event::Wait(3 * TIMEOUT))?;
            world.run_all();
            world.happen(Event::Wait(3 * TIMEOUT))?;
            world.run_all();
        }
        world.check()?;
        prop_assert!(world.book.leases().is_empty());
        prop_assert!(world.rules.values().all(|rules| *rules == 0));
    }
}
