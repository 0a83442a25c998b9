//! Time on the monotonic clock, in milliseconds, and times at which something is due.
#![forbid(unsafe_code)]

/// Milliseconds of CLOCK_MONOTONIC. A router boots in 1970 and jumps when NTP answers; this clock does neither.
pub type Millis = u64;

/// The time of what is not due at all.
pub const NEVER: Millis = Millis::MAX;

/// The first of them. By a function of its own: inlined, one comparison is ten instructions on a 32-bit CPU.
#[inline(never)]
pub fn soonest(deadlines: &[Millis]) -> Millis {
    deadlines.iter().min().copied().unwrap_or(NEVER)
}
