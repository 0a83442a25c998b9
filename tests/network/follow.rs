//! Interfaces that appear, disappear and change: the daemon waits for them without waking up,
//! follows them at once, and logs each change in one line.

use crate::Test;
use crate::lab::latency::at_high_priority;
use crate::lab::{
    CLIENT, Daemon, Home, Namespace, ROUTER, Scene, Tun, Wire, children, daemon_binary, fence,
    knock_until, link, packet, set_address, set_up, signal, wait_for,
};
use crate::lifecycle::settled;
use crate::lines;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "each_change_of_an_interface_is_one_line",
        each_change_of_an_interface_is_one_line,
    ),
    (
        "each_change_of_the_default_route_is_one_line",
        each_change_of_the_default_route_is_one_line,
    ),
    ("other_routes_do_not_matter", other_routes_do_not_matter),
    (
        "an_immediate_redial_is_one_line",
        an_immediate_redial_is_one_line,
    ),
    (
        "waiting_for_an_interface_never_runs",
        waiting_for_an_interface_never_runs,
    ),
    (
        "a_mistyped_interface_is_reported_on_the_terminal",
        a_mistyped_interface_is_reported_on_the_terminal,
    ),
    (
        "one_interface_of_two_may_be_missing",
        one_interface_of_two_may_be_missing,
    ),
    (
        "a_missing_interface_at_a_reload_keeps_the_old_one",
        a_missing_interface_at_a_reload_keeps_the_old_one,
    ),
    (
        "an_ignored_interface_is_reported_on_reload",
        an_ignored_interface_is_reported_on_reload,
    ),
];

const HERE: &str = "10.64.0.1";
const NEW: &str = "10.64.0.5";
const PEER: &str = "10.64.0.2";
const HERE6: &str = "2001:db8:64::1";
const PEER6: &str = "2001:db8:64::2";

/// A namespace with a daemon that listens on `ppp0`, which does not exist.
fn start_without_interface() -> (Namespace, Home, Daemon) {
    let (router, home) = (Namespace::new("follow"), Home::new());
    // Avoid link-local addresses, which appear on their own when a link comes up.
    router.run("echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode");
    home.config("");
    let daemon = Daemon::start(&router, &home, &["-i", "ppp0"]);
    daemon.await_text("could not open ppp0");
    (router, home, daemon)
}

/// Checks that the next line about `ppp0` is the expected one.
struct Story<'a> {
    daemon: &'a Daemon,
    lines: usize,
}

impl Story<'_> {
    fn next(&mut self, line: &str) {
        self.lines += 1;
        let found = self.daemon.await_count("ppp0", self.lines);
        let found = found.trim_start_matches("listener: ");
        assert!(
            found.starts_with(line),
            "expected {line:?}, found {found:?}"
        );
    }
}

/// Checks that a knock from `source` is noticed, and that nothing about earlier changes remains to
/// be logged.
fn assert_receives(daemon: &Daemon, line: &Tun, source: &str, destination: &str) {
    knock_until(daemon, &lines::opened(source, "fence"), || {
        line.send(&packet::udp(source, destination, 9));
    });
}

