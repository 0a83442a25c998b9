//! Signals to a daemon in the foreground, and their effect on open doors.

use super::{DOOR, Life, Test, hangup, let_pass};
use crate::lab::{Daemon, children, is_original, lines, signal, wait_for};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("exit_codes", &[], exit_codes),
    ("term_with_open_doors", &["D-OPN-03"], term_with_open_doors),
    (
        "kill_with_an_open_door",
        &["D-OPN-14"],
        kill_with_an_open_door,
    ),
    ("term_to_the_children", &["D-OPN-02"], term_to_the_children),
    (
        "hangup_to_the_children",
        &["D-OPN-02"],
        hangup_to_the_children,
    ),
    ("hangup_with_an_open_door", &[], hangup_with_an_open_door),
    ("hangup_ends_attempts", &[], hangup_ends_attempts),
    (
        "hangup_with_a_bad_config",
        &["D-OPN-10"],
        hangup_with_a_bad_config,
    ),
    (
        "hangup_without_a_config",
        &["D-OPN-10"],
        hangup_without_a_config,
    ),
    (
        "hangup_takes_the_new_doors",
        &[],
        hangup_takes_the_new_doors,
    ),
    ("hangup_rotates_the_log", &[], hangup_rotates_the_log),
    ("usr1", &["D-OPN-09"], usr1),
    (
        "a_second_knock_while_open",
        &["D-OPN-01"],
        a_second_knock_while_open,
    ),
    (
        "empty_lines_in_the_log",
        &["D-LOG-01"],
        empty_lines_in_the_log,
    ),
    (
        "a_failed_knock_is_reported",
        &["D-LOG-03"],
        a_failed_knock_is_reported,
    ),
    ("debug_is_verbose", &["D-LOG-05"], debug_is_verbose),
    (
        "what_commands_inherit",
        &["D-OPN-08"],
        what_commands_inherit,
    ),
    ("commands_at_once", &["D-OPN-05"], commands_at_once),
    ("a_command_that_hangs", &["D-OPN-04"], a_command_that_hangs),
    ("a_missing_list", &["D-OTS-04"], a_missing_list),
];

/// Opens on one packet and closes after two seconds.
const STOPPING: &str = "[A]\nsequence=1\ntcpflags=syn\nstart_command=echo s >>@W@/out\ncmd_timeout=2\nstop_command=echo p >>@W@/out\n";

/// L01, L02
fn exit_codes() {
    for number in [libc::SIGINT, libc::SIGTERM] {
        let life = Life::new(DOOR);
        let mut daemon = life.start();
        daemon.signal(number);
        assert_eq!(daemon.wait().code(), Some(number));
        assert_eq!(
            life.log("log"),
            ["starting up, listening on s0", "shutting down"]
        );
        assert_eq!(daemon.errors(), "");
    }
}

