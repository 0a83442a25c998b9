//! Resolves names and addresses: from the machine's files, then from DNS servers, which blocks for
//! up to 5 seconds. (musl's `getaddrinfo` and `getnameinfo` take 20 kB more on mipsel.)
#![forbid(unsafe_code)]

pub mod dns;
mod host_files;
pub mod process;
mod servers;

use crate::capture::interfaces::{Interfaces, Link};
use crate::limits::{MAX_DNS_SERVERS, MAX_LINE};
use crate::sys::file::{open, read_all};
use crate::sys::message_socket::MessageSocket;
use crate::sys::netlink::Netlink;
use crate::sys::random;
use crate::util::number::parse_uint;
use crate::util::text::shown;
use dns::{RecordKind, Reply};
use std::fs::File;
use std::io::Seek;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;

/// The wanted address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Any; the resolver chooses.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Why a name did not resolve. The texts are glibc's, as in knock 0.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// An address of another family than requested.
    Family,
    /// No such name.
    Unknown,
    /// The name has no such address.
    NoAddress,
    /// No server could answer.
    NoServer,
    /// No such service.
    Service,
}

impl NameError {
    /// Returns the text.
    pub fn words(self) -> &'static str {
        match self {
            NameError::Family => "Address family for hostname not supported",
            NameError::Unknown => "Name or service not known",
            NameError::NoAddress => "No address associated with hostname",
            NameError::NoServer => "Temporary failure in name resolution",
            NameError::Service => "Servname not supported for ai_socktype",
        }
    }
}

/// Returns the first address of a host (name or address, with a zone as in `fe80::1%eth0`). For any
/// family, prefers IPv6 if there is a route to it.
pub fn resolve_host(host: &str, family: Family) -> Result<SocketAddr, NameError> {
    let fits = |address: &IpAddr| match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    };
    if let Some(address) = numeric(host, 0) {
        return match fits(&address.ip()) {
            true => Ok(address),
            false => Err(NameError::Family),
        };
    }
    let mut found = FirstAddresses::default();
    each_line(HOSTS, &mut |line| {
        found.extend(host_files::address_of(line, host).filter(fits));
    });
    if found.is_empty() {
        found = ask_for_addresses(host, family)?;
    }
    let FirstAddresses { v4, v6 } = found;
    let is_near =
        |v6: &IpAddr| v4.is_none() || MessageSocket::to_udp(&(*v6, DNS_PORT).into()).is_ok();
    let first = v6.filter(is_near).or(v4);
    first
        .map(|ip| SocketAddr::new(ip, 0))
        .ok_or(NameError::Unknown)
}

/// The first address of each family.
#[derive(Default)]
struct FirstAddresses {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl FirstAddresses {
    fn is_empty(&self) -> bool {
        self.v4.or(self.v6).is_none()
    }

