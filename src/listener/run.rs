//! The listener's loop: follows the interfaces and passes packets to the matcher.
#![forbid(unsafe_code)]

use super::follow::Capture;
use super::output::{DoorState, Output, send_event};
use super::pace::Pace;
use super::{receive, with_context};
use crate::capture::filter;
use crate::capture::interfaces::{self, Interfaces};
use crate::capture::packet;
use crate::ipc::{Counter, ToKeeper, ToListener};
use crate::knock::Knock;
use crate::limits::{
    BATCH, MAX_INTERFACES, MAX_RECORD, PACKETS_AT_ONCE, REFRESH_PAUSE_MS, REFRESH_RETRY_MS,
    SETTLE_MS,
};
use crate::matcher::Matcher;
use crate::sys::clock::monotonic;
use crate::sys::message_socket::MessageSocket;
use crate::sys::netlink::Netlink;
use crate::sys::packet_socket::{Batch, InterfaceIndex};
use crate::sys::poll;
use crate::sys::poll::{Interest, PollEntry};
use crate::util::bpf::Instruction;
use crate::util::time::Millis;
use crate::util::time::{NEVER, soonest};
use std::net::IpAddr;
use std::os::fd::AsFd;

pub(super) struct Listener<'a> {
    pub keeper: &'a MessageSocket,
    pub captures: Vec<Capture>,
    pub changes: Netlink,
    pub netlink: Netlink,
    pub interfaces: Interfaces,
    /// The addresses that count on every capture: those of all captured interfaces, because a host
    /// on the LAN may knock at the WAN address.
    pub local: Vec<IpAddr>,
    /// The filter of all captures; empty if it must be rebuilt.
    pub program: Vec<Instruction>,
    /// The time of the last refresh of the interfaces, and of the next.
    pub refreshed: Millis,
    pub refresh_due: Millis,
    /// The last refresh failed; only the first failure is reported.
    pub refresh_fails: bool,
    /// When the changed location of a capture is reported.
    pub report_due: Millis,
    pub matcher: Matcher,
    pub doors: Vec<DoorState>,
    pub output: Output<'a>,
    pub pace: Pace,
    pub batch: Batch,
    pub only_ip_v4: bool,
    pub kernel: filter::Kernel,
    pub follows_routes: bool,
    pub wait_for_interfaces: bool,
    /// Another listener reads from the sockets until the keeper sends `Start`.
    pub shared: bool,
}

impl<'a> Listener<'a> {
    /// Reports that it is ready and, after the keeper's `Start`, listens.
    pub fn serve(&mut self) -> Result<(), String> {
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
            capture.report_start(&self.interfaces, self.wait_for_interfaces, &self.output)?;
        }
        let listens = self.captures.iter().any(Capture::listens);
        self.output.send_reliable(ToKeeper::Ready { listens });
        if self.output.lost.get() {
            // The keeper would never send `Start`.
            return Ok(());
        }
        match receive(self.keeper) {
            Some(ToListener::Start) => self.run(),
            _ => Ok(()),
        }
    }

    /// Reads the interfaces again and moves filters and sockets to them. Returns the first error
    /// after it has tried all sockets.
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
            if capture.needs_rebind(&self.interfaces) {
                self.refresh_due = monotonic() + REFRESH_RETRY_MS;
            }
        }
        result
    }

    fn look_around(&self) -> Result<Interfaces, String> {
        Interfaces::read(&self.netlink, self.follows_routes)
            .map_err(|error| with_context("netlink", error))
    }

    /// Refreshes the interfaces when that is due, and reports where they have settled: a redial is
    /// a dozen changes within a moment, and should be one line.
    fn follow(&mut self, now: Millis) {
        if self.refresh_due <= now {
            self.refreshed = now;
            self.refresh_due = NEVER;
            let refreshed = self.refresh();
            let failed_before = std::mem::replace(&mut self.refresh_fails, refreshed.is_err());
            if let Err(problem) = refreshed {
                if !failed_before {
                    let text = ["error: ", &problem, "; trying again each second"].concat();
                    self.output.send_reliable(ToKeeper::Problem(text));
                }
                self.refresh_due = now + REFRESH_RETRY_MS;
            }
            if self.captures.iter().any(Capture::location_changed) {
                self.report_due = self.report_due.min(now + SETTLE_MS);
            }
        }
        if self.report_due <= now {
            self.report_due = NEVER;
            for capture in &mut self.captures {
                capture.report_location(&self.output);
            }
        }
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            if self.output.lost.get() {
                return Err("the listener cannot reach the keeper".to_string());
            }
            let now = monotonic();
            self.expire(now);
            let deadlines = [
                self.matcher.next_expiry().unwrap_or(NEVER),
                self.output.report_left_out,
                self.refresh_due,
                self.report_due,
            ];
            let ready = {
                let own = [self.keeper.as_fd(), self.changes.as_fd()];
                // Never full: Selector::list returns at most MAX_INTERFACES.
                let mut entries = heapless::Vec::<PollEntry<'_>, { MAX_INTERFACES + 2 }>::new();
                for fd in own.into_iter().chain(self.captures.iter().map(AsFd::as_fd)) {
                    let _ = entries.push(PollEntry::new(Some(fd), Interest::Readable));
                }
                poll::wait(&mut entries, now, soonest(&deadlines))
                    .map_err(|error| with_context("poll", error))?
            };
            // The poll may have slept for days.
            let now = monotonic();
            if ready.has(0) && !self.handle_records() {
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

    /// Handles the keeper's records. Returns `false` if the keeper has ended, sent `Stop`, or sent
    /// something malformed.
    fn handle_records(&mut self) -> bool {
        let mut buffer = [0u8; MAX_RECORD];
        loop {
            let length = match self.keeper.receive(&mut buffer, false) {
                Ok(length) => length,
                Err(error) => return error.is(libc::EAGAIN),
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
                output.send_reliable(ToKeeper::Interface(capture.report(&self.interfaces)));
            }
            output.counters[Counter::Dropped as usize] += u64::from(capture.dropped());
        }
        output.counters[Counter::Attempts as usize] = self.matcher.attempts() as u64;
        output.send_reliable(ToKeeper::Counters(output.counters));
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
                send_event(event, output, doors, now);
            });
        }
        self.output.report(now);
    }

    /// Reads the waiting packets of one socket. Returns their number.
    fn read_packets(&mut self, index: usize) -> u64 {
        let mut number = 0;
        while number < PACKETS_AT_ONCE {
            let Some(capture) = self.captures.get(index) else {
                break;
            };
            let Ok(received) = capture.receive(&mut self.batch) else {
                // ENETDOWN, reported once when the interface goes down. Packets arrive again when
                // it is up.
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

    /// Handles one packet of the batch that was read from that socket.
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
        // A packet through a bridge port appears again on the bridge: if both are captured it
        // counts only there.
        let mut again = self.interfaces.master(interface).is_some_and(is_captured);
        if arrival.is_for_other {
            // A packet through a macvlan's parent appears again on the macvlan if it has that MAC
            // address.
            let mut owners = self.interfaces.owners(knock.destination);
            again |= owners.any(|link| {
                link != interface && (is_captured(link) || is_captured(InterfaceIndex::ANY))
            });
        }
        if again
            || !capture.accepts(interface, &self.interfaces)
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
            output.send_lossy(ToKeeper::Seen(*knock), now);
        }
        let mut used = false;
        matcher.knock(knock, local, now, &mut |event| {
            used |= send_event(event, output, doors, now)
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
