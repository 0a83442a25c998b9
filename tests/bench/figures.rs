//! One function for each figure.

use crate::lab::latency::{Latency, at_high_priority};
use crate::lab::{Flood, ROUTER, packet};
use crate::subject::{Running, Subject, disk};
use crate::table::{Row, Table};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Measures knockd-rs and the original.
type Measure = fn(&Subject, &Subject, &mut Table);

/// All measurements.
pub const ALL: &[(&str, Measure)] = &[
    ("disk", footprint),
    ("latency", latency),
    ("idle", idle),
    ("cpu-flood", cpu_in_a_flood),
    ("cpu-attempts", cpu_with_attempts),
    ("cpu-scan", cpu_of_a_scan),
    ("memory-flood", memory_after_a_flood),
    ("success-users", five_users),
    ("success-flood", success_in_a_flood),
];

/// A door whose attempts live long.
const DOOR: &str = "[A]\nsequence = 7000,8000,9000\nseq_timeout = 3600\ntcpflags = syn\n\
                    command = echo %IP% >> @HOME@/opened\n";

const ROUNDS: usize = 7;

/// Measures once per program in each round, in the order A B, B A, so that neither is always first.
fn in_turn(
    rounds: usize,
    mut ours: impl FnMut() -> f64,
    mut original: impl FnMut() -> f64,
) -> (Vec<f64>, Vec<f64>) {
    let (mut our_figures, mut original_figures) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            our_figures.push(ours());
            original_figures.push(original());
        } else {
            original_figures.push(original());
            our_figures.push(ours());
        }
    }
    (our_figures, original_figures)
}

fn footprint(ours: &Subject, original: &Subject, table: &mut Table) {
    let ((own, all), (original_own, original_all)) = (disk(&ours.binary), disk(&original.binary));
    let mut add = |what: &str, ours: u64, original: u64| {
        table.add(Row {
            what: what.to_string(),
            unit: "kB",
            original: vec![original as f64 / 1000.0],
            ours: vec![ours as f64 / 1000.0],
            note: String::new(),
        });
    };
    add("disk: program and libpcap", own, original_own);
    add("disk: with every library", all, original_all);
}

fn latency(ours: &Subject, original: &Subject, table: &mut Table) {
    at_high_priority(|| {
        let ours = Latency::new(&ours.binary, false);
        let original = Latency::new(&original.binary, true);
        let (mut our_effects, mut original_effects) = (Vec::new(), Vec::new());
        let (our_shells, original_shells) = in_turn(
            100,
            || {
                let round = ours.round();
                our_effects.push(round.effect.as_secs_f64() * 1e3);
                round.shell.as_secs_f64() * 1e3
            },
            || {
                let round = original.round();
                original_effects.push(round.effect.as_secs_f64() * 1e3);
                round.shell.as_secs_f64() * 1e3
            },
        );
        let mut add = |what: &str, ours, original| {
            table.add(Row {
                what: what.to_string(),
                unit: "ms",
                original,
                ours,
                note: String::new(),
            });
        };
        add(
            "latency: last knock to execve of the shell",
            our_shells,
            original_shells,
        );
        add(
            "latency: last knock to the effect of touch",
            our_effects,
            original_effects,
        );
    });
}

fn idle(ours: &Subject, original: &Subject, table: &mut Table) {
    const SECONDS: u64 = 10;
    let (ours, original) = (ours.start("", DOOR), original.start("", DOOR));
    let mut add = |what: &str, unit, figure: &dyn Fn(&Running) -> u64| {
        table.add(Row {
            what: what.to_string(),
            unit,
            original: vec![figure(&original) as f64],
            ours: vec![figure(&ours) as f64],
            note: String::new(),
        });
    };
    add("idle: proportional memory", "kB", &Running::proportional);
    add("idle: resident memory", "kB", &Running::resident);
    add("idle: private memory", "kB", &Running::private);
    let before = [ours.switches(), original.switches()];
    std::thread::sleep(Duration::from_secs(SECONDS));
    table.add(Row {
        what: format!("idle: wake-ups in {SECONDS} s"),
        unit: "",
        original: vec![(original.switches() - before[1]) as f64],
        ours: vec![(ours.switches() - before[0]) as f64],
        note: String::new(),
    });
}

