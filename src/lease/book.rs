//! The lease book: events in, actions out.
#![forbid(unsafe_code)]

use super::{Action, AfterStop, Full, Lease, LeaseId, Opening, Phase, Reknock};
use crate::limits::{MAX_BAN_LEASES, MAX_LEASES};
use crate::util::process::ProcessGroup;
use crate::util::time::Millis;
use std::net::IpAddr;

/// All leases.
#[derive(Debug, Default)]
pub struct LeaseBook {
    leases: Vec<Lease>,
    /// Leases whose start command failed, or whose rule another door's command undid: the door may
    /// be shut. Not in the journal, so a restart forgets them.
    doubtful: Vec<LeaseId>,
    next_id: LeaseId,
    /// The book has changed since the keeper wrote the journal.
    pub journal_dirty: bool,
}

impl LeaseBook {
    /// Restores the leases of another daemon's journal. Stops those whose command was running; the
    /// caller has ended its process group.
    pub fn restore(&mut self, leases: Vec<Lease>, actions: &mut Vec<Action>) {
        self.journal_dirty = true;
        for mut lease in leases {
            lease.id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            lease.running = None;
            if !matches!(lease.phase, Phase::Open { .. }) {
                lease.phase = Phase::Stopping {
                    then: AfterStop::Remove,
                };
                actions.push(Action::RunStop(lease.id));
            }
            self.leases.push(lease);
        }
    }

    /// The live leases.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// Returns the lease with that number.
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.id == id)
    }

    /// Returns the doors whose start command runs again after the current stop command.
    pub fn reopening(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(|lease| {
            let starts =
                matches!(lease.phase, Phase::Stopping { then } if then != AfterStop::Remove);
            starts && !lease.is_ban()
        })
    }

    /// Returns whether that source is banned now.
    pub fn is_banned(&self, source: IpAddr) -> bool {
        let mut bans = self.leases.iter().filter(|lease| lease.is_ban());
        bans.any(|ban| ban.source == source && ban.until() > Some(0))
    }

    /// Returns the number of bans that are not ending, and the source of the ban that ends first.
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

    /// Handles a complete knock at a door with a stop command, or a ban. With [`Reknock::Renew`] it
    /// extends a live lease of the same door, source and commands, or the source's ban, instead of
    /// adding a second one.
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
        // A ban starts with the hit, even if its command has to wait.
        let end = now.saturating_add(opening.cmd_timeout);
        let starts_with = opening.kind.is_ban().then_some(end);
        if reknock == Reknock::Renew
            && let Some(lease) = self.leases.iter_mut().find(same)
        {
            self.journal_dirty = true;
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
                    lease.phase = Phase::Stopping {
                        then: AfterStop::Reopen,
                    };
                    actions.push(Action::RunStop(lease.id));
                }
                Phase::Open { until } => {
                    *until = end;
                    actions.push(Action::LogRenewed(lease.id));
                }
                Phase::Stopping { then } => {
                    lease.turn = opening.turn;
                    *then = AfterStop::Reopen;
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
        self.journal_dirty = true;
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

    /// Records that the lease's command was forked as this group.
    pub fn command_started(&mut self, id: LeaseId, group: ProcessGroup) {
        self.journal_dirty = true;
        if let Some(lease) = self.get_mut(id) {
            lease.running = Some(group);
        }
    }

    /// Records that the lease's start command has failed: the next knock runs it again, because the
    /// door may be shut. The caller reports this before [`command_ended`](Self::command_ended).
    pub fn start_failed(&mut self, id: LeaseId) {
        let starting = |lease: &Lease| matches!(lease.phase, Phase::Starting { .. });
        if self.get(id).is_some_and(starting) {
            self.doubtful.push(id);
        }
    }

    /// Handles a command of a door without leases, such as a close door. It undoes the start
    /// commands for which `undoes` returns `true`: the next knock at their doors runs stop and
    /// start command.
    pub fn undone(&mut self, undoes: impl Fn(&Lease) -> bool) {
        for lease in self.leases.iter().filter(|lease| undoes(lease)) {
            if !self.doubtful.contains(&lease.id) {
                self.doubtful.push(lease.id);
            }
        }
    }

    /// Records that the lease's command has ended in any way, or could not run.
    pub fn command_ended(&mut self, id: LeaseId, now: Millis, actions: &mut Vec<Action>) {
        self.journal_dirty = true;
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
                        then: AfterStop::Reapply { until },
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
                    AfterStop::Reapply { until } => Some(until),
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

    /// Ends expired leases.
    pub fn expire(&mut self, now: Millis, actions: &mut Vec<Action>) {
        self.journal_dirty = true;
        for lease in &mut self.leases {
            if matches!(lease.phase, Phase::Open { until } if until <= now) {
                stop(lease, actions);
            }
        }
    }

    /// Ends these leases now, or as soon as their command has finished. Returns their number. A
    /// waiting start command never runs. With `log`, logs the stop commands that run now.
    pub fn end(
        &mut self,
        these: &dyn Fn(&Lease) -> bool,
        log: bool,
        actions: &mut Vec<Action>,
    ) -> usize {
        let number = self.leases.iter().filter(|lease| these(lease)).count();
        self.journal_dirty |= number > 0;
        self.leases
            .retain(|lease| !these(lease) || !lease.awaits_start());
        for lease in self.leases.iter_mut().filter(|lease| these(lease)) {
            match &mut lease.phase {
                Phase::Starting { until, reapply } => (*until, *reapply) = (Some(0), false),
                Phase::Open { .. } if log => stop(lease, actions),
                Phase::Open { .. } => {
                    lease.phase = Phase::Stopping {
                        then: AfterStop::Remove,
                    };
                    actions.push(Action::RunStop(lease.id));
                }
                Phase::Stopping { then } => *then = AfterStop::Remove,
            }
        }
        number
    }

    /// Returns when [`expire`](Self::expire) must be called.
    pub fn next_expiry(&self) -> Option<Millis> {
        let open = |lease: &Lease| match lease.phase {
            Phase::Open { until } => Some(until),
            _ => None,
        };
        self.leases.iter().filter_map(open).min()
    }

    /// SIGUSR1: a firewall restart has flushed the rules. Stops and restarts each live lease,
    /// because the start command alone could add a second rule to one that was not flushed.
    pub fn reapply(&mut self, actions: &mut Vec<Action>) {
        self.journal_dirty = true;
        for lease in &mut self.leases {
            match &mut lease.phase {
                Phase::Starting { reapply, .. } => *reapply = true,
                Phase::Open { until } => {
                    lease.phase = Phase::Stopping {
                        then: AfterStop::Reapply { until: *until },
                    };
                    actions.push(Action::RunStop(lease.id));
                }
                Phase::Stopping { .. } => {}
            }
        }
    }
}

fn stop(lease: &mut Lease, actions: &mut Vec<Action>) {
    lease.phase = Phase::Stopping {
        then: AfterStop::Remove,
    };
    actions.push(Action::LogTimeout(lease.id));
    actions.push(Action::RunStop(lease.id));
}
