//! A run from start to end.

use crate::events::ERAS;
use crate::model::Ms;
use crate::soak::Soak;
use std::fs;

/// Between two rests, during which nothing is open.
const REST_EVERY: Ms = 45_000;
/// Between two checks of descriptors and zombies.
const HEALTH_EVERY: Ms = 2_000;

impl Soak {
    /// Plays random events for `seconds`.
    pub fn play(&mut self, seconds: u64) {
        self.start();
        let begin = self.now();
        let end = begin + seconds * 1000;
        let mut eras = Vec::new();
        let (mut era, mut era_until) = (ERAS[0], 0);
        let mut rest_at = self.now() + REST_EVERY / 3;
        let mut health_at = 0;
        while self.now() < end && !self.failed() {
            if self.now() > era_until {
                if eras.is_empty() {
                    eras = ERAS.to_vec();
                }
                era = eras.swap_remove(self.random.below(eras.len()));
                era_until = self.now() + self.random.between(4_000, 12_000);
                self.history
                    .note_detail(self.now(), &format!("-- {}", era.name));
                println!("soak: {} of {seconds} s", (self.now() - begin) / 1000);
            }
            if self.now() > rest_at {
                self.rest();
                rest_at = self.now() + REST_EVERY;
            } else {
                self.play_event(era);
            }
            if self.now() > health_at && !self.failed() {
                self.judge_health();
                health_at = self.now() + HEALTH_EVERY;
            }
            let pause = self.random.pick(&[0, 20, 100, 250, 400]);
            self.pass(pause);
        }
        if !self.failed() {
            self.empty_state();
            let until = self.no_kill_until;
            let wait = until.saturating_sub(self.now());
            self.pass(wait);
            self.finish();
        }
    }

    /// Sends SIGTERM. AfterStop everything is as before the first start, and the journal is empty.
    pub fn finish(&mut self) {
        self.note("the last SIGTERM", "");
        self.terminate();
        if self.is_unfinished() {
            self.repair_all();
            self.start();
            self.terminate();
        }
        let found = self.world.rules();
        if found != self.rules {
            let text = format!(
                "the firewall at the end is not as it was:\n{found}it was:\n{}",
                self.rules
            );
            self.violation(&text);
        }
        self.judge_notes();
        self.judge_scans();
        let journal = self.journal();
        if has_lease(&journal) {
            self.violation(&format!("the journal at the end: {journal}"));
        }
    }

    fn is_unfinished(&self) -> bool {
        has_lease(&self.journal())
    }

    fn journal(&self) -> String {
        let journal = self.world.home.instance().join("journal");
        fs::read_to_string(journal).unwrap_or_default()
    }
}

/// Whether the journal contains a lease or a ban.
fn has_lease(journal: &str) -> bool {
    let mut lines = journal.lines();
    lines.any(|line| line.starts_with("lease ") || line.starts_with("ban "))
}
