//! `-i any`: all interfaces, and each packet once, although the kernel shows a bridged one twice.

use crate::Test;
use crate::lab::{CLIENT, Daemon, OTHER, ROUTER, Scene, knock, packet};
use crate::lines;

pub const TESTS: &[Test] = &[
    ("any_counts_a_packet_once", any_counts_a_packet_once),
    (
        "any_counts_a_bridged_packet_once",
        any_counts_a_bridged_packet_once,
    ),
    (
        "a_bridge_and_its_port_count_a_packet_once",
        a_bridge_and_its_port_count_a_packet_once,
    ),
];

const DOOR: &str = "[A]\nsequence = 1:udp,1:udp\n";

fn any_counts_a_packet_once() {
    let scene = Scene::new();
    let daemon = start(&scene, "any");
    twice(&scene, &daemon, CLIENT);
    // lo belongs to it too.
    knock(&scene.router, "127.0.0.1", &["1:udp", "1:udp"]);
    daemon.await_text(&lines::opened("127.0.0.1", "A"));
    assert_eq!(daemon.count(&lines::stage("127.0.0.1", "A", 1)), 1);
}

fn any_counts_a_bridged_packet_once() {
    let scene = bridged();
    let daemon = start(&scene, "any");
    twice(&scene, &daemon, CLIENT);
    twice(&scene, &daemon, OTHER);
}

/// Both are captured, and the target makes the packet fit on the port too, which has no address.
fn a_bridge_and_its_port_count_a_packet_once() {
    let scene = bridged();
    scene.home.config(&format!("{DOOR}target = {ROUTER}\n"));
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "br0,wan0"]);
    twice(&scene, &daemon, CLIENT);
}

/// The router's address is on a bridge of which the WAN interface is a port.
fn bridged() -> Scene {
    let scene = Scene::new();
    scene.router.run(&format!(
        "ip addr flush dev wan0
         ip link add br0 address $(cat /sys/class/net/wan0/address) type bridge stp_state 0 forward_delay 0
         ip link set wan0 master br0
         ip link set br0 up
         ip addr add {ROUTER}/24 dev br0"
    ));
    crate::lab::wait_for("a forwarding bridge port", || {
        let output = scene.router.run("cat /sys/class/net/wan0/brport/state");
        (output.trim() == "3").then_some(())
    });
    scene
}

fn start(scene: &Scene, interface: &str) -> Daemon {
    scene.home.config(DOOR);
    Daemon::start(&scene.router, &scene.home, &["-i", interface])
}

/// One packet is one step and the second opens.
fn twice(scene: &Scene, daemon: &Daemon, source: &str) {
    scene.wire.send(&packet::udp(source, ROUTER, 1));
    daemon.await_text(&lines::stage(source, "A", 1));
    scene.fence(daemon);
    assert_eq!(
        daemon.count(&lines::stage(source, "A", 2)),
        0,
        "one packet counted twice"
    );
    scene.wire.send(&packet::udp(source, ROUTER, 1));
    daemon.await_text(&lines::opened(source, "A"));
    scene.fence(daemon);
    assert_eq!(daemon.count(&lines::opened(source, "A")), 1);
}
