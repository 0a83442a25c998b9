//! Compares the kernel filter, run by an interpreter of our own, with the plain rule.

use super::packets::packet;
use super::world::{ETH_P_IP, ETH_P_IPV6, World, ip, world};
use crate::interpret::{Meta, check, run};
use knockd_rs::capture::filter::{Filter, Kernel, compile, knows_vlan_tag};
use knockd_rs::knock::tripwire::Tripwires;
use knockd_rs::knock::{FlagRule, Pattern, Protocol, Sequence, Step};
use knockd_rs::limits::{MAX_FILTER_INSTRUCTIONS, SNAP_LENGTH};
use knockd_rs::util::bpf::{Instruction, op};
use proptest::prelude::*;

pub const KERNEL: Kernel = Kernel {
    vlan_tag_present: true,
};
pub const SYN: FlagRule = FlagRule { set: 2, clear: 0 };

pub fn door(steps: &[(Protocol, u16)], flags: FlagRule, target: Option<&str>) -> Pattern {
    let steps: Vec<Step> = steps
        .iter()
        .map(|&(protocol, port)| Step { protocol, port })
        .collect();
    Pattern {
        sequence: Some(Sequence::new(&steps).expect("1 to 32 steps")),
        seq_timeout: 25_000,
        flags,
        target: target.map(ip),
    }
}

pub fn none() -> Tripwires {
    Tripwires::default()
}

pub fn tcp(ports: &[u16]) -> Pattern {
    let steps: Vec<_> = ports.iter().map(|&port| (Protocol::Tcp, port)).collect();
    door(&steps, SYN, None)
}

/// A filter for one door, 7000:tcp,8000:udp,9000:tcp with SYN, on 10.0.0.1 and 2001:db8::1.
fn one_door() -> Filter {
    let steps = [
        (Protocol::Tcp, 7000),
        (Protocol::Udp, 8000),
        (Protocol::Tcp, 9000),
    ];
    compile(
        &[door(&steps, SYN, None)],
        &none(),
        &[ip("10.0.0.1"), ip("2001:db8::1")],
        KERNEL,
        false,
    )
}

/// A SYN to 10.0.0.1 port 7000 with `options` words of IPv4 options and this fragment field.
pub fn syn_v4(options: usize, fragment: u16) -> Vec<u8> {
    let mut bytes = vec![0x45 + options as u8, 0, 0, 40 + 4 * options as u8, 0, 1];
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, 6, 0, 0, 198, 51, 100, 9, 10, 0, 0, 1]);
    bytes.resize(20 + 4 * options, 1);
    bytes.extend(TCP_SYN);
    bytes
}

const TCP_SYN: [u8; 20] = [
    0x30, 0x39, 0x1b, 0x58, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0,
];

/// A SYN to 2001:db8::1 port 7000 behind these extension headers, the first of which is of this
/// kind.
fn syn_v6(kind: u8, extensions: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 20 + extensions.len() as u8, kind, 64];
    for last in [9, 1] {
        bytes.extend([
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last,
        ]);
    }
    bytes.extend(extensions);
    bytes.extend(TCP_SYN);
    bytes
}

