//! The lease book: which doors are open for whom, and what has to run when. Pure: the keeper tells it what happened
//! and does what it answers, after it has written the book to the journal.
//!
//! ```text
//! knock --> Starting --end of the start command--> Open --deadline, SIGTERM--> Stopping --end of the stop command--> over
//!              ^                                     |                            |
//!              |                                     +--SIGUSR1------------------>+
//!              +---------------end of the stop command, where SIGUSR1 or another knock came before it--------------+
//! ```
//! A restarted daemon goes on with what was `Open`; whatever was at a command becomes `Stopping`. [`journal`] has the format.
#![forbid(unsafe_code)]

pub mod journal;
#[cfg(test)]
mod tests;

use crate::limits::{MAX_BAN_LEASES, MAX_LEASES};
use crate::util::process_group::ProcessGroup;
use crate::util::time::Millis;
use std::net::IpAddr;

/// What tells one lease from another while both live.
pub type LeaseId = u32;

/// Which whole knock it was, and when it came: the commands of one source run in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The whole knocks are counted from 1.
    pub number: u64,
    /// When it came.
    pub at: Millis,
}

/// What a whole knock does while the knocker's lease of that door is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reknock {
    /// The lease's time starts again; no command runs.
    #[default]
    Renew,
    /// A second lease, as knockd 0.8 does: start runs again, and stop will run twice.
    Stack,
}

/// What stands for a door's name in the log, where a lease is a ban.
pub const BAN: &str = "ban";

/// What a lease is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    /// The door of that name is open for the source.
    Door(String),
    /// The source is banned.
    Ban,
}

impl LeaseKind {
    /// The door, or [`BAN`], for the log.
    pub fn name(&self) -> &str {
        match self {
            LeaseKind::Door(name) => name,
            LeaseKind::Ban => BAN,
        }
    }

    /// Whether it is a ban.
    pub fn is_ban(&self) -> bool {
        matches!(self, LeaseKind::Ban)
    }
}

/// A door that is open for one source until a deadline, or a ban of that source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number in the book.
    pub id: LeaseId,
    /// A door, or a ban.
    pub kind: LeaseKind,
    /// Who knocked, or is banned.
    pub source: IpAddr,
    /// The start command, ready to run; of a ban it may be empty, which runs nothing.
    pub start: Vec<u8>,
    /// The stop command, ready to run; empty only for a ban: a door without one has no leases.
    pub stop: Vec<u8>,
    /// How long the lease lasts once the start command has ended.
    pub cmd_timeout: Millis,
    /// The knock that its start command runs for. Not in the journal: a restarted daemon takes it as earlier than all others.
    pub turn: Turn,
    /// Where it stands.
    pub phase: Phase,
    /// The process group of its command, while one runs.
    pub running: Option<ProcessGroup>,
}

impl Lease {
    /// Whether it is a ban.
    pub fn is_ban(&self) -> bool {
        self.kind.is_ban()
    }

    /// Whether its start command has not begun yet.
    fn awaits_start(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. }) && self.running.is_none()
    }

    /// When it ends, if that is known: 0 when it is about to.
    fn until(&self) -> Option<Millis> {
        match self.phase {
            Phase::Starting { until, .. } => until,
            Phase::Open { until } => Some(until),
            Phase::Stopping { then: Then::Over } => Some(0),
            Phase::Stopping { then: Then::Fresh } => Some(Millis::MAX),
            Phase::Stopping {
                then: Then::Reapply { until },
            } => Some(until),
        }
    }

    /// The door, or [`BAN`], for the log.
    pub fn name(&self) -> &str {
        self.kind.name()
    }
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The start command runs or waits for its turn.
    Starting {
        /// A ban ends that long after the hit, a lease that is applied again when it would have ended anyway, one that [`LeaseBook::end`]
        /// ended at once; `None`: cmd_timeout after the start command's end.
        until: Option<Millis>,
        /// SIGUSR1 came meanwhile: apply it again when the start command has ended.
        reapply: bool,
    },
    /// The start command has ended.
    Open {
        /// When the stop command runs.
        until: Millis,
    },
    /// The stop command runs or waits for its turn.
    Stopping {
        /// What comes after it.
        then: Then,
    },
}

