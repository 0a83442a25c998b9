//! The stories into which faults are injected.

use crate::board::{Fault, Site};
use crate::lab::{CLIENT, Scene};
use crate::stage::{Killed, Stage, Start};
use std::time::Duration;

/// The outcome of one story.
pub struct Outcome {
    /// The calls that were made.
    pub sites: Vec<Site>,
    /// Whether the fault occurred.
    pub fired: bool,
    /// The daemon's message if it refused to start.
    pub refusal: Option<String>,
}

/// A name and a function. A violation is a panic.
pub type Story = (&'static str, fn(&Scene, Option<Fault>) -> Outcome);

/// All stories.
pub const STORIES: &[Story] = &[
    ("life", life),
    ("restart", restart),
    ("behind", behind),
    ("client", client),
    ("asker", asker),
];

/// Knock, open, re-apply, ban, close, reload, one-time door, shutdown with an open door.
fn life(scene: &Scene, fault: Option<Fault>) -> Outcome {
    let stage = Stage::new(scene, fault);
    let mut daemon = stage.spawn(&[], true);
    let mut refusal = None;
    let result = (|| {
        if let Start::Refused(why) = stage.await_start(&mut daemon)? {
            refusal = Some(why);
            return Ok(());
        }
        stage.open(&mut daemon)?;
        let starts = stage.notes("start");
        daemon.signal(libc::SIGUSR1);
        let what = "doors that are applied again";
        stage.await_alive(&mut daemon, Duration::from_secs(4), what, |_| {
            stage.notes("start") > starts || stage.rules(CLIENT) == 0
        })?;
        let what = "the daemon's status";
        stage.await_alive(&mut daemon, Duration::from_secs(5), what, |daemon| {
            let status = stage.ask(&["--status", "--json"], false);
            status.status.success() || stage.said(daemon, "no control socket")
        })?;
        stage.ban(&mut daemon)?;
        stage.await_closed(&mut daemon)?;
        daemon.signal(libc::SIGHUP);
        stage.await_alive(&mut daemon, Duration::from_secs(14), "a reload", |daemon| {
            stage.said(daemon, "configuration reloaded")
                || stage.said(daemon, "configuration not reloaded")
        })?;
        stage.open_once(&mut daemon)?;
        stage.open(&mut daemon)?;
        stage.end(&mut daemon)
    })();
    finish(&stage, result, &daemon.called.errors(), refusal)
}

/// A daemon was killed while one door was open and the start command of another was running. The
/// fault is injected into the next daemon.
fn restart(scene: &Scene, fault: Option<Fault>) -> Outcome {
    let stage = Stage::new(scene, fault);
    let mut first = stage.start_without_fault();
    let opened = stage
        .open_slow(&mut first)
        .and_then(|()| stage.open(&mut first));
    assert!(opened.is_ok(), "killed");
    first.signal(libc::SIGKILL);
    first.called.wait();
    let mut daemon = stage.spawn(&[], true);
    let mut refusal = None;
    let result = (|| {
        if let Start::Refused(why) = stage.await_start(&mut daemon)? {
            refusal = Some(why);
            return Ok(());
        }
        stage.await_closed(&mut daemon)?;
        stage.open(&mut daemon)?;
        stage.end(&mut daemon)
    })();
    finish(&stage, result, &daemon.called.errors(), refusal)
}

/// With `-d`, client names, and syslog.
fn behind(scene: &Scene, fault: Option<Fault>) -> Outcome {
    let stage = Stage::with_syslog(scene, fault);
    let mut daemon = stage.spawn(&["-d", "-l"], true);
    let mut refusal = None;
    let result = (|| {
        if let Start::Refused(why) = stage.await_start(&mut daemon)? {
            refusal = Some(why);
            return Ok(());
        }
        stage.open(&mut daemon)?;
        stage.await_closed(&mut daemon)?;
        daemon.signal(libc::SIGHUP);
        stage.open(&mut daemon)?;
        stage.end(&mut daemon)
    })();
    let pid_file = fault.is_none() && stage.home.path("pid").exists();
    assert!(!pid_file, "the pid file was left behind");
    finish(&stage, result, &daemon.called.errors(), refusal)
}

/// The client's own calls: it either knocks or reports why it cannot.
fn client(scene: &Scene, fault: Option<Fault>) -> Outcome {
    let stage = Stage::new(scene, fault);
    let mut daemon = stage.start_without_fault();
    let output = stage.client();
    let words = check_program(&output);
    let opens = stage.await_alive(&mut daemon, Duration::from_secs(2), "its door", |_| {
        words.is_some() || stage.rules(CLIENT) > 0
    });
    let result = opens.and_then(|()| stage.end(&mut daemon));
    finish_without_fault(&stage, result, words)
}

/// The calls of `knockd --status` and `--close`.
fn asker(scene: &Scene, fault: Option<Fault>) -> Outcome {
    let stage = Stage::new(scene, fault);
    let mut daemon = stage.start_without_fault();
    let mut words = None;
    let result = (|| {
        stage.open(&mut daemon)?;
        let output = stage.ask(&["--status"], true);
        words = check_program(&output);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            words.is_some() || text.contains(CLIENT),
            "no status: {text}"
        );
        stage.end(&mut daemon)
    })();
    finish_without_fault(&stage, result, words)
}

/// Returns the program's message unless it succeeded.
fn check_program(output: &std::process::Output) -> Option<String> {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!errors.contains("panicked"), "a panic: {errors}");
    match output.status.code() {
        Some(0) if errors.is_empty() => None,
        Some(0 | 1) if !errors.trim().is_empty() => Some(errors),
        _ => panic!("it failed without an error message: {output:?}"),
    }
}

fn finish_without_fault(
    stage: &Stage,
    result: Result<(), Killed>,
    refusal: Option<String>,
) -> Outcome {
    assert!(result.is_ok(), "killed");
    stage.check_end(false, "");
    Outcome {
        sites: stage.board.sites(),
        fired: stage.board.fired(),
        refusal,
    }
}

fn finish(
    stage: &Stage,
    result: Result<(), Killed>,
    errors: &str,
    refusal: Option<String>,
) -> Outcome {
    assert!(!errors.contains("panicked"), "a panic: {errors}");
    stage.check_end(result.is_err() || refusal.is_some(), errors);
    Outcome {
        sites: stage.board.sites(),
        fired: stage.board.fired(),
        refusal,
    }
}
