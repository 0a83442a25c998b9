//! The unprivileged process: packets in, records to the keeper out. It knows what opens each door, never what
//! opening means.
#![forbid(unsafe_code)]

mod follow;
mod output;
mod pace;

use crate::capture::filter;
use crate::capture::interfaces::{self, Interfaces, Selector};
use crate::capture::packet;
use crate::ipc::{Counter, Counters, Setup, ToKeeper, ToListener};
use crate::knock::Knock;
use crate::knock::tripwire::{self, Tripwire, Tripwires};
use crate::limits::{
    BATCH, LOG_BURST, MAX_INTERFACES, MAX_RECORD, PACKETS_AT_ONCE, REFRESH_PAUSE_MS,
    REFRESH_RETRY_MS, SCANNED_PER_SECOND, SETTLE_MS,
};
use crate::matcher::{Matcher, Rules};
use crate::sys::clock::monotonic;
use crate::sys::error::plain;
use crate::sys::file::read_file;
use crate::sys::message_socket::MessageSocket;
use crate::sys::netlink::Netlink;
use crate::sys::packet_socket::{Batch, PacketSocket};
use crate::sys::poll::{Awaits, PollEntry};
use crate::sys::program::ExitCode;
use crate::sys::{poll, privileges, program, random, seccomp};
use crate::util::bpf::Instruction;
use crate::util::time::Millis;
use crate::util::time::{NEVER, soonest};
use crate::util::token_bucket::TokenBucket;
use follow::Capture;
use output::{DoorState, Output, tell};
use pace::Pace;
use std::cell::Cell;
use std::ffi::CStr;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

/// The name that the keeper calls this program by, to make it a listener. Not `knockd`: `pidof knockd` is the keeper alone.
pub const PROGRAM: &CStr = c"knockd-listener";

/// The listener's whole life; standard input is its end of the socketpair.
pub fn main() -> ! {
    privileges::set_name(PROGRAM);
    let keeper = match program::input().as_fd().try_clone_to_owned() {
        Ok(socket) => MessageSocket::from_owned(socket),
        Err(_) => program::exit(ExitCode::FAILURE),
    };
    listen(&keeper)
}

/// Ends the process, and tells the keeper why.
fn refuse(keeper: &MessageSocket, why: String) -> ! {
    let _ = keeper.send(&ToKeeper::Refused(why).encode(), true);
    program::exit(ExitCode::FAILURE)
}

/// Text for a person about an error of the system.
fn told(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}")
}

/// The keeper is gone, has said `Stop`, or talks nonsense: there is nobody to listen for.
fn end() -> ! {
    program::exit(ExitCode::SUCCESS)
}

/// The next record, waited for; `None` when the keeper is gone or talks nonsense.
fn receive(keeper: &MessageSocket) -> Option<ToListener> {
    let mut buffer = [0u8; MAX_RECORD];
    let length = keeper.receive(&mut buffer, true).ok()?;
    ToListener::decode(buffer.get(..length)?)
}

