//! The keeper's loop: sleeps in poll() and does what the listener, its children, signals and deadlines ask for.
#![forbid(unsafe_code)]

use super::Settings;
use super::commands::{Command, Commands};
use super::doors::{Door, exhausted, expand};
use super::lines::Lines;
use super::listener_process::{ListenerProcess, Received, Restart};
use super::log::{Kind, plain};
use super::state::State;
use crate::config::Options;
use crate::door::{Millis, Protocol};
use crate::lease::{Action, Lease, LeaseBook, LeaseId, Opening};
use crate::limits::{FORK_RETRY_MS, MAX_LEASES, RECORDS_AT_ONCE, SHUTDOWN_COMMAND_MS, SHUTDOWN_MS};
use crate::record::{Progress, ToKeeper, ToListener};
use crate::sys::clock::monotonic;
use crate::sys::exec::{self, Ending};
use crate::sys::poll;
use crate::sys::signals::{Signal, Signals};
use std::io;
use std::net::IpAddr;
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

    // ---- the listener

    fn start_listener(&mut self, now: Millis) {
        match ListenerProcess::start(&self.settings, &self.options, &mut self.doors, true) {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => {
                self.lines.say(
                    Kind::Error,
                    &format!("error: cannot start a listener: {error}"),
                );
                self.restart.after_death(now, now);
            }
        }
    }

    fn listener_died(&mut self, how: &str) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        if self.closing.is_none() {
            self.lines.say(
                Kind::Error,
                &format!("error: the listener {how}: starting it again"),
            );
            self.restart.after_death(listener.started, monotonic());
        }
    }

    fn hear_listener(&mut self) {
        for _ in 0..RECORDS_AT_ONCE {
            let Some(listener) = &mut self.listener else {
                return;
            };
            let honest = match listener.receive() {
                Received::Nothing => return,
                Received::End => return self.listener_died("has died"),
                Received::Nonsense => false,
                Received::Record(ToKeeper::Ready) => {
                    listener.ready_by = None;
                    // Should it have died since, the next round finds out.
                    let _ = listener.say(&ToListener::Start);
                    true
                }
                Received::Record(ToKeeper::Refused(problem)) => {
                    return self.listener_died(&format!("cannot listen: {problem}"));
                }
                Received::Record(record) => self.heed(record),
            };
            if !honest {
                return self.listener_died("sent a record that cannot be");
            }
        }
    }

    fn hear_replacement(&mut self) {
        let Some(new) = &mut self.replacement else {
            return;
        };
        match new.listener.receive() {
            Received::Nothing => {}
            Received::Record(ToKeeper::Ready) => {
                new.listener.ready_by = None;
                let _ = new.listener.say(&ToListener::Start);
                if let Some(new) = self.replacement.take() {
                    self.take_over(new);
                }
            }
            Received::Record(ToKeeper::Notice(text)) => self.lines.say(Kind::LogOnly, &text),
            Received::Record(ToKeeper::Debug(text)) => self.lines.say(Kind::Debug, &text),
            Received::Record(ToKeeper::Refused(problem)) => self.give_up_reload(&problem),
            _ => self.give_up_reload("the new listener has died"),
        }
    }

    /// Does what a record of the listener asks for, as far as it can be checked. `false`: no honest listener sends this.
    fn heed(&mut self, record: ToKeeper) -> bool {
        match record {
            ToKeeper::Stage(progress) => {
                self.progress(progress, Kind::Event, |stage| format!("Stage {stage}"))
            }
            ToKeeper::TimedOut(progress) => self.progress(progress, Kind::Event, |stage| {
                format!("sequence timeout (stage {stage})")
            }),
            ToKeeper::Failed(progress) => self.progress(progress, Kind::Verbose, |stage| {
                format!("wrong knock, attempt ended (stage {stage})")
            }),
            ToKeeper::Opened {
                door,
                source,
                generation,
            } => self.opened(usize::from(door), source, generation),
            ToKeeper::LeftOut(lines) => {
                self.lines.say(
                    Kind::Event,
                    &format!("LogRate: {lines} stage and failure lines left out"),
                );
                true
            }
            ToKeeper::Notice(text) => {
                self.lines.say(Kind::Event, &text);
                true
            }
            ToKeeper::Debug(text) => {
                self.lines.say(Kind::Debug, &text);
                true
            }
            ToKeeper::Seen(knock) => {
                let protocol = knock.step.protocol;
                let flags = match protocol {
                    Protocol::Tcp => format!(" flags {:#04x}", knock.flags),
                    Protocol::Udp => String::new(),
                };
                self.lines.say(
                    Kind::Debug,
                    &format!(
                        "{protocol}: {}:{} -> {}:{}{flags}",
                        knock.source, knock.source_port, knock.destination, knock.step.port
                    ),
                );
                true
            }
            ToKeeper::Ready | ToKeeper::Refused(_) => false,
        }
    }

    fn progress(&mut self, progress: Progress, kind: Kind, what: impl Fn(u8) -> String) -> bool {
        let Some(door) = self.doors.get(usize::from(progress.door)) else {
            return false;
        };
        let text = format!("{}: {}", door.config.name, what(progress.stage));
        self.lines.about(kind, progress.source, &text);
        true
    }

    fn opened(&mut self, index: usize, source: IpAddr, generation: u32) -> bool {
        let Some(door) = self.doors.get_mut(index) else {
            return false;
        };
        if self.settings.args.only_ip_v4 && source.is_ipv6() || generation > door.generation {
            return false;
        }
        if generation < door.generation {
            // It was on its way while the next sequence was: an old sequence opens nothing.
            return true;
        }
        let name = door.config.name.clone();
        self.lines
            .about(Kind::Event, source, &format!("{name}: OPEN SESAME"));
        if self.use_sequence(index) {
            self.open(index, source);
        }
        self.next_sequence(index);
        true
    }

    /// Marks the one-time sequence of that door as used, on disk. `false`: it could not be, and the door must stay shut.
    fn use_sequence(&mut self, index: usize) -> bool {
        let Some(door) = self.doors.get_mut(index) else {
            return false;
        };
        let (Some(list), Some(sequence)) = (&door.list, &door.config.pattern.sequence) else {
            return door.list.is_none();
        };
        match list.mark_used(sequence) {
            Ok(()) => true,
            Err(error) => {
                let text = format!(
                    "error while disabling used one time sequence for door {} --> disabling the \
                     door ({}: {})",
                    door.config.name,
                    list.path().display(),
                    plain(&error)
                );
                door.list = None;
                door.config.pattern.sequence = None;
                door.generation += 1;
                let generation = door.generation;
                self.lines.say(Kind::Error, &text);
                self.tell_sequence(index, generation);
                false
            }
        }
    }

    /// Gives the listener the next one-time sequence of that door, if it has a list.
    fn next_sequence(&mut self, index: usize) {
        let Some(door) = self.doors.get_mut(index) else {
            return;
        };
        let Some(list) = &door.list else { return };
        let name = &door.config.name;
        let mut problems = Vec::new();
        let next = list.next(&mut |problem| problems.push(problem));
        let next = next.unwrap_or_else(|error| {
            problems.push(format!("{}: {}", list.path().display(), plain(&error)));
            None
        });
        if next.is_none() {
            problems.push(exhausted(name));
        } else if let Some(sequence) = &next {
            let text = format!("new sequence for door {name}: {sequence}");
            self.lines.say(Kind::Debug, &text);
        }
        door.config.pattern.sequence = next;
        door.generation += 1;
        let generation = door.generation;
        for problem in problems {
            self.lines.say(Kind::Error, &problem);
        }
        self.tell_sequence(index, generation);
    }

    fn tell_sequence(&mut self, index: usize, generation: u32) {
        let (Some(listener), Some(door)) = (&self.listener, self.doors.get(index)) else {
            return;
        };
        let sequence = door.config.pattern.sequence.clone();
        let record = ToListener::Sequence {
            door: index as u16,
            generation,
            sequence,
        };
        if listener.say(&record).is_err() {
            self.listener_died("does not take the next sequence");
        }
    }

    // ---- opening and closing

    /// Runs the door's start command for that source, with a lease if there is a stop command for it.
    fn open(&mut self, index: usize, source: IpAddr) {
        let Some(door) = self.doors.get(index) else {
            return;
        };
        let door = &door.config;
        let Some(start) = door.start.for_source(source) else {
            return;
        };
        let stop = door
            .stop
            .for_source(source)
            .map(|stop| expand(stop, source));
        let name = door.name.clone();
        let cmd_timeout = door.cmd_timeout;
        let Some(start) = expand(start, source) else {
            return self.lines.say(
                Kind::Error,
                "error: parsed start command has been truncated! --> won't execute it",
            );
        };
        match stop {
            Some(None) => self.lines.say(
                Kind::Error,
                "error: parsed stop command has been truncated! --> won't execute start command",
            ),
            Some(Some(stop)) => {
                let opening = Opening {
                    door: name.clone(),
                    source,
                    start,
                    stop,
                    cmd_timeout,
                };
                let mut actions = Vec::new();
                let reknock = self.options.reknock;
                match self.book.open(opening, reknock, monotonic(), &mut actions) {
                    Ok(()) => self.perform(actions),
                    Err(_) => self.lines.say(
                        Kind::Error,
                        &format!("error: {name}: {MAX_LEASES} doors are open: not opened"),
                    ),
                }
            }
            None => {
                let command = Command {
                    lease: None,
                    door: name.clone(),
                    text: start,
                };
                if !self.commands.push(command) {
                    self.lines.say(
                        Kind::Error,
                        &format!("error: {name}: too many commands wait: not run"),
                    );
                }
                self.run_commands(monotonic());
            }
        }
    }

    /// Does what the lease book asks for.
    fn perform(&mut self, actions: Vec<Action>) {
        self.unsaved = true;
        for action in actions {
            match action {
                Action::RunStart(id) => self.queue_command(id, |lease| &lease.start),
                Action::RunStop(id) => self.queue_command(id, |lease| &lease.stop),
                Action::LogTimeout(id) => self.about_lease(id, "command timeout"),
                Action::LogRenewed(id) => {
                    self.about_lease(id, "already open, its time starts anew")
                }
            }
        }
        self.run_commands(monotonic());
    }

    fn about_lease(&mut self, id: LeaseId, what: &str) {
        let Some(lease) = self.book.get(id) else {
            return;
        };
        let (source, text) = (lease.source, format!("{}: {what}", lease.door));
        self.lines.about(Kind::Event, source, &text);
    }

    fn queue_command(&mut self, id: LeaseId, text: impl Fn(&Lease) -> &Vec<u8>) {
        let Some(lease) = self.book.get(id) else {
            return;
        };
        let command = Command {
            lease: Some(id),
            door: lease.door.clone(),
            text: text(lease).clone(),
        };
        // A lease's command always finds room.
        let _ = self.commands.push(command);
    }

    /// Begins the commands whose turn it is: forked first, then in the journal, then let go.
    fn run_commands(&mut self, now: Millis) {
        let mut begun = Vec::new();
        while let Some(next) = self.commands.begin(now) {
            match next {
                Ok((command, process)) => {
                    if let Some(id) = command.lease {
                        self.book.command_started(id, process.group());
                        self.unsaved = true;
                    }
                    begun.push((command, process));
                }
                Err(error) => self.lines.say(
                    Kind::Error,
                    &format!("error: command fork failed! ({})", plain(&error)),
                ),
            }
        }
        self.save();
        for (command, process) in begun {
            // A child that is gone already is reaped like any other.
            let _ = process.go();
            let text = String::from_utf8_lossy(&command.text);
            self.lines.say(
                Kind::Event,
                &format!("{}: running command: {text}", command.door),
            );
        }
    }

    fn save(&mut self) {
        if !std::mem::take(&mut self.unsaved) {
            return;
        }
        let Some(state) = &self.state else { return };
        if let Err(error) = state.write(self.book.leases().iter()) {
            self.lines.say(
                Kind::Error,
                &format!(
                    "error: cannot write the journal: {error}: doors that are open when knockd is \
                     killed will stay open"
                ),
            );
        }
    }

    fn reap(&mut self) {
        let mut strangers = Vec::new();
        while let Some((command, ending)) = self.commands.reap(|process| strangers.push(process)) {
            let status = match ending {
                Ending::Exited(status) => status,
                // The shell's own convention; knockd 0.8 says 0.
                Ending::Killed(signal) => 128 + signal,
            };
            if status != 0 {
                self.lines.say(
                    Kind::Error,
                    &format!(
                        "{}: command returned non-zero status code ({status})",
                        command.door
                    ),
                );
            }
            if let Some(id) = command.lease {
                let mut actions = Vec::new();
                self.book.command_ended(id, monotonic(), &mut actions);
                self.perform(actions);
            }
        }
        for process in strangers {
            self.lines.child_ended(process);
            if let Some(new) = &mut self.replacement
                && new.listener.child_ended(process)
            {
                self.give_up_reload("the new listener has died");
            }
            if let Some(listener) = &mut self.listener
                && listener.child_ended(process)
            {
                // What it sent before it died still counts.
                self.hear_listener();
            }
        }
    }

    // ---- signals

    fn obey(&mut self, signal: Signal) {
        match signal {
            Signal::Child => self.reap(),
            Signal::Reload if self.closing.is_none() => self.reload(),
            Signal::Reapply if self.closing.is_none() => {
                self.lines.say(
                    Kind::Event,
                    &format!("applying {} open doors again", self.book.leases().len()),
                );
                let mut actions = Vec::new();
                self.book.reapply(&mut actions);
                self.perform(actions);
            }
            Signal::Shutdown(number) if self.closing.is_none() => self.close(number),
            _ => {}
        }
    }

    /// SIGHUP: the new config takes over when it is valid and its listener is ready; until then, and if it is not, all
    /// stays as it was.
    fn reload(&mut self) {
        let file = self.settings.config.display().to_string();
        self.lines
            .say(Kind::Event, &format!("re-reading config file: {file}"));
        let debug = self.settings.args.debug;
        let Keeper {
            settings, lines, ..
        } = self;
        let mut problems = Vec::new();
        let loaded = settings.load(
            &mut |line| {
                if debug {
                    lines.say(Kind::Debug, line);
                }
            },
            &mut |problem| problems.push(problem),
        );
        for problem in problems {
            self.lines.say(Kind::Error, &problem);
        }
        let (config, mut doors) = match loaded {
            Ok(loaded) => loaded,
            Err(problem) => {
                for line in problem.lines() {
                    self.lines.say(Kind::Error, line);
                }
                return self.give_up_reload(&format!("{file} is not valid"));
            }
        };
        for warning in &config.warnings {
            let text = format!("warning: {}", warning.show(&self.settings.config));
            self.lines.say(Kind::Error, &text);
        }
        // The log file opens anew even if the interface below is refused: a log rotation may be waiting for it.
        self.lines.flush();
        if let Some(path) = self.settings.log_file(&self.options) {
            self.lines.say(
                Kind::Verbose,
                &format!("closing log file: {}", path.display()),
            );
        }
        let path = self.settings.log_file(&config.options);
        self.lines
            .log
            .open(path.as_deref(), config.options.use_syslog);
        if let Some(path) = path {
            self.lines.say(
                Kind::Event,
                &format!("re-opening log file: {}", path.display()),
            );
        }
        let again =
            self.settings.interface(&config.options) == self.settings.interface(&self.options);
        match ListenerProcess::start(&self.settings, &config.options, &mut doors, again) {
            Ok(listener) => {
                self.replacement = Some(Replacement {
                    listener,
                    options: config.options,
                    doors,
                });
            }
            Err(error) => self.give_up_reload(&plain(&error)),
        }
    }

    fn give_up_reload(&mut self, why: &str) {
        self.replacement = None;
        self.lines.say(
            Kind::Error,
            &format!("error: {why}: keeping the doors as they were"),
        );
    }

    /// The new listener is ready: it and its doors take the place of the old. Attempts end with the old one, leases do not.
    fn take_over(&mut self, new: Replacement) {
        self.hear_listener();
        self.listener = Some(new.listener);
        self.restart = Restart::default();
        self.options = new.options;
        self.doors = new.doors;
        // The old listener may have used a one-time sequence since the new doors were read.
        for index in 0..self.doors.len() {
            let due = |door: &Door| {
                let next = door.list.as_ref()?.next(&mut |_| {}).ok()?;
                Some(next != door.config.pattern.sequence)
            };
            if self.doors.get(index).and_then(due) == Some(true) {
                self.next_sequence(index);
            }
        }
        self.lines.say(Kind::Event, "the new config is in force");
    }

    /// SIGTERM or SIGINT: nothing opens any more, and everything closes.
    fn close(&mut self, signal: i32) {
        let now = monotonic();
        self.closing = Some(Closing {
            signal,
            deadline: now.saturating_add(SHUTDOWN_MS),
        });
        self.listener = None;
        self.replacement = None;
        self.restart.due = None;
        if !self.book.leases().is_empty() {
            self.lines
                .say(Kind::Verbose, "waiting for child processes...");
        }
        let mut actions = Vec::new();
        let Keeper { book, commands, .. } = self;
        book.close(|id| commands.is_running(id), &mut actions);
        commands.drop_waiting(|command| command.lease.is_some_and(|id| book.get(id).is_some()));
        commands.limit(now.saturating_add(SHUTDOWN_COMMAND_MS));
        self.perform(actions);
    }

    fn finish(&mut self) {
        self.save();
        for lease in self.book.leases() {
            let text = format!(
                "error: {}: {}: its stop command did not end in time; the next start runs it again",
                lease.source, lease.door
            );
            self.lines.say(Kind::Error, &text);
        }
        self.lines.say(Kind::Verbose, "closing...");
        self.lines.say(Kind::LogOnly, "shutting down");
        self.lines.flush();
        if let Some(path) = &self.pid_file {
            // Whoever removed it before has saved us the work.
            let _ = std::fs::remove_file(path);
        }
    }
}
