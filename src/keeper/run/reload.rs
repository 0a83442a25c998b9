//! Reload: reads and checks a new config, and activates it once its listener is ready.
#![forbid(unsafe_code)]

use super::admission::Admission;
use super::{Keeper, NewConfig, StartingListener};
use crate::config::Options;
use crate::keeper::listener_process::{ListenerProcess, Restart};
use crate::keeper::log::LogKind;
use crate::keeper::secure_open;
use crate::keeper::state::{StateDir, StateDirError};
use crate::sys::file::{self, FileStatus};
use std::mem::swap;
use std::path::PathBuf;

impl Keeper {
    /// Handles SIGHUP. The new config takes effect when it is valid and its listener is ready.
    /// Until then, or if it is not valid, everything stays as it was.
    pub(super) fn reload(&mut self) {
        let file = self.settings.config.to_string_lossy().into_owned();
        self.log.log(
            LogKind::Event,
            &format_args!("re-reading config file: {file}"),
        );
        let debug = self.settings.args.debug;
        let Keeper { settings, log, .. } = self;
        let mut problems = Vec::new();
        // Reading a FIFO or a terminal could block the keeper.
        let waits = |found: FileStatus| !found.is_file() && found.kind() != libc::S_IFDIR;
        let loaded = match file::find(&settings.config_path()).is_ok_and(waits) {
            true => Err([&file, ": not a file"].concat()),
            false => settings.load(
                &mut |line| {
                    if debug {
                        log.log(LogKind::Debug, &line);
                    }
                },
                &mut |problem| problems.push(problem),
            ),
        };
        for problem in problems {
            self.log.log(LogKind::Error, &problem);
        }
        let (config, mut doors) = match loaded {
            Ok(loaded) => loaded,
            Err(problem) => {
                self.log.log(LogKind::Error, &problem);
                self.reopen_log(self.settings.log_file(&self.options), false);
                return self.abort_reload(&format!("{file} is not valid"));
            }
        };
        for warning in &config.warnings {
            self.log.log(
                LogKind::Error,
                &format_args!("warning: {}", warning.show(&self.settings.config)),
            );
        }
        // Even if the interface is refused below: log rotation may be waiting for it.
        let path = self.settings.log_file(&config.options);
        self.reopen_log(path, config.options.use_syslog);
        // Compares canonical paths: `/x`, `/x/` and a link to it are one directory.
        let state_dir = |options: &Options| {
            let directory = secure_open::open_parent(&self.settings.state_dir(options)).ok();
            directory.map(|directory| directory.path.into_os_string())
        };
        let mut state = None;
        if state_dir(&config.options) != state_dir(&self.options) {
            let path = self.settings.state_dir(&config.options);
            let why = match StateDir::try_lock(&path, &self.settings.instance) {
                Ok(taken) => {
                    state = Some(taken);
                    None
                }
                Err(StateDirError::Io(why)) => Some(why),
                Err(StateDirError::Locked(holder)) => {
                    Some(format!("process {} has it", holder.process))
                }
            };
            if let Some(why) = why {
                self.log.log(
                    LogKind::Error,
                    &format_args!("warning: StateDir: {why}: keeping the old one"),
                );
            }
        }
        if let Some(given) = &self.settings.args.interface
            && config.options.interface != self.options.interface
        {
            self.log.log(
                LogKind::Error,
                &format_args!("warning: new Interface ignored: knockd was started with -i {given}"),
            );
        }
        let same_interface =
            self.settings.interface(&config.options) == self.settings.interface(&self.options);
        match self.spawn_listener(
            &config.options,
            &mut doors,
            same_interface,
            self.listener.as_ref(),
        ) {
            Ok(listener) => {
                let new = NewConfig {
                    options: config.options,
                    doors,
                    state,
                };
                self.starting = Some(StartingListener::new(listener, Some(Box::new(new))));
            }
            Err(error) => self.abort_reload(&error),
        }
    }

    fn reopen_log(&mut self, path: Option<PathBuf>, syslog: bool) {
        self.log.flush();
        if let Some(old) = self.settings.log_file(&self.options) {
            self.log.log(
                LogKind::Verbose,
                &format_args!("closing log file: {}", old.to_string_lossy()),
            );
        }
        self.log.sinks.open(path.as_deref(), syslog);
        if let Some(path) = path {
            self.log.log(
                LogKind::Event,
                &format_args!("re-opening log file: {}", path.to_string_lossy()),
            );
        }
    }

    pub(super) fn abort_reload(&mut self, why: &str) {
        self.log.log(
            LogKind::Error,
            &format_args!("error: {why}: configuration not reloaded"),
        );
    }

    /// Switches to that state directory.
    fn move_state_dir(&mut self, state: StateDir) {
        self.mark_down();
        let old = self.state.replace(state);
        // Writes the journal there first, so that there is one at every moment.
        self.enter_state_dir();
        if let Some(old) = old {
            old.abandon();
        }
        // Both may be one directory that is mounted twice.
        if let Some(state) = &self.state {
            state.set_running(true);
        }
        self.book.journal_dirty = true;
        self.save();
    }

    /// Replaces the listener and the doors by the new ones. The old listener's attempts end; leases
    /// stay.
    pub(super) fn activate_config(&mut self, listener: ListenerProcess, mut new: Box<NewConfig>) {
        self.end_listener();
        listener.start_capture();
        self.listener = Some(listener);
        self.restart = Restart::default();
        if new.state.is_none() {
            swap(&mut new.options.state_dir, &mut self.options.state_dir);
        }
        swap(&mut new.options, &mut self.options);
        // The old doors hold the counts.
        self.log_left_out();
        self.admission = Admission::new(self.options.log_rate);
        swap(&mut new.doors, &mut self.doors);
        // The old listener may have used a one-time sequence since the new doors were read.
        for index in 0..self.doors.len() {
            self.next_sequence(index);
        }
        if let Some(state) = new.state {
            self.move_state_dir(state);
        }
        self.end_unwanted_bans();
        self.log.log(LogKind::Event, &"configuration reloaded");
    }
}
