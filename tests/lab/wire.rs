//! Sends raw frames on a link.

use super::{Mac, Namespace};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The end of a link from which a test sends frames, through a packet socket.
pub struct Wire {
    socket: OwnedFd,
    here: Mac,
    there: Mac,
}

impl Wire {
    /// Opens an interface in that namespace. `there` is the destination Ethernet address.
    pub fn open(namespace: &Namespace, interface: &str, here: Mac, there: Mac) -> Wire {
        let index = namespace.index(interface).expect("interface");
        let socket = namespace.enter(|| {
            // Protocol 0: this socket only sends.
            // SAFETY: socket takes three integers; the result is checked before it is owned.
            let fd =
                unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            assert!(
                fd >= 0,
                "packet socket: {}",
                std::io::Error::last_os_error()
            );
            // SAFETY: fd is a new descriptor that nothing else owns.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            // SAFETY: sockaddr_ll is plain integers, for which zero is valid.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = index as i32;
            // SAFETY: the address is a live sockaddr_ll and its true size is given.
            let result = unsafe {
                libc::bind(
                    fd,
                    (&raw const address).cast(),
                    size_of::<libc::sockaddr_ll>() as libc::socklen_t,
                )
            };
            assert_eq!(result, 0, "bind: {}", std::io::Error::last_os_error());
            socket
        });
        Wire {
            socket,
            here,
            there,
        }
    }

    /// Sends an IP packet as an Ethernet frame.
    pub fn send(&self, packet: &[u8]) {
        self.send_frame(packet, &[]);
    }

    /// The Ethernet frame of an IP packet, for [`send_frames`](Self::send_frames).
    pub fn frame(&self, packet: &[u8]) -> Vec<u8> {
        self.tagged_frame(packet, &[])
    }

    fn tagged_frame(&self, packet: &[u8], tag: &[u8]) -> Vec<u8> {
        let ether_type: [u8; 2] = if packet[0] >> 4 == 4 {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        [&self.there, &self.here, tag, &ether_type, packet].concat()
    }

    /// Sends many frames with few system calls.
    pub fn send_frames<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) {
        const BATCH: usize = 64;
        let mut frames = frames.peekable();
        while frames.peek().is_some() {
            let mut pieces: Vec<libc::iovec> = frames
                .by_ref()
                .take(BATCH)
                .map(|frame| libc::iovec {
                    iov_base: frame.as_ptr().cast_mut().cast(),
                    iov_len: frame.len(),
                })
                .collect();
            let mut messages: Vec<libc::mmsghdr> = pieces
                .iter_mut()
                .map(|piece| {
                    // SAFETY: mmsghdr is integers and pointers, for which zero is valid.
                    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                    message.msg_hdr.msg_iov = piece;
                    message.msg_hdr.msg_iovlen = 1;
                    message
                })
                .collect();
            let mut done = 0;
            while done < messages.len() {
                let rest = &mut messages[done..];
                // SAFETY: each message points to a live iovec, which points to a live frame. The kernel
                // only reads them.
                let sent = unsafe {
                    libc::sendmmsg(
                        self.socket.as_raw_fd(),
                        rest.as_mut_ptr(),
                        rest.len() as u32,
                        0,
                    )
                };
                match usize::try_from(sent) {
                    Ok(sent) => done += sent,
                    Err(_) => {
                        let error = std::io::Error::last_os_error();
                        // The send queue of the link is full.
                        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
                        std::thread::yield_now();
                    }
                }
            }
        }
    }

    /// Sends an IP packet in a frame with an IEEE 802.1Q tag of this VLAN.
    pub fn send_tagged(&self, vlan: u16, packet: &[u8]) {
        let [high, low] = vlan.to_be_bytes();
        self.send_frame(packet, &[0x81, 0x00, high, low]);
    }

    fn send_frame(&self, packet: &[u8], tag: &[u8]) {
        let frame = self.tagged_frame(packet, tag);
        // SAFETY: the pointer and the length are those of a live buffer.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        assert_eq!(
            sent,
            frame.len() as isize,
            "send: {}",
            std::io::Error::last_os_error()
        );
    }
}
