//! The scan trap: a door on 1,2,3,4,5 that shuts down the WAN for a while.

use crate::Test;
use crate::lab::{CLIENT, ROUTER, Scene, knock_until, wait_for};
use crate::lines;

pub const TESTS: &[Test] = &[("scan_trap", scan_trap)];

fn scan_trap() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(
        "[Trap]
         sequence = 1,2,3,4,5
         tcpflags = syn
         cmd_timeout = 2
         start_command = ip link set wan0 down
         stop_command = ip link set wan0 up
         [A]
         sequence = 7000,8000:udp,9000
         tcpflags = syn\n",
    );
    scene.knock(ROUTER, &["1", "2", "3", "4", "5"]);
    daemon.await_text(&lines::opened(CLIENT, "Trap"));
    wait_for("the WAN to go down", || (!is_up(&scene)).then_some(()));
    daemon.await_text(&lines::timeout(CLIENT, "Trap"));
    wait_for("the WAN to come back", || is_up(&scene).then_some(()));
    knock_until(&daemon, &lines::opened(CLIENT, "A"), || {
        scene.knock(ROUTER, &["7000", "8000:udp", "9000"]);
    });
    // It can be triggered again.
    scene.knock(ROUTER, &["1", "2", "3", "4", "5"]);
    daemon.await_count(&lines::opened(CLIENT, "Trap"), 2);
    daemon.await_count(&lines::timeout(CLIENT, "Trap"), 2);
    assert!(daemon.is_alive());
}

fn is_up(scene: &Scene) -> bool {
    scene
        .router
        .run("ip -o link show dev wan0")
        .contains("state UP")
}