/// Missing at the start, then present but down, without an address, IPv6 before IPv4, a new
/// address, down again, renamed, deleted, and created again with another index.
fn each_change_of_an_interface_is_one_line() {
    let (router, _home, daemon) = start_without_interface();
    // "could not open ppp0" and "starting up, waiting for ppp0", both on standard error.
    let mut story = Story {
        daemon: &daemon,
        lines: 2,
    };
    daemon.await_count("ppp0", 2);
    let errors = daemon.errors();
    assert!(
        errors.ends_with("waiting for it; available: lo\nstarting up, waiting for ppp0"),
        "{errors}"
    );

    let line = Tun::new(&router, "ppp0");
    story.next("ppp0 is down: waiting for it");
    router.run("ip link set ppp0 up");
    story.next("ppp0 has no address yet");
    router.run(&format!("ip addr add {HERE6}/64 dev ppp0 nodad"));
    story.next(&format!("ppp0: listening on ppp0 at {HERE6}"));
    assert_receives(&daemon, &line, PEER6, HERE6);
    router.run(&format!("ip addr add {HERE} peer {PEER} dev ppp0"));
    story.next(&format!("ppp0: listening on ppp0 at {HERE}, {HERE6}"));
    assert_receives(&daemon, &line, PEER, HERE);
    assert_receives(&daemon, &line, PEER6, HERE6);

    router.run(&format!("ip addr add {NEW} peer 10.64.0.6 dev ppp0"));
    story.next(&format!(
        "ppp0: listening on ppp0 at {HERE}, {NEW}, {HERE6}"
    ));
    assert_receives(&daemon, &line, PEER, NEW);
    router.run(&format!("ip addr del {HERE} peer {PEER} dev ppp0"));
    story.next(&format!("ppp0: listening on ppp0 at {NEW}, {HERE6}"));
    line.send(&packet::udp("10.64.0.3", HERE, 9));
    assert_receives(&daemon, &line, PEER, NEW);
    assert_eq!(daemon.count("10.64.0.3"), 0, "that address is gone");

    router.run("ip link set ppp0 down");
    story.next("ppp0 is down: waiting for it");
    // Setting the interface down removes its IPv6 addresses.
    router.run("ip link set ppp0 up");
    story.next(&format!("ppp0: listening on ppp0 at {NEW}"));
    assert_receives(&daemon, &line, PEER, NEW);

    // Older kernels rename an interface only while it is down.
    router.run("ip link set ppp0 down");
    story.next("ppp0 is down: waiting for it");
    router.run("ip link set ppp0 name old0; ip link set old0 up");
    story.next("ppp0 is gone: waiting for it");
    line.send(&packet::udp("10.64.0.4", NEW, 9));
    router.run("ip link set old0 down; ip link set old0 name ppp0");
    story.next("ppp0 is down: waiting for it");
    router.run("ip link set ppp0 up");
    story.next(&format!("ppp0: listening on ppp0 at {NEW}"));
    assert_receives(&daemon, &line, PEER, NEW);
    assert_eq!(
        daemon.count("10.64.0.4"),
        0,
        "it came in by another interface"
    );

    let before = router.index("ppp0");
    drop(line);
    story.next("ppp0 is gone: waiting for it");
    let line = Tun::new(&router, "ppp0");
    set_address(&router, "ppp0", HERE.parse().unwrap());
    set_up(&router, "ppp0");
    story.next(&format!("ppp0: listening on ppp0 at {HERE}"));
    assert!(router.index("ppp0") > before);
    assert_receives(&daemon, &line, PEER, HERE);
    settled(&daemon);
    assert_eq!(daemon.count("ppp0"), story.lines, "no line but these");
}

/// Everything happens within the 200 ms between a change and its log line.
fn an_immediate_redial_is_one_line() {
    at_high_priority(redial_at_once);
}

fn redial_at_once() {
    let (router, _home, daemon) = start_without_interface();
    let dial = || {
        let line = Tun::new(&router, "ppp0");
        set_address(&router, "ppp0", HERE.parse().unwrap());
        set_up(&router, "ppp0");
        line
    };
    let mut line = dial();
    daemon.await_text("ppp0: listening on ppp0 at");
    for times in 2..=5 {
        // The listener has slept, so any time that it remembers is old.
        settled(&daemon);
        drop(line);
        line = dial();
        daemon.await_count("ppp0: listening on ppp0 at", times);
        assert_receives(&daemon, &line, PEER, HERE);
    }
    settled(&daemon);
    assert_eq!(daemon.count("ppp0: listening on ppp0 at"), 5);
    assert_eq!(daemon.count("ppp0"), 2 + 5, "two at the start, one each");
}

fn each_change_of_the_default_route_is_one_line() {
    let scene = Scene::new();
    let (here, there) = link((&scene.wan, "eth1"), (&scene.router, "wan1"));
    scene.router.run("ip addr add 203.0.113.1/32 dev wan1");
    let second = Wire::open(&scene.wan, "eth1", here, there);
    let first = |source: &str| scene.wire.send(&packet::udp(source, ROUTER, 9));
    let second = |source: &str| second.send(&packet::udp(source, "203.0.113.1", 9));
    scene.home.config("");
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "auto"]);
    daemon.await_text("auto: no default route: waiting for one");
    daemon.await_text("starting up, waiting for auto");
    let mut count = 2;
    let mut next = |line: &str| {
        count += 1;
        let found = daemon.await_count("auto", count);
        let found = found.trim_start_matches("listener: ");
        assert!(
            found.starts_with(line),
            "expected {line:?}, found {found:?}"
        );
        count
    };
    scene.router.run("ip route add default dev wan0");
    next("auto: listening on wan0 at 198.51.100.1");
    second("203.0.113.77");
    fence(&daemon, CLIENT, || first(CLIENT));
    scene.router.run("ip route replace default dev wan1");
    next("auto: listening on wan1 at 203.0.113.1");
    first("203.0.113.77");
    fence(&daemon, CLIENT, || second(CLIENT));
    // The route of the other family is used.
    scene.router.run("ip -6 route add default dev wan0");
    next("auto (IPv6): listening on wan0 at 198.51.100.1");
    fence(&daemon, CLIENT, || first(CLIENT));
    scene.router.run("ip route del default");
    next("auto: listening on wan0 at 198.51.100.1");
    next("auto (IPv6): no interface of its own");
    fence(&daemon, CLIENT, || first(CLIENT));
    scene.router.run("ip -6 route del default");
    next("auto: no default route: waiting for one");
    scene.router.run("ip route add default dev wan1 metric 7");
    next("auto: listening on wan1 at 203.0.113.1");
    // A better route is added.
    scene.router.run("ip route add default dev wan0 metric 3");
    let count = next("auto: listening on wan0 at 198.51.100.1");
    fence(&daemon, CLIENT, || first(CLIENT));
    settled(&daemon);
    assert_eq!(daemon.count("auto"), count, "no line but these");
    assert_eq!(daemon.count("203.0.113.77"), 0, "by the wrong interface");
}

