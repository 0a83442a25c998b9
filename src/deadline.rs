//! Times at which something is due.
#![forbid(unsafe_code)]

use crate::door::Millis;

/// The time of what is not due at all.
pub const NEVER: Millis = Millis::MAX;

/// The first of them. By a function of its own: inlined, one comparison is ten instructions on a 32-bit CPU.
#[inline(never)]
pub fn soonest(deadlines: &[Millis]) -> Millis {
    deadlines.iter().min().copied().unwrap_or(NEVER)
}
