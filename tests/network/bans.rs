//! Bans on a real wire: who is banned, for how long, and who is exempt.

use crate::Test;
use crate::control::{json, said};
use crate::lab::{CLIENT, Daemon, LAN_HOST, OTHER, ROUTER, Scene, packet, wait_for};
use crate::lease::{STEPS, await_notes};
use crate::lines;
use crate::scans::DOORS;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "a_flood_of_scanners_costs_few_looks_at_the_networks",
        a_flood_of_scanners_costs_few_looks_at_the_networks,
    ),
    (
        "three_addresses_share_a_scan_and_are_banned",
        three_addresses_share_a_scan_and_are_banned,
    ),
    (
        "a_banned_source_opens_nothing",
        a_banned_source_opens_nothing,
    ),
    (
        "exempt_addresses_are_never_banned",
        exempt_addresses_are_never_banned,
    ),
    ("a_ban_is_kept_as_a_lease_is", a_ban_is_kept_as_a_lease_is),
    ("the_oldest_ban_makes_room", the_oldest_ban_makes_room),
    (
        "many_bans_at_once_stay_within_the_limit",
        many_bans_at_once_stay_within_the_limit,
    ),
    (
        "a_config_that_wants_no_ban_ends_it",
        a_config_that_wants_no_ban_ends_it,
    ),
    ("status_and_close_know_bans", status_and_close_know_bans),
    ("forged_bans_cost_little", forged_bans_cost_little),
    ("services_are_no_tripwires", services_are_no_tripwires),
    ("lan_traffic_bans_no_one", lan_traffic_bans_no_one),
];

/// Internet hosts that are in none of the router's networks.
const SCANNERS: [&str; 3] = ["203.0.113.5", "203.0.113.6", "192.0.2.7"];

/// The third tripwire hit bans.
const BANS: &str = "TripwireHits = 3
    BanCommand = iptables -w -I INPUT -s %IP% -m state --state NEW -j DROP
    UnbanCommand = iptables -w -D INPUT -s %IP% -m state --state NEW -j DROP\n";

/// Opens to [`STEPS`] for ten minutes.
const SSH: &str = "[SSH]
    sequence = 7000,8000:udp,9000
    tcpflags = syn
    cmd_timeout = 600
    start_command = echo start >> @HOME@/notes
    stop_command = echo stop >> @HOME@/notes\n";

/// Starts a daemon with [`BANS`], further options and doors.
fn start(scene: &Scene, options: &str, doors: &str) -> Daemon {
    scene.daemon_with_options(&format!("{BANS}{options}"), doors)
}

/// Tripwire ports.
const WIRES: &str = "Tripwire = 1-9\n";

/// Sends a SYN from `source` to each of these ports.
fn scan(scene: &Scene, source: &str, ports: impl IntoIterator<Item = u16>) {
    for port in ports {
        let packet = packet::syn(source, ROUTER, port, port.into());
        scene.wire.send(&packet);
    }
}

/// Sends the door's steps from a forged address.
fn knock_as(scene: &Scene, source: &str) {
    scene.wire.send(&packet::syn(source, ROUTER, 7000, 1));
    scene.wire.send(&packet::udp(source, ROUTER, 8000));
    scene.wire.send(&packet::syn(source, ROUTER, 9000, 2));
}

/// The source addresses that iptables drops.
fn dropped(scene: &Scene) -> Vec<String> {
    let rules = scene.router.run("iptables -w -S INPUT");
    let source = |rule: &str| {
        let rest = rule.strip_prefix("-A INPUT -s ")?;
        let source = rest.strip_suffix("/32 -m state --state NEW -j DROP")?;
        Some(source.to_string())
    };
    let mut sources: Vec<String> = rules.lines().filter_map(source).collect();
    sources.sort();
    sources
}

fn await_dropped(scene: &Scene, sources: &[&str]) {
    wait_for(&format!("rules for {sources:?}"), || {
        (dropped(scene) == sources).then_some(())
    });
}

/// Replays the scenario of the DD-WRT wiki, with 2,000 ports and short times.
fn three_addresses_share_a_scan_and_are_banned() {
    let scene = Scene::new();
    let daemon = start(&scene, "Tripwire = auto\nBanTime = 10\n", DOORS);
    let ports: Vec<u16> = (1..2_003_u32).map(|n| (n * 1_237 % 2_003) as u16).collect();
    let (first, rest) = ports.split_at(ports.len() / 2);
    let send = |ports: &[u16]| {
        for (number, port) in ports.iter().enumerate() {
            scan(&scene, SCANNERS[number % 3], [*port]);
            std::thread::sleep(Duration::from_micros(500));
        }
        scene.fence(&daemon);
    };
    send(first);
    for source in SCANNERS {
        daemon.await_text(&format!("{source}: banned for 10 s: hit tripwires"));
    }
    let mut sorted = SCANNERS;
    sorted.sort_unstable();
    await_dropped(&scene, &sorted);
    send(rest);
    assert_eq!(
        daemon.count("OPEN SESAME"),
        daemon.count(": fence: OPEN SESAME")
    );
    for source in SCANNERS {
        daemon.await_text(&format!("{source}: ban: expired"));
    }
    await_dropped(&scene, &[]);
}

