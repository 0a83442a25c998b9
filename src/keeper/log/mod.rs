//! Writes log lines to the log file, syslog, standard output and standard error. Each line keeps
//! its own time, because it may have waited for a name.
#![forbid(unsafe_code)]

mod queue;
pub mod zone;

pub use queue::LogQueue;

use super::secure_open;
use crate::limits::LOG_WAIT_MS;
use crate::sys::clock::{self, UnixTime};
use crate::sys::error::{Error, Result};
use crate::sys::{file, poll, program};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zone::{LocalTime, Zone};

/// The kind of a line, which selects its outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// Lines that knockd 0.8 logs, and prints with `-v`.
    Event,
    /// Lines that knockd 0.8 logs and never prints.
    LogOnly,
    /// An error: also to standard error.
    Error,
    /// Only printed, with `-v`.
    Verbose,
    /// Only printed, with `-D`.
    Debug,
}

struct LogLine {
    time: LocalTime,
    kind: LogKind,
    text: String,
}

/// All outputs. Collects lines and writes them once per round of the keeper's loop: commands do not
/// wait for the log, and many lines cost few system calls.
pub struct LogSinks {
    file: Option<LogFile>,
    syslog: Option<Syslog>,
    verbose: bool,
    debug: bool,
    /// Read at startup and at each reload.
    zone: Zone,
    pending: Vec<LogLine>,
    stdout: Printer,
    stderr: Printer,
}

/// A writable pipe accepts at least this many bytes (pipe(7)).
const PIPE_BUF: usize = 4096;

impl LogSinks {
    /// Creates outputs to standard output and error only.
    pub fn new(verbose: bool, debug: bool) -> LogSinks {
        LogSinks {
            file: None,
            syslog: None,
            verbose,
            debug,
            zone: Zone::of_machine(),
            pending: Vec::new(),
            stdout: Printer::default(),
            stderr: Printer::default(),
        }
    }

    /// Opens the outputs of the config. A file that cannot be opened is a warning, as in knockd
    /// 0.8. After a reload, opens the log file again, so that a rotated one is released. Syslog
    /// stays on once it is on.
    pub fn open(&mut self, file: Option<&Path>, syslog: bool) {
        self.write_out();
        self.zone = Zone::of_machine();
        if syslog && self.syslog.is_none() {
            self.syslog = Some(Syslog::new());
        }
        self.file = None;
        let Some(path) = file else { return };
        let flags = libc::O_CREAT | libc::O_APPEND | libc::O_WRONLY;
        match secure_open::open(path, flags, 0o600) {
            Ok(file) => self.file = Some(LogFile::new(file)),
            Err(error) => self.log_now(
                LogKind::Error,
                &format_args!(
                    "warning: cannot open logfile: {}: {}",
                    path.to_string_lossy(),
                    error
                ),
            ),
        }
    }

    /// Logs a line with the current time.
    pub fn log_now(&mut self, kind: LogKind, text: &dyn fmt::Display) {
        self.log_at(clock::wall(), kind, text);
    }

    /// Logs a line with that time, or each line of a message of several lines.
    pub fn log_at(&mut self, time: UnixTime, kind: LogKind, text: &dyn fmt::Display) {
        let wanted = match kind {
            LogKind::Event | LogKind::LogOnly | LogKind::Error => true,
            LogKind::Verbose => self.verbose || self.debug,
            LogKind::Debug => self.debug,
        };
        if wanted {
            let time = self.zone.local(time);
            for line in text.to_string().split_terminator('\n') {
                let text = line.to_string();
                self.pending.push(LogLine { time, kind, text });
            }
        }
    }

    /// Writes the collected lines. Returns no error, because doors must still work when a full disk
    /// or a closed pipe loses a line.
    pub fn write_out(&mut self) {
        let [mut to_file, mut to_stdout, mut to_stderr] = [const { String::new() }; 3];
        let printing = self.verbose || self.debug;
        let now = self.zone.local(clock::wall());
        for LogLine { time, kind, text } in self.pending.drain(..) {
            if matches!(kind, LogKind::Event | LogKind::LogOnly | LogKind::Error) {
                if self.file.is_some() {
                    to_file.push_str(&format_line(time, &text));
                }
                if let Some(syslog) = &mut self.syslog {
                    syslog.send(time, &text);
                }
            }
            match kind {
                LogKind::Event | LogKind::Verbose | LogKind::Debug if printing => {
                    to_stdout.push_str(&text);
                    to_stdout.push('\n');
                }
                LogKind::Error => {
                    to_stderr.push_str(&text);
                    to_stderr.push('\n');
                }
                _ => {}
            }
        }
        if let Some(file) = &mut self.file
            && !to_file.is_empty()
            && let Err(error) = file.write(&to_file, now)
        {
            let text = format!(
                "error: cannot write the log file: {}: lines are lost",
                error
            );
            if let Some(syslog) = &mut self.syslog {
                syslog.send(now, &text);
            }
            to_stderr.push_str(&text);
            to_stderr.push('\n');
        }
        self.stdout.print(&mut program::output(), &to_stdout);
        self.stderr.print(&mut program::error(), &to_stderr);
    }
}

/// Formats a line of the log file.
fn format_line(t: LocalTime, text: &str) -> String {
    format!(
        "[{:04}-{:02}-{:02} {:02}:{:02}] {text}\n",
        t.year, t.month, t.day, t.hour, t.minute
    )
}

