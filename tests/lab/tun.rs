//! A tun device that looks like a PPP link. The test holds the other end, as the provider does.

use super::{Namespace, wait_for};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// `linux/if_tun.h`: `_IOW('T', 202, int)` and `_IOW('T', 205, int)`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETLINK: libc::c_ulong = 0x4004_54cd;
/// `linux/if_arp.h`.
const ARPHRD_PPP: libc::c_ulong = 512;

/// A tun device of link type PPP. Dropping it removes the device, as ppp0 disappears when the line
/// drops.
pub struct Tun(File);

impl Tun {
    /// Creates the device in that namespace, down and without addresses.
    pub fn new(namespace: &Namespace, name: &str) -> Tun {
        let file = namespace.enter(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/net/tun")
                .expect("tun");
            let mut request = request(name);
            request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
            // The previous device can live on for a moment: if another test is starting a program,
            // that process holds a copy of its descriptor between fork and exec.
            wait_for("TUNSETIFF", || {
                // SAFETY: TUNSETIFF reads and writes one ifreq, which is live.
                let result =
                    unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &raw mut request) };
                let error = std::io::Error::last_os_error();
                assert!(
                    result == 0 || error.raw_os_error() == Some(libc::EBUSY),
                    "TUNSETIFF: {error}"
                );
                (result == 0).then_some(())
            });
            // SAFETY: TUNSETLINK takes an integer argument.
            let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETLINK as _, ARPHRD_PPP) };
            assert_eq!(result, 0, "TUNSETLINK: {}", std::io::Error::last_os_error());
            file
        });
        Tun(file)
    }

    /// Sends an IP packet as the peer.
    pub fn send(&self, packet: &[u8]) {
        (&self.0).write_all(packet).expect("write to tun");
    }
}

/// Sets an interface up with one system call, so it is up when this returns.
pub fn set_up(namespace: &Namespace, name: &str) {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    ask(namespace, libc::SIOCSIFFLAGS, &mut request);
}

/// Sets the first IPv4 address of an interface, also with one system call.
pub fn set_address(namespace: &Namespace, name: &str, address: Ipv4Addr) {
    let mut request = request(name);
    // SAFETY: sockaddr_in is plain integers, for which zero is valid, and fits into a sockaddr.
    let mut text: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    text.sin_family = libc::AF_INET as libc::sa_family_t;
    text.sin_addr.s_addr = u32::from(address).to_be();
    // SAFETY: both are plain data of 16 bytes.
    request.ifr_ifru.ifru_addr =
        unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(text) };
    ask(namespace, libc::SIOCSIFADDR, &mut request);
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is integers, arrays and a union of such, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ask(namespace: &Namespace, what: libc::c_ulong, request: &mut libc::ifreq) {
    let socket = namespace.enter(|| UdpSocket::bind("0.0.0.0:0").expect("socket"));
    // SAFETY: these ioctls read one ifreq, which is live.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what as _, request) };
    assert_eq!(result, 0, "ioctl: {}", std::io::Error::last_os_error());
}