/// The keeper reads the machine's networks only for a client that it is about to ban.
fn a_flood_of_scanners_costs_few_looks_at_the_networks() {
    let scene = Scene::new();
    let daemon = start(&scene, WIRES, SSH);
    let trace = scene.home.path("trace");
    let mut command = std::process::Command::new("strace");
    command.args(["-e", "trace=socket", "-p"]);
    command.arg(daemon.pid().to_string()).arg("-o").arg(&trace);
    let mut strace = Daemon::run(command);
    strace.await_text("attached");
    let begin = Instant::now();
    for number in 1..=90 {
        scan(&scene, &format!("203.0.113.{number}"), 1..=3);
    }
    scene.fence(&daemon);
    let seconds = begin.elapsed().as_secs_f64();
    strace.signal(libc::SIGINT);
    strace.wait();
    let looks = scene.home.read("trace").matches("AF_NETLINK").count();
    assert!(looks > 0, "it never read the networks");
    assert!(
        looks as f64 <= 17.0 + 4.0 * seconds,
        "{looks} in {seconds} s"
    );
}

fn a_banned_source_opens_nothing() {
    let scene = Scene::new();
    let daemon = start(&scene, WIRES, SSH);
    let [scanner, other, _] = SCANNERS;
    scan(&scene, scanner, [1, 2]);
    knock_as(&scene, scanner);
    await_notes(&scene, "start", 1);
    scan(&scene, other, [1, 2, 3]);
    await_dropped(&scene, &[other]);
    knock_as(&scene, other);
    daemon.await_text(&format!(
        "{other}: SSH: knock from a banned source: not opened"
    ));
    // Other clients are not affected.
    scene.knock(ROUTER, STEPS);
    daemon.await_text(&lines::opened(CLIENT, "SSH"));
    await_notes(&scene, "start", 2);
    assert_eq!(daemon.count(&lines::opened(other, "SSH")), 0);
}

fn exempt_addresses_are_never_banned() {
    let scene = Scene::new();
    let options = format!("{WIRES}Allow = 203.0.113.4/30, 2001:db8:9::/48\n");
    // As on a point-to-point link, where the network is that of the far end.
    scene
        .router
        .run("ip addr add 10.77.0.1 peer 10.88.0.9/24 dev wan0");
    let daemon = start(&scene, &options, SSH);
    let [allowed, also_allowed, with_door] = SCANNERS;
    knock_as(&scene, with_door);
    await_notes(&scene, "start", 1);
    for (source, why) in [
        (allowed, "it is in Allow"),
        (also_allowed, "it is in Allow"),
        (with_door, "a door is open for it"),
        (OTHER, "it is in a network of this machine"),
        ("10.88.0.77", "it is in a network of this machine"),
    ] {
        scan(&scene, source, [1, 2, 3]);
        daemon.await_text(&format!(
            "{source}: not banned although it hit tripwires: {why}"
        ));
    }
    // UDP packets, replies, and packets to another host do not count.
    let stranger = "192.0.2.99";
    for port in 1..=9 {
        scene.wire.send(&packet::udp(stranger, ROUTER, port));
        scene.wire.send(&packet::syn_ack(stranger, ROUTER, port));
        scene.wire.send(&packet::syn(stranger, OTHER, port, 1));
    }
    scene.fence(&daemon);
    assert_eq!(daemon.count(": banned for "), 0);
    assert_eq!(dropped(&scene), [""; 0]);
    scan(&scene, "10.77.0.9", [1, 2, 3]);
    await_dropped(&scene, &["10.77.0.9"]);
    scan(&scene, stranger, [1, 2, 3]);
    await_dropped(&scene, &["10.77.0.9", stranger]);
}

