//! Floods: a genuine knock among first knocks from forged addresses, and the log.

use crate::Test;
use crate::control::json;
use crate::lab::{CLIENT, Daemon, Flood, ROUTER, Scene, packet, wait_for};
use crate::lines;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "a_flood_of_openings_leaves_lines_out",
        a_flood_of_openings_leaves_lines_out,
    ),
    (
        "a_reload_and_the_end_report_what_was_left_out",
        a_reload_and_the_end_report_what_was_left_out,
    ),
];

const SOURCES: u32 = 100_000;
const PER_SECOND: u32 = 20_000;
const USERS: u32 = 100;
/// Between two steps of a user.
const GAP: Duration = Duration::from_millis(100);
/// Between the first steps of two users.
const PAUSE: Duration = Duration::from_millis(40);

fn sleep_until(then: Instant) {
    std::thread::sleep(then.saturating_duration_since(Instant::now()));
}

/// In a flood of 20,000 packets a second from 100,000 sources, each of 100 users opens the door,
/// and none opens the door that closes it. If other processes use the CPUs, the kernel drops
/// packets of any source or fewer are sent. Such a round says nothing about the table and is
/// repeated.
pub fn every_knock_opens_in_a_flood() {
    let opened = (0..5).find_map(|_| opened_in_a_flood());
    assert_eq!(
        opened,
        Some(USERS as usize),
        "None: in each round packets were lost or too few were sent"
    );
}

/// How many users open the door; `None` if packets were lost or too few were sent.
fn opened_in_a_flood() -> Option<usize> {
    let scene = Scene::new();
    let doors = [("A", "7000,8000,9000"), ("close", "9000,8000,7000")].map(|(name, steps)| {
        format!("[{name}]\nsequence = {steps}\nseq_timeout = 3600\ntcpflags = syn\n")
    });
    let home = &scene.home;
    home.config_with_options("LogRate = 1\n", &doors.concat());
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    let flood = Flood::new(&scene.wire, 7000, 0, SOURCES);
    let stop = AtomicBool::new(false);
    let address = |user: u32| format!("172.16.{}.{}", user / 16, 1 + user % 16);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| flood.send(&scene.wire, usize::MAX, PER_SECOND, &stop));
        // By then the table is full and each source has sent once.
        let first = Instant::now() + Duration::from_secs((SOURCES / PER_SECOND).into());
        let mut steps: Vec<(Instant, u32, u16)> = Vec::new();
        for user in 0..USERS {
            for (number, port) in (0..).zip([7000, 8000, 9000]) {
                steps.push((first + user * PAUSE + number * GAP, user, port));
            }
        }
        steps.sort();
        for (then, user, port) in steps {
            sleep_until(then);
            let packet = packet::syn(&address(user), ROUTER, port, port.into());
            scene.wire.send(&packet);
        }
        stop.store(true, Ordering::Relaxed);
    });
    scene.fence(&daemon);
    let counters = &json(&scene)["listener"];
    let number = |name: &str| counters[name].as_u64().expect("a number");
    let (came, lost) = (number("knocks"), number("dropped"));
    let due = begin.elapsed().as_secs_f64() * f64::from(PER_SECOND);
    println!("{came} of {due:.0} packets came, {lost} were lost");
    if lost > 0 || (came as f64) < 0.9 * due {
        return None;
    }
    assert_eq!(daemon.count(": close: OPEN SESAME"), 0);
    let opened = (0..USERS).filter(|user| daemon.count(&lines::opened(&address(*user), "A")) == 1);
    Some(opened.count())
}

/// Each packet opens a one-step door and runs its command or logs that too many are waiting: two
/// lines. All lines of other doors are logged.
fn a_flood_of_openings_leaves_lines_out() {
    const SENT: usize = 900;
    let scene = Scene::new();
    let daemon = scene.daemon("[A]\nsequence = 8000:udp\nstart_command = :\n");
    let begin = Instant::now();
    for number in 0..SENT {
        scene.wire.send(&packet::udp(CLIENT, ROUTER, 8000));
        if number % 30 == 29 {
            scene.fence(&daemon);
        }
    }
    wait_for("lines and reports about them all", || {
        let logged = [": A: OPEN SESAME", "A: running command: ", "A: too many"];
        let logged: usize = logged.iter().map(|line| daemon.count(line)).sum();
        let most = 501.0 + 50.0 * begin.elapsed().as_secs_f64();
        assert!(logged as f64 <= most, "{logged} lines");
        let reports = daemon.output();
        let reports = reports.iter().filter_map(|line| {
            let line = line.strip_prefix(lines::LEFT_OUT)?;
            line.strip_suffix(" lines about openings left out")
        });
        let left_out: usize = reports.map(|number| number.parse::<usize>().unwrap()).sum();
        (logged + left_out == 2 * SENT).then_some(())
    });
}

/// A reload and the exit report what the old doors have counted.
fn a_reload_and_the_end_report_what_was_left_out() {
    let scene = Scene::new();
    let mut daemon = scene.daemon("[A]\nsequence = 8000:udp\n");
    for reports in 1..=2 {
        for number in 0..1500 {
            scene.wire.send(&packet::udp(CLIENT, ROUTER, 8000));
            if number % 300 == 299 {
                scene.fence(&daemon);
            }
        }
        // Before the next report.
        match reports {
            1 => daemon.signal(libc::SIGHUP),
            _ => daemon.signal(libc::SIGTERM),
        }
        daemon.await_count("lines about openings left out", reports);
    }
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(daemon.count("error: 0 "), 0);
    assert_eq!(daemon.count("lines about openings left out"), 2);
}
