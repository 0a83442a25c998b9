//! Signals, reloads, and an idle daemon.

use crate::Test;
use crate::lab::{
    CLIENT, DEADLINE, Daemon, ROUTER, Scene, descendants, knock_until, ran_at, wait_for,
};
use crate::lines;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("exit_codes_of_signals", exit_codes_of_signals),
    ("reload_takes_the_new_doors", reload_takes_the_new_doors),
    (
        "reload_of_a_bad_config_keeps_the_old_doors",
        reload_of_a_bad_config_keeps_the_old_doors,
    ),
    ("an_idle_daemon_never_runs", an_idle_daemon_never_runs),
    (
        "commands_inherit_no_descriptors",
        commands_inherit_no_descriptors,
    ),
];

const OLD: &str = "[Old]\nsequence = 7000,8000\ntcpflags = syn\n";

fn exit_codes_of_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let scene = Scene::new();
        let mut daemon = scene.daemon(OLD);
        scene.fence(&daemon);
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(signal));
    }
}

fn reload_takes_the_new_doors() {
    let scene = Scene::new();
    let daemon = scene.daemon(OLD);
    scene.knock(ROUTER, &["7000", "8000"]);
    daemon.await_text(&lines::opened(CLIENT, "Old"));
    scene
        .home
        .config("[New]\nsequence = 4000,5000\ntcpflags = syn\n");
    daemon.signal(libc::SIGHUP);
    daemon.await_text(lines::RELOADING);
    knock_until(&daemon, &lines::opened(CLIENT, "New"), || {
        scene.knock(ROUTER, &["4000", "5000"])
    });
    scene.knock(ROUTER, &["7000", "8000"]);
    scene.fence(&daemon);
    assert_eq!(
        daemon.count(&lines::opened(CLIENT, "Old")),
        1,
        "the old door is gone"
    );
}

fn reload_of_a_bad_config_keeps_the_old_doors() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(OLD);
    scene
        .home
        .write("knockd.conf", "[options]\n\n[New]\nsequence = 4000,70000\n");
    daemon.signal(libc::SIGHUP);
    daemon.await_text(&lines::config_error(4));
    scene.knock(ROUTER, &["7000", "8000"]);
    daemon.await_text(&lines::opened(CLIENT, "Old"));
    scene.fence(&daemon);
    // The same if the file is missing.
    fs::remove_file(scene.home.path("knockd.conf")).expect("remove");
    daemon.signal(libc::SIGHUP);
    daemon.await_text("No such file or directory");
    scene.knock(ROUTER, &["7000", "8000"]);
    daemon.await_count(&lines::opened(CLIENT, "Old"), 2);
    // The same if the file is a FIFO that has no writer.
    let made = Command::new("mkfifo")
        .arg(scene.home.path("knockd.conf"))
        .status();
    assert!(made.expect("mkfifo").success());
    daemon.signal(libc::SIGHUP);
    daemon.await_text("not a file");
    scene.knock(ROUTER, &["7000", "8000"]);
    daemon.await_count(&lines::opened(CLIENT, "Old"), 3);
    assert!(daemon.is_alive());
}

/// How long and how often each of its processes has run, see [`ran_at`].
pub fn ran(daemon: &Daemon) -> String {
    let mut pids = descendants(daemon.pid());
    pids.push(daemon.pid());
    let text = |pid: &u32| format!("{pid}: {}; ", ran_at(*pid));
    pids.iter().map(text).collect()
}

/// Waits until it has not run for a second and returns the last value of [`ran`].
pub fn settled(daemon: &Daemon) -> String {
    let (mut last, mut since, start) = (ran(daemon), Instant::now(), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        assert!(start.elapsed() < DEADLINE, "it does not come to rest");
        std::thread::sleep(Duration::from_millis(50));
        let now = ran(daemon);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

fn an_idle_daemon_never_runs() {
    let scene = Scene::new();
    let daemon = scene.daemon(OLD);
    let last = settled(&daemon);
    // Packets that no door wants do not wake it either.
    scene.knock(ROUTER, &["1234", "4321:udp"]);
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(ran(&daemon), last);
    scene.fence(&daemon);
    assert_ne!(ran(&daemon), last, "this test must see when it runs");
}

fn commands_inherit_no_descriptors() {
    let scene = Scene::new();
    // A program that does not open anything itself.
    let daemon = scene.daemon(
        "[Start]
         sequence = 1:udp
         command = sleep 7654321
         [Stop]
         sequence = 2:udp
         command = true
         cmd_timeout = 1
         stop_command = sleep 7654322\n",
    );
    scene.knock(ROUTER, &["1:udp", "2:udp"]);
    for what in ["sleep7654321", "sleep7654322"] {
        let command = wait_for(what, || {
            descendants(daemon.pid()).into_iter().find(|pid| {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
                line.unwrap_or_default().replace('\0', "") == what
            })
        });
        let mut open: Vec<u32> = fs::read_dir(format!("/proc/{command}/fd"))
            .expect("fd")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_str()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        open.sort_unstable();
        assert_eq!(open, [0, 1, 2], "descriptors of {what}");
    }
}
