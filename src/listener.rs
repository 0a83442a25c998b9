//! The unprivileged process: packets in, records to the keeper out. It knows what opens each door, never what
//! opening means.
#![forbid(unsafe_code)]

use crate::door::{Knock, Millis};
use crate::interfaces::{Interfaces, Selector};
use crate::limits::{
    LEFT_OUT_REPORT_MS, MAX_INTERFACES, MAX_RECORD, PACKETS_AT_ONCE, REFRESH_RETRY_MS, SNAP_LENGTH,
};
use crate::log_rate::LogRate;
use crate::matcher::{Event, Matcher};
use crate::record::{Progress, ToKeeper, ToListener};
use crate::sys::clock::monotonic;
use crate::sys::netlink::Netlink;
use crate::sys::packet_socket::PacketSocket;
use crate::sys::record_socket::RecordSocket;
use crate::sys::{poll, privileges, seccomp, signals};
use crate::{filter, packet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;

/// The name that the keeper calls this program by, to make it a listener.
pub const PROGRAM: &str = "knockd: listener";

/// The listener's whole life; standard input is its end of the socketpair.
pub fn main() -> ExitCode {
    privileges::set_name(c"knockd");
    let keeper = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => RecordSocket::from_owned(socket),
        Err(_) => return ExitCode::FAILURE,
    };
    match listen(&keeper) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            let _ = keeper.send(&ToKeeper::Refused(refusal).encode(), true);
            ExitCode::FAILURE
        }
    }
}

/// Text for a person about an error of the system.
fn told(what: &str) -> impl Fn(io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

fn listen(keeper: &RecordSocket) -> Result<(), String> {
    signals::leave_to_keeper().map_err(told("signals"))?;
    let Some(mut listener) = Listener::set_up(keeper)? else {
        return Ok(());
    };
    listener.refresh(true)?;
    let _ = keeper.send(&ToKeeper::Ready.encode(), true);
    match receive(keeper) {
        Some(ToListener::Start) => {}
        _ => return Ok(()),
    }
    match listener.run() {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("the listener cannot go on: {error}")),
    }
}

/// The next record, waited for; `None` when the keeper is gone or talks nonsense.
fn receive(keeper: &RecordSocket) -> Option<ToListener> {
    let mut buffer = [0u8; MAX_RECORD];
    let length = keeper.receive(&mut buffer, true).ok()?;
    ToListener::decode(buffer.get(..length)?)
}

/// A packet socket and the interface that it is meant for.
struct Capture {
    selector: Selector,
    socket: PacketSocket,
    /// The index that the socket is bound to; 0 is all. `None` while there is no such interface.
    bound: Option<u32>,
    local: Vec<IpAddr>,
}

/// What the listener remembers of a door beside its pattern.
struct Door {
    one_time: bool,
    /// Counts the one-time sequences.
    generation: u32,
    /// Its one-time sequence was used, and the next one has not come yet.
    used: bool,
}

struct Listener<'a> {
    keeper: &'a RecordSocket,
    captures: heapless::Vec<Capture, MAX_INTERFACES>,
    changes: Netlink,
    netlink: Netlink,
    interfaces: Interfaces,
    /// The interfaces must be looked at again then.
    refresh_due: Option<Millis>,
    matcher: Matcher,
    doors: Vec<Door>,
    output: Output<'a>,
    only_ip_v4: bool,
    kernel: filter::Kernel,
    again: bool,
}

/// What goes to the keeper, and at which rate.
struct Output<'a> {
    keeper: &'a RecordSocket,
    rate: LogRate,
    report_left_out: Option<Millis>,
    verbose: bool,
    debug: bool,
}

impl Output<'_> {
    /// A record that may be lost, which is counted: when the keeper is busy, or there have been too many.
    fn line(&mut self, record: ToKeeper, now: Millis) {
        if self.rate.allow(now) && self.keeper.send(&record.encode(), false).is_err() {
            self.rate.left_out();
        }
        if self.rate.has_left_out() && self.report_left_out.is_none() {
            self.report_left_out = Some(now.saturating_add(LEFT_OUT_REPORT_MS));
        }
    }

    /// A record that must arrive: while the keeper is busy the knocks wait in the kernel.
    fn surely(&self, record: ToKeeper) {
        let _ = self.keeper.send(&record.encode(), true);
    }

    fn report(&mut self, now: Millis) {
        if self.report_left_out.is_some_and(|due| due <= now) {
            self.report_left_out = None;
            if let Some(lines) = self.rate.take_left_out() {
                self.surely(ToKeeper::LeftOut(lines));
            }
        }
    }
}

