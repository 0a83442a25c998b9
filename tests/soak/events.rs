//! Everything that happens to the daemon apart from knocks.

use crate::doors::{BROKEN, LINKS, Link};
use crate::lab::signal;
use crate::model::{Event, Ms};
use crate::service::Kill;
use crate::soak::Soak;
use crate::world::Breakage;
use std::time::Duration;

/// The number of variants of the config.
const VARIANTS: u16 = 5;

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Knock,
    Scan,
    Usr1,
    Flush,
    Reload,
    ReloadBurst,
    ReloadBroken,
    KillListener,
    StopListener,
    Kill,
    Terminate,
    Break,
    Repair,
    FillState,
    FillLog,
    ReadOnly,
    Second,
}

use EventKind::*;

/// The frequency of each event during a part of the run.
#[derive(Clone, Copy, Debug)]
pub struct Era {
    pub name: &'static str,
    weights: &'static [(EventKind, usize)],
}

/// Without calm parts nothing would be open for long. Without long-lived daemons no leak would
/// show.
pub const ERAS: &[Era] = &[
    Era {
        name: "calm",
        weights: &[(Knock, 86), (Scan, 8), (Usr1, 2), (Flush, 2), (Second, 2)],
    },
    Era {
        name: "reloads and signals",
        weights: &[
            (Knock, 57),
            (Scan, 8),
            (Usr1, 2),
            (Flush, 2),
            (Reload, 10),
            (ReloadBurst, 4),
            (ReloadBroken, 8),
            (KillListener, 4),
            (StopListener, 4),
        ],
    },
    Era {
        name: "links",
        weights: &[
            (Knock, 66),
            (Break, 14),
            (Repair, 12),
            (Flush, 2),
            (Kill, 4),
            (Terminate, 2),
        ],
    },
    Era {
        name: "kills",
        weights: &[
            (Knock, 60),
            (Scan, 10),
            (Kill, 25),
            (Terminate, 4),
            (KillListener, 2),
            (Usr1, 2),
            (Flush, 1),
        ],
    },
    Era {
        name: "disks",
        weights: &[
            (Knock, 78),
            (FillState, 6),
            (FillLog, 6),
            (ReadOnly, 2),
            (Kill, 4),
            (Terminate, 2),
            (Reload, 2),
        ],
    },
    Era {
        name: "all",
        weights: &[
            (Knock, 55),
            (Scan, 10),
            (Usr1, 2),
            (Flush, 1),
            (Reload, 4),
            (ReloadBurst, 2),
            (ReloadBroken, 3),
            (KillListener, 2),
            (StopListener, 2),
            (Kill, 4),
            (Terminate, 2),
            (Break, 4),
            (Repair, 6),
            (FillState, 2),
            (FillLog, 2),
            (ReadOnly, 1),
            (Second, 2),
        ],
    },
];

impl Soak {
    /// Plays one event of that era.
    pub fn play_event(&mut self, era: Era) {
        let Some(what) = self.random.weighted(era.weights) else {
            return;
        };
        let may_kill = self.state_full.is_none() && self.now() > self.no_kill_until;
        match what {
            Knock => self.knock(),
            Scan => self.scan(),
            Usr1 => self.usr1(),
            Flush => self.flush(),
            Reload => self.reload_good(),
            ReloadBurst => self.reload_burst(),
            ReloadBroken => self.reload_bad(),
            KillListener => self.kill_listener(),
            StopListener => self.stop_listener(),
            Kill if may_kill => self.kill_and_restart(),
            Terminate if may_kill => self.terminate_and_start(),
            Break => self.break_one(),
            Repair => self.repair_one(),
            FillState => self.fill_state(),
            FillLog => self.fill_log(),
            ReadOnly if may_kill => self.run_without_state(),
            Second => {
                self.note("second daemon", "");
                self.start_second();
            }
            Kill | Terminate | ReadOnly => {}
        }
    }

    pub fn usr1(&mut self) {
        let times = match self.random.percent(60) {
            true => 1,
            false => 1 + self.random.below(50),
        };
        self.note("SIGUSR1", &format!("{times} times"));
        self.reapply(times);
    }

    fn reapply(&mut self, times: usize) {
        self.record(Event::Reapplied);
        for _ in 0..times {
            self.signal(libc::SIGUSR1);
            if self.random.percent(20) {
                std::thread::sleep(Duration::from_millis(self.random.between(1, 10)));
            }
        }
        self.record(Event::Reapplied);
    }

    fn flush(&mut self) {
        self.note("flush and SIGUSR1", "");
        self.record(Event::Flushing);
        self.world.flush();
        self.record(Event::Reapplied);
        self.reapply(1);
    }

    fn change_variant(&mut self) {
        self.stale = self.variant;
        self.variant = (self.variant + 1) % VARIANTS;
        self.world.write_config(self.variant);
    }

    fn reload_good(&mut self) {
        if self.reloading {
            self.reload();
        }
        let changed = self.random.percent(60);
        if changed {
            self.change_variant();
        }
        if self.random.percent(50) {
            self.note("SIGHUP, awaited", &format!("changed {changed}"));
            self.reload();
        } else {
            self.note("SIGHUP", &format!("changed {changed}"));
            self.reloading = true;
            self.unsettle(None);
            self.signal(libc::SIGHUP);
        }
    }

    fn reload_burst(&mut self) {
        let times = 2 + self.random.below(10);
        self.note("SIGHUP burst", &format!("{times} times"));
        self.reloading = true;
        self.unsettle(None);
        for _ in 0..times {
            self.signal(libc::SIGHUP);
            std::thread::sleep(Duration::from_millis(self.random.between(0, 30)));
        }
    }

