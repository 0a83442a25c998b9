//! Where lines go: log file, syslog, standard output and error. Each line has its moment, so that one that waited for a
//! name still tells the right time.
#![forbid(unsafe_code)]

use crate::limits::SYSLOG_WAIT_MS;
use crate::sys::clock::{self, UnixTime};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What kind of line, which decides where it shows beside log file and syslog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What knockd 0.8 logs, and prints with `-v`.
    Event,
    /// What knockd 0.8 logs and never prints.
    LogOnly,
    /// An error: also to standard error.
    Error,
    /// Only printed, with `-v`.
    Verbose,
    /// Only printed, with `-D`.
    Debug,
}

/// All outputs.
pub struct Log {
    file: Option<(PathBuf, File)>,
    syslog: Option<Syslog>,
    verbose: bool,
    debug: bool,
}

impl Log {
    /// Only standard output and error so far.
    pub fn new(verbose: bool, debug: bool) -> Log {
        Log {
            file: None,
            syslog: None,
            verbose,
            debug,
        }
    }

    /// Opens what the config asks for; a file that cannot be opened is a warning, as in knockd 0.8. Called again after a
    /// reload, it opens the log file anew, so that a rotated one is left. Syslog once on stays on.
    pub fn open(&mut self, file: Option<&Path>, syslog: bool) {
        if syslog && self.syslog.is_none() {
            self.syslog = Some(Syslog::new());
        }
        self.file = None;
        let Some(path) = file else { return };
        match File::options().create(true).append(true).open(path) {
            Ok(file) => self.file = Some((path.to_path_buf(), file)),
            Err(error) => self.now(
                Kind::Error,
                &format!(
                    "warning: cannot open logfile: {}: {}",
                    path.display(),
                    plain(&error)
                ),
            ),
        }
    }

    /// Writes a line that happens now.
    pub fn now(&mut self, kind: Kind, line: &str) {
        self.at(clock::wall(), kind, line);
    }

    /// Writes a line of that moment.
    pub fn at(&mut self, time: UnixTime, kind: Kind, line: &str) {
        if matches!(kind, Kind::Event | Kind::LogOnly | Kind::Error) {
            if let Some((_, file)) = &mut self.file {
                let t = clock::local(time);
                let stamped = format!(
                    "[{:04}-{:02}-{:02} {:02}:{:02}] {line}\n",
                    t.year, t.month, t.day, t.hour, t.minute
                );
                // Where a full disk loses a line of the log, the doors still have to work.
                let _ = file.write_all(stamped.as_bytes());
            }
            if let Some(syslog) = &mut self.syslog {
                syslog.send(time, line);
            }
        }
        let printed = match kind {
            Kind::Event | Kind::Verbose => self.verbose || self.debug,
            Kind::Debug => self.debug,
            Kind::LogOnly => false,
            Kind::Error => {
                let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
                false
            }
        };
        if printed {
            // Nobody may be reading any more.
            let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// The text of an error as C's strerror() gives it, without the number that Rust adds.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_string()
}

/// A connection to /dev/log (RFC 3164 as C libraries write it): facility daemon, severity notice, no process id.
struct Syslog {
    socket: Option<UnixDatagram>,
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
        }
    }

    /// Sends a line. A syslog daemon that was restarted is found again; one that hangs is not waited for.
    fn send(&mut self, time: UnixTime, line: &str) {
        let t = clock::local(time);
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
        let sent = self
            .socket
            .as_ref()
            .is_some_and(|s| s.send(datagram.as_bytes()).is_ok());
        if !sent {
            self.socket = connect().ok();
            if let Some(socket) = &self.socket {
                let _ = socket.send(datagram.as_bytes());
            }
        }
    }
}

fn connect() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(DEV_LOG)?;
    socket.set_write_timeout(Some(Duration::from_millis(SYSLOG_WAIT_MS)))?;
    Ok(socket)
}
