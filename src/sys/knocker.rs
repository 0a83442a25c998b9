//! The two knocks of the client: one SYN, or one datagram.

use super::error::{Error, Result, cerr};
use super::file::set_nonblocking;
use super::raw_address::RawAddress;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// A socket for one knock. Each has its own source port.
#[derive(Debug)]
pub struct Knocker {
    socket: OwnedFd,
    is_tcp: bool,
    to: RawAddress,
}

impl Knocker {
    /// Opens a socket for that knock, TCP or UDP, and sends nothing. Does not use SOCK_NONBLOCK,
    /// which Linux 2.6.24 lacks.
    pub fn open(is_tcp: bool, to: &SocketAddr) -> Result<Knocker> {
        let family = if to.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let kind = match is_tcp {
            true => libc::SOCK_STREAM,
            false => libc::SOCK_DGRAM,
        };
        // SAFETY: no pointers.
        let fd = cerr(unsafe { libc::socket(family, kind, 0) })?;
        // SAFETY: socket() has just returned this descriptor and no one else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        if is_tcp {
            set_nonblocking(socket.as_fd(), true)?;
        }
        Ok(Knocker {
            socket,
            is_tcp,
            to: RawAddress::new(to),
        })
    }

    /// Sends the knock. TCP: the kernel sends one SYN, and no retransmission because the socket is
    /// closed at once. UDP: one datagram with one NUL byte, as knock 0.8. An error means that
    /// nothing was sent.
    pub fn knock(self) -> Result<()> {
        let fd = self.socket.as_raw_fd();
        match self.is_tcp {
            false => {
                let byte = 0u8;
                // SAFETY: the buffer is one byte long, the address valid and of the length given.
                let sent = unsafe {
                    let byte = (&raw const byte).cast();
                    libc::sendto(fd, byte, 1, 0, self.to.pointer(), self.to.length())
                };
                if sent == -1 {
                    Err(Error::last())
                } else {
                    Ok(())
                }
            }
            true => {
                // SAFETY: the address is valid and of the length given.
                let result = unsafe { libc::connect(fd, self.to.pointer(), self.to.length()) };
                match cerr(result) {
                    // The SYN was sent. An ICMP error in reply, which on a virtual link arrives
                    // before connect() returns, does not appear here. Any other error is about
                    // sending.
                    Err(Error::Os(libc::EINPROGRESS)) => Ok(()),
                    result => result.map(drop),
                }
            }
        }
    }
}