    fn extend(&mut self, address: Option<IpAddr>) {
        match address {
            Some(v4 @ IpAddr::V4(_)) => self.v4.get_or_insert(v4),
            Some(v6) => self.v6.get_or_insert(v6),
            None => return,
        };
    }
}

/// Queries the DNS for the addresses of a name. Returns at least one.
fn ask_for_addresses(host: &str, family: Family) -> Result<FirstAddresses, NameError> {
    let resolver = Resolver::new();
    let random = random::source().map_err(|_| NameError::NoServer)?;
    let has_dot = host.bytes().any(|byte| byte == b'.');
    let mut domains = resolver
        .domains
        .split_ascii_whitespace()
        .filter(|_| !has_dot);
    let mut error = NameError::Unknown;
    loop {
        let domain = domains.next();
        let name = domain.map(|domain| [host, ".", domain].concat());
        let name = name.as_deref().unwrap_or(host);
        let mut found = FirstAddresses::default();
        for (kind, unwanted) in [(RecordKind::A, Family::V6), (RecordKind::Aaaa, Family::V4)] {
            if family == unwanted {
                continue;
            }
            match resolver.ask(name, kind, &random) {
                Ok(Reply::Address(address)) => found.extend(Some(address)),
                // As in glibc, another record type or domain may succeed.
                Ok(Reply::Failed) => error = NameError::NoServer,
                Ok(Reply::NoRecord) if error == NameError::Unknown => error = NameError::NoAddress,
                Err(NameError::NoServer) if found.is_empty() => {
                    return Err(NameError::NoServer);
                }
                _ => {}
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        if domain.is_none() {
            return Err(error);
        }
    }
}

/// Returns the port of a service. As in knock 0.8 the service can be of any transport: `ssh:udp` is
/// 22.
pub fn resolve_service(service: &str) -> Result<u16, NameError> {
    let mut found: Option<(u16, bool)> = None;
    each_line("/etc/services", &mut |line| {
        let here = host_files::port_of(line, service);
        // TCP first, then the first other.
        if here.is_some_and(|(_, is_tcp)| found.is_none_or(|(_, has_tcp)| is_tcp && !has_tcp)) {
            found = here;
        }
    });
    found.map(|(port, _)| port).ok_or(NameError::Service)
}

/// Formats the address with the name of its zone (or its number if there is no such interface), as
/// knock 0.8 prints it.
pub fn address_text(address: &SocketAddr) -> String {
    let ip = shown(&address.ip());
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            let links = links();
            let link = links.iter().find(|link| link.index.0 == v6.scope_id());
            let zone = link.map_or_else(|| shown(&v6.scope_id()), |link| shown(&link.name));
            [&ip, "%", &zone].concat()
        }
        _ => ip,
    }
}

/// Resolves addresses to names, from files that were opened at the start.
pub struct HostNames {
    hosts: Option<File>,
    random: File,
    resolver: Resolver,
}

impl HostNames {
    /// Returns `None` without random numbers.
    pub fn open() -> Option<HostNames> {
        Some(HostNames {
            hosts: open(Path::new(HOSTS), libc::O_RDONLY, 0).ok(),
            random: random::source().ok()?,
            resolver: Resolver::new(),
        })
    }