fn a_ban_is_kept_as_a_lease_is() {
    let scene = Scene::new();
    let mut daemon = start(&scene, WIRES, SSH);
    let [scanner, ..] = SCANNERS;
    scan(&scene, scanner, [1, 2, 3]);
    await_dropped(&scene, &[scanner]);
    // A firewall restart, followed by the signal.
    scene.router.run(&format!(
        "iptables -w -D INPUT -s {scanner} -m state --state NEW -j DROP"
    ));
    daemon.signal(libc::SIGUSR1);
    daemon.await_text("re-applying 0 open doors and 1 bans");
    await_dropped(&scene, &[scanner]);
    // After a reload, even one that changes the ban command, there is still one rule and one ban.
    let others = BANS.replace("INPUT", "INPUT -p tcp");
    let options = format!("{others}{WIRES}");
    scene.home.config_with_options(&options, SSH);
    daemon.signal(libc::SIGHUP);
    daemon.await_text(lines::IN_FORCE);
    scan(&scene, scanner, [4, 5, 6]);
    daemon.await_text(&format!("{scanner}: ban: timer restarted"));
    assert_eq!(dropped(&scene), [scanner]);
    assert_eq!(json(&scene)["bans"].as_array().map(Vec::len), Some(1));
    knock_as(&scene, scanner);
    let refused = format!("{scanner}: SSH: knock from a banned source");
    daemon.await_text(&refused);
    let left = || json(&scene)["bans"][0]["left_ms"].as_u64().expect("a ban");
    let before = left();
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    let mut daemon = start(&scene, WIRES, SSH);
    daemon.await_text("0 open doors and 1 bans taken over");
    assert!((1..=before).contains(&left()), "{} of {before}", left());
    assert_eq!(dropped(&scene), [scanner]);
    knock_as(&scene, scanner);
    daemon.await_text(&refused);
    daemon.signal(libc::SIGTERM);
    daemon.wait();
    assert_eq!(dropped(&scene), [""; 0]);
}

fn the_oldest_ban_makes_room() {
    let scene = Scene::new();
    let daemon = start(&scene, &format!("{WIRES}MaxBans = 2\n"), SSH);
    for source in SCANNERS {
        scan(&scene, source, [1, 2, 3]);
        daemon.await_text(&format!("{source}: banned for 600 s: hit tripwires"));
    }
    daemon.await_text(&format!("{}: ban: ended early, too many bans", SCANNERS[0]));
    await_dropped(&scene, &[SCANNERS[2], SCANNERS[1]]);
    // One more tripwire hit restarts the timer, so this ban is no longer the oldest.
    scan(&scene, SCANNERS[1], [4]);
    daemon.await_text(&format!("{}: ban: timer restarted", SCANNERS[1]));
    scan(&scene, SCANNERS[0], [4]);
    await_dropped(&scene, &[SCANNERS[0], SCANNERS[1]]);
}

/// However many bans start at once, the number of rules soon drops to the limit.
fn many_bans_at_once_stay_within_the_limit() {
    let scene = Scene::new();
    let daemon = start(&scene, &format!("{WIRES}MaxBans = 1\n"), SSH);
    let sources: Vec<String> = (10..22).map(|n| format!("203.0.113.{n}")).collect();
    for source in &sources {
        scan(&scene, source, [1, 2, 3]);
    }
    for source in &sources {
        daemon.await_text(&format!("{source}: banned for 600 s"));
    }
    daemon.await_count("ended early, too many bans", sources.len() - 1);
    await_dropped(&scene, &[&sources[11]]);
}

fn a_config_that_wants_no_ban_ends_it() {
    let scene = Scene::new();
    let mut daemon = start(&scene, WIRES, SSH);
    let [mine, other, _] = SCANNERS;
    for source in [mine, other] {
        scan(&scene, source, [1, 2, 3]);
    }
    await_dropped(&scene, &[mine, other]);
    // A user who is locked out adds their own address.
    let options = format!("{BANS}{WIRES}Allow = {mine}\n");
    scene.home.config_with_options(&options, SSH);
    daemon.signal(libc::SIGHUP);
    await_dropped(&scene, &[other]);
    daemon.await_text(lines::IN_FORCE);
    knock_as(&scene, mine);
    daemon.await_text(&lines::opened(mine, "SSH"));
    // The same after a crash.
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    let daemon = start(&scene, &format!("{WIRES}Allow = {other}\n"), SSH);
    await_dropped(&scene, &[]);
    scan(&scene, SCANNERS[2], [1, 2, 3]);
    await_dropped(&scene, &[SCANNERS[2]]);
    scene.home.config_with_options(WIRES, SSH);
    daemon.signal(libc::SIGHUP);
    await_dropped(&scene, &[]);
}

