//! Queues log lines. With `-l`, a line about a source waits for the source's name, and later lines
//! wait behind it, so that the order stays. Doors never wait.
#![forbid(unsafe_code)]

use super::{LogKind, LogSinks};
use crate::keeper::process;
use crate::limits::{LOOKUP_LIFE_MS, MAX_NAMES, MAX_WAITING_LINES, NAME_LIFE_MS, NAME_WAIT_MS};
use crate::resolve::dns::MAX_DNS_NAME;
use crate::resolve::process::PROGRAM;
use crate::sys::clock::{self, UnixTime};
use crate::sys::error::Result;
use crate::sys::exec;
use crate::sys::message_socket::MessageSocket;
use crate::util::process::Pid;
use crate::util::text::shown;
use crate::util::time::Millis;
use crate::util::time::NEVER;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

struct QueuedLine {
    time: UnixTime,
    kind: LogKind,
    /// The address with which the line begins.
    source: Option<IpAddr>,
    text: String,
    until: Millis,
}

struct CachedName {
    source: IpAddr,
    name: Option<String>,
    until: Millis,
}

/// The child process that queries the DNS, which can take many seconds. It handles one query at a
/// time.
struct Child {
    socket: MessageSocket,
    process: Pid,
    /// When to replace it, because it reads the hosts file and the DNS servers only at its start.
    until: Millis,
    asked: Option<(IpAddr, Millis)>,
}

/// The queue for all log lines.
pub struct LogQueue {
    /// The outputs.
    pub sinks: LogSinks,
    lookup: bool,
    /// The empty directory to which the child changes its root.
    pub empty_dir: Option<OwnedFd>,
    child: Option<Child>,
    names: Vec<CachedName>,
    waiting: Vec<QueuedLine>,
}

