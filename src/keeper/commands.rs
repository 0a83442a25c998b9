//! The commands that run and those that wait for their turn.
#![forbid(unsafe_code)]

use crate::config::Options;
use crate::deadline::{is_due, soonest};
use crate::door::Millis;
use crate::lease::{Group, LeaseId};
use crate::limits::{BAN_COMMAND_MS, FORK_RETRY_MS, MAX_QUEUE};
use crate::sys::exec::{self, Ending, Prepared};
use std::io;

/// What a command is for. Each role has places of its own, `MaxCommands` or, for bans, one together, and the first goes first: whatever starts, and
/// however long it takes, a door that has to close closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Closes a door.
    Stop,
    /// Opens a door that will be closed.
    Start,
    /// Ends a ban.
    Unban,
    /// Begins a ban.
    Ban,
    /// Of a door without a stop command.
    Plain,
}

impl Role {
    fn is_of_ban(self) -> bool {
        matches!(self, Role::Ban | Role::Unban)
    }
}

/// A command to run.
#[derive(Debug)]
pub struct Command {
    /// The lease it belongs to; `None`: a door without stop command.
    pub lease: Option<LeaseId>,
    /// What it is for.
    pub role: Role,
    /// The door's name, for the log.
    pub door: String,
    /// The text for the shell, `%IP%` replaced.
    pub text: Vec<u8>,
    /// Somebody has killed it once, and this is the second time.
    pub again: bool,
}

struct Running {
    command: Command,
    group: Group,
    /// Ended by force at this time: commands of leases only, since a hanging one would keep its door open.
    deadline: Option<Millis>,
    /// That has happened.
    overdue: bool,
}

/// All of them.
#[derive(Default)]
pub struct Commands {
    running: Vec<Running>,
    queue: Vec<Command>,
    limit: Option<Millis>,
    paused_until: Option<Millis>,
    /// No fork has succeeded since one failed.
    forks_fail: bool,
}

impl Commands {
    /// Puts a command in the queue. `false`: the queue is full, it will not run. A lease's command always finds room.
    #[must_use]
    pub fn push(&mut self, command: Command) -> bool {
        let waiting = self
            .queue
            .iter()
            .filter(|other| other.lease.is_none())
            .count();
        let room = command.lease.is_some() || waiting < MAX_QUEUE;
        if room {
            self.queue.push(command);
        }
        room
    }

    /// Forks the next command that may run now. The caller writes the journal and lets it go. A fork that fails is tried
    /// again each second until it succeeds, since a stop command that never ran would leave a door open; only the first is an error.
    pub fn begin(
        &mut self,
        now: Millis,
        options: &Options,
    ) -> Option<io::Result<(&Command, Prepared)>> {
        if self.paused_until.is_some_and(|until| until > now) || self.is_too_late(now) {
            return None;
        }
        self.paused_until = None;
        let has_place = |role: Role| {
            let count = |alike: &dyn Fn(Role) -> bool| {
                let running = self.running.iter();
                running
                    .filter(|running| alike(running.command.role))
                    .count()
            };
            match role.is_of_ban() {
                true => count(&Role::is_of_ban) == 0,
                false => count(&|other| other == role) < options.max_commands,
            }
        };
        // Stacked leases have one stop command: two `iptables-nft -D` of one rule at once take the same one, and the other rule stays.
        let is_alone = |command: &Command| {
            let mut running = self.running.iter().map(|running| &running.command);
            command.role != Role::Stop || !running.any(|other| other.text == command.text)
        };
        let first = |role: Role| {
            let fits = |command: &Command| command.role == role && is_alone(command);
            self.queue.iter().position(fits).filter(|_| has_place(role))
        };
        let roles = [Role::Stop, Role::Start, Role::Unban, Role::Ban, Role::Plain];
        let index = roles.into_iter().find_map(first)?;
        match exec::prepare(&self.queue.get(index)?.text) {
            Ok(prepared) => {
                self.forks_fail = false;
                let command = self.queue.remove(index);
                let timeout = match command.role.is_of_ban() {
                    true => options.command_timeout.min(BAN_COMMAND_MS),
                    false => options.command_timeout,
                };
                let timeout = now + timeout;
                let timeout = self.limit.map_or(timeout, |limit| limit.min(timeout));
                self.running.push(Running {
                    deadline: command.lease.map(|_| timeout),
                    command,
                    group: prepared.group(),
                    overdue: false,
                });
                let running = self.running.last()?;
                Some(Ok((&running.command, prepared)))
            }
            Err(error) => {
                self.paused_until = Some(now + FORK_RETRY_MS);
                let is_first = !std::mem::replace(&mut self.forks_fail, true);
                is_first.then_some(Err(error))
            }
        }
    }

