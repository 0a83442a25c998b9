//! Which attempt is evicted when the table is full.

use crate::script::{Lab, door, host, rules, stranger};
use knockd_rs::knock::Matching::{self, Strict, Tolerant};
use knockd_rs::limits::{DEFAULT_ATTEMPTS, MAX_ATTEMPTS};
use knockd_rs::matcher::Rules;
use std::net::IpAddr;
use std::time::Instant;

const BOTH: [Matching; 2] = [Tolerant, Strict];
const MAX: u32 = DEFAULT_ATTEMPTS as u32;

fn lab(matching: Matching) -> Lab {
    Lab::new(
        &[door("7,8,9", 25_000), door("1,2,3,4,5,6", 25_000)],
        matching,
    )
}

fn user(n: u32) -> IpAddr {
    IpAddr::V4((0x0a0a_0000 + n).into())
}

#[test]
fn a_flood_of_first_knocks_never_evicts_a_halfway_client() {
    for matching in BOTH {
        let mut lab = lab(matching);
        for n in 0..1_000 {
            lab.knocks_from(user(n), "7 8");
        }
        for n in 0..3 * MAX {
            lab.knocks_from(stranger(n), "7");
        }
        lab.events.clear();
        for n in 0..1_000 {
            lab.knocks_from(user(n), "9");
            assert_eq!(lab.take_events(), "A3 A!", "user {n}");
        }
    }
}

#[test]
fn a_first_step_survives_as_many_knocks_as_the_table_holds() {
    for matching in BOTH {
        for (flood, expected) in [(MAX - 1, "A2"), (MAX, "")] {
            let mut lab = lab(matching);
            lab.knocks_from(host(2), "7");
            for n in 0..flood {
                lab.knocks_from(stranger(n), "7");
            }
            lab.events.clear();
            lab.knocks_from(host(2), "8");
            assert_eq!(lab.take_events(), expected);
        }
    }
}

/// The flood knows every step but the last of another door, such as a well-known scan trap.
#[test]
fn a_flood_that_knows_the_first_steps_cannot_lock_anyone_out() {
    for matching in BOTH {
        let mut lab = lab(matching);
        let mut next = 0;
        let mut flood = |lab: &mut Lab, sources| {
            for n in next..next + sources {
                lab.knocks_from(stranger(n), "1 2 3 4 5");
            }
            next += sources;
        };
        flood(&mut lab, 2 * MAX);
        lab.events.clear();
        for (step, expected) in [("7", "A1"), ("8", "A2"), ("9", "A3 A!")] {
            lab.knocks_from(host(2), step);
            assert_eq!(lab.take_events(), expected);
            flood(&mut lab, MAX / 4 - 1);
            lab.events.clear();
        }
    }
}

#[test]
fn the_oldest_of_the_lowest_stage_goes_first() {
    for matching in BOTH {
        let mut lab = lab(matching);
        for n in 0..MAX {
            lab.knocks_from(stranger(n), "1");
        }
        // Source 0 advances to the next stage, so source 1 becomes the oldest of the first stage.
        lab.knocks_from(stranger(0), "2");
        lab.knocks_from(host(2), "1");
        lab.events.clear();
        lab.knocks_from(stranger(1), "2");
        assert_eq!(lab.take_events(), "", "evicted");
        lab.knocks_from(stranger(0), "3");
        lab.knocks_from(stranger(2), "2");
        assert_eq!(lab.take_events(), "B3 B2");
    }
}

#[test]
fn a_flood_of_every_kind_leaves_nothing_behind() {
    for matching in BOTH {
        let mut lab = lab(matching);
        for n in 0..2 * MAX {
            let steps = ["7", "7 8", "1 2 3", "1 3 3 3 3", "7 8 9", "1 1 7"][n as usize % 6];
            lab.knocks_from(stranger(n * 7 % (MAX + 500)), steps);
            if n % 64 == 0 {
                lab.wait(5);
            }
            lab.events.clear();
        }
        lab.wait_for_all();
        assert_eq!(lab.matcher.next_expiry(), None);
        lab.events.clear();
        lab.knocks("7 8 9");
        assert_eq!(lab.take_events(), "A1 A2 A3 A!");
    }
}

