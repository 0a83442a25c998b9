//! A faulty line: a relay between two links that loses, duplicates and delays packets.

use super::{Namespace, link};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the relay does to TCP and UDP packets from the first side. It forwards everything else.
#[derive(Clone, Copy)]
pub struct Faults {
    /// Drop the first of every two packets.
    pub lose_every_other: bool,
    /// Send each packet that is not dropped again after this time.
    pub again_after: Option<Duration>,
}

/// A relay in its own namespace. Dropping it removes it.
pub struct Relay {
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    _namespace: Namespace,
}

impl Relay {
    /// Makes interface `a.1` in namespace `a.0` and `b.1` in `b.0`, and relays between them.
    pub fn between(a: (&Namespace, &str), b: (&Namespace, &str), faults: Faults) -> Relay {
        let namespace = Namespace::new("relay");
        link(a, (&namespace, "near"));
        link(b, (&namespace, "far"));
        let ends = ["near", "far"].map(|name| {
            let index = namespace.index(name).expect("interface");
            namespace.enter(|| open(index))
        });
        let (stop, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || run(&ends, faults, &stopped, &count));
        Relay {
            stop,
            seen,
            thread: Some(thread),
            _namespace: namespace,
        }
    }

    /// The number of TCP and UDP packets from the first side so far.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A packet socket that receives all frames of an interface. A read waits up to 5 ms.
fn open(index: u32) -> File {
    // SAFETY: socket takes three integers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(
        fd >= 0,
        "packet socket: {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: fd is a new descriptor that nothing else owns.
    let socket = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: sockaddr_ll is plain integers, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let timeout = libc::timeval {
        tv_sec: 0,
        tv_usec: 5_000,
    };
    // SAFETY: both calls get live structures with their true sizes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const timeout).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        ) | libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "bind: {}", std::io::Error::last_os_error());
    socket
}

fn run([a, b]: &[File; 2], faults: Faults, stop: &AtomicBool, seen: &AtomicUsize) {
    let mut later: Vec<(Instant, Vec<u8>)> = Vec::new();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        later.retain(|(due, frame)| {
            let is_due = *due <= now;
            if is_due {
                let _ = { b }.write(frame);
            }
            !is_due
        });
        if let Ok(length) = { b }.read(&mut buffer) {
            let _ = { a }.write(&buffer[..length]);
        }
        let Ok(length) = { a }.read(&mut buffer) else {
            continue;
        };
        let frame = &buffer[..length];
        // IPv4 with TCP or UDP.
        let is_knock = frame.get(12..14) == Some(&[8, 0]) && matches!(frame.get(23), Some(6 | 17));
        if is_knock {
            let number = seen.fetch_add(1, Ordering::Relaxed);
            if faults.lose_every_other && number.is_multiple_of(2) {
                continue;
            }
            later.extend(faults.again_after.map(|time| (now + time, frame.to_vec())));
        }
        let _ = { b }.write(frame);
    }
}
