//! An open and a close door on the same ports, as in most published configs, with real rules and
//! clients.

use crate::Test;
use crate::lab::{CLIENT, ROUTER, Scene, lines, wait_within};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    (
        "closing_again_and_again_leaves_the_door_shut",
        closing_again_and_again_leaves_the_door_shut,
    ),
    (
        "retransmitted_steps_open_once_and_close_nothing",
        retransmitted_steps_open_once_and_close_nothing,
    ),
];

const RULE: &str = "INPUT -s %IP% -p tcp --dport 22 -j ACCEPT";

/// Doors `open` and `close` with these sequences.
fn pair(open: &[&str], close: &[&str]) -> String {
    let door = |name: &str, steps: &[&str], flag: &str| {
        format!(
            "[{name}]
    sequence = {}
    seq_timeout = 15
    tcpflags = syn
    command = iptables -w {flag} {RULE}\n",
            steps.join(",")
        )
    };
    door("open", open, "-I") + &door("close", close, "-D")
}

fn is_open(scene: &Scene) -> bool {
    scene.rules().contains("--dport 22")
}

#[track_caller]
fn await_rule(scene: &Scene, open: bool) {
    let what = format!("the rule is there: {open}");
    wait_within(
        Duration::from_secs(20),
        Duration::from_millis(20),
        &what,
        || (is_open(scene) == open).then_some(()),
    );
}

fn closing_again_and_again_leaves_the_door_shut() {
    for close in [["9000", "8000", "7000"], ["8000", "9000", "7000"]] {
        let open = ["7000", "8000", "9000"];
        let scene = Scene::new();
        let daemon = scene.daemon(&pair(&open, &close));
        for round in 1..4 {
            scene.knock(ROUTER, &open);
            await_rule(&scene, true);
            for _ in 0..3 {
                scene.knock(ROUTER, &close);
            }
            daemon.await_count(&lines::opened(CLIENT, "close"), 3 * round);
            await_rule(&scene, false);
            scene.fence(&daemon);
            assert_eq!(daemon.count(&lines::opened(CLIENT, "open")), round);
        }
    }
}

/// The firewall drops the SYNs, so the client's kernel retransmits each of them after 1 s, 2 s and
/// so on.
fn retransmitted_steps_open_once_and_close_nothing() {
    let scene = Scene::new();
    let daemon = scene.daemon(&pair(&["7000", "8000", "9000"], &["9000", "8000", "7000"]));
    scene.wan.run(&format!(
        "for port in 7000 8000 9000; do
             {{ nc -n -z -w 8 {ROUTER} $port || true; }} &
             sleep .05
         done
         wait"
    ));
    scene.fence(&daemon);
    assert_eq!(daemon.count(&lines::opened(CLIENT, "open")), 1);
    assert_eq!(daemon.count(&lines::opened(CLIENT, "close")), 0);
    await_rule(&scene, true);
}
