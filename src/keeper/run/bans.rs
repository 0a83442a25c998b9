//! Bans: for a limited time, the knocks of a source that hit too many tripwires open nothing. Runs
//! `BanCommand` and `UnbanCommand`.
#![forbid(unsafe_code)]

use super::Keeper;
use crate::capture::interfaces::Interfaces;
use crate::keeper::doors::expand;
use crate::keeper::log::LogKind;
use crate::lease::Reknock;
use crate::lease::{Lease, LeaseKind, Opening, Turn};
use crate::sys::clock::monotonic;
use crate::sys::netlink::Netlink;
use std::net::IpAddr;

impl Keeper {
    /// Bans a source that, according to the listener, hit enough tripwires. Returns `false` if bans
    /// are off, because then the record is malformed.
    pub(super) fn handle_scanned(&mut self, source: IpAddr) -> bool {
        let bans = &self.options.bans;
        if bans.hits == 0 {
            return false;
        }
        let mut why = self.ban_exempt_reason(source);
        if why.is_none() {
            if !self.bans_rate.allow(monotonic()) {
                // The source's next hit requests the ban again.
                return true;
            }
            why = on_link_reason(source);
        }
        if let Some(why) = why {
            let text = format!("not banned although it hit tripwires: {why}");
            self.log.about(LogKind::Verbose, source, &text);
            return true;
        }
        let command = |text: Option<&[u8]>| expand(text.unwrap_or_default(), source);
        let bans = &self.options.bans;
        let commands = (
            command(bans.start.for_source(source)),
            command(bans.stop.for_source(source)),
        );
        let (Some(start), Some(stop)) = commands else {
            let text = "error: not banned: BanCommand or UnbanCommand is too long";
            self.log.about(LogKind::Error, source, &text);
            return true;
        };
        let (max, time) = (bans.max as usize, bans.time);
        let is_new = !self.book.is_banned(source);
        let opening = Opening {
            kind: LeaseKind::Ban,
            source,
            start,
            stop,
            cmd_timeout: time,
            turn: Turn::default(),
        };
        let now = monotonic();
        let opened = (self.book).open(opening, Reknock::Renew, now, &mut self.actions);
        if opened.is_err() {
            let text = "not banned: too many bans are ending";
            self.log.about(LogKind::Verbose, source, &text);
            return true;
        }
        if is_new {
            let text = format_args!("banned for {} s: hit tripwires", time / 1000);
            self.log.about(LogKind::Event, source, &text);
        }
        while let (number, Some(first)) = self.book.bans()
            && number > max
        {
            let is_first = |lease: &Lease| lease.is_ban() && lease.source == first;
            self.end_leases(&is_first, "ended early, too many bans");
        }
        self.carry_out(now);
        true
    }

    /// Ends bans that the current config would not impose: users who have locked themselves out can
    /// add their address to `Allow` and reload.
    pub fn end_unwanted_bans(&mut self) {
        let none = self.options.bans.hits == 0;
        let allow = self.options.bans.allow.clone();
        let unwanted = |lease: &Lease| {
            lease.is_ban() && (none || allow.iter().any(|network| network.contains(lease.source)))
        };
        self.end_leases(&unwanted, "ended by config change");
    }

    /// Returns why the source must not be banned, as far as the keeper's own data tells.
    fn ban_exempt_reason(&self, source: IpAddr) -> Option<&'static str> {
        let mut allowed = self.options.bans.allow.iter();
        if allowed.any(|network| network.contains(source)) {
            return Some("it is in Allow");
        }
        let mut leases = self.book.leases().iter();
        if leases.any(|lease| !lease.is_ban() && lease.source == source) {
            return Some("a door is open for it");
        }
        None
    }
}

/// Returns why the source must not be banned, according to the networks of the machine. Reads all
/// of them.
fn on_link_reason(source: IpAddr) -> Option<&'static str> {
    match Netlink::ask().and_then(|netlink| Interfaces::read(&netlink, false)) {
        Ok(interfaces) => {
            (interfaces.is_on_link(source)).then_some("it is in a network of this machine")
        }
        Err(_) => Some("cannot read this machine's networks"),
    }
}
