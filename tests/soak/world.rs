//! The soak's router: two links that can break in every way, a firewall, and file systems that can
//! be full.

use crate::bans::OPTIONS;
use crate::doors::{self, Link, Source, Step};
use crate::lab::Random;
use crate::lab::{Home, Namespace, Tun, Wire, link, packet};
use std::process::Command;

/// The router's addresses on wan0, of which it has one at a time.
const WAN_ADDRESSES: [&str; 2] = ["198.51.100.1", "198.51.100.7"];
const WAN_ADDRESS6: &str = "2001:db8::1";
const PPP_ADDRESSES: [&str; 2] = ["10.64.0.1", "10.64.0.7"];
const PPP_ADDRESS6: &str = "2001:db8:64::1";

const BASE_RULES: &str = "
    ip6tables -w -A INPUT -p icmpv6 -j ACCEPT
    for program in iptables ip6tables; do
        $program -w -A INPUT -i lo -j ACCEPT
        $program -w -A INPUT -p udp --dport 53 -j REJECT
        $program -w -A INPUT -j DROP
    done";

/// The state of one link.
#[derive(Clone, Copy)]
pub struct Health {
    exists: bool,
    renamed: bool,
    up: bool,
    /// Its IPv4 address.
    address: Option<usize>,
    address6: bool,
}

const DEAD: Health = Health {
    exists: false,
    renamed: false,
    up: false,
    address: None,
    address6: false,
};

/// What can happen to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    Down,
    Delete,
    Rename,
    DropAddress,
    ChangeAddress,
}

pub struct World {
    pub wan: Namespace,
    pub router: Namespace,
    pub home: Home,
    wire: Option<Wire>,
    tun: Option<Tun>,
    links: [Health; 2],
}

fn name(link: Link) -> &'static str {
    match link {
        Link::Wan => "wan0",
        Link::Ppp => "ppp0",
    }
}

