//! The matcher allocates memory when it is created and never while it handles a packet.

use knockd_rs::knock::tripwire::{PortRange, Tripwires};
use knockd_rs::knock::{FlagRule, Knock, Matching, Pattern, Protocol, Sequence, Step};
use knockd_rs::matcher::{Matcher, Rules};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does all the work; counting neither allocates nor touches the
// memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn step(port: u16) -> Step {
    Step {
        protocol: if port == 3 {
            Protocol::Udp
        } else {
            Protocol::Tcp
        },
        port,
    }
}

fn door(ports: &[u16]) -> Pattern {
    let steps: Vec<Step> = ports.iter().copied().map(step).collect();
    let sequence = Sequence::new(&steps);
    Pattern {
        sequence,
        seq_timeout: 300,
        flags: FlagRule::default(),
        target: None,
    }
}

#[test]
fn no_packet_allocates() {
    let long: Vec<u16> = (0..32).map(|n| n % 4 + 1).collect();
    let doors = [
        door(&[1, 2, 3]),
        door(&[1, 1, 2, 3, 4]),
        door(&[4]),
        door(&long),
    ];
    for matching in [Matching::Tolerant, Matching::Strict] {
        let rules = Rules {
            matching,
            max_attempts: 4096,
            tripwires: Tripwires::listed(vec![PortRange::single(5)]),
            ban: None,
        };
        let mut matcher = Matcher::new(doors.to_vec(), rules, 1);
        let before = ALLOCATIONS.get();
        let mut random = 1u64;
        let mut events = 0u32;
        for now in 0..300_000u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let source = (random >> 33) as u32 % 10_000;
            let knock = Knock {
                source: std::net::IpAddr::V4(source.into()),
                destination: [10, 9, 0, 1].into(),
                step: step((random >> 60) as u16 % 5 + 1),
                flags: 2,
                source_port: 1,
                serial: random as u32,
            };
            matcher.knock(&knock, true, now / 10, &mut |_| events += 1);
            if now % 10_000 == 0 {
                matcher.set_sequence(1, doors[3].sequence.clone());
            }
        }
        assert!(events > 100_000, "the traffic is worth counting");
        assert_eq!(ALLOCATIONS.get(), before);
    }
}
