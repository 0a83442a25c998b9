//! Looks at the firewall repeatedly, through a shell that stays on the router.

use crate::doors::key_of;
use crate::lab::Namespace;
use crate::model::{Ms, Seen};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
const END: &str = "-- end";

/// One look at the firewall.
pub struct Look {
    /// The output of `iptables -S` and `ip6tables -S`.
    pub text: String,
    /// The rules in it.
    pub seen: Seen,
    /// How long the look took or how late it began, whichever is longer.
    pub load: Ms,
}

/// The thread that looks.
pub struct Watch {
    looks: Receiver<Look>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    shell: Child,
    epoch: Instant,
}

impl Watch {
    /// Starts to look at this namespace's INPUT chains.
    pub fn start(namespace: &Namespace, epoch: Instant) -> Watch {
        let script = format!(
            "while read -r _; do iptables -w -S INPUT; ip6tables -w -S INPUT; echo '{END}'; done"
        );
        let mut shell = namespace
            .command("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("shell");
        let mut questions = shell.stdin.take().expect("stdin");
        let mut lines = BufReader::new(shell.stdout.take().expect("stdout")).lines();
        let (sender, looks) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut due = since(epoch);
            while !ended.load(Ordering::Relaxed) {
                let from = since(epoch);
                if questions.write_all(b"\n").is_err() {
                    return;
                }
                let mut text = String::new();
                loop {
                    match lines.next() {
                        Some(Ok(line)) if line == END => break,
                        Some(Ok(line)) => text += &format!("{line}\n"),
                        _ => return,
                    }
                }
                let mut seen = Seen {
                    from,
                    to: since(epoch),
                    ..Seen::default()
                };
                for key in text.lines().filter_map(key_of) {
                    *seen.rules.entry(key).or_default() += 1;
                }
                let load = (seen.to - from).max(from - due);
                due = seen.to + PAUSE.as_millis() as Ms;
                if sender.send(Look { text, seen, load }).is_err() {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        });
        Watch {
            looks,
            over,
            thread: Some(thread),
            shell,
            epoch,
        }
    }

    /// The next look; `None` if there is none until `until`.
    pub fn next(&self, until: Ms) -> Option<Look> {
        let wait = until.saturating_sub(since(self.epoch));
        match self.looks.recv_timeout(Duration::from_millis(wait)) {
            Ok(look) => Some(look),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the rules cannot be listed any more"),
        }
    }
}

/// Milliseconds since `epoch`.
pub fn since(epoch: Instant) -> Ms {
    epoch.elapsed().as_millis() as Ms
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // This closes the shell's input, which ends the shell.
            let _ = thread.join();
        }
        let _ = self.shell.wait();
    }
}