/// Nanoseconds of CPU time per packet while the daemon receives these. No packet may be lost.
fn cost(running: &Running, flood: &Flood, number: usize, per_second: u32) -> f64 {
    let _ = running.packets();
    let before = running.cpu();
    flood.send_all(&running.scene.wire, number, per_second);
    // The last packets are read within this time.
    std::thread::sleep(Duration::from_millis(200));
    let spent = running.cpu() - before;
    let (seen, dropped) = running.packets();
    if dropped > 0 || seen < number as u64 {
        eprintln!("  a round is void: {seen} of {number} seen, {dropped} dropped");
        return f64::NAN;
    }
    spent as f64 / number as f64
}

fn cpu_in_a_flood(ours: &Subject, original: &Subject, table: &mut Table) {
    let (ours, original) = (ours.start("LogRate = 1\n", DOOR), original.start("", DOOR));
    for (what, port, sources) in [
        ("cpu: 20,000/s, 100,000 sources, middle port", 8000, 100_000),
        ("cpu: 20,000/s, one source, middle port", 8000, 1),
    ] {
        let make = |running: &Running| Flood::new(&running.scene.wire, port, 0, sources);
        let (our_flood, original_flood) = (make(&ours), make(&original));
        let (ours, original) = in_turn(
            ROUNDS,
            || cost(&ours, &our_flood, 40_000, 20_000) / 1e3,
            || cost(&original, &original_flood, 40_000, 20_000) / 1e3,
        );
        table.add(Row {
            what: what.to_string(),
            unit: "us",
            original,
            ours,
            note: String::new(),
        });
    }
}

fn cpu_with_attempts(ours: &Subject, original: &Subject, table: &mut Table) {
    // No limit is reached, because knockd 0.8 has none.
    let options = "LogRate = 1\nMaxAttempts = 60000\n";
    let (ours, original) = (ours.start(options, DOOR), original.start("", DOOR));
    let mut open = 0;
    for attempts in [100, 1_000, 10_000, 50_000] {
        for running in [&ours, &original] {
            let flood = Flood::new(&running.scene.wire, 7000, open, attempts - open);
            // Slow enough for the original, whose cost grows with their number.
            let rate = if running.daemon.pid() == ours.daemon.pid() {
                20_000
            } else {
                2_000
            };
            flood.send_all(&running.scene.wire, (attempts - open) as usize, rate);
        }
        open = attempts;
        assert_eq!(ours.attempts(), attempts as u64, "not all are open");
        let make = |running: &Running| Flood::new(&running.scene.wire, 8000, 1_000_000, 1);
        let (our_flood, original_flood) = (make(&ours), make(&original));
        let number = if attempts > 5_000 { 1_000 } else { 4_000 };
        let (our_figures, original_figures) = in_turn(
            ROUNDS,
            || cost(&ours, &our_flood, number, 2_000) / 1e3,
            || cost(&original, &original_flood, number, 2_000) / 1e3,
        );
        table.add(Row {
            what: format!("cpu: 2,000/s with {attempts} open attempts"),
            unit: "us",
            original: original_figures,
            ours: our_figures,
            note: String::new(),
        });
    }
}

fn cpu_of_a_scan(ours: &Subject, original: &Subject, table: &mut Table) {
    // Without tripwires, because knockd 0.8 has none.
    let (ours, original) = (ours.start("", DOOR), original.start("", DOOR));
    let others = || (1..=65_535).filter(|port| ![7000, 8000, 9000].contains(port));
    let make = |running: &Running| Flood::scan(&running.scene.wire, "10.1.1.1", others());
    let (our_flood, original_flood) = (make(&ours), make(&original));
    let (mut our_times, mut original_times) = (Vec::new(), Vec::new());
    let scan = |running: &Running, flood: &Flood, times: &mut Vec<f64>| {
        let before = (running.switches(), running.cpu());
        flood.send_all(&running.scene.wire, 65_532, 50_000);
        times.push((running.cpu() - before.1) as f64 / 1e3);
        (running.switches() - before.0) as f64
    };
    let (our_switches, original_switches) = in_turn(
        3,
        || scan(&ours, &our_flood, &mut our_times),
        || scan(&original, &original_flood, &mut original_times),
    );
    for (what, unit, original, ours) in [
        ("context switches", "", original_switches, our_switches),
        ("processor time", "us", original_times, our_times),
    ] {
        table.add(Row {
            what: format!("scan of all 65,532 other ports: {what}"),
            unit,
            original,
            ours,
            note: String::new(),
        });
    }
}

