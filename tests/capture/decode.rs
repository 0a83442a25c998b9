//! What counts as a knock: `packet::decode` on packets built by hand and by etherparse, truncated
//! at every length, and on random bytes.

use etherparse::{PacketBuilder, PacketBuilderStep};
use knockd_rs::capture::packet::{TCP_NEED, UDP_NEED, decode};
use knockd_rs::knock::{Knock, Protocol, Step};
use knockd_rs::limits::SNAP_LENGTH;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const V4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(198, 51, 100, 9), Ipv4Addr::new(10, 0, 0, 1));
const V6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
);

fn v4() -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ipv4(V4.0.octets(), V4.1.octets(), 64)
}

fn v6() -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ipv6(V6.0.octets(), V6.1.octets(), 64)
}

fn syn(ip: PacketBuilderStep<etherparse::IpHeaders>) -> Vec<u8> {
    let builder = ip.tcp(12345, 7000, 0xdead_beef, 1024).syn();
    let mut bytes = vec![0; builder.size(0)];
    builder.write_to_slice(&mut bytes, &[]).expect("a packet");
    bytes
}

fn udp(ip: PacketBuilderStep<etherparse::IpHeaders>, payload: usize) -> Vec<u8> {
    let builder = ip.udp(12345, 7000);
    let mut bytes = vec![0; builder.size(payload)];
    builder
        .write_to_slice(&mut bytes, &vec![7; payload])
        .expect("a packet");
    bytes
}

fn knock(protocol: Protocol, (source, destination): (IpAddr, IpAddr)) -> Knock {
    let tcp = protocol == Protocol::Tcp;
    Knock {
        source,
        destination,
        step: Step {
            protocol,
            port: 7000,
        },
        flags: if tcp { 2 } else { 0 },
        source_port: 12345,
        serial: if tcp { 0xdead_beef } else { 0 },
    }
}

#[test]
fn all_fields_of_a_knock_are_read() {
    let (in_v4, in_v6) = ((V4.0.into(), V4.1.into()), (V6.0.into(), V6.1.into()));
    assert_eq!(decode(&syn(v4())), Some(knock(Protocol::Tcp, in_v4)));
    assert_eq!(decode(&udp(v4(), 0)), Some(knock(Protocol::Udp, in_v4)));
    assert_eq!(decode(&syn(v6())), Some(knock(Protocol::Tcp, in_v6)));
    assert_eq!(decode(&udp(v6(), 0)), Some(knock(Protocol::Udp, in_v6)));
}

#[test]
fn the_serial_of_udp_over_ipv4_is_its_identification() {
    let mut packet = udp(v4(), 0);
    packet[4..6].copy_from_slice(&[0xab, 0xcd]);
    assert_eq!(decode(&packet).map(|knock| knock.serial), Some(0xabcd));
    let mut packet = syn(v4());
    packet[4..6].copy_from_slice(&[0xab, 0xcd]);
    assert_eq!(decode(&packet).map(|knock| knock.serial), Some(0xdead_beef));
}

#[test]
fn of_the_flags_byte_the_six_flags_are_kept() {
    let mut packet = syn(v4());
    packet[33] = 0xff;
    assert_eq!(decode(&packet).map(|knock| knock.flags), Some(0x3f));
}

#[test]
fn cut_anywhere_it_counts_once_the_ports_and_flags_are_there() {
    for (packet, need) in [
        (syn(v4()), 20 + TCP_NEED),
        (udp(v4(), SNAP_LENGTH), 20 + UDP_NEED),
        (syn(v6()), 40 + TCP_NEED),
        (udp(v6(), SNAP_LENGTH), 40 + UDP_NEED),
    ] {
        let whole = decode(&packet);
        assert!(whole.is_some());
        for length in 0..=packet.len() {
            assert_eq!(
                decode(&packet[..length]),
                whole.filter(|_| length >= need),
                "{length}"
            );
        }
    }
}

