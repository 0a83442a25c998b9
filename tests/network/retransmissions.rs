//! Clients that send each packet more than once, and lines that lose, duplicate and reorder
//! packets. The knock opens at the first try.

use crate::Test;
use crate::lab::{CLIENT, Daemon, Faults, Home, Namespace, ROUTER, Relay, Scene, packet};
use crate::lines;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    (
        "real_connects_open_though_the_line_loses",
        real_connects_open_though_the_line_loses,
    ),
    (
        "real_connects_open_though_the_line_doubles_and_reorders",
        real_connects_open_though_the_line_doubles_and_reorders,
    ),
    (
        "real_connects_open_though_the_line_does_all_of_it",
        real_connects_open_though_the_line_does_all_of_it,
    ),
    (
        "two_connects_at_once_for_each_step_open",
        two_connects_at_once_for_each_step_open,
    ),
    (
        "syns_again_after_a_reset_open",
        syns_again_after_a_reset_open,
    ),
];

const DOOR: &str = "[A]
    sequence = 7000,300,9000,5000
    seq_timeout = 20
    tcpflags = syn\n";

const STEPS: [u16; 4] = [7000, 300, 9000, 5000];

fn real_connects_open_though_the_line_loses() {
    over(Faults {
        lose_every_other: true,
        again_after: None,
    });
}

/// The copy of each step arrives after the next step.
fn real_connects_open_though_the_line_doubles_and_reorders() {
    over(Faults {
        lose_every_other: false,
        again_after: Some(Duration::from_millis(2_300)),
    });
}

fn real_connects_open_though_the_line_does_all_of_it() {
    over(Faults {
        lose_every_other: true,
        again_after: Some(Duration::from_millis(2_300)),
    });
}

/// Connects with nc, one after the other, waiting 2 s each. The kernel retransmits each SYN after 1
/// s.
fn over(faults: Faults) {
    let (wan, router, home) = (Namespace::new("wan"), Namespace::new("router"), Home::new());
    let relay = Relay::between((&wan, "eth0"), (&router, "wan0"), faults);
    wan.run(&format!("ip addr add {CLIENT}/24 dev eth0"));
    router.run(&format!(
        "ip addr add {ROUTER}/24 dev wan0; iptables -w -A INPUT -j DROP"
    ));
    home.config_with_options("Tripwire = auto", DOOR);
    let daemon = Daemon::start(&router, &home, &["-i", "wan0"]);
    for port in STEPS {
        wan.attempt(&format!("nc -n -w 2 {ROUTER} {port}"));
    }
    daemon.await_text(&lines::opened(CLIENT, "A"));
    assert!(
        relay.seen() >= 2 * STEPS.len() - 1,
        "{} packets: nothing was sent again",
        relay.seen()
    );
}

/// Sends these packets for each step, 20 ms apart: source port and sequence number.
fn send(scene: &Scene, each: &[(u16, u32)]) {
    for (step, port) in (0..).zip(STEPS) {
        for (source_port, sequence_number) in each {
            let mut syn = packet::syn(CLIENT, ROUTER, port, sequence_number + 1_000 * step);
            syn[20..22].copy_from_slice(&(source_port + 10 * step as u16).to_be_bytes());
            scene.wire.send(&syn);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn start(scene: &Scene) -> Daemon {
    scene.home.config_with_options("Tripwire = auto", DOOR);
    Daemon::start(&scene.router, &scene.home, &["-i", "wan0"])
}

/// Like browsers: two connections at once, and the SYN of each is retransmitted.
fn two_connects_at_once_for_each_step_open() {
    let scene = Scene::new();
    let daemon = start(&scene);
    send(
        &scene,
        &[(50_000, 1), (50_001, 2), (50_000, 1), (50_001, 2)],
    );
    daemon.await_text(&lines::opened(CLIENT, "A"));
    scene.fence(&daemon);
    assert_eq!(daemon.count(&lines::opened(CLIENT, "A")), 1);
}

/// Like Windows when the port sends a reset: three SYNs with equal or different sequence numbers.
fn syns_again_after_a_reset_open() {
    let scene = Scene::new();
    scene
        .router
        .run("iptables -w -I INPUT -p tcp -j REJECT --reject-with tcp-reset");
    let daemon = start(&scene);
    for (round, each) in (1..).zip([[(50_000, 1); 3], [(50_000, 10), (50_000, 20), (50_000, 30)]]) {
        send(&scene, &each);
        daemon.await_count(&lines::opened(CLIENT, "A"), round);
    }
}
