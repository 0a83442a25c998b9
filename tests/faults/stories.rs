//! The stories that the faults happen in.

use crate::lab::{CLIENT, Scene};
use crate::stage::{Killed, Stage, Start};
use knockd_rs::sys::faults::{Fault, Site};
use std::time::Duration;

/// What came of one.
pub struct Outcome {
    /// The calls that were made.
    pub sites: Vec<Site>,
    /// The fault has happened.
    pub fired: bool,
    /// What the daemon said when it refused to start.
    pub refusal: Option<String>,
}

/// A name and what to do; a violation is a panic.
pub type Story = (&'static str, fn(&Scene, Option<Fault>) -> Outcome);

/// All of them.
pub const STORIES: &[Story] = &[("life", life), ("restart", restart)];

/// Knock, open, apply again, close, reload, one-time door, shut down with an open door.
fn life(scene: &Scene, fault: Option<Fault>) -> Outcome {
    let stage = Stage::new(scene, fault);
    let mut daemon = stage.spawn(&[], true);
    let mut refusal = None;
    let told = (|| {
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
        stage.await_closed(&mut daemon)?;
        daemon.signal(libc::SIGHUP);
        stage.await_alive(&mut daemon, Duration::from_secs(14), "a reload", |daemon| {
            stage.said(daemon, "the new config is in force")
                || stage.said(daemon, "keeping the doors as they were")
        })?;
        stage.open_once(&mut daemon)?;
        stage.open(&mut daemon)?;
        stage.end(&mut daemon)
    })();
    finish(&stage, told, &daemon.errors(), refusal)
}

/// A daemon was killed while one door was open and another one's start command ran; the next has the fault.
fn restart(scene: &Scene, fault: Option<Fault>) -> Outcome {
    let stage = Stage::new(scene, fault);
    let mut first = stage.start_sound();
    let opened = stage
        .open_slow(&mut first)
        .and_then(|()| stage.open(&mut first));
    assert!(opened.is_ok(), "killed");
    first.signal(libc::SIGKILL);
    first.wait();
    let mut daemon = stage.spawn(&[], true);
    let mut refusal = None;
    let told = (|| {
        if let Start::Refused(why) = stage.await_start(&mut daemon)? {
            refusal = Some(why);
            return Ok(());
        }
        stage.await_closed(&mut daemon)?;
        stage.open(&mut daemon)?;
        stage.end(&mut daemon)
    })();
    finish(&stage, told, &daemon.errors(), refusal)
}

fn finish(
    stage: &Stage,
    told: Result<(), Killed>,
    errors: &str,
    refusal: Option<String>,
) -> Outcome {
    assert!(!errors.contains("panicked"), "a panic: {errors}");
    stage.check_end(told.is_err() || refusal.is_some(), errors);
    Outcome {
        sites: stage.board.sites(),
        fired: stage.board.fired(),
        refusal,
    }
}
