//! Commands caused by one address run in the order of its knocks.

use crate::Test;
use crate::commands::{long_time, most_at_once, sleepers, uptime};
use crate::lab::{CLIENT, Daemon, OTHER, ROUTER, Scene, children, packet, signal, wait_for};
use crate::lease::{await_notes, notes, rules};
use crate::lines;
use std::fs;

pub const TESTS: &[Test] = &[
    (
        "a_close_after_an_open_leaves_nothing_open",
        a_close_after_an_open_leaves_nothing_open,
    ),
    (
        "an_open_after_a_close_leaves_it_open",
        an_open_after_a_close_leaves_it_open,
    ),
    (
        "a_command_that_hangs_delays_its_own_address_alone",
        a_command_that_hangs_delays_its_own_address_alone,
    ),
    (
        "a_command_that_waits_for_its_turn_takes_no_place",
        a_command_that_waits_for_its_turn_takes_no_place,
    ),
    ("starts_of_one_door_overlap", starts_of_one_door_overlap),
    (
        "term_waits_for_a_command_that_waits_for_its_turn",
        term_waits_for_a_command_that_waits_for_its_turn,
    ),
];

/// Sends these one-step knocks at once, each a source and a port.
fn send(scene: &Scene, knocks: &[(&str, u16)]) {
    for (source, port) in knocks {
        scene.wire.send(&packet::udp(source, ROUTER, *port));
    }
}

fn seconds_since_boot() -> f64 {
    let text = fs::read_to_string("/proc/uptime").expect("/proc/uptime");
    let first = text.split(' ').next().expect("uptime");
    first.parse().expect("uptime")
}

/// The door is still open while its start command is undone, so another knock must do more than
/// restart the timer.
fn an_open_after_a_close_leaves_it_open() {
    let scene = Scene::new();
    let rule = "INPUT -s %IP% -p tcp --dport 22 -j ACCEPT";
    let _daemon = scene.daemon(&format!(
        "[open]
         sequence = 7000:udp
         start_command = sleep 0.3; iptables -w -I {rule}; echo opened >>@HOME@/notes
         cmd_timeout = 600
         stop_command = iptables -w -D {rule}
         [close]
         sequence = 8000:udp
         command = iptables -w -D {rule}; echo closed >>@HOME@/notes\n"
    ));
    // At once, and one after the other.
    send(&scene, &[(CLIENT, 7000), (CLIENT, 8000), (CLIENT, 7000)]);
    await_notes(&scene, "opened", 2);
    assert_eq!((rules(&scene), notes(&scene, "closed")), (1, 1));
    send(&scene, &[(CLIENT, 8000)]);
    await_notes(&scene, "closed", 2);
    assert_eq!(rules(&scene), 0);
    send(&scene, &[(CLIENT, 7000)]);
    await_notes(&scene, "opened", 3);
    assert_eq!(rules(&scene), 1);
}

/// The command that opens is slow, the one that closes is fast. With and without a stop command.
fn a_close_after_an_open_leaves_nothing_open() {
    let scene = Scene::new();
    let rule = "INPUT -s %IP% -p tcp --dport 22 -j ACCEPT";
    let daemon = scene.daemon(&format!(
        "[open]
         sequence = 7000:udp
         command = sleep 0.3; iptables -w -I {rule}; echo opened >>@HOME@/notes
         [close]
         sequence = 8000:udp
         command = iptables -w -D {rule}; echo closed >>@HOME@/notes
         [lease]
         sequence = 7100:udp
         start_command = sleep 0.3; iptables -w -I {rule}; echo opened >>@HOME@/notes
         cmd_timeout = 600
         stop_command = true\n"
    ));
    for times in 1..=20 {
        let source = format!("10.1.0.{times}");
        let knocks = [
            (CLIENT, 7000),
            (CLIENT, 8000),
            (&source, 7100),
            (&source, 8000),
        ];
        send(&scene, &knocks);
        for what in ["opened", "closed"] {
            await_notes(&scene, what, 2 * times);
        }
        assert_eq!(rules(&scene), 0, "{times}: {}", daemon.tail(20).join("\n"));
    }
    assert_eq!(daemon.errors(), "");
}

