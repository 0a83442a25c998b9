//! The keeper's side of the listener process: starts it, sends it the doors, and restarts it.
#![forbid(unsafe_code)]

use super::doors::DoorRuntime;
use super::state::StateDir;
use super::{Settings, process};
use crate::capture::interfaces::Selector;
use crate::config::Options;
use crate::ipc::{RANGES_AT_ONCE, Setup, ToKeeper, ToListener};
use crate::knock::tripwire::Tripwire;
use crate::limits::{MAX_RECORD, MAX_RESTART_DELAY_MS};
use crate::listener;
use crate::sys::clock::monotonic;
use crate::sys::error::{Error, Result};
use crate::sys::exec;
use crate::sys::message_socket::MessageSocket;
use crate::sys::packet_socket::PacketSocket;
use crate::util::process::Pid;
use crate::util::text::shown;
use crate::util::time::Millis;
use crate::util::time::NEVER;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A running listener.
pub struct ListenerProcess {
    socket: MessageSocket,
    process: Pid,
    /// Its packet sockets. They are open in the keeper as well, so that a reload's listener
    /// continues where this one stops: each packet is read once. The keeper itself reads none.
    sockets: Vec<PacketSocket>,
    /// It was reaped: the PID may be another process's now.
    ended: bool,
    /// When it was started.
    pub started: Millis,
    /// It has sent many records at once: do not read more before this time.
    pub paused_until: Millis,
}

/// The next step of a starting listener.
pub enum Startup {
    /// No new record.
    Pending,
    /// A line for the log.
    Log(ToKeeper),
    /// It is ready for [`start_capture`](ListenerProcess::start_capture). Whether it listens on an
    /// interface.
    Ready(bool),
    /// It cannot listen, for this reason.
    Refused(String),
    /// It has died or sent a malformed record.
    Dead,
}

/// The result of reading from a listener.
pub enum Received {
    /// A record.
    Record(ToKeeper),
    /// No record yet.
    Nothing,
    /// It has exited.
    End,
    /// A malformed record.
    Malformed,
}

impl ListenerProcess {
    /// Starts a listener for these doors and resets their generations to 0. With
    /// `wait_for_interfaces` it waits for interfaces that do not exist. It takes over the packet
    /// sockets of `before`.
    pub fn start(
        settings: &Settings,
        options: &Options,
        doors: &mut [DoorRuntime],
        state: Option<&StateDir>,
        wait_for_interfaces: bool,
        before: Option<&ListenerProcess>,
    ) -> Result<ListenerProcess, String> {
        let selectors = Selector::list(settings.interface(options)).unwrap_or_default();
        // The canonical list: the text in the config may be too long for a record.
        let mut interface = String::new();
        for selector in &selectors {
            // `auto` is parsed into two selectors.
            if *selector != Selector::AutoIpv6 {
                let before = if interface.is_empty() { "" } else { "," };
                interface.push_str(before);
                interface.push_str(selector.name());
            }
        }
        let mut sockets = Vec::new();
        for selector in &selectors {
            let socket = match before.and_then(|before| before.sockets.get(sockets.len())) {
                Some(socket) => socket.try_clone(),
                None => PacketSocket::open(),
            };
            sockets.push(socket.map_err(|error| refused(selector, error))?);
        }
        let more: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
        let empty_dir = state.map(StateDir::empty_directory);
        let (socket, process) = process::spawn(listener::PROGRAM, empty_dir, &more)?;
        let numbers = more.iter().map(|fd| fd.as_raw_fd() as u32).collect();
        let started = monotonic();
        let listener = ListenerProcess {
            socket,
            process,
            sockets,
            ended: false,
            started,
            paused_until: NEVER,
        };
        let send = |record| listener.send_record(record, true);
        let none = Vec::new();
        let (tripwire, ranges) = match &options.tripwire {
            Tripwire::None => (Tripwire::None, &none),
            Tripwire::Auto => (Tripwire::Auto, &none),
            Tripwire::Ports(ranges) => (Tripwire::Ports(ranges.len() as u16), ranges),
        };
        send(ToListener::Setup(Setup {
            doors: doors.len() as u16,
            matching: options.matching(),
            max_attempts: options.max_attempts as u16,
            tripwire,
            ban: options.bans.rule(),
            only_ip_v4: settings.args.only_ip_v4,
            verbose: settings.args.verbose || settings.args.debug,
            debug: settings.args.debug,
            log_rate: options.log_rate,
            wait_for_interfaces,
            interface,
        }))?;
        send(ToListener::Sockets {
            numbers,
            shared: before.is_some(),
        })?;
        for door in doors {
            door.generation = 0;
            let pattern = door.config.pattern(door.sequence().cloned());
            send(ToListener::Door {
                pattern,
                one_time: door.is_one_time(),
            })?;
        }
        for ranges in ranges.chunks(RANGES_AT_ONCE) {
            send(ToListener::Tripwires(ranges.to_vec()))?;
        }
        Ok(listener)
    }

