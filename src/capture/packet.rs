//! Decodes an IP packet into a [`Knock`].
//!
//! The kernel filter (`filter`) passes the packets that [`decode`] accepts and a door wants, and
//! those that hit a tripwire. Of well-formed packets it passes no others, unless it has to be
//! coarser. Keep the two in step; `tests/capture` compares them, also with the real kernel.
//!
//! A knock is
//! - IPv4 (RFC 791), with or without options, not fragmented or the first fragment; or IPv6 (RFC
//!   8200) with at most [`MAX_IPV6_EXTENSIONS`] extension headers of the types hop-by-hop, routing,
//!   fragment (the first one) and destination options, in any order;
//! - TCP (RFC 9293) with the 14 bytes up to the flags, or UDP (RFC 768) with its 8 bytes. The length
//!   field of the IP header must cover these bytes, and they must be in the first [`SNAP_LENGTH`]
//!   captured bytes;
//! - from an address that a host can have ([`can_be_host`]), because it becomes `%IP%`;
//! - to a port other than 0.
//!
//! Checksums are not checked and the payload is ignored, as in knockd 0.8.
#![forbid(unsafe_code)]

use crate::knock::{Knock, Protocol, Step};
use crate::limits::{MAX_IPV6_EXTENSIONS, SNAP_LENGTH};
use etherparse::{
    IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
};
use std::net::IpAddr;

/// The needed bytes of a TCP header: up to and including the flags.
pub const TCP_NEED: usize = 14;

/// Bytes of a UDP header.
pub const UDP_NEED: usize = 8;

/// All TCP flags that a config can name, as bits of byte 13 of the TCP header.
const FLAG_BITS: u8 = 0x3f;

/// Decodes a packet that starts at its IP header. Ignores everything after [`SNAP_LENGTH`] bytes.
pub fn decode(packet: &[u8]) -> Option<Knock> {
    let packet = &packet[..packet.len().min(SNAP_LENGTH)];
    match packet.first()? >> 4 {
        4 => decode_v4(packet),
        6 => decode_v6(packet),
        _ => None,
    }
}

fn decode_v4(packet: &[u8]) -> Option<Knock> {
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    if header.fragments_offset().value() != 0 || !can_be_host(header.source_addr().into()) {
        return None;
    }
    let found = IpHeader {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        end: usize::from(header.total_len()),
        identification: header.identification(),
    };
    found.knock(packet, header.slice().len(), header.protocol())
}

fn decode_v6(packet: &[u8]) -> Option<Knock> {
    let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
    if !can_be_host(header.source_addr().into()) {
        return None;
    }
    let mut offset = header.slice().len();
    let mut next = header.next_header();
    for _ in 0..MAX_IPV6_EXTENSIONS {
        let rest = packet.get(offset..)?;
        match next {
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS => {
                let extension = Ipv6RawExtHeaderSlice::from_slice(rest).ok()?;
                offset += extension.slice().len();
                next = extension.next_header();
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let fragment = Ipv6FragmentHeaderSlice::from_slice(rest).ok()?;
                if fragment.fragment_offset().value() != 0 {
                    return None;
                }
                offset += fragment.slice().len();
                next = fragment.next_header();
            }
            _ => break,
        }
    }
    let found = IpHeader {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        end: header.slice().len() + usize::from(header.payload_length()),
        identification: 0,
    };
    found.knock(packet, offset, next)
}

/// Returns whether a host can have this address at all. [`crate::capture::interfaces`] decides
/// which sources an interface can have.
pub fn can_be_host(source: IpAddr) -> bool {
    match source {
        // Not 0.0.0.0/8, nor 224.0.0.0 and up: multicast, class E, broadcast.
        IpAddr::V4(source) => (1..224).contains(&source.octets()[0]),
        // An IPv4-mapped address (::ffff:a.b.c.d) belongs to an IPv4 host, and would not be in the
        // IPv4 networks of `Allow`.
        IpAddr::V6(source) => {
            let bits = source.to_bits();
            let is_mapped = bits >> 32 == 0xffff;
            bits != 0 && !source.is_multicast() && !is_mapped
        }
    }
}

/// The content of the IP header.
struct IpHeader {
    source: IpAddr,
    destination: IpAddr,
    /// The end of the packet by its length field, in bytes from its start.
    end: usize,
    /// The identification of IPv4, which counts the packets of a UDP socket. IPv6 has none.
    identification: u16,
}

impl IpHeader {
    /// Decodes the transport header at `offset`.
    fn knock(self, packet: &[u8], offset: usize, transport: IpNumber) -> Option<Knock> {
        let (protocol, need) = match transport {
            IpNumber::TCP => (Protocol::Tcp, TCP_NEED),
            IpNumber::UDP => (Protocol::Udp, UDP_NEED),
            _ => return None,
        };
        if self.end < offset + need {
            return None;
        }
        let header = packet.get(offset..offset + need)?;
        let (ports, rest) = header.split_first_chunk::<4>()?;
        let [source_high, source_low, high, low] = *ports;
        let port = u16::from_be_bytes([high, low]);
        if port == 0 {
            return None;
        }
        let (serial, flags) = match protocol {
            Protocol::Tcp => (
                u32::from_be_bytes(*rest.first_chunk()?),
                header.last()? & FLAG_BITS,
            ),
            Protocol::Udp => (self.identification.into(), 0),
        };
        Some(Knock {
            source: self.source,
            destination: self.destination,
            step: Step { protocol, port },
            flags,
            source_port: u16::from_be_bytes([source_high, source_low]),
            serial,
        })
    }
}
