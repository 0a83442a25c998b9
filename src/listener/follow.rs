//! A packet socket that follows its interface.
#![forbid(unsafe_code)]

use super::output::Output;
use super::told;
use crate::capture::interfaces::{Interfaces, Link, Selector};
use crate::ipc::{self, ToKeeper};
use crate::limits::{MAX_STATUS_ADDRESSES, MAX_TOLD_ADDRESSES};
use crate::sys::error::{Error, Result};
use crate::sys::packet_socket::{Batch, InterfaceIndex, PacketSocket};
use crate::util::bpf::Instruction;
use crate::util::text::shown;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// A packet socket and the interface that it is meant for.
pub struct Capture {
    /// What it is meant for.
    pub selector: Selector,
    socket: PacketSocket,
    /// What the socket is bound to. `None` while there is no such interface.
    bound: Option<InterfaceIndex>,
    /// Its interface's addresses.
    local: Vec<IpAddr>,
    /// Its socket has the filter that it should have.
    pub has_filter: bool,
    /// Where it is now, and what a person was told last.
    place: BindState,
    told: BindState,
}

/// Where a capture is. A redial may change nothing but the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct BindState {
    index: Option<InterfaceIndex>,
    line: String,
    /// The interface is there and up.
    listens: bool,
}

impl Capture {
    /// For that interface, with this socket.
    pub fn new(selector: Selector, socket: PacketSocket) -> Capture {
        Capture {
            selector,
            socket,
            bound: None,
            local: Vec::new(),
            has_filter: false,
            place: BindState::default(),
            told: BindState::default(),
        }
    }

    /// Where [`follow`](Self::follow) will move the socket, which is another listener's still.
    pub fn foresee(&mut self, interfaces: &Interfaces) {
        let link = interfaces.find(&self.selector);
        self.bound = match self.selector {
            Selector::Any => Some(InterfaceIndex::ANY),
            _ => link.map(|link| link.index),
        };
        self.place = self.look(link, &interfaces.local(&self.selector));
    }

    /// Its interface's addresses now.
    pub fn look_at_addresses(&mut self, interfaces: &Interfaces, output: &Output<'_>) -> &[IpAddr] {
        let local = interfaces.local(&self.selector);
        if self.local != local {
            for address in &local {
                output.debug(&["local IP: ", &shown(address)]);
            }
            self.local = local;
        }
        &self.local
    }

    /// Moves filter and socket to where they belong now. After an error it can be tried again.
    pub fn follow(
        &mut self,
        interfaces: &Interfaces,
        program: &[Instruction],
    ) -> Result<(), String> {
        if !self.has_filter {
            self.socket.attach(program).map_err(|error| {
                let why = told(
                    ": the kernel refused a new filter, the old one stays",
                    error,
                );
                self.selector.name().to_string() + &why
            })?;
            self.has_filter = true;
        }
        let local = &self.local;
        let link = interfaces.find(&self.selector);
        self.bound = match (&self.selector, link) {
            (Selector::Any, _) => self.bind(InterfaceIndex::ANY)?,
            (_, Some(link)) => self.bind(link.index)?,
            (_, None) => None,
        };
        self.place = self.look(link.filter(|_| self.bound.is_some()), local);
        Ok(())
    }

    /// Binds also where it seems to be bound there: an interface that went and came back under its old number between two looks
    /// has left the socket behind. Otherwise the kernel does nothing. `None`: the interface has just gone.
    fn bind(&self, index: InterfaceIndex) -> Result<Option<InterfaceIndex>, String> {
        match self.socket.bind(index) {
            Ok(()) => Ok(Some(index)),
            Err(Error::Os(libc::ENODEV)) => Ok(None),
            Err(error) => Err(told(self.selector.name(), error)),
        }
    }

    /// Whether its interface went between the look at it and the binding, so that it must be looked for again.
    pub fn is_late(&self, interfaces: &Interfaces) -> bool {
        self.bound.is_none() && interfaces.find(&self.selector).is_some()
    }

