//! The basic story: a closed router, a knock, SSH to a LAN host for a while, closed again.

use crate::Test;
use crate::lab::{Banner, CLIENT, LAN_HOST, Namespace, OTHER, ROUTER, Scene, open_ports, wait_for};
use crate::lines;

pub const TESTS: &[Test] = &[("story", story)];

const SEQUENCE: &[&str] = &["22:udp", "22:udp", "151:tcp", "15:udp"];

fn story() {
    let scene = Scene::new();
    let lan = scene.add_lan();
    let _ssh = Banner::listen(&lan, &format!("{LAN_HOST}:22"));
    let rules = scene.rules();
    // Started before the first scan, so that the scan result is that of a router with a daemon.
    let daemon = scene.daemon(&format!(
        "[SSH]
         sequence = 22:udp,22:udp,151:tcp,15:udp
         tcpflags = syn
         cmd_timeout = 4
         start_command = iptables -w -I FORWARD -s %IP% -d {LAN_HOST} -p tcp --dport 22 -j ACCEPT && \
             iptables -w -t nat -I PREROUTING -s %IP% -d {ROUTER} -p tcp --dport 22 -j DNAT --to {LAN_HOST}
         stop_command = iptables -w -t nat -D PREROUTING -s %IP% -d {ROUTER} -p tcp --dport 22 -j DNAT --to {LAN_HOST}; \
             iptables -w -D FORWARD -s %IP% -d {LAN_HOST} -p tcp --dport 22 -j ACCEPT\n"
    ));
    assert_eq!(open_ports(&scene.wan, ROUTER, "1-1024"), [0u16; 0]);
    assert_eq!(greeting(&scene.wan, CLIENT), "");

    scene.knock(ROUTER, SEQUENCE);
    daemon.await_text(&lines::opened(CLIENT, "SSH"));
    daemon.await_text(&lines::running("SSH", "iptables -w -I FORWARD"));
    wait_for("SSH through the router", || {
        (greeting(&scene.wan, CLIENT) == Banner::TEXT).then_some(())
    });
    assert_eq!(
        greeting(&scene.wan, OTHER),
        "",
        "another address must not get in"
    );
    let closed = daemon.count(&lines::timeout(CLIENT, "SSH"));
    assert_eq!(closed, 0, "it was open all this time");

    daemon.await_text(&lines::timeout(CLIENT, "SSH"));
    wait_for("the old rules", || (scene.rules() == rules).then_some(()));
    assert_eq!(greeting(&scene.wan, CLIENT), "");
    assert_eq!(open_ports(&scene.wan, ROUTER, "1-1024"), [0u16; 0]);

    // nmap sees it: the same scan while the door is open.
    scene.knock(ROUTER, SEQUENCE);
    daemon.await_count(&lines::opened(CLIENT, "SSH"), 2);
    wait_for("port 22 in a scan", || {
        (open_ports(&scene.wan, ROUTER, "20-25") == [22]).then_some(())
    });
    daemon.await_count(&lines::timeout(CLIENT, "SSH"), 2);
    wait_for("the old rules again", || {
        (scene.rules() == rules).then_some(())
    });
}

/// What port 22 of the router sends to that address within a second; empty if nothing.
fn greeting(wan: &Namespace, source: &str) -> String {
    let output = wan.attempt(&format!("nc -n -s {source} -w 1 {ROUTER} 22"));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}
