//! The listener's start: receives the setup, opens what needs root, and drops all privileges.
#![forbid(unsafe_code)]

use super::follow::Capture;
use super::output::{DoorState, Output};
use super::pace::Pace;
use super::run::Listener;
use super::{PROGRAM, receive, with_context};
use crate::capture::filter;
use crate::capture::interfaces::{Interfaces, Selector};
use crate::ipc::{Counters, Setup, ToKeeper, ToListener};
use crate::knock::tripwire::{self, Tripwire, Tripwires};
use crate::limits::{LOG_BURST, SCANNED_PER_SECOND};
use crate::matcher::{Matcher, Rules};
use crate::sys::clock::monotonic;
use crate::sys::error::Result;
use crate::sys::file::read_file;
use crate::sys::message_socket::MessageSocket;
use crate::sys::netlink::Netlink;
use crate::sys::packet_socket::{Batch, PacketSocket};
use crate::sys::program::ExitCode;
use crate::sys::{privileges, program, random, seccomp};
use crate::util::text::shown;
use crate::util::time::NEVER;
use crate::util::token_bucket::TokenBucket;
use std::cell::Cell;
use std::os::fd::AsFd;
use std::path::Path;

/// Runs the listener. Standard input is its end of the socketpair.
pub fn main() -> ! {
    privileges::set_name(PROGRAM);
    let keeper = match program::input().as_fd().try_clone_to_owned() {
        Ok(socket) => MessageSocket::from_owned(socket),
        Err(_) => program::exit(ExitCode::FAILURE),
    };
    listen(&keeper)
}

/// Sends the reason to the keeper and exits.
fn refuse(keeper: &MessageSocket, why: String) -> ! {
    let _ = keeper.send(&ToKeeper::Refused(why).encode(), true);
    program::exit(ExitCode::FAILURE)
}

/// Exits: the keeper has ended, sent `Stop`, or sent a malformed record.
fn end() -> ! {
    program::exit(ExitCode::SUCCESS)
}

/// Draws random tripwires for this listener. Reads the listening ports from /proc while it is still
/// visible.
fn auto_tripwires() -> Result<Tripwires> {
    let mut services = Vec::new();
    for &(file, state) in &[
        ("/proc/net/tcp", "0A"),
        ("/proc/net/tcp6", "0A"),
        ("/proc/net/udp", "07"),
        ("/proc/net/udp6", "07"),
    ] {
        let text = read_file(Path::new(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        tripwire::add_ports_in_state(&text, state, &mut services);
    }
    // Two bytes for each draw, for two transports.
    let mut bytes = [0; 4 * tripwire::MAX_DRAWS];
    random::fill(&mut bytes)?;
    let mut draws = bytes.as_chunks().0.iter();
    Ok(Tripwires::auto(&services, || {
        draws
            .next()
            .map_or(0, |draw| u16::from_ne_bytes(*draw).into())
    }))
}

/// Receives the setup, opens what needs root, drops privileges and listens. The process ends here,
/// so nothing has to be dropped.
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
        .unwrap_or_else(|error| refuse(keeper, with_context("netlink", error)));
    let netlink =
        Netlink::ask().unwrap_or_else(|error| refuse(keeper, with_context("netlink", error)));
    let mut seed = [0; 8];
    random::fill(&mut seed)
        .unwrap_or_else(|error| refuse(keeper, with_context("/dev/urandom", error)));
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
                .unwrap_or_else(|error| refuse(keeper, with_context("/dev/urandom", error))),
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
        output.send_reliable(ToKeeper::Problem(problem));
    };
    let mut stays_root = None;
    if privileges::is_root() {
        match privileges::chroot_to_empty_dir() {
            Ok(()) => {}
            // There is no state directory, which the keeper has reported.
            Err(error) if error.is(libc::ENOTDIR) => {}
            Err(error) => warn(&["the listener can see the file system: ", &shown(&error)]),
        }
        stays_root = privileges::become_unprivileged(privileges::LISTENER).err();
    }
    let dropped = privileges::drop_capabilities();
    if let Err(error) = &dropped {
        warn(&["the listener keeps its capabilities: ", &shown(error)]);
    }
    // From here on only sockets are open.
    privileges::close_outputs();
    privileges::limit_resources();
    // Router kernels have no seccomp. Without root the process has no privileges anyway.
    let confined = seccomp::confine_listener([keeper.as_fd(), netlink.as_fd()]);
    if let Some(error) = stays_root {
        let problem = with_context("the listener cannot give up root", error)
            + "; give knockd CAP_SETUID and CAP_SETGID, or start it as an ordinary user with CAP_NET_RAW";
        // Without capabilities it could still open root's files; seccomp prevents that.
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
        report_due: NEVER,
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
