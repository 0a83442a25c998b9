//! Knocks of all kinds, and the effect that each must have.

use crate::doors::{
    self, DOORS, LIST_LINES, NOTE, ONCE, SEQ_TIMEOUT, SOURCES, Step, listed, sequence,
};
use crate::lab;
use crate::model::{Event, Key, Ms};
use crate::soak::Soak;
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two steps that must not be reordered.
const GAP: Duration = Duration::from_millis(20);

impl Soak {
    /// Sends a knock of a random kind.
    pub fn knock(&mut self) {
        match self.random.below(100) {
            0..50 => self.knock_correctly(),
            50..68 => self.knock_fast(),
            68..74 => self.knock_with_client(),
            74..84 => self.knock_half(),
            84..92 => self.knock_in_wrong_order(),
            92..96 => self.knock_stale(),
            _ => self.replay(),
        }
    }

    /// Some customers whose packets can arrive, each with its own source and door.
    fn customers(&mut self, most: usize) -> Vec<Key> {
        let mut keys = BTreeSet::new();
        let number = 1 + self.random.below(most);
        for _ in 0..number * 4 {
            let key = Key {
                door: self.random.below(DOORS.len()),
                source: self.random.below(SOURCES.len()),
            };
            // A restart waits for a command that hangs.
            let too_slow = self.hurry && doors::hangs(key.door) && !self.random.percent(5);
            if keys.len() < number
                && !too_slow
                && doors::is_customer(key)
                && self.world.can_send(&SOURCES[key.source])
            {
                keys.insert(key);
            }
        }
        let mut keys: Vec<Key> = keys.into_iter().collect();
        // The one-time list has only one valid sequence at a time.
        let once: Vec<Key> = keys
            .iter()
            .copied()
            .filter(|key| key.door == ONCE)
            .skip(1)
            .collect();
        keys.retain(|key| !once.contains(key));
        keys
    }

    /// The sequence that currently opens this door, as far as is known.
    fn current_sequence(&self, door: usize) -> Option<Vec<Step>> {
        match door {
            ONCE => self.used_lines().iter().position(|used| !used).map(listed),
            _ => Some(sequence(self.variant, door)),
        }
    }

    /// Which lines of the one-time list are used.
    pub fn used_lines(&self) -> Vec<bool> {
        let list = self.world.home.read("once");
        let used: Vec<bool> = list.lines().map(|line| line.starts_with('#')).collect();
        assert_eq!(used.len(), LIST_LINES, "the one-time list was mangled");
        used
    }

    fn send(&mut self, source: usize, step: Step) {
        let source = &SOURCES[source];
        self.world
            .send(source.address, source.link, step, &mut self.random);
    }

    /// Updates the model before the last packet of a complete knock.
    fn may_open(&mut self, key: Key) {
        let sent = self.now();
        self.record(Event::Knocked {
            key,
            certain: false,
            sent,
        });
    }

    /// Updates the model after it. The last packet was sent at `earliest` or later.
    fn has_knocked(&mut self, key: Key, certain: bool, steps: &[Step], earliest: Ms) {
        let sent = self.now();
        for (certain, sent) in [(false, sent), (certain, earliest)] {
            self.record(Event::Knocked { key, certain, sent });
        }
        if key.door == NOTE {
            let wait = self.model.wait(key, sent);
            self.runs.knocked(key.source, certain, sent + wait);
        }
        if !certain {
            self.mark_dirty(key);
        }
        if key.door == ONCE {
            let line = (0..LIST_LINES).find(|line| listed(*line) == steps);
            self.uses.knocked(line.expect("a line"), certain, sent);
            // The listener must first receive the next line.
            self.unsettle(None);
            self.once_until = sent + 1000;
        }
    }

    /// Knocks like a user who wants to get in. Nothing disturbs the knock, so it must open. Several
    /// users knock in parallel, step by step.
    fn knock_correctly(&mut self) {
        let keys = self.customers(3);
        for key in &keys {
            let source = &SOURCES[key.source];
            if !self.make_certain(source.link, source.is_ipv6()) {
                return;
            }
        }
        if keys.iter().any(|key| key.door == ONCE) && self.now() < self.once_until {
            self.pass(100);
        }
        let all: Option<Vec<(Key, Vec<Step>)>> = keys
            .into_iter()
            .map(|key| Some((key, self.current_sequence(key.door)?)))
            .collect();
        let Some(all) = all else { return };
        self.note("knock, undisturbed", &show(&all));
        let begin = self.now();
        let last = all.iter().map(|(_, steps)| steps.len()).max().unwrap_or(0);
        for index in 0..last {
            for (key, steps) in &all {
                let Some(step) = steps.get(index) else {
                    continue;
                };
                let is_last = index + 1 == steps.len();
                let earliest = self.now();
                if is_last {
                    self.may_open(*key);
                }
                self.send(key.source, *step);
                if is_last {
                    let in_time = self.now() < begin + SEQ_TIMEOUT * 1000 - 1000;
                    let certain = in_time && self.is_clean(*key);
                    self.has_knocked(*key, certain, steps, earliest);
                }
            }
            if index + 1 < last {
                std::thread::sleep(GAP);
            }
        }
    }

