//! The keeper's loop: sleeps in poll() and handles the listener, child processes, signals and
//! deadlines.
#![forbid(unsafe_code)]

mod admission;
mod bans;
mod control;
mod effects;
mod leases;
mod listeners;
mod reload;
mod sequences;
mod shutdown;
mod takeover;

use super::Settings;
use super::commands::CommandQueue;
use super::control::Control;
use super::doors::DoorRuntime;
use super::listener_process::{ListenerProcess, Restart};
use super::log::{LogKind, LogQueue, LogSinks};
use super::state::StateDir;
use crate::config::Options;
use crate::keeper::status::ListenerStatus;
use crate::lease::{Action, LeaseBook};
use crate::limits::{
    BAN_BURST, BANS_PER_SECOND, FORK_RETRY_MS, LISTENER_START_MS, RELOAD_PAUSE_MS,
};
use crate::sys::clock::monotonic;
use crate::sys::error::Result;
use crate::sys::poll::{self, Interest, PollEntry, Ready};
use crate::sys::program::ExitCode;
use crate::sys::signals::{Signal, Signals};
use crate::util::process::Pid;
use crate::util::time::Millis;
use crate::util::time::{NEVER, soonest};
use crate::util::token_bucket::TokenBucket;
use admission::{ABOUT_ATTEMPTS, Admission};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// What the keeper polls, in this order.
#[derive(Clone, Copy)]
enum PollSource {
    Signals,
    Listener,
    Starting,
    Names,
    /// The control socket, followed by its clients.
    Control,
}

/// A listener that is not ready yet.
struct StartingListener {
    listener: ListenerProcess,
    /// Aborted if it is not ready by then.
    ready_by: Millis,
    /// The config to activate with it. `None` if it serves the current doors.
    new: Option<Box<NewConfig>>,
}

impl StartingListener {
    fn new(listener: ListenerProcess, new: Option<Box<NewConfig>>) -> StartingListener {
        let ready_by = listener.started + LISTENER_START_MS;
        StartingListener {
            listener,
            ready_by,
            new,
        }
    }
}

/// A config that was read again.
struct NewConfig {
    options: Options,
    doors: Vec<DoorRuntime>,
    /// Its state directory, if it differs from the current one.
    state: Option<StateDir>,
}

/// The shutdown in progress.
struct Closing {
    code: u8,
    deadline: Millis,
    /// Killed listeners that may not have exited yet.
    listeners: [Option<Pid>; 2],
}

/// The keeper's state.
pub struct Keeper {
    /// The command line.
    pub settings: Settings,
    /// The config's options.
    pub options: Options,
    doors: Vec<DoorRuntime>,
    /// The log.
    pub log: LogQueue,
    signals: Signals,
    /// The listener, if one is ready.
    pub listener: Option<ListenerProcess>,
    restart: Restart,
    starting: Option<StartingListener>,
    /// A reload is pending, and the time before which it must not begin.
    reload_wanted: bool,
    reload_after: Millis,
    book: LeaseBook,
    /// The book's actions that are still to be carried out.
    actions: Vec<Action>,
    /// When to try again to write the journal.
    journal_retry_at: Millis,
    /// The last write failed, and the log says so.
    journal_failing: bool,
    commands: CommandQueue,
    /// The state directory, if there is one.
    pub state: Option<StateDir>,
    /// The PID file, if there is one.
    pub pid_file: Option<PathBuf>,
    closing: Option<Closing>,
    /// Bounds the bans.
    bans_rate: TokenBucket,
    /// Bounds the lines that the listener causes.
    admission: Admission,
    /// When to log how many openings or lines were left out.
    left_out_report_at: Millis,
    /// The control socket, if there is one.
    pub control: Option<Box<Control>>,
    /// When the daemon started.
    started: Millis,
    /// Number of complete knocks.
    opened: u64,
    /// Number of listeners that have died.
    restarts: u32,
    /// While the first listener starts: whether it listens on an interface, or why it cannot start.
    startup: Option<Result<bool, String>>,
    /// The part of the listener's report that has arrived, and the time until which the keeper
    /// waits for the rest.
    report: Option<(ListenerStatus, Millis)>,
}

