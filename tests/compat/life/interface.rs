//! Interfaces that appear, disappear and change, and interfaces without addresses.

use super::{DOOR, Life, Test, hangup, let_pass};
use crate::lab::{Tun, is_original, lines};
use crate::packet::{Token, parse};

pub const TESTS: &[Test] = &[
    ("link_down_and_up", &[], link_down_and_up),
    ("down_at_the_start", &["D-CAP-05"], down_at_the_start),
    ("interface_deleted", &["D-CAP-06"], interface_deleted),
    ("address_added", &["D-CAP-03", "D-OPN-11"], address_added),
    ("no_address", &["D-CAP-04"], no_address),
    ("any_interface", &["D-CFG-24"], any_interface),
    ("any_interface_ipv6", &["D-CAP-01"], any_interface_ipv6),
    ("tun", &["D-CAP-01"], tun),
    ("labels", &["D-CAP-11"], labels),
    (
        "option_i_overrides_the_config",
        &[],
        option_i_overrides_the_config,
    ),
    ("lo", &[], lo),
];

/// L20
fn link_down_and_up() {
    let life = Life::new(DOOR);
    let mut daemon = life.start();
    life.send("7000");
    life.fence(&daemon);
    life.lane.server.run("ip link set s0 down; sleep 0.3; ip link set s0 up; ip addr replace fd00:9::1/64 dev s0 nodad");
    let_pass(500);
    life.send("8000");
    daemon.await_text("10.9.0.2: A: OPEN SESAME");
    assert!(daemon.is_alive());
}

fn down_at_the_start() {
    let life = Life::new(DOOR);
    life.lane.server.run("ip link set s0 down");
    let mut daemon = life.spawn("-i s0");
    if is_original() {
        assert_eq!(daemon.wait().code(), Some(1));
        assert_eq!(
            daemon.errors(),
            "could not open s0: s0: That device is not up"
        );
        return;
    }
    daemon.await_text(lines::WAITING);
    life.lane.server.run("ip link set s0 up");
    let_pass(500);
    life.send("7000 8000");
    daemon.await_text("10.9.0.2: A: OPEN SESAME");
}

/// L21
fn interface_deleted() {
    let life = Life::new(DOOR);
    let mut daemon = life.start();
    life.lane.server.run("ip link del s0");
    if is_original() {
        assert_eq!(daemon.wait().code(), Some(0));
        assert_eq!(daemon.errors(), "pcap: The interface disappeared");
        assert_eq!(life.log("log").last().unwrap(), "shutting down");
    } else {
        let_pass(500);
        assert!(daemon.is_alive());
    }
}

/// L22
fn address_added() {
    let life = Life::new("[A]\nsequence=7000\ntcpflags=syn\n");
    let daemon = life.start();
    life.lane.server.run("ip addr add 10.9.0.77/24 dev s0");
    let_pass(300);
    life.send("7000>10.9.0.77");
    life.fence(&daemon);
    let seen = usize::from(!is_original());
    assert_eq!(daemon.count("10.9.0.2: A: OPEN SESAME"), seen);
    // SIGHUP does not help 0.8.
    hangup(&daemon);
    daemon.await_text(lines::RELOADING);
    let_pass(500);
    life.send("7000>10.9.0.77");
    life.fence(&daemon);
    assert_eq!(daemon.count("10.9.0.2: A: OPEN SESAME"), 2 * seen);
}

/// L24. The fence cannot be used without an address.
fn no_address() {
    let life = Life::new(&format!(
        "{DOOR}[B]\nsequence=7000,8000\nseq_timeout=10\ntcpflags=syn\ntarget=10.9.0.99\n"
    ));
    life.lane.server.run("ip addr flush dev s0");
    let daemon = life.start();
    life.send("7000 8000 7000>10.9.0.99 8000>10.9.0.99");
    daemon.await_text("10.9.0.2: B: OPEN SESAME");
    assert_eq!(daemon.count(": A: "), 0);
    // An address is added later.
    life.lane.server.run("ip addr add 10.9.0.1/24 dev s0");
    let_pass(300);
    life.send("7000 8000 wait.5");
    assert_eq!(
        daemon.count("10.9.0.2: A: OPEN SESAME"),
        usize::from(!is_original())
    );
}

