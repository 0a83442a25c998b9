//! Shutdown: closes every open door. A door that does not close in time stays in the journal.
#![forbid(unsafe_code)]

use super::{Closing, Keeper};
use crate::keeper::listener_process::ListenerProcess;
use crate::keeper::log::LogKind;
use crate::keeper::start::remove_pid;
use crate::limits::{ORDER_MS, SHUTDOWN_COMMAND_MS, SHUTDOWN_MS, SHUTDOWN_START_MS};
use crate::sys::clock::monotonic;
use crate::sys::exec;
use crate::util::time::NEVER;

impl Keeper {
    /// Starts the shutdown: opens nothing more and closes all doors. `code` becomes the exit code.
    pub fn close(&mut self, code: u8) {
        let now = monotonic();
        let (listener, starting) = (self.listener.take(), self.starting.take());
        let listeners = [
            listener.and_then(ListenerProcess::close),
            starting.and_then(|starting| starting.listener.close()),
        ];
        self.closing = Some(Closing {
            code,
            deadline: now + SHUTDOWN_MS,
            listeners,
        });
        self.mark_down();
        self.reload_wanted = false;
        self.restart.due = NEVER;
        if !self.book.leases().is_empty() {
            self.log
                .log(LogKind::Verbose, &"waiting for child processes...");
        }
        self.book.end(&|_| true, true, &mut self.actions);
        let Keeper { book, commands, .. } = self;
        // A waiting plain command might be the one that closes a door.
        commands.drop_waiting(&|command| match command.lease {
            Some(id) => book.get(id).is_some(),
            None => command.turn.at + ORDER_MS > now,
        });
        commands.limit(now + SHUTDOWN_START_MS, now + SHUTDOWN_COMMAND_MS);
    }

    pub(super) fn finish(&mut self) {
        self.book.journal_dirty |= self.journal_failing;
        self.save();
        for lease in self.book.leases() {
            self.log.log(LogKind::Error, &format_args!(
                "error: {}: {}: its stop command did not end in time; the next start runs it again",
                lease.source, lease.name()
            ));
        }
        self.log_left_out();
        self.log.log(LogKind::Verbose, &"closing...");
        self.log.log(LogKind::LogOnly, &"shutting down");
        self.log.flush();
        if let Some(path) = &self.pid_file {
            remove_pid(path);
        }
        // No other process of the daemon outlives this one, because an upgrade replaces the program
        // as soon as this one has exited.
        let listeners = self.closing.as_ref().map_or([None; 2], |it| it.listeners);
        for process in listeners.into_iter().flatten() {
            exec::end(process);
        }
    }
}
