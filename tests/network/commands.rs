//! Commands that misbehave: they hang, fill their output, fail, are killed, leave processes behind,
//! are too many, or cannot be started.

use crate::Test;
use crate::lab::{
    CLIENT, Daemon, OTHER, ROUTER, Scene, children, daemon_binary, descendants, packet, signal,
    wait_for,
};
use crate::lease::{await_notes, notes};
use crate::lines;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "commands_that_hang_are_killed_with_their_group",
        commands_that_hang_are_killed_with_their_group,
    ),
    (
        "commands_that_fail_or_are_killed",
        commands_that_fail_or_are_killed,
    ),
    (
        "processes_left_by_a_command_delay_nothing",
        processes_left_by_a_command_delay_nothing,
    ),
    (
        "five_hundred_openings_in_a_second",
        five_hundred_openings_in_a_second,
    ),
    (
        "a_start_command_longer_than_the_lease",
        a_start_command_longer_than_the_lease,
    ),
    (
        "a_knock_during_the_stop_command_starts_after_it",
        a_knock_during_the_stop_command_starts_after_it,
    ),
    ("forks_that_fail_are_one_line", forks_that_fail_are_one_line),
    ("a_reload_changes_the_bounds", a_reload_changes_the_bounds),
];

/// The PIDs of this test's `sleep`, identified by its argument.
pub fn sleepers(time: &str) -> Vec<u32> {
    let right = format!("sleep\0{time}\0");
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
        line.is_ok_and(|line| line == right)
    })
    .collect()
}

/// A sleep time that no other test uses.
pub fn long_time(number: u32) -> String {
    format!("{}{number}", 1_000_000 + std::process::id())
}

fn zombies(daemon: &Daemon) -> usize {
    let is_zombie = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.starts_with(" Z"))
    };
    descendants(daemon.pid())
        .iter()
        .filter(|pid| is_zombie(pid))
        .count()
}

/// The number of open descriptors when the daemon is idle: the minimum of several samples.
fn descriptors(daemon: &Daemon) -> usize {
    let looks = (0..10).map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .expect("fd")
            .count()
    });
    looks.min().expect("ten looks")
}

/// Resident memory in kB.
fn memory(daemon: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .expect("kB")
        .parse()
        .expect("a number")
}

/// Waits until only the keeper and its listener run and every command's resources are released.
fn await_rest(daemon: &Daemon, descriptors_before: usize) {
    wait_for("rest", || (children(daemon.pid()).len() == 1).then_some(()));
    assert_eq!(zombies(daemon), 0);
    wait_for("as many descriptors as before", || {
        (descriptors(daemon) == descriptors_before).then_some(())
    });
}

fn start(scene: &Scene, options: &str, doors: &str) -> Daemon {
    scene.home.config_with_options(options, doors);
    Daemon::start(&scene.router, &scene.home, &["-i", "wan0"])
}

fn commands_that_hang_are_killed_with_their_group() {
    let scene = Scene::new();
    let [a, b, c, d] = [1, 2, 3, 4].map(long_time);
    let daemon = start(
        &scene,
        "CommandTimeout = 1",
        &format!(
            "[SSH]
             sequence = 7000:udp
             start_command = sleep {a} & (trap '' TERM HUP INT; sleep {b}) & echo start >>@HOME@/notes; sleep {c}; true
             cmd_timeout = 1
             stop_command = echo stop >>@HOME@/notes; sleep {d}; true\n"
        ),
    );
    let before = descriptors(&daemon);
    for times in 1..=2 {
        let begin = Instant::now();
        scene.knock(ROUTER, &["7000:udp"]);
        await_notes(&scene, "start", times);
        for time in [&a, &b, &c] {
            wait_for("a sleeper", || (sleepers(time).len() == 1).then_some(()));
        }
        daemon.await_count("SSH: command killed (time limit)", 2 * times - 1);
        assert!(begin.elapsed() >= Duration::from_secs(1));
        // The lease continues as if the command had ended.
        await_notes(&scene, "stop", times);
        daemon.await_count("SSH: command killed (time limit)", 2 * times);
        daemon.await_count("stop command was killed: the door may still be open", times);
        assert!(
            begin.elapsed() < Duration::from_secs(9),
            "{:?}",
            begin.elapsed()
        );
        await_rest(&daemon, before);
        for time in [&a, &b, &c, &d] {
            wait_for("no sleeper", || sleepers(time).is_empty().then_some(()));
        }
    }
    assert_eq!(daemon.count(&lines::timeout(CLIENT, "SSH")), 2);
}

