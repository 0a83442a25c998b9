//! Starts, reads and replaces listeners.
#![forbid(unsafe_code)]

use super::admission::{ABOUT_ATTEMPTS, Author, has_stage};
use super::{Keeper, StartingListener};
use crate::config::Options;
use crate::ipc::{Progress, ToKeeper, ToListener};
use crate::keeper::doors::DoorRuntime;
use crate::keeper::listener_process::{ListenerProcess, Received, Startup};
use crate::keeper::log::LogKind;
use crate::knock::Protocol;
use crate::limits::{LISTENER_END_MS, LISTENER_PAUSE_MS, MAX_LAST_RECORDS, RECORDS_AT_ONCE};
use crate::sys::clock::monotonic;
use crate::sys::error::Result;
use crate::sys::poll::{self, Interest, PollEntry};
use crate::util::time::Millis;
use std::net::IpAddr;
use std::os::fd::AsFd;

impl Keeper {
    /// Starts a listener for the current doors.
    pub fn spawn_own_listener(&mut self) -> Result<ListenerProcess, String> {
        let mut doors = std::mem::take(&mut self.doors);
        let started = self.spawn_listener(&self.options, &mut doors, true, None);
        self.doors = doors;
        started
    }

    pub(super) fn start_listener(&mut self, now: Millis) {
        match self.spawn_own_listener() {
            Ok(listener) => self.starting = Some(StartingListener::new(listener, None)),
            Err(error) => self.schedule_restart(&format!("cannot start a listener ({error})"), now),
        }
    }

    /// Starts a listener for these doors.
    pub(super) fn spawn_listener(
        &self,
        options: &Options,
        doors: &mut [DoorRuntime],
        wait_for_interfaces: bool,
        before: Option<&ListenerProcess>,
    ) -> Result<ListenerProcess, String> {
        ListenerProcess::start(
            &self.settings,
            options,
            doors,
            self.state.as_ref(),
            wait_for_interfaces,
            before,
        )
    }

