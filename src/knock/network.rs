//! Networks such as 192.168.1.0/24.
#![forbid(unsafe_code)]

use crate::util::number::parse_uint;
use std::net::IpAddr;

/// The addresses that share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address of the network.
    pub address: IpAddr,
    /// The length of the prefix: 0 to 32, for IPv6 to 128. Larger values mean the maximum.
    pub prefix: u8,
}

impl Network {
    /// Parses `192.168.1.0/24`, `2001:db8::/32`, or a single address. Bits after the prefix are
    /// ignored, as by iptables.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => parse_uint(prefix.as_bytes(), bits)?,
            None => bits,
        };
        let prefix = prefix as u8;
        // Packets never carry the IPv4-mapped form.
        Some(match address.to_canonical() {
            mapped if mapped != address && prefix >= 96 => Network {
                address: mapped,
                prefix: prefix - 96,
            },
            _ => Network { address, prefix },
        })
    }

    /// Returns whether the network contains that address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => self.fits(&own.octets(), &other.octets()),
            (IpAddr::V6(own), IpAddr::V6(other)) => self.fits(&own.octets(), &other.octets()),
            _ => false,
        }
    }

    /// Returns whether that is the broadcast address of an IPv4 network. Networks of one or two
    /// hosts have none.
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        let host_bits = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        let IpAddr::V4(v4) = address else {
            return false;
        };
        host_bits > 1 && v4.to_bits() & host_bits == host_bits && self.contains(address)
    }

    fn fits(&self, own: &[u8], other: &[u8]) -> bool {
        let mut left = u32::from(self.prefix);
        own.iter().zip(other).all(|(own, other)| {
            let bits = left.min(8);
            left -= bits;
            (own ^ other).leading_zeros() >= bits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(network: &str, address: &str) -> bool {
        Network::parse(network)
            .unwrap()
            .contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_with_its_first_bits() {
        for (network, inside, outside) in [
            ("192.168.1.0/24", "192.168.1.255", "192.168.2.0"),
            ("192.168.1.77/24", "192.168.1.1", "192.168.0.255"),
            ("10.0.0.0/31", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.9", "10.0.0.9", "10.0.0.8"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("fe80::1", "fe80::1", "fe80::2"),
            ("::ffff:203.0.113.5/120", "203.0.113.9", "203.0.114.5"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "ffff::1", "1.2.3.4"),
        ] {
            assert!(has(network, inside), "{network} {inside}");
            assert!(!has(network, outside), "{network} {outside}");
        }
    }

    #[test]
    fn the_last_address_of_an_ipv4_network_is_its_broadcast_address() {
        for (network, last, has_broadcast) in [
            ("192.168.1.7/24", "192.168.1.255", true),
            ("10.0.0.0/30", "10.0.0.3", true),
            ("10.0.0.0/31", "10.0.0.1", false),
            ("10.0.0.9", "10.0.0.9", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("192.168.1.7/24", "192.168.2.255", false),
            ("192.168.1.7/24", "192.168.1.254", false),
            ("2001:db8::/64", "2001:db8::ffff:ffff:ffff:ffff", false),
        ] {
            let network = Network::parse(network).unwrap();
            let found = network.is_broadcast(last.parse().unwrap());
            assert_eq!(found, has_broadcast, "{network:?} {last}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "/24",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "lan",
            "10.0.0.0/255.0.0.0",
            " 10.0.0.1",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
