//! Part 2: generated cases. Both daemons capture on the same wire at the same time. Each must log
//! exactly what [`crate::model`] predicts for it. The predictions are equal unless one of the two
//! habits of 0.8 that this program does not share matters.

use crate::generate::{STREAMS, Session, session, timed_session};
use crate::lab::Random;
use crate::lab::{Daemon, Home, is_original, lines, wait_for};
use crate::lane::{Lane, Lanes, start};
use crate::model::{Door, Habits, Logged, ORIGINAL, OURS, play};
use crate::packet::{Packet, SERVER, await_second};
use crate::play::{Rule, log_lines};
use knockd_rs::knock::TCP_FLAGS;
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const THEIRS: &str = "/usr/sbin/knockd";
/// Packets between two fences. Both daemons' buffers hold more, and ours drops log lines for which
/// its keeper is too slow (D-LOG-02).
const BURST: usize = 40;
const FENCE: &str = "10.9.0.250";
/// Sessions in which attempts time out. Each takes eight seconds.
const TIMED: u64 = 16;
/// How long to reduce a failing case.
const SHRINK: Duration = Duration::from_secs(90);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

/// The binary of our daemon: the one under test, unless that is the original.
fn our_binary() -> PathBuf {
    match is_original() {
        true => PathBuf::from(env!("CARGO_BIN_EXE_knockd")),
        false => crate::lab::daemon_binary(),
    }
}

/// Why these cases cannot run.
pub fn missing() -> Option<String> {
    let there = Path::new(THEIRS).exists();
    (!there).then(|| format!("no {THEIRS} (Debian package knockd; scripts/compat installs it)"))
}

/// One trial for each session. `COMPAT_SEED` and `COMPAT_STREAMS` select which and how many.
pub fn trials(lanes: &Arc<Lanes>) -> Vec<(String, Box<dyn FnOnce() + Send>)> {
    /// Two sessions at a time, because they keep the machine busy.
    static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    let seed = number("COMPAT_SEED", 1);
    let mut left = number("COMPAT_STREAMS", 2000) as usize;
    let mut trials: Vec<(String, Box<dyn FnOnce() + Send>)> = Vec::new();
    while left > 0 {
        let streams = left.min(STREAMS);
        left -= streams;
        let index = trials.len() as u64;
        let lanes = Arc::clone(lanes);
        let test = move || {
            let turn = TURNS[index as usize % 2].lock();
            let _turn = turn.unwrap_or_else(PoisonError::into_inner);
            let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(index));
            let session = session(&mut random, streams);
            lanes.with(|lane| check(lane, &session));
        };
        trials.push((
            format!("generated::seed_{seed}_session_{index}"),
            Box::new(test),
        ));
    }
    for index in 0..TIMED {
        let lanes = Arc::clone(lanes);
        let test = move || {
            let mut random = Random::new(seed.wrapping_mul(1_000_033).wrapping_add(index));
            let session = timed_session(&mut random);
            lanes.with(|lane| check(lane, &session));
        };
        let name = format!("generated::seed_{seed}_timed_{index}");
        trials.push((name, Box::new(test)));
    }
    trials
}