fn a_command_that_hangs_delays_its_own_address_alone() {
    let scene = Scene::new();
    let time = long_time(7);
    let daemon = scene.daemon(&format!(
        "[Hangs]
         sequence = 7000:udp
         command = exec sleep {time}
         [Next]
         sequence = 8000:udp
         start_command = cut -d' ' -f1 /proc/uptime >@HOME@/%IP%; echo next%IP% >>@HOME@/notes
         cmd_timeout = 600
         stop_command = true
         [Later]
         sequence = 9000:udp
         command = cut -d' ' -f1 /proc/uptime >@HOME@/later; echo later >>@HOME@/notes\n"
    ));
    let knocked = seconds_since_boot();
    send(&scene, &[(CLIENT, 7000), (CLIENT, 8000), (OTHER, 8000)]);
    for source in [OTHER, CLIENT] {
        await_notes(&scene, &format!("next{source}"), 1);
    }
    let [other, client] = [OTHER, CLIENT].map(|source| uptime(&scene, source) - knocked);
    assert!(other < 1.9, "{other} s");
    assert!((1.98..3.5).contains(&client), "{client} s");
    // It has run for 2 s, so it no longer delays anything.
    let knocked = seconds_since_boot();
    send(&scene, &[(CLIENT, 9000)]);
    await_notes(&scene, "later", 1);
    let later = uptime(&scene, "later") - knocked;
    assert!(later < 1.9, "{later} s");
    assert_eq!(sleepers(&time).len(), 1);
    sleepers(&time)
        .into_iter()
        .for_each(|pid| signal(pid, libc::SIGKILL));
    assert_eq!(daemon.count(&lines::opened(CLIENT, "Later")), 1);
}

/// A daemon whose door `first` runs until the file `hold` is removed.
fn held(scene: &Scene, options: &str, next: &str) -> Daemon {
    scene.home.write("hold", "");
    scene.daemon_with_options(
        options,
        &format!(
            "[first]
             sequence = 7000:udp
             command = while [ -e @HOME@/hold ]; do sleep 0.02; done; echo first >>@HOME@/notes
             [next]
             sequence = 8000:udp
             {next}\n"
        ),
    )
}

fn release(scene: &Scene) {
    fs::remove_file(scene.home.path("hold")).expect("hold");
}

fn a_command_that_waits_for_its_turn_takes_no_place() {
    let scene = Scene::new();
    let next = "start_command = echo %IP% >>@HOME@/notes
             cmd_timeout = 600
             stop_command = true";
    let daemon = held(&scene, "MaxCommands = 1", next);
    send(&scene, &[(CLIENT, 7000), (CLIENT, 8000), (OTHER, 8000)]);
    await_notes(&scene, OTHER, 1);
    release(&scene);
    await_notes(&scene, CLIENT, 1);
    let notes = scene.home.read("notes");
    assert_eq!(notes, format!("{OTHER}\nfirst\n{CLIENT}\n"));
    assert_eq!(daemon.errors(), "");
}

/// With `Reknock = stack` and without a stop command they overlap, as in knockd 0.8.
fn starts_of_one_door_overlap() {
    let scene = Scene::new();
    let command = |name: &str| format!("echo + >>@HOME@/{name}; sleep 1; echo - >>@HOME@/{name}");
    let (starts, plain) = (command("starts"), command("plain"));
    let daemon = scene.daemon_with_options(
        "Reknock = stack",
        &format!(
            "[lease]
             sequence = 7000:udp
             start_command = {starts}
             cmd_timeout = 600
             stop_command = true
             [plain]
             sequence = 8000:udp
             command = {plain}\n"
        ),
    );
    send(&scene, &[(CLIENT, 7000); 3]);
    send(&scene, &[(OTHER, 8000); 3]);
    for name in ["starts", "plain"] {
        let ended = || (scene.home.read(name).matches('-').count() == 3).then_some(());
        wait_for("three ends", ended);
        assert_eq!(most_at_once(&scene, name), 3);
    }
    assert_eq!(daemon.errors(), "");
}

/// The waiting command may be the one that closes.
fn term_waits_for_a_command_that_waits_for_its_turn() {
    let scene = Scene::new();
    let mut daemon = held(&scene, "", "command = echo next >>@HOME@/notes");
    send(&scene, &[(CLIENT, 7000), (CLIENT, 8000)]);
    daemon.await_text(&lines::opened(CLIENT, "next"));
    daemon.signal(libc::SIGTERM);
    let listener_is_gone = || (children(daemon.pid()).len() == 1).then_some(());
    wait_for("the end of the listener", listener_is_gone);
    release(&scene);
    assert_eq!(daemon.wait().code(), Some(15));
    await_notes(&scene, "next", 1);
    assert_eq!(scene.home.read("notes"), "first\nnext\n");
}