fn commands_that_fail_or_are_killed() {
    let scene = Scene::new();
    let daemon = scene.daemon(
        "[Fails]
         sequence = 7000:udp
         start_command = echo start >>@HOME@/notes; exit 3
         cmd_timeout = 1
         stop_command = echo stop >>@HOME@/notes; exit 4
         [Killed]
         sequence = 8000:udp
         start_command = kill -9 $$
         cmd_timeout = 1
         stop_command = echo killed >>@HOME@/notes; kill -SEGV $$
         [Child]
         sequence = 9100:udp
         start_command = true
         cmd_timeout = 1
         stop_command = sh -c 'echo child >>@HOME@/notes; kill -9 $$'; exit $?
         [Missing]
         sequence = 9000:udp
         start_command = /nosuch/program
         cmd_timeout = 1
         stop_command = /nosuch/program\n",
    );
    let before = descriptors(&daemon);
    for times in 1..=2 {
        scene.knock(ROUTER, &["7000:udp", "8000:udp", "9000:udp", "9100:udp"]);
        await_notes(&scene, "stop", times);
        for (door, status) in [("Fails", 3), ("Fails", 4), ("Killed", 137), ("Killed", 139)] {
            let line = format!("{door}: command returned non-zero status code ({status})");
            daemon.await_count(&line, times);
        }
        daemon.await_count(
            "Missing: command returned non-zero status code (127)",
            2 * times,
        );
        // Once more: the kernel killed the shell's child, not the shell.
        daemon.await_count(
            "Child: command returned non-zero status code (137)",
            2 * times,
        );
        for door in ["Fails", "Killed", "Child", "Missing"] {
            daemon.await_count(&lines::timeout(CLIENT, door), times);
        }
        await_rest(&daemon, before);
    }
    assert!(notes(&scene, "killed") >= 2);
    assert_eq!(notes(&scene, "child"), 4);
}

/// Children that outlive the command, inside and outside of its process group, keep running.
/// Neither the lease nor the daemon's exit waits for them.
fn processes_left_by_a_command_delay_nothing() {
    let scene = Scene::new();
    let [a, b] = [5, 6].map(long_time);
    let mut daemon = start(
        &scene,
        "CommandTimeout = 2",
        &format!(
            "[SSH]
             sequence = 7000:udp
             start_command = sleep {a} & setsid sleep {b} & echo start >>@HOME@/notes
             cmd_timeout = 1
             stop_command = echo stop >>@HOME@/notes
             [Plain]
             sequence = 8000:udp
             command = sleep {a} & setsid sleep {b} & echo plain >>@HOME@/notes\n"
        ),
    );
    let before = descriptors(&daemon);
    let alive = |number: usize| {
        for time in [&a, &b] {
            wait_for("sleepers", || {
                (sleepers(time).len() == number).then_some(())
            });
        }
    };
    scene.knock(ROUTER, &["7000:udp", "8000:udp"]);
    alive(2);
    await_notes(&scene, "stop", 1);
    await_rest(&daemon, before);
    // Longer than CommandTimeout, which does not apply to processes left by a command that has
    // ended.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(daemon.count("command killed"), 0);
    alive(2);
    scene.knock(ROUTER, &["7000:udp"]);
    await_notes(&scene, "start", 2);
    alive(3);
    let begin = Instant::now();
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(notes(&scene, "stop"), 2);
    alive(3);
    for pid in [&a, &b].into_iter().flat_map(|time| sleepers(time)) {
        signal(pid, libc::SIGKILL);
    }
}

/// The maximum number that ran at once, from a file with `+` for each start and `-` for each end.
pub fn most_at_once(scene: &Scene, name: &str) -> i32 {
    let (mut now, mut most) = (0, 0);
    for line in scene.home.read(name).lines() {
        now += if line == "+" { 1 } else { -1 };
        most = most.max(now);
    }
    assert_eq!(now, 0, "{name}");
    most
}

