//! Takes over from a killed daemon: before anything else, ends its commands and closes its expired
//! doors.
#![forbid(unsafe_code)]

use super::Keeper;
use crate::keeper::log::LogKind;
use crate::keeper::state::StateDir;
use crate::lease::{Lease, Phase, summary};
use crate::limits::ORPHAN_MS;
use crate::sys::clock::monotonic;
use crate::sys::{exec, poll};
use crate::util::time::Millis;

const PAUSE_MS: Millis = 20;

impl Keeper {
    /// Returns whether no door is open.
    pub fn has_no_leases(&self) -> bool {
        self.book.leases().is_empty()
    }

    /// Adopts this state directory and the leases in its journal.
    pub fn take_over_state(&mut self, state: StateDir) {
        let (leases, remark) = state.leases();
        self.log.empty_dir = state.empty_directory().try_clone_to_owned().ok();
        self.state = Some(state);
        if let Some((kind, text)) = remark {
            self.log.log(kind, &text);
        }
        self.take_over_leases(leases);
    }

    /// Takes over the leases of dead daemons that had the same config and another `-i`, because
    /// those might never be started again.
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
                // They are in this daemon's own journal now.
                if !self.journal_failing {
                    state.remove_journal();
                }
            }
        }
    }

    /// Takes over these leases. Closes expired ones and those whose command was running, and waits
    /// up to [`ORPHAN_MS`] for their stop commands.
    pub(super) fn take_over_leases(&mut self, leases: Vec<Lease>) {
        kill_orphans(&leases);
        if !leases.is_empty() {
            let number = summary(&leases);
            self.log.log(
                LogKind::Event,
                &format_args!("{number} taken over from the previous daemon"),
            );
        }
        self.book.restore(leases, &mut self.actions);
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

/// Ends the commands that a killed daemon left behind. Stop commands may finish, start commands get
/// SIGTERM, and both get SIGKILL after [`ORPHAN_MS`].
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