fn status_and_close_know_bans() {
    let scene = Scene::new();
    let daemon = start(&scene, WIRES, SSH);
    scene.knock(ROUTER, STEPS);
    daemon.await_text(&lines::opened(CLIENT, "SSH"));
    let [scanner, ..] = SCANNERS;
    scan(&scene, scanner, [1, 2, 3]);
    await_dropped(&scene, &[scanner]);
    let status = wait_for("a ban in the status", || {
        Some(json(&scene)).filter(|status| !status["bans"][0]["left_ms"].is_null())
    });
    assert_eq!(status["bans"][0]["source"], scanner, "{status}");
    assert_eq!(status["bans"][0]["state"], "banned", "{status}");
    assert_eq!(
        status["leases"].as_array().map(Vec::len),
        Some(1),
        "{status}"
    );
    let left = status["bans"][0]["left_ms"].as_u64().unwrap();
    assert!((590_000..=600_000).contains(&left), "{left}");
    let text = said(&scene, &["--status"]);
    assert!(
        text.contains(&format!("bans\n  ban, {scanner}: banned, 9 min ")),
        "{text}"
    );
    said(&scene, &["--close", "ban", scanner]);
    await_dropped(&scene, &[]);
    knock_as(&scene, scanner);
    daemon.await_text(&lines::opened(scanner, "SSH"));
}

/// An attacker can forge source addresses to get them banned, but this must not use up the router's
/// CPU.
fn forged_bans_cost_little() {
    let scene = Scene::new();
    let begin = Instant::now();
    let daemon = start(&scene, &format!("{WIRES}MaxBans = 256\n"), SSH);
    for number in 0..3_000_u32 {
        let source = format!("203.0.{}.{}", number / 250, number % 250 + 1);
        scan(&scene, &source, [1, 2, 3]);
        if number % 100 == 0 {
            scene.fence(&daemon);
        }
    }
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 1);
    let most = 17 + (4.0 * begin.elapsed().as_secs_f64()) as usize;
    let bans = daemon.count(": banned for 600 s");
    assert!((16..=most).contains(&bans), "{bans} of {most}");
    wait_for("the rules", || {
        (dropped(&scene).len() == bans).then_some(())
    });
}

/// With `auto` the ports next to a step are tripwires, except those with a listening service.
fn services_are_no_tripwires() {
    let scene = Scene::new();
    let _service = scene
        .router
        .enter(|| TcpListener::bind((ROUTER, 7001)).unwrap());
    let _service6 = scene
        .router
        .enter(|| TcpListener::bind("[::]:6999").unwrap());
    let options = "Tripwire = auto\nTripwireHits = 1\n";
    let daemon = start(&scene, options, "[D]\nsequence = 7000,8000\n");
    let [visitor, scanner, _] = SCANNERS;
    scan(&scene, visitor, [7001, 6999]);
    scan(&scene, scanner, [8001]);
    daemon.await_text(&format!("{scanner}: banned for "));
    assert_eq!(daemon.count(&format!("{visitor}: banned for ")), 0);
}

/// Every ephemeral port of the router is a tripwire, and all of them receive replies for a LAN
/// host.
fn lan_traffic_bans_no_one() {
    const SERVER: &str = "203.0.113.53";
    const PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;
    let scene = Scene::new();
    let lan = scene.add_lan();
    scene.wan.run(&format!("ip addr add {SERVER}/32 dev eth0"));
    scene
        .router
        .run(&format!("ip route add {SERVER} via {CLIENT}"));
    let options = "Tripwire = 1024-65535\nTripwireHits = 1\n";
    let daemon = start(&scene, options, "[D]\nsequence = 900,800\n");

    // Datagrams from each port, and the replies.
    let server = scene.wan.enter(|| UdpSocket::bind((SERVER, 53)).unwrap());
    lan.enter(|| {
        for port in PORTS {
            let host = UdpSocket::bind((LAN_HOST, port)).unwrap();
            host.send_to(b"?", (SERVER, 53)).unwrap();
            let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
            // Masquerading keeps the port where possible.
            assert_eq!(from.to_string(), format!("{ROUTER}:{port}"));
            server.send_to(b"!", from).unwrap();
            host.recv(&mut [0; 8]).unwrap();
        }
    });
    // Connections.
    let server = scene.wan.enter(|| TcpListener::bind((SERVER, 80)).unwrap());
    for _ in 0..300 {
        let there = lan.enter(|| TcpStream::connect((SERVER, 80)).unwrap());
        let (here, _) = server.accept().unwrap();
        drop((there, here));
    }
    // Late replies, which no socket waits for any more.
    for port in PORTS {
        scene.wire.send(&packet::udp(SERVER, ROUTER, port));
        scene.wire.send(&packet::syn_ack(SERVER, ROUTER, port));
        if port % 200 == 0 {
            scene.fence(&daemon);
        }
    }
    scene.fence(&daemon);
    assert_eq!(daemon.count(": banned for "), 0);
    // The daemon has seen all packets, and a SYN does ban.
    let seen = json(&scene)["listener"]["knocks"].as_u64().unwrap();
    assert!(seen > u64::from(PORTS.end() - PORTS.start()), "{seen}");
    scan(&scene, SERVER, [40_000]);
    daemon.await_text(&format!("{SERVER}: banned for 600 s"));
}
