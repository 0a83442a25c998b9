//! Port scans on a real wire: they open nothing, and cost nothing if there are no tripwires.

use crate::Test;
use crate::control::json;
use crate::lab::{
    CLIENT, Daemon, OTHER, ROUTER, ROUTER6, Scene, children, packet, ran_at, wait_for,
};
use crate::lines;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("own_full_scans_open_nothing", own_full_scans_open_nothing),
    ("nmap_scans_open_nothing", nmap_scans_open_nothing),
    (
        "a_scan_of_other_ports_causes_no_wake_up",
        a_scan_of_other_ports_causes_no_wake_up,
    ),
    (
        "a_thousand_tripwires_attach_and_attach_again",
        a_thousand_tripwires_attach_and_attach_again,
    ),
    ("three_addresses_share_a_scan", three_addresses_share_a_scan),
];

/// Doors that `--check` accepts apart from the transport of their steps. All ports are below 2,000.
pub const DOORS: &str = "[TCP]
    sequence = 700,250,1500,411
    tcpflags = syn
    [UDP]
    sequence = 703:udp,253:udp,1503:udp,414:udp
    [Both]
    sequence = 706,256:udp,1506,417:udp
    tcpflags = syn
    [Up]
    sequence = 100,300,800,1800
    tcpflags = syn
    [Down]
    sequence = 1803:udp,803,303:udp,103
    tcpflags = syn\n";

/// Checks that no door except the fence has opened.
fn assert_nothing_opened(scene: &Scene, daemon: &Daemon, what: &str) {
    scene.fence(daemon);
    assert_eq!(
        daemon.count("OPEN SESAME"),
        daemon.count(": fence: OPEN SESAME"),
        "{what}"
    );
}

/// Checks that the doors still open to a correct knock after the scan.
fn assert_knock_opens(scene: &Scene, daemon: &Daemon) {
    scene.knock(ROUTER, &["700", "250", "1500", "411"]);
    daemon.await_text(&lines::opened(CLIENT, "TCP"));
}

/// All ports ascending, descending, and in four mixed orders: multiples of a number, modulo a
/// prime.
fn orders() -> Vec<Vec<u16>> {
    let up: Vec<u16> = (1..=u16::MAX).collect();
    let down: Vec<u16> = up.iter().rev().copied().collect();
    let strides = [12_345_u64, 40_503, 7_919, 2_654_435_769];
    // 65,537 is prime, so this yields each port once, and 65,536, which is skipped.
    let by = |stride: &u64| {
        (1..=65_536_u64)
            .map(move |n| n * stride % 65_537)
            .filter_map(|port| u16::try_from(port).ok())
            .collect()
    };
    let mut orders = vec![up, down];
    orders.extend(strides.iter().map(by));
    orders
}

fn own_full_scans_open_nothing() {
    let scene = Scene::new();
    let daemon = scene.daemon_with_options("Tripwire = auto", DOORS);
    for (number, order) in (0..).zip(orders()) {
        assert_eq!(order.len(), 65_535);
        for (sequence_number, port) in (1..).zip(order) {
            scene
                .wire
                .send(&packet::syn(CLIENT, ROUTER, port, sequence_number));
            scene.wire.send(&packet::udp(CLIENT, ROUTER, port));
        }
        assert_nothing_opened(&scene, &daemon, &format!("order {number}"));
    }
    assert!(
        daemon.count(&lines::stage(CLIENT, "TCP", 1)) >= 3,
        "the scans were seen"
    );
    assert_knock_opens(&scene, &daemon);
}

/// nmap options, the target, and whether the packets of such a scan count as knocks.
const NMAP: &[(&str, &str, bool)] = &[
    ("-sS", ROUTER, true),
    ("-sS -r", ROUTER, true),
    ("-sT", ROUTER, true),
    ("-sU", ROUTER, true),
    ("-sA", ROUTER, false),
    ("-sN", ROUTER, false),
    ("-sF", ROUTER, false),
    ("-sX", ROUTER, false),
    ("-sS -D 198.51.100.3,198.51.100.4,ME", ROUTER, true),
    // Fragments of 8 bytes: none contains the flags.
    ("-sS -f", ROUTER, false),
    ("-sS -T5", ROUTER, true),
    ("-6 -sS", ROUTER6, true),
    ("-6 -sU -r", ROUTER6, true),
];

fn nmap_scans_open_nothing() {
    nmap_scans("1-2000");
}

const ALL_PORTS: &str = "1-65535";

/// Scans all ports, which takes minutes. `scripts/test-scans` runs it.
pub fn full_nmap_scans() {
    nmap_scans(ALL_PORTS);
}

