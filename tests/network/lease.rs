//! An open door closes, whatever happens to the daemon in the meantime.

use crate::Test;
use crate::lab::{
    CLIENT, CLIENT6, Daemon, OTHER, ROUTER, ROUTER6, Scene, knock_until, packet, wait_for,
};
use crate::lines;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("term_runs_the_stop_command", term_runs_the_stop_command),
    ("term_runs_every_stop_command", term_runs_every_stop_command),
    ("a_lease_outlives_a_reload", a_lease_outlives_a_reload),
    ("a_lease_outlives_a_kill", a_lease_outlives_a_kill),
    (
        "a_lease_that_expired_while_no_daemon_ran",
        a_lease_that_expired_while_no_daemon_ran,
    ),
    (
        "usr1_puts_the_rules_back_once",
        usr1_puts_the_rules_back_once,
    ),
    ("usr1_fifty_times_at_once", usr1_fifty_times_at_once),
    ("usr1_from_fifty_hooks", usr1_from_fifty_hooks),
    ("knocking_again_renews", knocking_again_renews),
    (
        "knocking_again_after_a_start_that_failed",
        knocking_again_after_a_start_that_failed,
    ),
    (
        "a_killed_stop_command_runs_again",
        a_killed_stop_command_runs_again,
    ),
    ("knocking_again_stacks", knocking_again_stacks),
    (
        "equal_stop_commands_run_one_after_another",
        equal_stop_commands_run_one_after_another,
    ),
];

/// A door that opens port 22 for `seconds` and notes each command.
pub fn door(seconds: u32) -> String {
    format!(
        "[SSH]
         sequence = 7000,8000:udp,9000
         tcpflags = syn
         cmd_timeout = {seconds}
         start_command = iptables -w -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo start >> @HOME@/notes
         stop_command = iptables -w -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo stop >> @HOME@/notes
         start_command_6 = ip6tables -w -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo start6 >> @HOME@/notes
         stop_command_6 = ip6tables -w -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo stop6 >> @HOME@/notes\n"
    )
}

pub const STEPS: &[&str] = &["7000", "8000:udp", "9000"];

/// Knocks and waits until the start command has ended.
pub fn open(scene: &Scene, daemon: &Daemon) {
    let times = notes(scene, "start");
    scene.knock(ROUTER, STEPS);
    daemon.await_text(&lines::opened(CLIENT, "SSH"));
    await_notes(scene, "start", times + 1);
    assert_eq!(rules(scene), 1);
}

/// The number of the router's rules for port 22.
pub fn rules(scene: &Scene) -> usize {
    scene
        .rules()
        .lines()
        .filter(|line| line.contains("--dport 22"))
        .count()
}

pub fn notes(scene: &Scene, word: &str) -> usize {
    scene
        .home
        .read("notes")
        .lines()
        .filter(|&line| line == word)
        .count()
}

pub fn await_notes(scene: &Scene, word: &str, times: usize) {
    wait_for(&format!("{times} {word}"), || {
        (notes(scene, word) == times).then_some(())
    });
}

fn term_runs_the_stop_command() {
    for (signal, code) in [(libc::SIGTERM, 15), (libc::SIGINT, 2), (libc::SIGQUIT, 3)] {
        let scene = Scene::new();
        let mut daemon = scene.daemon(&door(600));
        open(&scene, &daemon);
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(code));
        assert_eq!((notes(&scene, "start"), notes(&scene, "stop")), (1, 1));
        assert_eq!(rules(&scene), 0);
    }
}

fn term_runs_every_stop_command() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    scene.knock(ROUTER6, STEPS);
    daemon.await_text(&lines::opened(CLIENT6, "SSH"));
    await_notes(&scene, "start6", 1);
    assert_eq!(rules(&scene), 2);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!((notes(&scene, "stop"), notes(&scene, "stop6")), (1, 1));
    assert_eq!(rules(&scene), 0);
}

fn a_lease_outlives_a_reload() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(4));
    open(&scene, &daemon);
    // Even if its door has been removed from the config.
    scene
        .home
        .config("[New]\nsequence = 4000,5000\ntcpflags = syn\n");
    daemon.signal(libc::SIGHUP);
    daemon.await_text(lines::RELOADING);
    knock_until(&daemon, &lines::opened(CLIENT, "New"), || {
        scene.knock(ROUTER, &["4000", "5000"])
    });
    assert_eq!(rules(&scene), 1, "the reload must not close it");
    await_notes(&scene, "stop", 1);
    assert_eq!(rules(&scene), 0);
    assert!(daemon.is_alive());
}

