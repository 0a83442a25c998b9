//! The rtnetlink(7) socket: lists links, addresses and routes, and reports changes.
//! [`crate::capture::interfaces`] decodes the messages.

use super::error::{Error, Result, cerr, retry};
use super::raw_address::socklen;
use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The content of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// RTM_GETLINK
    Links,
    /// RTM_GETADDR
    Addresses,
    /// RTM_GETROUTE, IPv4 and IPv6
    Routes,
}

/// Bytes of one reply. The kernel fills at most 32 kB, or the buffer if it is smaller.
const REPLY: usize = 16 * 1024;

/// A message of a reply or notice.
struct Message<'a> {
    kind: u16,
    /// The sequence number of its request.
    answers: u32,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Splits off the first message, if it is complete.
    fn first(rest: &mut &'a [u8]) -> Option<Message<'a>> {
        // struct nlmsghdr: length, type, flags, sequence, port (4 + 2 + 2 + 4 + 4 bytes), host
        // order.
        let header = rest.first_chunk::<16>()?;
        let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            answers: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body: rest.get(16..size)?,
        };
        *rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// A netlink socket. Needs no privileges.
pub struct Netlink {
    socket: OwnedFd,
    /// Counts the requests, so that the rest of an abandoned reply is not taken for the next one.
    asked: Cell<u32>,
}

impl Netlink {
    fn open(groups: u32) -> Result<Netlink> {
        // SAFETY: no pointers.
        let fd = cerr(unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            )
        })?;
        // SAFETY: the kernel has just made this descriptor, and no one else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an all-zero sockaddr_nl is valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = groups;
        // SAFETY: `address` is a sockaddr_nl of the length given.
        cerr(unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                socklen::<libc::sockaddr_nl>(),
            )
        })?;
        Ok(Netlink {
            socket,
            asked: Cell::new(0),
        })
    }

    /// Opens a socket that becomes readable when links, addresses or (with `routes`) routes change.
    pub fn watch(routes: bool) -> Result<Netlink> {
        let mut groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        if routes {
            groups |= libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;
        }
        Netlink::open(groups as u32)
    }

    /// Opens a socket for requests.
    pub fn ask() -> Result<Netlink> {
        Netlink::open(0)
    }

    /// Reads all waiting notices. Returns whether one of them matters, by type and body, or might:
    /// one that was cut or lost (ENOBUFS). The caller then requests the current state.
    pub fn drain(&self, matters: &dyn Fn(u16, &[u8]) -> bool) -> bool {
        let mut buffer = [0u8; 4096];
        let mut any = false;
        loop {
            match self.receive(&mut buffer, libc::MSG_DONTWAIT) {
                // Not sent by the kernel.
                Ok(None) => {}
                Ok(Some(0)) => return any,
                Ok(Some(length)) => {
                    let mut rest = buffer.get(..length).unwrap_or_default();
                    while !any && !rest.is_empty() {
                        any = match Message::first(&mut rest) {
                            Some(message) => matters(message.kind, message.body),
                            None => true,
                        };
                    }
                }
                Err(Error::Os(libc::ENOBUFS)) => any = true,
                Err(_) => return any,
            }
        }
    }

    /// Requests one complete list. Calls `message` with type and body of each of its messages.
    pub fn dump(&self, what: Dump, message: &mut dyn FnMut(u16, &[u8])) -> Result<()> {
        let kind = match what {
            Dump::Links => libc::RTM_GETLINK,
            Dump::Addresses => libc::RTM_GETADDR,
            Dump::Routes => libc::RTM_GETROUTE,
        };
        // struct nlmsghdr, then a zeroed struct rtgenmsg (AF_UNSPEC), padded to 4 bytes. Older
        // kernels require room for the largest body, struct ifinfomsg (16 bytes).
        const LENGTH: usize = 16 + 16;
        let mut request = [0u8; LENGTH];
        request[0..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&kind.to_ne_bytes());
        let number = self.asked.get().wrapping_add(1);
        self.asked.set(number);
        request[8..12].copy_from_slice(&number.to_ne_bytes());
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        retry(&mut || {
            // SAFETY: the pointer and length describe `request`.
            unsafe { libc::send(self.socket.as_raw_fd(), request.as_ptr().cast(), LENGTH, 0) }
        })?;
        let mut buffer = vec![0u8; REPLY];
        loop {
            let Some(length) = self.receive(&mut buffer, 0)? else {
                continue;
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while rest.len() >= 16 {
                let Some(Message {
                    kind,
                    answers,
                    body,
                }) = Message::first(&mut rest)
                else {
                    return Err(Error::Os(libc::EBADMSG));
                };
                match i32::from(kind) {
                    _ if answers != number => {}
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        let code = body
                            .first_chunk()
                            .map_or(0, |code| i32::from_ne_bytes(*code));
                        return Err(Error::Os(-code));
                    }
                    _ => message(kind, body),
                }
            }
            if length == 0 {
                return Err(Error::Os(libc::EBADMSG));
            }
        }
    }

    /// Receives the next message. Returns its length, or `None` if a process sent it: only the
    /// kernel has port 0.
    fn receive(&self, buffer: &mut [u8], flags: libc::c_int) -> Result<Option<usize>> {
        // SAFETY: an all-zero sockaddr_nl is valid.
        let mut sender: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut size = socklen::<libc::sockaddr_nl>();
        let length = retry(&mut || {
            let (first, room) = (buffer.as_mut_ptr().cast(), buffer.len());
            let from = (&raw mut sender).cast();
            // SAFETY: pointer and length describe `buffer`, and `from` and `size` describe
            // `sender`.
            unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    first,
                    room,
                    flags,
                    from,
                    &raw mut size,
                )
            }
        })?;
        Ok((sender.nl_pid == 0).then_some(length))
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the port of a socket.
    fn port(netlink: &Netlink) -> u32 {
        // SAFETY: an all-zero sockaddr_nl is valid, and of the length given.
        unsafe {
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            let mut size = socklen::<libc::sockaddr_nl>();
            let fd = netlink.as_fd().as_raw_fd();
            let result = libc::getsockname(fd, (&raw mut address).cast(), &raw mut size);
            cerr(result).expect("getsockname");
            address.nl_pid
        }
    }

    /// Sends a message to that port, as a process with CAP_NET_ADMIN can.
    fn send_end_of_dump(from: &Netlink, to: u32, number: u32) -> Result<usize> {
        let mut message = [0u8; 20];
        message[0..4].copy_from_slice(&20_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&(libc::NLMSG_DONE as u16).to_ne_bytes());
        message[8..12].copy_from_slice(&number.to_ne_bytes());
        // SAFETY: an all-zero sockaddr_nl is valid; pointers and lengths describe `message` and
        // `address`.
        unsafe {
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            address.nl_pid = to;
            let size = socklen::<libc::sockaddr_nl>();
            let (first, address) = (message.as_ptr().cast(), (&raw const address).cast());
            let fd = from.as_fd().as_raw_fd();
            retry(&mut || libc::sendto(fd, first, message.len(), 0, address, size))
        }
    }

    #[test]
    fn what_another_process_sends_is_not_the_kernels() {
        let (netlink, other) = (Netlink::ask().expect("one"), Netlink::ask().expect("two"));
        // A forged early end of the next list.
        match send_end_of_dump(&other, port(&netlink), 1) {
            Err(Error::Os(libc::EPERM)) => {
                return eprintln!("skipped: no right to send to another process");
            }
            sent => drop(sent.expect("send")),
        }
        let mut links = 0;
        let listed = netlink.dump(Dump::Links, &mut |_, _| links += 1);
        listed.expect("links");
        assert!(links > 0, "the forged message has ended the list");
        send_end_of_dump(&other, port(&netlink), 2).expect("send");
        assert!(!netlink.drain(&|_, _| true), "a forged notice counts");
    }
}
