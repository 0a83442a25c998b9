//! `-d`, pid files, and several daemons.

use super::{DOOR, Life, Test, let_pass};
use crate::lab::{is_original, signal, wait_for};
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("pid_file", &[], pid_file),
    (
        "two_daemons_of_one_config",
        &["D-OPN-07"],
        two_daemons_of_one_config,
    ),
    ("relative_config", &["D-OPN-13"], relative_config),
    (
        "pid_file_changed_at_a_reload",
        &["D-OPN-12"],
        pid_file_changed_at_a_reload,
    ),
    ("empty_pid_file", &["D-CFG-25"], empty_pid_file),
];

/// Starts `knockd -d ARGS` and returns the daemon's PID from the pid file.
fn daemonize(life: &Life, args: &str, pid_file: &str) -> u32 {
    let strict = if is_original() { "" } else { "--strict" };
    let mut parent = life.run(&format!("-d -g {} {args} {strict}", life.path("log")));
    assert_eq!(parent.wait().code(), Some(0), "{}", parent.errors());
    wait_for("the pid file", || {
        let text = life.home.read(pid_file);
        text.strip_suffix('\n')?.parse().ok()
    })
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn await_end(pid: u32) {
    wait_for("the daemon's end", || (!is_alive(pid)).then_some(()));
}

fn pid_file() {
    let life = Life::new(DOOR);
    // PidFile overrides -p.
    life.conf(&format!("[options]\nPidFile=@W@/pid\n{DOOR}"));
    let pid = daemonize(
        &life,
        &format!("-i s0 -c {} -p {}", life.path("conf"), life.path("other")),
        "pid",
    );
    life.await_log("log", "starting up, listening on s0");
    assert!(is_alive(pid));
    assert!(!Path::new(&life.path("other")).exists());
    assert_eq!(
        std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        Path::new("/")
    );
    life.send("7000 8000");
    life.await_log("log", "10.9.0.2: A: OPEN SESAME");
    signal(pid, libc::SIGTERM);
    await_end(pid);
    assert!(!Path::new(&life.path("pid")).exists());
    assert_eq!(life.log("log").last().unwrap(), "shutting down");
}

/// L12
fn two_daemons_of_one_config() {
    let life = Life::new("[A]\nsequence=1\ntcpflags=syn\ncommand=echo s >>@W@/out\n");
    let args = format!("-i s0 -c {} -p {}", life.path("conf"), life.path("pid"));
    let first = daemonize(&life, &args, "pid");
    life.await_log("log", "starting up");
    if is_original() {
        let mut parent = life.run(&format!("-d -g {} {args}", life.path("log")));
        assert_eq!(parent.wait().code(), Some(0));
        let second = wait_for("the second's pid", || {
            life.home
                .read("pid")
                .trim()
                .parse()
                .ok()
                .filter(|p| *p != first)
        });
        wait_for("both", || (life.log("log").len() == 2).then_some(()));
        life.send("1");
        life.await_file("out", "s\ns\n");
        signal(first, libc::SIGTERM);
        await_end(first);
        assert!(
            !Path::new(&life.path("pid")).exists(),
            "the first removes the second's"
        );
        assert!(is_alive(second));
    } else {
        let mut second = life.run(&format!("-d -g {} {args}", life.path("log")));
        assert_eq!(second.wait().code(), Some(0));
        let errors = second.errors();
        assert!(errors.contains(&first.to_string()), "{errors}");
        life.send("1");
        life.await_file("out", "s\n");
        assert_eq!(life.home.read("pid"), format!("{first}\n"));
    }
}

/// L11
fn relative_config() {
    let life = Life::new(DOOR);
    let pid = daemonize(
        &life,
        &format!("-i s0 -c conf -p {}", life.path("pid")),
        "pid",
    );
    life.await_log("log", "starting up");
    life.conf("[B]\nsequence=4000\ntcpflags=syn\n");
    let_pass(100);
    signal(pid, libc::SIGHUP);
    if is_original() {
        await_end(pid);
        assert!(Path::new(&life.path("pid")).exists());
    } else {
        life.await_log("log", "configuration reloaded");
        // The new listener may not have set its filter yet.
        wait_for("a knock that opens", || {
            life.send("4000");
            let log = life.home.read("log");
            log.contains("10.9.0.2: B: OPEN SESAME").then_some(())
        });
    }
}

fn pid_file_changed_at_a_reload() {
    let life = Life::new("");
    life.conf(&format!("[options]\nPidFile=@W@/pid\n{DOOR}"));
    let pid = daemonize(&life, &format!("-i s0 -c {}", life.path("conf")), "pid");
    life.await_log("log", "starting up");
    life.conf(&format!("[options]\nPidFile=@W@/new\n{DOOR}"));
    life.home.write("new", "foreign\n");
    let_pass(100);
    signal(pid, libc::SIGHUP);
    life.await_log("log", "re-reading config file: ");
    let_pass(500);
    signal(pid, libc::SIGTERM);
    await_end(pid);
    let left = |name: &str| Path::new(&life.path(name)).exists();
    assert_eq!((left("pid"), left("new")), (is_original(), !is_original()));
}

fn empty_pid_file() {
    let life = Life::new("");
    life.conf(&format!("[options]\nPidFile=\n{DOOR}"));
    let mut parent = life.run(&format!(
        "-d -g {} -i s0 -c {} -p {}",
        life.path("log"),
        life.path("conf"),
        life.path("pid")
    ));
    assert_eq!(parent.wait().code(), Some(0));
    life.await_log("log", "starting up");
    let error = "could not create pid file : No such file or directory".to_string();
    if is_original() {
        assert_eq!(life.log("log")[0], error);
        assert_eq!(life.home.read("pid"), "");
    } else {
        assert!(!life.log("log").contains(&error));
        assert_ne!(life.home.read("pid"), "");
    }
}