#[test]
fn the_length_in_the_ip_header_must_cover_the_ports_and_flags() {
    for (packet, at, header, need) in [
        (syn(v4()), 2, 20, TCP_NEED),
        (udp(v4(), 0), 2, 20, UDP_NEED),
        (syn(v6()), 4, 0, TCP_NEED),
        (udp(v6(), 0), 4, 0, UDP_NEED),
    ] {
        for length in 0..=u16::MAX {
            let mut packet = packet.clone();
            packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
            assert_eq!(
                decode(&packet).is_some(),
                usize::from(length) >= header + need
            );
        }
    }
}

#[test]
fn a_source_that_no_host_can_have_does_not_count() {
    let from_v4 = |source: [u8; 4]| {
        let mut packet = syn(v4());
        packet[12..16].copy_from_slice(&source);
        decode(&packet).is_some()
    };
    assert!(from_v4([1, 0, 0, 0]) && from_v4([223, 255, 255, 255]) && from_v4([127, 0, 0, 1]));
    assert!(!from_v4([0; 4]) && !from_v4([0, 255, 255, 255]));
    assert!(!from_v4([224, 0, 0, 1]) && !from_v4([255; 4]));
    let from_v6 = |source: Ipv6Addr| {
        let mut packet = syn(v6());
        packet[8..24].copy_from_slice(&source.octets());
        decode(&packet).is_some()
    };
    let address = |text: &str| text.parse().expect("an address");
    assert!(from_v6(address("::1")) && from_v6(address("fe80::1")) && from_v6(address("1::")));
    assert!(!from_v6(address("::")) && !from_v6(address("ff02::1")));
    assert!(!from_v6(address("::ffff:198.51.100.9")) && from_v6(address("::fffe:198.51.100.9")));
}

#[test]
fn what_is_no_knock() {
    let with = |packet: &[u8], at: usize, byte: u8| {
        let mut packet = packet.to_vec();
        packet[at] = byte;
        decode(&packet)
    };
    let (v4, v6) = (syn(v4()), syn(v6()));
    for (what, decoded) in [
        ("ICMP", with(&v4, 9, 1)),
        ("SCTP", with(&v4, 9, 132)),
        ("IPv6 in IPv4", with(&v4, 9, 41)),
        ("version 5", with(&v4, 0, 0x55)),
        ("IHL 4", with(&v4, 0, 0x44)),
        ("IHL beyond the end", with(&v4, 0, 0x4f)),
        ("later fragment", with(&v4, 7, 1)),
        ("AH", with(&v6, 6, 51)),
        ("no next header", with(&v6, 6, 59)),
        ("ICMPv6", with(&v6, 6, 58)),
    ] {
        assert_eq!(decoded, None, "{what}");
    }
    assert_eq!(
        with(&[&v4[..22], &[0, 0], &v4[24..]].concat(), 0, 0x45),
        None,
        "port 0"
    );
}

#[test]
fn the_transport_must_lie_within_the_snap_length() {
    // Destination options of n times 8 bytes.
    let behind = |blocks: usize, transport: &[u8], number: u8| {
        let mut packet = syn(v6())[..40].to_vec();
        packet[4..6].copy_from_slice(&((8 * blocks + transport.len()) as u16).to_be_bytes());
        packet[6] = 60;
        packet.extend([number, blocks as u8 - 1]);
        packet.resize(40 + 8 * blocks, 0);
        packet.extend(transport);
        decode(&packet).is_some()
    };
    let most = |need: usize| (SNAP_LENGTH - need - 40) / 8;
    let (tcp, udp) = (&syn(v6())[40..], &udp(v6(), 0)[40..]);
    assert!(behind(most(TCP_NEED), tcp, 6) && !behind(most(TCP_NEED) + 1, tcp, 6));
    assert!(behind(most(UDP_NEED), udp, 17) && !behind(most(UDP_NEED) + 1, udp, 17));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    #[test]
    fn noise_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..SNAP_LENGTH + 50), version in 0..4) {
        // Give half of them a valid version, so that they get further.
        match (version, bytes.first_mut()) {
            (0, Some(first)) => *first = 0x45,
            (1, Some(first)) => *first = 0x60,
            _ => {}
        }
        if let Some(knock) = decode(&bytes) {
            prop_assert!(knock.step.port != 0 && knock.flags < 64);
            prop_assert_eq!(knock.source.is_ipv4(), knock.destination.is_ipv4());
        }
    }
}
