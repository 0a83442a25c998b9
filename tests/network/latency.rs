//! A knock takes effect immediately.

use crate::lab::latency::{Latency, at_high_priority};
use crate::lab::{daemon_binary, is_original};
use std::time::Duration;

/// The median from the last knock to the execve of the shell stays far below that of knockd 0.8
/// (about 26 ms), even in a debug build on a busy machine. `scripts/bench` measures it.
pub fn is_far_below_the_original() {
    let mut times: Vec<Duration> = at_high_priority(|| {
        let latency = Latency::new(&daemon_binary(), is_original());
        (0..50).map(|_| latency.round().shell).collect()
    });
    times.sort();
    let median = times[times.len() / 2];
    assert!(
        median < Duration::from_millis(5) || is_original(),
        "{times:?}"
    );
}
