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

mod book;
pub mod journal;
#[cfg(test)]
mod tests;

use crate::util::process::ProcessGroup;
use crate::util::time::Millis;
use std::net::IpAddr;

pub use book::LeaseBook;

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

/// How many doors are open, and how many bans there are, if there are any.
pub fn in_words(leases: &[Lease]) -> String {
    let bans = leases.iter().filter(|lease| lease.is_ban()).count();
    let doors = leases.len() - bans;
    match bans {
        0 => format!("{doors} open doors"),
        _ => format!("{doors} open doors and {bans} bans"),
    }
}
