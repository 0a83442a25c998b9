//! A token bucket: limits openings, and the log lines that clients can cause (`LogRate`).
#![forbid(unsafe_code)]

use crate::util::time::Millis;

/// The tokens, and the number of dropped lines.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: u32,
    burst: u64,
    /// In thousandths of a line, so that short times do not round to nothing.
    tokens: u64,
    refilled: Millis,
    left_out: u32,
}

const LINE: u64 = 1000;

impl TokenBucket {
    /// Allows `per_second` lines with bursts of `burst`. 0 means no limit.
    pub fn new(per_second: u32, burst: u32, now: Millis) -> TokenBucket {
        TokenBucket {
            per_second,
            burst: u64::from(burst) * LINE,
            tokens: u64::from(burst) * LINE,
            refilled: now,
            left_out: 0,
        }
    }

    /// Returns whether one more line is allowed now. If not, counts it as dropped.
    pub fn allow(&mut self, now: Millis) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let earned = now
            .saturating_sub(self.refilled)
            .saturating_mul(self.per_second.into());
        self.tokens = self.tokens.saturating_add(earned).min(self.burst);
        self.refilled = now;
        match self.tokens.checked_sub(LINE) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => {
                self.left_out();
                false
            }
        }
    }

    /// Returns whether there is no limit.
    pub fn is_unbounded(&self) -> bool {
        self.per_second == 0
    }

    /// Counts an allowed line that could not be sent as dropped.
    pub fn left_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }

    /// Returns the number of dropped lines since the last call.
    pub fn take_left_out(&mut self) -> Option<u32> {
        match std::mem::take(&mut self.left_out) {
            0 => None,
            lines => Some(lines),
        }
    }

    /// Returns whether there are dropped lines that were not reported.
    pub fn has_left_out(&self) -> bool {
        self.left_out > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LOG_BURST;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut rate = TokenBucket::new(50, LOG_BURST, 0);
        let passed = (0..1000).filter(|_| rate.allow(0)).count();
        assert_eq!(passed, LOG_BURST as usize);
        let passed = (0..10_000).filter(|tick| rate.allow(tick / 10)).count();
        assert_eq!(passed, 49, "999 ms at 50 lines a second");
        assert_eq!(rate.take_left_out(), Some(500 + 10_000 - 49));
        assert_eq!(rate.take_left_out(), None);
    }

    #[test]
    fn lines_a_millisecond_apart_still_earn_their_share() {
        let mut rate = TokenBucket::new(1, LOG_BURST, 0);
        while rate.allow(0) {}
        let passed = (0..=10_000).filter(|now| rate.allow(*now)).count();
        assert_eq!(passed, 10);
    }

    #[test]
    fn zero_is_no_bound() {
        let mut rate = TokenBucket::new(0, LOG_BURST, 0);
        assert!((0..5000).all(|_| rate.allow(0)));
        assert_eq!(rate.take_left_out(), None);
    }
}
