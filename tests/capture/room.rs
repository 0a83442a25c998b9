//! The size of filters, how they are simplified when they would be too large, and how many
//! instructions run.
#![forbid(unsafe_code)]

use super::filter::{KERNEL, SYN, door, none, passes, syn_v4, tcp};
use super::world::{ETH_P_IP, ETH_P_IPV6, ip};
use crate::interpret::{Meta, check, count};
use knockd_rs::capture::filter::compile;
use knockd_rs::knock::tripwire::{PortRange, Tripwires};
use knockd_rs::knock::{FlagRule, Pattern, Protocol};
use knockd_rs::limits::{MAX_DOORS, MAX_FILTER_INSTRUCTIONS, MAX_STEPS};

#[test]
fn too_many_ports_become_ranges_and_flags_and_addresses_stay() {
    let doors: Vec<Pattern> = (0..MAX_DOORS as u16)
        .map(|n| {
            let ports: Vec<u16> = (0..MAX_STEPS as u16)
                .map(|step| 256 * step + n + 1000)
                .collect();
            // Every second port, so that none are adjacent.
            tcp(&ports.iter().map(|port| port * 2).collect::<Vec<_>>())
        })
        .collect();
    let local = [ip("10.0.0.1")];
    let filter = compile(&doors, &none(), &local, KERNEL, false);
    assert!(!filter.exact);
    assert!(
        filter.program.len() > MAX_FILTER_INSTRUCTIONS - 20,
        "the room is used"
    );
    assert_eq!(check(&filter.program), Ok(()));
    let mut packet = syn_v4(0, 0);
    for port in (2000..18384_u16).step_by(2) {
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        assert!(passes(&filter, &packet), "{port}");
    }
    packet[33] = 0x10;
    assert!(!passes(&filter, &packet), "flags are still tested");
    packet[33] = 2;
    packet[19] = 2;
    assert!(!passes(&filter, &packet), "the address is still tested");
}

/// Every second port, so that none are adjacent, with 20 doors.
#[test]
fn a_thousand_tripwires_become_ranges_and_none_is_missed() {
    let doors: Vec<Pattern> = (0..20).map(|n| tcp(&[60_000 + n, 7001 + 2 * n])).collect();
    let wires: Vec<u16> = (0..1000).map(|n| 5000 + 2 * n).collect();
    let tripwires = Tripwires::listed(wires.iter().copied().map(PortRange::single).collect());
    let filter = compile(
        &doors,
        &tripwires,
        &[ip("10.0.0.1"), ip("2001:db8::1")],
        KERNEL,
        false,
    );
    assert!(!filter.exact);
    assert_eq!(check(&filter.program), Ok(()));
    let mut packet = syn_v4(0, 0);
    for port in wires.into_iter().chain(60_000..60_020) {
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        assert!(passes(&filter, &packet), "{port}");
    }
    for port in [4_998_u16, 7_050, 59_999, 60_020] {
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        assert!(!passes(&filter, &packet), "{port}");
    }
}

#[test]
fn nearest_ports_are_joined_first() {
    // Groups of three ports that are 2 apart, with gaps of 100 between the groups.
    let threes = |count: u16| -> Vec<Pattern> {
        (0..count)
            .map(|n| 1000 + 100 * n)
            .map(|port| tcp(&[port, port + 2, port + 4]))
            .collect()
    };
    assert!(
        compile(&threes(130), &none(), &[ip("10.0.0.1")], KERNEL, false).exact,
        "390 ports fit"
    );
    let filter = compile(&threes(200), &none(), &[ip("10.0.0.1")], KERNEL, false);
    assert!(!filter.exact);
    let mut packet = syn_v4(0, 0);
    for (port, expected) in [(999_u16, false), (1000, true), (1003, true), (1005, false)] {
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        assert_eq!(passes(&filter, &packet), expected, "{port}");
    }
}

