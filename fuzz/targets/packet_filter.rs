//! Runs the kernel filter of arbitrary doors on arbitrary packets. It must pass exactly the packets
//! that a door accepts.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use knockd_rs::knock::{FlagRule, Pattern, Protocol, Sequence, Step};
use interpret::{Meta, check, run};
use knockd_rs::knock::tripwire::{PortRange, Tripwires};
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use world::{ETH_P_IP, ETH_P_IPV6, World};

#[path = "../../tests/capture/interpret.rs"]
#[allow(dead_code)] // The tests use the rest.
mod interpret;
#[path = "../../tests/capture/world.rs"]
#[allow(dead_code)] // The tests use the rest.
mod world;

fn step(u: &mut Unstructured) -> Result<Step> {
    Ok(Step {
        protocol: *u.choose(&[Protocol::Tcp, Protocol::Udp])?,
        port: 1 + u.int_in_range(0..=9)? * u.int_in_range(1..=700)?,
    })
}

fn address(u: &mut Unstructured) -> Result<IpAddr> {
    Ok(u.choose(&world::ADDRESSES)?.parse().expect("an address"))
}

fn pattern(u: &mut Unstructured) -> Result<Pattern> {
    let steps: Vec<Step> = (0..u.int_in_range(1..=5)?)
        .map(|_| step(u))
        .collect::<Result<_>>()?;
    let (set, clear) = *u.choose(&[(2, 0), (2, 0x10), (0, 0), (1, 4)])?;
    Ok(Pattern {
        sequence: Sequence::new(&steps),
        seq_timeout: 1000,
        flags: FlagRule { set, clear },
        target: u.ratio(1, 4)?.then(|| address(u)).transpose()?,
    })
}

#[derive(Debug)]
struct Case {
    world: World,
    packet: Vec<u8>,
}

impl Arbitrary<'_> for Case {
    fn arbitrary(u: &mut Unstructured) -> Result<Case> {
        let patterns: Vec<Pattern> = (0..u.int_in_range(1..=4)?)
            .map(|_| pattern(u))
            .collect::<Result<_>>()?;
        let tripwires = match u.int_in_range(0..=2)? {
            0 => Tripwires::default(),
            1 => Tripwires::auto(&[22, 80], || 4711),
            _ => Tripwires::listed(vec![PortRange {
                low: u.int_in_range(1..=9000)?,
                high: 9000,
            }]),
        };
        let local = (0..u.int_in_range(0..=3)?)
            .map(|_| address(u))
            .collect::<Result<_>>()?;
        Ok(Case {
            world: World {
                patterns,
                tripwires,
                local,
                ipv4_only: u.ratio(1, 8)?,
            },
            packet: u.bytes(u.len().min(200))?.to_vec(),
        })
    }
}

fuzz_target!(|case: Case| {
    let filter = case.world.compile();
    check(&filter.program).expect("a program that the kernel takes");
    for protocol in [ETH_P_IP, ETH_P_IPV6] {
        let passes = run(&filter.program, &case.packet, &Meta::host(protocol)) > 0;
        let wanted = case.world.wants(&case.packet, protocol);
        assert!(passes || !wanted, "a wanted packet is dropped");
        let may_pass = case.world.may_pass(&case.packet, protocol);
        assert!(
            !passes || may_pass || !filter.exact,
            "an unwanted packet passes"
        );
    }
});
