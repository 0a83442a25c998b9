//! Sockets that deliver messages completely or not at all: the socketpairs between the keeper and
//! its other processes (SOCK_SEQPACKET, so that the end of a process is an end of file), and UDP to
//! a DNS server.

use super::error::{Error, Result, cerr, retry};
use super::poll;
use super::raw_address::{RawAddress, socklen};
use crate::limits::{SEND_PAUSE_MS, SEND_TRIES};
use crate::util::time::Millis;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One end of a connection.
pub struct MessageSocket(OwnedFd);

impl MessageSocket {
    /// Creates two connected ends, both close-on-exec.
    pub fn pair() -> Result<(MessageSocket, MessageSocket)> {
        let mut ends = [-1; 2];
        // SAFETY: `ends` has room for the two descriptors.
        cerr(unsafe {
            libc::socketpair(
                libc::AF_UNIX,
                libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
                0,
                ends.as_mut_ptr(),
            )
        })?;
        // SAFETY: the kernel has just made both descriptors, and no one else knows them.
        let [a, b] = ends.map(|fd| MessageSocket(unsafe { OwnedFd::from_raw_fd(fd) }));
        Ok((a, b))
    }

    /// Creates a UDP socket that is connected to that address. Sends nothing. Fails if there is no
    /// route.
    pub fn to_udp(address: &SocketAddr) -> Result<MessageSocket> {
        let family = match address {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        // SAFETY: no pointers.
        let fd = cerr(unsafe { libc::socket(family, libc::SOCK_DGRAM, 0) })?;
        // SAFETY: socket() has just returned this descriptor and no one else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let to = RawAddress::new(address);
        // SAFETY: the address is valid and of the length given.
        cerr(unsafe { libc::connect(socket.as_raw_fd(), to.pointer(), to.length()) })?;
        Ok(MessageSocket(socket))
    }

    /// Takes over an open or inherited descriptor.
    pub fn from_owned(fd: OwnedFd) -> MessageSocket {
        MessageSocket(fd)
    }

    /// Limits the time (ms) that [`send`](Self::send) waits. After it, `send` fails with EAGAIN.
    pub fn limit_sending(&self, wait: Millis) -> Result<()> {
        let limit = libc::timeval {
            tv_sec: (wait / 1000) as libc::time_t,
            tv_usec: (wait % 1000 * 1000) as libc::suseconds_t,
        };
        // SAFETY: `limit` is a timeval of the length given.
        cerr(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDTIMEO,
                (&raw const limit).cast(),
                socklen::<libc::timeval>(),
            )
        })
        .map(drop)
    }

    /// Sends one message. With `wait`, waits for room and for memory; otherwise fails with EAGAIN
    /// if there is no room.
    pub fn send(&self, message: &[u8], wait: bool) -> Result<()> {
        let mut tries = if wait { SEND_TRIES } else { 1 };
        loop {
            let result = self.try_send(message, wait);
            tries -= 1;
            if tries == 0 || !matches!(result, Err(Error::Os(libc::ENOBUFS | libc::ENOMEM))) {
                return result;
            }
            poll::pause(SEND_PAUSE_MS);
        }
    }

    fn try_send(&self, message: &[u8], wait: bool) -> Result<()> {
        let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
        retry(&mut || {
            let (first, length) = (message.as_ptr().cast(), message.len());
            // SAFETY: the pointer and length describe `message`.
            unsafe { libc::send(self.0.as_raw_fd(), first, length, flags) }
        })
        .map(drop)
    }

    /// Receives one message into `buffer`. Returns its length, 0 at the end. Longer messages are
    /// cut, which no decoder accepts. Without `wait`, fails with EAGAIN if there is none.
    pub fn receive(&self, buffer: &mut [u8], wait: bool) -> Result<usize> {
        let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
        retry(&mut || {
            let (first, room) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: the pointer and length describe `buffer`.
            unsafe { libc::recv(self.0.as_raw_fd(), first, room, flags) }
        })
    }
}

impl AsFd for MessageSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
