//! Opening and closing: from a whole knock to the commands that run, and what their ends mean.
#![forbid(unsafe_code)]

use super::Keeper;
use crate::config::undoes;
use crate::door::Millis;
use crate::keeper::Settings;
use crate::keeper::commands::{Command, Role};
use crate::keeper::doors::expand;
use crate::keeper::log::Kind;
use crate::keeper::state::{State, Unavailable};
use crate::lease::{Action, Lease, LeaseId, LeaseKind, Opening, Phase, Turn, in_words};
use crate::limits::{JOURNAL_RETRY_MS, LEFT_OUT_REPORT_MS, MAX_LEASES, SHUTDOWN_START_MS};
use crate::sys::clock::monotonic;
use crate::sys::error::plain;
use crate::sys::exec::Ending;
use std::fmt;
use std::net::IpAddr;

impl Keeper {
    /// Runs the door's start command for that source, with a lease if there is a stop command for it.
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
            return self.not_opened(
                &name,
                "parsed start command has been truncated! --> won't execute it",
            );
        };
        match stop {
            Some(None) => self.not_opened(
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
                let mut actions = Vec::new();
                let reknock = self.options.reknock;
                match self.book.open(opening, reknock, now, &mut actions) {
                    Ok(()) => self.perform(actions),
                    Err(_) => {
                        let why = format!("{name}: {MAX_LEASES} doors are open: not opened");
                        self.not_opened(&name, &why);
                    }
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
                    let why = format!("{name}: too many commands wait: not run");
                    self.not_opened(&name, &why);
                }
                self.run_commands(now);
            }
        }
    }

    fn not_opened(&mut self, door: &str, why: &str) {
        self.about_opening(Kind::Error, door, None, &format_args!("error: {why}"));
    }

    /// Ends that source's leases of that kind now. How many there were.
    pub(super) fn end_leases(&mut self, kind: &LeaseKind, source: IpAddr, why: &str) -> usize {
        let mut actions = Vec::new();
        let now = monotonic();
        let Keeper { book, commands, .. } = self;
        let number = book.end(kind, source, |id| commands.is_running(id), &mut actions);
        if number == 0 {
            return 0;
        }
        commands.drop_waiting(&|command| command.lease.is_none_or(|id| book.get(id).is_some()));
        for lease in book.leases() {
            if lease.kind == *kind && lease.source == source {
                // As at SIGTERM: a start command that hangs must not keep the door open.
                commands.hurry_start(lease.id, now + SHUTDOWN_START_MS);
            }
        }
        self.lines
            .about(Kind::Event, source, &format_args!("{}: {why}", kind.name()));
        self.perform(actions);
        number
    }

    /// SIGUSR1: the firewall was flushed, so each live lease's stop command runs and then its start command.
    pub(super) fn reapply(&mut self) {
        self.lines.say(
            Kind::Event,
            &format_args!("applying {} again", in_words(self.book.leases())),
        );
        let mut actions = Vec::new();
        self.book.reapply(&mut actions);
        self.perform(actions);
    }

    /// Does what the lease book asks for.
    pub(super) fn perform(&mut self, actions: Vec<Action>) {
        self.unsaved = true;
        for action in actions {
            match action {
                Action::RunStart(id) => self.queue_command(id, true),
                Action::RunStop(id) => self.queue_command(id, false),
                Action::LogTimeout(id) => self.about_lease(id, "command timeout", "is over"),
                Action::LogRenewed(id) => self.about_lease(
                    id,
                    "already open, its time starts anew",
                    "its time starts anew",
                ),
            }
        }
        self.run_commands(monotonic());
    }

    fn about_lease(&mut self, id: LeaseId, of_door: &str, of_ban: &str) {
        let Some(lease) = self.book.get(id) else {
            return;
        };
        let what = if lease.is_ban() { of_ban } else { of_door };
        let (source, name) = (lease.source, lease.name().to_string());
        self.about_opening(
            Kind::Event,
            &name,
            Some(source),
            &format_args!("{name}: {what}"),
        );
    }

    /// A line about an opening of that door, or that one line more was left out (`LogRate`): who knows one door must not hide another's.
    pub(super) fn about_opening(
        &mut self,
        kind: Kind,
        door: &str,
        source: Option<IpAddr>,
        text: &dyn fmt::Display,
    ) {
        let now = monotonic();
        let mut doors = self.doors.iter_mut();
        let known = doors.find(|known| known.config.name == door);
        if known.is_some_and(|known| !known.lines.allow(now)) {
            self.report_openings.get_or_insert(now + LEFT_OUT_REPORT_MS);
            return;
        }
        match source {
            Some(source) => self.lines.about(kind, source, text),
            None => self.lines.say(kind, text),
        }
    }

    fn queue_command(&mut self, id: LeaseId, starts: bool) {
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
            let mut actions = Vec::new();
            self.book.command_ended(id, monotonic(), &mut actions);
            return self.perform(actions);
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
        // A lease's command always finds room.
        let _ = self.commands.push(command);
    }

    /// Begins the commands whose turn it is: forked first, then in the journal, then let go.
    pub(super) fn run_commands(&mut self, now: Millis) {
        let mut begun = Vec::new();
        while let Some(next) = self.commands.begin(now, &self.options, &self.book) {
            match next {
                Ok((command, process)) => {
                    if let Some(id) = command.lease {
                        self.book.command_started(id, process.group());
                        self.unsaved = true;
                    }
                    let text = String::from_utf8_lossy(&command.text);
                    let line = format!("{}: running command: {text}", command.door);
                    begun.push((command.door.clone(), line, process));
                }
                Err(error) => self.lines.say(
                    Kind::Error,
                    &format_args!("error: command fork failed! ({})", plain(&error)),
                ),
            }
        }
        self.save();
        for (door, line, process) in begun {
            // A child that is gone already is reaped like any other.
            let _ = process.go();
            self.about_opening(Kind::Event, &door, None, &line);
        }
    }

    pub(super) fn save(&mut self) {
        if !std::mem::take(&mut self.unsaved) {
            return;
        }
        let Some(state) = &self.state else { return };
        let failed_before = self.journal_fails;
        match state.write(self.book.leases().iter()) {
            Ok(()) => {
                self.journal_fails = false;
                self.save_again = None;
                if failed_before {
                    self.lines.say(Kind::Event, &"the journal is written again");
                }
            }
            Err(error) => {
                self.journal_fails = true;
                self.save_again = Some(monotonic() + JOURNAL_RETRY_MS);
                if !failed_before {
                    self.lines.say(Kind::Error, &format_args!(
                        "error: cannot write the journal: {}: doors that are open when knockd is killed \
                         will stay open",
                        plain(&error)
                    ));
                }
            }
        }
    }

    /// After the journal could not be written: where the state folder was removed or moved, it is made anew, or left to the daemon that
    /// has it now.
    pub(super) fn renew_state(&mut self) {
        let gone = self
            .state
            .as_ref()
            .is_some_and(|state| !state.is_in_place());
        if !gone || self.closing.is_some() {
            return;
        }
        let Settings { config, .. } = &self.settings;
        let state_dir = self.settings.state_dir(&self.options);
        let mut taken = match State::try_take(&state_dir, &self.settings.instance()) {
            Ok(state) => {
                self.state = Some(state);
                Ok(())
            }
            Err(why) => Err(why),
        };
        // Where the folder has come back meanwhile, its lock file was opened a second time, and closing one of the two has released the lock
        // (fcntl(2)).
        if let Some(holder) = self.state.as_ref().and_then(|state| state.set_up(true)) {
            self.state = None;
            taken = Err(Unavailable::Taken(holder));
        }
        match taken {
            Ok(()) => self.adopt_state(),
            Err(Unavailable::Taken(holder)) => {
                let process = holder.process;
                let config = config.display();
                self.lines.say(
                    Kind::Error,
                    &format_args!(
                        "error: process {process} runs with {config}, too: giving way to it"
                    ),
                );
                // By now it is the other's.
                self.pid_file = None;
                self.close(1);
            }
            // Why not, the next try to write says.
            Err(Unavailable::Unusable(_)) => {}
        }
    }

    /// Is up in a state folder that has just become this daemon's. Another may have had it before, and be gone: what is left of that is taken
    /// over.
    pub(super) fn adopt_state(&mut self) {
        let (mut left, _) = self.state.as_ref().map(State::leases).unwrap_or_default();
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
        self.be_up();
        self.take_over_leases(left);
    }

    pub(super) fn reap(&mut self) {
        let mut strangers = Vec::new();
        while let Some((command, ending, overdue)) =
            self.commands.reap(|process| strangers.push(process))
        {
            let status = match ending {
                Ending::Exited(status) => status,
                // The shell's own convention; knockd 0.8 says 0.
                Ending::Killed(signal) => 128 + signal,
            };
            if status != 0 {
                let name = &command.door;
                self.about_opening(
                    Kind::Error,
                    name,
                    None,
                    &format_args!("{name}: command returned non-zero status code ({status})"),
                );
            }
            if let Some(id) = command.lease {
                let stopping = |lease: &Lease| matches!(lease.phase, Phase::Stopping { .. });
                // A shell that has not become its last command tells of that one's end so: 128 + SIGKILL, SIGTERM.
                let killed = matches!(ending, Ending::Killed(_) | Ending::Exited(137 | 143));
                if killed && self.book.get(id).is_some_and(stopping) {
                    if overdue && self.closing.is_some() {
                        // It stays in the journal, and the next start runs it again.
                        continue;
                    }
                    if !overdue && !command.again {
                        // By the kernel, which needed its memory, or by a shutdown that ends all processes at once.
                        let again = Command {
                            again: true,
                            ..command
                        };
                        let _ = self.commands.push(again);
                        continue;
                    }
                    let (door, ban) = (
                        "the door may still be open",
                        "the source may still be locked out",
                    );
                    let text = |what: &str| format!("stop command was killed: {what}");
                    self.about_lease(id, &text(door), &text(ban));
                }
                if status != 0 {
                    self.book.start_failed(id);
                }
                let mut actions = Vec::new();
                self.book.command_ended(id, monotonic(), &mut actions);
                self.perform(actions);
            }
        }
        for process in strangers {
            self.lines.child_ended(process);
            for listener in self.closing.iter_mut().flat_map(|it| &mut it.listeners) {
                listener.child_ended(process);
            }
            if let Some(new) = &mut self.replacement
                && new.listener.child_ended(process)
            {
                self.give_up_reload("the new listener has died");
            }
            if let Some(listener) = &mut self.listener
                && listener.child_ended(process)
            {
                // What it sent before it died still counts.
                self.hear_listener();
            }
        }
    }
}
