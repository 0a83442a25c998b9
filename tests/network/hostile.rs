//! A compromised listener: it has dropped root and can send the keeper anything. The test stops the
//! real listener and uses its socket, so that no program needs code to misbehave.

use crate::Test;
use crate::control::said;
use crate::lab::{Daemon, Scene, signal, status, wait_for};
use crate::lease::{await_notes, door, open, rules};
use crate::split::{listener, socket_of};
use knockd_rs::ipc::{Progress, ToKeeper};
use knockd_rs::knock::{Knock, Protocol, Step};
use knockd_rs::limits::{OPENINGS_PER_SECOND, TEXTS_PER_SECOND};
use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_hostile_listener_says_nothing", || {
        assert_survives(&SILENCE)
    }),
    ("a_hostile_listener_floods_the_log", || {
        assert_survives(&TEXTS)
    }),
    ("a_hostile_listener_floods_with_stages", || {
        assert_survives(&STAGES)
    }),
    ("a_hostile_listener_floods_with_knocks", || {
        assert_survives(&KNOCKS)
    }),
    ("a_hostile_listener_floods_with_scans", || {
        assert_survives(&SCANS)
    }),
    ("a_hostile_listener_floods_with_openings", || {
        assert_survives(&OPENINGS)
    }),
    ("a_hostile_listener_forges_no_line", forged_lines_are_marked),
    (
        "a_hostile_listener_ends_with_what_cannot_be",
        an_impossible_record_ends_the_listener,
    ),
];

const LOG_RATE: u32 = 10;

/// What it does repeatedly.
struct Mode {
    /// The n-th record; `None` to stay silent.
    record: Option<fn(u32) -> ToKeeper>,
    /// The number of log lines that this may cause per second.
    lines: u32,
}

const SILENCE: Mode = Mode {
    record: None,
    lines: 0,
};

const TEXTS: Mode = Mode {
    record: Some(|_| ToKeeper::Notice("x".repeat(480))),
    lines: TEXTS_PER_SECOND,
};

const STAGES: Mode = Mode {
    record: Some(|n| {
        ToKeeper::Stage(Progress {
            door: 1,
            source: source(n),
            stage: 1,
        })
    }),
    lines: LOG_RATE,
};

/// What `-D` logs.
const KNOCKS: Mode = Mode {
    record: Some(|n| {
        ToKeeper::Seen(Knock {
            source: source(n),
            destination: source(0),
            step: Step {
                protocol: Protocol::Udp,
                port: 1,
            },
            flags: 0,
            source_port: 1,
            serial: 0,
        })
    }),
    lines: 0,
};

/// A ban starts and, because there are too many, another one ends.
const SCANS: Mode = Mode {
    record: Some(|n| ToKeeper::Scanned(source(n))),
    lines: LOG_RATE,
};

/// An opening, and the report that it cannot happen.
const OPENINGS: Mode = Mode {
    record: Some(|n| ToKeeper::Opened {
        door: 2,
        source: source(n),
        generation: 0,
    }),
    lines: 2 * OPENINGS_PER_SECOND,
};

fn source(n: u32) -> IpAddr {
    IpAddr::from((0x0b00_0000 + n % 0x0100_0000).to_be_bytes())
}

/// The door [`door`] for some seconds, and one that stays open.
fn start(scene: &Scene, log: &str) -> Daemon {
    let doors = format!(
        "{}[More]\nsequence = 1:udp\ncmd_timeout = 600\nstart_command = true\nstop_command = true\n",
        door(OPEN_SECONDS)
    );
    let log = scene.home.path(log);
    let options = format!(
        "LogRate = {LOG_RATE}\nTripwireHits = 3\nTripwire = auto\nLogFile = {}\n",
        log.display()
    );
    scene.daemon_with_options(&options, &doors)
}

const OPEN_SECONDS: u32 = 3;

/// Stops the listener and returns its socket.
fn take_over(daemon: &Daemon) -> OwnedFd {
    let pid = listener(daemon);
    wait_for("a listener that has dropped root", || {
        (status(pid, "Uid:") == ["65534"; 4]).then_some(())
    });
    signal(pid, libc::SIGSTOP);
    wait_for("a stopped listener", || {
        (status(pid, "State:")[0] == "T").then_some(())
    });
    socket_of(pid)
}

/// Sends a record if the socket has space.
fn send(socket: &OwnedFd, record: ToKeeper) -> bool {
    let bytes = record.encode();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and length describe `bytes`.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
        )
    };
    sent >= 0
}

/// The keeper's CPU time in nanoseconds, its memory in kB, and its number of log lines.
fn figures(scene: &Scene, daemon: &Daemon) -> [u64; 3] {
    let pid = daemon.pid();
    let ran = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("schedstat");
    let ran = ran.split(' ').next().and_then(|text| text.parse().ok());
    let memory = status(pid, "VmRSS:")[0].parse().ok();
    let lines = scene.home.read("log").lines().count() as u64;
    [ran.expect("time"), memory.expect("memory"), lines]
}

