//! The keeper's side of the listener: starting it, giving it the doors, restarting it when it dies.
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

/// A listener that lives.
pub struct ListenerProcess {
    socket: MessageSocket,
    process: Pid,
    /// What it reads packets from. They are open here as well, so that the listener of a reload goes on where this one stops: each packet
    /// is read once. The keeper itself reads none.
    sockets: Vec<PacketSocket>,
    /// Its process was reaped: the number may be somebody else's now.
    ended: bool,
    /// When it was started.
    pub started: Millis,
    /// It has sent much at once: nothing more is read before this time.
    pub paused_until: Millis,
}

/// How far a listener that was started has come.
pub enum Startup {
    /// It has said nothing new.
    Pending,
    /// A line for the log.
    Log(ToKeeper),
    /// It may be [`start_capture`](ListenerProcess::start_capture). Whether an interface is there.
    Ready(bool),
    /// It cannot listen: why.
    Refused(String),
    /// It has ended, or sent what no honest one sends.
    Dead,
}

/// What came from a listener.
pub enum Received {
    /// A record.
    Record(ToKeeper),
    /// Nothing now.
    Nothing,
    /// It has ended.
    End,
    /// Something that no honest listener sends.
    Malformed,
}

impl ListenerProcess {
    /// Starts one for these doors, whose generations begin anew. `wait_for_interfaces`: those that are not there are waited for. `before`: the
    /// listener whose packet sockets it takes over.
    pub fn start(
        settings: &Settings,
        options: &Options,
        doors: &mut [DoorRuntime],
        state: Option<&StateDir>,
        wait_for_interfaces: bool,
        before: Option<&ListenerProcess>,
    ) -> Result<ListenerProcess, String> {
        let selectors = Selector::list(settings.interface(options)).unwrap_or_default();
        // As it is meant: the text in the config may be too long for a record.
        let mut interface = String::new();
        for selector in &selectors {
            // `auto` is read as two.
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
        let cage = state.map(StateDir::empty_directory);
        let (socket, process) = process::spawn(listener::PROGRAM, cage, &more)?;
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

    /// That child was reaped. Returns whether it was this one.
    pub fn child_ended(&mut self, process: Pid) -> bool {
        self.ended |= self.process == process;
        self.process == process
    }

    /// Sends a record. The listener reads all the time, so one that does not take it is as good as dead.
    pub fn send(&self, record: ToListener) -> Result<()> {
        self.send_record(record, false)
    }

    /// The same, and waits for room if `wait`: one that starts may need a while.
    fn send_record(&self, record: ToListener, wait: bool) -> Result<()> {
        self.socket.send(&record.encode(), wait)
    }

    /// Lets one that is ready read packets. One that does not take the word would be deaf for ever: it is ended, and its end starts
    /// another like any end.
    pub fn start_capture(&self) {
        if self.send(ToListener::Start).is_err() {
            self.kill();
        }
    }

    /// What to wait for: its socket, unless it pauses.
    pub fn awaited(&self) -> Option<BorrowedFd<'_>> {
        (self.paused_until == NEVER).then(|| self.as_fd())
    }

    /// Ends it. Returns whether it is about to end.
    pub fn kill(&self) -> bool {
        self.ended || exec::kill(self.process).is_ok()
    }

    /// Kills it. Returns the process, which is to be reaped then, unless it was already.
    pub fn close(self) -> Option<Pid> {
        (!self.ended).then_some(self.process)
    }

    /// What one that is not ready yet says next, without waiting.
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

    /// The next record, without waiting. One whose process was reaped has ended when nothing of it is left, also where another process, which
    /// it has made, keeps its socket open.
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

/// When a listener that died is started again: at once the first time, slower if it keeps dying.
#[derive(Debug)]
pub struct Restart {
    delay: Millis,
    /// When the next one is due.
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
    /// A listener that was started then has died now.
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
            "it lived for long: at once again"
        );
    }
}