fn nmap_scans(ports: &str) {
    let is_long = ports == ALL_PORTS;
    let scene = Scene::new();
    let daemon = scene.daemon_with_options("Tripwire = auto", DOORS);
    let knocks = || {
        json(&scene)["listener"]["knocks"]
            .as_u64()
            .expect("a number")
    };
    for (index, (options, target, knocks_there)) in NMAP.iter().enumerate() {
        if is_long {
            println!("scan {} of {}: nmap {options}", index + 1, NMAP.len());
        }
        let before = knocks();
        let mut nmap = scene.wan.command("timeout");
        nmap.args([
            "-k",
            "1",
            "300",
            "nmap",
            "-n",
            "-Pn",
            "--max-retries",
            "0",
            "--min-rate",
            "2000",
            "-p",
            ports,
        ]);
        let output = nmap
            .args(options.split(' '))
            .arg(target)
            .output()
            .expect("nmap");
        assert!(output.status.success(), "nmap {options}: {output:?}");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(report.contains("1 host up"), "nmap {options}: {report}");
        assert_nothing_opened(&scene, &daemon, options);
        // One is the fence's. Scans hit more steps and tripwires than that.
        let seen = knocks() - before;
        assert_eq!(seen > 10, *knocks_there, "nmap {options}: {seen} knocks");
    }
    assert_knock_opens(&scene, &daemon);
}

fn a_scan_of_other_ports_causes_no_wake_up() {
    let scene = Scene::new();
    let daemon = scene.daemon(DOORS);
    scene.fence(&daemon);
    let doors: Vec<u16> = DOORS
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    let listener = children(daemon.pid())[0];
    // The fence's command has ended when neither process runs for a while.
    wait_for("an idle daemon", || {
        let before = (ran_at(daemon.pid()), ran_at(listener));
        std::thread::sleep(Duration::from_millis(200));
        (before == (ran_at(daemon.pid()), ran_at(listener))).then_some(())
    });
    let before = (ran_at(daemon.pid()), ran_at(listener));
    for port in (1..=u16::MAX).filter(|port| *port != 9 && !doors.contains(port)) {
        scene
            .wire
            .send(&packet::syn(CLIENT, ROUTER, port, port.into()));
        scene.wire.send(&packet::udp(CLIENT, ROUTER, port));
    }
    assert_eq!(before, (ran_at(daemon.pid()), ran_at(listener)));
    assert_knock_opens(&scene, &daemon);
    assert_ne!(
        before.1,
        ran_at(listener),
        "it must run when a client knocks"
    );
}

/// 20 doors, and too many tripwires for an exact filter.
fn a_thousand_tripwires_attach_and_attach_again() {
    let scene = Scene::new();
    let wires: Vec<String> = (0..1000).map(|n| (10_000 + 2 * n).to_string()).collect();
    let doors: Vec<String> = (1..=20)
        .map(|n| {
            format!(
                "[{n}]\nsequence = {0},{1},{2}:udp,{3}\ntcpflags = syn\n",
                9_000 + 5 * n,
                20_000 + 3 * n,
                500 + 3 * n,
                30_000 - 7 * n
            )
        })
        .collect();
    let options = format!("Tripwire = {}", wires.join(","));
    let daemon = scene.daemon_with_options(&options, &doors.concat());
    let knock = || scene.knock(ROUTER, &["9005", "20003", "503:udp", "29993"]);
    let tripped = || {
        scene.knock(
            ROUTER,
            &["9005", "10000", "20003", "11998", "503:udp", "29993"],
        )
    };
    // The filter merges nearby tripwires; the exact check does not.
    let between_tripwires = || {
        scene.knock(
            ROUTER,
            &["9005", "10001", "20003", "11997", "503:udp", "29993"],
        )
    };
    let opened = lines::opened(CLIENT, "1");
    for round in 1..=3 {
        if round % 2 == 0 {
            between_tripwires()
        } else {
            knock()
        }
        daemon.await_count(&opened, round);
        tripped();
        scene.fence(&daemon);
        assert_eq!(daemon.count(&opened), round, "the second tripwire ends it");
        match round {
            // A new address needs a new filter. The other case replaces the listener.
            1 => {
                scene.router.run("ip addr add 198.51.100.77/24 dev wan0");
                crate::lab::knock_until(&daemon, &lines::opened(CLIENT, "2"), || {
                    scene.knock("198.51.100.77", &["9010", "20006", "506:udp", "29986"]);
                });
            }
            2 => {
                daemon.signal(libc::SIGHUP);
                daemon.await_text(lines::IN_FORCE);
            }
            _ => {}
        }
    }
    assert_eq!(
        daemon.count("error"),
        0,
        "such as a filter that was refused"
    );
}

/// Replays the scenario of the DD-WRT wiki: three addresses take turns in a scan of 2,000 ports in
/// random order.
fn three_addresses_share_a_scan() {
    let scene = Scene::new();
    let daemon = scene.daemon_with_options("Tripwire = auto", DOORS);
    let ports = (1..2_003_u32).map(|n| (n * 1_237 % 2_003) as u16);
    for (number, port) in (0..).zip(ports) {
        let source = [CLIENT, OTHER, "198.51.100.4"][number as usize % 3];
        scene.wire.send(&packet::syn(source, ROUTER, port, number));
        std::thread::sleep(Duration::from_micros(500));
    }
    assert_nothing_opened(&scene, &daemon, "three addresses");
    assert_knock_opens(&scene, &daemon);
}