/// Missing, down, without an address, without a route: neither process runs at all.
fn waiting_for_an_interface_never_runs() {
    let places = [
        ("could not open ppp0: ppp0: No such device", "ppp0", "true"),
        (
            "ppp0 is down: waiting for it",
            "ppp0",
            "ip link add ppp0 type veth peer name far0",
        ),
        (
            "ppp0 has no address yet",
            "ppp0",
            "ip link add ppp0 type veth peer name far0; ip link set ppp0 addrgenmode none up",
        ),
        ("auto: no default route: waiting for one", "auto", "true"),
    ];
    let waiting = places.map(|(what, interface, script)| {
        let (router, home) = (Namespace::new("idle"), Home::new());
        router.run(script);
        home.config("");
        let log = home.path("log");
        let log = log.to_str().expect("path");
        let daemon = Daemon::start(&router, &home, &["-i", interface, "-g", log]);
        (what, router, home, daemon)
    });
    let before = waiting.each_ref().map(|(_, _, _, daemon)| settled(daemon));
    std::thread::sleep(Duration::from_secs(5));
    for ((what, router, home, daemon), before) in waiting.iter().zip(before) {
        // That line and `starting up`.
        let log = home.read("log");
        assert_eq!(log.matches(what).count(), 1, "{log}");
        assert_eq!(log.lines().count(), 2, "{log}");
        assert_eq!(daemon.count(what), 1, "not logged on the terminal");
        assert_eq!(crate::lifecycle::ran(daemon), before, "{what}");
        router.run(
            "ip link show dev ppp0 > /dev/null 2>&1 || ip link add ppp0 type veth peer name far0
             ip addr add 10.64.0.1/24 dev ppp0
             ip link set ppp0 up
             ip route add default dev ppp0",
        );
        daemon.await_text(": listening on ppp0 at 10.64.0.1");
        assert_ne!(crate::lifecycle::ran(daemon), before, "{what}");
    }
}

fn a_mistyped_interface_is_reported_on_the_terminal() {
    let scene = Scene::new();
    scene.home.config("");
    let pid = scene.home.path("pid");
    let mut command = scene
        .router
        .command(daemon_binary().to_str().expect("path"));
    command
        .args(["-d", "-i", "wan7", "-c"])
        .arg(scene.home.path("knockd.conf"))
        .arg("-p")
        .arg(&pid);
    let output = command.output().expect("knockd -d");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "could not open wan7: wan7: No such device exists: waiting for it; available: lo, wan0\n\
         starting up, waiting for wan7\n"
    );
    let number: u32 = scene.home.read("pid").trim().parse().expect("pid");
    signal(number, libc::SIGTERM);
    wait_for("the end of the daemon", || (!pid.exists()).then_some(()));
}

fn one_interface_of_two_may_be_missing() {
    let scene = Scene::new();
    scene.home.config("");
    // The list of available interfaces cannot show this name.
    scene
        .router
        .run("ip link add \"$(printf 'x\\001y')\" type veth peer name far0");
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "ppp0,wan0"]);
    daemon.await_text("could not open ppp0: ppp0: No such device exists: waiting for it");
    scene.fence(&daemon);
    let line = Tun::new(&scene.router, "ppp0");
    set_address(&scene.router, "ppp0", HERE.parse().unwrap());
    set_up(&scene.router, "ppp0");
    assert_receives(&daemon, &line, PEER, HERE);
    scene.fence(&daemon);
}

