//! Opens and closes doors: from a complete knock to the commands, and what happens when they exit.
#![forbid(unsafe_code)]

use super::Keeper;
use crate::config::undoes;
use crate::keeper::Settings;
use crate::keeper::commands::{Command, Role};
use crate::keeper::doors::expand;
use crate::keeper::log::LogKind;
use crate::keeper::state::{StateDir, StateDirError};
use crate::lease::{Lease, LeaseKind, Opening, Phase, Turn, summary};
use crate::limits::{MAX_LEASES, SHUTDOWN_START_MS};
use crate::sys::clock::monotonic;
use crate::sys::exec::{self, Ending};
use std::net::IpAddr;

impl Keeper {
    /// Runs the door's start command for that source. Creates a lease if the door has a stop
    /// command.
    pub(super) fn open(&mut self, index: usize, source: IpAddr) {
        let Some(door) = self.doors.get(index) else {
            return;
        };
        let door = &door.config;
        let Some(start) = door.start.for_source(source) else {
            return;
        };
        let stop = door
            .stop
            .for_source(source)
            .map(|stop| expand(stop, source));
        let name = door.name.clone();
        let cmd_timeout = door.cmd_timeout;
        let now = monotonic();
        let turn = Turn {
            number: self.opened,
            at: now,
        };
        let Some(start) = expand(start, source) else {
            return self.log_not_opened(
                &name,
                "parsed start command has been truncated! --> won't execute it",
            );
        };
        match stop {
            Some(None) => self.log_not_opened(
                &name,
                "parsed stop command has been truncated! --> won't execute start command",
            ),
            Some(Some(stop)) => {
                let opening = Opening {
                    kind: LeaseKind::Door(name.clone()),
                    source,
                    start,
                    stop,
                    cmd_timeout,
                    turn,
                };
                let reknock = self.options.reknock();
                let opened = self.book.open(opening, reknock, now, &mut self.actions);
                if opened.is_err() {
                    let why = format!("{name}: {MAX_LEASES} doors are open: not opened");
                    return self.log_not_opened(&name, &why);
                }
            }
            None => {
                self.book.undone(|lease| {
                    lease.source == source && undoes(&lease.start, &start) == Some(true)
                });
                let command = Command {
                    lease: None,
                    role: Role::Plain,
                    source,
                    turn,
                    door: name.clone(),
                    text: start,
                    again: false,
                };
                if !self.commands.push(command) {
                    let why = format!("{name}: too many waiting commands: not run");
                    return self.log_not_opened(&name, &why);
                }
            }
        }
        self.carry_out(now);
    }

    fn log_not_opened(&mut self, door: &str, why: &str) {
        self.log_opening(LogKind::Error, door, None, &format_args!("error: {why}"));
    }

    /// Ends these leases now. Returns their number.
    pub(super) fn end_leases(&mut self, selected: &dyn Fn(&Lease) -> bool, why: &str) -> usize {
        for lease in self.book.leases().iter().filter(|lease| selected(lease)) {
            let text = format_args!("{}: {why}", lease.name());
            self.log.about(LogKind::Event, lease.source, &text);
        }
        let number = self.book.end(selected, false, &mut self.actions);
        let Keeper { book, commands, .. } = self;
        commands.drop_waiting(&|command| command.lease.is_none_or(|id| book.get(id).is_some()));
        let until = monotonic() + SHUTDOWN_START_MS;
        for lease in book.leases().iter().filter(|lease| selected(lease)) {
            // As on SIGTERM: a start command that hangs must not keep the door open.
            commands.cap_start_deadline(lease.id, until);
        }
        number
    }

    /// Handles SIGUSR1, sent after a firewall flush: runs the stop command of each live lease, then
    /// its start command.
    pub(super) fn reapply(&mut self) {
        self.log.log(
            LogKind::Event,
            &format_args!("re-applying {}", summary(self.book.leases())),
        );
        self.book.reapply(&mut self.actions);
    }

