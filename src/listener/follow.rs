//! A packet socket that follows its interface: through redials, renames and address changes.
#![forbid(unsafe_code)]

use super::output::Output;
use super::with_context;
use crate::capture::interfaces::{Interfaces, Link, Selector};
use crate::ipc::{self, ToKeeper};
use crate::limits::{MAX_STATUS_ADDRESSES, MAX_TOLD_ADDRESSES};
use crate::sys::error::{Error, Result};
use crate::sys::packet_socket::{Batch, InterfaceIndex, PacketSocket};
use crate::util::bpf::Instruction;
use crate::util::text::shown;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// A packet socket and the interface that it captures on.
pub struct Capture {
    /// The interface as configured.
    pub selector: Selector,
    socket: PacketSocket,
    /// The interface that the socket is bound to. `None` while that interface does not exist.
    bound: Option<InterfaceIndex>,
    /// The addresses of the interface.
    local: Vec<IpAddr>,
    /// The socket has the current filter.
    pub has_filter: bool,
    /// The current location, and the one that was last reported.
    location: BindState,
    last_reported: BindState,
}

/// Where a capture listens. After a redial only the index may differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct BindState {
    index: Option<InterfaceIndex>,
    line: String,
    /// The interface exists and is up.
    listens: bool,
}

impl Capture {
    /// Creates a capture for that interface with this socket.
    pub fn new(selector: Selector, socket: PacketSocket) -> Capture {
        Capture {
            selector,
            socket,
            bound: None,
            local: Vec::new(),
            has_filter: false,
            location: BindState::default(),
            last_reported: BindState::default(),
        }
    }

    /// Computes where [`follow`](Self::follow) will bind the socket, without touching it: another
    /// listener still reads from it.
    pub fn foresee(&mut self, interfaces: &Interfaces) {
        let link = interfaces.find(&self.selector);
        self.bound = match self.selector {
            Selector::Any => Some(InterfaceIndex::ANY),
            _ => link.map(|link| link.index),
        };
        self.location = self.look(link, &interfaces.local(&self.selector));
    }

    /// Returns the current addresses of the interface.
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

    /// Moves filter and socket to the current interface. After an error the caller can try again.
    pub fn follow(
        &mut self,
        interfaces: &Interfaces,
        program: &[Instruction],
    ) -> Result<(), String> {
        if !self.has_filter {
            self.socket.attach(program).map_err(|error| {
                let why = with_context(
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
        self.location = self.look(link.filter(|_| self.bound.is_some()), local);
        Ok(())
    }

    /// Binds the socket again even if it seems to be bound there: an interface that disappeared and
    /// came back with its old index between two refreshes has unbound the socket. Binding again
    /// does nothing otherwise. Returns `None` if the interface has just disappeared.
    fn bind(&self, index: InterfaceIndex) -> Result<Option<InterfaceIndex>, String> {
        match self.socket.bind(index) {
            Ok(()) => Ok(Some(index)),
            Err(Error::Os(libc::ENODEV)) => Ok(None),
            Err(error) => Err(with_context(self.selector.name(), error)),
        }
    }

    /// Returns whether the interface disappeared between the refresh and the bind, so that another
    /// refresh is needed.
    pub fn needs_rebind(&self, interfaces: &Interfaces) -> bool {
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

    /// Returns whether both default routes use one interface, which another capture has.
    pub fn is_spare(&self) -> bool {
        self.selector == Selector::AutoIpv6 && self.bound.is_none()
    }

    /// Returns whether the interface exists and is up.
    pub fn listens(&self) -> bool {
        self.location.listens
    }

    /// Returns whether the location differs from the one that was last reported.
    pub fn location_changed(&self) -> bool {
        self.location != self.last_reported
    }

    /// Reports the location if it differs from the one that was last reported.
    pub fn report_location(&mut self, output: &Output<'_>) {
        if self.location_changed() {
            self.last_reported = self.location.clone();
            output.send_reliable(ToKeeper::Notice(self.location.line.clone()));
        }
    }

    /// Reports problems at the start, and which interface `auto` chose. Without `wait`, a missing
    /// interface is an error, because its name may be misspelled.
    pub fn report_start(
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
            let list = "; available: ";
            let text = [&before, name, why, waits, list, &names].concat();
            if !wait {
                return Err(text);
            }
            output.send_reliable(ToKeeper::Problem(text));
        }
        let is_complete = self.location.listens && !self.local.is_empty();
        let is_any = *selector == Selector::Any;
        if is_missing || is_any || (is_complete && !is_auto) || self.is_spare() {
            self.last_reported = self.location.clone();
        }
        self.report_location(output);
        Ok(())
    }

    /// Receives the waiting packets; see [`PacketSocket::receive`].
    pub fn receive(&self, batch: &mut Batch) -> Result<usize> {
        self.socket.receive(batch)
    }

    /// Returns where it listens, for `--status`.
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

    /// Returns how many packets the kernel has dropped since the last call.
    pub fn dropped(&self) -> u32 {
        // Only emulated kernels refuse.
        self.socket.dropped().unwrap_or(0)
    }

    /// Returns whether a packet that came in by that interface belongs to this capture.
    pub fn accepts(&self, index: InterfaceIndex, interfaces: &Interfaces) -> bool {
        match self.bound {
            Some(InterfaceIndex::ANY) => interfaces.counts_under_any(index),
            bound => bound == Some(index),
        }
    }

    /// Returns whether the socket is bound to that interface.
    pub fn is_bound_to(&self, index: InterfaceIndex) -> bool {
        self.bound == Some(index)
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
