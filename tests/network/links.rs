//! Doors on every kind of link: Ethernet with and without tags, `lo`, several interfaces, and
//! interfaces that appear later.

use crate::Test;
use crate::lab::{
    CLIENT, CLIENT6, Daemon, Home, LAN_HOST, Namespace, OTHER, ROUTER, ROUTER6, Scene, Wire, fence,
    knock, knock_until, link, packet,
};
use crate::lines;

pub const TESTS: &[Test] = &[
    ("udp_and_tcp_mixed", udp_and_tcp_mixed),
    ("ipv6", ipv6),
    (
        "tagged_frames_do_not_count_on_the_parent",
        tagged_frames_do_not_count_on_the_parent,
    ),
    (
        "a_source_that_no_reply_would_reach_does_not_count",
        a_source_that_no_reply_would_reach_does_not_count,
    ),
    ("lo", lo),
    ("two_interfaces", two_interfaces),
    (
        "an_interface_may_be_named_two_hundred_times",
        an_interface_may_be_named_two_hundred_times,
    ),
    (
        "a_host_of_the_lan_knocks_at_the_wan_address",
        a_host_of_the_lan_knocks_at_the_wan_address,
    ),
    ("auto_takes_the_default_route", auto_takes_the_default_route),
    (
        "auto_takes_the_default_routes_of_both_families",
        auto_takes_the_default_routes_of_both_families,
    ),
    (
        "auto_waits_for_a_default_route",
        auto_waits_for_a_default_route,
    ),
    (
        "without_eth0_and_a_name_it_is_auto",
        without_eth0_and_a_name_it_is_auto,
    ),
    ("interface_up_later", interface_up_later),
    ("address_added_later", address_added_later),
];

/// A door with UDP and TCP steps, whose command writes the client's address.
const DOOR: &str = "[A]
    sequence = 7000:udp,8000:tcp,9000:udp
    tcpflags = syn
    command = echo %IP% >> @HOME@/opened
";
const STEPS: &[&str] = &["7000:udp", "8000:tcp", "9000:udp"];

/// Three UDP steps, for packets that the test builds.
const UDP_DOOR: &str = "[A]\nsequence = 1:udp,2:udp,3:udp\n";

fn udp_and_tcp_mixed() {
    let scene = Scene::new();
    let daemon = scene.daemon(DOOR);
    // The right ports over the wrong transport do not count.
    scene.knock(ROUTER, &["7000:tcp", "8000:udp", "9000:tcp"]);
    scene.fence(&daemon);
    assert_eq!(daemon.count("A: Stage"), 0);
    scene.knock(ROUTER, STEPS);
    for number in 1..=3 {
        daemon.await_text(&lines::stage(CLIENT, "A", number));
    }
    daemon.await_text(&lines::opened(CLIENT, "A"));
    await_file(&scene.home, CLIENT);
}

fn ipv6() {
    let scene = Scene::new();
    let daemon = scene.daemon(DOOR);
    scene.knock(ROUTER6, STEPS);
    daemon.await_text(&lines::opened(CLIENT6, "A"));
    await_file(&scene.home, CLIENT6);
}

fn tagged_frames_do_not_count_on_the_parent() {
    let scene = Scene::new();
    let daemon = scene.daemon("[A]\nsequence = 1:udp\n");
    let knock = |vlan| {
        for (source, target) in [(CLIENT, ROUTER), (CLIENT6, ROUTER6)] {
            scene
                .wire
                .send_tagged(vlan, &packet::udp(source, target, 1));
        }
    };
    for priority in [0, 0xa000] {
        knock(priority + 5);
    }
    scene.fence(&daemon);
    assert_eq!(daemon.count("A: Stage"), 0);
    // VLAN 0 carries only a priority. Such a frame belongs to the parent interface.
    for (priority, times) in [(0, 1), (0xa000, 2)] {
        knock(priority);
        daemon.await_count(&lines::opened(CLIENT, "A"), times);
        daemon.await_count(&lines::opened(CLIENT6, "A"), times);
    }
}

/// On lo, the machine's own addresses are those of its users, see [`lo`].
fn a_source_that_no_reply_would_reach_does_not_count() {
    let scene = Scene::new();
    let daemon = scene.daemon("[A]\nsequence = 1:udp\n");
    let own = [ROUTER, "127.0.0.1", "127.1.2.3"];
    for source in own.into_iter().chain(["198.51.100.255", "0.1.2.3"]) {
        scene.wire.send(&packet::udp(source, ROUTER, 1));
    }
    for source in [ROUTER6, "::1", "::ffff:198.51.100.9"] {
        scene.wire.send(&packet::udp(source, ROUTER6, 1));
    }
    scene.fence(&daemon);
    assert_eq!(daemon.count("A: "), 0);
    scene.wire.send(&packet::udp(CLIENT, ROUTER, 1));
    daemon.await_text(&lines::opened(CLIENT, "A"));
}

