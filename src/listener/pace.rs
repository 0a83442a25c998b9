//! How often packets are read. A wake-up costs more than a packet, so during a flood the listener
//! pauses between two reads and each finds many packets. A single knock is read at once.
#![forbid(unsafe_code)]

use crate::limits::{PACE_WINDOW_MS, PACKETS_AT_ONCE, PAUSE_MS};
use crate::util::time::Millis;

/// Measures the packet rate.
#[derive(Debug, Default)]
pub struct Pace {
    /// The start of the current window.
    since: Millis,
    packets: u64,
    is_flood: bool,
}

impl Pace {
    /// Counts packets that were just read. Returns how long to pause before the next read.
    pub fn pause_after(&mut self, packets: u64, now: Millis) -> Option<Millis> {
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= PACE_WINDOW_MS {
            // More than one packet per millisecond.
            self.is_flood = self.packets > elapsed;
            self.since = now;
            self.packets = 0;
        }
        self.packets += packets;
        // After a full batch more packets may wait.
        (self.is_flood && (1..PACKETS_AT_ONCE).contains(&packets)).then_some(PAUSE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_read_in_pieces_and_a_knock_after_it_at_once() {
        let mut pace = Pace::default();
        // One packet per read, 20 reads per millisecond: recognised as a flood within two windows.
        let mut paused_at = None;
        for number in 0..20_000u64 {
            let now = 5_000 + number / 20;
            if pace.pause_after(1, now).is_some() {
                paused_at = Some(now);
                break;
            }
        }
        assert_eq!(paused_at, Some(5_000 + PACE_WINDOW_MS));
        // A flood that is read in pieces is still a flood.
        for now in 6_000..7_000 {
            pace.pause_after(20, now);
        }
        assert_eq!(pace.pause_after(20, 7_000), Some(PAUSE_MS));
        assert_eq!(pace.pause_after(PACKETS_AT_ONCE, 7_000), None);
        // The flood ends; then slow knocks, and four steps at once.
        assert_eq!(pace.pause_after(1, 9_000), None);
        for now in (9_000..20_000).step_by(5) {
            assert_eq!(pace.pause_after(1, now), None);
        }
        assert_eq!(pace.pause_after(4, 30_000), None);
        assert_eq!(pace.pause_after(1, 30_000 + PACE_WINDOW_MS), None);
    }
}
