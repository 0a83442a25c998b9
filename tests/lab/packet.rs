//! IP packets for knocks.

use etherparse::PacketBuilder;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A UDP datagram with one byte of data, like the client's.
pub fn udp(source: &str, destination: &str, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    match addresses(source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            .udp(40000, port)
            .write(&mut packet, &[0]),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            .udp(40000, port)
            .write(&mut packet, &[0]),
        _ => panic!("{source} and {destination} are of two families"),
    }
    .expect("packet");
    packet
}

/// A sequence number that this process has not used before.
pub fn fresh() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1 << 30);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A TCP SYN. A repeated sequence number makes it a retransmission.
pub fn syn(source: &str, destination: &str, port: u16, sequence_number: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    match addresses(source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            .tcp(40000, port, sequence_number, 64240)
            .syn()
            .write(&mut packet, &[]),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            .tcp(40000, port, sequence_number, 64240)
            .syn()
            .write(&mut packet, &[]),
        _ => panic!("{source} and {destination} are of two families"),
    }
    .expect("packet");
    packet
}

/// A SYN with ACK, as a server answers.
pub fn syn_ack(source: &str, destination: &str, port: u16) -> Vec<u8> {
    let mut packet = syn(source, destination, port, 1);
    // The flags are byte 13 of the TCP header. The checksum becomes wrong, but nothing checks it.
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    packet[header + 13] |= 0x10;
    packet
}

fn addresses(source: &str, destination: &str) -> (IpAddr, IpAddr) {
    (
        source.parse().expect("source"),
        destination.parse().expect("destination"),
    )
}
