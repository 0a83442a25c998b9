//! Command lines and config files that do not fit into `more.json`. `tests/client` compares the
//! other command lines.

use super::{DOOR, Life, Test, let_pass};
use crate::lab::{Daemon, daemon_binary, is_original, knock_binary, lines, wait_for};
use crate::lane::start;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

pub const TESTS: &[Test] = &[
    ("config_is_a_folder", &["D-CFG-30"], config_is_a_folder),
    (
        "name_that_is_not_utf8",
        &["D-CFG-32"],
        name_that_is_not_utf8,
    ),
    ("our_options", &["D-CLI-01"], our_options),
    (
        "config_beside_the_program",
        &["D-CLI-02"],
        config_beside_the_program,
    ),
    (
        "argument_that_is_not_utf8",
        &["D-CLI-03"],
        argument_that_is_not_utf8,
    ),
    ("posixly_correct", &["D-CLI-05"], posixly_correct),
    ("no_right_to_capture", &["D-CAP-14"], no_right_to_capture),
    ("fork_fails", &["D-LOG-06"], fork_fails),
    ("option_beyond_ascii", &["D-CLI-04"], option_beyond_ascii),
    (
        "names_are_looked_up_once",
        &["D-CLI-08"],
        names_are_looked_up_once,
    ),
];

fn config_is_a_folder() {
    let life = Life::new("");
    let directory = life.directory();
    let mut daemon = life.run(&format!("-v -i s0 -c {directory}"));
    if is_original() {
        daemon.await_text(lines::LISTENING);
    } else {
        assert_eq!(daemon.wait().code(), Some(1));
        assert!(
            daemon.errors().contains("Is a directory"),
            "{}",
            daemon.errors()
        );
    }
}

fn name_that_is_not_utf8() {
    let life = Life::new("");
    std::fs::write(
        life.home.path("conf"),
        b"[\xe9]\nsequence=7000\ntcpflags=syn\n",
    )
    .unwrap();
    let daemon = life.spawn("-i s0");
    daemon.await_text(lines::LISTENING);
    life.send("7000");
    let name = if is_original() {
        b": \xe9: OPEN".as_slice()
    } else {
        ": \u{fffd}: OPEN".as_bytes()
    };
    wait_for("the name in the log", || {
        let log = std::fs::read(life.home.path("log")).unwrap();
        log.windows(name.len())
            .any(|bytes| bytes == name)
            .then_some(())
    });
}

fn our_options() {
    let life = Life::new(DOOR);
    for (option, config) in [
        ("--check", "conf"),
        ("--strict", "nosuch"),
        ("--status", "conf"),
        ("--json", "conf"),
        ("--close=A 10.9.0.2", "conf"),
    ] {
        let mut daemon = life.run(&format!("{option} -c {}", life.path(config)));
        let option = option.split('=').next().unwrap_or_default();
        let status = daemon.wait().code();
        let text = format!("unrecognized option '{option}");
        assert_eq!(daemon.count(&text), usize::from(is_original()));
        match (is_original(), option) {
            (true, _) | (false, "--check") => assert_eq!(status, Some(0)),
            // It starts but there is no such config, or there is no daemon to query.
            (false, _) => assert_eq!(status, Some(1)),
        }
    }
}

fn config_beside_the_program() {
    let life = Life::new("");
    let program = life.home.path("usr/sbin/knockd");
    for directory in ["usr/sbin", "etc"] {
        std::fs::create_dir_all(life.home.path(directory)).unwrap();
    }
    std::fs::copy(daemon_binary(), &program).unwrap();
    life.home.write("etc/knockd.conf", "relative\n");
    let args = ["-i", "nosuch"].map(String::from);
    let mut daemon = start(&program, &life.lane.server, &life.home, &args);
    assert_eq!(daemon.wait().code(), Some(1));
    // 0.8 reads /etc/knockd.conf, or reports that it is missing.
    assert_eq!(
        daemon.count("etc/knockd.conf:1:"),
        usize::from(!is_original()),
        "{}",
        daemon.errors()
    );
}