fn five_hundred_openings_in_a_second() {
    const SOURCES: u32 = 250;
    let scene = Scene::new();
    let mut daemon = start(
        &scene,
        "MaxCommands = 4\nLogRate = 0",
        "[L]
         sequence = 7000:udp
         start_command = echo + >>@HOME@/starts; echo s %IP% >>@HOME@/notes; sleep 0.02; echo - >>@HOME@/starts
         cmd_timeout = 1
         stop_command = echo + >>@HOME@/stops; echo p %IP% >>@HOME@/notes; echo - >>@HOME@/stops
         [P]
         sequence = 8000:udp
         command = echo + >>@HOME@/plain; echo x >>@HOME@/ran; echo - >>@HOME@/plain\n",
    );
    // Memory allocated on first use is not a leak.
    scene.wire.send(&packet::udp("10.1.9.9", ROUTER, 7000));
    wait_for("the first lease", || {
        (scene.home.read("stops") == "+\n-\n").then_some(())
    });
    wait_for("rest", || (children(daemon.pid()).len() == 1).then_some(()));
    let (descriptors_before, memory_before) = (descriptors(&daemon), memory(&daemon));
    let source = |number: u32| {
        let [.., low] = number.to_be_bytes();
        format!("10.1.0.{low}")
    };
    let begin = Instant::now();
    for number in 0..SOURCES {
        scene.wire.send(&packet::udp(&source(number), ROUTER, 7000));
        scene.wire.send(&packet::udp(&source(number), ROUTER, 8000));
    }
    let sent_in = begin.elapsed();
    assert!(sent_in < Duration::from_secs(1), "{sent_in:?}");
    daemon.await_count(": L: OPEN SESAME", SOURCES as usize + 1);
    daemon.await_count(": P: OPEN SESAME", SOURCES as usize);
    let all_ran = || {
        let stops = scene.home.read("stops").lines().count() as u32;
        let ran = scene.home.read("ran").lines().count() as u32;
        (stops == 2 * (SOURCES + 1) && ran == SOURCES).then_some(())
    };
    crate::lab::wait_within(
        Duration::from_secs(60),
        Duration::from_millis(50),
        "all commands",
        all_ran,
    );
    await_rest(&daemon, descriptors_before);
    let grown = memory(&daemon).saturating_sub(memory_before);
    assert!(grown < 2048, "{grown} kB");
    assert_eq!(most_at_once(&scene, "starts"), 4);
    for name in ["stops", "plain"] {
        assert!((1..=4).contains(&most_at_once(&scene, name)), "{name}");
    }
    let mut commands: BTreeMap<String, String> = BTreeMap::new();
    for line in scene.home.read("notes").lines() {
        let (what, source) = line.split_once(' ').expect("two words");
        commands
            .entry(source.to_string())
            .or_default()
            .push_str(what);
    }
    assert_eq!(commands.len(), SOURCES as usize + 1);
    assert!(commands.values().all(|what| what == "sp"), "{commands:?}");
    assert_eq!(daemon.errors(), "");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
}

pub fn uptime(scene: &Scene, name: &str) -> f64 {
    scene.home.read(name).trim().parse().expect("uptime")
}

/// The lease starts when its start command ends, however long that takes. A knock in the meantime
/// starts nothing.
fn a_start_command_longer_than_the_lease() {
    let scene = Scene::new();
    let daemon = scene.daemon(
        "[SSH]
         sequence = 7000:udp
         start_command = echo start >>@HOME@/notes; sleep 2.5; cut -d' ' -f1 /proc/uptime >@HOME@/started; echo end >>@HOME@/notes
         cmd_timeout = 1
         stop_command = cut -d' ' -f1 /proc/uptime >@HOME@/stopped; echo stop >>@HOME@/notes\n",
    );
    scene.knock(ROUTER, &["7000:udp"]);
    await_notes(&scene, "start", 1);
    scene.knock(ROUTER, &["7000:udp"]);
    daemon.await_count(&lines::opened(CLIENT, "SSH"), 2);
    await_notes(&scene, "stop", 1);
    let lasted = uptime(&scene, "stopped") - uptime(&scene, "started");
    assert!(lasted >= 0.98, "{lasted} s");
    scene.fence(&daemon);
    assert_eq!(scene.home.read("notes"), "start\nend\nstop\n");
    assert_eq!(daemon.count(&lines::timeout(CLIENT, "SSH")), 1);
}

