//! Unusual frames and packets: which of them count as knocks.

use super::{Life, Test};
use crate::lab::{Wire, is_original};
use crate::packet::{Token, parse};

pub const TESTS: &[Test] = &[
    ("options_and_fragments", &[], options_and_fragments),
    ("extension_headers", &["D-CAP-02"], extension_headers),
    ("another_mac_address", &[], another_mac_address),
    ("impossible_sources", &["D-CAP-08"], impossible_sources),
    ("cut_headers", &["D-CAP-09"], cut_headers),
    ("vlan_tags", &["D-CAP-12"], vlan_tags),
];

const ONE: &str = "[A]\nsequence=7000\n";

fn packet(token: &str) -> Vec<u8> {
    let [Token::Send(packet)] = parse(token)[..] else {
        panic!("{token}");
    };
    packet.bytes(1)
}

fn set_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let length = usize::from(packet[0] & 0x0f) * 4;
    let sum: u32 = packet[..length]
        .chunks(2)
        .map(|b| u32::from(b[0]) << 8 | u32::from(b[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// How often door A opened.
fn opened_by(send: impl FnOnce(&Life)) -> usize {
    let life = Life::new(ONE);
    let daemon = life.start();
    send(&life);
    life.fence(&daemon);
    daemon.count(": A: OPEN SESAME")
}

/// L40, both alike: packets with IP options and first fragments count, later fragments do not.
fn options_and_fragments() {
    let mut with_options = packet("7000");
    with_options.splice(20..20, [1u8; 12]);
    with_options[0] = 0x48;
    with_options[3] += 12;
    set_checksum(&mut with_options);
    let mut first = packet("7000");
    first[6] = 0x20;
    set_checksum(&mut first);
    let mut later = packet("7000");
    later[6..8].copy_from_slice(&[0, 3]);
    set_checksum(&mut later);
    for (bytes, count) in [(with_options, 1), (first, 1), (later, 0)] {
        assert_eq!(
            opened_by(|life| life.lane.wire.send(&bytes)),
            count,
            "{bytes:?}"
        );
    }
}

fn extension_headers() {
    let mut bytes = packet("6:7000");
    // Destination options, RFC 8200: next header TCP, 8 bytes, padding.
    bytes.splice(40..40, [6, 0, 1, 4, 0, 0, 0, 0]);
    bytes[6] = 60;
    bytes[5] += 8;
    let opened = opened_by(|life| life.lane.wire.send(&bytes));
    assert_eq!(opened, usize::from(!is_original()));
}

/// Both alike: the destination IP address decides.
fn another_mac_address() {
    let opened = opened_by(|life| {
        let other = [2, 9, 9, 9, 9, 9];
        Wire::open(&life.lane.client, "c0", other, other).send(&packet("7000"));
    });
    assert_eq!(opened, 1);
}

fn impossible_sources() {
    let sources = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [255, 255, 255, 255],
        [224, 0, 0, 1],
    ];
    for source in sources {
        let mut bytes = packet("7000");
        bytes[12..16].copy_from_slice(&source);
        set_checksum(&mut bytes);
        let opened = opened_by(|life| life.lane.wire.send(&bytes));
        assert_eq!(opened, usize::from(is_original()), "{source:?}");
    }
}

/// According to the IP header there are only four bytes of TCP; the rest is padding of the frame.
fn cut_headers() {
    let mut bytes = packet("7000");
    bytes[3] = 24;
    set_checksum(&mut bytes);
    let opened = opened_by(|life| life.lane.wire.send(&bytes));
    assert_eq!(opened, usize::from(is_original()));
}

/// L40: on this kernel neither sees tagged frames. Only 0.8 does not see VLAN 0, which means
/// untagged.
fn vlan_tags() {
    let opened = opened_by(|life| {
        life.lane.wire.send_tagged(0, &packet("7000"));
        life.lane.wire.send_tagged(5, &packet("7000"));
    });
    assert_eq!(opened, usize::from(!is_original()));
}
