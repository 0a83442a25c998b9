//! A PPP link: no Ethernet header, no neighbours, and a new interface after each redial.

use crate::Test;
use crate::lab::{Daemon, Home, Namespace, Tun, fence, is_original, knock_until, packet, wait_for};
use crate::lines;

pub const TESTS: &[Test] = &[("ppp", ppp), ("ppp_redial", ppp_redial)];

const HERE: &str = "10.64.0.1";
const PEER: &str = "10.64.0.2";
const HERE6: &str = "2001:db8:64::1";
const PEER6: &str = "2001:db8:64::2";
const DOOR: &str = "[A]\nsequence = 1:udp,2:tcp,3:udp\ntcpflags = syn\n";

/// Dials: creates `ppp0` with both addresses and sets it up.
fn dial(router: &Namespace) -> Tun {
    let line = Tun::new(router, "ppp0");
    router.run(&format!(
        "ip link show ppp0 | grep -q link/ppp
         ip addr add {HERE} peer {PEER} dev ppp0
         ip link set ppp0 up
         ip addr add {HERE6}/64 dev ppp0 nodad"
    ));
    line
}

fn send_door(line: &Tun, source: &str, destination: &str) {
    line.send(&packet::udp(source, destination, 1));
    line.send(&packet::syn(source, destination, 2, packet::fresh()));
    line.send(&packet::udp(source, destination, 3));
}

fn ppp() {
    let (router, home) = (Namespace::new("ppp"), Home::new());
    let line = dial(&router);
    home.config(DOOR);
    let daemon = Daemon::start(&router, &home, &["-i", "ppp0"]);
    send_door(&line, PEER, HERE);
    daemon.await_text(&lines::opened(PEER, "A"));
    // For another destination.
    send_door(&line, "10.64.0.3", "10.64.0.99");
    fence(&daemon, PEER, || line.send(&packet::udp(PEER, HERE, 9)));
    assert_eq!(daemon.count("10.64.0.3"), 0);
    if !is_original() {
        send_door(&line, PEER6, HERE6);
        daemon.await_text(&lines::opened(PEER6, "A"));
    }
}

fn ppp_redial() {
    let (router, home) = (Namespace::new("redial"), Home::new());
    let mut line = dial(&router);
    home.config(DOOR);
    let mut daemon = Daemon::start(&router, &home, &["-i", "ppp0"]);
    send_door(&line, PEER, HERE);
    daemon.await_text(&lines::opened(PEER, "A"));
    for _ in 0..3 {
        let before = router.index("ppp0").expect("ppp0");
        drop(line);
        // A program that another test is starting can hold its descriptor for a moment longer.
        wait_for("the link to go", || {
            router.index("ppp0").is_none().then_some(())
        });
        line = dial(&router);
        assert!(
            router.index("ppp0").expect("ppp0") > before,
            "a redial gives a new index"
        );
        knock_until(&daemon, &lines::opened(PEER, "A"), || {
            send_door(&line, PEER, HERE)
        });
        assert!(daemon.is_alive());
    }
}
