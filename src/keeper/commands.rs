//! The running commands and the queue of those that wait for their turn.
#![forbid(unsafe_code)]

use crate::config::Options;
use crate::lease::{LeaseBook, LeaseId, Turn};
use crate::limits::{BAN_COMMAND_MS, FORK_RETRY_MS, MAX_QUEUE, ORDER_MS};
use crate::sys::error::Result;
use crate::sys::exec::{self, Prepared};
use crate::util::process::{Pid, ProcessGroup};
use crate::util::time::Millis;
use crate::util::time::{NEVER, soonest};
use std::net::IpAddr;

#[cfg(test)]
mod tests;

/// The purpose of a command. Each role has its own limit of running commands, `MaxCommands`, and
/// both ban roles together have one place. So a door that has to close always closes, no matter how
/// many other commands run or how long they take. Commands caused by knocks, [`Start`](Role::Start)
/// and [`Plain`](Role::Plain), run in the order of the knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Closes a door.
    Stop,
    /// Opens a door that has a stop command.
    Start,
    /// Ends a ban.
    Unban,
    /// Begins a ban.
    Ban,
    /// Runs for a door without a stop command.
    Plain,
}

impl Role {
    fn is_of_ban(self) -> bool {
        matches!(self, Role::Ban | Role::Unban)
    }

    fn is_of_knock(self) -> bool {
        matches!(self, Role::Start | Role::Plain)
    }
}

/// A command to run.
#[derive(Debug)]
pub struct Command {
    /// Its lease. `None` if the door has no stop command.
    pub lease: Option<LeaseId>,
    /// Its purpose.
    pub role: Role,
    /// The door's name.
    pub door: String,
    /// The address that knocked or is banned.
    pub source: IpAddr,
    /// The knock that caused it.
    pub turn: Turn,
    /// The text for the shell, with `%IP%` replaced.
    pub text: Vec<u8>,
    /// A signal killed it once, and this is the second attempt.
    pub again: bool,
}

impl Command {
    fn comes_after(&self, other: &Command) -> bool {
        other.role.is_of_knock() && self.is_after(other.source, other.turn, &other.door)
    }

    #[inline(never)]
    fn is_after(&self, source: IpAddr, turn: Turn, door: &str) -> bool {
        turn.number < self.turn.number && source == self.source && door != self.door
    }
}

struct Running {
    command: Command,
    group: ProcessGroup,
    since: Millis,
    /// Killed at this time. Only for commands of leases, because a hanging one would keep its door
    /// open.
    deadline: Millis,
    /// It was killed.
    overdue: bool,
}

impl Running {
    /// Shortens the deadline, if it has one.
    fn cap_deadline(&mut self, until: Millis) {
        if self.deadline != NEVER {
            self.deadline = self.deadline.min(until);
        }
    }
}

/// The running and the waiting commands.
pub struct CommandQueue {
    running: Vec<Running>,
    /// In the order of the knocks.
    queue: Vec<Command>,
    /// When the next command that waits only for its turn may start, at the latest.
    next_turn: Millis,
    limit: Millis,
    paused_until: Millis,
    /// The last fork failed.
    forks_fail: bool,
}

impl Default for CommandQueue {
    fn default() -> CommandQueue {
        CommandQueue {
            running: Vec::new(),
            queue: Vec::new(),
            next_turn: NEVER,
            limit: NEVER,
            paused_until: NEVER,
            forks_fail: false,
        }
    }
}

impl CommandQueue {
    /// Queues a command. Returns `false` if the queue is full and the command will not run. The
    /// queue never refuses a lease's command.
    #[must_use]
    pub fn push(&mut self, command: Command) -> bool {
        let waiting = self
            .queue
            .iter()
            .filter(|other| other.lease.is_none())
            .count();
        let room = command.lease.is_some() || waiting < MAX_QUEUE;
        if room {
            let before = |other: &Command| other.turn.number <= command.turn.number;
            self.queue
                .insert(self.queue.partition_point(before), command);
        }
        room
    }

    /// Forks the next command that may run now. The caller writes the journal and then releases the
    /// child. Tries a failed fork again each second until it succeeds, because a stop command that
    /// never ran would leave a door open. Only the first failure is an error.
    pub fn fork_next(
        &mut self,
        now: Millis,
        options: &Options,
        book: &LeaseBook,
    ) -> Option<Result<(&Command, Prepared)>> {
        self.next_turn = NEVER;
        let is_paused = self.paused_until != NEVER && self.paused_until > now;
        if is_paused || self.limit <= now {
            return None;
        }
        self.paused_until = NEVER;
        let index = self.choose(now, options, book)?;
        match exec::prepare(&self.queue.get(index)?.text) {
            Ok(prepared) => {
                self.forks_fail = false;
                self.mark_running(index, prepared.group(), now, options);
                let running = self.running.last()?;
                Some(Ok((&running.command, prepared)))
            }
            Err(error) => {
                self.paused_until = now + FORK_RETRY_MS;
                let is_first = !std::mem::replace(&mut self.forks_fail, true);
                is_first.then_some(Err(error))
            }
        }
    }

