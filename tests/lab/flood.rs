//! Packets at a rate, from many addresses.

use super::{ROUTER, Wire, packet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Frames that are made before they are needed.
pub struct Flood(Vec<Vec<u8>>);

impl Flood {
    /// One SYN to that port from each of so many addresses, beginning at 10.0.0.1 plus `first`.
    pub fn new(wire: &Wire, port: u16, first: u32, sources: u32) -> Flood {
        let start = u32::from(Ipv4Addr::new(10, 0, 0, 1)) + first;
        let frame = |source: u32| {
            let address = Ipv4Addr::from(start + source).to_string();
            wire.frame(&packet::syn(&address, ROUTER, port, source))
        };
        Flood((0..sources).map(frame).collect())
    }

    /// So many SYNs from one address, to these ports in turn.
    pub fn scan(wire: &Wire, source: &str, ports: impl Iterator<Item = u16>) -> Flood {
        let frame = |port: u16| wire.frame(&packet::syn(source, ROUTER, port, u32::from(port)));
        Flood(ports.map(frame).collect())
    }

    /// Sends `number` of them in turn, at so many a second, from the first processor; until `stop`.
    pub fn send(&self, wire: &Wire, number: usize, per_second: u32, stop: &AtomicBool) {
        pin();
        let start = Instant::now();
        let mut sent = 0;
        let mut frames = self.0.iter().map(Vec::as_slice).cycle();
        while sent < number && !stop.load(Ordering::Relaxed) {
            let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as usize;
            let now = due.min(number) - sent.min(due);
            if now == 0 {
                let next = Duration::from_secs_f64((sent + 1) as f64 / f64::from(per_second));
                std::thread::sleep(next.saturating_sub(start.elapsed()));
                continue;
            }
            wire.send_frames(frames.by_ref().take(now));
            sent += now;
        }
    }

    /// The same to the end.
    pub fn send_all(&self, wire: &Wire, number: usize, per_second: u32) {
        self.send(wire, number, per_second, &AtomicBool::new(false));
    }
}

/// Binds this thread to the first processor.
fn pin() {
    // SAFETY: cpu_set_t is an array of bits, for which zero is valid; the set is live during the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}