    /// Returns the host name of an address by reverse lookup. `None` if there is none or no server
    /// answers.
    pub fn find(&self, address: IpAddr) -> Option<String> {
        let mut name = None;
        if let Some(mut hosts) = self.hosts.as_ref()
            && hosts.rewind().is_ok()
        {
            each_line_of(hosts, &mut |line| {
                if name.is_none() {
                    name = host_files::name_of(line, address).map(String::from);
                }
            });
        }
        if name.is_some() {
            return name;
        }
        let question = dns::reverse_name(address);
        match self.resolver.ask(&question, RecordKind::Ptr, &self.random) {
            Ok(Reply::Name(name)) => Some(name),
            _ => None,
        }
    }
}

const HOSTS: &str = "/etc/hosts";

const DNS_PORT: u16 = 53;

/// The content of /etc/resolv.conf.
struct Resolver {
    servers: heapless::Vec<SocketAddr, MAX_DNS_SERVERS>,
    /// Separated by spaces.
    domains: String,
}

impl Resolver {
    fn new() -> Resolver {
        let mut resolver = Resolver {
            servers: heapless::Vec::new(),
            domains: String::new(),
        };
        each_line("/etc/resolv.conf", &mut |line| {
            if let Some(server) =
                host_files::server_of(line).and_then(|text| numeric(text, DNS_PORT))
            {
                // Further servers are not used.
                let _ = resolver.servers.push(server);
            }
            if let Some(domains) = host_files::domains_of(line) {
                resolver.domains = domains.to_string();
            }
        });
        if resolver.servers.is_empty() {
            let _ = resolver
                .servers
                .push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        resolver
    }

    /// Returns the servers' answer for that name; `Unknown` also if no host can have such a name.
    fn ask(&self, name: &str, kind: RecordKind, random: &File) -> Result<Reply, NameError> {
        let mut id = [0; 2];
        random::fill_from(random, &mut id).map_err(|_| NameError::NoServer)?;
        let question = dns::question(name, kind, id).ok_or(NameError::Unknown)?;
        servers::ask(&self.servers, &question).ok_or(NameError::NoServer)
    }
}

/// Passes each line of a file to `show`. The file can be missing, or larger than memory, as hosts
/// files that block advertisers. Stops at a line that is too long ([`MAX_LINE`]).
fn each_line(path: &str, show: &mut dyn FnMut(&str)) {
    if let Ok(file) = open(Path::new(path), libc::O_RDONLY, 0) {
        each_line_of(&file, show);
    }
}

/// The same for an open file.
fn each_line_of(file: &File, show: &mut dyn FnMut(&str)) {
    let mut rest = Vec::new();
    while rest.len() < MAX_LINE {
        let piece = read_all(file.as_fd(), MAX_LINE).unwrap_or_default();
        rest.extend_from_slice(&piece);
        let last = rest.iter().rposition(|byte| *byte == b'\n');
        let whole = match last {
            _ if piece.is_empty() => rest.len(),
            Some(last) => last + 1,
            None => continue,
        };
        let lines: Vec<u8> = rest.drain(..whole).collect();
        String::from_utf8_lossy(&lines)
            .split_terminator('\n')
            .for_each(&mut *show);
        if piece.is_empty() {
            return;
        }
    }
}

/// Parses an address with or without a zone.
fn numeric(text: &str, port: u16) -> Option<SocketAddr> {
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (text, None),
    };
    let mut address = SocketAddr::new(ip.parse().ok()?, port);
    if let Some(zone) = zone {
        let SocketAddr::V6(v6) = &mut address else {
            return None;
        };
        v6.set_scope_id(match parse_uint(zone.as_bytes(), u32::MAX.into()) {
            Some(index) => index as u32,
            None => links().iter().find(|link| link.name == zone)?.index.0,
        });
    }
    Some(address)
}

/// The interfaces, whose names are zones.
fn links() -> Vec<Link> {
    let read = Netlink::ask().and_then(|netlink| Interfaces::read(&netlink, false));
    read.map_or_else(|_| Vec::new(), |interfaces| interfaces.links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_resolve_to_themselves_without_a_dns_server() {
        for text in ["127.0.0.1", "::1", "::ffff:192.0.2.1", "2001:db8::1:0:0:7"] {
            let address = resolve_host(text, Family::Any).unwrap();
            assert_eq!(address, SocketAddr::new(text.parse().unwrap(), 0));
            assert_eq!(address_text(&address), text);
        }
    }

    #[test]
    fn a_zone_is_kept_and_shown_by_name() {
        let address = resolve_host("fe80::1%lo", Family::V6).unwrap();
        let SocketAddr::V6(v6) = address else {
            panic!("{address}")
        };
        assert_ne!(v6.scope_id(), 0);
        assert_eq!(address_text(&address), "fe80::1%lo");
    }

    #[test]
    fn each_line_of_a_file_is_shown_however_long_the_file_is() {
        let path = std::env::temp_dir().join(format!("knockd-lines-{}", std::process::id()));
        let shown = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            let mut lines = Vec::new();
            each_line(path.to_str().unwrap(), &mut |line| {
                lines.push(line.to_string());
            });
            std::fs::remove_file(&path).unwrap();
            lines
        };
        assert_eq!(shown(b""), Vec::<String>::new());
        assert_eq!(shown(b"a\n\nb\xff\nc"), ["a", "", "b\u{fffd}", "c"]);
        let many: Vec<String> = (0..3000).map(|number| number.to_string()).collect();
        assert_eq!(shown(many.join("\n").as_bytes()), many);
        let long = "x".repeat(MAX_LINE - 1);
        let text = format!("a\n{long}\nb\n");
        assert_eq!(shown(text.as_bytes()), ["a", &long, "b"]);
        let text = format!("a\n{long}{long}xx\nb\n");
        assert_eq!(shown(text.as_bytes()), ["a"]);
        each_line("/dev/zero", &mut |line| panic!("{line}"));
    }

    #[test]
    fn the_wrong_family_and_unknown_services_are_errors_with_words() {
        assert!(resolve_host("::1", Family::V4).unwrap_err().words().len() > 8);
        assert!(resolve_host("127.0.0.1", Family::V6).is_err());
        assert!(resolve_service("7300x").unwrap_err().words().len() > 8);
        assert!(resolve_host("a\0b", Family::Any).is_err());
    }
}
