//! The network interfaces, read from rtnetlink messages, and which of them `-i` selects.
//! Layouts: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
#![forbid(unsafe_code)]

use crate::knock::network::Network;
use crate::limits::MAX_INTERFACES;
use crate::sys::error::Result;
use crate::sys::netlink::{Dump, Netlink};
use crate::sys::packet_socket::InterfaceIndex;
use crate::util::quote::{is_deceptive, quote};
use std::net::IpAddr;

/// An interface name, at most 15 bytes (IFNAMSIZ).
pub type InterfaceName = heapless::String<15>;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index. A PPP link that redials gets a new one.
    pub index: InterfaceIndex,
    /// Its name.
    pub name: InterfaceName,
    /// It is up (IFF_UP), with or without a carrier.
    pub up: bool,
    /// It is the loopback interface (IFF_LOOPBACK).
    pub loopback: bool,
    /// The bridge or bond that it belongs to, on which its packets appear again.
    pub master: Option<InterfaceIndex>,
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub link: InterfaceIndex,
    /// The local address.
    pub address: IpAddr,
    /// The network that it reaches directly: on a point-to-point link that of the far end.
    pub network: Network,
    /// The label, such as `eth0:1` (IPv4 only).
    pub label: InterfaceName,
}

/// All interfaces at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// The default routes of IPv4 and of IPv6 with the lowest metric.
    pub default_routes: [Option<DefaultRoute>; 2],
}

/// A default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The outgoing interface.
    pub link: InterfaceIndex,
    /// Lower values have priority.
    pub metric: u32,
}

impl Interfaces {
    /// Reads them from the kernel, over a socket of [`Netlink::ask`]. Reads the default routes only
    /// on request, because a router can have many routes.
    pub fn read(netlink: &Netlink, routes: bool) -> Result<Interfaces> {
        let mut all = Interfaces::default();
        let mut add = |kind, body: &[u8]| all.add(kind, body);
        netlink.dump(Dump::Links, &mut add)?;
        netlink.dump(Dump::Addresses, &mut add)?;
        if routes {
            netlink.dump(Dump::Routes, &mut add)?;
        }
        Ok(all)
    }

    /// Adds the content of an rtnetlink message. Ignores malformed ones.
    pub fn add(&mut self, kind: u16, body: &[u8]) {
        match kind {
            libc::RTM_NEWLINK => self.links.extend(link(body)),
            libc::RTM_NEWADDR => self.addresses.extend(address(body)),
            libc::RTM_NEWROUTE => {
                let Some((route, ipv6)) = default_route(body) else {
                    return;
                };
                let best = &mut self.default_routes[usize::from(ipv6)];
                if best.is_none_or(|best| route.metric < best.metric) {
                    *best = Some(route);
                }
            }
            _ => {}
        }
    }

    /// The names of all interfaces, for an error message: `lo, eth0, ppp0`.
    pub fn names(&self) -> String {
        let mut names = String::new();
        for link in &self.links {
            names.push_str(if names.is_empty() { "" } else { ", " });
            names.push_str(&link.name);
        }
        names
    }

    /// Returns the selected link, if it exists now.
    pub fn find(&self, selector: &Selector) -> Option<&Link> {
        let [v4, v6] = self.default_routes.map(|route| Some(route?.link));
        let first = v4.or(v6);
        self.links.iter().find(|link| match selector {
            Selector::Any => false,
            Selector::Auto => Some(link.index) == first,
            Selector::AutoIpv6 => v6 != first && Some(link.index) == v6,
            Selector::Named(name) => name.split(':').next() == Some(&link.name),
        })
    }

    /// Returns the addresses that count on the selected interface.
    pub fn local(&self, selector: &Selector) -> Vec<IpAddr> {
        let link = self.find(selector).map(|link| link.index);
        let mut local = Vec::new();
        for entry in &self.addresses {
            let counts = match selector {
                Selector::Any => true,
                Selector::Named(name) if name.contains(':') => {
                    Some(entry.link) == link && entry.label == *name
                }
                _ => Some(entry.link) == link,
            };
            if counts {
                local.push(entry.address);
            }
        }
        local
    }

