//! Captures what leaves an interface inside of the kernel's send path: when the sender's system
//! call returns, its packets have been captured.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use std::ffi::CString;
use std::mem::{size_of, zeroed};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The first ephemeral port. No test uses a step this high.
const FIRST_EPHEMERAL: u16 = 32768;

/// A captured packet.
#[derive(Debug)]
pub struct Seen {
    pub to: IpAddr,
    /// `tcp` or `udp`
    pub protocol: &'static str,
    pub source_port: u16,
    pub port: u16,
    /// Byte 13 of the TCP header; 0 for UDP.
    pub flags: u8,
    pub payload: Vec<u8>,
    /// The whole packet, without the parts that differ each time, see [`without_random_fields`].
    pub bytes: Vec<u8>,
}

impl Seen {
    pub fn is_knock(&self) -> bool {
        self.protocol == "udp" || self.flags == 0x02
    }
}

pub struct Capture(OwnedFd);

impl Capture {
    /// Starts to capture on that interface in this thread's namespace.
    pub fn on(interface: &str) -> Capture {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let name = CString::new(interface).unwrap();
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0) };
        assert!(
            fd >= 0,
            "packet socket: {}",
            std::io::Error::last_os_error()
        );
        // SAFETY: we own the new descriptor; sockaddr_ll is plain data; the name is a C string.
        let result = unsafe {
            let mut address: libc::sockaddr_ll = zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all;
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            assert_ne!(address.sll_ifindex, 0, "{interface}");
            let length = size_of::<libc::sockaddr_ll>() as u32;
            libc::bind(fd, (&raw const address).cast(), length)
        };
        assert_eq!(result, 0, "bind: {}", std::io::Error::last_os_error());
        // SAFETY: as above.
        Capture(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// All packets so far that left from an ephemeral port.
    pub fn sent_by_client(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        while let Some((bytes, outgoing)) = self.next() {
            seen.extend(parse(&bytes).filter(|s| outgoing && s.source_port >= FIRST_EPHEMERAL));
        }
        seen
    }

    /// The next packet, and whether it is outgoing.
    fn next(&self) -> Option<(Vec<u8>, bool)> {
        let fd = self.0.as_raw_fd();
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd.
        if unsafe { libc::poll(&raw mut poll, 1, 0) } != 1 {
            return None;
        }
        let mut bytes = vec![0; 2048];
        // SAFETY: the buffers are of the lengths given; sockaddr_ll is plain data.
        let (length, address) = unsafe {
            let mut address: libc::sockaddr_ll = zeroed();
            let mut size = size_of::<libc::sockaddr_ll>() as u32;
            let to = (&raw mut address).cast();
            let length = libc::recvfrom(fd, bytes.as_mut_ptr().cast(), 2048, 0, to, &raw mut size);
            (length, address)
        };
        bytes.truncate(usize::try_from(length).unwrap());
        Some((bytes, address.sll_pkttype == libc::PACKET_OUTGOING))
    }
}

fn parse(packet: &[u8]) -> Option<Seen> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let to = match sliced.net? {
        NetSlice::Ipv4(ip) => ip.header().destination_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().destination_addr().into(),
        _ => return None,
    };
    Some(match sliced.transport? {
        TransportSlice::Tcp(tcp) => Seen {
            to,
            protocol: "tcp",
            source_port: tcp.source_port(),
            port: tcp.destination_port(),
            flags: tcp.slice()[13],
            payload: tcp.payload().to_vec(),
            bytes: without_random_fields(packet),
        },
        TransportSlice::Udp(udp) => Seen {
            to,
            protocol: "udp",
            source_port: udp.source_port(),
            port: udp.destination_port(),
            flags: 0,
            payload: udp.payload().to_vec(),
            bytes: without_random_fields(packet),
        },
        _ => return None,
    })
}

/// The packet with zeros for the parts that differ each time: identification, flow label,
/// checksums, source port, sequence number and timestamp.
fn without_random_fields(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let (protocol, start) = if bytes[0] >> 4 == 4 {
        bytes[4..6].fill(0);
        bytes[10..12].fill(0);
        (bytes[9], usize::from(bytes[0] & 15) * 4)
    } else {
        bytes[1..4].fill(0);
        (bytes[6], 40)
    };
    let transport = &mut bytes[start..];
    transport[..2].fill(0);
    if protocol == libc::IPPROTO_UDP as u8 {
        transport[6..8].fill(0);
        return bytes;
    }
    transport[4..8].fill(0);
    transport[16..18].fill(0);
    let end = usize::from(transport[12] >> 4) * 4;
    let mut at = 20;
    while at < end && transport[at] != 0 {
        let length = if transport[at] == 1 {
            1
        } else {
            usize::from(transport[at + 1])
        };
        if transport[at] == 8 {
            transport[at + 2..at + 6].fill(0);
        }
        at += length;
    }
    bytes
}