fn check(lane: &Lane, session: &Session) {
    let Err(difference) = run(lane, session) else {
        return;
    };
    let (small, last) = shrink(lane, session);
    let last =
        last.unwrap_or_else(|| format!("it did not show again; the first time:\n{difference}"));
    let words = |packets: &[Packet]| {
        packets
            .iter()
            .map(Packet::token)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let tokens: Vec<String> = small.chunks().into_iter().map(words).collect();
    let timed: Vec<(u32, Packet)> = (0u32..)
        .zip(small.chunks())
        .flat_map(|(part, packets)| packets.iter().map(move |packet| (2 * part, *packet)))
        .collect();
    let predicted = play(&small.doors, &timed, ORIGINAL);
    let case = json!([{
        "id": "M000", "cls": "C", "title": "generated",
        "conf": config(&small.doors), "packets": tokens.join(" wait2.0 "),
        "started": true, "exit": null, "stderr": [],
        "matcher_log": predicted.knocks, "command_log": predicted.commands,
    }]);
    panic!(
        "{last}\nas a case for more.json, with what 0.8 should log:\n{}",
        serde_json::to_string_pretty(&case).expect("JSON")
    );
}

/// Removes packets, then doors, as long as the difference remains.
fn shrink(lane: &Lane, session: &Session) -> (Session, Option<String>) {
    let end = Instant::now() + SHRINK;
    let (mut best, mut last) = (session.clone(), None);
    let mut differs = |smaller: &Session| {
        let result = run(lane, smaller).err();
        let found = result.is_some();
        last = result.or(last.take());
        found
    };
    let mut size = best.packets.len().div_ceil(2);
    while size > 0 && Instant::now() < end {
        let mut start = 0;
        while start < best.packets.len() && Instant::now() < end {
            let mut smaller = best.clone();
            let stop = (start + size).min(smaller.packets.len());
            smaller.packets.drain(start..stop);
            if differs(&smaller) {
                best = smaller;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    let mut index = 0;
    while index < best.doors.len() && best.doors.len() > 1 && Instant::now() < end {
        let mut smaller = best.clone();
        smaller.doors.remove(index);
        if differs(&smaller) {
            best = smaller;
        } else {
            index += 1;
        }
    }
    (best, last)
}

/// Sends a session to both daemons and compares them.
fn run(lane: &Lane, session: &Session) -> Result<(), String> {
    let theirs = Side::start(lane, session, Path::new(THEIRS), Rule::Original);
    let ours = Side::start(lane, session, &our_binary(), Rule::Strict);
    // The fences are packets too. They come from their own source and end immediately.
    let fence = Packet {
        source: FENCE.parse().expect("address"),
        destination: SERVER.parse().expect("address"),
        port: 9,
        flags: None,
    };
    let mut sent = Vec::new();
    for (part, packets) in (0u32..).zip(session.chunks()) {
        if session.parts > 1 {
            // At an odd second and a fraction, an even number of seconds after the last part.
            await_second();
            if wall_seconds().is_multiple_of(2) {
                await_second();
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        for burst in packets.chunks(BURST) {
            for packet in burst.iter().chain([&fence]) {
                sent.push((2 * part, *packet));
                lane.wire.send(&packet.bytes(sent.len() as u32));
            }
            for side in [&theirs, &ours] {
                side.await_fence();
            }
        }
    }
    theirs.compare(&play(&theirs.doors, &sent, ORIGINAL), "knockd 0.8")?;
    ours.compare(&play(&ours.doors, &sent, OURS), "ours")
}

/// Guards against a generator that produces only trivial cases.
pub fn generated_cases_show_enough() {
    let (mut alike, mut forgotten, mut ordered, mut opened, mut stages) = (0, 0, 0, 0, 0);
    for seed in 0..200 {
        let Session { doors, packets, .. } = session(&mut Random::new(seed), STREAMS);
        let packets: Vec<(u32, Packet)> = packets.into_iter().map(|packet| (0, packet)).collect();
        let ours = play(&doors, &packets, OURS);
        let with = |forgets, creation_order| {
            let habits = Habits {
                forgets,
                creation_order,
            };
            play(&doors, &packets, habits) != ours
        };
        alike += usize::from(!with(true, true));
        forgotten += usize::from(with(true, false));
        ordered += usize::from(with(false, true));
        opened += ours
            .knocks
            .iter()
            .filter(|line| line.ends_with("SESAME"))
            .count();
        stages += ours.knocks.len();
    }
    let found = format!(
        "of 200 sessions {alike} alike, {forgotten} forgotten, {ordered} in another order; {opened} openings, {stages} lines"
    );
    println!("{found}");
    assert!(alike > 100 && forgotten > 30 && ordered > 4, "{found}");
    assert!(opened > 200 * STREAMS / 4 && stages > 3 * opened, "{found}");
}

/// One of the two daemons.
struct Side {
    daemon: Daemon,
    home: Home,
    rule: Rule,
    doors: Vec<Door>,
    fences: std::cell::Cell<usize>,
}

impl Side {
    fn start(lane: &Lane, session: &Session, binary: &Path, rule: Rule) -> Side {
        let home = Home::new();
        let mut doors = session.doors.clone();
        doors.push(Door {
            name: "fence".to_string(),
            steps: vec![(9, true)],
            seq_timeout: 25,
            ..doors.first().cloned().map(plain).expect("a door")
        });
        let mut text = config(&doors);
        let mut args = vec!["-v".to_string(), "-i".to_string(), "s0".to_string()];
        for (option, file) in [("-c", "conf"), ("-g", "log")] {
            args.extend([option.to_string(), home.path(file).display().to_string()]);
        }
        if rule == Rule::Strict {
            text.push_str("[options]\nLogRate = 0\n");
            args.push("--strict".to_string());
        }
        home.write("conf", &text);
        let daemon = start(binary, &lane.server, &home, &args);
        daemon.await_text(lines::LISTENING);
        Side {
            daemon,
            home,
            rule,
            doors,
            fences: std::cell::Cell::new(0),
        }
    }

    fn await_fence(&self) {
        self.fences.set(self.fences.get() + 1);
        self.daemon
            .await_count(&lines::opened(FENCE, "fence"), self.fences.get());
    }

    /// Compares its log with the expected one, after its commands have ended.
    fn compare(&self, expected: &Logged, name: &str) -> Result<(), String> {
        // 0.8 prints a line before it logs it.
        let opened = lines::opened(FENCE, "fence");
        let logged = wait_for("the last fence in the log", || {
            let logged = self.logged();
            let fences = logged.knocks.iter().filter(|line| **line == opened).count();
            (fences == self.fences.get()).then_some(logged)
        });
        // Only our daemon reports what times out after the last packet (D-MAT-02).
        let last = logged.knocks.iter().rposition(|line| *line == opened);
        let knocks = in_order(&logged.knocks[..last.map_or(0, |at| at + 1)]);
        difference(
            &knocks,
            &in_order(&expected.knocks),
            &format!("{name}: knocks"),
        )?;
        let end = Instant::now() + Duration::from_secs(5);
        let mut logged = logged;
        while logged.commands.len() < expected.commands.len() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            logged = self.logged();
        }
        difference(
            &logged.commands,
            &expected.commands,
            &format!("{name}: commands, sorted"),
        )
    }

    fn logged(&self) -> Logged {
        let mut logged = Logged::default();
        for line in log_lines(&self.home.read("log"), self.rule) {
            if line.contains("running command: ") || line.ends_with(": command timeout") {
                logged.commands.push(line);
            } else if !line.starts_with("starting up, ") {
                logged.knocks.push(line);
            }
        }
        logged.commands.sort_unstable();
        logged
    }
}

/// Sorts time-outs of the same moment, which have no order.
fn in_order(lines: &[String]) -> Vec<String> {
    let mut lines = lines.to_vec();
    let is_timeout = |line: &String| line.contains(": sequence timeout (");
    for run in lines.chunk_by_mut(|a, b| is_timeout(a) && is_timeout(b)) {
        run.sort_unstable();
    }
    lines
}

fn wall_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("time").as_secs()
}

/// The door without flags, target and commands.
fn plain(door: Door) -> Door {
    Door {
        set: 0,
        clear: 0,
        target: None,
        start: None,
        start_6: None,
        stop: None,
        stop_6: None,
        ..door
    }
}

fn difference(found: &[String], expected: &[String], what: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let same = found
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    let around = |list: &[String]| {
        let lines = list.iter().skip(same.saturating_sub(3)).take(8);
        lines
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    Err(format!(
        "{what} differ at line {same}\n  found:\n{}  expected:\n{}",
        around(found),
        around(expected)
    ))
}

/// The config text for these doors.
fn config(doors: &[Door]) -> String {
    let mut out = String::new();
    for door in doors {
        let steps: Vec<String> = door
            .steps
            .iter()
            .map(|(port, udp)| format!("{port}{}", if *udp { ":udp" } else { "" }))
            .collect();
        let _ = writeln!(
            out,
            "[{}]\nsequence={}\nseq_timeout={}",
            door.name,
            steps.join(","),
            door.seq_timeout
        );
        let flags: Vec<String> = TCP_FLAGS
            .iter()
            .filter_map(
                |(name, bit)| match (door.set & bit != 0, door.clear & bit != 0) {
                    (true, _) => Some(name.to_string()),
                    (_, true) => Some(format!("!{name}")),
                    _ => None,
                },
            )
            .collect();
        if !flags.is_empty() {
            let _ = writeln!(out, "tcpflags={}", flags.join(","));
        }
        if let Some(target) = door.target {
            let _ = writeln!(out, "target={target}");
        }
        for (key, command) in [
            ("start_command", &door.start),
            ("start_command_6", &door.start_6),
            ("stop_command", &door.stop),
            ("stop_command_6", &door.stop_6),
        ] {
            if let Some(command) = command {
                let _ = writeln!(out, "{key}={command}");
            }
        }
        if door.stop.is_some() || door.stop_6.is_some() {
            let _ = writeln!(out, "cmd_timeout={}", door.cmd_timeout);
        }
    }
    out
}