/// Checks what the daemon still does while the listener misbehaves: doors close on time, `--status`
/// replies within a second, and the keeper uses less than 5 % of a CPU, no more memory, and no more
/// log lines than allowed.
fn assert_survives(mode: &Mode) {
    /// The first part of the flood is the permitted burst.
    const BURST: Duration = Duration::from_secs(4);
    const LOOK: Duration = Duration::from_secs(5);
    let scene = Scene::new();
    let daemon = start(&scene, "log");
    open(&scene, &daemon);
    let opened = Instant::now();
    let socket = take_over(&daemon);
    let stop = AtomicBool::new(false);
    let ([before, after], seconds) = std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        scope.spawn(|| {
            let Some(record) = mode.record else { return };
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                match send(&socket, record(number)) {
                    true => number += 1,
                    false => std::thread::sleep(Duration::from_micros(200)),
                }
            }
            println!("{number} records sent");
        });
        wait_for("a closed door", || (rules(&scene) == 0).then_some(()));
        let closed = opened.elapsed().as_secs_f64();
        assert!(
            closed < f64::from(OPEN_SECONDS) + 2.0,
            "closed after {closed} s"
        );
        await_notes(&scene, "stop", 1);
        std::thread::sleep(BURST.saturating_sub(opened.elapsed()));
        let (begin, before) = (Instant::now(), figures(&scene, &daemon));
        std::thread::sleep(LOOK);
        let after = figures(&scene, &daemon);
        let seconds = begin.elapsed().as_secs_f64();
        // The listener is granted half a second of it. Other load on the machine makes it longer.
        let fastest = (0..3).map(|_| {
            let begin = Instant::now();
            assert!(said(&scene, &["--status"]).contains("listener"));
            begin.elapsed()
        });
        let fastest = fastest.min().expect("three");
        assert!(
            fastest < Duration::from_secs(1),
            "--status took {fastest:?}"
        );
        ([before, after], seconds)
    });
    let [ran, memory, lines] = [0, 1, 2].map(|index| after[index].saturating_sub(before[index]));
    let share = ran as f64 / 1e9 / seconds;
    println!(
        "{:.1} % of a processor, {memory} kB more memory, {lines} lines in {seconds:.1} s",
        100.0 * share
    );
    assert!(share < 0.05, "{:.1} % of a processor", 100.0 * share);
    assert!(memory < 512, "{memory} kB more memory");
    // Plus the lines that report dropped lines.
    let most = f64::from(mode.lines) * seconds * 1.1 + 8.0;
    assert!(lines as f64 <= most, "{lines} lines in {seconds} s");
}

/// Stops the flood, also if the test fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn forged_lines_are_marked() {
    let scene = Scene::new();
    // Text that reverses the direction of what precedes it, or adds a line.
    for (log, deceptive) in [("turned", "\u{202e}x"), ("two", "a\nb")] {
        let daemon = start(&scene, log);
        let socket = take_over(&daemon);
        assert!(send(&socket, ToKeeper::Notice(deceptive.to_string())));
        daemon.await_text("sent a malformed record");
    }
    let daemon = start(&scene, "log");
    let socket = take_over(&daemon);
    let forged = "198.51.100.7: SSH: OPEN SESAME";
    for record in [ToKeeper::Problem, ToKeeper::Notice] {
        assert!(send(&socket, record(forged.to_string())));
    }
    daemon.await_count(&format!("listener: {forged}"), 2);
    let log = scene.home.read("log");
    for line in log.lines().filter(|line| line.contains(forged)) {
        let (_, text) = line.split_once("] ").expect("time");
        assert!(text.starts_with("listener: "), "{line}");
    }
}

fn an_impossible_record_ends_the_listener() {
    let progress = |door, source: &str, stage| Progress {
        door,
        source: source.parse().expect("address"),
        stage,
    };
    let opened = |door, source: &str, generation| ToKeeper::Opened {
        door,
        source: source.parse().expect("address"),
        generation,
    };
    let scene = Scene::new();
    for (number, record) in [
        ToKeeper::Stage(progress(1, "198.51.100.7", 255)),
        ToKeeper::Stage(progress(1, "198.51.100.7", 4)),
        ToKeeper::TimedOut(progress(99, "198.51.100.7", 1)),
        ToKeeper::Failed(progress(1, "255.255.255.255", 1)),
        opened(1, "0.0.0.0", 0),
        opened(1, "224.0.0.1", 0),
        opened(1, "::ffff:198.51.100.7", 0),
        opened(1, "198.51.100.7", 1),
        opened(99, "198.51.100.7", 0),
        ToKeeper::Scanned("ff02::1".parse().expect("address")),
        ToKeeper::Ready { listens: true },
    ]
    .into_iter()
    .enumerate()
    {
        let log = format!("log{number}");
        let daemon = start(&scene, &log);
        let socket = take_over(&daemon);
        assert!(send(&socket, record.clone()));
        daemon.await_text("sent a malformed record");
        assert_eq!(daemon.count("OPEN SESAME"), 0, "{record:?}");
        assert_eq!(daemon.count("Stage"), 0, "{record:?}");
    }
    assert_eq!(rules(&scene), 0);
}