    /// The next child that has ended, if it is a command: what it was, how it ended, and whether it was ended by force because its
    /// time was over. Other children are told to `stranger`.
    pub fn reap(
        &mut self,
        mut stranger: impl FnMut(libc::pid_t),
    ) -> Option<(Command, Ending, bool)> {
        while let Some((process, ending)) = exec::reap() {
            let leads = |running: &Running| running.group.leader == process;
            match self.running.iter().position(leads) {
                Some(index) => {
                    let ended = self.running.swap_remove(index);
                    return Some((ended.command, ending, ended.overdue));
                }
                None => stranger(process),
            }
        }
        None
    }

    /// Whether the command of that lease runs.
    pub fn is_running(&self, lease: LeaseId) -> bool {
        self.running
            .iter()
            .any(|running| running.command.lease == Some(lease))
    }

    /// Takes out of the queue what must not begin any more.
    pub fn drop_waiting(&mut self, keep: &dyn Fn(&Command) -> bool) {
        self.queue.retain(keep);
    }

    /// The daemon is about to end: start commands that run now have until `starts`, stop commands until `all`, and after that
    /// none begins.
    pub fn limit(&mut self, starts: Millis, all: Millis) {
        self.limit = Some(all);
        for running in &mut self.running {
            let limit = match running.command.role {
                Role::Start | Role::Ban => starts,
                Role::Stop | Role::Unban | Role::Plain => all,
            };
            running.deadline = running.deadline.map(|old| old.min(limit));
        }
    }

    /// The start command of that lease, if it runs, must end by then.
    pub fn hurry_start(&mut self, lease: LeaseId, until: Millis) {
        for running in &mut self.running {
            if running.command.lease == Some(lease)
                && matches!(running.command.role, Role::Start | Role::Ban)
            {
                running.deadline = running.deadline.map(|old| old.min(until));
            }
        }
    }

    fn is_too_late(&self, now: Millis) -> bool {
        is_due(&self.limit, now)
    }

    /// Whether no command runs and none will.
    pub fn are_over(&self, now: Millis) -> bool {
        self.running.is_empty() && (self.queue.is_empty() || self.is_too_late(now))
    }

    /// When [`end_overdue`](Self::end_overdue) or [`begin`](Self::begin) has something to do.
    pub fn next_deadline(&self) -> Option<Millis> {
        let deadlines = self.running.iter().filter_map(|running| running.deadline);
        let begins = |until: &Millis| !is_due(&self.limit, *until);
        soonest(&[deadlines.min(), self.paused_until.filter(begins)])
    }

    /// Kills the groups of commands whose time is over; they are reaped like any other. Returns their doors.
    pub fn end_overdue(&mut self, now: Millis) -> Vec<String> {
        let mut doors = Vec::new();
        for running in &mut self.running {
            if is_due(&running.deadline, now) {
                // Again in a second, should it not have been its own group yet.
                running.deadline = Some(now + FORK_RETRY_MS);
                exec::signal(running.group, libc::SIGKILL);
                if std::mem::replace(&mut running.overdue, true) {
                    continue;
                }
                doors.push(running.command.door.clone());
            }
        }
        doors
    }
}