pub fn passes(filter: &Filter, packet: &[u8]) -> bool {
    let protocol = if packet[0] >> 4 == 4 {
        ETH_P_IP
    } else {
        ETH_P_IPV6
    };
    run(&filter.program, packet, &Meta::host(protocol)) != 0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn passes_what_a_door_wants_and_nothing_else(
        world in world(),
        packets in prop::collection::vec(packet(), 100),
        other_protocol in any::<u16>(),
    ) {
        let filter = world.compile();
        prop_assert_eq!(check(&filter.program), Ok(()));
        for packet in packets {
            let bytes = packet.bytes(&world);
            for protocol in [packet.ethertype(), ETH_P_IP, ETH_P_IPV6, other_protocol] {
                let verdict = run(&filter.program, &bytes, &Meta::host(protocol));
                prop_assert!(verdict == 0 || verdict == SNAP_LENGTH as u32);
                let wanted = world.wants(&bytes, protocol);
                prop_assert!(verdict != 0 || !wanted, "missed {:x?}", bytes);
                let may_pass = world.may_pass(&bytes, protocol);
                prop_assert!(verdict == 0 || may_pass || !filter.exact, "passed {:x?}", bytes);
            }
        }
    }

    #[test]
    fn agrees_at_every_length(world in world(), packet in packet()) {
        let filter = world.compile();
        let bytes = packet.bytes(&world);
        for length in 0..=bytes.len() {
            let cut = &bytes[..length];
            let verdict = run(&filter.program, cut, &Meta::host(packet.ethertype())) != 0;
            let wanted = world.wants(cut, packet.ethertype());
            prop_assert!(verdict || !wanted);
            prop_assert!(!verdict || world.may_pass(cut, packet.ethertype()) || !filter.exact);
        }
    }

    #[test]
    fn sent_and_tagged_frames_never_pass(
        world in world(),
        packet in packet(),
        packet_type in 4..=7_u8,
        priority in 0..16_u16,
        vlan in 1..=0x0fff_u16,
    ) {
        let filter = world.compile();
        let bytes = packet.bytes(&world);
        let host = Meta::host(packet.ethertype());
        let other = Meta { packet_type, ..host };
        prop_assert_eq!(run(&filter.program, &bytes, &other), 0);
        let vlan_tag = priority << 12 | vlan;
        let tagged = Meta { vlan_tag_present: true, vlan_tag, ..host };
        prop_assert_eq!(run(&filter.program, &bytes, &tagged), 0);
        let vlan_0 = Meta { vlan_tag: priority << 12, ..tagged };
        prop_assert_eq!(
            run(&filter.program, &bytes, &vlan_0),
            run(&filter.program, &bytes, &host)
        );
        for packet_type in 0..=3 {
            let meta = Meta { packet_type, ..host };
            let verdict = run(&filter.program, &bytes, &meta);
            prop_assert_eq!(verdict, run(&filter.program, &bytes, &host));
        }
    }

    #[test]
    fn compiles_the_same_twice(world in world()) {
        prop_assert_eq!(world.compile(), world.compile());
    }
}

#[test]
fn random_cases_are_worth_something() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut passed, mut refused, mut coarse) = (0, 0, 0);
    for _ in 0..300 {
        let world: World = world().new_tree(&mut runner).expect("a world").current();
        coarse += usize::from(!world.compile().exact);
        for _ in 0..50 {
            let packet = packet().new_tree(&mut runner).expect("a packet").current();
            match world.wants(&packet.bytes(&world), packet.ethertype()) {
                true => passed += 1,
                false => refused += 1,
            }
        }
    }
    println!("wanted {passed}, not wanted {refused}; coarse filters {coarse} of 300");
    assert!(passed > 500 && refused > 500 && coarse > 10);
}

