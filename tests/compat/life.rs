//! Part 3: signals, reloads, interfaces, unusual frames, command lines. Each test asserts the
//! observed behaviour of knockd 0.8 if that is the daemon under test, and this program's behaviour
//! otherwise. The rows of docs/differences.md are listed next to each test's name.

mod capture;
mod daemonized;
mod interface;
mod line;
mod signals;

use crate::lab::{Daemon, Home, daemon_binary, is_original, lines, wait_for};
use crate::lane::{Lane, start};
use crate::packet::parse;
use crate::play::{Rule, log_lines, send};
use std::time::Duration;

/// A name, the rows that it shows, and a function.
pub type Test = (&'static str, &'static [&'static str], fn());

/// All tests.
pub fn tests() -> impl Iterator<Item = Test> {
    [
        signals::TESTS,
        daemonized::TESTS,
        interface::TESTS,
        capture::TESTS,
        line::TESTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// A two-step door.
const DOOR: &str = "[A]\nsequence=7000,8000\nseq_timeout=10\ntcpflags=syn\ncommand=true\n";
/// Every config of these tests ends with this one-step door, whose packet comes from its own
/// address.
const FENCE: &str = "[fence]\nsequence=9:udp\n";
const FENCE_PACKET: &str = ".250:9/udp";
const FENCE_OPENED: &str = "10.9.0.250: fence: OPEN SESAME";

/// A new lane and the daemon's directory.
struct Life {
    lane: Lane,
    home: Home,
}

impl Life {
    /// Writes a config with these doors. `@W@` stands for the directory.
    fn new(doors: &str) -> Life {
        let life = Life {
            lane: Lane::new(),
            home: Home::new(),
        };
        life.conf(doors);
        life
    }

    fn directory(&self) -> String {
        self.home.as_ref().display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.home.path(name).display().to_string()
    }

    fn conf(&self, doors: &str) {
        let text = format!("{}{FENCE}", doors.replace("@W@", &self.directory()));
        self.home.write("conf", &text);
    }

    /// Runs `knockd -v -c conf -g log ARGS` with strict matching, without waiting.
    fn spawn(&self, args: &str) -> Daemon {
        let strict = if is_original() { "" } else { "--strict" };
        self.spawn_by_default(&format!("{args} {strict}"))
    }

    /// Like [`Life::spawn`], with the default matching.
    fn spawn_by_default(&self, args: &str) -> Daemon {
        let args = format!("-v -c {} -g {} {args}", self.path("conf"), self.path("log"));
        self.run(&args)
    }

    /// Runs any command line in the directory.
    fn run(&self, args: &str) -> Daemon {
        let args: Vec<String> = args.split_whitespace().map(String::from).collect();
        start(&daemon_binary(), &self.lane.server, &self.home, &args)
    }

    /// Like [`Life::spawn`], but waits until it listens on `s0`.
    fn start(&self) -> Daemon {
        let daemon = self.spawn("-i s0");
        daemon.await_text(lines::LISTENING);
        // 0.8 prints a line before it logs it.
        wait_for("the first line of the log", || {
            let logs = ["log", "rotated"].map(|name| self.home.read(name));
            logs.concat().contains("starting up, ").then_some(())
        });
        daemon
    }

    fn send(&self, tokens: &str) {
        send(&self.lane, &parse(tokens));
    }

    /// Waits until the daemon has handled all packets sent before.
    fn fence(&self, daemon: &Daemon) {
        let before = daemon.count(FENCE_OPENED);
        self.send(FENCE_PACKET);
        daemon.await_count(FENCE_OPENED, before + 1);
    }

    /// The messages in a log file, without the fence's.
    fn log(&self, name: &str) -> Vec<String> {
        let rule = if is_original() {
            Rule::Original
        } else {
            Rule::Strict
        };
        let mut lines = log_lines(&self.home.read(name), rule);
        lines.retain(|line| !line.contains(": fence: "));
        lines
    }

    fn await_log(&self, name: &str, text: &str) {
        wait_for(text, || {
            self.log(name)
                .iter()
                .any(|line| line.contains(text))
                .then_some(())
        });
    }

    fn await_file(&self, name: &str, text: &str) {
        wait_for(&format!("{text:?} in {name}"), || {
            (self.home.read(name) == text).then_some(())
        });
    }
}

/// Waits for something that must not happen: as long as it would take, plus a margin.
fn let_pass(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Sends SIGHUP. 0.8 reloads inside the signal handler and can crash or hang if it is printing a
/// line, so it gets time.
fn hangup(daemon: &Daemon) {
    if is_original() {
        let_pass(100);
    }
    daemon.signal(libc::SIGHUP);
}
