//! While the listener starts, the keeper does everything else: it closes doors, reaps commands and
//! handles signals.

use crate::Test;
use crate::lab::{Daemon, ROUTER, Scene, children, daemon_binary, wait_for};
use crate::lease::{await_notes, notes};
use crate::lines;
use crate::restart::{kill, start};
use std::fs;

pub const TESTS: &[Test] = &[
    (
        "doors_close_one_after_another_while_the_listener_starts",
        doors_close_one_after_another_while_the_listener_starts,
    ),
    (
        "a_signal_ends_a_daemon_whose_listener_starts",
        a_signal_ends_a_daemon_whose_listener_starts,
    ),
    (
        "a_daemon_that_cannot_fork_still_closes_doors",
        a_daemon_that_cannot_fork_still_closes_doors,
    ),
    (
        "a_start_without_descriptors_closes_doors_or_says_that_they_stay_open",
        a_start_without_descriptors_closes_doors_or_says_that_they_stay_open,
    ),
];

/// Three one-step doors.
fn doors(seconds: u32) -> String {
    let door = |port| {
        format!(
            "[door{port}]
             sequence = {port}:udp
             start_command = echo start >>@HOME@/notes
             cmd_timeout = {seconds}
             stop_command = echo stop >>@HOME@/notes\n"
        )
    };
    (7001..=7003).map(door).collect()
}

/// Opens the three doors and kills the daemon.
fn leave_doors_open(scene: &Scene, seconds: u32) {
    let daemon = scene.daemon_with_options("MaxCommands = 1\n", &doors(seconds));
    scene.knock(ROUTER, &["7001:udp", "7002:udp", "7003:udp"]);
    await_notes(scene, "start", 3);
    wait_for("open leases in the journal", || {
        let journal = fs::read_to_string(scene.home.instance().join("journal")).unwrap();
        (journal.matches(" open ").count() == 3).then_some(())
    });
    kill(daemon);
}

/// A daemon whose listener needs `seconds` longer to start: only the listener calls chroot(2).
fn start_slowly(scene: &Scene, seconds: u32) -> Daemon {
    let mut strace = scene.router.command("strace");
    strace
        .args(["-D", "-f"])
        .args(["-o", "/dev/null", "-e", "trace=chroot"])
        .args(["-e", &format!("inject=chroot:delay_enter={seconds}s")])
        .arg(daemon_binary())
        .args(["-v", "-i", "wan0", "-c"])
        .arg(scene.home.path("knockd.conf"));
    Daemon::run(strace)
}

fn doors_close_one_after_another_while_the_listener_starts() {
    let scene = Scene::new();
    leave_doors_open(&scene, 2);
    let daemon = start_slowly(&scene, 6);
    daemon.await_text(lines::LISTENING);
    assert_eq!(notes(&scene, "stop"), 3, "{:?}", daemon.output());
    assert_eq!(daemon.count("command killed"), 0);
}

fn a_signal_ends_a_daemon_whose_listener_starts() {
    let scene = Scene::new();
    leave_doors_open(&scene, 600);
    let mut daemon = start_slowly(&scene, 8);
    wait_for("the listener", || {
        (!children(daemon.pid()).is_empty()).then_some(())
    });
    // Only now: the start itself waits for this.
    daemon.await_text("taken over");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(notes(&scene, "stop"), 3);
    assert_eq!(daemon.count(lines::LISTENING), 0);
    // Nothing is left for the next daemon.
    assert_eq!(start(&scene).count("taken over"), 0);
}

fn a_daemon_that_cannot_fork_still_closes_doors() {
    let scene = Scene::new();
    leave_doors_open(&scene, 600);
    let mut strace = scene.router.command("strace");
    strace
        .args(["-D", "-o", "/dev/null", "-e", "trace=fork,clone"])
        .args(["-e", "inject=fork,clone:error=EAGAIN:when=1"])
        .arg(daemon_binary())
        .args(["-d", "-i", "wan0", "-c"])
        .arg(scene.home.path("knockd.conf"));
    let mut daemon = Daemon::run(strace);
    assert_eq!(daemon.wait().code(), Some(1));
    daemon.await_text("cannot daemonize");
    assert_eq!(notes(&scene, "stop"), 3);
}

/// From just enough descriptors to read the config (4) up to enough to start a listener.
fn a_start_without_descriptors_closes_doors_or_says_that_they_stay_open() {
    let (mut said, mut closed) = (0, 0);
    for limit in 4.. {
        let scene = Scene::new();
        leave_doors_open(&scene, 600);
        let mut shell = scene.router.command("sh");
        shell
            .args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"])
            .arg(daemon_binary())
            .args(["-v", "-i", "wan0", "-c"])
            .arg(scene.home.path("knockd.conf"));
        let mut daemon = Daemon::run(shell);
        let has_ended = wait_for("an end or a listener", || match daemon.ended() {
            Some(_) => Some(true),
            None => (daemon.count(lines::LISTENING) > 0).then_some(false),
        });
        if !has_ended {
            break;
        }
        let status = daemon.wait();
        let errors = daemon.errors();
        assert_eq!(status.code(), Some(1), "{limit}: {errors}");
        match notes(&scene, "stop") {
            0 => said += usize::from(errors.contains("stay open")),
            3 => closed += 1,
            stopped => panic!("{limit}: {stopped} of 3 closed: {errors}"),
        }
        assert_eq!(said + closed, limit - 3, "{limit}: {errors}");
    }
    assert!(said > 0 && closed > 0, "said {said}, closed {closed}");
}