fn lo() {
    let (host, home) = (Namespace::new("lo"), Home::new());
    home.config("[A]\nsequence = 1:udp,1:udp\ntcpflags = syn\n");
    let daemon = Daemon::start(&host, &home, &["-i", "lo"]);
    for (address, other) in [("127.0.0.1", "::1"), ("::1", "127.0.0.1")] {
        // Each packet counts once, although lo shows it leaving and arriving.
        knock(&host, address, &["1:udp"]);
        daemon.await_text(&lines::stage(address, "A", 1));
        fence(&daemon, other, || knock(&host, other, &["9:udp"]));
        assert_eq!(daemon.count(&lines::stage(address, "A", 2)), 0);
        knock(&host, address, &["1:udp"]);
        daemon.await_text(&lines::opened(address, "A"));
    }
}

/// Adds two links from the router, `wan1` and `wan2`, to the same Internet host.
fn more_links(scene: &Scene) -> [Wire; 2] {
    [1, 2].map(|n| {
        let (here, there) = link(
            (&scene.wan, &format!("eth{n}")),
            (&scene.router, &format!("wan{n}")),
        );
        scene
            .router
            .run(&format!("ip addr add 203.0.113.{n}/32 dev wan{n}"));
        Wire::open(&scene.wan, &format!("eth{n}"), here, there)
    })
}

fn send_door(wire: &Wire, source: &str, destination: &str) {
    for port in 1..=3 {
        wire.send(&packet::udp(source, destination, port));
    }
}

fn two_interfaces() {
    let scene = Scene::new();
    let [second, third] = more_links(&scene);
    scene.home.config(UDP_DOOR);
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0,wan1"]);
    send_door(&third, "203.0.113.202", "203.0.113.2");
    send_door(&third, "203.0.113.200", ROUTER);
    send_door(&second, "203.0.113.201", "203.0.113.1");
    daemon.await_text(&lines::opened("203.0.113.201", "A"));
    send_door(&scene.wire, CLIENT, ROUTER);
    daemon.await_text(&lines::opened(CLIENT, "A"));
    scene.fence(&daemon);
    assert_eq!(daemon.count("203.0.113.202"), 0, "wan2 was not asked for");
    assert_eq!(daemon.count("203.0.113.200"), 0, "wan2 was not asked for");
}

/// It gets the router's address from the DNS, like hosts outside.
fn a_host_of_the_lan_knocks_at_the_wan_address() {
    let scene = Scene::new();
    let lan = scene.add_lan();
    scene.home.config(DOOR);
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0,lan0"]);
    knock(&lan, ROUTER, STEPS);
    daemon.await_text(&lines::opened(LAN_HOST, "A"));
    await_file(&scene.home, LAN_HOST);
}

fn auto_takes_the_default_route() {
    let scene = Scene::new();
    let [second, _third] = more_links(&scene);
    scene.router.run("ip route add default dev wan1");
    scene.home.config(UDP_DOOR);
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "auto"]);
    send_door(&scene.wire, CLIENT, ROUTER);
    send_door(&second, "203.0.113.201", "203.0.113.1");
    daemon.await_text(&lines::opened("203.0.113.201", "A"));
    fence(&daemon, "203.0.113.209", || {
        second.send(&packet::udp("203.0.113.209", "203.0.113.1", 9));
    });
    assert_eq!(daemon.count(CLIENT), 0, "wan0 has no default route");
}

/// For example, IPv6 through a tunnel.
fn auto_takes_the_default_routes_of_both_families() {
    let scene = Scene::new();
    let [second, _third] = more_links(&scene);
    scene.router.run(
        "ip addr add 2001:db8:1::1/64 dev wan1 nodad
         ip route add default dev wan0
         ip -6 route add default dev wan1",
    );
    scene.home.config(UDP_DOOR);
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "auto"]);
    daemon.await_text("auto: listening on wan0 at ");
    daemon.await_text("auto (IPv6): listening on wan1 at ");
    send_door(&scene.wire, CLIENT, ROUTER);
    daemon.await_text(&lines::opened(CLIENT, "A"));
    send_door(&second, "2001:db8:1::9", "2001:db8:1::1");
    daemon.await_text(&lines::opened("2001:db8:1::9", "A"));
    // If both families share an interface, each of its packets counts once.
    scene.router.run("ip -6 route replace default dev wan0");
    daemon.await_text("auto (IPv6): no interface of its own");
    scene.wire.send(&packet::udp(OTHER, ROUTER, 1));
    scene.fence(&daemon);
    assert_eq!(daemon.count(&lines::stage(OTHER, "A", 1)), 1);
}