    /// Returns whether a packet from that address can come in by this interface. The machine's own
    /// addresses can only come in by the loopback interface, and the broadcast address of a local
    /// network by none. No reply would reach such a sender.
    pub fn can_send(&self, source: IpAddr, index: InterfaceIndex) -> bool {
        let mut links = self.links.iter();
        let is_impossible =
            |own: &Address| own.address == source || own.network.is_broadcast(source);
        links.any(|link| link.index == index && link.loopback)
            || !(source.is_loopback() || self.addresses.iter().any(is_impossible))
    }

    /// Returns whether that address belongs to this machine or to one of its networks.
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        let mut own = self.addresses.iter();
        own.any(|own| own.address == address || own.network.contains(address))
    }

    /// Returns the interfaces that have this address.
    pub fn owners(&self, address: IpAddr) -> impl Iterator<Item = InterfaceIndex> {
        let has = move |own: &&Address| own.address == address;
        self.addresses.iter().filter(has).map(|own| own.link)
    }

    /// Returns the bridge or bond that this interface belongs to.
    pub fn master(&self, index: InterfaceIndex) -> Option<InterfaceIndex> {
        self.links.iter().find(|link| link.index == index)?.master
    }

    /// Returns whether a packet that came in by this interface counts under `any`. A packet through
    /// a bridge or bond appears first on the port and then on the bridge. The port does not count,
    /// so the packet counts once.
    pub fn counts_under_any(&self, index: InterfaceIndex) -> bool {
        self.master(index).is_none() && self.addresses.iter().any(|entry| entry.link == index)
    }
}

/// An interface as the user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `any`: all interfaces.
    Any,
    /// `auto`: the interface with the current default route.
    Auto,
    /// Also `auto`: the interface with the default route of IPv6, if it is another one.
    AutoIpv6,
    /// A name. `eth0:1` selects only the addresses with that label.
    Named(InterfaceName),
}

impl Selector {
    /// Parses `eth0`, `eth0:1`, `any`, `auto` (two selectors) or a list such as `ppp0,vlan1`. The
    /// error says what is wrong with the text.
    pub fn list(text: &str) -> Result<Vec<Selector>, String> {
        let mut selectors: Vec<Selector> = Vec::new();
        for part in text.split(',').map(str::trim_ascii) {
            let selector = Selector::parse(part).ok_or_else(|| {
                "no interface can be called ".to_string() + &quote(part.as_bytes())
            })?;
            if !selectors.contains(&selector) {
                selectors.push(selector);
            }
        }
        if selectors.len() > 1 && selectors.iter().any(|s| !matches!(s, Selector::Named(_))) {
            return Err("\"any\" and \"auto\" cannot be combined with other names".to_string());
        }
        if selectors.len() > MAX_INTERFACES {
            const { assert!(MAX_INTERFACES == 8) };
            return Err("more than 8 interfaces; use \"any\"".to_string());
        }
        if selectors == [Selector::Auto] {
            selectors.push(Selector::AutoIpv6);
        }
        Ok(selectors)
    }

    /// Parses one item of the list.
    fn parse(part: &str) -> Option<Selector> {
        let is_unfit = |c: char| c.is_ascii_whitespace() || is_deceptive(c) || c == '/';
        Some(match part {
            "" => return None,
            _ if part.chars().any(is_unfit) => return None,
            "any" => Selector::Any,
            "auto" => Selector::Auto,
            _ => Selector::Named(InterfaceName::try_from(part).ok()?),
        })
    }

    /// As the user writes it.
    pub fn name(&self) -> &str {
        match self {
            Selector::Any => "any",
            Selector::Auto => "auto",
            Selector::AutoIpv6 => "auto (IPv6)",
            Selector::Named(name) => name,
        }
    }
}

