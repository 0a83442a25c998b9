//! Simulates port scans and forged packets: how likely a scan opens a door, and how forged packets
//! disturb a knock. The figures are those of docs/security.md.
//!
//! Packets to ports that are neither steps nor tripwires change nothing. A scan in random order
//! therefore sends only the others, whose order is random as well.

use crate::script::{Lab, door, host, knock, rules, step};
use knockd_rs::config::parse;
use knockd_rs::knock::Matching::Tolerant;
use knockd_rs::knock::tripwire::{BanRule, PortRange, Tripwires};
use knockd_rs::knock::{Pattern, Protocol, Step};
use knockd_rs::limits::{AUTO_TRIPWIRES, GUARDS, MAX_ATTEMPTS};
use knockd_rs::matcher::{Event, Rules};

const SCANS: u32 = 10_000;

/// The steps are neither in order nor adjacent.
const DOORS: [(usize, &str); 3] = [
    (3, "7000,300,40000"),
    (4, "7000,300,40000,5555"),
    (5, "7000,300,40000,5555,20000"),
];

/// Repeats in every run: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

fn auto(random: &mut Random) -> Tripwires {
    Tripwires::auto(&[22], || random.next())
}

fn lab(doors: &[Pattern], tripwires: Tripwires) -> Lab {
    Lab::with(
        doors,
        Rules {
            tripwires,
            max_attempts: *MAX_ATTEMPTS.start(),
            ..rules(Tolerant)
        },
    )
}

