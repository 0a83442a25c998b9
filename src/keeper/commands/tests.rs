//! Tests the order in which commands start, with made-up PIDs.

use super::*;
use crate::lease::Opening;
use crate::lease::Reknock;
use proptest::prelude::*;

/// The complete knocks of a test and the commands that they cause.
#[derive(Default)]
struct World {
    commands: CommandQueue,
    book: LeaseBook,
    options: Options,
    number: u64,
    now: Millis,
}

impl World {
    fn turn(&mut self) -> Turn {
        self.number += 1;
        Turn {
            number: self.number,
            at: self.now,
        }
    }

    fn push(&mut self, source: u8, door: &str, role: Role) {
        let command = Command {
            lease: (role != Role::Plain).then_some(self.number as LeaseId),
            role,
            door: door.to_string(),
            source: IpAddr::from([10, 9, 0, source]),
            turn: self.turn(),
            text: format!("{door}{source}").into_bytes(),
            again: false,
        };
        assert!(self.commands.push(command));
    }

    /// Starts all commands that may start. Returns their texts.
    fn begin(&mut self) -> String {
        let mut texts = Vec::new();
        loop {
            self.commands.next_turn = NEVER;
            let index = self.commands.choose(self.now, &self.options, &self.book);
            let Some(index) = index else {
                return texts.join(" ");
            };
            let turn = self.commands.queue[index].turn;
            let group = ProcessGroup {
                leader: Pid(turn.number as i32),
                started: 0,
            };
            self.commands
                .mark_running(index, group, self.now, &self.options);
            let began = &self.commands.running.last().unwrap().command;
            texts.push(String::from_utf8(began.text.clone()).unwrap());
        }
    }

    fn begin_at(&mut self, now: Millis) -> String {
        self.now = now;
        self.begin()
    }

    fn end(&mut self, text: &str) {
        let is_it = |running: &Running| running.command.text == text.as_bytes();
        let index = self.commands.running.iter().position(is_it).unwrap();
        self.commands.running.remove(index);
    }
}

#[test]
fn a_command_waits_for_those_of_earlier_knocks_at_other_doors() {
    for (first, second) in [
        (Role::Start, Role::Plain),
        (Role::Plain, Role::Start),
        (Role::Start, Role::Start),
        (Role::Plain, Role::Plain),
    ] {
        let mut world = World::default();
        world.push(1, "open", first);
        world.push(1, "close", second);
        world.push(2, "close", second);
        assert_eq!(world.begin(), "open1 close2", "{first:?} {second:?}");
        assert_eq!(world.begin_at(1999), "");
        world.end("open1");
        assert_eq!(world.begin(), "close1");
    }
}

#[test]
fn a_command_that_runs_for_2_s_holds_up_nothing() {
    let mut world = World::default();
    world.push(1, "server", Role::Plain);
    assert_eq!(world.begin(), "server1");
    world.now = 1500;
    world.push(1, "door", Role::Start);
    assert_eq!(world.begin_at(1999), "");
    assert_eq!(world.commands.next_turn, ORDER_MS);
    assert_eq!(world.begin_at(ORDER_MS), "door1");
    assert_eq!(world.commands.next_turn, NEVER);
    world.now = 5000;
    world.push(1, "other", Role::Start);
    world.push(1, "server", Role::Plain);
    assert_eq!(world.begin(), "other1", "the same door's is before, too");
}

#[test]
fn no_chain_adds_up() {
    let mut world = World::default();
    for (at, door) in [(0, "a"), (100, "b"), (1800, "c"), (1900, "d")] {
        world.now = at;
        world.push(1, door, Role::Start);
        world.begin();
    }
    assert_eq!(world.begin_at(2000), "b1");
    assert_eq!(world.begin_at(3799), "");
    assert_eq!(world.begin_at(3800), "c1");
    assert_eq!(world.begin_at(3899), "");
    assert_eq!(world.begin_at(3900), "d1");
}

#[test]
fn one_door_overlaps_with_itself() {
    let mut world = World::default();
    for role in [Role::Start, Role::Plain] {
        world.push(1, "door", role);
        world.push(1, "door", role);
    }
    assert_eq!(world.begin(), "door1 door1 door1 door1");
}

#[test]
fn what_closes_or_bans_waits_for_nothing() {
    let mut world = World::default();
    world.push(1, "open", Role::Start);
    assert_eq!(world.begin(), "open1");
    world.push(1, "a", Role::Ban);
    assert_eq!(world.begin(), "a1");
    world.end("a1");
    world.push(1, "open", Role::Ban);
    world.push(1, "b", Role::Unban);
    world.push(1, "c", Role::Stop);
    assert_eq!(world.begin(), "b1 c1", "an end of a ban before a ban");
}

#[test]
fn what_waits_for_its_turn_takes_no_place() {
    let mut world = World::default();
    world.options.max_commands = 1;
    world.push(1, "open", Role::Start);
    world.push(1, "close", Role::Plain);
    world.push(2, "close", Role::Plain);
    assert_eq!(world.begin(), "open1 close2");
    world.push(3, "open", Role::Start);
    world.push(3, "close", Role::Plain);
    world.end("close2");
    world.end("open1");
    assert_eq!(world.begin(), "close1 open3");
    // A waiting command delays its source no longer than a running one.
    world.push(4, "open", Role::Start);
    world.push(4, "close", Role::Plain);
    world.end("close1");
    assert_eq!(world.begin_at(ORDER_MS - 1), "");
    assert_eq!(world.begin_at(ORDER_MS), "close3");
    world.end("close3");
    assert_eq!(world.begin(), "close4");
}