/// L03, L04: 0.8 waits for the first stop command's time, and the second one runs after its exit.
fn term_with_open_doors() {
    let life = Life::new(STOPPING);
    let mut daemon = life.start();
    life.send("1 wait0.8 .3:1");
    life.await_file("out", "s\ns\n");
    let begin = Instant::now();
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    if is_original() {
        assert!(
            begin.elapsed() > Duration::from_millis(500),
            "{:?}",
            begin.elapsed()
        );
        // On a busy machine the second command may have run by now.
        assert!(life.home.read("out").starts_with("s\ns\np\n"));
        life.await_file("out", "s\ns\np\np\n");
    } else {
        assert!(
            begin.elapsed() < Duration::from_millis(500),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(life.home.read("out"), "s\ns\np\np\n");
    }
    let ends: Vec<String> = life
        .log("log")
        .into_iter()
        .filter(|l| !l.contains(": Stage ") && !l.contains("SESAME"))
        .collect();
    let running = |what: &str| format!("A: running command: echo {what} >>{}", life.path("out"));
    let begins = [
        "starting up, listening on s0".to_string(),
        running("s"),
        running("s"),
    ];
    assert_eq!(ends[..3], begins);
    if is_original() {
        let rest = [
            "10.9.0.2: A: command timeout".to_string(),
            running("p"),
            "shutting down".to_string(),
            "10.9.0.3: A: command timeout".to_string(),
            running("p"),
        ];
        assert_eq!(ends[3..], rest);
    } else {
        // Both at once, in any order.
        assert_eq!(ends.len(), 8, "{ends:?}");
        assert_eq!(
            ends.iter().filter(|line| **line == running("p")).count(),
            2,
            "{ends:?}"
        );
        assert!(
            ends[3..].contains(&"10.9.0.2: A: command timeout".to_string()),
            "{ends:?}"
        );
        assert_eq!(ends[7], "shutting down");
    }
}

/// L05: with 0.8 a child of the daemon waits; with ours the next daemon closes the door.
fn kill_with_an_open_door() {
    let life = Life::new(STOPPING);
    let mut daemon = life.start();
    life.send("1");
    life.await_file("out", "s\n");
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    if is_original() {
        life.await_file("out", "s\np\n");
        life.await_log("log", "10.9.0.2: A: command timeout");
    } else {
        let_pass(2500);
        assert_eq!(life.home.read("out"), "s\n");
        let _next = life.start();
        life.await_file("out", "s\np\n");
    }
}

fn signal_to_children(number: i32) -> (Life, Daemon) {
    let life = Life::new(STOPPING);
    let daemon = life.start();
    life.send("1");
    life.await_file("out", "s\n");
    // When a child of 0.8 sleeps, the start command itself has ended.
    let_pass(200);
    let found = children(daemon.pid());
    assert!(!found.is_empty());
    found.into_iter().for_each(|child| signal(child, number));
    let_pass(2500);
    (life, daemon)
}

/// L06
fn term_to_the_children() {
    let (life, mut daemon) = signal_to_children(libc::SIGTERM);
    assert!(daemon.is_alive());
    let ends = life.log("log").contains(&"shutting down".to_string());
    match is_original() {
        true => assert_eq!((life.home.read("out").as_str(), ends), ("s\n", true)),
        false => assert_eq!((life.home.read("out").as_str(), ends), ("s\np\n", false)),
    }
}

/// L07
fn hangup_to_the_children() {
    let (life, mut daemon) = signal_to_children(libc::SIGHUP);
    assert!(daemon.is_alive());
    match is_original() {
        true => assert_eq!(life.home.read("out"), "s\n"),
        false => assert_eq!(life.home.read("out"), "s\np\n"),
    }
}

/// L08
fn hangup_with_an_open_door() {
    let life = Life::new(STOPPING);
    let daemon = life.start();
    life.send("1");
    life.await_file("out", "s\n");
    hangup(&daemon);
    life.await_file("out", "s\np\n");
    daemon.await_text("10.9.0.2: A: command timeout");
}

/// Waits until the reload is done.
fn await_reload(daemon: &Daemon) {
    if is_original() {
        // The daemon logs when it begins. The door works at the latest for the next packet that it
        // sees.
        daemon.await_text(lines::RELOADING);
        let_pass(300);
    } else {
        daemon.await_text(lines::IN_FORCE);
    }
}

/// L09
fn hangup_ends_attempts() {
    let life = Life::new(DOOR);
    let daemon = life.start();
    life.send("7000");
    life.fence(&daemon);
    hangup(&daemon);
    await_reload(&daemon);
    life.send("8000 7000 8000");
    // 0.8 prints a line before it logs it.
    life.await_log("log", "10.9.0.2: A: OPEN SESAME");
    let log: Vec<String> = life
        .log("log")
        .into_iter()
        .filter(|l| l.starts_with("10.9.0.2: "))
        .collect();
    assert_eq!(
        log,
        [
            "10.9.0.2: A: Stage 1",
            "10.9.0.2: A: Stage 1",
            "10.9.0.2: A: Stage 2",
            "10.9.0.2: A: OPEN SESAME"
        ]
    );
}

fn after_bad_reload(life: &Life, daemon: &mut Daemon, error: &str) {
    hangup(daemon);
    daemon.await_text(error);
    if is_original() {
        assert_eq!(daemon.wait().code(), Some(1));
        assert!(!life.log("log").contains(&"shutting down".to_string()));
        return;
    }
    life.send("7000 8000");
    daemon.await_text("10.9.0.2: A: OPEN SESAME");
    assert!(daemon.is_alive());
}

/// L10
fn hangup_with_a_bad_config() {
    let life = Life::new(DOOR);
    let mut daemon = life.start();
    life.home.write("conf", "junk\n");
    after_bad_reload(
        &life,
        &mut daemon,
        "config: line 1: all directives must belong to a section",
    );
}

fn hangup_without_a_config() {
    let life = Life::new(DOOR);
    let mut daemon = life.start();
    std::fs::remove_file(life.home.path("conf")).unwrap();
    after_bad_reload(&life, &mut daemon, "conf: No such file or directory");
}

/// L16, L17
fn hangup_takes_the_new_doors() {
    let life = Life::new(DOOR);
    let daemon = life.start();
    life.conf("[B]\nsequence=4000,5000\nseq_timeout=10\ntcpflags=syn\n");
    hangup(&daemon);
    await_reload(&daemon);
    life.send("7000 8000 4000 5000");
    daemon.await_text("10.9.0.2: B: OPEN SESAME");
    assert_eq!(daemon.count(": A: "), 0);
    life.home.write("conf", "[options]\n");
    hangup(&daemon);
    daemon.await_count(lines::RELOADING, 2);
    let_pass(500);
    life.send("4000 5000");
    let_pass(300);
    assert_eq!(daemon.count(": B: Stage"), 2);
}

/// L15
fn hangup_rotates_the_log() {
    let life = Life::new(&format!("[options]\nLogFile=@W@/rotated\n{DOOR}"));
    let daemon = life.start();
    std::fs::rename(life.home.path("rotated"), life.home.path("rotated.1")).unwrap();
    hangup(&daemon);
    await_reload(&daemon);
    life.send("7000 8000");
    life.await_log("rotated", "A: running command: true");
    let old = life.log("rotated.1");
    let reading = format!("re-reading config file: {}", life.path("conf"));
    assert_eq!(
        old[..2],
        ["starting up, listening on s0".to_string(), reading]
    );
    assert!(
        life.log("rotated")
            .contains(&"10.9.0.2: A: OPEN SESAME".to_string())
    );
    // L18: LogFile overrides -g.
    assert_eq!(life.home.read("log"), "");
}

fn usr1() {
    let life = Life::new(STOPPING);
    let mut daemon = life.start();
    life.send("1");
    life.await_file("out", "s\n");
    daemon.signal(libc::SIGUSR1);
    if is_original() {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(daemon.wait().signal(), Some(libc::SIGUSR1));
    } else {
        life.await_file("out", "s\np\ns\n");
        life.await_file("out", "s\np\ns\np\n");
    }
}

/// Only the default matching differs; K085 is the same with `--strict`.
fn a_second_knock_while_open() {
    let life = Life::new(STOPPING);
    let daemon = life.spawn_by_default("-i s0");
    daemon.await_text(lines::LISTENING);
    life.send("1 wait0.7 1");
    if is_original() {
        life.await_file("out", "s\ns\np\np\n");
    } else {
        let begin = Instant::now();
        life.await_file("out", "s\np\n");
        assert!(
            begin.elapsed() > Duration::from_millis(1500),
            "the timer restarted"
        );
        assert_eq!(daemon.count("10.9.0.2: A: OPEN SESAME"), 2);
        let_pass(1000);
        assert_eq!(life.home.read("out"), "s\np\n");
    }
}

fn empty_lines_in_the_log() {
    let life = Life::new(DOOR);
    let _daemon = life.start();
    life.send("7000 8000");
    life.await_log("log", "A: running command: true");
    let_pass(100);
    let text = life.home.read("log");
    assert_eq!(
        text.contains("running command: true\n\n"),
        is_original(),
        "{text}"
    );
    assert_eq!(text.contains("\n\n"), is_original(), "{text}");
}

fn a_failed_knock_is_reported() {
    let life = Life::new(DOOR);
    let daemon = life.start();
    life.send("7000 7000");
    life.fence(&daemon);
    let logged = usize::from(!is_original());
    assert_eq!(
        daemon.count("10.9.0.2: A: wrong knock, attempt ended (stage 1)"),
        logged
    );
}

fn debug_is_verbose() {
    let life = Life::new(DOOR);
    let args = format!("-D -c {} -g {} -i s0", life.path("conf"), life.path("log"));
    let daemon = life.run(&args);
    life.await_log("log", "starting up");
    life.send("7000");
    life.await_log("log", "10.9.0.2: A: Stage 1");
    daemon.await_text(" -> ");
    let_pass(200);
    assert_eq!(
        daemon.count("10.9.0.2: A: Stage 1"),
        usize::from(!is_original())
    );
}

fn what_commands_inherit() {
    let life = Life::new("[A]\nsequence=1\ntcpflags=syn\ncommand=sleep 7654323\n");
    let daemon = life.start();
    life.send("1");
    let command = wait_for("the command", || {
        crate::lab::descendants(daemon.pid())
            .into_iter()
            .find(|pid| {
                let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
                line.unwrap_or_default().starts_with("sleep\0")
            })
    });
    let open = std::fs::read_dir(format!("/proc/{command}/fd"))
        .unwrap()
        .count();
    match is_original() {
        // The packet socket, the log and others.
        true => assert!(open > 4, "{open}"),
        false => assert_eq!(open, 3),
    }
}

fn a_missing_list() {
    let life = Life::new(
        "[A]\none_time_sequences=@W@/ots\nseq_timeout=10\ntcpflags=syn\ncommand=echo s >>@W@/out\n",
    );
    life.home.write("ots", " 1000,2000\n 3000,4000\n");
    let mut daemon = life.start();
    std::fs::remove_file(life.home.path("ots")).unwrap();
    life.send("1000 2000");
    if is_original() {
        life.await_file("out", "s\n");
        daemon.await_text("10.9.0.2: A: OPEN SESAME");
    } else {
        daemon.await_text("disabling the door");
        let_pass(200);
        assert_eq!(daemon.count("OPEN SESAME"), 0);
        assert_eq!(life.home.read("out"), "");
        assert!(daemon.is_alive());
    }
}

fn commands_at_once() {
    let life = Life::new("[A]\nsequence=1\ntcpflags=syn\ncommand=echo s >>@W@/out; sleep 2\n");
    let _daemon = life.start();
    life.send(&"1 ".repeat(20));
    let_pass(700);
    let at_once = if is_original() { 20 } else { 16 };
    assert_eq!(life.home.read("out").lines().count(), at_once);
    life.await_file("out", &"s\n".repeat(20));
}

fn a_command_that_hangs() {
    let bound = match is_original() {
        true => "",
        false => "[options]\nCommandTimeout=2\n",
    };
    let life = Life::new(&format!(
        "{bound}[A]\nsequence=1\ntcpflags=syn\nstart_command=echo s >>@W@/out; sleep 100000\ncmd_timeout=1\nstop_command=echo p >>@W@/out\n"
    ));
    let _daemon = life.start();
    life.send("1");
    life.await_file("out", "s\n");
    if is_original() {
        let_pass(4500);
        assert_eq!(life.home.read("out"), "s\n");
    } else {
        life.await_file("out", "s\np\n");
    }
}