/// Returns the value of an attribute. Attributes follow a header of fixed size. Each has its length
/// and type (2 bytes each, host order), then the value, padded to 4 bytes.
fn attribute(body: &[u8], header: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(header..)?;
    loop {
        let (head, _) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([head[2], head[3]]) == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn u32_of(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Reads a NUL-terminated name. Rejects deceptive characters: such a name could look like another
/// log line.
fn name_of(value: &[u8]) -> Option<InterfaceName> {
    let text = value.split(|byte| *byte == 0).next()?;
    let text = std::str::from_utf8(text).ok()?;
    (!text.chars().any(is_deceptive)).then(|| InterfaceName::try_from(text).ok())?
}

fn index_of(value: &[u8]) -> Option<InterfaceIndex> {
    u32_of(value).map(InterfaceIndex)
}

fn ip_of(value: &[u8]) -> Option<IpAddr> {
    match <[u8; 4]>::try_from(value) {
        Ok(octets) => Some(octets.into()),
        Err(_) => Some(<[u8; 16]>::try_from(value).ok()?.into()),
    }
}

/// RTM_NEWLINK: struct ifinfomsg of 16 bytes with the index at 4 and the flags at 8.
fn link(body: &[u8]) -> Option<Link> {
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MASTER: u16 = 10;
    let flags = u32_of(body.get(8..12)?)?;
    Some(Link {
        index: index_of(body.get(4..8)?)?,
        name: name_of(attribute(body, 16, IFLA_IFNAME)?)?,
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        master: attribute(body, 16, IFLA_MASTER).and_then(index_of),
    })
}

/// RTM_NEWADDR: struct ifaddrmsg of 8 bytes with the prefix length at 1 and the index at 4. On a
/// point-to-point link IFA_ADDRESS is the far end and IFA_LOCAL the local one.
fn address(body: &[u8]) -> Option<Address> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_LABEL: u16 = 3;
    let far = attribute(body, 8, IFA_ADDRESS).and_then(ip_of);
    let local = attribute(body, 8, IFA_LOCAL).and_then(ip_of);
    let label = attribute(body, 8, IFA_LABEL).and_then(name_of);
    Some(Address {
        link: index_of(body.get(4..8)?)?,
        address: local.or(far)?,
        network: Network {
            address: far.or(local)?,
            prefix: *body.get(1)?,
        },
        label: label.unwrap_or_default(),
    })
}

/// Returns whether this notice can change the interfaces, their addresses, or the default route. A
/// router can have many routes, and a routing daemon changes them all the time.
pub fn matters(kind: u16, body: &[u8]) -> bool {
    !matches!(kind, libc::RTM_NEWROUTE | libc::RTM_DELROUTE) || is_default(body)
}

/// Returns whether struct rtmsg (see [`default_route`]) is in the main table and for all
/// destinations.
fn is_default(body: &[u8]) -> bool {
    const RT_TABLE_MAIN: u8 = 254;
    body.get(1) == Some(&0) && body.get(4) == Some(&RT_TABLE_MAIN)
}

/// RTM_NEWROUTE: struct rtmsg of 12 bytes: family, destination length, ..., table at 4, type at 7.
/// Also returns whether the route is for IPv6.
fn default_route(body: &[u8]) -> Option<(DefaultRoute, bool)> {
    const RTA_OIF: u16 = 4;
    const RTA_PRIORITY: u16 = 6;
    const RTA_MULTIPATH: u16 = 9;
    const RTN_UNICAST: u8 = 1;
    let header = body.first_chunk::<12>()?;
    if !is_default(body) || header[7] != RTN_UNICAST {
        return None;
    }
    let link = match attribute(body, 12, RTA_MULTIPATH) {
        // struct rtnexthop: length, flags, hops, then the index at 4. Only the first of several
        // next hops is used.
        Some(ways) => ways.get(4..8)?,
        None => attribute(body, 12, RTA_OIF)?,
    };
    let metric = attribute(body, 12, RTA_PRIORITY).and_then(u32_of);
    let route = DefaultRoute {
        link: index_of(link)?,
        metric: metric.unwrap_or(0),
    };
    Some((route, i32::from(header[0]) == libc::AF_INET6))
}
