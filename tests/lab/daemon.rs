//! Starts daemons, reads their output, and kills them with every process that they started.

use super::lines;
use super::{DEADLINE, Home, Namespace, descendants, signal, wait_for, wait_within};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long to wait for the last output of a daemon that has ended.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The daemon under test: KNOCKD_BIN, or else the one that cargo built.
pub fn daemon_binary() -> PathBuf {
    std::env::var_os("KNOCKD_BIN").map_or_else(built, PathBuf::from)
}

/// The program that cargo built for this test, which itself is in the `deps` directory next to it.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let profile = test.ancestors().nth(2).expect("directory");
    profile.join("knockd")
}

/// Returns `true` if the daemon under test is knockd 0.8, the only one linked to libpcap. It does
/// not know knockd-rs's own config keys.
pub fn is_original() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| is_linked_with_libpcap(&daemon_binary()))
}

fn is_linked_with_libpcap(binary: &Path) -> bool {
    let bytes = std::fs::read(binary).expect("the daemon's binary");
    bytes.windows(10).any(|window| window == b"libpcap.so")
}

/// The client: KNOCK_BIN, or else the daemon's binary called by the name `knock`.
pub fn knock_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("KNOCK_BIN") {
        return PathBuf::from(path);
    }
    if is_original() {
        return PathBuf::from("/usr/bin/knock");
    }
    static LINK: OnceLock<PathBuf> = OnceLock::new();
    LINK.get_or_init(|| {
        std::fs::create_dir_all(knock_directory()).expect("directory");
        let link = knock_directory().join("knock");
        std::os::unix::fs::symlink(daemon_binary(), &link).expect("link");
        link
    })
    .clone()
}

/// Removes the link made by [`knock_binary`].
pub fn remove_knock_link() {
    let _ = std::fs::remove_dir_all(knock_directory());
}

fn knock_directory() -> PathBuf {
    std::env::temp_dir().join(format!("kt-{}-bin", std::process::id()))
}

/// The daemon's output in the order of arrival. `true` marks a line from stderr.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<(bool, String)>>,
    grew: Condvar,
}

/// A running daemon. Dropping it kills it and every process that it started. If the test failed,
/// its log is printed.
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
    /// The threads that read stdout and stderr.
    readers: [JoinHandle<()>; 2],
    label: String,
}

impl Daemon {
    /// Starts `knockd -v -c HOME/knockd.conf ARGS` in the namespace. Waits until it listens or
    /// waits for its interface.
    pub fn start(namespace: &Namespace, home: &Home, args: &[&str]) -> Daemon {
        let daemon = Daemon::spawn(namespace, home, args);
        wait_for("a daemon that is ready", || daemon.is_ready().then_some(()));
        daemon
    }

    /// Returns `true` once it listens or waits for its interface.
    pub fn is_ready(&self) -> bool {
        self.count(lines::LISTENING) + self.count(lines::WAITING) > 0
    }

    /// Like [`Daemon::start`], but does not wait.
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

    /// The PID; for knockd-rs, the keeper's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains `text` and returns it.
    pub fn await_text(&self, text: &str) -> String {
        self.await_count(text, 1)
    }

    /// Waits until `count` lines contain `text` and returns the last of them.
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
                "timed out after {DEADLINE:?}: line {count} with {text:?}"
            );
            lines = self.log.grew.wait_timeout(lines, left).expect("log").0;
        }
    }

    /// The number of lines so far that contain `text`.
    pub fn count(&self, text: &str) -> usize {
        self.log
            .lines
            .lock()
            .expect("log")
            .iter()
            .filter(|(_, l)| l.contains(text))
            .count()
    }

    /// The index of the last line that contains `text`.
    pub fn last_index(&self, text: &str) -> Option<usize> {
        let lines = self.log.lines.lock().expect("log");
        lines.iter().rposition(|(_, l)| l.contains(text))
    }

    /// The last `number` lines of output.
    pub fn tail(&self, number: usize) -> Vec<String> {
        let lines = self.log.lines.lock().expect("log");
        let skipped = lines.len().saturating_sub(number);
        lines[skipped..].iter().map(|(_, l)| l.clone()).collect()
    }

    /// Everything printed on stderr so far.
    pub fn errors(&self) -> String {
        let lines = self.log.lines.lock().expect("log");
        let errors: Vec<&str> = lines
            .iter()
            .filter(|(error, _)| *error)
            .map(|(_, l)| l.as_str())
            .collect();
        errors.join("\n")
    }

    /// The lines that the daemon and its commands have printed on stdout so far.
    pub fn output(&self) -> Vec<String> {
        let lines = self.log.lines.lock().expect("log");
        let output = lines.iter().filter(|(error, _)| !*error);
        output.map(|(_, line)| line.clone()).collect()
    }

    /// The exit status, or `None` while it runs. Its output has been read as after [`Daemon::wait`].
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("wait")?;
        self.read_the_rest(status);
        Some(status)
    }

    pub fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    /// Waits for the daemon to end. After a normal exit, all of its output has been read, unless
    /// one of its commands still holds the pipe open.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let pause = Duration::from_millis(10);
        // SIGTERM can take 10 s.
        let status = wait_within(2 * DEADLINE, pause, "end of the daemon", || {
            child.try_wait().expect("wait")
        });
        self.read_the_rest(status);
        status
    }

    fn read_the_rest(&self, status: ExitStatus) {
        let end = Instant::now() + LAST_WORDS;
        let is_read = || self.readers.iter().all(JoinHandle::is_finished);
        while status.code().is_some() && !is_read() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

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
            eprintln!("output of {}:\n{}", self.label, text.concat());
        }
    }
}

/// Reads lines into the log on a thread until the last writer closes the pipe.
fn collect(stream: impl Read + Send + 'static, is_error: bool, log: Arc<Log>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            log.lines.lock().expect("log").push((is_error, line));
            log.grew.notify_all();
        }
    })
}