/// What comes after a stop command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the lease is over.
    Over,
    /// A new start: the source knocked again meanwhile.
    Fresh,
    /// A start that restores what a firewall restart has flushed; the deadline stays.
    Reapply {
        /// That deadline.
        until: Millis,
    },
}

impl Then {
    /// Whether nothing comes any more at that time: a deadline may pass while the stop command runs.
    fn is_over(self, now: Millis) -> bool {
        match self {
            Then::Over => true,
            Then::Fresh => false,
            Then::Reapply { until } => until <= now,
        }
    }
}

/// What the keeper has to do, in this order, after the book is in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the start command of that lease.
    RunStart(LeaseId),
    /// Run the stop command of that lease.
    RunStop(LeaseId),
    /// Log that its time is over; `RunStop` follows.
    LogTimeout(LeaseId),
    /// Log that its time starts anew.
    LogRenewed(LeaseId),
}

/// Why a lease was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// All leases.
#[derive(Debug, Default)]
pub struct LeaseBook {
    leases: Vec<Lease>,
    /// Those whose start command failed, or was undone by another door's command: the door may be shut. Not in the journal:
    /// forgotten with a restart.
    doubtful: Vec<LeaseId>,
    next_id: LeaseId,
    /// It has changed since the keeper wrote the journal.
    pub unsaved: bool,
}

/// What a whole knock asks for.
#[derive(Clone, Debug)]
pub struct Opening {
    /// A door, or a ban.
    pub kind: LeaseKind,
    /// Who knocked, or is to be banned.
    pub source: IpAddr,
    /// The start command, ready to run.
    pub start: Vec<u8>,
    /// The stop command, ready to run.
    pub stop: Vec<u8>,
    /// How long the lease lasts once the start command has ended.
    pub cmd_timeout: Millis,
    /// Which knock it is.
    pub turn: Turn,
}

impl LeaseBook {
    /// Takes in what the journal of another daemon held. Whatever was at a command is stopped: its group has been ended by the
    /// caller.
    pub fn adopt(&mut self, leases: Vec<Lease>, actions: &mut Vec<Action>) {
        self.unsaved = true;
        for mut lease in leases {
            lease.id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            lease.running = None;
            if !matches!(lease.phase, Phase::Open { .. }) {
                lease.phase = Phase::Stopping { then: Then::Over };
                actions.push(Action::RunStop(lease.id));
            }
            self.leases.push(lease);
        }
    }