fn addresses(link: Link) -> ([&'static str; 2], &'static str) {
    match link {
        Link::Wan => (WAN_ADDRESSES, WAN_ADDRESS6),
        Link::Ppp => (PPP_ADDRESSES, PPP_ADDRESS6),
    }
}

impl World {
    /// Creates the world with both links up.
    pub fn new() -> World {
        let (wan, router) = (Namespace::new("wan"), Namespace::new("router"));
        router.run(BASE_RULES);
        let home = Home::new();
        for (directory, mode, size) in [("state", "755", "256k"), ("log", "700", "256k")] {
            std::fs::create_dir(home.path(directory)).expect("directory");
            let options = format!("size={size},mode={mode}");
            mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], &home, directory);
        }
        home.write("once", &doors::list());
        let mut world = World {
            wan,
            router,
            home,
            wire: None,
            tun: None,
            links: [DEAD; 2],
        };
        world.write_config(0);
        for link in doors::LINKS {
            world.repair(link);
        }
        world
    }

    /// Writes the good config of that variant.
    pub fn write_config(&self, variant: u16) {
        let log = self.home.path("log/knockd.log");
        let options = format!("{OPTIONS}LogRate = 0\nLogFile = {}\n", log.display());
        let doors = doors::config(variant, self.home.as_ref());
        self.home.config_with_options(&options, &doors);
    }

    /// Whether that interface exists.
    pub fn is_there(&self, link: Link) -> bool {
        let health = self.links[link as usize];
        health.exists && !health.renamed
    }

    /// Whether a knock can arrive there.
    pub fn is_usable(&self, link: Link, ipv6: bool) -> bool {
        let health = self.links[link as usize];
        let has_address = if ipv6 {
            health.address6
        } else {
            health.address.is_some()
        };
        self.is_there(link) && health.up && has_address
    }

    /// Whether it is as at the start, apart from the address.
    pub fn is_working(&self, link: Link) -> bool {
        self.is_usable(link, false) && self.is_usable(link, true)
    }

    /// Breaks a working link.
    pub fn break_link(&mut self, link: Link, how: Breakage) {
        let interface = name(link);
        let (four, _) = addresses(link);
        let health = &mut self.links[link as usize];
        match how {
            Breakage::Down => {
                self.router.run(&format!("ip link set {interface} down"));
                health.up = false;
                health.address6 = false;
            }
            Breakage::Delete => {
                match link {
                    Link::Wan => {
                        self.wire = None;
                        self.router.run("ip link del wan0");
                    }
                    Link::Ppp => self.tun = None,
                }
                *health = DEAD;
            }
            Breakage::Rename => {
                self.router.run(&format!(
                    "ip link set {interface} down; ip link set {interface} name other{interface}"
                ));
                health.renamed = true;
                health.up = false;
                health.address6 = false;
            }
            Breakage::DropAddress => {
                self.router
                    .run(&format!("ip -4 addr flush dev {interface}"));
                health.address = None;
            }
            Breakage::ChangeAddress => {
                let next = 1 - health.address.unwrap_or(0);
                let address = four[next];
                self.router.run(&format!(
                    "ip -4 addr flush dev {interface}; ip addr add {address}/24 dev {interface}"
                ));
                health.address = Some(next);
            }
        }
    }

    /// Repairs a link.
    pub fn repair(&mut self, link: Link) {
        let interface = name(link);
        let (four, six) = addresses(link);
        let health = self.links[link as usize];
        let mut script = String::new();
        if !health.exists {
            self.make(link);
        }
        if health.renamed {
            script += &format!("ip link set other{interface} name {interface}\n");
        }
        if !health.up {
            script += &format!("ip link set {interface} up\n");
        }
        let index = health.address.unwrap_or(0);
        if health.address.is_none() {
            script += &format!("ip addr add {}/24 dev {interface}\n", four[index]);
        }
        if !health.address6 {
            script += &format!("ip addr replace {six}/64 dev {interface} nodad\n");
        }
        self.router.run(&script);
        self.links[link as usize] = Health {
            exists: true,
            renamed: false,
            up: true,
            address: Some(index),
            address6: true,
        };
    }

    fn make(&mut self, link: Link) {
        match link {
            Link::Ppp => self.tun = Some(Tun::new(&self.router, "ppp0")),
            Link::Wan => {
                let (here, there) = self::link((&self.wan, "eth0"), (&self.router, "wan0"));
                self.wan.run(
                    "ip addr add 198.51.100.2/24 dev eth0
                     ip addr add 2001:db8::2/64 dev eth0 nodad",
                );
                self.wire = Some(Wire::open(&self.wan, "eth0", here, there));
            }
        }
    }

    /// The address to knock at on that link.
    pub fn target(&self, link: Link, ipv6: bool) -> &'static str {
        let (four, six) = addresses(link);
        let index = self.links[link as usize].address.unwrap_or(0);
        if ipv6 { six } else { four[index] }
    }

    /// Sends one step. The link must be usable.
    pub fn send(&self, address: &str, link: Link, step: Step, random: &mut Random) {
        let target = self.target(link, address.contains(':'));
        let packet = match step.udp {
            true => packet::udp(address, target, step.port),
            false => packet::syn(address, target, step.port, random.below(1 << 31) as u32),
        };
        match link {
            Link::Wan => self.wire.as_ref().expect("wire").send(&packet),
            Link::Ppp => self.tun.as_ref().expect("tun").send(&packet),
        }
    }

    /// Whether that source can send now.
    pub fn can_send(&self, source: &Source) -> bool {
        self.is_usable(source.link, source.is_ipv6())
    }

    /// Flushes INPUT and sets up the base rules, like a firewall restart.
    pub fn flush(&self) {
        self.router.run(&format!(
            "iptables -w -F INPUT; ip6tables -w -F INPUT{BASE_RULES}"
        ));
    }

    /// Fills the file system of that directory.
    pub fn fill(&self, directory: &str) {
        let path = self.home.path(directory).join("fill");
        // This fails as intended: no space left on device.
        let _ = std::fs::write(path, vec![0; 1 << 20]);
    }

    /// Frees the space again.
    pub fn empty(&self, directory: &str) {
        let _ = std::fs::remove_file(self.home.path(directory).join("fill"));
    }

    /// Makes the state directory read-only or writable again. No daemon may be running.
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        mount(&["-o", options], &self.home, "state");
    }

    /// All rules, for comparison.
    pub fn rules(&self) -> String {
        self.router.run("iptables -w -S; ip6tables -w -S")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for directory in ["state", "log"] {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.home.path(directory))
                .output();
        }
    }
}

fn mount(arguments: &[&str], home: &Home, directory: &str) {
    let output = Command::new("mount")
        .args(arguments)
        .arg(home.path(directory))
        .output()
        .expect("mount");
    assert!(output.status.success(), "mount {directory}: {output:?}");
}
