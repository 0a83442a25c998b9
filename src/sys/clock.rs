//! The two clocks: monotonic time for every decision, local time for log lines.

use super::read_file;
use crate::door::Millis;
use crate::zone::Zone;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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

/// Wall-clock time, in seconds since 1970.
pub type UnixTime = i64;

/// The wall clock.
#[allow(clippy::unnecessary_cast)] // time_t is shorter elsewhere
pub fn wall() -> UnixTime {
    // SAFETY: a null pointer is allowed and asks for the return value only.
    unsafe { libc::time(std::ptr::null_mut()) as UnixTime }
}

/// The zone of the machine: `TZ`, /etc/localtime, or /etc/TZ, where OpenWrt and DD-WRT have the rule. (musl knows no /etc/TZ, and its
/// `localtime_r` is 7 kB on mipsel.)
pub fn zone() -> Zone {
    let of_file = |path: &Path| Zone::of_file(&read_file(path).ok()?);
    // SAFETY: a C string; this process has one thread, and nobody changes the environment.
    let tz = unsafe { libc::getenv(c"TZ".as_ptr()).as_ref() };
    let zone = match tz {
        Some(tz) => {
            // SAFETY: an entry of the environment is a C string.
            let tz = unsafe { CStr::from_ptr(tz) }.to_bytes();
            let tz = tz.strip_prefix(b":").unwrap_or(tz);
            let file = Path::new("/usr/share/zoneinfo").join(OsStr::from_bytes(tz));
            of_file(&file).or_else(|| Zone::of_rule(tz))
        }
        None => of_file(Path::new("/etc/localtime")).or_else(|| {
            let rule = read_file(Path::new("/etc/TZ")).ok()?;
            Zone::of_rule(rule.trim_ascii())
        }),
    };
    zone.unwrap_or_default()
}
