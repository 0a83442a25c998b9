//! Benchmarks what a running daemon spends time on: packets, configs and the journal. `cargo bench
//! [NAME]` runs them with the release profile.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use knockd_rs::capture::packet;
use knockd_rs::config;
use knockd_rs::knock::tripwire::Tripwires;
use knockd_rs::knock::{FlagRule, Matching, Pattern, Protocol, Sequence, Step};
use knockd_rs::lease::{Lease, LeaseKind, Phase, Turn, journal};
use knockd_rs::matcher::{Matcher, Rules};
use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

fn main() {
    divan::main();
}

/// Decodes and matches a flood of SYNs from random sources to random steps of the doors. The
/// attempt table is full for most of them.
#[divan::bench(args = [1, 16, 256])]
fn packet_in_a_flood(bencher: Bencher, doors: u16) {
    let step = |number: u16| Step {
        protocol: Protocol::Tcp,
        port: 1000 + number,
    };
    let patterns = (0..doors).map(|door| Pattern {
        sequence: Sequence::new(&[step(3 * door), step(3 * door + 1), step(3 * door + 2)]),
        seq_timeout: 10_000,
        flags: FlagRule::default(),
        target: None,
    });
    let rules = Rules {
        matching: Matching::Tolerant,
        max_attempts: 4096,
        tripwires: Tripwires::default(),
        ban: None,
    };
    let mut matcher = Matcher::new(patterns.collect(), rules, 1);
    let mut random = 1u64;
    let mut now = 0;
    let mut one_packet = move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let source = (random >> 34) as u32 | 0x1000_0000; // 16.0.0.0 to 63.255.255.255
        let port = 1000 + (random >> 16) as u16 % (3 * doors);
        now += 1;
        let knock = packet::decode(black_box(&syn(source.into(), port))).expect("a knock");
        let mut opened = 0;
        matcher.knock(&knock, true, now / 10, &mut |_| opened += 1);
        opened
    };
    for _ in 0..10_000 {
        one_packet();
    }
    bencher
        .counter(ItemsCount::new(1u32))
        .bench_local(one_packet);
}

/// A SYN from `source` to 10.9.0.1.
fn syn(source: Ipv4Addr, port: u16) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[0] = 0x45;
    bytes[3] = 40;
    bytes[8] = 64;
    bytes[9] = 6;
    bytes[12..16].copy_from_slice(&source.octets());
    bytes[16..20].copy_from_slice(&[10, 9, 0, 1]);
    bytes[20..22].copy_from_slice(&40_000u16.to_be_bytes());
    bytes[22..24].copy_from_slice(&port.to_be_bytes());
    bytes[24..28].copy_from_slice(&u32::from(source).to_be_bytes());
    bytes[32] = 0x50;
    bytes[33] = 2;
    bytes
}

/// Parses a config with `doors` doors.
#[divan::bench(args = [1, 16, 256])]
fn config_from_text(bencher: Bencher, doors: u16) {
    let mut text = String::from("[options]\n\tUseSyslog\n\tInterface = eth0\n\n");
    for door in 0..doors {
        writeln!(
            text,
            "# door {door}\n[door-{door}]\n\tsequence = {}:tcp,{}:udp,{}\n\tseq_timeout = 15\n\ttcpflags = syn\n\
             \tstart_command = /sbin/iptables -I INPUT -s %IP% -p tcp --dport {door} -j ACCEPT\n\tcmd_timeout = 20\n\
             \tstop_command = /sbin/iptables -D INPUT -s %IP% -p tcp --dport {door} -j ACCEPT\n",
            1000 + door,
            2000 + door,
            3000 + door
        )
        .expect("text");
    }
    bencher
        .counter(BytesCount::of_str(&text))
        .bench(|| config::parse(black_box(text.as_bytes()), &mut |_| {}).expect("a config"));
}

/// Serializes a journal of `leases` leases, as the keeper does before it runs a command.
#[divan::bench(args = [1, 16, 128])]
fn journal_to_text(bencher: Bencher, leases: u8) {
    let place = journal::BootContext {
        boot: String::from("6f0e6f0e-0000-4000-8000-6f0e6f0e6f0e"),
        net: 4_026_531_840,
    };
    let lease = |number: u8| Lease {
        id: number.into(),
        kind: LeaseKind::Door(String::from("SSH")),
        source: IpAddr::from([203, 0, 113, number]),
        start: b"/sbin/iptables -I INPUT -s 203.0.113.7 -p tcp --dport 22 -j ACCEPT".to_vec(),
        stop: b"/sbin/iptables -D INPUT -s 203.0.113.7 -p tcp --dport 22 -j ACCEPT".to_vec(),
        cmd_timeout: 20_000,
        turn: Turn::default(),
        phase: Phase::Open { until: 123_456 },
        running: None,
    };
    let leases: Vec<Lease> = (0..leases).map(lease).collect();
    bencher
        .counter(ItemsCount::new(leases.len()))
        .bench(|| journal::encode(&place, black_box(&leases).iter()));
}
