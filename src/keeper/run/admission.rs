//! Limits what the keeper accepts from a listener: a compromised one sends anything, as fast as it
//! can.
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

/// Bounds the log lines that listeners cause. A listener that works correctly keeps to `LogRate`
/// and never reaches these bounds.
pub struct Admission {
    /// About clients: stages, failed attempts, and packets shown with `-D`.
    lines: TokenBucket,
    /// Texts that the listener wrote.
    texts: TokenBucket,
}

impl Admission {
    /// `log_rate`: `LogRate`.
    pub fn new(log_rate: u32) -> Admission {
        let now = monotonic();
        Admission {
            // Twice the burst, because the listener counts by its own clock and from its own start.
            lines: TokenBucket::new(log_rate, 2 * LOG_BURST, now),
            texts: TokenBucket::new(TEXTS_PER_SECOND, TEXT_BURST, now),
        }
    }

    /// Returns how many lines were left out since the last call.
    pub fn take_left_out(&mut self) -> Option<u32> {
        let lines = self.lines.take_left_out();
        let texts = self.texts.take_left_out();
        lines.map_or(texts, |lines| Some(lines + texts.unwrap_or(0)))
    }
}

/// What [`Keeper::log_lines_left_out`] calls the lines that [`Admission`] bounds.
pub const ABOUT_ATTEMPTS: &str = "stage and failure lines";

/// Who wrote the text of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The keeper: a line about a client, or a packet shown with `-D`.
    Keeper,
    /// The listener.
    Listener,
}

impl Keeper {
    /// Returns whether the listener may cause such a line now. Counts a refused line.
    pub(super) fn admits(&mut self, author: Author) -> bool {
        let rate = match author {
            Author::Keeper => &mut self.admission.lines,
            Author::Listener => &mut self.admission.texts,
        };
        let now = monotonic();
        let allowed = rate.allow(now);
        if !allowed {
            self.report_left_out(now);
        }
        allowed
    }

    /// Schedules the report of what was left out.
    pub(super) fn report_left_out(&mut self, now: Millis) {
        self.left_out_report_at = self.left_out_report_at.min(now + LEFT_OUT_REPORT_MS);
    }

    pub(super) fn log_lines_left_out(&mut self, number: u32, what: &str) {
        self.log.log(
            LogKind::Event,
            &format_args!("LogRate: {number} {what} left out"),
        );
    }

    /// Logs a text of the listener. Marks the text of a listener that reads packets, because it
    /// could otherwise pass for the keeper's own.
    pub(super) fn log_listener_text(&mut self, kind: LogKind, text: &str) -> bool {
        if self.admits(Author::Listener) {
            let mark = match self.listener.is_some() {
                true => "listener: ",
                false => "",
            };
            self.log.log(kind, &format_args!("{mark}{text}"));
        }
        true
    }

    /// Returns whether a listener that works correctly can have seen a packet from that source.
    pub(super) fn can_knock(&self, source: IpAddr) -> bool {
        packet::can_be_host(source) && !(self.settings.args.only_ip_v4 && source.is_ipv6())
    }
}

/// Returns whether the door has that many steps. A one-time door may have had another sequence when
/// the record was sent.
pub fn has_stage(door: &DoorRuntime, stage: u8) -> bool {
    let steps = match &door.trigger {
        Trigger::Sequence(sequence) => sequence.steps().len(),
        Trigger::OneTime(_) => MAX_STEPS,
    };
    usize::from(stage) <= steps
}
