//! Startup: everything that can fail does so here, while stderr is still the user's terminal.
#![forbid(unsafe_code)]

use super::log::LogKind;
use super::run::Keeper;
use super::state::{StateDir, StateDirError};
use super::{Settings, config_file, secure_open};
use crate::cli::{self, eprint_line, fail, print};
use crate::config;
use crate::limits::{LISTENER_START_MS, SHUTDOWN_MS};
use crate::sys::clock::monotonic;
use crate::sys::daemon::ParentSignal;
use crate::sys::error::{Error, Result};
use crate::sys::file::{self, read_all, write_all};
use crate::sys::program::{self, ExitCode};
use crate::sys::{daemon, poll};
use crate::util::time::Millis;
use std::fs::Permissions;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Runs the loop until the daemon exits.
fn run(keeper: &mut Keeper) -> ! {
    program::exit(keeper.run())
}

/// Starts the daemon. Never returns, so that nothing needs to be dropped.
pub fn start(settings: Settings) -> ! {
    let debug = settings.args.debug;
    let mut trace = |line: &str| {
        if debug {
            print(&[line, "\n"].concat());
        }
    };
    let loaded = settings.load(&mut trace, &mut |problem| eprint_line(&problem));
    // Only now, because an inherited descriptor may be the config, as with a shell's `-c
    // <(program)`.
    daemon::close_inherited();
    let (config, doors) = match loaded {
        Ok(loaded) => loaded,
        Err(problem) => {
            // As knockd 0.8 does. It helps users who mistyped a file name.
            print(cli::KNOCKD.usage);
            close_leftover_doors(settings, problem);
        }
    };
    for warning in &config.warnings {
        eprint_line(&format!("warning: {}", warning.show(&settings.config)));
    }

    let starting = match settings.args.daemon {
        true => match daemon::daemonize() {
            Ok(starting) => Some(starting),
            Err(error) => close_leftover_doors(settings, cannot_daemonize(error)),
        },
        false => None,
    };
    let keeper = Keeper::new(settings, config.options, doors).unwrap_or_else(|why| fail(&why));
    let Keeper {
        settings,
        options,
        log,
        ..
    } = &mut *keeper;
    log.sinks
        .open(settings.log_file(options).as_deref(), options.use_syslog);
    let interface = settings.interface(options).to_string();
    let pid_path = settings.pid_file(options);

    match lock_state_dir(keeper) {
        Ok(state) => {
            keeper.take_over_state(state);
            keeper.take_over_others();
        }
        Err(StateDirError::Locked(holder)) => {
            keeper.log.flush();
            let runs = format!(
                "knockd already runs with {}: process {}",
                keeper.settings.config.to_string_lossy(),
                holder.process
            );
            let Some(starting) = starting else {
                fail(&format!(
                    "{runs}; stop it first, or let it listen on more interfaces (-i eth0,ppp0)"
                ));
            };
            // Startup scripts may run twice.
            eprint_line(&runs);
            if let Err(error) = starting.done() {
                fail(&cannot_daemonize(error));
            }
            program::exit(ExitCode::SUCCESS);
        }
        Err(StateDirError::Io(problem)) => {
            keeper.log.log(
                LogKind::Error,
                &format_args!(
                    "warning: cannot use StateDir: {problem}: doors will stay open if knockd is \
                     killed, --status will not work, and the listener can see the file system"
                ),
            );
        }
    }
    keeper.end_unwanted_bans();
    let listens = match keeper
        .spawn_own_listener()
        .and_then(|listener| keeper.await_listener(listener))
    {
        Ok(listens) => listens,
        Err(problem) => {
            // The parent exits now and does not wait until everything is closed.
            drop(starting);
            close_all(keeper, format!("could not open {interface}: {problem}"))
        }
    };
    if keeper.is_closing() {
        drop(starting);
        run(keeper);
    }
    keeper.mark_up();
    if starting.is_some() {
        match write_pid(&pid_path) {
            Ok(is_file) => keeper.pid_file = is_file.then_some(pid_path),
            Err(error) => {
                let path = pid_path.to_string_lossy();
                keeper.log.log(
                    LogKind::Error,
                    &format_args!("could not create pid file {path}: {}", error),
                );
            }
        }
    }
    let log = &mut keeper.log;
    if listens {
        log.log(
            LogKind::Verbose,
            &format_args!("listening on {interface}..."),
        );
        log.log(
            LogKind::LogOnly,
            &format_args!("starting up, listening on {interface}"),
        );
    } else {
        // With -d, too, while stderr is still the terminal.
        log.log(
            LogKind::Error,
            &format_args!("starting up, waiting for {interface}"),
        );
    }
    log.sinks.write_out();
    if let Some(Err(error)) = starting.map(ParentSignal::done) {
        close_all(keeper, cannot_daemonize(error));
    }
    keeper.release_listener();
    run(keeper)
}