/// The log file, whose disk may be full.
struct LogFile {
    file: File,
    /// Lines lost since the last written one.
    lost: usize,
    /// The last line was written only in part.
    is_cut: bool,
}

impl LogFile {
    fn new(file: File) -> LogFile {
        LogFile {
            file,
            lost: 0,
            is_cut: false,
        }
    }

    /// Appends lines, after a line with the number of lost ones. Returns an error only once, until
    /// a line can be written.
    fn write(&mut self, lines: &str, now: LocalTime) -> Result<()> {
        let mut text = String::new();
        if self.is_cut {
            text.push('\n');
        }
        if self.lost > 0 {
            let lost = format!("log file: {} lines lost", self.lost);
            text.push_str(&format_line(now, &lost));
        }
        let before = text.len();
        text.push_str(lines);
        let (written, result) = write_what_fits(&self.file, text.as_bytes());
        if written > 0 {
            self.is_cut = text.as_bytes().get(written - 1) != Some(&b'\n');
        }
        let failed_before = self.lost > 0;
        let rest = text
            .as_bytes()
            .get(written.max(before)..)
            .unwrap_or_default();
        if written >= before {
            self.lost = 0;
        }
        self.lost += rest.iter().filter(|byte| **byte == b'\n').count();
        match failed_before {
            true => Ok(()),
            false => result,
        }
    }
}

/// Writes as much as fits. Returns the number of bytes, and the error if that was not all.
fn write_what_fits(file: &File, bytes: &[u8]) -> (usize, Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file::write(file.as_fd(), rest) {
            Ok(0) => return (written, Err(Error::Os(libc::EIO))),
            Ok(length) => written += length,
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Standard output or error. Its reader may hang: a stopped terminal must not stop the doors.
#[derive(Default)]
struct Printer {
    hangs: bool,
}

impl Printer {
    fn print(&mut self, stream: &mut File, text: &str) {
        if text.is_empty() {
            return;
        }
        match reopened(stream.as_fd()) {
            Some(mut file) => self.print_to(&mut file, text),
            None => self.print_to(stream, text),
        }
    }

    fn print_to(&mut self, stream: &mut File, text: &str) {
        for piece in text.as_bytes().chunks(PIPE_BUF) {
            let wait = if self.hangs { 0 } else { LOG_WAIT_MS };
            self.hangs = !poll::writable(stream.as_fd(), wait);
            if !self.hangs {
                let _ = file::write_all(stream.as_fd(), piece);
            }
        }
    }
}

/// Opens the same pipe or terminal again with O_NONBLOCK. A command may fill it between poll() and
/// the write, so the write must be able to fail. The original descriptor stays blocking, because
/// the commands share it.
fn reopened(stream: BorrowedFd<'_>) -> Option<File> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", stream.as_raw_fd()));
    let kind = file::find(&path).ok()?.kind();
    let flags = libc::O_WRONLY | libc::O_NONBLOCK;
    // Not a regular file, which would be written from its start.
    matches!(kind, libc::S_IFIFO | libc::S_IFCHR).then_some(())?;
    file::open(&path, flags, 0).ok()
}

/// A connection to /dev/log (RFC 3164, as C libraries write it): facility daemon, severity notice,
/// no PID.
struct Syslog {
    socket: Option<UnixDatagram>,
    /// Lines lost since the last written one.
    lost: u32,
}

const DEV_LOG: &str = "/dev/log";
const PRIORITY: u8 = 3 << 3 | 5;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl Syslog {
    fn new() -> Syslog {
        Syslog {
            socket: connect().ok(),
            lost: 0,
        }
    }

    /// Sends a line, after a line with the number of lost ones.
    fn send(&mut self, time: LocalTime, line: &str) {
        if self.lost > 0 {
            let lost = format!("syslog: {} lines lost", self.lost);
            if self.deliver(time, &lost) {
                self.lost = 0;
            }
        }
        if !self.deliver(time, line) {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// Sends one datagram. Connects again if the syslog daemon was restarted, and waits only once
    /// for one that hangs.
    fn deliver(&mut self, t: LocalTime, line: &str) -> bool {
        let month = usize::try_from(t.month - 1)
            .ok()
            .and_then(|month| MONTHS.get(month));
        let datagram = format!(
            "<{PRIORITY}>{} {:2} {:02}:{:02}:{:02} knockd: {line}",
            month.unwrap_or(&"Jan"),
            t.day,
            t.hour,
            t.minute,
            t.second
        );
        let send = |socket: &UnixDatagram| -> Result<()> {
            file::set_nonblocking(socket.as_fd(), self.lost > 0)?;
            Ok(socket.send(datagram.as_bytes()).map(drop)?)
        };
        match self.socket.as_ref().map(send) {
            Some(Ok(())) => true,
            Some(Err(error)) if error.is(libc::EAGAIN) => false,
            _ => {
                self.socket = connect().ok();
                self.socket
                    .as_ref()
                    .is_some_and(|socket| send(socket).is_ok())
            }
        }
    }
}

fn connect() -> Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(DEV_LOG)?;
    socket.set_write_timeout(Some(Duration::from_millis(LOG_WAIT_MS)))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_message_has_its_time() {
        let mut log = LogSinks::new(false, false);
        log.log_now(
            LogKind::LogOnly,
            &"config: line 2: syntax error\nconf:2:1: why",
        );
        let texts: Vec<&str> = log.pending.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["config: line 2: syntax error", "conf:2:1: why"]);
    }
}