impl Keeper {
    /// Creates a keeper without a listener, state directory, PID file or leases. It lives as long
    /// as the process.
    pub fn new(
        settings: Settings,
        options: Options,
        doors: Vec<DoorRuntime>,
    ) -> Result<&'static mut Keeper, String> {
        let signals = Signals::catch()
            .map_err(|error| format!("cannot catch signals: {error}: open doors stay open"))?;
        let sinks = LogSinks::new(settings.args.verbose, settings.args.debug);
        let log = LogQueue::new(sinks, settings.args.lookup);
        let log_rate = options.log_rate;
        Ok(Box::leak(Box::new(Keeper {
            settings,
            options,
            doors,
            log,
            signals,
            listener: None,
            restart: Restart::default(),
            starting: None,
            reload_wanted: false,
            reload_after: 0,
            book: LeaseBook::default(),
            actions: Vec::new(),
            journal_retry_at: NEVER,
            journal_failing: false,
            commands: CommandQueue::default(),
            state: None,
            pid_file: None,
            closing: None,
            bans_rate: TokenBucket::new(BANS_PER_SECOND, BAN_BURST, monotonic()),
            admission: Admission::new(log_rate),
            left_out_report_at: NEVER,
            control: None,
            started: monotonic(),
            opened: 0,
            restarts: 0,
            startup: None,
            report: None,
        })))
    }

    /// Runs until SIGTERM or SIGINT. The exit code is the signal number, as in knockd 0.8.
    pub fn run(&mut self) -> ExitCode {
        loop {
            let now = monotonic();
            self.handle_deadlines(now);
            if let Some(closing) = &self.closing
                && (self.book.leases().is_empty() && !self.commands.awaits_turn()
                    || self.commands.is_drained(now)
                    || closing.deadline <= now)
            {
                let code = ExitCode::from(closing.code);
                self.finish();
                return code;
            }
            self.wait_and_serve(now);
        }
    }

    /// Runs the loop until the first listener is ready or a signal stops the daemon. The error is
    /// the reason why the listener cannot start.
    pub fn await_listener(&mut self, listener: ListenerProcess) -> Result<bool, String> {
        self.starting = Some(StartingListener::new(listener, None));
        self.startup = Some(Ok(false));
        while self.starting.is_some() {
            let now = monotonic();
            self.handle_deadlines(now);
            if self.starting.is_some() {
                self.wait_and_serve(now);
            }
        }
        self.startup.take().unwrap_or(Ok(false))
    }

    /// Waits for events and handles them.
    fn wait_and_serve(&mut self, now: Millis) {
        self.log.sinks.write_out();
        let ready = match self.sleep(now) {
            Ok(ready) => ready,
            // Happens only when the machine is out of memory. Leases must still end.
            Err(error) => {
                self.log
                    .log(LogKind::Error, &format_args!("error: poll: {error}"));
                poll::pause(FORK_RETRY_MS);
                Ready::default()
            }
        };
        // First, because the other handlers may drop clients.
        let clients = ready.skip(PollSource::Control as usize);
        if clients.any() {
            self.serve_clients(clients, monotonic());
        }
        let has = |source: PollSource| ready.has(source as usize);
        if has(PollSource::Listener) {
            self.read_listener();
        }
        if has(PollSource::Starting) {
            self.read_starting();
        }
        if has(PollSource::Names) {
            self.log.read_answer(monotonic());
        }
        if has(PollSource::Signals) || self.signals.are_pending() {
            for signal in self.signals.take() {
                self.handle_signal(signal);
            }
        }
    }

    /// Returns whether the daemon is shutting down.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns whether a signal that stops the daemon is pending.
    pub fn has_shutdown_signal(&self) -> bool {
        self.signals.ask_for_the_end()
    }

    fn handle_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Child => self.reap(),
            // The loop reloads. Signals during the pause after a reload are merged into one more
            // reload.
            Signal::Reload => self.reload_wanted = self.closing.is_none(),
            Signal::Reapply if self.closing.is_none() => self.reapply(),
            Signal::Shutdown(number) if self.closing.is_none() => self.close(number as u8),
            _ => {}
        }
    }

    /// Waits for events. Returns which entries are ready; each [`PollSource`] is the index of its
    /// entry.
    fn sleep(&self, now: Millis) -> Result<Ready> {
        let mut own = [None; PollSource::Control as usize];
        own[PollSource::Signals as usize] = Some(self.signals.as_fd());
        own[PollSource::Listener as usize] =
            self.listener.as_ref().and_then(ListenerProcess::poll_fd);
        own[PollSource::Starting as usize] = self.starting.as_ref().map(|it| it.listener.as_fd());
        own[PollSource::Names as usize] = self.log.descriptor();
        let mut entries = Vec::new();
        for fd in &own {
            entries.push(PollEntry::new(*fd, Interest::Readable));
        }
        if let Some(control) = &self.control {
            control.add_entries(&mut entries);
        }
        let deadline = match self.signals.are_pending() {
            true => now,
            false => self.next_deadline(),
        };
        poll::wait(&mut entries, now, deadline)
    }

    fn next_deadline(&self) -> Millis {
        // Only one listener starts at a time.
        let starts = match &self.starting {
            Some(starting) => starting.ready_by,
            None if self.reload_wanted => self.reload_after.min(self.restart.due),
            None => self.restart.due,
        };
        soonest(&[
            (self.closing.as_ref()).map_or(NEVER, |closing| closing.deadline),
            starts,
            self.journal_retry_at,
            self.left_out_report_at,
            (self.listener.as_ref()).map_or(NEVER, |listener| listener.paused_until),
            self.book.next_expiry().unwrap_or(NEVER),
            self.commands.next_deadline(),
            self.log.deadline(),
            self.control
                .as_ref()
                .map_or(NEVER, |control| control.deadline()),
            self.report.as_ref().map_or(NEVER, |(_, due)| *due),
        ])
    }

    fn handle_deadlines(&mut self, now: Millis) {
        if self.starting.is_none() && self.reload_wanted && self.reload_after <= now {
            self.reload_wanted = false;
            self.reload_after = now + RELOAD_PAUSE_MS;
            self.reload();
        }
        if self.starting.is_none() && self.restart.due <= now {
            self.restart.due = NEVER;
            self.start_listener(now);
        }
        if (self.starting.as_ref()).is_some_and(|starting| starting.ready_by <= now) {
            self.abort_starting("listener did not start in time");
        }
        if let Some(listener) = &mut self.listener
            && listener.paused_until <= now
        {
            listener.paused_until = NEVER;
        }
        if self.log.deadline() <= now {
            self.log.proceed(now);
        }
        if self.left_out_report_at <= now {
            self.log_left_out();
        }
        if self.journal_retry_at <= now {
            self.journal_retry_at = NEVER;
            self.recreate_state_dir();
            self.book.journal_dirty = true;
        }
        if self.report.as_ref().is_some_and(|(_, due)| *due <= now) {
            self.answer_status(None, now);
        }
        if self
            .control
            .as_ref()
            .map_or(NEVER, |control| control.deadline())
            <= now
        {
            self.serve_clients(Ready::default(), now);
        }
        self.run_expired(now);
    }

    /// Logs how many openings were refused and how many lines were left out.
    pub(super) fn log_left_out(&mut self) {
        self.left_out_report_at = NEVER;
        let refused = |door: &mut DoorRuntime| door.openings.take_left_out();
        let refused: u32 = self.doors.iter_mut().filter_map(refused).sum();
        if refused > 0 {
            self.log.log(
                LogKind::Error,
                &format_args!("error: {refused} openings refused: too many at once"),
            );
        }
        let left_out = |door: &mut DoorRuntime| door.lines.take_left_out();
        let left_out: u32 = self.doors.iter_mut().filter_map(left_out).sum();
        if left_out > 0 {
            self.log_lines_left_out(left_out, "lines about openings");
        }
        if let Some(lines) = self.admission.take_left_out() {
            self.log_lines_left_out(lines, ABOUT_ATTEMPTS);
        }
    }

    /// Closes expired doors and kills commands that exceeded their time limit.
    fn run_expired(&mut self, now: Millis) {
        for door in self.commands.kill_overdue(now) {
            self.log.log(
                LogKind::Error,
                &format_args!("{door}: command killed (time limit)"),
            );
        }
        if self.book.next_expiry().is_some_and(|due| due <= now) {
            self.book.expire(now, &mut self.actions);
        }
        self.carry_out(now);
    }
}