    /// Notes that a child was reaped. Returns whether it was this listener.
    pub fn child_ended(&mut self, process: Pid) -> bool {
        self.ended |= self.process == process;
        self.process == process
    }

    /// Sends a record. A listener always reads, so if the record does not fit, treat the listener
    /// as dead.
    pub fn send(&self, record: ToListener) -> Result<()> {
        self.send_record(record, false)
    }

    /// Sends a record and, with `wait`, waits for buffer space: a starting listener may need time.
    fn send_record(&self, record: ToListener, wait: bool) -> Result<()> {
        self.socket.send(&record.encode(), wait)
    }

    /// Makes a ready listener read packets. Kills it if it does not accept the record, because it
    /// would never read any; its death starts another.
    pub fn start_capture(&self) {
        if self.send(ToListener::Start).is_err() {
            self.kill();
        }
    }

    /// Returns the socket to poll, or `None` during a pause.
    pub fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        (self.paused_until == NEVER).then(|| self.as_fd())
    }

    /// Kills it. Returns whether it is about to exit.
    pub fn kill(&self) -> bool {
        self.ended || exec::kill(self.process).is_ok()
    }

    /// Kills it. Returns the PID to reap, unless it was reaped already.
    pub fn close(self) -> Option<Pid> {
        (!self.ended).then_some(self.process)
    }

    /// Reads a starting listener's next record without blocking.
    pub fn poll_startup(&self) -> Startup {
        match self.receive() {
            Received::Nothing => Startup::Pending,
            Received::Record(ToKeeper::Ready { listens }) => Startup::Ready(listens),
            Received::Record(ToKeeper::Refused(problem)) => Startup::Refused(problem),
            Received::Record(
                record @ (ToKeeper::Problem(_) | ToKeeper::Notice(_) | ToKeeper::Debug(_)),
            ) => Startup::Log(record),
            _ => Startup::Dead,
        }
    }

    /// Reads the next record without blocking. After the process was reaped, an empty socket means
    /// that it has exited, even if a child of it keeps the socket open.
    pub fn receive(&self) -> Received {
        let mut buffer = [0u8; MAX_RECORD];
        match self.socket.receive(&mut buffer, false) {
            Ok(0) => Received::End,
            Ok(length) => match buffer.get(..length).and_then(ToKeeper::decode) {
                Some(record) => Received::Record(record),
                None => Received::Malformed,
            },
            Err(error) if error.is(libc::EAGAIN) && !self.ended => Received::Nothing,
            Err(_) => Received::End,
        }
    }
}

impl Drop for ListenerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

impl AsFd for ListenerProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn refused(selector: &Selector, error: Error) -> String {
    let why = match error {
        Error::Os(libc::EPERM | libc::EACCES) => {
            "You don't have permission to perform this capture on that device \
             (socket: Operation not permitted); run knockd as root or with CAP_NET_RAW"
        }
        _ => &shown(&error),
    };
    [selector.name(), ": ", why].concat()
}

/// When to restart a dead listener: at once the first time, later if it keeps dying.
#[derive(Debug)]
pub struct Restart {
    delay: Millis,
    /// When to start the next listener.
    pub due: Millis,
}

impl Default for Restart {
    fn default() -> Restart {
        Restart {
            delay: 0,
            due: NEVER,
        }
    }
}

impl Restart {
    /// Notes that the listener started at `started` has died.
    pub fn after_death(&mut self, started: Millis, now: Millis) {
        if now.saturating_sub(started) > MAX_RESTART_DELAY_MS {
            self.delay = 0;
        }
        self.due = now + self.delay;
        self.delay = (self.delay * 2).clamp(1000, MAX_RESTART_DELAY_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_at_once_first_and_then_slower_up_to_a_minute() {
        let mut restart = Restart::default();
        let delays: Vec<Millis> = (0..9)
            .map(|_| {
                restart.after_death(0, 0);
                restart.due
            })
            .collect();
        assert_eq!(
            delays,
            [0, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
        );
        restart.after_death(0, MAX_RESTART_DELAY_MS + 1);
        assert_eq!(
            restart.due,
            MAX_RESTART_DELAY_MS + 1,
            "a listener that lived long is restarted at once"
        );
    }
}