fn a_knock_during_the_stop_command_starts_after_it() {
    let scene = Scene::new();
    let daemon = scene.daemon(
        "[SSH]
         sequence = 7000:udp
         start_command = echo start >>@HOME@/notes
         cmd_timeout = 1
         stop_command = echo stop >>@HOME@/notes; sleep 1; echo end >>@HOME@/notes\n",
    );
    scene.knock(ROUTER, &["7000:udp"]);
    await_notes(&scene, "stop", 1);
    scene.knock(ROUTER, &["7000:udp"]);
    daemon.await_count(&lines::opened(CLIENT, "SSH"), 2);
    await_notes(&scene, "end", 2);
    assert_eq!(
        scene.home.read("notes"),
        "start\nstop\nend\nstart\nstop\nend\n"
    );
}

/// Runs as an unprivileged user who cannot fork for a while (EAGAIN). Start and stop commands run
/// in order once forking works again.
fn forks_that_fail_are_one_line() {
    let scene = Scene::new();
    scene.home.config(
        "[SSH]
         sequence = 7000:udp
         start_command = echo start%IP% >>@HOME@/notes
         cmd_timeout = 1
         stop_command = echo stop%IP% >>@HOME@/notes\n",
    );
    scene
        .router
        .run(&format!("chown nobody {}", scene.home.as_ref().display()));
    let as_nobody = ["--reuid", "65534", "--clear-groups"];
    let mut command = scene.router.command("setpriv");
    command.args(as_nobody);
    for what in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.args([what, "-all,+net_raw"]);
    }
    command
        .arg(daemon_binary())
        .args(["-v", "-i", "wan0", "-c"]);
    let daemon = Daemon::run({
        command.arg(scene.home.path("knockd.conf"));
        command
    });
    daemon.await_text(lines::LISTENING);
    let pid = daemon.pid().to_string();
    let limit = |number: &str| {
        let mut command = Command::new("setpriv");
        command.args(as_nobody).args(["prlimit", "--pid", &pid]);
        let status = command.arg(format!("--nproc={number}:")).status();
        assert!(status.expect("prlimit").success());
    };
    const FAILED: &str = "error: command fork failed!";
    for times in 1..=2 {
        // A lease is open, and a knock arrives while every fork fails.
        scene.wire.send(&packet::udp(CLIENT, ROUTER, 7000));
        await_notes(&scene, &format!("start{CLIENT}"), times);
        limit("0");
        scene.wire.send(&packet::udp(OTHER, ROUTER, 7000));
        daemon.await_count(&lines::opened(OTHER, "SSH"), times);
        daemon.await_count(&lines::timeout(CLIENT, "SSH"), times);
        // The message would be repeated within this time.
        std::thread::sleep(Duration::from_millis(2500));
        scene.fence(&daemon);
        assert_eq!(daemon.count(FAILED), times, "one line, not one a second");
        assert_eq!(notes(&scene, &format!("stop{CLIENT}")), times - 1);
        limit("4096");
        for source in [CLIENT, OTHER] {
            await_notes(&scene, &format!("stop{source}"), times);
        }
        assert_eq!(notes(&scene, &format!("start{OTHER}")), times);
    }
}

fn a_reload_changes_the_bounds() {
    let doors = "[P]\nsequence = 7000:udp\ncommand = echo x >>@HOME@/notes; sleep 3\n\
        [H]\nsequence = 8000:udp\nstart_command = echo start >>@HOME@/notes; sleep 600\nstop_command = echo stop >>@HOME@/notes\n";
    let scene = Scene::new();
    let daemon = start(&scene, "MaxCommands = 1\nCommandTimeout = 600", doors);
    scene.knock(ROUTER, &["7000:udp", "7000:udp", "7000:udp"]);
    daemon.await_count(": P: OPEN SESAME", 3);
    await_notes(&scene, "x", 1);
    scene
        .home
        .config_with_options("MaxCommands = 3\nCommandTimeout = 1", doors);
    daemon.signal(libc::SIGHUP);
    daemon.await_text(lines::IN_FORCE);
    scene.knock(ROUTER, &["8000:udp"]);
    await_notes(&scene, "start", 1);
    // Three at once: none has ended yet.
    await_notes(&scene, "x", 3);
    let running = children(daemon.pid()).len();
    assert!(running >= 4, "the listener and {running} - 1 commands");
    daemon.await_text("H: command killed (time limit)");
}