fn a_missing_interface_at_a_reload_keeps_the_old_one() {
    let scene = Scene::new();
    scene.home.config_with_options("Interface = wan0\n", "");
    let daemon = Daemon::start(&scene.router, &scene.home, &[]);
    scene.home.config_with_options("Interface = wan7\n", "");
    daemon.signal(libc::SIGHUP);
    daemon.await_text("wan7: No such device exists; available: lo, wan0");
    daemon.await_text("configuration not reloaded");
    scene.fence(&daemon);
}

fn an_ignored_interface_is_reported_on_reload() {
    let scene = Scene::new();
    scene.home.config("");
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    scene.home.config_with_options("Interface = wan7\n", "");
    daemon.signal(libc::SIGHUP);
    daemon.await_text("warning: new Interface ignored: knockd was started with -i wan0");
    daemon.await_text(lines::IN_FORCE);
    scene.fence(&daemon);
}

/// From the moment that the interface is up with an address until a knock is noticed, over 20
/// redials each: with idle CPUs, and with all of them busy.
pub fn a_redial_is_followed_within_100_ms() {
    let limit = Duration::from_millis(100);
    let show = |what: &str, times: &[Duration]| {
        let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
        println!("redial to knock, {what}: median {median:?}, max {max:?}");
        (median, max)
    };
    let (_, max) = show("free", &at_high_priority(redials));
    assert!(max < limit, "{max:?}");
    let stop = AtomicBool::new(false);
    let times = std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let times = std::panic::catch_unwind(redials);
        stop.store(true, Ordering::Relaxed);
        times.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // Other load on the machine can delay single redials in this round too.
    let (median, _) = show("busy", &times);
    assert!(median < limit, "{times:?}");
}

/// The times of 20 redials, sorted.
fn redials() -> Vec<Duration> {
    let (router, _home, daemon) = start_without_interface();
    let round = |number: usize| {
        let line = Tun::new(&router, "ppp0");
        let address = HERE.parse().unwrap();
        // pppd sets the address first or last.
        let start = if number.is_multiple_of(2) {
            set_address(&router, "ppp0", address);
            let start = Instant::now();
            set_up(&router, "ppp0");
            start
        } else {
            set_up(&router, "ppp0");
            let start = Instant::now();
            set_address(&router, "ppp0", address);
            start
        };
        let mut sent = Vec::new();
        let seen = loop {
            let source = format!("10.{}.{}.9", 65 + number, sent.len());
            sent.push(start.elapsed());
            line.send(&packet::udp(&source, HERE, 9));
            std::thread::sleep(Duration::from_millis(1));
            let opened = |n: &usize| {
                let source = format!("10.{}.{n}.9", 65 + number);
                daemon.count(&lines::opened(&source, "fence")) > 0
            };
            if let Some(first) = (0..sent.len()).find(opened) {
                break sent[first];
            }
            assert!(sent.len() < 250, "no knock is seen");
        };
        let last = |what: &str| {
            wait_for(what, || {
                let last = daemon.output().into_iter().rfind(|l| l.contains("ppp0"));
                last.filter(|line| line.contains(what))
            });
        };
        let at_rest = number.is_multiple_of(3);
        if at_rest {
            last("ppp0: listening");
        }
        drop(line);
        if at_rest {
            last("ppp0 is gone");
        }
        seen
    };
    let mut times: Vec<Duration> = (0..20).map(round).collect();
    times.sort();
    times
}

/// With `auto`, of all changes by a routing daemon, only those of the default route make the
/// listener query routes. Observed through the requests that it sends.
fn other_routes_do_not_matter() {
    let scene = Scene::new();
    scene.router.run("ip route add default dev wan0");
    scene.home.config("");
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "auto"]);
    daemon.await_text("auto: listening on wan0");
    settled(&daemon);
    let trace = scene.home.path("trace");
    let mut command = std::process::Command::new("strace");
    command.args(["-e", "trace=sendto", "-p"]);
    command.arg(children(daemon.pid())[0].to_string());
    let mut strace = Daemon::run({
        command.arg("-o").arg(&trace);
        command
    });
    strace.await_text("attached");
    scene.router.run(
        "for a in 0 1 2 3; do for b in 0 1 2 3 4 5 6 7 8 9; do
             ip route add 10.$a.$b.0/24 dev wan0; ip -6 route add 2001:db8:$a:$b::/64 dev wan0
         done; done
         ip route add default dev lo table 7",
    );
    settled(&daemon);
    assert_eq!(scene.home.read("trace"), "");
    scene.router.run("ip route del default");
    daemon.await_text("auto: no default route");
    strace.signal(libc::SIGINT);
    strace.wait();
    assert_ne!(
        scene.home.read("trace"),
        "",
        "this test must see what it sends"
    );
}