impl LogQueue {
    /// Creates a queue. `lookup`: show the names of sources.
    pub fn new(sinks: LogSinks, lookup: bool) -> LogQueue {
        LogQueue {
            sinks,
            lookup,
            empty_dir: None,
            child: None,
            names: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Logs a line.
    pub fn log(&mut self, kind: LogKind, text: &dyn fmt::Display) {
        if self.waiting.is_empty() {
            self.sinks.log_now(kind, text);
        } else {
            self.queue(kind, None, text, clock::monotonic());
        }
    }

    /// Logs a line about a source: `10.9.0.2: text`, or `10.9.0.2 (client.example): text`.
    pub fn about(&mut self, kind: LogKind, source: IpAddr, text: &dyn fmt::Display) {
        if !self.lookup {
            return self.log(kind, &format_args!("{source}: {text}"));
        }
        let now = clock::monotonic();
        self.queue(kind, Some(source), text, now);
        self.proceed(now);
    }

    fn queue(
        &mut self,
        kind: LogKind,
        source: Option<IpAddr>,
        text: &dyn fmt::Display,
        now: Millis,
    ) {
        if self.waiting.len() >= MAX_WAITING_LINES {
            self.release();
        }
        let until = now + NAME_WAIT_MS;
        let text = text.to_string();
        self.waiting.push(QueuedLine {
            time: clock::wall(),
            kind,
            source,
            text,
            until,
        });
    }

    /// Writes the oldest line, with the name if it is known.
    fn release(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let line = self.waiting.remove(0);
        let text = match line.source {
            None => line.text,
            Some(source) => match self
                .cached_name(source)
                .and_then(|known| known.name.as_ref())
            {
                Some(name) => format!("{source} ({name}): {}", line.text),
                None => format!("{source}: {}", line.text),
            },
        };
        self.sinks.log_at(line.time, line.kind, &text);
    }

    fn cached_name(&self, source: IpAddr) -> Option<&CachedName> {
        self.names.iter().find(|name| name.source == source)
    }

    fn cache_name(&mut self, source: IpAddr, name: Option<String>, now: Millis) {
        if self.names.len() >= MAX_NAMES {
            self.names.remove(0);
        }
        self.names.push(CachedName {
            source,
            name,
            until: now + NAME_LIFE_MS,
        });
    }

    /// Writes the lines that no longer need to wait, and queries the next name. Must also be called
    /// at the [`deadline`](Self::deadline).
    pub fn proceed(&mut self, now: Millis) {
        if let Some((source, due)) = self.child.as_ref().and_then(|child| child.asked)
            && due <= now
        {
            self.end_child();
            self.cache_name(source, None, now);
        }
        self.names.retain(|name| name.until > now);
        while let Some(line) = self.waiting.first() {
            let waits = line
                .source
                .is_some_and(|source| self.cached_name(source).is_none());
            if waits && line.until > now {
                break;
            }
            self.release();
        }
        let busy = self
            .child
            .as_ref()
            .is_some_and(|child| child.asked.is_some());
        let sources = self.waiting.iter().filter_map(|line| line.source);
        let unknown = sources
            .into_iter()
            .find(|source| self.cached_name(*source).is_none());
        if let Some(source) = unknown
            && !busy
            && self.send_query(source, now).is_err()
        {
            self.end_child();
        }
    }

    fn send_query(&mut self, source: IpAddr, now: Millis) -> Result<()> {
        if self.child.as_ref().is_some_and(|child| child.until <= now) {
            self.end_child();
        }
        let child = match &mut self.child {
            Some(child) => child,
            None => {
                let empty_dir = self.empty_dir.as_ref().map(AsFd::as_fd);
                let (socket, process) = process::spawn(PROGRAM, empty_dir, &[])?;
                self.child.insert(Child {
                    socket,
                    process,
                    until: now + LOOKUP_LIFE_MS,
                    asked: None,
                })
            }
        };
        child.socket.send(shown(&source).as_bytes(), false)?;
        child.asked = Some((source, now + NAME_WAIT_MS));
        Ok(())
    }

    fn end_child(&mut self) {
        if let Some(child) = self.child.take() {
            // A child that cannot be killed exits when its socket closes.
            exec::end(child.process);
        }
    }

    /// Notes that a child was reaped: its PID may be another process's now.
    pub fn child_ended(&mut self, process: Pid) {
        if self
            .child
            .as_ref()
            .is_some_and(|child| child.process == process)
        {
            self.child = None;
        }
    }

    /// Returns the child's socket, to poll for answers.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.child.as_ref().map(|child| child.socket.as_fd())
    }

    /// Reads the answer from the [`descriptor`](Self::descriptor).
    pub fn read_answer(&mut self, now: Millis) {
        let Some(child) = &mut self.child else { return };
        let mut buffer = [0u8; MAX_DNS_NAME];
        match child.socket.receive(&mut buffer, false) {
            // An answer without a query ends the child, below. Otherwise it could keep the keeper
            // busy.
            Ok(length) if length > 0 && child.asked.is_some() => {
                let name = buffer.get(..length).unwrap_or_default();
                if let Some((source, _)) = child.asked.take() {
                    self.cache_name(source, safe_name(name), now);
                }
            }
            Err(error) if error.is(libc::EAGAIN) => {}
            _ => {
                let asked = child.asked;
                self.end_child();
                if let Some((source, _)) = asked {
                    self.cache_name(source, None, now);
                }
            }
        }
        self.proceed(now);
    }

    /// Returns when [`proceed`](Self::proceed) must be called.
    pub fn deadline(&self) -> Millis {
        let asked = self.child.as_ref().and_then(|child| child.asked);
        let asked = asked.map_or(NEVER, |(_, due)| due);
        asked.min(self.waiting.first().map_or(NEVER, |line| line.until))
    }

    /// Writes all waiting lines, before the daemon exits.
    pub fn flush(&mut self) {
        while !self.waiting.is_empty() {
            self.release();
        }
        self.end_child();
        self.sinks.write_out();
    }
}

/// Returns the name if it is safe in a log. The client may own the zone and put anything into it,
/// such as `192.0.2.1`: the last label of a name begins with a letter, that of an address in any
/// notation does not.
fn safe_name(name: &[u8]) -> Option<String> {
    let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    let mut labels = name.rsplit(|byte| *byte == b'.');
    let last = labels.find(|label| !label.is_empty())?;
    let is_name = last.first()?.is_ascii_alphabetic() && name.iter().all(fit);
    is_name.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_forge_a_log_line_is_refused() {
        assert_eq!(
            safe_name(b"client.example").as_deref(),
            Some("client.example")
        );
        assert_eq!(
            safe_name(b"x\n[2026-11-23 10:00] 10.0.0.1: SSH: OPEN SESAME"),
            None
        );
        assert_eq!(safe_name(b"a b"), None);
        assert_eq!(safe_name(b"router").as_deref(), Some("router"));
        assert_eq!(
            safe_name(b"7.2.0.192.example.").as_deref(),
            Some("7.2.0.192.example.")
        );
        for address in [
            "198.51.100.7",
            "198.51.100.7.",
            "198.51.100.7..",
            "0xc6.0x33",
            "3325256711",
        ] {
            assert_eq!(safe_name(address.as_bytes()), None, "{address}");
        }
        assert_eq!(safe_name(b"?"), None);
        assert_eq!(safe_name(b""), None);
        assert_eq!(safe_name(&[0xff]), None);
    }
}
