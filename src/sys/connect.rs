//! The two knocks of the client: one SYN, or one datagram.

use super::cerr;
use super::names::RawAddress;
use crate::door::Protocol;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket that can knock once. Each one has a source port of its own.
#[derive(Debug)]
pub struct Knocker {
    socket: OwnedFd,
    protocol: Protocol,
    to: RawAddress,
}

impl Knocker {
    /// Opens a socket for that knock; nothing is sent. The flags of newer kernels (SOCK_NONBLOCK) are not used:
    /// Linux 2.6.24 has none of them.
    pub fn open(protocol: Protocol, to: &SocketAddr) -> io::Result<Knocker> {
        let family = if to.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let kind = match protocol {
            Protocol::Tcp => libc::SOCK_STREAM,
            Protocol::Udp => libc::SOCK_DGRAM,
        };
        // SAFETY: no pointers.
        let fd = cerr(unsafe { libc::socket(family, kind, 0) })?;
        // SAFETY: socket() has just returned this descriptor and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        if protocol == Protocol::Tcp {
            // SAFETY: no pointers; the descriptor is open.
            let flags = cerr(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
            // SAFETY: as above.
            cerr(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
        }
        Ok(Knocker {
            socket,
            protocol,
            to: RawAddress::new(to),
        })
    }

    /// Sends the knock. TCP: the kernel sends one SYN, and since the socket is closed at once it never sends
    /// another. UDP: one datagram with one NUL byte, as knock 0.8. An error means that nothing was sent;
    /// a refusal or an ICMP error that comes back is none, since the knock was on the wire.
    pub fn knock(self) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        match self.protocol {
            Protocol::Udp => {
                let byte = 0u8;
                // SAFETY: the buffer is one byte long, the address valid and of the length given.
                let sent = unsafe {
                    let byte = (&raw const byte).cast();
                    libc::sendto(fd, byte, 1, 0, self.to.pointer(), self.to.length())
                };
                if sent == -1 {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(())
                }
            }
            Protocol::Tcp => {
                // SAFETY: the address is valid and of the length given.
                let result =
                    cerr(unsafe { libc::connect(fd, self.to.pointer(), self.to.length()) });
                match result {
                    Err(error) if !has_source_port(fd) => Err(error),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Whether the kernel gave this socket a source port. It does so between finding the route and sending the SYN; thus
/// EHOSTUNREACH from a routing table differs from EHOSTUNREACH in an ICMP answer to the SYN, which on a
/// virtual link is there before connect() returns.
fn has_source_port(fd: libc::c_int) -> bool {
    let mut address = libc::sockaddr_in6 {
        sin6_family: 0,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    };
    let mut length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    // SAFETY: `address` is writable and of the length given; the port of a sockaddr_in lies where sin6_port does.
    let result = cerr(unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut length) });
    result.is_ok() && address.sin6_port != 0
}