#[test]
fn nothing_to_pass_is_one_instruction() {
    let drop = vec![Instruction {
        code: op::RET,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    let local = [ip("10.0.0.1")];
    let disabled = Pattern {
        sequence: None,
        ..tcp(&[1])
    };
    let v6_target = door(&[(Protocol::Tcp, 1)], SYN, Some("2001:db8::1"));
    let never = Pattern {
        flags: FlagRule { set: 2, clear: 2 },
        ..tcp(&[1])
    };
    for (patterns, local, ipv4_only) in [
        (&[][..], &local[..], false),
        (&[tcp(&[1])], &[], false),
        (&[disabled], &local, false),
        (&[never], &local, false),
        (&[v6_target], &local, true),
        (&[tcp(&[1])], &[ip("::1")], true),
    ] {
        assert_eq!(
            compile(patterns, &none(), local, KERNEL, ipv4_only),
            Filter {
                program: drop.clone(),
                exact: true
            }
        );
    }
}

#[test]
fn old_kernels_are_not_asked_about_vlan_tags() {
    let asks = |vlan_tag_present| {
        compile(
            &[tcp(&[7000])],
            &none(),
            &[ip("10.0.0.1")],
            Kernel { vlan_tag_present },
            false,
        )
        .program
        .iter()
        .any(|Instruction { k, .. }| [44, 48].contains(&k.wrapping_add(0x1000)))
    };
    assert!(asks(true) && !asks(false));
    for (release, knows) in [
        ("2.6.24.111", false),
        ("2.6.39", false),
        ("3.2.102-svn1234", false),
        ("3.7", false),
        ("3.8.0", true),
        ("3.10.108-d1", true),
        ("4.4.0", true),
        ("6.18.44-fc-v669", true),
        ("10.0", true),
        ("", false),
        ("3", false),
        ("x.y", false),
        ("99999999999.1", false),
    ] {
        assert_eq!(knows_vlan_tag(release), knows, "{release}");
    }
}

#[test]
fn options_and_first_fragments_pass_later_fragments_do_not() {
    let filter = one_door();
    assert!(passes(&filter, &syn_v4(0, 0)));
    assert!(passes(&filter, &syn_v4(3, 0)), "IHL 8");
    assert!(passes(&filter, &syn_v4(10, 0x4000)), "IHL 15, DF");
    assert!(passes(&filter, &syn_v4(0, 0x2000)), "MF");
    assert!(!passes(&filter, &syn_v4(0, 0x2001)), "offset");
    assert!(!passes(&filter, &syn_v4(0, 0x1000)), "high offset");
}

#[test]
fn extension_headers_are_followed_up_to_three() {
    let filter = one_door();
    assert!(passes(&filter, &syn_v6(6, &[])));
    // knockd 0.8 does not see these.
    assert!(
        passes(&filter, &syn_v6(60, &[6, 0, 1, 4, 0, 0, 0, 0])),
        "destination options"
    );
    assert!(passes(
        &filter,
        &syn_v6(0, &[[43, 0], [60, 0], [6, 0]].map(extension).concat())
    ));
    let four = [[43, 0], [60, 0], [60, 0], [6, 0]].map(extension).concat();
    assert!(!passes(&filter, &syn_v6(0, &four)), "four");
    assert!(
        passes(&filter, &syn_v6(44, &[6, 0xff, 0, 1, 0, 0, 0, 1])),
        "first fragment"
    );
    assert!(
        !passes(&filter, &syn_v6(44, &[6, 0, 0, 8, 0, 0, 0, 1])),
        "later fragment"
    );
    assert!(
        !passes(&filter, &syn_v6(51, &[6, 0, 0, 0, 0, 0, 0, 0])),
        "AH"
    );
}

fn extension([next, units]: [u8; 2]) -> [u8; 8] {
    [next, units, 0, 0, 0, 0, 0, 0]
}

#[test]
fn the_checker_refuses_what_the_kernel_refuses() {
    let ret = Instruction {
        code: op::RET,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let test = |jt, jf| Instruction {
        code: op::JEQ,
        jt,
        jf,
        k: 0,
    };
    let other = |code, k| Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    assert_eq!(check(&[test(0, 1), ret, ret]), Ok(()));
    for wrong in [
        &[][..],
        &[test(0, 2), ret, ret],
        &[other(op::TAX, 0)],
        &[other(op::JA, u32::MAX), ret],
        &[other(op::LD_MEM, 0), ret],
        &[other(op::ST, 16), ret],
        &[test(0, 1), other(op::ST, 0), other(op::LD_MEM, 0), ret],
        &[ret, ret],
        &[other(0xffff, 0), ret],
        &[ret; MAX_FILTER_INSTRUCTIONS + 1],
    ] {
        assert!(check(wrong).is_err(), "{wrong:?}");
    }
}
