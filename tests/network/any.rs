//! `-i any`: all interfaces. Each packet counts once, although the kernel delivers a bridged one
//! twice.

use crate::Test;
use crate::lab::{CLIENT, Daemon, OTHER, ROUTER, Scene, Wire, knock, packet};
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
    (
        "a_target_on_a_macvlan_is_knocked_on_its_parent",
        a_target_on_a_macvlan_is_knocked_on_its_parent,
    ),
    (
        "a_target_on_a_bridge_is_knocked_on_a_port_of_another_mac",
        a_target_on_a_bridge_is_knocked_on_a_port_of_another_mac,
    ),
    (
        "a_macvlan_and_its_parent_count_a_packet_once",
        a_macvlan_and_its_parent_count_a_packet_once,
    ),
];

const DOOR: &str = "[A]\nsequence = 1:udp,1:udp\n";

fn any_counts_a_packet_once() {
    let scene = Scene::new();
    let daemon = start(&scene, "any");
    twice(&scene, &daemon, CLIENT);
    // `any` includes lo.
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

/// Both are captured. The target address also makes the packet valid on the port, which has no
/// address.
fn a_bridge_and_its_port_count_a_packet_once() {
    let scene = bridged();
    scene.home.config(&format!("{DOOR}target = {ROUTER}\n"));
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "br0,wan0"]);
    twice(&scene, &daemon, CLIENT);
}

const VIRTUAL: &str = "203.0.113.77";
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];

/// VRRP: an address on a macvlan with its own MAC address. Returns the wire that sends to that MAC
/// address.
fn virtual_router(scene: &Scene) -> Wire {
    scene.router.run(&format!(
        "ip link add vrrp0 link wan0 address 00:00:5e:00:01:33 type macvlan mode bridge
         ip link set vrrp0 up
         ip addr add {VIRTUAL}/32 dev vrrp0"
    ));
    Wire::open(&scene.wan, "eth0", [2, 0, 0, 0, 0, 9], VIRTUAL_MAC)
}

fn a_target_on_a_macvlan_is_knocked_on_its_parent() {
    let scene = Scene::new();
    let wire = virtual_router(&scene);
    let daemon = scene.daemon(&format!("{DOOR}target = {VIRTUAL}\n"));
    twice_by(&wire, VIRTUAL, &scene, &daemon, CLIENT);
}

fn a_target_on_a_bridge_is_knocked_on_a_port_of_another_mac() {
    let scene = bridged();
    scene
        .router
        .run("ip link set br0 address 02:00:00:00:00:77");
    let wire = Wire::open(
        &scene.wan,
        "eth0",
        [2, 0, 0, 0, 0, 9],
        [2, 0, 0, 0, 0, 0x77],
    );
    scene.home.config(&format!("{DOOR}target = {ROUTER}\n"));
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    for stage in 1..=2 {
        wire.send(&packet::udp(CLIENT, ROUTER, 1));
        daemon.await_text(&lines::stage(CLIENT, "A", stage));
    }
}

fn a_macvlan_and_its_parent_count_a_packet_once() {
    let scene = Scene::new();
    let wire = virtual_router(&scene);
    for interfaces in ["any", "wan0,vrrp0"] {
        scene.home.config(&format!("{DOOR}target = {VIRTUAL}\n"));
        let daemon = Daemon::start(&scene.router, &scene.home, &["-i", interfaces]);
        twice_by(&wire, VIRTUAL, &scene, &daemon, CLIENT);
    }
}

/// The router's address is on a bridge, and the WAN interface is a port of it.
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

/// One packet is one step; the second one opens.
fn twice(scene: &Scene, daemon: &Daemon, source: &str) {
    twice_by(&scene.wire, ROUTER, scene, daemon, source);
}

fn twice_by(wire: &Wire, target: &str, scene: &Scene, daemon: &Daemon, source: &str) {
    wire.send(&packet::udp(source, target, 1));
    daemon.await_text(&lines::stage(source, "A", 1));
    scene.fence(daemon);
    assert_eq!(
        daemon.count(&lines::stage(source, "A", 2)),
        0,
        "one packet counted twice"
    );
    wire.send(&packet::udp(source, target, 1));
    daemon.await_text(&lines::opened(source, "A"));
    scene.fence(daemon);
    assert_eq!(daemon.count(&lines::opened(source, "A")), 1);
}