fn a_lease_outlives_a_kill() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(3));
    open(&scene, &daemon);
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    drop(daemon);
    assert_eq!(rules(&scene), 1);
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    daemon.await_text(&lines::timeout(CLIENT, "SSH"));
    await_notes(&scene, "stop", 1);
    wait_for("a closed door", || (rules(&scene) == 0).then_some(()));
    // The door works as before.
    open(&scene, &daemon);
}

fn a_lease_that_expired_while_no_daemon_ran() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(2));
    open(&scene, &daemon);
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    drop(daemon);
    // Let the lease expire.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(rules(&scene), 1, "no daemon was running to close it");
    let _daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    wait_for("a closed door", || (rules(&scene) == 0).then_some(()));
    await_notes(&scene, "stop", 1);
}

fn usr1_puts_the_rules_back_once() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(6));
    open(&scene, &daemon);
    for times in 2..=3 {
        scene.router.run("iptables -w -F INPUT");
        assert_eq!(rules(&scene), 0);
        daemon.signal(libc::SIGUSR1);
        await_notes(&scene, "start", times);
        assert_eq!(rules(&scene), 1);
    }
    // The same if nothing was flushed.
    daemon.signal(libc::SIGUSR1);
    await_notes(&scene, "start", 4);
    assert_eq!(rules(&scene), 1);
    daemon.await_text(&lines::timeout(CLIENT, "SSH"));
    wait_for("a closed door", || (rules(&scene) == 0).then_some(()));
}

fn knocking_again_renews() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(3));
    open(&scene, &daemon);
    // Half of the lease.
    std::thread::sleep(Duration::from_millis(1500));
    let again = Instant::now();
    scene.knock(ROUTER, STEPS);
    daemon.await_count(&lines::opened(CLIENT, "SSH"), 2);
    assert_eq!(rules(&scene), 1, "a second rule would outlive the stop");
    await_notes(&scene, "stop", 1);
    let lasted = again.elapsed();
    assert!(
        lasted >= Duration::from_secs(3),
        "closed {lasted:?} after the second knock"
    );
    assert_eq!(rules(&scene), 0);
    scene.fence(&daemon);
    assert_eq!((notes(&scene, "start"), notes(&scene, "stop")), (1, 1));
    assert_eq!(daemon.count(&lines::timeout(CLIENT, "SSH")), 1);
}

fn knocking_again_after_a_start_that_failed() {
    let scene = Scene::new();
    // Fails once, like iptables when another process holds its lock.
    let failing = door(600).replace(
        "start_command = iptables",
        "start_command = [ -e @HOME@/tried ] || { : > @HOME@/tried; exit 4; }; iptables",
    );
    let daemon = scene.daemon(&failing);
    scene.knock(ROUTER, STEPS);
    daemon.await_text("SSH: command returned non-zero status code (4)");
    assert_eq!((notes(&scene, "start"), rules(&scene)), (0, 0));
    open(&scene, &daemon);
    // A command that has succeeded is not run again; only its timer restarts.
    scene.knock(ROUTER, STEPS);
    daemon.await_text("already open, timer restarted");
    scene.fence(&daemon);
    assert_eq!((notes(&scene, "start"), rules(&scene)), (1, 1));
}

fn a_killed_stop_command_runs_again() {
    let scene = Scene::new();
    let killed = door(1).replace(
        "stop_command = iptables",
        "stop_command = [ -e @HOME@/killed ] || { : > @HOME@/killed; kill -9 $$; }; iptables",
    );
    let daemon = scene.daemon(&killed);
    open(&scene, &daemon);
    daemon.await_text("SSH: command returned non-zero status code (137)");
    await_notes(&scene, "stop", 1);
    assert_eq!(rules(&scene), 0);
}

/// A door whose start command notes if there is a second rule. Both commands take `take` seconds.
fn door_that_counts_rules(take: &str) -> String {
    format!(
        "[SSH]
         sequence = 7000,8000:udp,9000
         tcpflags = syn
         cmd_timeout = 600
         start_command = echo begin >>@HOME@/notes; sleep {take}; iptables -w -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; test $(iptables -w -S INPUT | grep -c %IP%/32) -le 1 || echo two >>@HOME@/notes; echo start%IP% >>@HOME@/notes
         stop_command = sleep {take}; iptables -w -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo stop >>@HOME@/notes\n"
    )
}

