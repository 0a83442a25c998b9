//! A packet socket that follows its interface.
#![forbid(unsafe_code)]

use super::output::Output;
use crate::door::Pattern;
use crate::filter::{self, Kernel};
use crate::interfaces::{Interfaces, Selector};
use crate::limits::MAX_TOLD_ADDRESSES;
use crate::record::{self, ToKeeper};
use crate::sys::packet_socket::{Batch, PacketSocket};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// A packet socket and the interface that it is meant for.
pub struct Capture {
    selector: Selector,
    socket: PacketSocket,
    /// The index that the socket is bound to; 0 is all. `None` while there is no such interface.
    bound: Option<u32>,
    /// The addresses that its filter is made for; `None` before it has one.
    local: Option<Vec<IpAddr>>,
}

/// What the filter has to pass.
pub struct Wanted<'a> {
    /// The doors.
    pub patterns: &'a [Pattern],
    /// No IPv6.
    pub only_ip_v4: bool,
    /// What the kernel's filters can do.
    pub kernel: Kernel,
}

/// When a socket is asked to follow its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The daemon starts: what is not there is an error for whoever started it.
    Start,
    /// A listener takes the place of another: what is not there is waited for.
    Restart,
    /// Something has changed: where the socket goes is news.
    Change,
}

impl Capture {
    /// A socket that gets nothing yet.
    pub fn open(selector: Selector) -> Result<Capture, String> {
        let socket = PacketSocket::open().map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "{selector}: You don't have permission to perform this capture on that device \
                 (socket: Operation not permitted); run knockd as root or with CAP_NET_RAW"
            ),
            _ => format!("{selector}: {error}"),
        })?;
        Ok(Capture {
            selector,
            socket,
            bound: None,
            local: None,
        })
    }

    /// Moves filter and socket to where they belong now. After an error it is as it was, and can be tried again.
    pub fn follow(
        &mut self,
        interfaces: &Interfaces,
        wanted: &Wanted<'_>,
        moment: Moment,
        output: &Output<'_>,
    ) -> Result<(), String> {
        let Capture { selector, .. } = self;
        let link = interfaces.find(selector);
        let index = match selector {
            Selector::Any => Some(0),
            _ => link.map(|link| link.index),
        };
        let name = link.map(|link| link.name.clone()).unwrap_or_default();
        if index.is_none() && moment == Moment::Start && matches!(selector, Selector::Named { .. })
        {
            return Err(format!(
                "{selector}: No such device exists; the interfaces here are: {}",
                interfaces.names()
            ));
        }
        let local = interfaces.local(selector);
        if self.local.as_ref() != Some(&local) {
            self.attach(&local, wanted)?;
            for address in &local {
                output.debug(|| format!("local IP: {address}"));
            }
            if local.is_empty() && index.is_some() {
                output.surely(ToKeeper::Notice(format!(
                    "{} has no address yet: only doors with a target can be knocked at",
                    self.selector
                )));
            }
            self.local = Some(local);
        }
        if let Some(index) = index {
            // Also where it seems to be bound there: an interface that went and came back under its old number between two looks
            // has left the socket behind. Otherwise the kernel does nothing.
            let bound = self.socket.bind(index);
            bound.map_err(|error| format!("{}: {error}", self.selector))?;
        }
        if self.bound == index {
            return Ok(());
        }
        self.bound = index;
        let selector = &self.selector;
        match index {
            Some(_) if moment == Moment::Change || *selector == Selector::Auto => {
                output.surely(ToKeeper::Notice(format!("{selector}: listening on {name}")));
            }
            Some(_) => {}
            None if *selector == Selector::Auto => output.surely(ToKeeper::Notice(
                "auto: no default route: waiting for one".to_string(),
            )),
            None => output.surely(ToKeeper::Notice(format!(
                "{selector} is gone: waiting for it"
            ))),
        }
        Ok(())
    }

    /// The doors have changed: gives the socket a filter that fits them.
    pub fn filter_again(&mut self, wanted: &Wanted<'_>) -> Result<(), String> {
        self.attach(self.local.as_deref().unwrap_or_default(), wanted)
    }

    fn attach(&self, local: &[IpAddr], wanted: &Wanted<'_>) -> Result<(), String> {
        let Wanted {
            patterns,
            only_ip_v4,
            kernel,
        } = *wanted;
        let filter = filter::compile(patterns, local, kernel, only_ip_v4);
        self.socket.attach(&filter.program).map_err(|error| {
            format!(
                "{}: the kernel refused a new filter, the old one stays: {error}",
                self.selector
            )
        })
    }

    /// The packets that wait, as [`PacketSocket::receive`] gives them.
    pub fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        self.socket.receive(batch)
    }

    /// Where it listens, for `--status`.
    pub fn report(&self, interfaces: &Interfaces) -> record::Interface {
        let local = self.local.as_deref().unwrap_or_default();
        let link = interfaces.find(&self.selector);
        record::Interface {
            wanted: self.selector.to_string(),
            name: link.map_or(String::new(), |link| link.name.to_string()),
            addresses: local.iter().copied().take(MAX_TOLD_ADDRESSES).collect(),
            more: local.len().saturating_sub(MAX_TOLD_ADDRESSES) as u16,
        }
    }

    /// How many packets the kernel had no room for since this was asked last.
    pub fn dropped(&self) -> u32 {
        // Only an emulated kernel refuses.
        self.socket.dropped().unwrap_or(0)
    }

    /// Whether a packet that came in by the interface with this index is this socket's.
    pub fn counts(&self, index: u32, interfaces: &Interfaces) -> bool {
        match self.bound {
            Some(0) => interfaces.counts_under_any(index),
            bound => bound == Some(index),
        }
    }

    /// Whether this socket is bound to that interface.
    pub fn is_bound_to(&self, index: u32) -> bool {
        self.bound == Some(index)
    }

    /// Whether this is an address of the interface.
    pub fn is_local(&self, destination: IpAddr) -> bool {
        self.local
            .as_ref()
            .is_some_and(|local| local.contains(&destination))
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
