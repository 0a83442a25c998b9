//! The control socket. Serves up to [`MAX_CLIENTS`] clients, one request and one answer each. No
//! client can block the keeper.
#![forbid(unsafe_code)]

use crate::limits::{CLIENT_MS, FORK_RETRY_MS, MAX_CLIENTS, MAX_QUESTION};
use crate::sys::error::{Error, Result};
use crate::sys::file::{self, set_nonblocking};
use crate::sys::poll::{Interest, PollEntry, Ready};
use crate::util::time::Millis;
use crate::util::time::NEVER;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// A client's request, one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `status` or `status json`.
    Status {
        /// As JSON instead of text.
        json: bool,
    },
    /// `close 10.9.0.2 SSH`: end the door's leases for that source now.
    Close {
        /// The door's name.
        door: String,
        /// The source address for which it is open.
        source: IpAddr,
    },
}

impl Request {
    /// Returns the line without its newline.
    pub fn line(&self) -> String {
        match self {
            Request::Status { json: false } => "status".to_string(),
            Request::Status { json: true } => "status json".to_string(),
            Request::Close { door, source } => format!("close {source} {door}"),
        }
    }

    /// Parses a line without its newline.
    pub fn parse(line: &[u8]) -> Option<Request> {
        let line = std::str::from_utf8(line).ok()?;
        Some(match line {
            "status" => Request::Status { json: false },
            "status json" => Request::Status { json: true },
            _ => {
                let (source, door) = line.strip_prefix("close ")?.split_once(' ')?;
                Request::Close {
                    door: door.to_string(),
                    source: source.parse().ok()?,
                }
            }
        })
    }
}

/// The first line of an answer. The line after `error` is meant for standard error.
pub const OK: &str = "ok\n";
/// See [`OK`].
pub const ERROR: &str = "error\n";

enum Stage {
    /// The request as far as it has arrived.
    Reading(Vec<u8>),
    /// Waits for the listener's report.
    Pending { json: bool },
    /// The rest of the answer.
    Writing(Vec<u8>),
}

struct Client {
    stream: UnixStream,
    /// When to drop the client.
    until: Millis,
    stage: Stage,
}

/// The socket and its clients.
pub struct Control {
    socket: UnixListener,
    clients: Vec<Client>,
    /// After accept() has failed: when to try again.
    paused_until: Millis,
}

impl Control {
    /// Opens the socket. The path is in the daemon's own, locked directory, so an existing socket
    /// is a dead daemon's.
    pub fn open(path: &Path) -> Result<Control> {
        match file::remove(path) {
            Err(error) if !error.is(libc::ENOENT) => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(path)?;
        file::set_mode(path, 0o600)?;
        set_nonblocking(socket.as_fd(), true)?;
        Ok(Control {
            socket,
            clients: Vec::new(),
            paused_until: NEVER,
        })
    }

    /// Adds the entries to poll: the socket, then each client. Their result goes to
    /// [`serve`](Self::serve).
    pub fn add_entries<'a>(&'a self, entries: &mut Vec<PollEntry<'a>>) {
        let accepts = self.clients.len() < MAX_CLIENTS && self.paused_until == NEVER;
        let awaits = match accepts {
            true => Interest::Readable,
            false => Interest::Hangup,
        };
        entries.push(PollEntry::new(Some(self.socket.as_fd()), awaits));
        for client in &self.clients {
            let awaits = match client.stage {
                Stage::Reading(_) => Interest::Readable,
                Stage::Pending { .. } => Interest::Hangup,
                Stage::Writing(_) => Interest::Writable,
            };
            entries.push(PollEntry::new(Some(client.stream.as_fd()), awaits));
        }
    }

    /// Returns when [`serve`](Self::serve) must be called even if no entry is ready.
    pub fn deadline(&self) -> Millis {
        // The clients are in the order of arrival, and all have the same time limit.
        let client = self.clients.first().map_or(NEVER, |client| client.until);
        client.min(self.paused_until)
    }

