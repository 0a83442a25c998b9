//! The keeper's loop: sleeps in poll() and does what the listener, its children, signals and deadlines ask for.
#![forbid(unsafe_code)]

mod leases;
mod listeners;
mod sequences;
mod signals;

use super::Settings;
use super::commands::Commands;
use super::doors::Door;
use super::lines::Lines;
use super::listener_process::{ListenerProcess, Restart};
use super::log::Kind;
use super::state::State;
use crate::config::Options;
use crate::door::Millis;
use crate::lease::{Lease, LeaseBook};
use crate::limits::FORK_RETRY_MS;
use crate::sys::clock::monotonic;
use crate::sys::signals::Signals;
use crate::sys::{exec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;

/// A new config and the listener for it, which is not ready yet.
struct Replacement {
    listener: ListenerProcess,
    options: Options,
    doors: Vec<Door>,
}

/// On the way out.
struct Closing {
    signal: i32,
    deadline: Millis,
}

/// Everything that the keeper knows.
pub struct Keeper {
    settings: Settings,
    options: Options,
    doors: Vec<Door>,
    lines: Lines,
    signals: Signals,
    listener: Option<ListenerProcess>,
    restart: Restart,
    replacement: Option<Replacement>,
    book: LeaseBook,
    /// The book has changed since the journal was written.
    unsaved: bool,
    commands: Commands,
    state: Option<State>,
    pid_file: Option<PathBuf>,
    closing: Option<Closing>,
}

impl Keeper {
    /// A keeper with everything that the start has made. `leases` are those of the daemon before.
    #[expect(
        clippy::too_many_arguments,
        reason = "called once; a struct of these would be the Keeper"
    )]
    pub fn new(
        settings: Settings,
        options: Options,
        doors: Vec<Door>,
        lines: Lines,
        listener: ListenerProcess,
        leases: Vec<Lease>,
        state: Option<State>,
        signals: Signals,
        pid_file: Option<PathBuf>,
    ) -> Keeper {
        let mut keeper = Keeper {
            settings,
            options,
            doors,
            lines,
            signals,
            listener: Some(listener),
            restart: Restart::default(),
            replacement: None,
            book: LeaseBook::default(),
            unsaved: true,
            commands: Commands::default(),
            state,
            pid_file,
            closing: None,
        };
        if !leases.is_empty() {
            keeper.lines.say(
                Kind::Event,
                &format!(
                    "{} open doors taken over from the daemon before",
                    leases.len()
                ),
            );
        }
        let mut actions = Vec::new();
        keeper.book = LeaseBook::restore(leases, &mut actions);
        keeper.perform(actions);
        keeper
    }

    /// Until SIGTERM or SIGINT; the exit code is the signal's number, as knockd 0.8's.
    pub fn run(mut self) -> ExitCode {
        loop {
            let now = monotonic();
            self.meet_deadlines(now);
            if let Some(closing) = &self.closing
                && (self.book.leases().is_empty() || closing.deadline <= now)
            {
                let code = ExitCode::from(closing.signal as u8);
                self.finish();
                return code;
            }
            self.lines.log.write_out();
            let [signals, listener, replacement, names] = match self.sleep(now) {
                Ok(ready) => ready,
                // Only a machine out of memory gets here; leases must still end.
                Err(error) => {
                    self.lines
                        .say(Kind::Error, &format!("error: poll: {error}"));
                    exec::pause(FORK_RETRY_MS);
                    [false; 4]
                }
            };
            if listener {
                self.hear_listener();
            }
            if replacement {
                self.hear_replacement();
            }
            if names {
                self.lines.answer(monotonic());
            }
            if signals {
                while let Some(signal) = self.signals.next() {
                    self.obey(signal);
                }
            }
        }
    }

    /// Waits for something to do: whether signals, the listener, its replacement and the names child have something to say.
    fn sleep(&self, now: Millis) -> io::Result<[bool; 4]> {
        let sources = [
            Some(self.signals.as_fd()),
            self.listener.as_ref().map(AsFd::as_fd),
            self.replacement.as_ref().map(|new| new.listener.as_fd()),
            self.lines.descriptor(),
        ];
        let descriptors: heapless::Vec<BorrowedFd<'_>, 4> =
            sources.iter().flatten().copied().collect();
        let ready = poll::wait(&descriptors, now, self.next_deadline())?;
        let mut ready = ready.into_iter();
        Ok(sources.map(|source| source.is_some() && ready.next() == Some(true)))
    }

    fn next_deadline(&self) -> Option<Millis> {
        let closing = self.closing.as_ref().map(|closing| closing.deadline);
        let replacement = self
            .replacement
            .as_ref()
            .and_then(|new| new.listener.ready_by);
        let starting = self
            .listener
            .as_ref()
            .and_then(|listener| listener.ready_by);
        [
            closing,
            replacement,
            starting,
            self.restart.due,
            self.book.next_expiry(),
            self.commands.next_deadline(),
            self.lines.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn meet_deadlines(&mut self, now: Millis) {
        if self.restart.due.is_some_and(|due| due <= now) {
            self.restart.due = None;
            self.start_listener(now);
        }
        if self
            .listener
            .as_ref()
            .is_some_and(|l| l.ready_by.is_some_and(|due| due <= now))
        {
            self.listener_died("does not get ready");
        }
        if self
            .replacement
            .as_ref()
            .is_some_and(|n| n.listener.ready_by.is_some_and(|d| d <= now))
        {
            self.give_up_reload("the new listener does not get ready");
        }
        if self.lines.deadline().is_some_and(|due| due <= now) {
            self.lines.proceed(now);
        }
        for door in self.commands.end_overdue(now) {
            self.lines.say(
                Kind::Error,
                &format!("{door}: command takes too long: killed"),
            );
        }
        if self.book.next_expiry().is_some_and(|due| due <= now) {
            let mut actions = Vec::new();
            self.book.expire(now, &mut actions);
            self.perform(actions);
        } else {
            self.run_commands(now);
        }
    }
}