/// L23
fn any_interface() {
    let life = Life::new(&format!(
        "{DOOR}[B]\nsequence=7000,8000\nseq_timeout=10\ntcpflags=syn\ntarget=10.9.0.1\n"
    ));
    let daemon = life.spawn("-i any");
    daemon.await_text("listening on any...");
    life.send("7000 8000");
    daemon.await_text("10.9.0.2: B: OPEN SESAME");
    let_pass(200);
    assert_eq!(
        daemon.count("10.9.0.2: A: OPEN SESAME"),
        usize::from(!is_original())
    );
}

fn any_interface_ipv6() {
    let life =
        Life::new("[B]\nsequence=7000,8000\nseq_timeout=10\ntcpflags=syn\ntarget=fd00:9::1\n");
    let daemon = life.spawn("-i any");
    daemon.await_text("listening on any...");
    life.send("6:7000 6:8000");
    if is_original() {
        daemon.await_text("IPv6 is not supported under this link-layer type");
        let_pass(200);
        assert_eq!(daemon.count(": B: "), 0);
    } else {
        daemon.await_text("fd00:9::2: B: OPEN SESAME");
        assert_eq!(daemon.errors(), "");
    }
}

/// L28
fn tun() {
    let life = Life::new(DOOR);
    let tun = Tun::new(&life.lane.server, "t0");
    life.lane.server.run(
        "ip addr add 10.8.0.1/24 dev t0; ip addr add fd00:8::1/64 dev t0 nodad; ip link set t0 up",
    );
    let daemon = life.spawn("-i t0");
    daemon.await_text("listening on t0...");
    for token in parse("7000>10.8.0.1 8000>10.8.0.1 6:7000>fd00:8::1 6:8000>fd00:8::1") {
        let Token::Send(packet) = token else {
            unreachable!()
        };
        tun.send(&packet.bytes(1));
        let_pass(30);
    }
    daemon.await_text("10.9.0.2: A: OPEN SESAME");
    if is_original() {
        daemon.await_text("IPv6 is not supported under this link-layer type");
        assert_eq!(daemon.count("fd00:9::2"), 0);
    } else {
        daemon.await_text("fd00:9::2: A: OPEN SESAME");
    }
}

fn labels() {
    let life = Life::new("[A]\nsequence=7000\ntcpflags=syn\n");
    life.lane
        .server
        .run("ip addr add 10.9.0.77/24 dev s0 label s0:1");
    let daemon = life.start();
    life.send("7000>10.9.0.77");
    life.fence(&daemon);
    assert_eq!(daemon.count(": A: OPEN"), usize::from(!is_original()));
    drop(daemon);
    // The label alone selects only its addresses.
    let daemon = life.spawn("-i s0:1");
    daemon.await_text("listening on s0:1...");
    life.send(".3:7000 .4:7000>10.9.0.77");
    daemon.await_text("10.9.0.4: A: OPEN SESAME");
    assert_eq!(daemon.count("10.9.0.3: "), 0);
}

/// L19
fn option_i_overrides_the_config() {
    let life = Life::new(&format!("[options]\nInterface=nosuch\n{DOOR}"));
    let daemon = life.start();
    life.send("7000 8000");
    daemon.await_text("10.9.0.2: A: OPEN SESAME");
}

/// L29
fn lo() {
    let life = Life::new("[A]\nsequence=7000,7000\nseq_timeout=10\ntcpflags=syn\n");
    let daemon = life.spawn("-i lo");
    daemon.await_text("listening on lo...");
    for (address, port) in [("127.0.0.1", 7000), ("::1", 7000), ("10.9.0.1", 7000)] {
        crate::lab::knock(&life.lane.server, address, &[&port.to_string()]);
    }
    // The first packet ends the attempt.
    crate::lab::knock(&life.lane.server, "127.0.0.1", &["9:udp", "9:udp"]);
    daemon.await_text("127.0.0.1: fence: OPEN SESAME");
    // Each packet counts once, and packets to an address of another interface do not count.
    let log: Vec<String> = life.log("log").into_iter().skip(1).collect();
    assert_eq!(log, ["127.0.0.1: A: Stage 1", "::1: A: Stage 1"]);
}