fn argument_that_is_not_utf8() {
    let life = Life::new(DOOR);
    let mut command = life.lane.server.command(daemon_binary().to_str().unwrap());
    let interface = OsString::from_vec(b"s\xff".to_vec());
    command
        .arg("-c")
        .arg(life.home.path("conf"))
        .arg("-i")
        .arg(interface);
    let mut daemon = Daemon::run(command);
    assert_eq!(daemon.wait().code(), Some(1));
    let opens = daemon.errors().starts_with("could not open s");
    assert_eq!(opens, is_original(), "{}", daemon.errors());
}

fn posixly_correct() {
    let life = Life::new(DOOR);
    let mut command = life.lane.server.command(daemon_binary().to_str().unwrap());
    command
        .env("POSIXLY_CORRECT", "1")
        .arg("-c")
        .arg(life.home.path("conf"));
    command.args(["-i", "nosuch", "operand", "-V"]);
    let mut daemon = Daemon::run(command);
    // The option after the operand: 0.8 does not see it, and requires the interface.
    let version = daemon.wait().code() == Some(0);
    assert_eq!(version, !is_original(), "{}", daemon.errors());
}

/// Starts the daemon as user nobody with these capabilities.
fn start_as_nobody(life: &Life, capabilities: &str) -> Daemon {
    let mut command = life.lane.server.command("setpriv");
    for what in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.args([what, capabilities]);
    }
    command
        .args(["--reuid", "65534", "--clear-groups"])
        .arg(daemon_binary())
        .args(["-v", "-i", "s0", "-c"])
        .arg(life.home.path("conf"));
    Daemon::run(command)
}

/// L14
fn no_right_to_capture() {
    let life = Life::new(DOOR);
    let mut daemon = start_as_nobody(&life, "-all");
    assert_eq!(daemon.wait().code(), Some(1));
    let text = "could not open s0: s0: You don't have permission to perform this capture on that device (socket: Operation not permitted)";
    let errors = daemon.errors();
    let line = errors
        .lines()
        .find(|line| line.starts_with("could not open"));
    match is_original() {
        true => assert_eq!(errors, text),
        false => assert_eq!(
            line,
            Some(format!("{text}; run knockd as root or with CAP_NET_RAW").as_str())
        ),
    }
}

/// L14: CAP_NET_RAW is sufficient. AfterStop the daemon cannot fork for a while.
fn fork_fails() {
    let life = Life::new("[A]\nsequence=7000\ntcpflags=syn\ncommand=echo it ran\n");
    let daemon = start_as_nobody(&life, "-all,+net_raw");
    daemon.await_text(lines::LISTENING);
    let limit = |number: &str| {
        let pid = daemon.pid().to_string();
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "65534",
            "--clear-groups",
            "prlimit",
            "--pid",
            &pid,
        ]);
        let status = command.arg(format!("--nproc={number}:")).status();
        assert!(status.unwrap().success());
    };
    limit("0");
    life.send("7000");
    daemon.await_text("10.9.0.2: A: OPEN SESAME");
    if is_original() {
        let_pass(1500);
    } else {
        daemon.await_text("error: command fork failed!");
    }
    limit("4096");
    if is_original() {
        let_pass(1500);
        assert_eq!(daemon.count("it ran") + daemon.count("fork failed"), 0);
    } else {
        daemon.await_text("it ran");
    }
}

fn option_beyond_ascii() {
    let life = Life::new(DOOR);
    let mut daemon = life.run("-\u{e9} -i nosuch");
    assert_eq!(daemon.wait().code(), Some(0));
    let whole = daemon.count("invalid option -- '\u{e9}'");
    assert_eq!(whole, usize::from(!is_original()), "{}", daemon.errors());
}

/// The name resolves to another address from the second step on.
fn names_are_looked_up_once() {
    let life = Life::new(DOOR);
    let hosts = life.home.write("hosts", "10.9.0.1 moving\n");
    life.home.write("nsswitch.conf", "hosts: files\n");
    let mut command = life.lane.client.command("sh");
    command.current_dir(&life.home).arg("-c").arg(
        "mount --bind hosts /etc/hosts; mount --bind nsswitch.conf /etc/nsswitch.conf; \"$0\" -v -d 1000 moving 7000 8000",
    );
    let knock = Daemon::run({
        command.arg(knock_binary());
        command
    });
    let_pass(400);
    std::fs::write(hosts, "10.9.0.11 moving\n").unwrap();
    let second = if is_original() {
        "10.9.0.11"
    } else {
        "10.9.0.1"
    };
    knock.await_text(&format!("hitting tcp {second}:8000"));
}
