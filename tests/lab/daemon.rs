//! Starting the daemon, reading what it says, and ending it with all that it started.

use super::lines;
use super::{DEADLINE, Home, Namespace, descendants, signal, wait_for, wait_within};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a daemon that has ended printed last is read within this time.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The daemon under test: ours, or what KNOCKD_BIN names.
pub fn daemon_binary() -> PathBuf {
    std::env::var_os("KNOCKD_BIN").map_or_else(built, PathBuf::from)
}

/// The program that cargo built for the test: the test's own is in `deps` beside it.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let profile = test.ancestors().nth(2).expect("folder");
    profile.join("knockd")
}

/// Whether the daemon under test is knockd 0.8 itself (the only one that needs libpcap). It lacks our keys.
pub fn is_original() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| is_linked_with_libpcap(&daemon_binary()))
}

fn is_linked_with_libpcap(binary: &Path) -> bool {
    let bytes = std::fs::read(binary).expect("the daemon's binary");
    bytes.windows(10).any(|window| window == b"libpcap.so")
}

/// The client: what KNOCK_BIN names, or the daemon's binary called by the name `knock`.
pub fn knock_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("KNOCK_BIN") {
        return PathBuf::from(path);
    }
    if is_original() {
        return PathBuf::from("/usr/bin/knock");
    }
    static LINK: OnceLock<PathBuf> = OnceLock::new();
    LINK.get_or_init(|| {
        std::fs::create_dir_all(knock_folder()).expect("folder");
        let link = knock_folder().join("knock");
        std::os::unix::fs::symlink(daemon_binary(), &link).expect("link");
        link
    })
    .clone()
}

/// Removes the link that [`knock_binary`] made.
pub fn remove_knock_link() {
    let _ = std::fs::remove_dir_all(knock_folder());
}

fn knock_folder() -> PathBuf {
    std::env::temp_dir().join(format!("kt-{}-bin", std::process::id()))
}

/// What the daemon printed, line by line as it came; true: on stderr.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<(bool, String)>>,
    grew: Condvar,
}

/// A running daemon. Dropping it kills it and all that it started; when the test fails its log is printed.
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
    /// The threads that read its output.
    readers: [JoinHandle<()>; 2],
    label: String,
}

impl Daemon {
    /// Starts `knockd -v -c HOME/knockd.conf ARGS` in the namespace and waits until it listens, or waits for its interface.
    pub fn start(namespace: &Namespace, home: &Home, args: &[&str]) -> Daemon {
        let daemon = Daemon::spawn(namespace, home, args);
        wait_for("a daemon that is ready", || daemon.is_ready().then_some(()));
        daemon
    }

    /// Whether it has started: it listens, or waits for its interface.
    pub fn is_ready(&self) -> bool {
        self.count(lines::LISTENING) + self.count(lines::WAITING) > 0
    }

    /// The same without waiting.
    pub fn spawn(namespace: &Namespace, home: &Home, args: &[&str]) -> Daemon {
        let binary = daemon_binary();
        let mut command = namespace.command(binary.to_str().expect("path"));
        command
            .arg("-v")
            .arg("-c")
            .arg(home.path("knockd.conf"))
            .args(args);
        Daemon::run(command)
    }

    /// Runs a command that becomes a daemon.
    pub fn run(mut command: Command) -> Daemon {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().expect("start the daemon");
        let log = Arc::new(Log::default());
        let stdout = child.stdout.take().expect("stdout");
        let stderr = child.stderr.take().expect("stderr");
        let readers = [
            collect(stdout, false, Arc::clone(&log)),
            collect(stderr, true, Arc::clone(&log)),
        ];
        Daemon {
            child,
            log,
            readers,
            label: format!("{command:?}"),
        }
    }

    /// Its process id; of ours: the keeper's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line contains this text, and gives the line.
    pub fn await_text(&self, text: &str) -> String {
        self.await_count(text, 1)
    }

    /// Waits until `count` lines contain this text, and gives the last of them.
    pub fn await_count(&self, text: &str, count: usize) -> String {
        let end = Instant::now() + DEADLINE;
        let mut lines = self.log.lines.lock().expect("log");
        loop {
            if let Some((_, line)) = lines
                .iter()
                .filter(|(_, l)| l.contains(text))
                .nth(count - 1)
            {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited {DEADLINE:?} in vain for line {count} with {text:?}"
            );
            lines = self.log.grew.wait_timeout(lines, left).expect("log").0;
        }
    }

    /// How many lines contain this text so far.
    pub fn count(&self, text: &str) -> usize {
        self.log
            .lines
            .lock()
            .expect("log")
            .iter()
            .filter(|(_, l)| l.contains(text))
            .count()
    }

    /// Where the last line with this text stands among all lines so far.
    pub fn last_index(&self, text: &str) -> Option<usize> {
        let lines = self.log.lines.lock().expect("log");
        lines.iter().rposition(|(_, l)| l.contains(text))
    }

    /// The last lines that it printed.
    pub fn tail(&self, number: usize) -> Vec<String> {
        let lines = self.log.lines.lock().expect("log");
        let skipped = lines.len().saturating_sub(number);
        lines[skipped..].iter().map(|(_, l)| l.clone()).collect()
    }

    /// All that it printed on stderr so far.
    pub fn errors(&self) -> String {
        let lines = self.log.lines.lock().expect("log");
        let errors: Vec<&str> = lines
            .iter()
            .filter(|(error, _)| *error)
            .map(|(_, l)| l.as_str())
            .collect();
        errors.join("\n")
    }

    /// The lines that it and its commands printed on stdout so far.
    pub fn output(&self) -> Vec<String> {
        let lines = self.log.lines.lock().expect("log");
        let output = lines.iter().filter(|(error, _)| !*error);
        output.map(|(_, line)| line.clone()).collect()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// Sends it a signal.
    pub fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    /// Waits until it has ended. If it did so by itself, all that it printed has been read then, unless a command of its own still
    /// holds its output open.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let pause = Duration::from_millis(10);
        // After SIGTERM it takes up to 10 s.
        let status = wait_within(2 * DEADLINE, pause, "end of the daemon", || {
            child.try_wait().expect("wait")
        });
        let end = Instant::now() + LAST_WORDS;
        let is_read = |readers: &[JoinHandle<()>]| readers.iter().all(JoinHandle::is_finished);
        while status.code().is_some() && !is_read(&self.readers) && Instant::now() < end {
            std::thread::sleep(pause);
        }
        status
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let rest = descendants(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        rest.into_iter().for_each(|pid| signal(pid, libc::SIGKILL));
        if std::thread::panicking() {
            let lines = self.log.lines.lock().unwrap_or_else(|e| e.into_inner());
            let skipped = lines.len().saturating_sub(500);
            let text: Vec<String> = lines[skipped..]
                .iter()
                .map(|(error, l)| format!("    {}{l}\n", if *error { "stderr: " } else { "" }))
                .collect();
            eprintln!("{} said:\n{}", self.label, text.concat());
        }
    }
}

/// Reads lines into the log on a thread, until the last writer is gone.
fn collect(stream: impl Read + Send + 'static, is_error: bool, log: Arc<Log>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            log.lines.lock().expect("log").push((is_error, line));
            log.grew.notify_all();
        }
    })
}
