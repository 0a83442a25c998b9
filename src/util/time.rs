//! Time on the monotonic clock in milliseconds, and deadlines.
#![forbid(unsafe_code)]

/// Milliseconds of CLOCK_MONOTONIC. Routers boot in 1970, and their wall clock jumps when NTP
/// answers; this clock does neither.
pub type Millis = u64;

/// The deadline of something that is not scheduled.
pub const NEVER: Millis = Millis::MAX;

/// Returns the earliest deadline. A function of its own, because each inlined comparison takes ten
/// instructions on a 32-bit CPU.
#[inline(never)]
pub fn soonest(deadlines: &[Millis]) -> Millis {
    deadlines.iter().min().copied().unwrap_or(NEVER)
}