    /// Stops the listener after it has handled the packets that it has read. Records that it sends
    /// until then count, up to [`MAX_LAST_RECORDS`], because a compromised one may never stop.
    pub(super) fn end_listener(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        let mut until = monotonic();
        // If it does not accept the record, it is killed below.
        if listener.send(ToListener::Stop).is_ok() {
            until += LISTENER_END_MS;
        }
        for _ in 0..MAX_LAST_RECORDS {
            let now = monotonic();
            match listener.receive() {
                Received::Record(record) => {
                    self.handle_message(record);
                }
                Received::Nothing if now < until => {
                    let entry = PollEntry::new(Some(listener.as_fd()), Interest::Readable);
                    if poll::wait(&mut [entry], now, until).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Reads records of the starting listener: the first one, a replacement for one that died, or
    /// that of a new config.
    pub(super) fn read_starting(&mut self) {
        for _ in 0..RECORDS_AT_ONCE {
            let Some(starting) = &self.starting else {
                return;
            };
            match starting.listener.poll_startup() {
                Startup::Pending => return,
                Startup::Log(record) => {
                    self.handle_message(record);
                }
                Startup::Refused(problem) => self.abort_starting(&problem),
                Startup::Dead => self.abort_starting("listener died"),
                Startup::Ready(listens) => {
                    let Some(StartingListener { listener, new, .. }) = self.starting.take() else {
                        return;
                    };
                    match (&mut self.startup, new) {
                        (_, Some(new)) => return self.activate_config(listener, new),
                        (Some(startup), _) => *startup = Ok(listens),
                        (None, _) => listener.start_capture(),
                    }
                    self.listener = Some(listener);
                }
            }
        }
    }

    /// Ends the starting listener and abandons what it was started for.
    pub(super) fn abort_starting(&mut self, why: &str) {
        let Some(StartingListener { listener, new, .. }) = self.starting.take() else {
            return;
        };
        match &mut self.startup {
            _ if new.is_some() => self.abort_reload(why),
            Some(startup) => *startup = Err(why.to_string()),
            None => self.schedule_restart(why, listener.started),
        }
    }

    pub(super) fn listener_died(&mut self, why: &str) {
        if let Some(listener) = self.listener.take() {
            self.schedule_restart(why, listener.started);
        }
    }

    /// Schedules a new listener, because of `why`. The previous one was started at `started`.
    fn schedule_restart(&mut self, why: &str, started: Millis) {
        self.log
            .log(LogKind::Error, &format_args!("error: {why}, restarting it"));
        self.restarts += 1;
        self.restart.after_death(started, monotonic());
    }

    pub(super) fn read_listener(&mut self) {
        for _ in 0..RECORDS_AT_ONCE {
            let Some(listener) = &self.listener else {
                return;
            };
            let is_valid = match listener.receive() {
                Received::Nothing => return,
                Received::End => return self.listener_died("listener died"),
                Received::Malformed => false,
                Received::Record(record) => self.handle_message(record),
            };
            if !is_valid {
                return self.listener_died("listener sent a malformed record");
            }
        }
        // Without a `LogRate`, no line may be lost, whatever that costs.
        if let Some(listener) = &mut self.listener
            && self.options.log_rate > 0
        {
            listener.paused_until = monotonic() + LISTENER_PAUSE_MS;
        }
    }

    /// Lets the first listener read packets. If it has died since it was ready, the loop starts
    /// another.
    pub fn release_listener(&self) {
        if let Some(listener) = &self.listener {
            listener.start_capture();
        }
    }

    /// Handles a record of the listener, as far as it can be checked. Returns `false` if the record
    /// is malformed.
    fn handle_message(&mut self, record: ToKeeper) -> bool {
        match record {
            ToKeeper::Stage(progress) => self.log_progress(progress, LogKind::Event, "Stage ", ""),
            ToKeeper::TimedOut(progress) => {
                self.log_progress(progress, LogKind::Event, "sequence timeout (stage ", ")")
            }
            ToKeeper::Failed(progress) => self.log_progress(
                progress,
                LogKind::Verbose,
                "wrong knock, attempt ended (stage ",
                ")",
            ),
            ToKeeper::Opened {
                door,
                source,
                generation,
            } => {
                self.can_knock(source) && self.handle_opened(usize::from(door), source, generation)
            }
            ToKeeper::Scanned(source) => self.can_knock(source) && self.handle_scanned(source),
            ToKeeper::LeftOut(lines) => {
                if self.admits(Author::Listener) {
                    self.log_lines_left_out(lines, ABOUT_ATTEMPTS);
                }
                true
            }
            ToKeeper::Problem(text) => self.log_listener_text(LogKind::Error, &text),
            ToKeeper::Notice(text) => self.log_listener_text(LogKind::Event, &text),
            ToKeeper::Debug(text) => self.log_listener_text(LogKind::Debug, &text),
            ToKeeper::Seen(knock) => {
                let protocol = knock.step.protocol;
                let flags = match protocol {
                    Protocol::Tcp => format!(" flags {:#04x}", knock.flags),
                    Protocol::Udp => String::new(),
                };
                if self.admits(Author::Keeper) {
                    self.log.log(
                        LogKind::Debug,
                        &format_args!(
                            "{protocol}: {}:{} -> {}:{}{flags}",
                            knock.source, knock.source_port, knock.destination, knock.step.port
                        ),
                    );
                }
                true
            }
            ToKeeper::Interface(interface) => self.handle_interface(interface),
            ToKeeper::Counters(counters) => self.handle_counters(counters),
            ToKeeper::Ready { .. } | ToKeeper::Refused(_) => false,
        }
    }

    /// Logs a line about an attempt, with the stage between `before` and `after`.
    fn log_progress(
        &mut self,
        progress: Progress,
        kind: LogKind,
        before: &str,
        after: &str,
    ) -> bool {
        let Progress {
            door,
            source,
            stage,
        } = progress;
        let Some(door) = self.doors.get(usize::from(door)) else {
            return false;
        };
        if !self.can_knock(source) || !has_stage(door, stage) {
            return false;
        }
        let text = format!("{}: {before}{stage}{after}", door.config.name);
        if self.admits(Author::Keeper) {
            self.log.about(kind, source, &text);
        }
        true
    }

    fn handle_opened(&mut self, index: usize, source: IpAddr, generation: u32) -> bool {
        let Some(door) = self.doors.get_mut(index) else {
            return false;
        };
        if generation > door.generation {
            return false;
        }
        if generation < door.generation {
            // Sent before the listener received the next sequence: an old sequence opens nothing.
            return true;
        }
        if door.sequence().is_none() {
            return false;
        }
        // A one-time list limits itself.
        let now = monotonic();
        if !door.is_one_time() && !door.openings.allow(now) {
            self.report_left_out(now);
            return true;
        }
        let name = door.config.name.clone();
        if self.book.is_banned(source) {
            let text = format_args!("{name}: knock from a banned source: not opened");
            self.log_opening(LogKind::Event, &name, Some(source), &text);
            // An eavesdropper may have seen the sequence.
            self.use_sequence(index);
            self.next_sequence(index);
            return true;
        }
        // A sequence that cannot be marked opens nothing, so this does not log it as an opening.
        if self.use_sequence(index) {
            self.opened += 1;
            self.log_opening(
                LogKind::Event,
                &name,
                Some(source),
                &format_args!("{name}: OPEN SESAME"),
            );
            self.open(index, source);
        }
        self.next_sequence(index);
        true
    }
}