/// A knock during the stop command reopens the door after it. It still precedes a later knock at
/// another door.
#[test]
fn a_start_that_waits_for_its_stop_command_keeps_its_turn() {
    let mut world = World::default();
    let mut actions = Vec::new();
    let mut opening = Opening {
        kind: crate::lease::LeaseKind::Door("open".to_string()),
        source: IpAddr::from([10, 9, 0, 1]),
        start: b"start".to_vec(),
        stop: b"stop".to_vec(),
        cmd_timeout: 1000,
        turn: world.turn(),
    };
    let mut open = |book: &mut LeaseBook, turn| {
        opening.turn = turn;
        let opened = book.open(opening.clone(), Reknock::Renew, 0, &mut actions);
        opened.unwrap();
    };
    let turn = world.turn();
    open(&mut world.book, turn);
    world.book.command_ended(0, 0, &mut Vec::new());
    world.book.expire(1000, &mut Vec::new());
    world.now = 1000;
    world.push(1, "close", Role::Plain);
    assert_eq!(world.begin(), "close1", "it closes only");
    world.end("close1");
    let turn = world.turn();
    open(&mut world.book, turn);
    world.push(1, "close", Role::Plain);
    world.push(2, "close", Role::Plain);
    assert_eq!(world.begin_at(1100), "close2");
    let mut actions = Vec::new();
    world.book.command_ended(0, 1100, &mut actions);
    assert_eq!(actions, [crate::lease::Action::RunStart(0)]);
    let lease = world.book.get(0).unwrap();
    let start = Command {
        lease: Some(0),
        role: Role::Start,
        door: lease.name().to_string(),
        source: lease.source,
        turn: lease.turn,
        text: b"start".to_vec(),
        again: false,
    };
    assert!(world.commands.push(start));
    assert_eq!(world.begin(), "start");
    world.end("start");
    assert_eq!(world.begin(), "close1");
}

/// A knock and the run of its command.
#[derive(Clone, Copy, Debug)]
struct Knock {
    source: u8,
    door: u8,
    at: Millis,
    lasts: Millis,
    began: Option<Millis>,
}

impl Knock {
    fn role(&self) -> Role {
        [Role::Start, Role::Plain][usize::from(self.door % 2)]
    }

    fn has_ended(&self, now: Millis) -> bool {
        self.began.is_some_and(|began| began + self.lasts <= now)
    }

    /// The rule as docs/config.md states it.
    fn may_begin(&self, earlier: &[Knock], now: Millis) -> bool {
        let mut others = earlier
            .iter()
            .filter(|other| other.source == self.source && other.door != self.door);
        now >= self.at + 2000
            || others.all(|other| {
                other.has_ended(now) || other.began.is_some_and(|began| now >= began + 2000)
            })
    }
}

proptest! {
    #[test]
    fn commands_begin_as_soon_as_the_rule_lets_them(
        knocks in prop::collection::vec((0..3u8, 0..4u8, 0..900u64, 1..4000u64), 1..20),
        max_commands in 1..5u32,
    ) {
        let mut world = World::default();
        world.options.max_commands = max_commands;
        let mut at = 0;
        let mut knocks: Vec<Knock> = knocks
            .into_iter()
            .map(|(source, door, pause, lasts)| {
                // About half of them arrive at the same time.
                at += pause.saturating_sub(450);
                Knock { source, door, at, lasts, began: None }
            })
            .collect();
        let mut come = 0;
        loop {
            let now = world.now;
            world.commands.running.retain(|running| {
                !knocks[running.command.turn.number as usize - 1].has_ended(now)
            });
            while let Some(knock) = knocks.get(come).filter(|knock| knock.at <= now) {
                world.push(knock.source, &knock.door.to_string(), knock.role());
                come += 1;
            }
            world.begin();
            for running in &world.commands.running {
                let index = running.command.turn.number as usize - 1;
                if knocks[index].began.is_none() {
                    prop_assert!(knocks[index].may_begin(&knocks[..index], now), "{index} at {now}: {knocks:?}");
                    knocks[index].began = Some(now);
                }
            }
            for index in 0..come {
                let knock = knocks[index];
                let alike = world.commands.running.iter().filter(|running| running.command.role == knock.role());
                let has_place = alike.count() < max_commands as usize;
                prop_assert!(
                    knock.began.is_some() || !has_place || !knock.may_begin(&knocks[..index], now),
                    "{index} at {now}: {knocks:?}"
                );
            }
            let ends = knocks.iter().filter_map(|knock| Some(knock.began? + knock.lasts));
            let next_end = ends.filter(|end| *end > now).min().unwrap_or(NEVER);
            let next_knock = knocks.get(come).map_or(NEVER, |knock| knock.at);
            // Nothing else wakes the daemon.
            match soonest(&[next_end, next_knock, world.commands.next_turn]) {
                NEVER => break,
                next => {
                    prop_assert!(next > now);
                    world.now = next;
                }
            }
        }
        prop_assert!(knocks.iter().all(|knock| knock.began.is_some()), "{knocks:?}");
    }
}