/// Everything that a scan of these transports hits: steps and tripwires.
fn touched(doors: &[Pattern], tripwires: &Tripwires, protocols: &[Protocol]) -> Vec<Step> {
    let mut all = Vec::new();
    for &protocol in protocols {
        let wires = tripwires.ranges(protocol, doors);
        let ports = wires.iter().flat_map(|range| range.low..=range.high);
        all.extend(ports.map(|port| Step { protocol, port }));
        let steps = doors
            .iter()
            .flat_map(|door| door.sequence.iter().flat_map(|s| s.steps()));
        all.extend(steps.filter(|step| step.protocol == protocol));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Sends the scan at a single moment, faster than any real scanner. Returns whether a door opened.
fn opens(lab: &mut Lab, scan: impl IntoIterator<Item = Step>) -> bool {
    let sequences = lab
        .matcher
        .patterns()
        .iter()
        .flat_map(|door| &door.sequence);
    let first: Vec<Step> = sequences.map(|sequence| sequence.steps()[0]).collect();
    for (id, step) in (0..).zip(scan) {
        // Without an attempt in progress, only a first step has an effect.
        if lab.matcher.next_expiry().is_none() && !first.contains(&step) {
            continue;
        }
        lab.packet(&knock(host(2), step, id), true);
    }
    let opened = lab
        .events
        .iter()
        .any(|event| matches!(event, Event::Opened { .. }));
    lab.events.clear();
    // Start the next scan without any attempts.
    lab.wait(60_000);
    lab.events.clear();
    opened
}

/// How many of `scans` scans in random order open the door. Each hits every port `times` times in a
/// row and runs `rounds` times within seq_timeout.
fn opened(steps: &str, with_tripwires: bool, times: usize, rounds: usize, scans: u32) -> u32 {
    let mut random = Random(7);
    let doors = [door(steps, 10_000)];
    let mut count = 0;
    for n in 0..scans {
        let tripwires = match with_tripwires {
            true => auto(&mut random),
            false => Tripwires::default(),
        };
        let mut ports = touched(&doors, &tripwires, &[Protocol::Tcp]);
        let mut lab = lab(&doors, tripwires);
        lab.now += u64::from(n);
        let mut scan = Vec::new();
        for _ in 0..rounds {
            random.shuffle(&mut ports);
            scan.extend(ports.iter().flat_map(|port| vec![*port; times]));
        }
        count += u32::from(opens(&mut lab, scan));
    }
    count
}

fn factorial(k: usize) -> f64 {
    (1..=k).map(|n| n as f64).product()
}

/// One of the k! orders of the steps opens, however many misses are forgiven, because each port
/// comes once.
#[test]
fn one_scan_opens_with_a_chance_of_one_in_k_factorial() {
    for (k, steps) in DOORS {
        let expected = f64::from(SCANS) / factorial(k);
        for times in [1, 3] {
            let count = f64::from(opened(steps, false, times, 1, SCANS));
            println!(
                "{k} steps, each port {times} times: {count} of {SCANS}, expected {expected:.0}"
            );
            assert!((count - expected).abs() < 4.0 * expected.sqrt());
        }
    }
}

/// A scan opens neither door of a pair more often than a single door.
#[test]
fn a_scan_gains_nothing_from_an_open_and_a_close_door() {
    let mut random = Random(23);
    let doors = [
        door("7000,300,40000", 10_000),
        door("40000,300,7000", 10_000),
    ];
    let mut opened = [0; 2];
    for n in 0..SCANS {
        let mut ports = touched(&doors, &Tripwires::default(), &[Protocol::Tcp]);
        let mut lab = lab(&doors, Tripwires::default());
        lab.now += u64::from(n);
        random.shuffle(&mut ports);
        for (id, step) in (1..).zip(ports) {
            lab.packet(&knock(host(2), step, id), true);
        }
        for event in lab.events {
            if let Event::Opened { door, .. } = event {
                opened[usize::from(door)] += 1;
            }
        }
    }
    println!("a pair of 3 steps: {opened:?} of {SCANS}");
    let expected = f64::from(SCANS) / factorial(3);
    for count in opened {
        assert!((f64::from(count) - expected).abs() < 4.0 * expected.sqrt());
    }
}

/// The second scan can finish what the first began. No rule that forgives anything can keep the
/// probability at twice that of one scan (knockd 0.8 itself has 3 in 32 for 4 steps).
/// docs/security.md lists the figures for all pairs of orders: 3/4, 0.33, 0.085.
#[test]
fn two_scans_within_seq_timeout_open_more_often() {
    for ((k, steps), chance) in DOORS.into_iter().zip([0.75, 0.328, 0.0852]) {
        let count = f64::from(opened(steps, false, 1, 2, SCANS));
        let expected = chance * f64::from(SCANS);
        println!("{k} steps, two scans: {count} of {SCANS}, expected {expected:.0}");
        assert!((count - expected).abs() < 4.0 * expected.sqrt());
    }
}

/// The number of tripwires of `auto` that a TCP scan hits, for k TCP steps that are far apart.
fn auto_wires(k: usize) -> f64 {
    (AUTO_TRIPWIRES + 2 * usize::from(GUARDS) * k) as f64
}

/// With T tripwires and k steps, one scan has (1 + k T) / (k! C(T + k, k)), see docs/security.md.
#[test]
fn with_tripwires_a_random_scan_has_less_than_one_chance_in_1000() {
    for (k, steps) in DOORS {
        let wires = auto_wires(k);
        let choose: f64 = (1..=k).map(|n| (wires + n as f64) / n as f64).product();
        let formula = (1.0 + k as f64 * wires) / choose / factorial(k);
        assert!(formula < 0.001);
        for (times, rounds) in [(1, 1), (3, 1), (1, 2)] {
            // Enough scans for a statistically stable result.
            let scans = if (k, times, rounds) == (3, 1, 1) {
                4 * SCANS
            } else {
                SCANS
            };
            let count = opened(steps, true, times, rounds, scans);
            println!(
                "{k} steps, each port {times} times, {rounds} scans: {count} of {scans}; one scan by formula: {:.2}",
                formula * f64::from(scans)
            );
            assert!(f64::from(count) <= 0.001 * f64::from(scans));
        }
    }
}

/// Scans all ports up and down, each port once and three times, twice within seq_timeout. Every
/// door has more than one step.
fn ordered_scans(doors: &[Pattern], tripwires: &Tripwires) -> bool {
    let mut lab = lab(doors, tripwires.clone());
    let up = touched(doors, tripwires, &[Protocol::Tcp, Protocol::Udp]);
    let mut by_port = up.clone();
    by_port.sort_by_key(|step| step.port);
    let mut opened = false;
    for order in [up, by_port] {
        let down: Vec<Step> = order.iter().rev().copied().collect();
        for order in [&order, &down] {
            for times in [1, 3] {
                let once = || order.iter().flat_map(|step| vec![*step; times]);
                opened |= opens(&mut lab, once());
                opened |= opens(&mut lab, once().chain(once()));
            }
        }
    }
    opened
}

#[test]
fn with_tripwires_no_ordered_scan_opens() {
    let mut random = Random(11);
    for k in [3, 4, 5] {
        for _ in 0..200 {
            // Nothing opens even if the steps themselves are in order, as long as none are
            // adjacent.
            let mut ports: Vec<u16> = Vec::new();
            while ports.len() < k {
                let near = if random.below(2) == 0 { 20 } else { 65_535 };
                let port = random.below(near) as u16 + 1;
                if ports.iter().all(|other| other.abs_diff(port) > 1) {
                    ports.push(port);
                }
            }
            match random.below(3) {
                0 => ports.sort_unstable(),
                1 => ports.sort_unstable_by_key(|port| u16::MAX - port),
                _ => {}
            }
            let steps: Vec<String> = ports.iter().map(u16::to_string).collect();
            let doors = [door(&steps.join(","), 10_000)];
            assert!(!ordered_scans(&doors, &auto(&mut random)), "{steps:?}");
        }
    }
}

/// Uses the doors of the shipped config except the trap, which is meant to be scanned, and steps
/// that `--check` accepts.
#[test]
fn no_scan_opens_a_door_of_the_shipped_config() {
    let text = include_str!("../../files/etc/knockd.conf");
    let (options, examples) = text.split_once("\n#[").expect("an example");
    let (examples, _) = examples.split_once("#[scan trap]").expect("the trap");
    let code = |line: &str| {
        line.strip_prefix('#')
            .filter(|code| !code.starts_with(' '))
            .map(String::from)
    };
    let examples: Vec<String> = format!("#[{examples}").lines().filter_map(code).collect();
    let text = format!("{options}\n{}", examples.join("\n"));
    let config = parse(text.as_bytes(), &mut |_| ()).expect("the shipped config");
    assert_eq!(
        config.options.tripwire,
        knockd_rs::knock::tripwire::Tripwire::Auto
    );
    let mut doors: Vec<Pattern> = config
        .doors
        .into_iter()
        .map(|door| door.pattern(door.sequence().cloned()))
        .collect();
    assert_eq!(doors.len(), 5);
    doors.push(door("500,9000:udp,20000,400", 10_000));

    let both = [Protocol::Tcp, Protocol::Udp];
    let mut random = Random(13);
    // Scan each door alone and all of them together, because the steps of the others have guards
    // too.
    let alone = doors.iter().map(std::slice::from_ref);
    for doors in alone.chain([&doors[..]]) {
        for _ in 0..200 {
            let tripwires = auto(&mut random);
            let mut order = touched(doors, &tripwires, &both);
            random.shuffle(&mut order);
            assert!(!opens(&mut lab(doors, tripwires), order));
        }
        assert!(!ordered_scans(doors, &auto(&mut random)));
    }
    // Scan all 65,535 ports to show that the other ports do not matter.
    let all = |protocol| (1..=u16::MAX).map(move |port| Step { protocol, port });
    let mut order: Vec<Step> = both.into_iter().flat_map(all).collect();
    {
        let mut lab = lab(&doors, auto(&mut random));
        assert!(!opens(&mut lab, order.iter().copied()));
        assert!(!opens(&mut lab, order.iter().rev().copied()));
        random.shuffle(&mut order);
        assert!(!opens(&mut lab, order.iter().copied()));
    }
}

/// Replays the scenario of the DD-WRT wiki: three addresses share a scan of all 65,535 ports in
/// random order, switching every 2 s. No door opens, and with bans all three are banned long before
/// the end.
#[test]
fn three_addresses_that_share_a_slow_scan_are_banned() {
    let mut random = Random(19);
    let doors = DOORS.map(|(_, steps)| door(steps, 10_000));
    let mut latest = 0;
    for _ in 0..20 {
        let rules = Rules {
            tripwires: auto(&mut random),
            ban: Some(BanRule {
                hits: 3,
                window: 86_400_000,
            }),
            ..rules(Tolerant)
        };
        let mut lab = Lab::with(&doors, rules);
        let mut ports: Vec<u16> = (1..=u16::MAX).collect();
        random.shuffle(&mut ports);
        let mut banned = [None; 3];
        for (number, port) in ports.into_iter().enumerate() {
            let source = number % 3;
            let step = Step {
                protocol: Protocol::Tcp,
                port,
            };
            lab.packet(&knock(host(2 + source as u8), step, number as u32), true);
            for event in lab.events.drain(..) {
                assert!(!matches!(event, Event::Opened { .. }));
                if let Event::Scanned { source } = event {
                    let index = (0..3).find(|index| host(2 + *index as u8) == source);
                    banned[index.expect("one of the three")].get_or_insert(number);
                }
            }
            lab.wait(2_000);
        }
        let last = banned.iter().map(|number| number.expect("banned")).max();
        latest = latest.max(last.unwrap_or_default());
    }
    println!("all three banned after {latest} of 65,535 ports at the latest of 20 scans");
    assert!(latest < 65_535 * 3 / 10, "{latest}");
}

/// Openings per second of one door by a flood of 20,000 SYN/s from one address to random ports.
/// Simulates the first `packets` of these packets that hit a step or a tripwire.
fn flood(steps: &str, tripwires: Tripwires, packets: u32) -> f64 {
    let mut random = Random(23);
    let doors = [door(steps, 10_000)];
    let ports = touched(&doors, &tripwires, &[Protocol::Tcp]);
    let mut lab = lab(&doors, tripwires);
    let pause = 65_535.0 / 20_000.0 / ports.len() as f64 * 1000.0;
    let (mut opened, mut time) = (0, 0.0);
    for id in 0..packets {
        let part = (random.below(1 << 53) + 1) as f64 / (1_u64 << 53) as f64;
        time -= part.ln() * pause;
        lab.wait((1_000 + time as u64).saturating_sub(lab.now));
        let port = ports[random.below(ports.len() as u64) as usize];
        lab.packet(&knock(host(2), port, id), true);
        let is_opened = |event: &Event| matches!(event, Event::Opened { .. });
        opened += lab.events.drain(..).filter(is_opened).count();
    }
    opened as f64 / time * 1000.0
}

/// (R/S) k / (T + 1)^(k - 1) for R packets per second to S ports, see docs/security.md.
#[test]
fn a_flood_opens_a_door_as_rarely_as_the_formula_says() {
    let formula =
        |k: usize, wires: f64| 20_000.0 / 65_535.0 * k as f64 / (wires + 1.0).powi(k as i32 - 1);
    // Without tripwires the formula does not apply: steps out of order end an attempt instead.
    for ((k, steps), time) in DOORS.into_iter().zip([11.0, 26.0, 121.0]) {
        let rate = flood(steps, Tripwires::default(), 400_000);
        let with = 1.0 / formula(k, auto_wires(k));
        println!(
            "{k} steps: opened every {:.1} s, auto by formula {with:.0} s",
            1.0 / rate
        );
        assert!((rate * time - 1.0).abs() < 0.15);
    }
    // Few enough tripwires that the door opens often enough to count.
    for (k, wires) in [(3, 20), (3, 60), (4, 20), (5, 10)] {
        let range = PortRange {
            low: 1000,
            high: 999 + wires,
        };
        let rate = flood(DOORS[k - 3].1, Tripwires::listed(vec![range]), 8_000_000);
        let ratio = rate / formula(k, wires.into());
        println!("{k} steps, {wires} tripwires: {ratio:.2} of the formula");
        assert!((ratio - 1.0).abs() < 0.25);
    }
}

/// Knocks 7000, 300, 40000 with 100 ms between the steps while forged packets come from the same
/// address. `forge` returns the time to the next forged packet (in microseconds) and its step.
/// Returns how many of 1,000 knocks open the first door at once, and how many open it when they are
/// repeated after the last forged packet.
fn knocks_among_forged(
    doors: &[&str],
    mut forge: impl FnMut(&mut Random) -> (u64, Step),
) -> (u32, u32) {
    const STEPS: [&str; 3] = ["7000", "300", "40000"];
    let mut random = Random(17);
    let doors: Vec<Pattern> = doors.iter().map(|steps| door(steps, 10_000)).collect();
    let (mut at_once, mut later) = (0, 0);
    for _ in 0..1_000 {
        let mut lab = lab(&doors, auto(&mut random));
        let mut forged = forge(&mut random);
        // Forged packets start 2 s before the first step.
        for (begin, text) in [
            (0, None),
            (2_000, Some(STEPS[0])),
            (2_100, Some(STEPS[1])),
            (2_200, Some(STEPS[2])),
        ] {
            while forged.0 < begin * 1_000 {
                lab.wait((1_000 + forged.0 / 1_000).saturating_sub(lab.now));
                lab.packet(&knock(host(2), forged.1, forged.0 as u32), true);
                let (pause, step) = forge(&mut random);
                forged = (forged.0 + pause, step);
            }
            if text == Some(STEPS[0]) {
                lab.events.clear();
            }
            lab.wait((1_000 + begin).saturating_sub(lab.now));
            lab.knocks(text.unwrap_or_default());
        }
        let opened = |lab: &mut Lab| {
            let opened = |event| matches!(event, Event::Opened { door: 0, .. });
            lab.events.drain(..).any(opened)
        };
        at_once += u32::from(opened(&mut lab));
        lab.knocks(&STEPS.join(" "));
        later += u32::from(opened(&mut lab));
    }
    println!(
        "{doors:?}: {at_once} at once, {later} when repeated",
        doors = doors.len()
    );
    (at_once, later)
}

/// A single door, and a door with another one that closes it again.
const ALONE: [&str; 1] = ["7000,300,40000"];
const PAIR: [&str; 2] = ["7000,300,40000", "40000,300,7000"];

#[test]
fn a_knock_survives_1000_forged_packets_a_second_on_random_ports() {
    for doors in [&ALONE[..], &PAIR] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (at_once, later) = knocks_among_forged(doors, |random| {
                let port = random.below(65_535) as u16 + 1;
                (1_000, Step { protocol, port })
            });
            assert!(at_once >= 920, "{at_once}");
            assert_eq!(later, 1_000, "locked out");
        }
    }
}

/// On average 5 forged packets per second in a Poisson process. They disturb more if another door
/// uses the same ports, because they can complete that one and a knock counts once.
#[test]
fn a_knock_survives_5_forged_packets_a_second_on_its_own_ports() {
    for (doors, least, least_later) in [(&ALONE[..], 980, 1_000), (&PAIR, 700, 950)] {
        let (at_once, later) = knocks_among_forged(doors, |random| {
            let part = (random.below(1 << 53) + 1) as f64 / (1_u64 << 53) as f64;
            let pause = (-part.ln() * 200_000.0) as u64;
            let port = ["7000", "300", "40000"][random.below(3) as usize];
            (pause, step(port))
        });
        assert!(at_once >= least, "{at_once}");
        assert!(later >= least_later, "{later}");
    }
}