    fn look(&self, link: Option<&Link>, local: &[IpAddr]) -> BindState {
        let selector = &self.selector;
        let problem = match (selector, link) {
            (Selector::Any, _) => None,
            (Selector::Auto, None) => Some(": no default route: waiting for one"),
            (Selector::AutoIpv6, None) => Some(": no interface of its own"),
            (_, None) => Some(" is gone: waiting for it"),
            (_, Some(link)) if !link.up => Some(" is down: waiting for it"),
            _ if local.is_empty() => {
                Some(" has no address yet: only doors with a target can be knocked at")
            }
            _ => None,
        };
        let line = match (problem, link) {
            (Some(problem), _) => [selector.name(), problem].concat(),
            (None, None) => String::new(),
            (None, Some(link)) => {
                let mut line = [selector.name(), ": listening on ", &link.name].concat();
                let mut before = " at ";
                for address in local.iter().take(MAX_TOLD_ADDRESSES) {
                    line.push_str(before);
                    line.push_str(&shown(address));
                    before = ", ";
                }
                if let more @ 1.. = local.len().saturating_sub(MAX_TOLD_ADDRESSES) {
                    line.push_str(&[" and ", &shown(&more), " more"].concat());
                }
                line
            }
        };
        BindState {
            index: self.bound,
            line,
            listens: *selector == Selector::Any || link.is_some_and(|link| link.up),
        }
    }

    /// Whether both default routes are on one interface, which another capture has.
    pub fn is_spare(&self) -> bool {
        self.selector == Selector::AutoIpv6 && self.bound.is_none()
    }

    /// Whether its interface is there and up.
    pub fn listens(&self) -> bool {
        self.place.listens
    }

    /// Whether it is not where a person was told.
    pub fn has_news(&self) -> bool {
        self.place != self.told
    }

    /// Tells where it is, if that is not what was told last.
    pub fn tell(&mut self, output: &Output<'_>) {
        if self.has_news() {
            self.told = self.place.clone();
            output.surely(ToKeeper::Notice(self.place.line.clone()));
        }
    }

    /// Tells what is amiss with it at the start, and which interface `auto` has found. An interface that is missing may be a mistake in its
    /// name; without `wait` that is an error.
    pub fn tell_first(
        &mut self,
        interfaces: &Interfaces,
        wait: bool,
        output: &Output<'_>,
    ) -> Result<(), String> {
        let selector = &self.selector;
        let is_auto = matches!(selector, Selector::Auto | Selector::AutoIpv6);
        let is_missing = self.bound.is_none() && !is_auto;
        if is_missing {
            let name = selector.name();
            let names = interfaces.names();
            let (before, waits) = match wait {
                true => (["could not open ", name, ": "].concat(), ": waiting for it"),
                false => (String::new(), ""),
            };
            let why = ": No such device exists";
            let list = "; the interfaces here are: ";
            let text = [&before, name, why, waits, list, &names].concat();
            if !wait {
                return Err(text);
            }
            output.surely(ToKeeper::Problem(text));
        }
        let is_complete = self.place.listens && !self.local.is_empty();
        let is_any = *selector == Selector::Any;
        if is_missing || is_any || (is_complete && !is_auto) || self.is_spare() {
            self.told = self.place.clone();
        }
        self.tell(output);
        Ok(())
    }

    /// The packets that wait, as [`PacketSocket::receive`] gives them.
    pub fn receive(&self, batch: &mut Batch) -> Result<usize> {
        self.socket.receive(batch)
    }

    /// Where it listens, for `--status`.
    pub fn report(&self, interfaces: &Interfaces) -> ipc::Interface {
        let local = &self.local;
        let link = interfaces.find(&self.selector);
        ipc::Interface {
            wanted: self.selector.name().to_string(),
            name: link.map_or(String::new(), |link| shown(&link.name)),
            addresses: local.iter().copied().take(MAX_STATUS_ADDRESSES).collect(),
            more: local.len().saturating_sub(MAX_STATUS_ADDRESSES) as u16,
        }
    }

    /// How many packets the kernel had no room for since this was asked last.
    pub fn dropped(&self) -> u32 {
        // Only an emulated kernel refuses.
        self.socket.dropped().unwrap_or(0)
    }

    /// Whether a packet that came in by the interface with this index is this socket's.
    pub fn counts(&self, index: InterfaceIndex, interfaces: &Interfaces) -> bool {
        match self.bound {
            Some(InterfaceIndex::ANY) => interfaces.counts_under_any(index),
            bound => bound == Some(index),
        }
    }

    /// Whether this socket is bound to that interface.
    pub fn is_bound_to(&self, index: InterfaceIndex) -> bool {
        self.bound == Some(index)
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
