//! SIGKILL of keeper and listener at random moments of a busy run.

use crate::lab::children;
use crate::service::Kill;
use crate::soak::Soak;

impl Soak {
    /// Kills both `number` times, restarts the daemon each time, and checks that nothing is left
    /// open.
    pub fn play_kills(&mut self, number: usize) {
        let mut at_command = 0;
        self.hurry = true;
        self.start();
        for done in 0..number {
            if done > 0 && done.is_multiple_of(10) {
                println!("kills: {done} of {number}");
            }
            for _ in 0..1 + self.random.below(4) {
                self.knock_fast();
                let pause = self.random.between(0, 120);
                self.pass(pause);
            }
            if self.random.percent(30) {
                self.scan();
            }
            if self.random.percent(15) {
                self.usr1();
            }
            let wait = self.random.pick(&[0, 5, 20, 60, 200, 600]);
            let wait = self.random.between(0, wait + 1);
            self.pass(wait);
            let commands = children(self.daemon().pid()).len().saturating_sub(1);
            at_command += usize::from(commands > 0);
            let what = self.random.pick(&[Kill::KeeperFirst, Kill::ListenerFirst]);
            self.note(
                "SIGKILL of both",
                &format!("{what:?}, {commands} commands run"),
            );
            self.kill(what);
            let dead = self.random.pick(&[0, 0, 10, 100]);
            self.pass(dead);
            self.start();
            if self.failed() {
                return;
            }
        }
        println!("{at_command} of {number} kills happened while a command was running");
        self.rest();
        self.finish();
    }
}
