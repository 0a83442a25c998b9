//! Answers clients of the control socket: reports the status and closes doors.
#![forbid(unsafe_code)]

use super::Keeper;
use crate::ipc::{Counters, Interface, ToListener};
use crate::keeper::control::{Control, ERROR, OK, Request};
use crate::keeper::log::LogKind;
use crate::keeper::status::{DoorStatus, ListenerStatus, Status};
use crate::lease::{BAN, Lease};
use crate::limits::{CLIENT_MS, MAX_INTERFACES};
use crate::sys::clock::monotonic;
use crate::sys::file;
use crate::sys::poll::Ready;
use crate::util::quote::printable;
use crate::util::time::Millis;
use std::net::IpAddr;

impl Keeper {
    /// Opens the control socket and marks this daemon as running, which a second daemon checks.
    pub fn mark_up(&mut self) {
        let Some(state) = &self.state else { return };
        let path = state.control_path();
        match Control::open(&path) {
            Ok(control) => self.control = Some(Box::new(control)),
            Err(error) => {
                let path = path.to_string_lossy();
                self.log.log(
                    LogKind::Error,
                    &format_args!("warning: no control socket (knockd --status): {path}: {error}"),
                );
            }
        }
        state.set_running(true);
    }

    /// Closes the control socket and marks this daemon as stopping.
    pub(super) fn mark_down(&mut self) {
        self.control = None;
        if let Some(state) = &self.state {
            state.set_running(false);
            if state.is_in_place() {
                // New clients now get ENOENT. If the file is already gone, nothing is left to do.
                let _ = file::remove(&state.control_path());
            }
        }
    }

    /// Serves the clients whose sockets are ready.
    pub(super) fn serve_clients(&mut self, ready: Ready, now: Millis) {
        // Taken out of the keeper because an answer may need all of it.
        let Some(mut control) = self.control.take() else {
            return;
        };
        control.serve(ready, now, &mut |question| match question {
            Request::Status { .. } => None,
            Request::Close { door, source } => Some(self.close_door(&door, source)),
        });
        let asked = control.has_pending_status();
        self.control = Some(control);
        if asked && self.report.is_none() {
            self.request_report(now);
        }
    }

    fn close_door(&mut self, door: &str, source: IpAddr) -> String {
        let is_selected = |lease: &Lease| lease.source == source && lease.name() == door;
        let is_door = |lease: &Lease| is_selected(lease) && !lease.is_ban();
        let mut number = self.end_leases(&is_door, "closed by --close");
        if number == 0 {
            // A door may have the name that bans have.
            number = self.end_leases(&is_selected, "ended by --close");
        }
        self.carry_out(monotonic());
        self.close_answer(door, source, number)
    }

    /// Returns the answer to a close request.
    fn close_answer(&self, door: &str, source: IpAddr, number: usize) -> String {
        let shown = printable(door.as_bytes());
        match number {
            0 if door == BAN => format!("{ERROR}{source} is not banned\n"),
            0 if self.doors.iter().all(|known| known.config.name != door) => {
                format!("{ERROR}there is no door {shown}\n")
            }
            _ => {
                let (kind, what) = match number {
                    0 => (ERROR, "is not open"),
                    _ => (OK, "is closing"),
                };
                format!("{kind}{shown} {what} for {source}\n")
            }
        }
    }

    /// Requests the listener's report for the status. Waits for it half as long as for a client.
    fn request_report(&mut self, now: Millis) {
        let listener = self.listener.as_ref();
        match listener.map(|listener| (listener.send(ToListener::Report), listener.started)) {
            Some((Ok(()), started)) => {
                let status = ListenerStatus {
                    uptime: now.saturating_sub(started),
                    ..ListenerStatus::default()
                };
                self.report = Some((status, now + CLIENT_MS / 2));
            }
            _ => self.answer_status(None, now),
        }
    }

    /// Adds an interface to the report. Returns `false` if the listener sent more interfaces than
    /// [`MAX_INTERFACES`].
    pub(super) fn handle_interface(&mut self, interface: Interface) -> bool {
        match &mut self.report {
            Some((status, _)) if status.interfaces.len() < MAX_INTERFACES => {
                status.interfaces.push(interface);
                true
            }
            Some(_) => false,
            // The report was given up: too late.
            None => true,
        }
    }

    pub(super) fn handle_counters(&mut self, counters: Counters) -> bool {
        if let Some((mut status, _)) = self.report.take() {
            status.counters = counters;
            self.answer_status(Some(&status), monotonic());
        }
        true
    }

    /// Sends the status to all clients that wait for it.
    pub(super) fn answer_status(&mut self, listener: Option<&ListenerStatus>, now: Millis) {
        self.report = None;
        let Some(mut control) = self.control.take() else {
            return;
        };
        let config = self.settings.config.to_string_lossy();
        let doors = || {
            let doors = self.doors.iter().map(|door| DoorStatus {
                name: &door.config.name,
                enabled: door.sequence().is_some(),
            });
            doors.collect()
        };
        control.answer_status(|json| {
            let status = Status {
                process: std::process::id(),
                uptime: now.saturating_sub(self.started),
                config: &config,
                listener,
                restarts: self.restarts,
                opened: self.opened,
                doors: doors(),
                leases: self.book.leases(),
                now,
            };
            if json { status.json() } else { status.text() }
        });
        self.control = Some(control);
    }
}
