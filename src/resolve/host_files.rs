//! The lines of hosts(5), services(5) and resolv.conf(5).
#![forbid(unsafe_code)]

use crate::util::number::parse_uint;
use std::net::IpAddr;

/// Returns the server in this line of resolv.conf. An IPv6 address can have a zone.
pub fn server_of(line: &str) -> Option<&str> {
    let mut words = words(line);
    words.next().filter(|word| *word == "nameserver")?;
    words.next()
}

/// Returns the search domains in this line of resolv.conf, for names without a dot, separated by
/// spaces.
pub fn domains_of(line: &str) -> Option<&str> {
    let line = without_comment(line).trim_ascii();
    let domains = line
        .strip_prefix("search")
        .or(line.strip_prefix("domain"))?;
    (domains.starts_with([' ', '\t']) || domains.is_empty()).then_some(domains)
}

/// Returns the address of that name in this line of hosts.
pub fn address_of(line: &str, name: &str) -> Option<IpAddr> {
    let mut words = words(line);
    let address = words.next()?.parse().ok()?;
    let mut names = words;
    names
        .any(|other| other.eq_ignore_ascii_case(name))
        .then_some(address)
}

/// Returns the name of that address in this line of hosts.
pub fn name_of(line: &str, address: IpAddr) -> Option<&str> {
    let mut words = words(line);
    let is_it = words.next()?.parse() == Ok(address);
    words.next().filter(|_| is_it)
}

/// Returns the port of that service in this line of services, and whether it is for TCP.
pub fn port_of(line: &str, service: &str) -> Option<(u16, bool)> {
    let mut words = words(line);
    let name = words.next()?;
    let (port, protocol) = words.next()?.split_once('/')?;
    (name == service || words.any(|other| other == service)).then_some(())?;
    Some((
        parse_uint(port.as_bytes(), u16::MAX.into())? as u16,
        protocol == "tcp",
    ))
}

fn words(line: &str) -> std::str::SplitAsciiWhitespace<'_> {
    without_comment(line).split_ascii_whitespace()
}

fn without_comment(line: &str) -> &str {
    let end = line.bytes().position(|byte| b"#;".contains(&byte));
    end.and_then(|end| line.get(..end)).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_resolv_conf_has_a_server_or_domains() {
        for (line, server) in [
            ("nameserver 192.0.2.1 # first", Some("192.0.2.1")),
            (" nameserver\tfe80::1%br0 x", Some("fe80::1%br0")),
            ("nameserver 192.0.2.1\r", Some("192.0.2.1")),
            ("nameserver", None),
            ("#nameserver 192.0.2.1", None),
            ("nameservers 192.0.2.1", None),
            ("options nameserver 192.0.2.1", None),
        ] {
            assert_eq!(server_of(line), server, "{line}");
        }
        for (line, domains) in [
            (" search a.example\tlan ;x", Some(" a.example\tlan")),
            ("domain lan\r", Some(" lan")),
            ("search", Some("")),
            ("searching lan", None),
            ("nameserver search", None),
        ] {
            assert_eq!(domains_of(line), domains, "{line}");
        }
    }

    #[test]
    fn a_line_of_hosts_has_an_address_and_names() {
        let line = "192.0.2.7\trouter.lan Router # home";
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(address_of(line, "router"), Some(address));
        assert_eq!(address_of(line, "ROUTER.LAN"), Some(address));
        assert_eq!(address_of("192.0.2.7 router\r", "router"), Some(address));
        assert_eq!(name_of(line, address), Some("router.lan"));
        for name in ["home", "192.0.2.7", "rout", ""] {
            assert_eq!(address_of(line, name), None, "{name}");
        }
        assert_eq!(name_of(line, "192.0.2.8".parse().unwrap()), None);
        assert_eq!(name_of("192.0.2.7", address), None);
        assert_eq!(address_of("#192.0.2.7 a", "a"), None);
        assert_eq!(address_of("x a", "a"), None);
    }

    #[test]
    fn a_line_of_services_has_a_name_a_port_and_aliases() {
        let line = "domain\t53/udp nameserver # x";
        assert_eq!(port_of(line, "domain"), Some((53, false)));
        assert_eq!(port_of("ssh 22/tcp\r", "ssh"), Some((22, true)));
        assert_eq!(port_of(line, "nameserver"), Some((53, false)));
        for (line, name) in [
            (line, "x"),
            (line, "53/udp"),
            ("", ""),
            ("a", "a"),
            ("a 70000/tcp", "a"),
            ("a 7", "a"),
        ] {
            assert_eq!(port_of(line, name), None, "{line}");
        }
    }
}
