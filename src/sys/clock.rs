//! The two clocks: monotonic time for every decision, local time for log lines.

use crate::door::Millis;
use std::mem::MaybeUninit;

/// Milliseconds of CLOCK_MONOTONIC.
pub fn monotonic() -> Millis {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing; CLOCK_MONOTONIC exists on every kernel since 2.6.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as Millis * 1000 + time.tv_nsec as Millis / 1_000_000
}

/// Wall-clock time as C calls it.
pub type UnixTime = libc::time_t;

/// The wall clock, in seconds since 1970.
pub fn wall() -> UnixTime {
    // SAFETY: a null pointer is allowed and asks for the return value only.
    unsafe { libc::time(std::ptr::null_mut()) }
}

/// Local date and time, broken down as in C's `struct tm` but with plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Year, such as 2026.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: i32,
    /// Day of the month, 1 to 31.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 60.
    pub second: i32,
}

/// That time in the zone of the machine (`TZ`, /etc/localtime).
pub fn local(time: UnixTime) -> LocalTime {
    let mut broken_down = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call, and an all-zero `tm` is a valid one should it fail.
    let tm = unsafe {
        libc::localtime_r(&time, broken_down.as_mut_ptr());
        broken_down.assume_init()
    };
    LocalTime {
        year: tm.tm_year + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
    }
}
