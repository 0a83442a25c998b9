//! The daemon's life under an init system: started, killed, stopped, started again.

use crate::doors::{LINKS, SOURCES, Step};
use crate::lab::{Daemon, children, lines, signal};
use crate::model::{Event, Key, Ms};
use crate::soak::Soak;
use crate::{doors, lab};
use std::fs;

/// A daemon must be ready within this time after its start.
const READY_WITHIN: Ms = 8_000;
/// A daemon must exit within this time after SIGTERM (`limits::SHUTDOWN_MS`).
const GONE_WITHIN: Ms = 13_000;
/// The listener must receive from a working link within this time.
const DEAF_FOR: Ms = 3_000;
/// A reload must be done within this time.
const RELOADED_WITHIN: Ms = 8_000;
const KEEPING: &str = "configuration not reloaded";

/// Which processes are killed, in order.
#[derive(Clone, Copy, Debug)]
pub enum Kill {
    Keeper,
    KeeperFirst,
    ListenerFirst,
}

impl Soak {
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a daemon")
    }

    /// Sends a signal to the keeper, or to all processes named `knockd` like killall. The other
    /// processes must ignore it.
    pub fn signal(&mut self, number: i32) {
        if self.random.percent(30) {
            for pid in self.listeners() {
                signal(pid, number);
            }
        }
        self.daemon().signal(number);
    }

    fn spawn(&mut self) {
        let daemon = Daemon::spawn(&self.world.router, &self.world.home, &["-i", "wan0,ppp0"]);
        self.daemon = Some(daemon);
    }

    pub fn start(&mut self) {
        self.spawn();
        // A look can also fall into the time before the daemon is ready.
        self.expect_old_bans_undone();
        let is_ready = |soak: &mut Soak| soak.daemon().is_ready();
        let ready = self.wait_until(READY_WITHIN, |soak| is_ready(soak) || soak.has_ended());
        if !ready || self.has_ended() {
            self.violation("a started daemon did not become ready");
        }
        self.record(Event::Ready);
        self.expect_old_bans_undone();
        self.unsettle(None);
        self.reloading = false;
        self.listener_kills = 0;
        self.listener_kills_in_life = 0;
    }

    pub fn has_ended(&mut self) -> bool {
        self.daemon
            .as_mut()
            .is_none_or(|daemon| daemon.ended().is_some())
    }

    /// The listeners of the current daemon.
    pub fn listeners(&self) -> Vec<u32> {
        let is_listener = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"knockd-listener")
        };
        children(self.daemon().pid())
            .into_iter()
            .filter(is_listener)
            .collect()
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self, what: Kill) {
        let listeners = match what {
            Kill::Keeper => Vec::new(),
            _ => self.listeners(),
        };
        self.record(Event::Killed);
        let keeper = self.daemon().pid();
        let mut victims = match what {
            Kill::ListenerFirst => [listeners, vec![keeper]].concat(),
            _ => [vec![keeper], listeners].concat(),
        };
        self.listener_kills_in_life += victims.len();
        for pid in victims.drain(..) {
            signal(pid, libc::SIGKILL);
        }
        self.await_exit();
    }

    /// Waits for the exit and reads the remaining output.
    fn await_exit(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take().expect("a daemon");
        let status = daemon.wait();
        self.judge_log(&daemon);
        status.code()
    }

    /// Sends SIGTERM. After the exit everything is closed.
    pub fn terminate(&mut self) {
        self.record(Event::Closing);
        self.signal(libc::SIGTERM);
        self.await_end(15);
    }

    fn await_end(&mut self, code: i32) {
        if !self.wait_until(GONE_WITHIN, Soak::has_ended) {
            self.violation("the daemon does not end");
        }
        // Including its last lines.
        if let Some(daemon) = &mut self.daemon {
            daemon.wait();
        }
        let unfinished = self.unfinished();
        if !unfinished.is_empty() {
            self.note(
                "stop commands left for the next start",
                &format!("{unfinished:?}"),
            );
        }
        let found = self.await_exit();
        self.record(Event::Ended { unfinished });
        if found != Some(code) {
            self.violation(&format!("the daemon ended with {found:?}, not with {code}"));
        }
    }

    /// What it reports as not closed in time.
    fn unfinished(&self) -> Vec<Key> {
        let errors = self.daemon().errors();
        let parse = |line: &str| {
            let rest = line.strip_prefix("error: ")?;
            let rest = rest.split(": its stop command did not end").next()?;
            let (address, name) = rest.split_once(": ")?;
            let source = SOURCES
                .iter()
                .position(|source| source.address == address)?;
            let door = doors::DOORS.iter().position(|door| door.name == name)?;
            Some(Key { door, source })
        };
        errors
            .lines()
            .filter(|line| line.contains("its stop command did not end"))
            .filter_map(parse)
            .collect()
    }

    /// Checks for log lines that no daemon may print, whatever happened to it.
    pub fn judge_log(&mut self, daemon: &Daemon) {
        if daemon.count("panicked") > 0 {
            self.violation("the daemon panicked");
            for line in daemon.tail(40) {
                self.violation(&line);
            }
        }
        let deaths = daemon.count("error: listener ");
        if deaths > self.listener_kills_in_life {
            let killed = self.listener_kills_in_life;
            self.violation(&format!(
                "listeners died {deaths} times, killed were {killed}"
            ));
        }
    }

    /// How long the keeper may wait before it starts the next listener
    /// (`limits::MAX_RESTART_DELAY_MS`).
    fn restart_delay(&self) -> Ms {
        match self.listener_kills {
            0 | 1 => 0,
            kills => 1000 << (kills - 2),
        }
    }

    /// Makes sure that the listener receives from that link and address family: sends packets from
    /// new addresses to the one-step door until one opens it. The log line is sufficient here; the
    /// firewall shows its effect.
    pub fn settle(&mut self, link: doors::Link, ipv6: bool) -> bool {
        if self.settled[link as usize][usize::from(ipv6)] {
            return true;
        }
        self.fences = (self.fences + 1) % 150;
        let number = 100 + self.fences;
        let source = match (link, ipv6) {
            (doors::Link::Wan, false) => format!("198.51.100.{number}"),
            (doors::Link::Wan, true) => format!("2001:db8::f:{number}"),
            (doors::Link::Ppp, false) => format!("10.64.0.{number}"),
            (doors::Link::Ppp, true) => format!("2001:db8:64::f:{number}"),
        };
        let line = lines::opened(&source, "fence");
        let before = self.daemon().count(&line);
        let mut send_at = 0;
        let heard = self.wait_until(DEAF_FOR + self.restart_delay(), |soak| {
            if soak.now() >= send_at {
                let step = Step { port: 9, udp: true };
                soak.world.send(&source, link, step, &mut soak.random);
                send_at = soak.now() + 300;
            }
            soak.daemon().count(&line) > before || soak.has_ended()
        });
        if !heard || self.has_ended() {
            self.violation(&format!("receives nothing on {link:?}, IPv6 {ipv6}"));
        }
        self.settled[link as usize][usize::from(ipv6)] = heard;
        heard
    }

    /// Puts a good config in place, sends SIGHUP, and waits until the reload is done.
    pub fn reload(&mut self) {
        let reloads = self.daemon().count(lines::RELOADING);
        let refusals = self.daemon().count(KEEPING);
        self.signal(libc::SIGHUP);
        let done = self.wait_until(RELOADED_WITHIN, |soak| {
            let daemon = soak.daemon();
            daemon.count(lines::RELOADING) > reloads
                && (daemon.last_index(lines::IN_FORCE) > daemon.last_index(lines::RELOADING)
                    || daemon.count(KEEPING) > refusals)
        });
        let refused = self.daemon().count(KEEPING) > refusals;
        // The refusal may belong to an earlier reload whose listener was killed.
        if refused && self.reloading && self.listener_kills_in_life > 0 {
            self.reloading = false;
            return self.reload();
        }
        if !done || refused {
            self.violation("a reload of a valid config did not take effect");
        }
        self.reloading = false;
        self.listener_kills = 0;
        self.unsettle(None);
    }

    /// Sends SIGHUP with a broken config, waits for the refusal, and restores the good config.
    pub fn reload_broken(&mut self, text: Option<&str>) {
        let config = self.world.home.path("knockd.conf");
        match text {
            Some(text) => fs::write(&config, text).expect("config"),
            None => fs::remove_file(&config).expect("config"),
        }
        let refusals = self.daemon().count(KEEPING);
        self.daemon().signal(libc::SIGHUP);
        let refused = self.wait_until(RELOADED_WITHIN, |soak| {
            soak.daemon().count(KEEPING) > refusals
        });
        self.world.write_config(self.variant);
        if !refused {
            self.violation("a broken config was not refused");
        }
    }

    /// Does everything that makes the next knock on that link and address family certain. Returns
    /// `false` if that fails.
    pub fn make_certain(&mut self, link: doors::Link, ipv6: bool) -> bool {
        if self.reloading {
            self.reload();
        }
        self.settle(link, ipv6)
    }

    /// Starts another daemon with the same config, which must refuse to start and disturb nothing.
    pub fn start_second(&mut self) {
        let output = self
            .world
            .router
            .command("timeout")
            .arg("20")
            .arg(lab::daemon_binary())
            .args(["-i", "wan0,ppp0", "-c"])
            .arg(self.world.home.path("knockd.conf"))
            .output()
            .expect("second daemon");
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(1) || !says.contains("already runs") {
            self.violation(&format!("a second daemon: {}: {says}", output.status));
        }
    }

    /// Repairs everything that would prevent a start.
    pub fn repair_all(&mut self) {
        for link in LINKS {
            if !self.world.is_working(link) {
                self.world.repair(link);
                self.unsettle(Some(link));
            }
        }
    }
}
