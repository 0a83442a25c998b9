//! Repeated SIGHUPs: nothing is lost, nothing grows, and doors still open.

use crate::Test;
use crate::lab::{
    CLIENT, Daemon, ROUTER, Scene, children, open_files, packet, signal, status, wait_for,
};
use crate::lease::{STEPS, await_notes, notes, rules};
use crate::lifecycle::settled;
use crate::lines;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("reload_storm", reload_storm),
    (
        "each_knock_opens_once_through_reloads",
        each_knock_opens_once_through_reloads,
    ),
];

const STORM: Duration = Duration::from_secs(30);

/// One door that closes during the storm, one that outlives it, and one that is knocked at
/// continuously.
const DOORS: &str = "[Short]
    sequence = 1001:udp
    cmd_timeout = 9
    start_command = echo start-short >> @HOME@/notes
    stop_command = echo stop-short >> @HOME@/notes
    [SSH]
    sequence = 7000,8000:udp,9000
    tcpflags = syn
    cmd_timeout = 600
    start_command = iptables -w -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo start >> @HOME@/notes
    stop_command = iptables -w -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo stop >> @HOME@/notes
    [K]
    sequence = 1:udp,2:udp,3:udp\n";

/// This door must never exist: the line after it is invalid.
const BROKEN: &str = "[Bad]\nsequence = 5000:udp\n[Worse]\nsequence = 70000\n";

/// Descriptors and resident memory (kB) of keeper and listener, which must be the only processes.
fn size(daemon: &Daemon) -> [(usize, u64); 2] {
    settled(daemon);
    let all = children(daemon.pid());
    assert_eq!(all.len(), 1, "processes: {all:?}");
    [daemon.pid(), all[0]].map(|pid| {
        let memory = status(pid, "VmRSS:")[0].parse().expect("kB");
        (open_files(pid).len(), memory)
    })
}

fn reload_storm() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(DOORS);
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 1);
    scene.knock(ROUTER, &["1001:udp"]);
    await_notes(&scene, "start-short", 1);
    let before = size(&daemon);
    let good = scene.home.read("knockd.conf");
    let config = scene.home.path("knockd.conf");
    let replace = |text: &str| {
        fs::rename(scene.home.write("new", text), &config).expect("rename");
    };
    let over = AtomicBool::new(false);
    let pid = daemon.pid();
    let knocks = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                signal(pid, libc::SIGHUP);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let storm = || {
            let start = Instant::now();
            let mut knocks = Vec::new();
            while start.elapsed() < STORM {
                // The config is broken for 3 s of every 10.
                match knocks.len() % 100 {
                    20 => replace(&format!("{good}{BROKEN}")),
                    50 => {
                        scene.wire.send(&packet::udp("198.51.100.8", ROUTER, 5000));
                        replace(&good);
                    }
                    _ => {}
                }
                let source = format!(
                    "198.51.{}.{}",
                    101 + knocks.len() / 200,
                    1 + knocks.len() % 200
                );
                // At human speed.
                for port in 1..=3 {
                    scene.wire.send(&packet::udp(&source, ROUTER, port));
                    std::thread::sleep(Duration::from_millis(15));
                }
                std::thread::sleep(Duration::from_millis(50));
                knocks.push(source);
            }
            knocks
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(storm));
        over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });

    // The last SIGHUP has an effect too: the new door works.
    replace(&format!("{good}[Last]\nsequence = 6000:udp\n"));
    daemon.signal(libc::SIGHUP);
    crate::lab::knock_until(&daemon, &lines::opened(CLIENT, "Last"), || {
        scene.knock(ROUTER, &["6000:udp"]);
    });
    assert!(daemon.is_alive());

    let after = size(&daemon);
    let opened: Vec<bool> = knocks
        .iter()
        .map(|source| daemon.count(&lines::opened(source, "K")) > 0)
        .collect();
    let times = opened.iter().filter(|opened| **opened).count();
    let reloads = daemon.count(lines::RELOADING);
    println!(
        "{reloads} reloads, {times} of {} knocks opened; (descriptors, kB) of keeper and listener {before:?}, then {after:?}",
        knocks.len()
    );
    assert!(
        times * 10 >= knocks.len() * 8,
        "{times} of {}",
        knocks.len()
    );
    assert!((10..=18).contains(&reloads), "{reloads} reloads");
    assert!(daemon.count("not valid: configuration not reloaded") > 2);
    assert_eq!(daemon.count(": Bad: "), 0, "a door of a wrong config");

    assert_eq!(notes(&scene, "stop-short"), 1, "a lease was lost");
    assert_eq!((notes(&scene, "start"), notes(&scene, "stop")), (1, 0));
    assert_eq!(rules(&scene), 1);

    for (before, after) in before.iter().zip(after) {
        assert_eq!(before.0, after.0, "descriptors");
        assert!(after.1 < before.1 + 300, "memory");
    }
    let listener = children(daemon.pid())[0];
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    wait_for("the end of the listener", || {
        (!Path::new(&format!("/proc/{listener}")).exists()).then_some(())
    });
    assert_eq!((notes(&scene, "stop"), rules(&scene)), (1, 0));
}

/// Covers knocks that arrive while a reload has two listeners. Stops the keeper before it can
/// release the new one.
fn each_knock_opens_once_through_reloads() {
    const RELOADS: usize = 2;
    let scene = Scene::new();
    let daemon = scene.daemon_with_options("LogRate = 0\n", "");
    let keeper = daemon.pid();
    let over = AtomicBool::new(false);
    let reload = || {
        let mut stopped = 0;
        for number in 1.. {
            signal(keeper, libc::SIGHUP);
            // On a busy machine the old listener may exit before the check sees it. AfterStop try again.
            while daemon.count(lines::IN_FORCE) < number && children(keeper).len() < 2 {}
            signal(keeper, libc::SIGSTOP);
            stopped += usize::from(children(keeper).len() == 2);
            // The new listener opens, binds and reports. The test cannot see when it is done.
            std::thread::sleep(Duration::from_millis(300));
            signal(keeper, libc::SIGCONT);
            daemon.await_count(lines::IN_FORCE, number);
            if stopped == RELOADS {
                return;
            }
            assert!(number < 20, "too quick to be seen");
        }
    };
    let sources = std::thread::scope(|scope| {
        let knocks = scope.spawn(|| {
            let mut sources = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let number = sources.len();
                let source = format!("198.51.{}.{}", 101 + number / 200, 1 + number % 200);
                scene.wire.send(&packet::udp(&source, ROUTER, 9));
                sources.push(source);
                std::thread::sleep(Duration::from_millis(2));
            }
            sources
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(reload));
        over.store(true, Ordering::Relaxed);
        signal(keeper, libc::SIGCONT);
        let sources = knocks.join().expect("knocks");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sources
    });
    scene.fence(&daemon);
    let output = daemon.output();
    let mut times = HashMap::new();
    for line in &output {
        if let Some(source) = line.strip_suffix(": fence: OPEN SESAME") {
            *times.entry(source).or_insert(0) += 1;
        }
    }
    for source in &sources {
        assert_eq!(times.get(source.as_str()), Some(&1), "openings of {source}");
    }
    println!("{} knocks", sources.len());
}
