//! What the listener tells the keeper, and how much of it.
#![forbid(unsafe_code)]

use crate::ipc::{Counter, Counters, Progress, ToKeeper};
use crate::limits::LEFT_OUT_REPORT_MS;
use crate::matcher::Event;
use crate::sys::message_socket::MessageSocket;
use crate::util::time::Millis;
use crate::util::time::NEVER;
use crate::util::token_bucket::TokenBucket;
use std::cell::Cell;

/// What the listener remembers of a door beside its pattern.
pub struct DoorState {
    /// Its sequences are from a one-time list.
    pub one_time: bool,
    /// Counts the one-time sequences.
    pub generation: u32,
    /// Its one-time sequence was used, and the next one has not come yet.
    pub used: bool,
}

/// What goes to the keeper, and at which rate.
pub struct Output<'a> {
    /// Where it goes.
    pub keeper: &'a MessageSocket,
    /// Bounds the lines.
    pub rate: TokenBucket,
    /// Bounds what is said of scanners.
    pub scanned: TokenBucket,
    /// Lines were left out; how many is told then.
    pub report_left_out: Millis,
    /// Tell what only `-v` shows.
    pub verbose: bool,
    /// Tell what only `-D` shows.
    pub debug: bool,
    /// What has happened so far; attempts are counted when asked for.
    pub counters: Counters,
    /// A record that had to arrive did not.
    pub lost: Cell<bool>,
}

impl Output<'_> {
    /// A record that may be lost, which is counted: when the keeper is busy, or there have been too many. Without a bound
    /// (`LogRate = 0`) none is lost, and knocks wait instead.
    pub fn line(&mut self, record: ToKeeper, now: Millis) {
        if self.rate.allow(now)
            && self
                .keeper
                .send(&record.encode(), self.rate.is_unbounded())
                .is_err()
        {
            self.rate.left_out();
        }
        if self.rate.has_left_out() && self.report_left_out == NEVER {
            self.report_left_out = now + LEFT_OUT_REPORT_MS;
        }
    }

    /// A record that must arrive: while the keeper is busy the knocks wait in the kernel. If it does not, keeper and listener no longer
    /// know the same, and the listener has to end.
    pub fn surely(&self, record: ToKeeper) {
        if self.keeper.send(&record.encode(), true).is_err() {
            self.lost.set(true);
        }
    }

    /// A line that `-D` shows.
    pub fn debug(&self, text: &[&str]) {
        if self.debug {
            self.surely(ToKeeper::Debug(text.concat()));
        }
    }

    /// Tells how many lines were left out, when that is due.
    pub fn report(&mut self, now: Millis) {
        if self.report_left_out <= now {
            self.report_left_out = NEVER;
            if let Some(lines) = self.rate.take_left_out() {
                self.surely(ToKeeper::LeftOut(lines));
            }
        }
    }
}

/// Tells the keeper. Returns whether a one-time sequence was used.
pub fn tell(event: Event, output: &mut Output<'_>, doors: &mut [DoorState], now: Millis) -> bool {
    let progress = |door, source, stage| Progress {
        door,
        source,
        stage,
    };
    if matches!(event, Event::TimedOut { .. } | Event::Failed { .. }) {
        output.counters[Counter::Failed as usize] += 1;
    }
    let record = match event {
        Event::Stage {
            door,
            source,
            stage,
        } => ToKeeper::Stage(progress(door, source, stage)),
        Event::TimedOut {
            door,
            source,
            stage,
        } => ToKeeper::TimedOut(progress(door, source, stage)),
        Event::Failed {
            door,
            source,
            stage,
        } if output.verbose => ToKeeper::Failed(progress(door, source, stage)),
        Event::Failed { .. } => return false,
        Event::Scanned { source } => {
            // What is too much now comes with the next hit.
            if output.scanned.allow(now) {
                output.surely(ToKeeper::Scanned(source));
            }
            return false;
        }
        Event::Opened { door, source } => {
            let Some(opened) = doors.get_mut(usize::from(door)) else {
                return false;
            };
            opened.used = opened.one_time;
            let generation = opened.generation;
            output.surely(ToKeeper::Opened {
                door,
                source,
                generation,
            });
            return opened.one_time;
        }
    };
    output.line(record, now);
    false
}
