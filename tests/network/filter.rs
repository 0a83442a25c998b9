//! The kernel's own verdict on our filters: packets are written to a tun device, and a filtered
//! packet socket receives those that pass.

#[path = "../capture/interpret.rs"]
#[allow(dead_code, reason = "the kernel itself checks the programs here")]
mod interpret;
#[path = "../capture/packets.rs"]
#[allow(
    dead_code,
    reason = "the tun device derives the protocol from the packet"
)]
mod packets;
#[path = "../capture/world.rs"]
mod world;

use crate::Test;
use interpret::{Meta, run};
use knockd_rs::knock::tripwire::Tripwires;
use knockd_rs::knock::{FlagRule, Pattern, Protocol, Sequence, Step};
use knockd_rs::limits::SNAP_LENGTH;
use knockd_rs::util::bpf::Instruction;
use libtest_mimic::Failed;
use packets::packet;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use world::{World, ip, world};

const WORLDS: usize = 120;
const PACKETS: usize = 200;

/// Too short for any filter. Its arrival shows that the packet before it has been through all
/// sockets.
const MARKER: [u8; 1] = [0x4f];

pub const TESTS: &[Test] = &[
    ("kernel_interpreter_and_rule_agree", || {
        in_namespace(kernel_interpreter_and_rule_agree);
    }),
    ("what_this_host_sends_does_not_pass", || {
        in_namespace(what_this_host_sends_does_not_pass);
    }),
];

/// Runs the test on a thread that enters a new network namespace.
fn in_namespace(test: fn() -> Result<(), Failed>) {
    let result = std::thread::spawn(test).join().expect("no panic");
    if let Err(failed) = result {
        panic!("{}", failed.message().unwrap_or_default());
    }
}

fn kernel_interpreter_and_rule_agree() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let mut runner = TestRunner::deterministic();
    let (mut passed, mut exact) = (0, 0);
    for _ in 0..WORLDS {
        let world = draw(&mut runner, world())?;
        let filter = world.compile();
        let socket = Socket::open(lab.index, Some(&filter.program))?;
        for _ in 0..PACKETS {
            let packet = draw(&mut runner, packet())?;
            let bytes = packet.bytes(&world);
            // The tun device derives the protocol from the version and accepts no other packets.
            let protocol = match bytes.first().map(|byte| byte >> 4) {
                Some(4) => world::ETH_P_IP,
                Some(6) => world::ETH_P_IPV6,
                _ => continue,
            };
            let interpreter = run(&filter.program, &bytes, &Meta::host(protocol)) != 0;
            let wanted = world.wants(&bytes, protocol);
            let got = lab.send(&bytes, &socket)?;
            let expected = interpreter.then(|| bytes[..bytes.len().min(SNAP_LENGTH)].to_vec());
            if got != expected {
                return Err(
                    format!("kernel {got:x?}, interpreter {interpreter}: {bytes:x?}").into(),
                );
            }
            let may_pass = world.may_pass(&bytes, protocol);
            if filter.exact && got.is_some() && !may_pass || wanted && got.is_none() {
                return Err(format!("kernel {got:x?}, rule {wanted}: {bytes:x?}").into());
            }
            passed += usize::from(got.is_some());
        }
        exact += usize::from(filter.exact);
    }
    println!(
        "{} packets for {WORLDS} door sets ({exact} filters exact): {passed} passed",
        lab.sent
    );
    if lab.sent < 20_000 || passed < 1_000 || exact == WORLDS {
        return Err("too few cases to prove anything".into());
    }
    Ok(())
}

/// The same packet passes when it arrives and not when it is sent.
fn what_this_host_sends_does_not_pass() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let step = Step {
        protocol: Protocol::Udp,
        port: 7000,
    };
    let pattern = Pattern {
        sequence: Sequence::new(&[step]),
        seq_timeout: 1_000,
        flags: FlagRule::default(),
        target: None,
    };
    let world = World {
        patterns: vec![pattern],
        tripwires: Tripwires::default(),
        local: vec![ip("10.0.0.2")],
        ipv4_only: false,
    };
    let filtered = Socket::open(lab.index, Some(&world.compile().program))?;

    let mut udp = vec![
        0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    udp.extend([0x30, 0x39, 0x1b, 0x58, 0, 8, 0, 0]);
    assert_eq!(lab.send(&udp, &filtered)?, Some(udp.clone()), "incoming");

    // Send it out of the tun device. Our clock socket sees it leave, the filtered one does not. A
    // socket never sees the packets that it sends, so a third one sends.
    Socket::open(lab.index, None)?.send(lab.index, &udp)?;
    while lab.clock.receive(true)?.as_deref() != Some(&udp[..]) {}
    assert_eq!(lab.send(&[0x45], &filtered)?, None, "outgoing");
    Ok(())
}