/// Drawn anew by each listener. What listens is told by /proc while it can still be seen.
fn auto_tripwires() -> io::Result<Tripwires> {
    let mut services = Vec::new();
    for (file, state) in [
        ("/proc/net/tcp", "0A"),
        ("/proc/net/tcp6", "0A"),
        ("/proc/net/udp", "07"),
        ("/proc/net/udp6", "07"),
    ] {
        let text = read_file(Path::new(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        tripwire::add_ports_in_state(&text, state, &mut services);
    }
    // Two bytes for each draw, of two transports.
    let mut bytes = [0; 4 * tripwire::MAX_DRAWS];
    random::fill(&mut bytes)?;
    let mut draws = bytes.as_chunks().0.iter();
    Ok(Tripwires::auto(&services, || {
        draws
            .next()
            .map_or(0, |draw| u16::from_ne_bytes(*draw).into())
    }))
}

/// Takes the keeper's orders, opens what needs root, gives root away, and listens. The process ends here, so that nothing has to be dropped.
fn listen(keeper: &MessageSocket) -> ! {
    let Some(ToListener::Setup(Setup {
        doors: count,
        matching,
        max_attempts,
        tripwire,
        ban,
        only_ip_v4,
        verbose,
        debug,
        log_rate,
        wait_for_interfaces,
        interface,
    })) = receive(keeper)
    else {
        end();
    };
    let Some(ToListener::Sockets { numbers, shared }) = receive(keeper) else {
        end();
    };
    let mut doors = Vec::new();
    let mut patterns = Vec::new();
    for _ in 0..count {
        let Some(ToListener::Door { pattern, one_time }) = receive(keeper) else {
            end();
        };
        doors.push(DoorState {
            one_time,
            generation: 0,
            used: false,
        });
        patterns.push(pattern);
    }

    let mut listed = Vec::new();
    while matches!(tripwire, Tripwire::Ports(count) if listed.len() < usize::from(count)) {
        let Some(ToListener::Tripwires(ranges)) = receive(keeper) else {
            end();
        };
        listed.extend(ranges);
    }

    let selectors = Selector::list(&interface).unwrap_or_else(|why| refuse(keeper, why));
    let follows_routes = selectors.contains(&Selector::Auto);
    let sockets = numbers.into_iter().map(PacketSocket::inherited);
    let captures = selectors.into_iter().zip(sockets);
    let captures = captures.map(|(selector, socket)| Capture::new(selector, socket));
    let changes = Netlink::watch(follows_routes)
        .unwrap_or_else(|error| refuse(keeper, told("netlink", &error)));
    let netlink = Netlink::ask().unwrap_or_else(|error| refuse(keeper, told("netlink", &error)));
    let mut seed = [0; 8];
    random::fill(&mut seed).unwrap_or_else(|error| refuse(keeper, told("/dev/urandom", &error)));
    let release = read_file(Path::new("/proc/sys/kernel/osrelease")).unwrap_or_default();
    let kernel = filter::Kernel {
        vlan_tag_present: filter::knows_vlan_tag(&String::from_utf8_lossy(&release)),
    };

    let rules = Rules {
        matching,
        max_attempts: max_attempts.into(),
        tripwires: match tripwire {
            Tripwire::None => Tripwires::default(),
            Tripwire::Auto => auto_tripwires()
                .unwrap_or_else(|error| refuse(keeper, told("/dev/urandom", &error))),
            Tripwire::Ports(_) => Tripwires::listed(listed),
        },
        ban,
    };

    let now = monotonic();
    let output = Output {
        keeper,
        rate: TokenBucket::new(log_rate, LOG_BURST, now),
        scanned: TokenBucket::new(SCANNED_PER_SECOND, SCANNED_PER_SECOND, now),
        report_left_out: NEVER,
        verbose,
        debug,
        counters: Counters::default(),
        lost: Cell::new(false),
    };
    let warn = |parts: &[&str]| {
        let problem = ["warning: ", &parts.concat()].concat();
        output.surely(ToKeeper::Problem(problem));
    };
    let mut stays_root = None;
    if privileges::is_root() {
        match privileges::enter_cage() {
            Ok(()) => {}
            // There is no state folder, which the keeper has told.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => warn(&["the listener can see the file system: ", &plain(&error)]),
        }
        stays_root = privileges::become_unprivileged(privileges::LISTENER).err();
    }
    let dropped = privileges::drop_capabilities();
    if let Err(error) = &dropped {
        warn(&["the listener keeps its capabilities: ", &error.to_string()]);
    }
    // From here on all that it has open is sockets.
    privileges::close_outputs();
    privileges::limit_resources();
    // Kernels of routers have no seccomp; the process has no rights left anyway, unless it is root.
    let confined = seccomp::confine_listener([keeper.as_fd(), netlink.as_fd()]);
    if let Some(error) = stays_root {
        let problem = format!(
            "the listener cannot give up root: {error}; let knockd have CAP_SETUID and \
             CAP_SETGID, or start it as an ordinary user with CAP_NET_RAW"
        );
        // Without capabilities it could still open root's files, which seccomp keeps it from.
        if dropped.and(confined).is_err() {
            refuse(keeper, problem);
        }
        warn(&[&problem, " (seccomp alone confines it)"]);
    }
    let mut listener = Listener {
        keeper,
        captures: captures.collect(),
        changes,
        netlink,
        interfaces: Interfaces::default(),
        local: Vec::new(),
        program: Vec::new(),
        refreshed: now,
        refresh_due: NEVER,
        refresh_fails: false,
        tell_due: NEVER,
        matcher: Matcher::new(patterns, rules, u64::from_ne_bytes(seed)),
        doors,
        output,
        pace: Pace::default(),
        batch: Batch::default(),
        only_ip_v4,
        kernel,
        follows_routes,
        wait_for_interfaces,
        shared,
    };
    match listener.serve() {
        Ok(()) => end(),
        Err(why) => refuse(keeper, why),
    }
}

struct Listener<'a> {
    keeper: &'a MessageSocket,
    captures: Vec<Capture>,
    changes: Netlink,
    netlink: Netlink,
    interfaces: Interfaces,
    /// The addresses that count on each capture: those of all of them. A LAN's host may knock at the WAN address.
    local: Vec<IpAddr>,
    /// The filter of all captures; empty: it has to be made again.
    program: Vec<Instruction>,
    /// When the interfaces were looked at last, and when they must be again.
    refreshed: Millis,
    refresh_due: Millis,
    /// The last look has failed, which is told once.
    refresh_fails: bool,
    /// Where a capture is has changed; it is told then.
    tell_due: Millis,
    matcher: Matcher,
    doors: Vec<DoorState>,
    output: Output<'a>,
    pace: Pace,
    batch: Batch,
    only_ip_v4: bool,
    kernel: filter::Kernel,
    follows_routes: bool,
    wait_for_interfaces: bool,
    /// Another listener reads from the sockets until the keeper lets this one go.
    shared: bool,
}

impl<'a> Listener<'a> {
    /// Says that it is ready, and listens once the keeper lets it go.
    fn serve(&mut self) -> Result<(), String> {
        if self.shared {
            self.interfaces = self.look_around()?;
            for capture in &mut self.captures {
                capture.foresee(&self.interfaces);
            }
            self.refresh_due = self.refreshed;
        } else {
            self.refresh()?;
        }
        for capture in &mut self.captures {
            capture.tell_first(&self.interfaces, self.wait_for_interfaces, &self.output)?;
        }
        let listens = self.captures.iter().any(Capture::listens);
        self.output.surely(ToKeeper::Ready { listens });
        if self.output.lost.get() {
            // The keeper would never start it.
            return Ok(());
        }
        match receive(self.keeper) {
            Some(ToListener::Start) => self
                .run()
                .map_err(|error| format!("the listener cannot go on: {error}")),
            _ => Ok(()),
        }
    }

    /// Reads the interfaces anew and moves filters and sockets to where they belong now. An error is told after all sockets had their turn.
    fn refresh(&mut self) -> Result<(), String> {
        self.interfaces = self.look_around()?;
        let mut local = Vec::new();
        for capture in &mut self.captures {
            local.extend_from_slice(capture.look_at_addresses(&self.interfaces, &self.output));
        }
        if self.program.is_empty() || self.local != local {
            self.local = local;
            let (doors, tripwires) = (self.matcher.patterns(), self.matcher.tripwires());
            let filter =
                filter::compile(doors, tripwires, &self.local, self.kernel, self.only_ip_v4);
            self.program = filter.program;
            for capture in &mut self.captures {
                capture.has_filter = false;
            }
        }
        let mut result = Ok(());
        for capture in &mut self.captures {
            result = result.and(capture.follow(&self.interfaces, &self.program));
            if capture.is_late(&self.interfaces) {
                self.refresh_due = monotonic() + REFRESH_RETRY_MS;
            }
        }
        result
    }

    fn look_around(&self) -> Result<Interfaces, String> {
        Interfaces::read(&self.netlink, self.follows_routes)
            .map_err(|error| told("netlink", &error))
    }

    /// Follows the interfaces when that is due, and tells where they have settled: a redial is a dozen changes within a moment, and
    /// one line.
    fn follow(&mut self, now: Millis) {
        if self.refresh_due <= now {
            self.refreshed = now;
            self.refresh_due = NEVER;
            let refreshed = self.refresh();
            let failed_before = std::mem::replace(&mut self.refresh_fails, refreshed.is_err());
            if let Err(problem) = refreshed {
                if !failed_before {
                    let text = format!("error: {problem}; trying again each second");
                    self.output.surely(ToKeeper::Problem(text));
                }
                self.refresh_due = now + REFRESH_RETRY_MS;
            }
            if self.captures.iter().any(Capture::has_news) {
                self.tell_due = self.tell_due.min(now + SETTLE_MS);
            }
        }
        if self.tell_due <= now {
            self.tell_due = NEVER;
            for capture in &mut self.captures {
                capture.tell(&self.output);
            }
        }
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            if self.output.lost.get() {
                return Err("the keeper cannot be told".to_string());
            }
            let now = monotonic();
            self.expire(now);
            let deadlines = [
                self.matcher.next_expiry().unwrap_or(NEVER),
                self.output.report_left_out,
                self.refresh_due,
                self.tell_due,
            ];
            let ready = {
                let own = [self.keeper.as_fd(), self.changes.as_fd()];
                // There is room for all: Selector::list makes at most MAX_INTERFACES of the captures.
                let mut entries = heapless::Vec::<PollEntry<'_>, { MAX_INTERFACES + 2 }>::new();
                for fd in own.into_iter().chain(self.captures.iter().map(AsFd::as_fd)) {
                    let _ = entries.push(PollEntry::new(Some(fd), Awaits::Input));
                }
                poll::wait(&mut entries, now, soonest(&deadlines))
                    .map_err(|error| error.to_string())?
            };
            // It may have slept for days.
            let now = monotonic();
            if ready.has(0) && !self.obey() {
                return Ok(());
            }
            if ready.has(1) && self.changes.drain(&interfaces::matters) {
                let due = now.max(self.refreshed + REFRESH_PAUSE_MS);
                self.refresh_due = self.refresh_due.min(due);
            }
            self.follow(now);
            let mut packets = 0;
            for index in 0..self.captures.len() {
                if ready.has(2 + index) {
                    packets += self.read_packets(index);
                }
            }
            if let Some(pause) = self.pace.pause_after(packets, now) {
                poll::pause(pause);
            }
        }
    }

    /// Does what the keeper says. `false`: the keeper is gone or says `Stop`, or this is not the keeper.
    fn obey(&mut self) -> bool {
        let mut buffer = [0u8; MAX_RECORD];
        loop {
            let length = match self.keeper.receive(&mut buffer, false) {
                Ok(length) => length,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            };
            let (index, generation, sequence) =
                match buffer.get(..length).and_then(ToListener::decode) {
                    Some(ToListener::Sequence {
                        door,
                        generation,
                        sequence,
                    }) => (door, generation, sequence),
                    Some(ToListener::Report) => {
                        self.report();
                        continue;
                    }
                    _ => return false,
                };
            let Some(door) = self.doors.get_mut(usize::from(index)) else {
                return false;
            };
            door.generation = generation;
            self.matcher.set_sequence(index, sequence);
            self.program = Vec::new();
            self.refresh_due = 0;
        }
    }

    fn report(&mut self) {
        let Listener {
            captures, output, ..
        } = self;
        for capture in captures {
            if !capture.is_spare() {
                output.surely(ToKeeper::Interface(capture.report(&self.interfaces)));
            }
            output.counters[Counter::Dropped as usize] += u64::from(capture.dropped());
        }
        output.counters[Counter::Attempts as usize] = self.matcher.attempts() as u64;
        output.surely(ToKeeper::Counters(output.counters));
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

    /// Reads what waits in that socket, and returns how many packets that were.
    fn read_packets(&mut self, index: usize) -> u64 {
        let mut number = 0;
        while number < PACKETS_AT_ONCE {
            let Some(capture) = self.captures.get(index) else {
                break;
            };
            let Ok(received) = capture.receive(&mut self.batch) else {
                // ENETDOWN, told once when the interface goes down: packets come again when it is up.
                number += 1;
                continue;
            };
            let now = monotonic();
            (0..received).for_each(|packet| self.packet(index, packet, now));
            number += received as u64;
            if received < BATCH {
                break;
            }
        }
        number
    }

    /// One packet of the batch that was read from that socket.
    fn packet(&mut self, index: usize, number: usize, now: Millis) {
        let (Some(capture), Some((bytes, arrival))) =
            (self.captures.get(index), self.batch.packet(number))
        else {
            return;
        };
        let interface = arrival.interface;
        let Some(knock) = packet::decode(bytes) else {
            return;
        };
        let is_captured = |link| {
            self.captures
                .iter()
                .any(|capture| capture.is_bound_to(link))
        };
        // The packet of a bridge's port shows once more on the bridge: with both captured it counts there only.
        let mut again = self.interfaces.master(interface).is_some_and(is_captured);
        if arrival.is_for_other {
            // So does that of a macvlan's parent on the macvlan, whose MAC address it is for.
            let mut owners = self.interfaces.owners(knock.destination);
            again |= owners.any(|link| link != interface && (is_captured(link) || is_captured(0)));
        }
        if again
            || !capture.counts(interface, &self.interfaces)
            || !self.interfaces.can_send(knock.source, interface)
            || (self.only_ip_v4 && knock.source.is_ipv6())
        {
            return;
        }
        let local = self.local.contains(&knock.destination);
        self.knock(&knock, local, now);
    }

    fn knock(&mut self, knock: &Knock, local: bool, now: Millis) {
        let Listener {
            matcher,
            output,
            doors,
            ..
        } = self;
        output.counters[Counter::Knocks as usize] += 1;
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
