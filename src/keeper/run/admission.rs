//! What the keeper takes from a listener: one that was taken over sends what it likes, as fast as it can.
#![forbid(unsafe_code)]

use super::Keeper;
use crate::capture::packet;
use crate::keeper::doors::DoorRuntime;
use crate::keeper::log::LogKind;
use crate::knock::Trigger;
use crate::limits::{LEFT_OUT_REPORT_MS, LOG_BURST, MAX_STEPS, TEXT_BURST, TEXTS_PER_SECOND};
use crate::sys::clock::monotonic;
use crate::util::time::Millis;
use crate::util::token_bucket::TokenBucket;
use std::net::IpAddr;

/// How many lines listeners may cause, whatever they say of themselves. An honest one keeps to `LogRate` and is never bounded here.
pub struct Admission {
    /// About clients: stages and failures, and what `-D` shows of packets.
    lines: TokenBucket,
    /// In the listener's own words.
    texts: TokenBucket,
}

impl Admission {
    /// `log_rate`: `LogRate`.
    pub fn new(log_rate: u32) -> Admission {
        let now = monotonic();
        Admission {
            // An honest listener's rate is counted by its own clock, and its burst by its own start.
            lines: TokenBucket::new(log_rate, 2 * LOG_BURST, now),
            texts: TokenBucket::new(TEXTS_PER_SECOND, TEXT_BURST, now),
        }
    }

    /// How many lines were left out since this was called last.
    pub fn take_left_out(&mut self) -> Option<u32> {
        let lines = self.lines.take_left_out();
        let texts = self.texts.take_left_out();
        lines.map_or(texts, |lines| Some(lines + texts.unwrap_or(0)))
    }
}

/// What [`Keeper::log_lines_left_out`] calls the lines that [`Admission`] bounds.
pub const ABOUT_ATTEMPTS: &str = "stage and failure lines";

/// Whose words a line is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// About a client, or what `-D` shows of a packet.
    Keepers,
    /// As the listener says it.
    Listeners,
}

impl Keeper {
    /// Whether the listener may cause such a line now. If not, it is counted.
    pub(super) fn admits(&mut self, words: Author) -> bool {
        let rate = match words {
            Author::Keepers => &mut self.admission.lines,
            Author::Listeners => &mut self.admission.texts,
        };
        let now = monotonic();
        let allowed = rate.allow(now);
        if !allowed {
            self.report_left_out(now);
        }
        allowed
    }

    /// Has what was left out logged soon.
    pub(super) fn report_left_out(&mut self, now: Millis) {
        self.report_openings = self.report_openings.min(now + LEFT_OUT_REPORT_MS);
    }

    pub(super) fn log_lines_left_out(&mut self, number: u32, what: &str) {
        self.log.log(
            LogKind::Event,
            &format_args!("LogRate: {number} {what} left out"),
        );
    }

    /// Logs a text of the listener. Once that has read packets it is marked, or it could look like a line of the keeper.
    pub(super) fn listener_text(&mut self, kind: LogKind, text: &str) -> bool {
        if self.admits(Author::Listeners) {
            let mark = match self.listener.is_some() {
                true => "listener: ",
                false => "",
            };
            self.log.log(kind, &format_args!("{mark}{text}"));
        }
        true
    }

    /// Whether an honest listener can have seen a packet of that source.
    pub(super) fn can_knock(&self, source: IpAddr) -> bool {
        packet::can_be_host(source) && !(self.settings.args.only_ip_v4 && source.is_ipv6())
    }
}

/// Whether the door has that many steps. Of a one-time door the sequence may have been another when this was sent.
pub fn has_stage(door: &DoorRuntime, stage: u8) -> bool {
    let steps = match &door.trigger {
        Trigger::Sequence(sequence) => sequence.steps().len(),
        Trigger::OneTime(_) => MAX_STEPS,
    };
    usize::from(stage) <= steps
}