    /// The live leases.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// The lease with that number.
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.id == id)
    }

    /// The doors whose start command runs again after the stop command that runs or waits.
    pub fn reopening(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(|lease| {
            let starts = matches!(lease.phase, Phase::Stopping { then } if then != Then::Over);
            starts && !lease.is_ban()
        })
    }

    /// Whether that source is banned now.
    pub fn is_banned(&self, source: IpAddr) -> bool {
        let mut bans = self.leases.iter().filter(|lease| lease.is_ban());
        bans.any(|ban| ban.source == source && ban.until() > Some(0))
    }

    /// How many bans there are that nobody has ended, and the source of the one that ends first.
    pub fn bans(&self) -> (usize, Option<IpAddr>) {
        let (mut number, mut first) = (0, None::<&Lease>);
        let bans = self.leases.iter().filter(|lease| lease.is_ban());
        for ban in bans.filter(|ban| ban.until() > Some(0)) {
            number += 1;
            if first.is_none_or(|first| ban.until() < first.until()) {
                first = Some(ban);
            }
        }
        (number, first.map(|ban| ban.source))
    }

    fn get_mut(&mut self, id: LeaseId) -> Option<&mut Lease> {
        self.leases.iter_mut().find(|lease| lease.id == id)
    }

    /// A whole knock at a door with a stop command, or a ban. With [`Reknock::Renew`] a live lease of the same door, source and commands, or
    /// the source's ban, lasts longer instead of a second one being made.
    pub fn open(
        &mut self,
        opening: Opening,
        reknock: Reknock,
        now: Millis,
        actions: &mut Vec<Action>,
    ) -> Result<(), Full> {
        let same = |lease: &&mut Lease| {
            lease.source == opening.source
                && lease.kind == opening.kind
                && (lease.is_ban() || lease.start == opening.start && lease.stop == opening.stop)
        };
        // A ban begins with the hit, whatever its command waits for.
        let end = now.saturating_add(opening.cmd_timeout);
        let starts_with = opening.kind.is_ban().then_some(end);
        if reknock == Reknock::Renew
            && let Some(lease) = self.leases.iter_mut().find(same)
        {
            self.unsaved = true;
            lease.cmd_timeout = opening.cmd_timeout;
            match &mut lease.phase {
                Phase::Starting { until, reapply } => {
                    *until = starts_with;
                    if self.doubtful.contains(&lease.id) {
                        lease.turn = opening.turn;
                        *reapply = true;
                    }
                }
                Phase::Open { .. } if self.doubtful.contains(&lease.id) => {
                    lease.turn = opening.turn;
                    lease.phase = Phase::Stopping { then: Then::Fresh };
                    actions.push(Action::RunStop(lease.id));
                }
                Phase::Open { until } => {
                    *until = end;
                    actions.push(Action::LogRenewed(lease.id));
                }
                Phase::Stopping { then } => {
                    lease.turn = opening.turn;
                    *then = Then::Fresh;
                }
            }
            return Ok(());
        }
        let alike = self
            .leases
            .iter()
            .filter(|lease| lease.is_ban() == opening.kind.is_ban());
        let most = if opening.kind.is_ban() {
            MAX_BAN_LEASES
        } else {
            MAX_LEASES
        };
        if alike.count() >= most {
            return Err(Full);
        }
        self.unsaved = true;
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.leases.push(Lease {
            id,
            kind: opening.kind,
            source: opening.source,
            start: opening.start,
            stop: opening.stop,
            cmd_timeout: opening.cmd_timeout,
            turn: opening.turn,
            phase: Phase::Starting {
                until: starts_with,
                reapply: false,
            },
            running: None,
        });
        actions.push(Action::RunStart(id));
        Ok(())
    }

    /// The command of that lease was forked, as this group.
    pub fn command_started(&mut self, id: LeaseId, group: ProcessGroup) {
        self.unsaved = true;
        if let Some(lease) = self.get_mut(id) {
            lease.running = Some(group);
        }
    }

    /// The start command of that lease is about to end, and has failed: whoever knocks again gets it once more, since the door may well be
    /// shut. Told before [`command_ended`](Self::command_ended).
    pub fn start_failed(&mut self, id: LeaseId) {
        let starting = |lease: &Lease| matches!(lease.phase, Phase::Starting { .. });
        if self.get(id).is_some_and(starting) {
            self.doubtful.push(id);
        }
    }

    /// A command of a door without leases, as that of a close door, undoes the start commands for which `undoes` says so. Another knock at
    /// their doors runs stop and start command.
    pub fn undone(&mut self, undoes: impl Fn(&Lease) -> bool) {
        for lease in self.leases.iter().filter(|lease| undoes(lease)) {
            if !self.doubtful.contains(&lease.id) {
                self.doubtful.push(lease.id);
            }
        }
    }

    /// The command of that lease has ended, however it did, or could not be run.
    pub fn command_ended(&mut self, id: LeaseId, now: Millis, actions: &mut Vec<Action>) {
        self.unsaved = true;
        let Some(index) = self.leases.iter().position(|lease| lease.id == id) else {
            return;
        };
        let lease = &mut self.leases[index];
        lease.running = None;
        if matches!(lease.phase, Phase::Stopping { .. }) {
            self.doubtful.retain(|doubtful| *doubtful != id);
        }
        match lease.phase {
            Phase::Starting { until, reapply } => {
                let until = until.unwrap_or(now.saturating_add(lease.cmd_timeout));
                if reapply && until <= now {
                    stop(lease, actions);
                } else if reapply {
                    lease.phase = Phase::Stopping {
                        then: Then::Reapply { until },
                    };
                    actions.push(Action::RunStop(id));
                } else {
                    lease.phase = Phase::Open { until };
                }
            }
            Phase::Stopping { then } if then.is_over(now) => {
                self.leases.remove(index);
            }
            Phase::Stopping { then } => {
                let until = match then {
                    Then::Reapply { until } => Some(until),
                    _ => (lease.is_ban()).then(|| now.saturating_add(lease.cmd_timeout)),
                };
                lease.phase = Phase::Starting {
                    until,
                    reapply: false,
                };
                actions.push(Action::RunStart(id));
            }
            Phase::Open { .. } => {}
        }
    }

    /// Ends the leases whose time is over.
    pub fn expire(&mut self, now: Millis, actions: &mut Vec<Action>) {
        self.unsaved = true;
        for lease in &mut self.leases {
            if matches!(lease.phase, Phase::Open { until } if until <= now) {
                stop(lease, actions);
            }
        }
    }

    /// Ends these leases now, or as soon as their command has ended. Returns how many there are. A start command that has not begun never
    /// will. Which stop commands run now is logged if `log`.
    pub fn end(
        &mut self,
        these: &dyn Fn(&Lease) -> bool,
        log: bool,
        actions: &mut Vec<Action>,
    ) -> usize {
        let number = self.leases.iter().filter(|lease| these(lease)).count();
        self.unsaved |= number > 0;
        self.leases
            .retain(|lease| !these(lease) || !lease.awaits_start());
        for lease in self.leases.iter_mut().filter(|lease| these(lease)) {
            match &mut lease.phase {
                Phase::Starting { until, reapply } => (*until, *reapply) = (Some(0), false),
                Phase::Open { .. } if log => stop(lease, actions),
                Phase::Open { .. } => {
                    lease.phase = Phase::Stopping { then: Then::Over };
                    actions.push(Action::RunStop(lease.id));
                }
                Phase::Stopping { then } => *then = Then::Over,
            }
        }
        number
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn next_expiry(&self) -> Option<Millis> {
        let open = |lease: &Lease| match lease.phase {
            Phase::Open { until } => Some(until),
            _ => None,
        };
        self.leases.iter().filter_map(open).min()
    }

    /// SIGUSR1: a firewall restart has flushed the rules. Each live lease is stopped and started again, since a start
    /// alone could put a second rule beside one that was not flushed.
    pub fn reapply(&mut self, actions: &mut Vec<Action>) {
        self.unsaved = true;
        for lease in &mut self.leases {
            match &mut lease.phase {
                Phase::Starting { reapply, .. } => *reapply = true,
                Phase::Open { until } => {
                    lease.phase = Phase::Stopping {
                        then: Then::Reapply { until: *until },
                    };
                    actions.push(Action::RunStop(lease.id));
                }
                Phase::Stopping { .. } => {}
            }
        }
    }
}

/// How many doors are open, and how many bans there are, if there are any.
pub fn in_words(leases: &[Lease]) -> String {
    let bans = leases.iter().filter(|lease| lease.is_ban()).count();
    let doors = leases.len() - bans;
    match bans {
        0 => format!("{doors} open doors"),
        _ => format!("{doors} open doors and {bans} bans"),
    }
}

fn stop(lease: &mut Lease, actions: &mut Vec<Action>) {
    lease.phase = Phase::Stopping { then: Then::Over };
    actions.push(Action::LogTimeout(lease.id));
    actions.push(Action::RunStop(lease.id));
}