#[test]
fn typical_sizes() {
    let v4 = ip("203.0.113.7");
    let three = [v4, ip("2001:db8::1"), ip("fe80::1")];
    let one = [tcp(&[7000, 8000, 9000])];
    let two = [tcp(&[7000, 8000, 9000]), tcp(&[7001, 8100, 9200])];
    let mixed = [door(
        &[
            (Protocol::Udp, 22),
            (Protocol::Udp, 22),
            (Protocol::Tcp, 151),
            (Protocol::Udp, 15),
        ],
        SYN,
        None,
    )];
    // The documentation of `filter` contains these figures.
    for (what, patterns, local, size) in [
        ("1 door, 1 address", &one[..], &three[..1], 30),
        ("1 door, 1 IPv4 and 2 IPv6 addresses", &one, &three, 132),
        ("2 doors, 1 IPv4 and 2 IPv6 addresses", &two, &three, 136),
        (
            "22:udp,22:udp,151:tcp,15:udp, same addresses",
            &mixed,
            &three,
            145,
        ),
    ] {
        let filter = compile(patterns, &none(), local, KERNEL, false);
        println!("{what}: {} instructions", filter.program.len());
        assert_eq!((filter.program.len(), filter.exact), (size, true), "{what}");
    }
    // The same with `Tripwire = auto`.
    let mut seed = 7_u64;
    let tripwires = Tripwires::auto(&[], || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 33
    });
    let filter = compile(&one, &tripwires, &three, KERNEL, false);
    println!("auto: {} instructions", filter.program.len());
    assert!(filter.exact && filter.program.len() < 400);
}

/// `Tripwire = auto` has eight guards on each side of a step. The bounds are the sizes with one
/// guard on each side.
#[test]
fn guards_cost_no_instruction() {
    const ANY: FlagRule = FlagRule { set: 0, clear: 0 };
    const SYN_ONLY: FlagRule = FlagRule {
        set: 2,
        clear: 0x10,
    };
    const PORTS: [u16; 5] = [7000, 300, 40000, 5555, 20000];
    let steps = |count: usize, first_udp: usize| -> Vec<(Protocol, u16)> {
        let protocol = |at| match at < first_udp {
            true => Protocol::Tcp,
            false => Protocol::Udp,
        };
        let step = |(at, port): (usize, &u16)| (protocol(at), *port);
        PORTS[..count].iter().enumerate().map(step).collect()
    };
    let one = |count, first_udp, flags| vec![door(&steps(count, first_udp), flags, None)];
    let reversed: Vec<_> = steps(5, 9).into_iter().rev().collect();
    let pair = vec![door(&steps(5, 9), SYN, None), door(&reversed, SYN, None)];
    let near = vec![tcp(&[7000, 7003, 7009]), tcp(&[7001, 65_535, 1])];
    let ten: Vec<_> = (0..10_u16)
        .map(|n| tcp(&[100 + 997 * n, 50_000 - 701 * n, 20_000 + 333 * n]))
        .collect();
    let v4 = [ip("203.0.113.7")];
    let three = [v4[0], ip("2001:db8::1"), ip("fe80::1")];
    for (what, patterns, sizes) in [
        ("4 steps, syn", one(4, 9, SYN), [265, 370]),
        ("5 steps, syn", one(5, 9, SYN), [275, 380]),
        ("5 steps, syn,!ack", one(5, 9, SYN_ONLY), [263, 368]),
        ("5 steps, any flags", one(5, 9, ANY), [274, 379]),
        ("3 of 5 steps TCP", one(5, 3, SYN), [270, 375]),
        ("5 steps UDP", one(5, 0, SYN), [262, 367]),
        ("open and close", pair, [275, 380]),
        ("near each other", near, [264, 369]),
        // With one port on each side the second one took 478, in the shorter and slower form.
        ("10 doors of 3 steps", ten, [458, 550]),
    ] {
        for (local, size) in [&v4[..], &three[..]].into_iter().zip(sizes) {
            let mut seed = 7_u64;
            let tripwires = Tripwires::auto(&[22], || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 33
            });
            let filter = compile(&patterns, &tripwires, local, KERNEL, false);
            let now = filter.program.len();
            println!("{what}: {now} instructions, at most {size}");
            assert!(filter.exact && now <= size, "{what}: {now}, {size}");
        }
    }
}

