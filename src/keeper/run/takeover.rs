//! What a daemon that was killed has left: its commands are ended and its overdue doors closed before anything else is done.
#![forbid(unsafe_code)]

use super::Keeper;
use crate::keeper::log::LogKind;
use crate::keeper::state::StateDir;
use crate::lease::{Lease, Phase, in_words};
use crate::limits::ORPHAN_MS;
use crate::sys::clock::monotonic;
use crate::sys::{exec, poll};
use crate::util::time::Millis;

const PAUSE_MS: Millis = 20;

impl Keeper {
    /// Whether no door is open.
    pub fn has_no_leases(&self) -> bool {
        self.book.leases().is_empty()
    }

    /// Takes this folder over, and the leases that are left in it.
    pub fn take_over_state(&mut self, state: StateDir) {
        let (leases, remark) = state.leases();
        self.log.cage = state.empty_directory().try_clone_to_owned().ok();
        self.state = Some(state);
        if let Some((kind, text)) = remark {
            self.log.log(kind, &text);
        }
        self.take_over_leases(leases);
    }

    /// Takes over what dead daemons of the same config with another `-i` have left: perhaps nobody starts these again.
    pub fn take_over_others(&mut self) {
        let state_dir = self.settings.state_dir(&self.options);
        for other in self.settings.instance.others(&state_dir) {
            let Ok(Some(state)) = StateDir::lock_abandoned(&state_dir, &other) else {
                continue;
            };
            if self.state.is_none() {
                self.take_over_state(state);
                continue;
            }
            let (leases, remark) = state.leases();
            if let Some((LogKind::Error, text)) = remark {
                self.log.log(LogKind::Error, &text);
            }
            if !leases.is_empty() {
                self.take_over_leases(leases);
                // By now they are in our own journal.
                if !self.journal_failing {
                    state.forget();
                }
            }
        }
    }

    /// Takes these leases over. Those that are overdue or were at a command are closed now; their stop commands are waited for, up to
    /// [`ORPHAN_MS`].
    pub(super) fn take_over_leases(&mut self, leases: Vec<Lease>) {
        kill_orphans(&leases);
        if !leases.is_empty() {
            let number = in_words(&leases);
            self.log.log(
                LogKind::Event,
                &format_args!("{number} taken over from the daemon before"),
            );
        }
        self.book.adopt(leases, &mut self.actions);
        self.book.expire(monotonic(), &mut self.actions);
        self.carry_out(monotonic());
        let stopping = |lease: &Lease| matches!(lease.phase, Phase::Stopping { .. });
        let deadline = monotonic() + ORPHAN_MS;
        while self.book.leases().iter().any(stopping) && monotonic() < deadline {
            poll::pause(PAUSE_MS);
            self.reap();
            self.carry_out(monotonic());
        }
    }
}

/// Ends the commands that a killed daemon left behind: stop commands may finish, start commands are asked to end, and what
/// is left after [`ORPHAN_MS`] is killed.
fn kill_orphans(leases: &[Lease]) {
    let mut orphans = Vec::new();
    for lease in leases {
        let Some(group) = lease.running.filter(|group| exec::still_runs(*group)) else {
            continue;
        };
        orphans.push(group);
        if matches!(lease.phase, Phase::Starting { .. }) {
            exec::signal(group, libc::SIGTERM);
        }
    }
    let deadline = monotonic() + ORPHAN_MS;
    while orphans.iter().any(|group| exec::is_left(*group)) && monotonic() < deadline {
        poll::pause(PAUSE_MS);
    }
    for group in orphans {
        if exec::is_left(group) {
            exec::signal(group, libc::SIGKILL);
        }
    }
}