fn auto_waits_for_a_default_route() {
    let scene = Scene::new();
    scene.home.config(UDP_DOOR);
    let mut daemon = Daemon::spawn(&scene.router, &scene.home, &["-i", "auto"]);
    scene
        .router
        .run(&format!("ip route add default via {CLIENT}"));
    let opened = lines::opened(CLIENT, "A");
    knock_until(&daemon, &opened, || send_door(&scene.wire, CLIENT, ROUTER));
    assert!(daemon.is_alive());
}

/// With neither `Interface` nor `-i`, eth0 is used if it exists, as in 0.8.
fn without_eth0_and_a_name_it_is_auto() {
    const TAKEN: &str = "warning: no interface is named and there is no eth0: using auto";
    let scene = Scene::new();
    scene.home.config(UDP_DOOR);
    let daemon = Daemon::start(&scene.router, &scene.home, &[]);
    daemon.await_text(TAKEN);
    daemon.await_text("starting up, waiting for auto");
    scene
        .router
        .run(&format!("ip route add default via {CLIENT}"));
    let opened = lines::opened(CLIENT, "A");
    knock_until(&daemon, &opened, || send_door(&scene.wire, CLIENT, ROUTER));
    assert_eq!(daemon.count("listening on eth0"), 0);
    // The same on a reload, which would reject a missing interface.
    daemon.signal(libc::SIGHUP);
    daemon.await_text(lines::IN_FORCE);
    daemon.await_count(TAKEN, 2);
    drop(daemon);

    scene
        .router
        .run("ip link add eth0 type veth peer name far0; ip link set eth0 up");
    let daemon = Daemon::start(&scene.router, &scene.home, &[]);
    daemon.await_text("listening on eth0...");
    assert_eq!(daemon.count(TAKEN), 0);
}

fn interface_up_later() {
    let scene = Scene::new();
    scene.router.run("ip link set wan0 down");
    scene.home.config(UDP_DOOR);
    let mut daemon = Daemon::spawn(&scene.router, &scene.home, &["-i", "wan0"]);
    daemon.await_text(lines::WAITING);
    assert_eq!(daemon.count(lines::LISTENING), 0);
    scene.router.run("ip link set wan0 up");
    let opened = lines::opened(CLIENT, "A");
    knock_until(&daemon, &opened, || send_door(&scene.wire, CLIENT, ROUTER));
    assert!(daemon.is_alive());
}

fn address_added_later() {
    let scene = Scene::new();
    let daemon = scene.daemon(UDP_DOOR);
    let (new, new6) = ("198.51.100.77", "2001:db8::77");
    send_door(&scene.wire, CLIENT, new);
    scene.fence(&daemon);
    assert_eq!(daemon.count("A: Stage"), 0, "that is not our address yet");
    scene.router.run(&format!(
        "ip addr add {new}/24 dev wan0; ip addr add {new6}/64 dev wan0 nodad"
    ));
    let opened = lines::opened(CLIENT, "A");
    knock_until(&daemon, &opened, || send_door(&scene.wire, CLIENT, new));
    let opened = lines::opened(CLIENT6, "A");
    knock_until(&daemon, &opened, || send_door(&scene.wire, CLIENT6, new6));
    // An address that was removed is no longer local.
    scene.router.run(&format!("ip addr del {new}/24 dev wan0"));
    crate::lab::wait_for("a removed address to stop counting", || {
        let before = daemon.count("A: Stage");
        send_door(&scene.wire, OTHER, new);
        scene.fence(&daemon);
        (daemon.count("A: Stage") == before).then_some(())
    });
}

fn await_file(home: &Home, text: &str) {
    crate::lab::wait_for("the command's effect", || {
        (home.read("opened").trim() == text).then_some(())
    });
}

fn an_interface_may_be_named_two_hundred_times() {
    let scene = Scene::new();
    scene.home.config(UDP_DOOR);
    let names = format!("lo{}", ",wan0".repeat(200));
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", &names]);
    scene.knock(ROUTER, &["1:udp", "2:udp", "3:udp"]);
    daemon.await_text(&lines::opened(CLIENT, "A"));
    assert_eq!(daemon.errors(), "");
}