/// Frames sent by nmap, as a router's interface received them: SYN, UDP, connect, ACK, Xmas and
/// protocol scans, fragments, two addresses, IPv6, ARP. Each is the link's protocol followed by the
/// packet in hexadecimal.
fn capture() -> Vec<(u16, Vec<u8>)> {
    let byte = |digits: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(digits).expect("ASCII"), 16).expect("hex")
    };
    let frame = |line: &str| {
        let (protocol, packet) = line.split_once(' ').expect("two words");
        let packet = packet.as_bytes().chunks(2).map(byte).collect();
        (u16::from_str_radix(protocol, 16).expect("hex"), packet)
    };
    include_str!("capture.txt").lines().map(frame).collect()
}

/// The cost of a packet with n port ranges: the bounds in the documentation of `filter`.
#[test]
fn few_instructions_run_for_each_packet() {
    let wire = |port: u16| PortRange {
        low: port,
        high: port + port % 2,
    };
    for wires in [0, 5, 29, 60, 125, 1000] {
        let tripwires = Tripwires::listed((0..wires).map(|n| wire(10_000 + 5 * n)).collect());
        let mixed = [
            (Protocol::Tcp, 7000),
            (Protocol::Udp, 8000),
            (Protocol::Tcp, 9000),
        ];
        for local in [&["10.0.0.1"][..], &["10.0.0.1", "2001:db8::1"]] {
            let local: Vec<_> = local.iter().copied().map(ip).collect();
            let filter = compile(
                &[door(&mixed, SYN, None)],
                &tripwires,
                &local,
                KERNEL,
                false,
            );
            // The ranges of the config. If there are too many, the program has fewer.
            let ranges = 3 + 2 * usize::from(wires);
            let log = ranges.next_power_of_two().ilog2() as usize;
            let mut worst = [0; 5];
            let mut probe = |protocol: u16, packet: &[u8]| {
                let (verdict, cost) = count(&filter.program, packet, &Meta::host(protocol));
                let (kind, most) = match (protocol, packet.get(9), packet.get(16..20)) {
                    (ETH_P_IPV6, ..) => return,
                    (ETH_P_IP, Some(6 | 17), Some([10, 0, 0, 1])) if verdict != 0 => (4, 28 + log),
                    (ETH_P_IP, Some(6 | 17), Some([10, 0, 0, 1])) => (3, 16 + log),
                    (ETH_P_IP, _, Some([10, 0, 0, 1])) => (2, 10),
                    (ETH_P_IP, ..) => (1, 10),
                    _ => (0, 4),
                };
                assert!(
                    cost <= most,
                    "{wires} tripwires: {cost} instructions, at most {most}: {packet:x?}"
                );
                worst[kind] = worst[kind].max(cost);
            };
            for (protocol, packet) in capture() {
                probe(protocol, &packet);
            }
            // Also one packet to each port with SYN, with ACK, and over UDP.
            let mut packet = syn_v4(0, 0);
            for port in 1..=u16::MAX {
                packet[22..24].copy_from_slice(&port.to_be_bytes());
                for (transport, flags) in [(6, 2), (6, 0x10), (17, 0)] {
                    (packet[9], packet[33]) = (transport, flags);
                    probe(ETH_P_IP, &packet);
                }
            }
            println!(
                "{wires} tripwires, {} instructions: most run {worst:?}",
                filter.program.len()
            );
            assert!(worst.iter().all(|cost| *cost > 0), "each kind was there");
        }
    }
}
