//! The usual scene: an Internet host, a router whose firewall drops unsolicited packets, and the
//! WAN link between them.

use super::lines;
use super::{Daemon, Home, Namespace, Wire, knock_binary, link, packet, wait_within};
use std::time::Duration;

/// The router's IPv4 address.
pub const ROUTER: &str = "198.51.100.1";
/// The router's IPv6 address.
pub const ROUTER6: &str = "2001:db8::1";
/// The Internet host's address, which knocks.
pub const CLIENT: &str = "198.51.100.2";
/// The Internet host's IPv6 address.
pub const CLIENT6: &str = "2001:db8::2";
/// Another address of the Internet host.
pub const OTHER: &str = "198.51.100.3";
/// The forged source address of fence packets.
const FENCE: &str = "198.51.100.9";
/// The host behind the router.
pub const LAN_HOST: &str = "192.168.1.10";

/// `wan` (eth0) -- (wan0) `router`, and the daemon's directory.
pub struct Scene {
    pub wan: Namespace,
    pub router: Namespace,
    pub wire: Wire,
    pub home: Home,
}

impl Scene {
    /// Sets up the scene. The router's INPUT chains end in DROP.
    pub fn new() -> Scene {
        let (wan, router) = (Namespace::new("wan"), Namespace::new("router"));
        let (here, there) = link((&wan, "eth0"), (&router, "wan0"));
        wan.run(&format!(
            "ip addr add {CLIENT}/24 dev eth0
             ip addr add {OTHER}/24 dev eth0
             ip addr add {CLIENT6}/64 dev eth0 nodad"
        ));
        router.run(&format!(
            "ip addr add {ROUTER}/24 dev wan0
             ip addr add {ROUTER6}/64 dev wan0 nodad
             iptables -w -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
             iptables -w -A INPUT -j DROP
             ip6tables -w -A INPUT -p icmpv6 -j ACCEPT
             ip6tables -w -A INPUT -j DROP"
        ));
        let wire = Wire::open(&wan, "eth0", here, there);
        Scene {
            wan,
            router,
            wire,
            home: Home::new(),
        }
    }

    /// Adds a LAN with one host behind the router. The router masquerades for it and forwards
    /// nothing else.
    pub fn add_lan(&self) -> Namespace {
        let lan = Namespace::new("lan");
        link((&self.router, "lan0"), (&lan, "eth0"));
        lan.run(&format!(
            "ip addr add {LAN_HOST}/24 dev eth0
             ip route add default via 192.168.1.1"
        ));
        self.router.run(
            "ip addr add 192.168.1.1/24 dev lan0
             echo 1 > /proc/sys/net/ipv4/ip_forward
             iptables -w -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
             iptables -w -A FORWARD -i lan0 -j ACCEPT
             iptables -w -A FORWARD -j DROP
             iptables -w -t nat -A POSTROUTING -o wan0 -j MASQUERADE",
        );
        lan
    }

    /// Writes a config with these doors and starts the daemon on the WAN interface.
    pub fn daemon(&self, doors: &str) -> Daemon {
        self.daemon_with_options("", doors)
    }

    /// Like [`Scene::daemon`], with more lines in `[options]`.
    pub fn daemon_with_options(&self, options: &str, doors: &str) -> Daemon {
        self.home.config_with_options(options, doors);
        Daemon::start(&self.router, &self.home, &["-i", "wan0"])
    }

    /// Knocks with the real client, from the address that the route selects.
    pub fn knock(&self, target: &str, steps: &[&str]) {
        knock(&self.wan, target, steps);
    }

    /// Waits until the daemon has handled every packet sent before. Sends a packet from [`FENCE`]
    /// to the one-step door in every lab config and waits until that door opens. A door that has
    /// not opened by then will not open.
    pub fn fence(&self, daemon: &Daemon) {
        fence(daemon, FENCE, || {
            self.wire.send(&packet::udp(FENCE, ROUTER, 9))
        });
    }

    /// All firewall rules of the router, for comparison.
    pub fn rules(&self) -> String {
        self.router
            .run("iptables -w -S; iptables -w -t nat -S; ip6tables -w -S")
    }
}

/// Sends one packet to the door `fence` and waits until it opens.
pub fn fence(daemon: &Daemon, source: &str, send: impl FnOnce()) {
    let opened = lines::opened(source, "fence");
    let before = daemon.count(&opened);
    send();
    daemon.await_count(&opened, before + 1);
}

/// Knocks with the real client. Sends the steps 20 ms apart, so that they cannot be reordered.
pub fn knock(namespace: &Namespace, target: &str, steps: &[&str]) {
    let client = knock_binary();
    let output = namespace
        .command(client.to_str().expect("path"))
        .args(["-d", "20", target])
        .args(steps)
        .output()
        .expect("knock");
    assert!(output.status.success(), "knock: {output:?}");
}

/// Repeats the knock until the log contains one more `line` than before. For a daemon that must
/// first notice that its interface is back.
pub fn knock_until(daemon: &Daemon, line: &str, mut knock: impl FnMut()) {
    let before = daemon.count(line);
    let what = format!("a knock that gives {line:?}");
    wait_within(
        Duration::from_secs(20),
        Duration::from_millis(50),
        &what,
        || {
            knock();
            (daemon.count(line) > before).then_some(())
        },
    );
}

/// The open TCP ports that nmap finds from `namespace`.
pub fn open_ports(namespace: &Namespace, target: &str, ports: &str) -> Vec<u16> {
    let report = namespace.run(&format!(
        "nmap -n -Pn -sS --max-retries 1 --min-rate 2000 --host-timeout 25s -p {ports} -oG - {target}"
    ));
    assert!(report.contains("1 host up"), "nmap gave up: {report}");
    let lists = report
        .lines()
        .filter_map(|line| line.split("Ports: ").nth(1));
    lists
        .flat_map(|list| list.split(", "))
        .filter_map(|port| port.trim().split_once("/open/"))
        .map(|(port, _)| port.parse().expect("port"))
        .collect()
}
