//! What the listener sends to the keeper, and the limits on it.
#![forbid(unsafe_code)]

use crate::ipc::{Counter, Counters, Progress, ToKeeper};
use crate::limits::LEFT_OUT_REPORT_MS;
use crate::matcher::Event;
use crate::sys::message_socket::MessageSocket;
use crate::util::time::Millis;
use crate::util::time::NEVER;
use crate::util::token_bucket::TokenBucket;
use std::cell::Cell;

/// The listener's state of a door, in addition to its pattern.
pub struct DoorState {
    /// Each sequence opens the door once.
    pub one_time: bool,
    /// The number of the current one-time sequence.
    pub generation: u32,
    /// The one-time sequence was used, and the next one has not arrived.
    pub used: bool,
}

/// The connection to the keeper, with its rate limits.
pub struct Output<'a> {
    /// The keeper's socket.
    pub keeper: &'a MessageSocket,
    /// Limits the lossy records.
    pub rate: TokenBucket,
    /// Limits the reports of scanners.
    pub scanned: TokenBucket,
    /// When the number of dropped lines is reported.
    pub report_left_out: Millis,
    /// Send what only `-v` shows.
    pub verbose: bool,
    /// Send what only `-D` shows.
    pub debug: bool,
    /// The totals so far. Attempts under way are counted on request.
    pub counters: Counters,
    /// A reliable record could not be sent.
    pub lost: Cell<bool>,
}

impl Output<'_> {
    /// Sends a record that may be dropped: when the keeper is busy or the rate limit is reached.
    /// Dropped records are counted. Without a limit (`LogRate = 0`) none is dropped; knocks wait
    /// instead.
    pub fn send_lossy(&mut self, record: ToKeeper, now: Millis) {
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

    /// Sends a record that must arrive. While the keeper is busy, packets wait in the kernel. If
    /// sending fails, keeper and listener no longer agree, and the listener has to end.
    pub fn send_reliable(&self, record: ToKeeper) {
        if self.keeper.send(&record.encode(), true).is_err() {
            self.lost.set(true);
        }
    }

    /// Sends a line that `-D` shows.
    pub fn debug(&self, text: &[&str]) {
        if self.debug {
            self.send_reliable(ToKeeper::Debug(text.concat()));
        }
    }

    /// Reports how many lines were dropped, when that is due.
    pub fn report(&mut self, now: Millis) {
        if self.report_left_out <= now {
            self.report_left_out = NEVER;
            if let Some(lines) = self.rate.take_left_out() {
                self.send_reliable(ToKeeper::LeftOut(lines));
            }
        }
    }
}

/// Sends an event to the keeper. Returns whether it used up a one-time sequence.
pub fn send_event(
    event: Event,
    output: &mut Output<'_>,
    doors: &mut [DoorState],
    now: Millis,
) -> bool {
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
            // Over the limit, it is reported with the next hit.
            if output.scanned.allow(now) {
                output.send_reliable(ToKeeper::Scanned(source));
            }
            return false;
        }
        Event::Opened { door, source } => {
            let Some(opened) = doors.get_mut(usize::from(door)) else {
                return false;
            };
            opened.used = opened.one_time;
            let generation = opened.generation;
            output.send_reliable(ToKeeper::Opened {
                door,
                source,
                generation,
            });
            return opened.one_time;
        }
    };
    output.send_lossy(record, now);
    false
}
