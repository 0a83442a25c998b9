//! A DNS question over UDP. Each server has a socket of its own, connected: it takes only what comes from that server, and
//! learns at once that nobody listens there.

use super::clock::monotonic;
use super::error::cerr;
use super::message_socket::MessageSocket;
use super::poll::{self, Awaits, Entry};
use super::raw_address::RawAddress;
use crate::dns::{self, MAX_MESSAGE, Reply};
use crate::limits::{DNS_TRIES, DNS_WAIT_MS};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// What the first of these servers that can tell replies to the question; all are asked at once. `Failed`: the last of them cannot, and says so;
/// `None`: one or more say nothing.
pub fn ask(servers: &[SocketAddr], question: &[u8]) -> Option<Reply> {
    let mut sockets: Vec<MessageSocket> = (servers.iter())
        .filter_map(|server| connected(server).ok())
        .collect();
    let mut buffer = [0; MAX_MESSAGE];
    let mut failed = None;
    for _ in 0..DNS_TRIES {
        keep(&mut sockets, &mut |socket| {
            socket.send(question, false).is_ok()
        });
        let until = monotonic() + DNS_WAIT_MS;
        loop {
            let now = monotonic();
            if now >= until || sockets.is_empty() {
                break;
            }
            let mut entries = Vec::new();
            for socket in &sockets {
                entries.push(Entry::new(Some(socket.as_fd()), Awaits::Input));
            }
            let mut ready = poll::wait(&mut entries, now, until).ok()?;
            let mut said = None;
            keep(&mut sockets, &mut |socket| {
                let is_ready = ready.has(0);
                ready = ready.skip(1);
                if !is_ready {
                    return true;
                }
                let Ok(length) = socket.receive(&mut buffer, false) else {
                    return false;
                };
                let message = buffer.get(..length).unwrap_or_default();
                match dns::reply(message, question) {
                    Some(Reply::Failed) => {
                        failed = Some(Reply::Failed);
                        return false;
                    }
                    // Of several replies an address or name, otherwise the first server's.
                    Some(Reply::NoName | Reply::NoRecord) if said.is_some() => {}
                    Some(_) if said.as_ref().is_some_and(is_found) => {}
                    Some(reply) => said = Some(reply),
                    None => {}
                }
                true
            });
            if said.is_some() {
                return said;
            }
        }
    }
    failed.filter(|_| sockets.is_empty())
}

/// `Vec::retain`, which would be there twice.
fn keep(sockets: &mut Vec<MessageSocket>, keep: &mut dyn FnMut(&MessageSocket) -> bool) {
    let mut at = 0;
    while let Some(socket) = sockets.get(at) {
        if keep(socket) {
            at += 1;
        } else {
            sockets.remove(at);
        }
    }
}

fn is_found(reply: &Reply) -> bool {
    matches!(reply, Reply::Address(_) | Reply::Name(_))
}

/// A UDP socket to that address; nothing is sent. An error: there is no way to it.
pub fn connected(to: &SocketAddr) -> io::Result<MessageSocket> {
    let family = match to {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    // SAFETY: no pointers.
    let fd = cerr(unsafe { libc::socket(family, libc::SOCK_DGRAM, 0) })?;
    // SAFETY: socket() has just returned this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let to = RawAddress::new(to);
    // SAFETY: the address is valid and of the length given.
    cerr(unsafe { libc::connect(socket.as_raw_fd(), to.pointer(), to.length()) })?;
    Ok(MessageSocket::from_owned(socket))
}
