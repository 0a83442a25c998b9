//! Sends a DNS query over UDP. Each server has its own connected socket, which receives only from
//! that server and reports at once if nothing listens there.

#![forbid(unsafe_code)]

use super::dns::{self, MAX_MESSAGE, Reply};
use crate::limits::{DNS_TRIES, DNS_WAIT_MS};
use crate::sys::clock::monotonic;
use crate::sys::message_socket::MessageSocket;
use crate::sys::poll::{self, Interest, PollEntry};
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// Queries all of these servers at once and returns the first useful reply. `Failed` if the last
/// server reports that it cannot answer; `None` if one or more do not reply.
pub fn ask(servers: &[SocketAddr], question: &[u8]) -> Option<Reply> {
    let mut sockets: Vec<MessageSocket> = (servers.iter())
        .filter_map(|server| MessageSocket::to_udp(server).ok())
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
                entries.push(PollEntry::new(Some(socket.as_fd()), Interest::Readable));
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
                    // Prefer a reply with an address or name, otherwise that of the first server.
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

/// `Vec::retain`, but generated once.
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