/// Exits because of a failure before the state directory was locked. Still closes doors that a dead
/// daemon left open.
fn close_leftover_doors(settings: Settings, problem: String) -> ! {
    let text = config_file::read(&settings.config_path()).unwrap_or_default();
    let options = config::salvage_options(&text);
    let state_dir = settings.state_dir(&options);
    let keeper = Keeper::new(settings, options, Vec::new()).unwrap_or_else(|why| fail(&why));
    match StateDir::lock_abandoned(&state_dir, &keeper.settings.instance) {
        Ok(Some(state)) => keeper.take_over_state(state),
        Ok(None) => {}
        Err(fault) => {
            keeper.log.flush();
            fail(&format!(
                "{problem}\ncannot use StateDir: {fault}: open doors stay open"
            ));
        }
    }
    keeper.take_over_others();
    close_all(keeper, problem)
}

/// Exits because of a failure. Opens nothing, but closes all open doors first.
fn close_all(keeper: &mut Keeper, problem: String) -> ! {
    if keeper.has_no_leases() {
        keeper.log.flush();
        fail(&problem);
    }
    keeper.log.log(LogKind::Error, &problem);
    keeper.close(1);
    run(keeper)
}

fn cannot_daemonize(error: Error) -> String {
    format!("cannot daemonize: {error}")
}

/// Locks the state directory. Waits for a daemon that is still starting or already stopping:
/// `killall knockd; knockd -d` must leave a daemon running.
fn lock_state_dir(keeper: &Keeper) -> Result<StateDir, StateDirError> {
    const PAUSE_MS: Millis = 20;
    let settings = &keeper.settings;
    let directory = settings.state_dir(&keeper.options);
    let deadline = monotonic() + SHUTDOWN_MS + LISTENER_START_MS;
    loop {
        match StateDir::lock(&directory, &settings.instance) {
            Err(StateDirError::Locked(holder))
                if !holder.is_up && monotonic() < deadline && !keeper.has_shutdown_signal() =>
            {
                poll::pause(PAUSE_MS);
            }
            taken => return taken,
        }
    }
}

/// Writes the PID file, readable for monitors. Returns whether it is a regular file, to be removed
/// at exit; /dev/null must not be removed.
fn write_pid(path: &Path) -> Result<bool> {
    let file = secure_open::open(path, libc::O_CREAT | libc::O_WRONLY, 0o644)?;
    let is_file = file::find_open(file.as_fd())?.is_file();
    if is_file {
        file.set_len(0)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    let written = write_all(file.as_fd(), pid_line().as_bytes());
    if written.is_err() && is_file {
        // An empty PID file is useless.
        let _ = file::remove(path);
    }
    written.map(|()| is_file)
}

/// Returns the content of the PID file.
fn pid_line() -> String {
    format!("{}\n", std::process::id())
}

/// Removes the PID file unless another daemon has written its own PID there.
pub(super) fn remove_pid(path: &Path) {
    let line = pid_line();
    let read = secure_open::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0)
        .and_then(|file| read_all(file.as_fd(), line.len() + 1));
    if read.is_ok_and(|read| read == line.as_bytes()) {
        let _ = file::remove(path);
    }
}
