//! AF_PACKET sockets (packet(7)) of type SOCK_DGRAM: IP packets without their link header.

use super::error::{Error, Result, cerr, retry};
use super::raw_address::socklen;
use crate::limits::{BATCH, PACKET_BUFFER_BYTES, SNAP_LENGTH};
use crate::util::bpf::Instruction;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct sock_fprog` points to the kernel's instructions, which ours must match.
const _: () = assert!(
    size_of::<Instruction>() == size_of::<libc::sock_filter>()
        && align_of::<Instruction>() == align_of::<libc::sock_filter>()
);

/// A packet socket. It delivers nothing until it is bound.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens the socket with protocol 0: it receives no packet before [`bind`](Self::bind), so none
    /// gets through unfiltered. Needs CAP_NET_RAW.
    pub fn open() -> Result<PacketSocket> {
        // SAFETY: no pointers.
        let fd = cerr(unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            )
        })?;
        // SAFETY: the kernel has just made this descriptor, and no one else knows it.
        let socket = PacketSocket(unsafe { OwnedFd::from_raw_fd(fd) });
        let bytes: libc::c_int = PACKET_BUFFER_BYTES;
        // Needs CAP_NET_ADMIN. Otherwise the default size has to do.
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

    /// Duplicates the descriptor.
    pub fn try_clone(&self) -> Result<PacketSocket> {
        Ok(PacketSocket(self.0.try_clone()?))
    }

    /// Takes over the descriptor that the keeper opened and left open for this process.
    pub fn inherited(number: u32) -> PacketSocket {
        // SAFETY: the keeper says so, and names each but once.
        PacketSocket(unsafe { OwnedFd::from_raw_fd(number as libc::c_int) })
    }

    /// Replaces the filter. If the kernel refuses the new one, the old one stays.
    pub fn attach(&self, program: &[Instruction]) -> Result<()> {
        let filter = libc::sock_fprog {
            len: program.len() as libc::c_ushort,
            filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
        };
        // SAFETY: `filter` points at `len` instructions laid out as the kernel's; it copies them
        // and writes nothing.
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

    /// Binds the socket to this interface, or to all. Uses ETH_P_ALL as libpcap does, so that tc
    /// and nft ingress hooks do not hide knocks.
    pub fn bind(&self, interface: InterfaceIndex) -> Result<()> {
        // SAFETY: an all-zero sockaddr_ll is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = interface.0 as libc::c_int;
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

    /// Returns how many packets the kernel has dropped since the last call (PACKET_STATISTICS of
    /// packet(7)).
    pub fn dropped(&self) -> Result<u32> {
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

    /// Receives waiting packets into `batch`, without waiting. Returns their number, 0 if there are
    /// none. If the batch is not full, no more wait. The kernel reports errors such as ENETDOWN
    /// once; the socket stays usable.
    pub fn receive(&self, batch: &mut Batch) -> Result<usize> {
        match batch.receive_many(self.0.as_raw_fd()) {
            Err(Error::Os(libc::EAGAIN)) => Ok(0),
            // recvmmsg exists since Linux 2.6.33.
            Err(Error::Os(libc::ENOSYS)) => batch.receive_each(self.0.as_raw_fd()),
            received => received,
        }
    }
}

/// Buffers for packets, each cut at [`SNAP_LENGTH`].
pub struct Batch {
    buffers: [[u8; SNAP_LENGTH]; BATCH],
    /// The captured length of each packet, and how it came in.
    packets: [(usize, Arrival); BATCH],
}

/// The number of an interface in its network namespace, from 1 (netdevice(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceIndex(pub u32);

impl InterfaceIndex {
    /// Stands for all interfaces.
    pub const ANY: InterfaceIndex = InterfaceIndex(0);
}

/// How a packet came in.
#[derive(Clone, Copy, Default)]
pub struct Arrival {
    /// The interface.
    pub interface: InterfaceIndex,
    /// The frame had another destination MAC address than the interface (PACKET_OTHERHOST).
    pub is_for_other: bool,
}

impl From<&libc::sockaddr_ll> for Arrival {
    fn from(from: &libc::sockaddr_ll) -> Arrival {
        Arrival {
            interface: InterfaceIndex(from.sll_ifindex as u32),
            is_for_other: from.sll_pkttype == libc::PACKET_OTHERHOST,
        }
    }
}

impl Default for Batch {
    fn default() -> Batch {
        Batch {
            buffers: [[0; SNAP_LENGTH]; BATCH],
            packets: [Default::default(); BATCH],
        }
    }
}

impl Batch {
    /// Returns one packet, and how it came in.
    pub fn packet(&self, number: usize) -> Option<(&[u8], Arrival)> {
        let (length, arrival) = *self.packets.get(number)?;
        Some((self.buffers.get(number)?.get(..length)?, arrival))
    }

    /// Receives all waiting packets with one call: recvmmsg(2).
    fn receive_many(&mut self, socket: libc::c_int) -> Result<usize> {
        // SAFETY: zero is valid for all three: integers and pointers.
        let (mut messages, mut pieces, mut from): (
            [libc::mmsghdr; BATCH],
            [libc::iovec; BATCH],
            [libc::sockaddr_ll; BATCH],
        ) = unsafe { std::mem::zeroed() };
        for (((message, piece), from), buffer) in messages
            .iter_mut()
            .zip(&mut pieces)
            .zip(&mut from)
            .zip(&mut self.buffers)
        {
            piece.iov_base = buffer.as_mut_ptr().cast();
            piece.iov_len = buffer.len();
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_name = (&raw mut *from).cast();
            message.msg_hdr.msg_namelen = socklen::<libc::sockaddr_ll>();
        }
        let received = retry(&mut || {
            // SAFETY: every message points at one piece and one address, every piece at one buffer,
            // all of them live, writable and of the lengths given; a null time-out is allowed.
            let received = unsafe {
                libc::syscall(
                    libc::SYS_recvmmsg,
                    socket,
                    messages.as_mut_ptr(),
                    BATCH,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut::<libc::timespec>(),
                )
            };
            received as isize
        })?;
        for ((packet, message), from) in self.packets.iter_mut().zip(&messages).zip(&from) {
            *packet = (message.msg_len as usize, from.into());
        }
        Ok(received)
    }

    /// The same with one call for each packet.
    fn receive_each(&mut self, socket: libc::c_int) -> Result<usize> {
        for (number, (buffer, packet)) in self.buffers.iter_mut().zip(&mut self.packets).enumerate()
        {
            // SAFETY: an all-zero sockaddr_ll is valid.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut from_length = socklen::<libc::sockaddr_ll>();
            let received = retry(&mut || {
                // SAFETY: buffer, address and its length are valid for writing, with the lengths
                // given.
                unsafe {
                    libc::recvfrom(
                        socket,
                        buffer.as_mut_ptr().cast(),
                        buffer.len(),
                        libc::MSG_DONTWAIT,
                        (&raw mut from).cast(),
                        &raw mut from_length,
                    )
                }
            });
            match received {
                Ok(length) => *packet = (length, (&from).into()),
                Err(error) if number == 0 && !error.is(libc::EAGAIN) => {
                    return Err(error);
                }
                // Packets that were read so far count. An error after them is lost, with what it
                // reported.
                Err(_) => return Ok(number),
            }
        }
        Ok(BATCH)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
