//! Scanners: which of them are banned, and what the firewall shows.

use crate::doors::{Link, Step};
use crate::model::Ms;
use crate::soak::Soak;

/// No door uses ports 20 to 40.
pub const OPTIONS: &str = "Tripwire = 20-40
    TripwireHits = 2
    BanTime = 3
    MaxBans = 4
    BanCommand = iptables -w -I INPUT -s %IP% -j DROP
    UnbanCommand = iptables -w -D INPUT -s %IP% -j DROP\n";
const BAN_TIME: Ms = 3_000;
/// From a tripwire hit to the rule, and from the ban's end to the rule's removal, without load.
const SLACK: Ms = 2_000;

/// Internet hosts 203.0.113.0 and following. There are more than can be banned at once.
const SCANNERS: usize = 8;

/// What is known about them.
#[derive(Default)]
pub struct Bans {
    /// Each can be banned until this time.
    until: [Ms; SCANNERS],
    scans: usize,
    /// The number of looks in which some scanner was banned.
    seen: usize,
}

/// The scanner that this INPUT rule drops.
pub fn scanner_of(rule: &str) -> Option<usize> {
    let number = rule.strip_prefix("-A INPUT -s 203.0.113.")?;
    number.strip_suffix("/32 -j DROP")?.parse().ok()
}

impl Soak {
    /// A scanner hits some tripwires.
    pub fn scan(&mut self) {
        if !self.world.is_usable(Link::Wan, false) {
            return;
        }
        let scanner = self.random.below(SCANNERS);
        let number = 1 + self.random.below(6);
        self.note("scan", &format!("by {scanner}, {number} ports"));
        for _ in 0..number {
            let step = Step {
                port: 20 + self.random.below(21) as u16,
                udp: false,
            };
            let address = format!("203.0.113.{scanner}");
            let Soak { world, random, .. } = self;
            world.send(&address, Link::Wan, step, random);
        }
        self.bans.scans += 1;
        self.bans.until[scanner] = self.now() + BAN_TIME;
    }

    /// A daemon has just started and must soon undo the bans of its predecessor.
    pub fn expect_old_bans_undone(&mut self) {
        let now = self.now();
        for until in &mut self.bans.until {
            *until = (*until).max(now);
        }
    }

    /// Whether no ban can be active any more.
    pub fn no_ban_is_active(&self) -> bool {
        let slack = SLACK + self.model.load();
        let now = self.now();
        self.bans.until.iter().all(|until| until + slack < now)
    }

    /// Judges what a look at the firewall that began at `from` shows.
    pub fn judge_bans(&mut self, text: &str, from: Ms) {
        let mut rules = [0; SCANNERS];
        for scanner in text.lines().filter_map(scanner_of) {
            rules[scanner] += 1;
        }
        self.bans.seen += usize::from(rules.contains(&1));
        for (scanner, rules) in rules.into_iter().enumerate() {
            if rules > 1 {
                self.violation(&format!("{rules} rules for scanner {scanner}"));
            }
            let until = self.bans.until[scanner] + SLACK + self.model.load();
            if rules > 0 && self.daemon.is_some() && from > until {
                self.violation(&format!(
                    "scanner {scanner} is banned, must not be since {until} ms"
                ));
            }
        }
    }

    /// At the end, some scanner must have been banned; otherwise the run has tested nothing.
    pub fn judge_scans(&mut self) {
        if self.bans.scans > 30 && self.bans.seen == 0 {
            self.violation("no scanner was ever banned");
        }
    }
}
