//! The listener's loop: follows the interfaces, and takes packets to the matcher.
#![forbid(unsafe_code)]

use super::follow::Capture;
use super::output::{DoorState, Output, tell};
use super::pace::Pace;
use super::{receive, told};
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
use crate::sys::poll::{Awaits, PollEntry};
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
    /// The addresses that count on each capture: those of all of them. A LAN's host may knock at the WAN address.
    pub local: Vec<IpAddr>,
    /// The filter of all captures; empty: it has to be made again.
    pub program: Vec<Instruction>,
    /// When the interfaces were looked at last, and when they must be again.
    pub refreshed: Millis,
    pub refresh_due: Millis,
    /// The last refresh failed; the failure is reported once.
    pub refresh_fails: bool,
    /// When the changed location of a capture is reported.
    pub tell_due: Millis,
    pub matcher: Matcher,
    pub doors: Vec<DoorState>,
    pub output: Output<'a>,
    pub pace: Pace,
    pub batch: Batch,
    pub only_ip_v4: bool,
    pub kernel: filter::Kernel,
    pub follows_routes: bool,
    pub wait_for_interfaces: bool,
    /// Another listener reads from the sockets until the keeper lets this one go.
    pub shared: bool,
}

impl<'a> Listener<'a> {
    /// Says that it is ready, and listens once the keeper lets it go.
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
            capture.tell_first(&self.interfaces, self.wait_for_interfaces, &self.output)?;
        }
        let listens = self.captures.iter().any(Capture::listens);
        self.output.surely(ToKeeper::Ready { listens });
        if self.output.lost.get() {
            // The keeper would never start it.
            return Ok(());
        }
        match receive(self.keeper) {
            Some(ToListener::Start) => self.run(),
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
        Interfaces::read(&self.netlink, self.follows_routes).map_err(|error| told("netlink", error))
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
                    let text = ["error: ", &problem, "; trying again each second"].concat();
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
                return Err("the listener cannot reach the keeper".to_string());
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
                    .map_err(|error| told("poll", error))?
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
            again |= owners.any(|link| {
                link != interface && (is_captured(link) || is_captured(InterfaceIndex::ANY))
            });
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