    /// Serves clients without blocking. `ready` refers to the entries of
    /// [`add_entries`](Self::add_entries). Passes each complete request to `answer` and sends the
    /// result. `None` means that [`answer_status`](Self::answer_status) will answer.
    pub fn serve(
        &mut self,
        ready: Ready,
        now: Millis,
        answer: &mut dyn FnMut(Request) -> Option<String>,
    ) {
        if self.paused_until <= now {
            self.paused_until = NEVER;
        }
        let mut entry = 0;
        self.clients.retain_mut(|client| {
            entry += 1;
            let goes_on = !ready.has(entry) || client.proceed(answer);
            goes_on && client.until > now
        });
        if ready.has(0) {
            self.accept(now);
        }
    }

    fn accept(&mut self, now: Millis) {
        while self.clients.len() < MAX_CLIENTS {
            let accepted = self.socket.accept().map_err(Error::from);
            let accepted = accepted.and_then(|(stream, _)| {
                set_nonblocking(stream.as_fd(), true)?;
                Ok(stream)
            });
            match accepted {
                Ok(stream) => self.clients.push(Client {
                    stream,
                    until: now + CLIENT_MS,
                    stage: Stage::Reading(Vec::new()),
                }),
                Err(error) if error.is(libc::EAGAIN) => return,
                Err(_) => {
                    // Perhaps too many open files. Pause, or the pending connection wakes the
                    // keeper all the time.
                    self.paused_until = now + FORK_RETRY_MS;
                    return;
                }
            }
        }
    }

    /// Returns whether a client waits for a status.
    pub fn has_pending_status(&self) -> bool {
        let waits = |client: &Client| matches!(client.stage, Stage::Pending { .. });
        self.clients.iter().any(waits)
    }

    /// Sends the status, as text or JSON, to all clients that wait for it.
    pub fn answer_status(&mut self, mut status: impl FnMut(bool) -> String) {
        self.clients.retain_mut(|client| match client.stage {
            Stage::Pending { json } => client.respond(OK, &status(json)),
            _ => true,
        });
    }
}

impl Client {
    /// Reads or writes without blocking. Returns `false` when the client is done.
    fn proceed(&mut self, answer: &mut dyn FnMut(Request) -> Option<String>) -> bool {
        match &mut self.stage {
            Stage::Pending { .. } => false,
            Stage::Writing(_) => self.write(),
            Stage::Reading(question) => {
                let mut buffer = [0u8; MAX_QUESTION];
                let length = match file::read(self.stream.as_fd(), &mut buffer) {
                    Ok(0) => return false,
                    Ok(length) => length,
                    Err(error) => return error.is(libc::EAGAIN),
                };
                question.extend_from_slice(buffer.get(..length).unwrap_or_default());
                let Some(end) = question.iter().position(|byte| *byte == b'\n') else {
                    return question.len() < MAX_QUESTION;
                };
                let question = question.get(..end).and_then(Request::parse);
                let json = matches!(question, Some(Request::Status { json: true }));
                match question.map(answer) {
                    Some(Some(text)) => self.respond("", &text),
                    Some(None) => {
                        self.stage = Stage::Pending { json };
                        true
                    }
                    None => self.respond(ERROR, "unknown request\n"),
                }
            }
        }
    }

    fn respond(&mut self, kind: &str, text: &str) -> bool {
        self.stage = Stage::Writing([kind, text].concat().into_bytes());
        self.write()
    }

    fn write(&mut self) -> bool {
        let Stage::Writing(rest) = &mut self.stage else {
            return true;
        };
        match file::write(self.stream.as_fd(), rest) {
            Ok(written) => {
                rest.drain(..written);
                !rest.is_empty()
            }
            Err(error) => error.is(libc::EAGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip_and_nothing_else_parses() {
        let close = |door: &str, source: &str| Request::Close {
            door: door.to_string(),
            source: source.parse().unwrap(),
        };
        for question in [
            Request::Status { json: false },
            Request::Status { json: true },
            close("SSH", "10.9.0.2"),
            close(" a  b ", "fd09::2"),
        ] {
            assert_eq!(Request::parse(question.line().as_bytes()), Some(question));
        }
        for line in [
            "",
            "status ",
            "STATUS",
            "close",
            "close SSH 10.9.0.2",
            "close 10.9.0.2",
        ] {
            assert_eq!(Request::parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(Request::parse(b"close 10.9.0.2 \xff"), None);
    }
}