    /// Called after a journal write failed. If the state directory was removed or moved, creates it
    /// again, or gives way to the daemon that has it now.
    pub(super) fn recreate_state_dir(&mut self) {
        let gone = self
            .state
            .as_ref()
            .is_some_and(|state| !state.is_in_place());
        if !gone || self.closing.is_some() {
            return;
        }
        let Settings { config, .. } = &self.settings;
        let state_dir = self.settings.state_dir(&self.options);
        let mut taken = match StateDir::try_lock(&state_dir, &self.settings.instance) {
            Ok(state) => {
                self.state = Some(state);
                Ok(())
            }
            Err(why) => Err(why),
        };
        // If the directory has reappeared, its lock file is now open twice, and closing one of the
        // two descriptors released the lock (fcntl(2)).
        if let Some(holder) = self
            .state
            .as_ref()
            .and_then(|state| state.set_running(true))
        {
            self.state = None;
            taken = Err(StateDirError::Locked(holder));
        }
        match taken {
            Ok(()) => self.enter_state_dir(),
            Err(StateDirError::Locked(holder)) => {
                let process = holder.process;
                let config = config.to_string_lossy();
                self.log.log(
                    LogKind::Error,
                    &format_args!("error: process {process} has taken over {config}: exiting"),
                );
                // It belongs to the other daemon now.
                self.pid_file = None;
                self.close(1);
            }
            // The next write attempt logs the reason.
            Err(StateDirError::Io(_)) => {}
        }
    }

    /// Starts to use a state directory that was just locked, and takes over the leases that another
    /// daemon, now dead, may have left there.
    pub(super) fn enter_state_dir(&mut self) {
        let (mut left, _) = self
            .state
            .as_ref()
            .map(StateDir::leases)
            .unwrap_or_default();
        for own in self.book.leases() {
            let is_own = |lease: &Lease| {
                lease.source == own.source
                    && lease.kind == own.kind
                    && lease.start == own.start
                    && lease.stop == own.stop
            };
            if let Some(index) = left.iter().position(is_own) {
                left.swap_remove(index);
            }
        }
        self.mark_up();
        self.take_over_leases(left);
    }

    pub(super) fn reap(&mut self) {
        while let Some((process, ending)) = exec::reap() {
            if let Some((command, overdue)) = self.commands.child_ended(process) {
                self.command_ended(command, ending, overdue);
                continue;
            }
            self.log.child_ended(process);
            if let Some(closing) = &mut self.closing {
                for listener in &mut closing.listeners {
                    if *listener == Some(process) {
                        *listener = None;
                    }
                }
            }
            // Records that a listener sent before it died still count.
            if let Some(starting) = &mut self.starting
                && starting.listener.child_ended(process)
            {
                self.read_starting();
            }
            if let Some(listener) = &mut self.listener
                && listener.child_ended(process)
            {
                self.read_listener();
            }
        }
    }

    /// `overdue`: killed because it exceeded its time limit.
    fn command_ended(&mut self, command: Command, ending: Ending, overdue: bool) {
        let status = match ending {
            Ending::Exited(status) => status,
            // The shell's convention; knockd 0.8 reports 0.
            Ending::Killed(signal) => 128 + signal,
        };
        if status != 0 {
            let name = &command.door;
            let text = format_args!("{name}: command returned non-zero status code ({status})");
            self.log_opening(LogKind::Error, name, None, &text);
        }
        let Some(id) = command.lease else { return };
        let stopping = |lease: &Lease| matches!(lease.phase, Phase::Stopping { .. });
        // A shell that did not exec its last command reports that command's death as 128 + SIGKILL
        // or SIGTERM.
        let killed = matches!(ending, Ending::Killed(_) | Ending::Exited(137 | 143));
        if killed && self.book.get(id).is_some_and(stopping) {
            if overdue && self.closing.is_some() {
                // The lease stays in the journal, and the next start runs the command again.
                return;
            }
            if !overdue && !command.again {
                // Killed by the OOM killer, or by a shutdown that kills all processes at once.
                let again = Command {
                    again: true,
                    ..command
                };
                let _ = self.commands.push(again);
                return;
            }
            self.log_lease(
                id,
                "stop command was killed: the door may still be open",
                "stop command was killed: the source may still be locked out",
            );
        }
        if status != 0 {
            self.book.start_failed(id);
        }
        self.book.command_ended(id, monotonic(), &mut self.actions);
    }
}