/// 100,000 spoofed sources send first knocks at 20,000 packets/s while a user knocks with 100 ms
/// between the steps.
#[test]
fn a_knock_opens_in_a_flood_of_100_000_sources() {
    for matching in BOTH {
        let mut lab = Lab::new(&[door("7000,8000,9000", 10_000)], matching);
        let mut sent = 0u32;
        let mut flood = |lab: &mut Lab, time: u64| {
            for _ in 0..time {
                for _ in 0..20 {
                    // Spread over the whole address space. Each source repeats after 5 s.
                    let source = 0x0b00_0000 + (sent % 100_000).wrapping_mul(0x9e37) % 0xb000_0000;
                    lab.knocks_from(IpAddr::V4(source.into()), "7000");
                    sent += 1;
                }
                lab.wait(1);
                lab.events.clear();
            }
        };
        flood(&mut lab, 1_000);
        for n in 0..100 {
            for step in ["7000", "8000"] {
                lab.knocks_from(user(n), step);
                flood(&mut lab, 100);
            }
            lab.knocks_from(user(n), "9000");
            assert!(lab.take_events().ends_with("3 !"), "user {n}");
        }
    }
}

#[test]
fn one_network_cannot_push_out_others() {
    for matching in BOTH {
        let mut lab = lab(matching);
        lab.knocks_from(host(2), "7");
        for n in 0..4 * u128::from(MAX) {
            let source = 0x2001_0db8_u128 << 96 | n;
            lab.knocks_from(
                IpAddr::V6(source.into()),
                if n % 2 == 0 { "7" } else { "7 8" },
            );
        }
        lab.events.clear();
        lab.knocks_from(host(2), "8 9");
        assert_eq!(lab.take_events(), "A2 A3 A!");
    }
}

/// First knocks use up the share of a network in which a client is halfway through its knock.
#[test]
fn a_halfway_client_in_a_flooding_network_stays() {
    for matching in BOTH {
        let mut lab = lab(matching);
        let address = |n: u128| IpAddr::V6((0x2001_0db8_u128 << 96 | n).into());
        lab.knocks_from(address(1 << 40), "7 8");
        for n in 0..u128::from(MAX) {
            lab.knocks_from(address(n), "7");
        }
        lab.events.clear();
        lab.knocks_from(address(1 << 40), "9");
        assert_eq!(lab.take_events(), "A3 A!");
    }
}

/// However small the table is, every address of a /24 can have an attempt at one door at the same
/// time.
#[test]
fn all_addresses_of_a_24_have_room() {
    for max_attempts in [*MAX_ATTEMPTS.start(), DEFAULT_ATTEMPTS, *MAX_ATTEMPTS.end()] {
        let rules = Rules {
            max_attempts,
            ..rules(Tolerant)
        };
        let mut lab = Lab::with(&[door("7,8", 25_000)], rules);
        (0..=255).for_each(|n| lab.knocks_from(host(n), "7"));
        lab.events.clear();
        (0..=255).for_each(|n| lab.knocks_from(host(n), "8"));
        assert_eq!(lab.take_events().matches('!').count(), 256);
    }
}

/// Five users knock in turns. None of them affects the others.
#[test]
fn five_users_at_once_all_get_in() {
    for matching in BOTH {
        let mut lab = lab(matching);
        for step in ["7", "8", "9"] {
            for n in 0..5 {
                lab.knocks_from(user(n), step);
                lab.wait(20);
            }
        }
        let opened = lab.take_events().matches("A!").count();
        assert_eq!(opened, 5);
    }
}

/// The cost of a knock does not depend on the number of open attempts. Walking all of them would
/// cost a hundred times as much.
#[test]
fn a_knock_among_60000_attempts_costs_what_it_costs_among_100() {
    let time = |attempts: u32| {
        let rules = Rules {
            max_attempts: *MAX_ATTEMPTS.end(),
            ..rules(Tolerant)
        };
        let mut lab = Lab::with(&[door("7,8,9", 3_600_000)], rules);
        for n in 0..attempts {
            lab.knocks_from(stranger(n), "7");
        }
        lab.events.clear();
        let once = |lab: &mut Lab| {
            let begin = Instant::now();
            for _ in 0..2_000 {
                lab.knocks_from(user(0), "8");
            }
            begin.elapsed()
        };
        // Use the minimum of several runs, because other load on the CPU only adds to the time.
        (0..10).map(|_| once(&mut lab)).min().unwrap_or_default()
    };
    let (few, many) = (time(100), time(59_000));
    println!("2,000 knocks among 100 attempts {few:?}, among 59,000 {many:?}");
    assert!(many < few * 4, "{many:?}, {few:?}");
}
