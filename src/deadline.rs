//! Times at which something is due, if there is anything. By functions of their own: inlined, one comparison is ten instructions on a
//! 32-bit CPU.
#![forbid(unsafe_code)]

use crate::door::Millis;

/// Whether that time has come.
#[inline(never)]
pub fn is_due(deadline: &Option<Millis>, now: Millis) -> bool {
    deadline.is_some_and(|due| due <= now)
}

/// The first of them.
#[inline(never)]
pub fn soonest(deadlines: &[Option<Millis>]) -> Option<Millis> {
    deadlines.iter().flatten().min().copied()
}