    /// Sends all packets at once, whatever else is going on. The door may open.
    pub fn knock_fast(&mut self) {
        for key in self.customers(4) {
            let variant = self.random.pick(&[self.variant, self.stale]);
            let steps = match (
                self.reloading && key.door != ONCE,
                self.current_sequence(key.door),
            ) {
                (true, _) => sequence(variant, key.door),
                (false, Some(steps)) => steps,
                (false, None) => continue,
            };
            self.note("knock, all at once", &show(&[(key, steps.clone())]));
            self.may_open(key);
            for step in &steps {
                self.send(key.source, *step);
            }
            let now = self.now();
            self.has_knocked(key, false, &steps, now);
        }
    }

    /// Knocks with the real client.
    fn knock_with_client(&mut self) {
        let key = Key {
            door: self.random.below(ONCE),
            source: self.random.below(2),
        };
        let source = &SOURCES[key.source];
        if !doors::is_customer(key)
            || !self.world.can_send(source)
            || !self.make_certain(source.link, source.is_ipv6())
        {
            return;
        }
        let steps = sequence(self.variant, key.door);
        self.note("knock, real client", &show(&[(key, steps.clone())]));
        let certain = self.is_clean(key);
        self.may_open(key);
        let begin = self.now();
        let words = doors::words(&steps);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        lab::knock(
            &self.world.wan,
            self.world.target(source.link, source.is_ipv6()),
            &words,
        );
        let in_time = self.now() < begin + SEQ_TIMEOUT * 1000 - 1000;
        self.has_knocked(key, certain && in_time, &steps, begin);
    }

    /// Any source, customer or not, and a door at which it has not knocked recently.
    fn any_key(&mut self) -> Option<Key> {
        let key = Key {
            door: self.random.below(DOORS.len()),
            source: self.random.below(SOURCES.len()),
        };
        (self.is_clean(key) && self.world.can_send(&SOURCES[key.source])).then_some(key)
    }

    /// Sends an incomplete knock, which opens nothing.
    fn knock_half(&mut self) {
        let Some(key) = self.any_key() else { return };
        let Some(mut steps) = self.current_sequence(key.door) else {
            return;
        };
        if self.random.percent(50) {
            steps.pop();
        } else {
            steps.remove(self.random.below(steps.len()));
        }
        self.note("half knock", &show(&[(key, steps.clone())]));
        self.mark_dirty(key);
        for step in steps {
            self.send(key.source, step);
        }
    }

    /// Sends the right ports in a wrong order or over the wrong transport, which opens nothing.
    fn knock_in_wrong_order(&mut self) {
        let Some(key) = self.any_key() else { return };
        let Some(mut steps) = self.current_sequence(key.door) else {
            return;
        };
        match self.random.below(3) {
            0 => steps.reverse(),
            1 => {
                let index = self.random.below(steps.len() - 1);
                steps.swap(index, index + 1);
            }
            _ => {
                let index = self.random.below(steps.len());
                steps[index].udp = !steps[index].udp;
            }
        }
        self.note("knock in wrong order", &show(&[(key, steps.clone())]));
        self.mark_dirty(key);
        for step in steps {
            self.send(key.source, step);
        }
    }

    /// Sends the sequence of the previous config, which opens nothing.
    fn knock_stale(&mut self) {
        let Some(key) = self.any_key() else { return };
        let source = &SOURCES[key.source];
        if self.stale == self.variant
            || key.door == ONCE
            || !self.make_certain(source.link, source.is_ipv6())
        {
            return;
        }
        let steps = sequence(self.stale, key.door);
        self.note("knock of the config before", &show(&[(key, steps.clone())]));
        for step in steps {
            self.send(key.source, step);
        }
    }

    /// Sends a used line of the one-time list, which never opens anything.
    fn replay(&mut self) {
        let used = self.used_lines();
        let used: Vec<usize> = (0..LIST_LINES).filter(|line| used[*line]).collect();
        let source = self.random.below(SOURCES.len());
        if used.is_empty() || !self.world.can_send(&SOURCES[source]) {
            return;
        }
        let line = match self.random.percent(50) {
            true => used[used.len() - 1],
            false => self.random.pick(&used),
        };
        let steps = listed(line);
        self.note(
            "replay of a used sequence",
            &show(&[(Key { door: ONCE, source }, steps.clone())]),
        );
        for step in steps {
            self.send(source, step);
        }
    }
}

fn show(knocks: &[(Key, Vec<Step>)]) -> String {
    let one = |(key, steps): &(Key, Vec<Step>)| {
        let (door, source) = (DOORS[key.door].name, SOURCES[key.source].address);
        format!("{source} at {door}: {}", doors::words(steps).join(","))
    };
    let all: Vec<String> = knocks.iter().map(one).collect();
    all.join("; ")
}