fn memory_after_a_flood(ours: &Subject, original: &Subject, table: &mut Table) {
    const SOURCES: u32 = 1_000_000;
    /// The original's time grows with the square of the number, so fewer are sent and the rest is
    /// extrapolated.
    const ORIGINAL_SOURCES: u32 = 30_000;
    let grown = |running: &Running, sources: u32, per_second: u32| {
        let before = [running.resident(), running.private()];
        for first in (0..sources).step_by(100_000) {
            let number = (sources - first).min(100_000);
            let flood = Flood::new(&running.scene.wire, 7000, first, number);
            flood.send_all(&running.scene.wire, number as usize, per_second);
        }
        [
            running.resident() - before[0],
            running.private() - before[1],
        ]
    };
    let running = ours.start("LogRate = 1\n", DOOR);
    let our_growth = grown(&running, SOURCES, 50_000);
    let total = running.resident();
    let more = grown(&running, 100_000, 50_000);
    let running = original.start("", DOOR);
    let original_growth = grown(&running, ORIGINAL_SOURCES, 3_000);
    for (index, kind) in ["resident", "private"].into_iter().enumerate() {
        let per_source = original_growth[index] as f64 / f64::from(ORIGINAL_SOURCES);
        let more = more[index];
        table.add(Row {
            what: format!("memory: {kind}, grown by 1,000,000 spoofed sources"),
            unit: "kB",
            original: vec![per_source * f64::from(SOURCES)],
            ours: vec![our_growth[index] as f64],
            note: format!(
                "(knockd: reckoned from {ORIGINAL_SOURCES}; ours: then {total} kB resident in all, and {more} kB more after 100,000 more)"
            ),
        });
    }
}

/// Knocks from each of these sources, interleaved, with 100 ms between the steps. Returns how many
/// open the door within a second.
fn knock(running: &Running, sources: &[String]) -> usize {
    let before = running.count("opened");
    for (step, port) in [7000, 8000, 9000].into_iter().enumerate() {
        if step > 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        for source in sources {
            let syn = packet::syn(source, ROUTER, port, packet::fresh());
            running.scene.wire.send(&syn);
        }
    }
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let opened = running.count("opened") - before;
        if opened == sources.len() || Instant::now() > end {
            return opened;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn five_users(ours: &Subject, original: &Subject, table: &mut Table) {
    let users: Vec<String> = (1..=5).map(|user| format!("172.16.0.{user}")).collect();
    let of = |subject: &Subject| knock(&subject.start("", DOOR), &users) as f64;
    let (ours, original) = in_turn(ROUNDS, || of(ours), || of(original));
    table.add(Row {
        what: "success: five users at once, of 5".to_string(),
        unit: "",
        original,
        ours,
        note: String::new(),
    });
}

fn success_in_a_flood(ours: &Subject, original: &Subject, table: &mut Table) {
    for (sources, per_second) in [(1_000, 1_000), (10_000, 20_000), (100_000, 20_000)] {
        let of = |subject: &Subject, tries: u32| {
            let running = subject.start("LogRate = 1\n", DOOR);
            let flood = Flood::new(&running.scene.wire, 7000, 0, sources);
            let stop = AtomicBool::new(false);
            let opened = std::thread::scope(|scope| {
                scope.spawn(|| flood.send(&running.scene.wire, 10_000_000, per_second, &stop));
                // The flood has reached its full size before the user knocks.
                let filled = Duration::from_secs_f64(f64::from(sources) / f64::from(per_second));
                std::thread::sleep(filled.min(Duration::from_secs(5)));
                let user =
                    |number: u32| vec![format!("172.16.{}.{}", number / 250, 1 + number % 250)];
                let opened: usize = (0..tries)
                    .map(|number| knock(&running, &user(number)))
                    .sum();
                stop.store(true, Ordering::Relaxed);
                opened
            });
            100.0 * opened as f64 / f64::from(tries)
        };
        let row = Row {
            what: format!("success: knock among {sources} spoofed sources, {per_second}/s"),
            unit: "%",
            original: vec![of(original, 20)],
            ours: vec![of(ours, 100)],
            note: String::new(),
        };
        table.add(row);
    }
}
