//! The lease book: which doors are open for which sources, and when commands have to run. It is
//! pure: the keeper reports events to it, writes it to the journal, and then executes the actions
//! that it returns.
//!
//! ```text
//! knock --> Starting --end of the start command--> Open --deadline, SIGTERM--> Stopping --end of the stop command--> over
//!              ^                                     |                            |
//!              |                                     +--SIGUSR1------------------>+
//!              +---------------end of the stop command, where SIGUSR1 or another knock came before it--------------+
//! ```
//! A restarted daemon keeps `Open` leases. Those whose command was running become `Stopping`.
//! [`journal`] has the format.
#![forbid(unsafe_code)]

mod book;
pub mod journal;
#[cfg(test)]
mod tests;

use crate::util::process::ProcessGroup;
use crate::util::time::Millis;
use std::net::IpAddr;

pub use book::LeaseBook;

/// The number of a lease, unique among live leases.
pub type LeaseId = u32;

/// The order of a complete knock: the commands of one source run in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The number of the complete knock, from 1.
    pub number: u64,
    /// Its time.
    pub at: Millis,
}

/// What a complete knock does while the client's lease of that door is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reknock {
    /// Restarts the lease's time and runs no command.
    #[default]
    Renew,
    /// Adds a second lease, as knockd 0.8 does: start runs again, and stop will run twice.
    Stack,
}

/// The name of a ban in the log, in place of a door's.
pub const BAN: &str = "ban";

/// The kind of a lease.
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
    /// The start command with `%IP%` replaced. For a ban it can be empty, which runs nothing.
    pub start: Vec<u8>,
    /// The stop command with `%IP%` replaced. Empty only for a ban: a door without one has no
    /// leases.
    pub stop: Vec<u8>,
    /// How long the lease lasts once the start command has ended.
    pub cmd_timeout: Millis,
    /// The knock that its start command runs for. Not in the journal: a restarted daemon treats it
    /// as earlier than all others.
    pub turn: Turn,
    /// The current phase.
    pub phase: Phase,
    /// The process group of its command, while one runs.
    pub running: Option<ProcessGroup>,
}

impl Lease {
    /// Whether it is a ban.
    pub fn is_ban(&self) -> bool {
        self.kind.is_ban()
    }

    /// Returns whether its start command has not started yet.
    fn awaits_start(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. }) && self.running.is_none()
    }

    /// Returns when it ends, if that is known; 0 if it is about to end.
    fn until(&self) -> Option<Millis> {
        match self.phase {
            Phase::Starting { until, .. } => until,
            Phase::Open { until } => Some(until),
            Phase::Stopping {
                then: AfterStop::Remove,
            } => Some(0),
            Phase::Stopping {
                then: AfterStop::Reopen,
            } => Some(Millis::MAX),
            Phase::Stopping {
                then: AfterStop::Reapply { until },
            } => Some(until),
        }
    }

    /// The door, or [`BAN`], for the log.
    pub fn name(&self) -> &str {
        self.kind.name()
    }
}

/// The phase of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The start command runs or waits for its turn.
    Starting {
        /// The end, if it is known: of a ban that time after the hit, of a re-applied lease its
        /// previous end, and 0 if [`LeaseBook::end`] ended it. `None`: cmd_timeout after the end of
        /// the start command.
        until: Option<Millis>,
        /// SIGUSR1 arrived in the meantime: re-apply the lease after the start command.
        reapply: bool,
    },
    /// The start command has ended.
    Open {
        /// When the stop command runs.
        until: Millis,
    },
    /// The stop command runs or waits for its turn.
    Stopping {
        /// The next phase.
        then: AfterStop,
    },
}

/// What follows a stop command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterStop {
    /// Nothing. The lease is removed.
    Remove,
    /// A start: the source knocked again in the meantime.
    Reopen,
    /// A start that restores what a firewall restart has flushed. The deadline stays.
    Reapply {
        /// That deadline.
        until: Millis,
    },
}

impl AfterStop {
    /// Returns whether nothing follows at that time: a deadline can pass while the stop command
    /// runs.
    fn is_over(self, now: Millis) -> bool {
        match self {
            AfterStop::Remove => true,
            AfterStop::Reopen => false,
            AfterStop::Reapply { until } => until <= now,
        }
    }
}

/// What the keeper has to do, in this order, after it has written the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the start command of that lease.
    RunStart(LeaseId),
    /// Run the stop command of that lease.
    RunStop(LeaseId),
    /// Log that its time has expired; `RunStop` follows.
    LogTimeout(LeaseId),
    /// Log that its time was restarted.
    LogRenewed(LeaseId),
}

/// Why a lease was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A request of a complete knock.
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
    /// The order of the knock.
    pub turn: Turn,
}

/// Describes the number of open doors, and of bans if there are any.
pub fn summary(leases: &[Lease]) -> String {
    let bans = leases.iter().filter(|lease| lease.is_ban()).count();
    let doors = leases.len() - bans;
    match bans {
        0 => format!("{doors} open doors"),
        _ => format!("{doors} open doors and {bans} bans"),
    }
}