fn draw<S: Strategy>(runner: &mut TestRunner, strategy: S) -> Result<S::Value, Failed> {
    Ok(strategy
        .new_tree(runner)
        .map_err(|reason| reason.to_string())?
        .current())
}

/// A network namespace of the calling thread, with a tun device that is up.
struct Lab {
    tun: File,
    index: i32,
    /// An unfiltered socket.
    clock: Socket,
    sent: usize,
}

impl Lab {
    fn new() -> io::Result<Lab> {
        // SAFETY: takes no pointer; moves only this thread to a new network namespace.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        let tun = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")?;
        // SAFETY: all bytes zero are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        // SAFETY: the request is live during the call, and TUNSETIFF reads and writes an ifreq.
        check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
        // SAFETY: takes no pointer.
        let control = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) })?;
        // SAFETY: the descriptor is new and nothing else owns it.
        let control = unsafe { OwnedFd::from_raw_fd(control) };
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        // SAFETY: as above; SIOCSIFFLAGS reads an ifreq.
        check(unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS as _, &mut request) })?;
        // SAFETY: as above; SIOCGIFINDEX reads and writes an ifreq.
        check(unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCGIFINDEX as _, &mut request) })?;
        // SAFETY: the kernel has just written this field of the union.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        Ok(Lab {
            tun,
            index,
            clock: Socket::open(index, None)?,
            sent: 0,
        })
    }

    /// Sends the packet in through the tun device. Returns what the socket received of it.
    fn send(&mut self, packet: &[u8], socket: &Socket) -> io::Result<Option<Vec<u8>>> {
        self.tun.write_all(packet)?;
        self.tun.write_all(&MARKER)?;
        while self.clock.receive(true)?.as_deref() != Some(&MARKER[..]) {}
        self.sent += 1;
        socket.receive(false)
    }
}

/// A packet socket like the daemon's: AF_PACKET, SOCK_DGRAM.
struct Socket(OwnedFd);

impl Socket {
    /// Attaches the filter before binding, so that nothing unfiltered gets in.
    fn open(index: i32, filter: Option<&[Instruction]>) -> io::Result<Socket> {
        // SAFETY: takes no pointer.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0) })?;
        // SAFETY: the descriptor is new and nothing else owns it.
        let socket = Socket(unsafe { OwnedFd::from_raw_fd(fd) });
        if let Some(filter) = filter {
            let program = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_ptr().cast_mut().cast(),
            };
            // SAFETY: the kernel reads `len` instructions with the layout of Instruction, which are
            // live during the call.
            check(unsafe {
                libc::setsockopt(
                    fd,
                    libc::SOL_SOCKET,
                    libc::SO_ATTACH_FILTER,
                    (&raw const program).cast(),
                    size_of::<libc::sock_fprog>() as u32,
                )
            })?;
        }
        // Makes a fruitless wait fail.
        let timeout = libc::timeval {
            tv_sec: 20,
            tv_usec: 0,
        };
        // SAFETY: the kernel reads a timeval, which is live during the call.
        check(unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                size_of::<libc::timeval>() as u32,
            )
        })?;
        let address = link_address(index, libc::ETH_P_ALL);
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the kernel reads a sockaddr_ll of that length, which is live during the call.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
        Ok(socket)
    }

    fn send(&self, index: i32, packet: &[u8]) -> io::Result<()> {
        let address = link_address(index, libc::ETH_P_IP);
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the kernel reads packet and address with these lengths; both are live during the
        // call.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                length,
            )
        };
        check(sent as i32).map(drop)
    }

    /// Returns the next packet. Returns `None` if there is none and `wait` is false.
    fn receive(&self, wait: bool) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 4096];
        let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
        // SAFETY: the kernel writes at most the buffer's length into the buffer.
        let length = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                flags,
            )
        };
        match check(length as i32) {
            Ok(length) => {
                buffer.truncate(length as usize);
                Ok(Some(buffer))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !wait => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn link_address(index: i32, protocol: i32) -> libc::sockaddr_ll {
    // SAFETY: all bytes zero are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = index;
    address
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
