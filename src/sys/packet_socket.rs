//! AF_PACKET sockets (packet(7)): IP packets without their link header, whatever the link is.

use super::{cerr, cerr_len, retry, socklen};
use crate::filter::Instruction;
use crate::limits::PACKET_BUFFER_BYTES;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct sock_fprog` points at the kernel's instructions; ours must look the same.
const _: () = assert!(
    size_of::<Instruction>() == size_of::<libc::sock_filter>()
        && align_of::<Instruction>() == align_of::<libc::sock_filter>()
);

/// A packet socket that delivers nothing until it is bound.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens it with protocol 0: no packet gets in before [`bind`](Self::bind), so none passes unfiltered. Needs CAP_NET_RAW.
    pub fn open() -> io::Result<PacketSocket> {
        // SAFETY: no pointers.
        let fd = cerr(unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            )
        })?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let socket = PacketSocket(unsafe { OwnedFd::from_raw_fd(fd) });
        let bytes: libc::c_int = PACKET_BUFFER_BYTES;
        // Only CAP_NET_ADMIN may have this much; without it the default of the machine has to do.
        // SAFETY: `bytes` is an int of the length given.
        let _ = cerr(unsafe {
            libc::setsockopt(
                socket.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const bytes).cast(),
                socklen::<libc::c_int>(),
            )
        });
        Ok(socket)
    }

    /// Puts this program in place of the one before, which stays where the new one is refused.
    pub fn attach(&self, program: &[Instruction]) -> io::Result<()> {
        let filter = libc::sock_fprog {
            len: program.len() as libc::c_ushort,
            filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
        };
        // SAFETY: `filter` points at `len` instructions laid out as the kernel's; it copies them and writes nothing.
        cerr(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const filter).cast(),
                socklen::<libc::sock_fprog>(),
            )
        })
        .map(drop)
    }

    /// From now on takes packets of the interface with this index; 0: of all. Bound to ETH_P_ALL as libpcap does, so that tc and
    /// nft ingress hooks do not hide knocks.
    pub fn bind(&self, interface: u32) -> io::Result<()> {
        // SAFETY: an all-zero sockaddr_ll is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = interface as libc::c_int;
        // SAFETY: `address` is a sockaddr_ll of the length given.
        cerr(unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                (&raw const address).cast(),
                socklen::<libc::sockaddr_ll>(),
            )
        })
        .map(drop)
    }

    /// How many packets were lost for want of room since this was asked last (PACKET_STATISTICS of packet(7)).
    pub fn dropped(&self) -> io::Result<u32> {
        // struct tpacket_stats: packets, drops.
        let mut statistics = [0u32; 2];
        let mut length = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: `statistics` is writable for the `length` bytes that the kernel may fill.
        cerr(unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut length,
            )
        })?;
        Ok(statistics[1])
    }

    /// The next packet, cut at the buffer's length, without waiting: its length here and the index of its interface.
    /// `None`: no packet now. An error such as ENETDOWN is told once by the kernel; the socket lives on.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, u32)>> {
        // SAFETY: an all-zero sockaddr_ll is valid.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut from_length = socklen::<libc::sockaddr_ll>();
        let received = retry(|| {
            // SAFETY: buffer, address and its length are valid for writing, with the lengths given.
            cerr_len(unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut from_length,
                )
            })
        });
        match received {
            Ok(length) => Ok(Some((length, from.sll_ifindex as u32))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