    /// Returns the index of the command that starts now: one that closes if there is any, or else
    /// the first. Sets `next_turn` if it skips commands because of their turn.
    fn choose(&mut self, now: Millis, options: &Options, book: &LeaseBook) -> Option<usize> {
        for closes in [true, false] {
            for (index, command) in self.queue.iter().enumerate() {
                let is_one = matches!(command.role, Role::Stop | Role::Unban) == closes;
                if is_one && self.has_place(command, options) {
                    let turn = self.turn_of(command, book);
                    if turn <= now {
                        return Some(index);
                    }
                    self.next_turn = self.next_turn.min(turn);
                }
            }
        }
        None
    }

    /// Returns whether the limits allow the command now. Equal stop commands, those of stacked
    /// leases, never run at once: two `iptables-nft -D` of one rule would delete the same copy and
    /// leave the other.
    fn has_place(&self, command: &Command, options: &Options) -> bool {
        let is_ban = command.role.is_of_ban();
        let mut places = if is_ban {
            1
        } else {
            options.max_commands as usize
        };
        for Running { command: other, .. } in &self.running {
            if other.role == command.role || is_ban && other.role.is_of_ban() {
                places -= 1;
                if places == 0 || command.role == Role::Stop && other.text == command.text {
                    return false;
                }
            }
        }
        true
    }

    /// Returns when the command may start unless the commands before it finish earlier: see
    /// [`ORDER_MS`]. As in knockd 0.8, commands of one door do not wait for each other. Commands
    /// that close or ban do not wait.
    fn turn_of(&self, command: &Command, book: &LeaseBook) -> Millis {
        if !command.role.is_of_knock() {
            return 0;
        }
        let at_last = command.turn.at + ORDER_MS;
        let waits = self.queue.iter().any(|other| command.comes_after(other));
        let mut reopening = book.reopening();
        if waits || reopening.any(|lease| command.is_after(lease.source, lease.turn, lease.name()))
        {
            return at_last;
        }
        let running = self.running.iter();
        let before = running.filter(|running| command.comes_after(&running.command));
        let turn = before.map(|running| running.since + ORDER_MS).max();
        turn.unwrap_or(0).min(at_last)
    }

    /// Moves the command from the queue to the running ones.
    fn mark_running(&mut self, index: usize, group: ProcessGroup, now: Millis, options: &Options) {
        let command = self.queue.remove(index);
        let timeout = match command.role.is_of_ban() {
            true => options.command_timeout.min(BAN_COMMAND_MS),
            false => options.command_timeout,
        };
        self.running.push(Running {
            deadline: match command.lease {
                Some(_) => self.limit.min(now + timeout),
                None => NEVER,
            },
            command,
            group,
            since: now,
            overdue: false,
        });
    }

    /// Handles a reaped child. If it was a command, returns it and whether it was killed because it
    /// exceeded its time limit.
    pub fn child_ended(&mut self, process: Pid) -> Option<(Command, bool)> {
        let leads = |running: &Running| running.group.leader == process;
        let index = self.running.iter().position(leads)?;
        let ended = self.running.swap_remove(index);
        Some((ended.command, ended.overdue))
    }

    /// Removes waiting commands that must not start any more.
    pub fn drop_waiting(&mut self, keep: &dyn Fn(&Command) -> bool) {
        let mut at = 0;
        while let Some(command) = self.queue.get(at) {
            if keep(command) {
                at += 1;
            } else {
                self.queue.remove(at);
            }
        }
    }

    /// Sets the limits of a shutdown: start commands may run until `starts`, other commands until
    /// `all`, and after that none starts.
    pub fn limit(&mut self, starts: Millis, all: Millis) {
        self.limit = all;
        for running in &mut self.running {
            let limit = match running.command.role {
                Role::Start | Role::Ban => starts,
                Role::Stop | Role::Unban | Role::Plain => all,
            };
            running.cap_deadline(limit);
        }
    }

    /// Requires the start command of that lease, if it runs, to finish by then.
    pub fn cap_start_deadline(&mut self, lease: LeaseId, until: Millis) {
        for running in &mut self.running {
            if running.command.lease == Some(lease)
                && matches!(running.command.role, Role::Start | Role::Ban)
            {
                running.cap_deadline(until);
            }
        }
    }

    /// Returns whether a command waits only for its turn.
    pub fn awaits_turn(&self) -> bool {
        self.next_turn != NEVER
    }

    /// Returns whether no command runs and none will.
    pub fn is_drained(&self, now: Millis) -> bool {
        self.running.is_empty() && (self.queue.is_empty() || self.limit <= now)
    }

    /// Returns when [`kill_overdue`](Self::kill_overdue) or [`fork_next`](Self::fork_next) must be
    /// called.
    pub fn next_deadline(&self) -> Millis {
        let mut next = soonest(&[self.paused_until, self.next_turn]);
        if self.limit <= next {
            next = NEVER;
        }
        let deadlines = self.running.iter().map(|running| running.deadline);
        deadlines.fold(next, Millis::min)
    }

    /// Kills the process groups of commands that exceeded their time limit. They are reaped like
    /// any other. Returns their doors.
    pub fn kill_overdue(&mut self, now: Millis) -> Vec<String> {
        let mut doors = Vec::new();
        for running in &mut self.running {
            if running.deadline <= now {
                // Try again in a second: the child may not lead its own group yet.
                running.deadline = now + FORK_RETRY_MS;
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
