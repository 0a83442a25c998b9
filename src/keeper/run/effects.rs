//! Carries out the lease book's decisions, and nothing else does: runs commands, writes the journal
//! and logs.
#![forbid(unsafe_code)]

use super::Keeper;
use crate::keeper::commands::{Command, Role};
use crate::keeper::log::LogKind;
use crate::lease::{Action, LeaseId};
use crate::limits::JOURNAL_RETRY_MS;
use crate::sys::clock::monotonic;
use crate::util::time::Millis;
use crate::util::time::NEVER;
use std::fmt;
use std::net::IpAddr;

impl Keeper {
    /// Carries out the lease book's actions and starts the commands whose turn it is: forks each
    /// one, writes it to the journal, then releases it. The loop calls this before it sleeps;
    /// openings and bans call it at once.
    pub(super) fn carry_out(&mut self, now: Millis) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::RunStart(id) => self.queue_command(id, true, now),
                    Action::RunStop(id) => self.queue_command(id, false, now),
                    Action::LogTimeout(id) => self.log_lease(id, "command timeout", "expired"),
                    Action::LogRenewed(id) => {
                        self.log_lease(id, "already open, timer restarted", "timer restarted")
                    }
                }
            }
        }
        let mut forked = Vec::new();
        while let Some(next) = self.commands.fork_next(now, &self.options, &self.book) {
            match next {
                Ok((command, process)) => {
                    let (door, lease) = (command.door.clone(), command.lease);
                    let text = String::from_utf8_lossy(&command.text);
                    let line = format!("{door}: running command: {text}");
                    if let Some(id) = lease {
                        self.book.command_started(id, process.group());
                    }
                    self.log_opening(LogKind::Event, &door, None, &line);
                    forked.push(process);
                }
                Err(error) => self.log.log(
                    LogKind::Error,
                    &format_args!("error: command fork failed! ({})", error),
                ),
            }
        }
        self.save();
        for process in forked {
            // A child that has already died is reaped like any other.
            let _ = process.release();
        }
    }

    fn queue_command(&mut self, id: LeaseId, starts: bool, now: Millis) {
        let Some(lease) = self.book.get(id) else {
            return;
        };
        let (role, text) = match (lease.is_ban(), starts) {
            (false, true) => (Role::Start, &lease.start),
            (false, false) => (Role::Stop, &lease.stop),
            (true, true) => (Role::Ban, &lease.start),
            (true, false) => (Role::Unban, &lease.stop),
        };
        if text.is_empty() {
            return self.book.command_ended(id, now, &mut self.actions);
        }
        let command = Command {
            lease: Some(id),
            role,
            source: lease.source,
            turn: lease.turn,
            door: lease.name().to_string(),
            text: text.clone(),
            again: false,
        };
        // The queue never refuses a lease's command.
        let _ = self.commands.push(command);
    }

    /// Writes the journal if it has changed.
    pub(super) fn save(&mut self) {
        if !std::mem::take(&mut self.book.journal_dirty) {
            return;
        }
        let Some(state) = &self.state else { return };
        let failed_before = self.journal_failing;
        match state.write(self.book.leases().iter()) {
            Ok(()) => {
                self.journal_failing = false;
                self.journal_retry_at = NEVER;
                if failed_before {
                    self.log
                        .log(LogKind::Event, &"the journal is writable again");
                }
            }
            Err(error) => {
                self.journal_failing = true;
                self.journal_retry_at = monotonic() + JOURNAL_RETRY_MS;
                if !failed_before {
                    self.log.log(LogKind::Error, &format_args!(
                        "error: cannot write the journal: {}: doors will stay open if knockd is \
                         killed",
                        error
                    ));
                }
            }
        }
    }

    pub(super) fn log_lease(&mut self, id: LeaseId, of_door: &str, of_ban: &str) {
        let Some(lease) = self.book.get(id) else {
            return;
        };
        let what = if lease.is_ban() { of_ban } else { of_door };
        let (source, name) = (lease.source, lease.name().to_string());
        self.log_opening(
            LogKind::Event,
            &name,
            Some(source),
            &format_args!("{name}: {what}"),
        );
    }

    /// Logs a line about an opening of the door, or counts it as left out (`LogRate`). Each door
    /// has its own limit: a client that knows one door must not hide another's lines.
    pub(super) fn log_opening(
        &mut self,
        kind: LogKind,
        door: &str,
        source: Option<IpAddr>,
        text: &dyn fmt::Display,
    ) {
        let now = monotonic();
        let mut doors = self.doors.iter_mut();
        let known = doors.find(|known| known.config.name == door);
        if known.is_some_and(|known| !known.lines.allow(now)) {
            self.report_left_out(now);
            return;
        }
        match source {
            Some(source) => self.log.about(kind, source, text),
            None => self.log.log(kind, text),
        }
    }
}