impl<'a> Listener<'a> {
    /// Takes the keeper's orders, opens what needs root, and gives root away. `None`: the keeper is gone.
    fn set_up(keeper: &'a RecordSocket) -> Result<Option<Listener<'a>>, String> {
        let Some(ToListener::Setup {
            doors: count,
            matching,
            only_ip_v4,
            verbose,
            debug,
            log_rate,
            again,
            interface,
            empty,
        }) = receive(keeper)
        else {
            return Ok(None);
        };
        let mut doors = Vec::new();
        let mut patterns = Vec::new();
        for _ in 0..count {
            let Some(ToListener::Door { pattern, one_time }) = receive(keeper) else {
                return Ok(None);
            };
            doors.push(Door {
                one_time,
                generation: 0,
                used: false,
            });
            patterns.push(pattern);
        }

        let selectors = Selector::list(&interface)?;
        let follows_routes = selectors.contains(&Selector::Auto);
        let mut captures = heapless::Vec::new();
        for selector in selectors {
            let socket = PacketSocket::open().map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => format!(
                    "{selector}: You don't have permission to perform this capture on that device \
                     (socket: Operation not permitted); run knockd as root or with CAP_NET_RAW"
                ),
                _ => format!("{selector}: {error}"),
            })?;
            let capture = Capture {
                selector,
                socket,
                bound: None,
                local: Vec::new(),
            };
            // Selector::list makes no more of them than there is room for.
            let _ = captures.push(capture);
        }
        let changes = Netlink::watch(follows_routes).map_err(told("netlink"))?;
        let netlink = Netlink::ask().map_err(told("netlink"))?;
        let seed = RandomState::new().hash_one(0);
        let release = std::fs::read("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = filter::Kernel {
            vlan_tag_present: filter::knows_vlan_tag(&String::from_utf8_lossy(&release)),
        };

        let mut notices = Vec::new();
        if privileges::is_root()
            && let Err(error) = privileges::drop_root(Path::new(&empty))
        {
            notices.push(format!("error: the listener keeps root: {error}"));
        }
        // Kernels of routers have no seccomp; the process has no rights left anyway.
        let _ = seccomp::confine();

        let now = monotonic();
        let output = Output {
            keeper,
            rate: LogRate::new(log_rate, now),
            report_left_out: None,
            verbose,
            debug,
        };
        for notice in notices {
            output.surely(ToKeeper::Notice(notice));
        }
        Ok(Some(Listener {
            keeper,
            captures,
            changes,
            netlink,
            interfaces: Interfaces::default(),
            refresh_due: None,
            matcher: Matcher::new(patterns, matching, seed),
            doors,
            output,
            only_ip_v4,
            kernel,
            again,
        }))
    }

    /// Reads the interfaces anew and moves filters and sockets to where they belong now. At the `first` time a name that no
    /// interface has is refused; later it is waited for: a PPP link comes and goes.
    fn refresh(&mut self, first: bool) -> Result<(), String> {
        self.interfaces = Interfaces::read(&self.netlink).map_err(told("netlink"))?;
        for capture in &mut self.captures {
            let selector = &capture.selector.clone();
            let index = match selector {
                Selector::Any => Some(0),
                _ => self.interfaces.find(selector).map(|link| link.index),
            };
            if index.is_none() && first && !self.again && matches!(selector, Selector::Named { .. })
            {
                return Err(format!(
                    "{selector}: No such device exists; the interfaces here are: {}",
                    self.interfaces.names()
                ));
            }
            let local = self.interfaces.local(selector);
            if first || local != capture.local {
                if self.output.debug {
                    for address in &local {
                        self.output
                            .surely(ToKeeper::Debug(format!("local IP: {address}")));
                    }
                }
                if local.is_empty() && index.is_some() {
                    self.output.surely(ToKeeper::Notice(format!(
                        "{selector} has no address yet: only doors with a target can be knocked at"
                    )));
                }
                capture.local = local;
                attach(capture, &self.matcher, self.only_ip_v4, self.kernel)?;
            }
            if capture.bound == index {
                continue;
            }
            let name = |index| {
                let link = self
                    .interfaces
                    .links
                    .iter()
                    .find(|link| Some(link.index) == index);
                link.map_or(String::new(), |link| link.name.to_string())
            };
            match index {
                Some(index) => {
                    // The interface may be gone again already: then the next notice says so.
                    if let Err(error) = capture.socket.bind(index)
                        && first
                        && !self.again
                    {
                        return Err(format!("{selector}: {error}"));
                    }
                    if !first || *selector == Selector::Auto {
                        self.output.surely(ToKeeper::Notice(format!(
                            "{selector}: listening on {}",
                            name(Some(index))
                        )));
                    }
                }
                None => self.output.surely(ToKeeper::Notice(match selector {
                    Selector::Auto => "auto: no default route: waiting for one".to_string(),
                    _ => format!("{selector} is gone: waiting for it"),
                })),
            }
            capture.bound = index;
        }
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let now = monotonic();
            self.expire(now);
            let deadline = [
                self.matcher.next_expiry(),
                self.output.report_left_out,
                self.refresh_due,
            ];
            let ready = {
                let mut descriptors: heapless::Vec<BorrowedFd<'_>, { MAX_INTERFACES + 2 }> =
                    heapless::Vec::new();
                // There is room for all: the captures are at most MAX_INTERFACES.
                let _ = descriptors.push(self.keeper.as_fd());
                let _ = descriptors.push(self.changes.as_fd());
                for capture in &self.captures {
                    let _ = descriptors.push(capture.socket.as_fd());
                }
                poll::wait(&descriptors, now, deadline.into_iter().flatten().min())?
            };
            if ready.first() == Some(&true) && !self.obey() {
                return Ok(());
            }
            if ready.get(1) == Some(&true) {
                self.changes.drain();
                self.refresh_due = Some(now);
            }
            if self.refresh_due.is_some_and(|due| due <= now) {
                self.refresh_due = None;
                if let Err(problem) = self.refresh(false) {
                    self.output
                        .surely(ToKeeper::Notice(format!("error: {problem}; trying again")));
                    self.refresh_due = Some(now.saturating_add(REFRESH_RETRY_MS));
                }
            }
            for (index, _) in ready
                .iter()
                .skip(2)
                .enumerate()
                .filter(|(_, ready)| **ready)
            {
                self.read_packets(index);
            }
        }
    }

    /// Does what the keeper says. `false`: the keeper is gone, or this is not the keeper.
    fn obey(&mut self) -> bool {
        let mut buffer = [0u8; MAX_RECORD];
        loop {
            let length = match self.keeper.receive(&mut buffer, false) {
                Ok(length) => length,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            };
            let Some(ToListener::Sequence {
                door: index,
                generation,
                sequence,
            }) = buffer.get(..length).and_then(ToListener::decode)
            else {
                return false;
            };
            let Some(door) = self.doors.get_mut(usize::from(index)) else {
                return false;
            };
            door.generation = generation;
            self.matcher.set_sequence(index, sequence);
            for capture in &mut self.captures {
                if let Err(problem) = attach(capture, &self.matcher, self.only_ip_v4, self.kernel) {
                    self.output
                        .surely(ToKeeper::Notice(format!("error: {problem}")));
                }
            }
        }
    }

    fn expire(&mut self, now: Millis) {
        if self.matcher.next_expiry().is_some_and(|due| due <= now) {
            let Listener {
                matcher,
                output,
                doors,
                ..
            } = self;
            matcher.expire(now, &mut |event| {
                tell(event, output, doors, now);
            });
        }
        self.output.report(now);
    }

    fn read_packets(&mut self, index: usize) {
        let mut buffer = [0u8; SNAP_LENGTH];
        for _ in 0..PACKETS_AT_ONCE {
            let Some(capture) = self.captures.get(index) else {
                return;
            };
            let (length, interface) = match capture.socket.receive(&mut buffer) {
                Ok(Some(packet)) => packet,
                Ok(None) => return,
                // ENETDOWN, told once when the interface goes down: packets come again when it is up.
                Err(_) => continue,
            };
            let Some(knock) = buffer.get(..length).and_then(packet::decode) else {
                continue;
            };
            let counts = match capture.bound {
                Some(0) => self.interfaces.counts_under_any(interface),
                bound => bound == Some(interface),
            };
            if !counts || (self.only_ip_v4 && knock.source.is_ipv6()) {
                continue;
            }
            let local = capture.local.contains(&knock.destination);
            self.knock(&knock, local);
        }
    }

    fn knock(&mut self, knock: &Knock, local: bool) {
        let now = monotonic();
        self.expire(now);
        let Listener {
            matcher,
            output,
            doors,
            ..
        } = self;
        if output.debug {
            output.line(ToKeeper::Seen(*knock), now);
        }
        let mut used = false;
        matcher.knock(knock, local, now, &mut |event| {
            used |= tell(event, output, doors, now)
        });
        if used {
            for (index, door) in (0..).zip(&mut self.doors) {
                if std::mem::take(&mut door.used) {
                    self.matcher.set_sequence(index, None);
                }
            }
        }
    }
}