    fn reload_bad(&mut self) {
        if self.reloading {
            self.reload();
        }
        let text = match self.random.percent(90) {
            true => Some(self.random.pick(BROKEN)),
            false => None,
        };
        self.note("SIGHUP, broken config", &format!("{text:?}"));
        self.reload_broken(text);
    }

    fn kill_listener(&mut self) {
        // The keeper waits longer before each further restart.
        if self.listener_kills >= 3 {
            return;
        }
        let listeners = self.listeners();
        if listeners.is_empty() {
            return;
        }
        let victim = self.random.pick(&listeners);
        self.note("SIGKILL of the listener", &format!("{victim}"));
        self.listener_kills += 1;
        self.listener_kills_in_life += 1;
        self.unsettle(None);
        signal(victim, libc::SIGKILL);
    }

    fn stop_listener(&mut self) {
        let Some(victim) = self.listeners().pop() else {
            return;
        };
        let time = self.random.between(10, 600);
        self.note("SIGSTOP of the listener", &format!("for {time} ms"));
        self.unsettle(None);
        signal(victim, libc::SIGSTOP);
        let end = self.now() + time;
        while self.now() < end {
            // Packets are queued in the listener's socket.
            self.knock_fast();
            self.pass(150);
        }
        signal(victim, libc::SIGCONT);
    }

    fn kill_and_restart(&mut self) {
        let what = self
            .random
            .pick(&[Kill::Keeper, Kill::KeeperFirst, Kill::ListenerFirst]);
        let dead = self.random.pick(&[0, 0, 30, 300, 1500, 4000]);
        if self.random.percent(60) {
            // So that commands run.
            self.knock_fast();
            let wait = self.random.between(0, 400);
            self.pass(wait);
        }
        self.note("SIGKILL and restart", &format!("{what:?}, after {dead} ms"));
        self.kill(what);
        self.pass(dead);
        self.start_again();
    }

    fn terminate_and_start(&mut self) {
        self.note("SIGTERM and start", "");
        self.terminate();
        self.start_again();
    }

    /// Starts the daemon like an init system; sometimes while an interface is missing, for which
    /// the daemon then waits.
    fn start_again(&mut self) {
        if LINKS.iter().any(|link| !self.world.is_there(*link)) {
            if self.random.percent(50) {
                self.note("start without an interface", "");
            } else {
                self.repair_all();
            }
        }
        self.start();
    }

    fn break_one(&mut self) {
        let link = self.random.pick(&LINKS);
        if !self.world.is_working(link) {
            return;
        }
        let how = self.random.pick(&[
            Breakage::Down,
            Breakage::Delete,
            Breakage::Rename,
            Breakage::DropAddress,
            Breakage::ChangeAddress,
        ]);
        self.note("link breaks", &format!("{link:?} {how:?}"));
        self.unsettle(Some(link));
        self.world.break_link(link, how);
        if how == Breakage::Delete && self.random.percent(50) {
            // A redial: immediately, with a new index.
            self.repair_link(link);
        }
    }

    fn repair_one(&mut self) {
        let broken: Vec<Link> = LINKS
            .into_iter()
            .filter(|link| !self.world.is_working(*link))
            .collect();
        if !broken.is_empty() {
            let link = self.random.pick(&broken);
            self.repair_link(link);
        }
    }

    fn repair_link(&mut self, link: Link) {
        self.note("link comes back", &format!("{link:?}"));
        self.world.repair(link);
        self.unsettle(Some(link));
        if self.random.percent(70) {
            self.settle(link, false);
            self.settle(link, true);
        }
    }

    fn fill_state(&mut self) {
        if self.state_full.is_none() {
            self.note("StateDir full", "");
            self.world.fill("state");
            self.state_full = Some(self.now());
        } else {
            self.empty_state();
        }
    }

    /// The journal is written again within a second (`limits::JOURNAL_RETRY_MS`). Until then a kill
    /// would leave doors open.
    pub fn empty_state(&mut self) {
        if self.state_full.take().is_some() {
            self.note("StateDir has space", "");
            self.world.empty("state");
            self.no_kill_until = self.now() + 2500 + self.model.load();
        }
    }

    fn fill_log(&mut self) {
        self.log_full = !self.log_full;
        if self.log_full {
            self.note("log full", "");
            self.world.fill("log");
        } else {
            self.note("log has space", "");
            self.world.empty("log");
            // The log is rotated as well: SIGHUP opens a new file.
            let _ = std::fs::remove_file(self.world.home.path("log/knockd.log"));
            if self.reloading {
                self.reload();
            }
            self.reload();
        }
    }

    /// A daemon that cannot write its state directory works, but does not survive a kill without
    /// losing state.
    fn run_without_state(&mut self) {
        self.note("StateDir read-only", "");
        self.terminate();
        if self.failed() {
            return;
        }
        self.repair_all();
        self.world.set_read_only(true);
        self.start();
        let end = self.now() + self.random.between(1000, 4000);
        while self.now() < end && !self.failed() {
            self.knock();
            self.pass(100);
        }
        self.terminate();
        self.world.set_read_only(false);
        self.start();
    }

    /// With nothing open and nothing running, everything must be as at the start.
    pub fn rest(&mut self) {
        self.note("rest", "");
        self.empty_state();
        self.repair_all();
        if self.reloading {
            self.reload();
        }
        for link in LINKS {
            self.settle(link, false);
            self.settle(link, true);
        }
        const LONGEST: Ms = 40_000;
        if !self.wait_until(LONGEST, |soak| {
            soak.model.all_closed(soak.now()) && soak.no_ban_is_active()
        }) {
            self.violation("the oracle itself does not know when all is closed");
        }
        self.judge_rest();
    }
}
