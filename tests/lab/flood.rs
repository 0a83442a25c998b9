//! Sends packets at a given rate from many source addresses.

use super::{ROUTER, Wire, packet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Prepared frames. Each gets its own sequence number when it is sent, because the daemon ignores
/// copies.
pub struct Flood(Vec<Vec<u8>>);

/// The offset of the sequence number: after the Ethernet header, the IPv4 header and the ports.
const SEQUENCE_NUMBER: std::ops::Range<usize> = 14 + 20 + 4..14 + 20 + 8;

impl Flood {
    /// One SYN to `port` from each of `sources` addresses, starting at 10.0.0.1 plus `first`.
    pub fn new(wire: &Wire, port: u16, first: u32, sources: u32) -> Flood {
        let start = u32::from(Ipv4Addr::new(10, 0, 0, 1)) + first;
        let frame = |source: u32| {
            let address = Ipv4Addr::from(start + source).to_string();
            wire.frame(&packet::syn(&address, ROUTER, port, source))
        };
        Flood((0..sources).map(frame).collect())
    }

    /// SYNs from one address to each of `ports` in order.
    pub fn scan(wire: &Wire, source: &str, ports: impl Iterator<Item = u16>) -> Flood {
        let frame = |port: u16| wire.frame(&packet::syn(source, ROUTER, port, u32::from(port)));
        Flood(ports.map(frame).collect())
    }

    /// Sends `number` frames in order at `per_second`, from the first CPU, until `stop` is set.
    pub fn send(&self, wire: &Wire, number: usize, per_second: u32, stop: &AtomicBool) {
        pin();
        let start = Instant::now();
        let mut sent = 0;
        let mut frames = self.0.iter().cycle().cloned().zip(1_u32..);
        while sent < number && !stop.load(Ordering::Relaxed) {
            let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as usize;
            let now = due.min(number) - sent.min(due);
            if now == 0 {
                let next = Duration::from_secs_f64((sent + 1) as f64 / f64::from(per_second));
                std::thread::sleep(next.saturating_sub(start.elapsed()));
                continue;
            }
            let batch = frames.by_ref().take(now).map(|(mut frame, number)| {
                frame[SEQUENCE_NUMBER].copy_from_slice(&number.to_be_bytes());
                frame
            });
            let batch: Vec<Vec<u8>> = batch.collect();
            wire.send_frames(batch.iter().map(Vec::as_slice));
            sent += now;
        }
    }

    /// Like [`Flood::send`], but cannot be stopped.
    pub fn send_all(&self, wire: &Wire, number: usize, per_second: u32) {
        self.send(wire, number, per_second, &AtomicBool::new(false));
    }
}

/// Pins this thread to the first CPU.
fn pin() {
    // SAFETY: cpu_set_t is an array of bits, for which zero is valid. The set is live during the
    // call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}