/// Gives the socket the filter that fits its addresses and the doors of this moment.
fn attach(
    capture: &mut Capture,
    matcher: &Matcher,
    only_ip_v4: bool,
    kernel: filter::Kernel,
) -> Result<(), String> {
    let compiled = filter::compile(matcher.patterns(), &capture.local, kernel, only_ip_v4);
    capture.socket.attach(&compiled.program).map_err(|error| {
        format!(
            "{}: the kernel refused a new filter, the old one stays: {error}",
            capture.selector
        )
    })
}

/// Tells the keeper. Returns whether a one-time sequence was used.
fn tell(event: Event, output: &mut Output<'_>, doors: &mut [Door], now: Millis) -> bool {
    let progress = |door, source, stage| Progress {
        door,
        source,
        stage,
    };
    match event {
        Event::Stage {
            door,
            source,
            stage,
        } => {
            output.line(ToKeeper::Stage(progress(door, source, stage)), now);
        }
        Event::TimedOut {
            door,
            source,
            stage,
        } => {
            output.line(ToKeeper::TimedOut(progress(door, source, stage)), now);
        }
        Event::Failed {
            door,
            source,
            stage,
        } if output.verbose => {
            output.line(ToKeeper::Failed(progress(door, source, stage)), now);
        }
        Event::Failed { .. } => {}
        Event::Opened { door, source } => {
            let Some(opened) = doors.get_mut(usize::from(door)) else {
                return false;
            };
            opened.used = opened.one_time;
            let generation = opened.generation;
            output.surely(ToKeeper::Opened {
                door,
                source,
                generation,
            });
            return opened.one_time;
        }
    }
    false
}
