//! Log lines on their way: those about a source wait for its name when `-l` asks for names, and all later ones wait
//! behind them so that the order stays. The doors never wait.
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
    /// Whose address the line begins with.
    source: Option<IpAddr>,
    text: String,
    until: Millis,
}

struct CachedName {
    source: IpAddr,
    name: Option<String>,
    until: Millis,
}

/// The child that asks the DNS, which may take many seconds: one question at a time.
struct Child {
    socket: MessageSocket,
    process: Pid,
    /// It knows hosts file and DNS servers as they were at its start, so another takes its place then.
    until: Millis,
    asked: Option<(IpAddr, Millis)>,
}

/// All lines go through here.
pub struct LogQueue {
    /// Where they end up.
    pub sinks: LogSinks,
    lookup: bool,
    /// The empty directory that the child takes for the root of the file system.
    pub cage: Option<OwnedFd>,
    child: Option<Child>,
    names: Vec<CachedName>,
    waiting: Vec<QueuedLine>,
}

impl LogQueue {
    /// With `lookup`, names of sources are shown.
    pub fn new(sinks: LogSinks, lookup: bool) -> LogQueue {
        LogQueue {
            sinks,
            lookup,
            cage: None,
            child: None,
            names: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// A line.
    pub fn log(&mut self, kind: LogKind, text: &dyn fmt::Display) {
        if self.waiting.is_empty() {
            self.sinks.now(kind, text);
        } else {
            self.queue(kind, None, text, clock::monotonic());
        }
    }

    /// A line about a source: `10.9.0.2: text`, or `10.9.0.2 (client.example): text`.
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

    /// Writes the oldest line, with the name if that is known.
    fn release(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let line = self.waiting.remove(0);
        let text = match line.source {
            None => line.text,
            Some(source) => match self.known(source).and_then(|known| known.name.as_ref()) {
                Some(name) => format!("{source} ({name}): {}", line.text),
                None => format!("{source}: {}", line.text),
            },
        };
        self.sinks.at(line.time, line.kind, &text);
    }

    fn known(&self, source: IpAddr) -> Option<&CachedName> {
        self.names.iter().find(|name| name.source == source)
    }

    fn learn(&mut self, source: IpAddr, name: Option<String>, now: Millis) {
        if self.names.len() >= MAX_NAMES {
            self.names.remove(0);
        }
        self.names.push(CachedName {
            source,
            name,
            until: now + NAME_LIFE_MS,
        });
    }

    /// Writes what need not wait any more, and asks for the next name. Called when [`deadline`](Self::deadline) comes too.
    pub fn proceed(&mut self, now: Millis) {
        if let Some((source, due)) = self.child.as_ref().and_then(|child| child.asked)
            && due <= now
        {
            self.end_child();
            self.learn(source, None, now);
        }
        self.names.retain(|name| name.until > now);
        while let Some(line) = self.waiting.first() {
            let waits = line
                .source
                .is_some_and(|source| self.known(source).is_none());
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
            .find(|source| self.known(*source).is_none());
        if let Some(source) = unknown
            && !busy
            && self.ask(source, now).is_err()
        {
            self.end_child();
        }
    }

    fn ask(&mut self, source: IpAddr, now: Millis) -> Result<()> {
        if self.child.as_ref().is_some_and(|child| child.until <= now) {
            self.end_child();
        }
        let child = match &mut self.child {
            Some(child) => child,
            None => {
                let cage = self.cage.as_ref().map(AsFd::as_fd);
                let (socket, process) = process::spawn(PROGRAM, cage, &[])?;
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
            // One that cannot be killed ends with its socket.
            exec::end(child.process);
        }
    }

    /// That child was reaped, and its number may be somebody else's now.
    pub fn child_ended(&mut self, process: Pid) {
        if self
            .child
            .as_ref()
            .is_some_and(|child| child.process == process)
        {
            self.child = None;
        }
    }

    /// The child's end of the line, to poll for answers.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.child.as_ref().map(|child| child.socket.as_fd())
    }

    /// Takes the answer that [`descriptor`](Self::descriptor) has.
    pub fn answer(&mut self, now: Millis) {
        let Some(child) = &mut self.child else { return };
        let mut buffer = [0u8; MAX_DNS_NAME];
        match child.socket.receive(&mut buffer, false) {
            // An answer that was not asked for ends it, below: it could keep the keeper busy with them.
            Ok(length) if length > 0 && child.asked.is_some() => {
                let name = buffer.get(..length).unwrap_or_default();
                if let Some((source, _)) = child.asked.take() {
                    self.learn(source, clean(name), now);
                }
            }
            Err(error) if error.is(libc::EAGAIN) => {}
            _ => {
                let asked = child.asked;
                self.end_child();
                if let Some((source, _)) = asked {
                    self.learn(source, None, now);
                }
            }
        }
        self.proceed(now);
    }

    /// When [`proceed`](Self::proceed) must be called.
    pub fn deadline(&self) -> Millis {
        let asked = self.child.as_ref().and_then(|child| child.asked);
        let asked = asked.map_or(NEVER, |(_, due)| due);
        asked.min(self.waiting.first().map_or(NEVER, |line| line.until))
    }

    /// Writes all lines that still wait, before the end.
    pub fn flush(&mut self) {
        while !self.waiting.is_empty() {
            self.release();
        }
        self.end_child();
        self.sinks.write_out();
    }
}

/// A name as it may stand in a log. The client may own the zone, and put anything into it, such as `192.0.2.1`: the last label of a name
/// begins with a letter, that of an address in any notation does not.
fn clean(name: &[u8]) -> Option<String> {
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
        assert_eq!(clean(b"client.example").as_deref(), Some("client.example"));
        assert_eq!(
            clean(b"x\n[2026-11-23 10:00] 10.0.0.1: SSH: OPEN SESAME"),
            None
        );
        assert_eq!(clean(b"a b"), None);
        assert_eq!(clean(b"router").as_deref(), Some("router"));
        assert_eq!(
            clean(b"7.2.0.192.example.").as_deref(),
            Some("7.2.0.192.example.")
        );
        for address in [
            "198.51.100.7",
            "198.51.100.7.",
            "198.51.100.7..",
            "0xc6.0x33",
            "3325256711",
        ] {
            assert_eq!(clean(address.as_bytes()), None, "{address}");
        }
        assert_eq!(clean(b"?"), None);
        assert_eq!(clean(b""), None);
        assert_eq!(clean(&[0xff]), None);
    }
}