fn open_for_two(scene: &Scene, daemon: &Daemon) {
    for source in [CLIENT, OTHER] {
        for packet in [
            packet::syn(source, ROUTER, 7000, 1),
            packet::udp(source, ROUTER, 8000),
            packet::syn(source, ROUTER, 9000, 1),
        ] {
            scene.wire.send(&packet);
        }
        daemon.await_text(&lines::opened(source, "SSH"));
        await_notes(scene, &format!("start{source}"), 1);
    }
    assert_eq!(rules(scene), 2);
}

/// Each lease is re-applied once for all signals that arrive during its stop command, whether or
/// not its rule was flushed, and once for all that arrive during its start command, which may have
/// run too early.
fn usr1_fifty_times_at_once() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door_that_counts_rules("1"));
    open_for_two(&scene, &daemon);
    let await_starts = |times: usize| {
        for source in [CLIENT, OTHER] {
            await_notes(&scene, &format!("start{source}"), times);
        }
        wait_for("two rules", || (rules(&scene) == 2).then_some(()));
    };
    for (times, flush) in [(2, "iptables -w -F INPUT"), (3, "true")] {
        scene.router.run(flush);
        (0..50).for_each(|_| daemon.signal(libc::SIGUSR1));
        await_starts(times);
        assert_eq!(notes(&scene, "stop"), 2 * (times - 1), "after {flush}");
    }
    daemon.signal(libc::SIGUSR1);
    await_notes(&scene, "begin", 2 * 4);
    (0..50).for_each(|_| daemon.signal(libc::SIGUSR1));
    await_starts(5);
    daemon.signal(libc::SIGTERM);
    daemon.wait();
    assert_eq!(notes(&scene, "begin"), 2 * 5);
    assert_eq!(notes(&scene, "stop"), 2 * 5);
    assert_eq!((notes(&scene, "two"), rules(&scene)), (0, 0));
}

/// Each hook is a process that flushes and signals, and the commands are fast, so some signals
/// arrive between two commands. There must never be two rules, and at the end exactly one.
fn usr1_from_fifty_hooks() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door_that_counts_rules("0"));
    open_for_two(&scene, &daemon);
    scene.router.run(&format!(
        "for n in 1 2 3 4 5 6 7 8 9 10; do for m in 1 2 3 4 5; do
             (test $m = 1 && iptables -w -F INPUT; kill -USR1 {}) &
         done; done; wait",
        daemon.pid()
    ));
    wait_for("rest", || {
        let before = notes(&scene, "stop");
        std::thread::sleep(Duration::from_millis(500));
        (notes(&scene, "stop") == before && rules(&scene) == 2).then_some(())
    });
    let cycles = notes(&scene, "stop") / 2;
    assert!((1..=50).contains(&cycles), "{cycles}");
    daemon.signal(libc::SIGTERM);
    daemon.wait();
    assert_eq!((notes(&scene, "two"), rules(&scene)), (0, 0));
    let starts = [CLIENT, OTHER].map(|source| notes(&scene, &format!("start{source}")));
    assert_eq!(starts[0] + starts[1], notes(&scene, "stop"));
}

fn knocking_again_stacks() {
    let scene = Scene::new();
    scene.home.config_with_options("Reknock = stack", &door(2));
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    open(&scene, &daemon);
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 2);
    assert_eq!(rules(&scene), 2);
    await_notes(&scene, "stop", 2);
    wait_for("no rule", || (rules(&scene) == 0).then_some(()));
    assert_eq!(daemon.count(&lines::timeout(CLIENT, "SSH")), 2);
}

/// With iptables-nft, two simultaneous deletions of equal rules delete only one.
fn equal_stop_commands_run_one_after_another() {
    let scene = Scene::new();
    scene.home.config_with_options(
        "Reknock = stack",
        "[SSH]\nsequence = 7000,8000:udp,9000\ntcpflags = syn\ncmd_timeout = 600\n\
         start_command = iptables -w -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo start >>@HOME@/notes\n\
         stop_command = echo in >>@HOME@/notes; iptables -w -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; \
         echo out >>@HOME@/notes\n",
    );
    let mut daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    for number in 1..=4 {
        scene.knock(ROUTER, STEPS);
        await_notes(&scene, "start", number);
    }
    assert_eq!(rules(&scene), 4);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(rules(&scene), 0);
    let notes = scene.home.read("notes");
    let stops: Vec<&str> = notes.lines().filter(|line| *line != "start").collect();
    assert_eq!(stops, ["in", "out"].repeat(4));
}
