//! The two clocks: monotonic time for every decision, local time for log lines.

use super::file::read_file;
use crate::util::time::Millis;
use crate::zone::Zone;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Milliseconds of CLOCK_MONOTONIC.
pub fn monotonic() -> Millis {
    let time = read(libc::CLOCK_MONOTONIC);
    time.tv_sec as Millis * 1000 + (time.tv_nsec / 1_000_000) as Millis
}

/// Wall-clock time, in seconds since 1970.
pub type UnixTime = i64;

/// The wall clock.
pub fn wall() -> UnixTime {
    let time = read(libc::CLOCK_REALTIME);
    #[cfg(target_pointer_width = "32")]
    return unsigned(time.tv_sec);
    #[cfg(not(target_pointer_width = "32"))]
    time.tv_sec
}

/// Seconds of a clock of 32 bits, which are good until 2106: from 2038 on it gives negative ones.
#[cfg(any(target_pointer_width = "32", test))]
fn unsigned(seconds: i32) -> UnixTime {
    (seconds as u32).into()
}

/// CLOCK_MONOTONIC exists on every kernel since 2.6.
#[cfg(not(any(target_arch = "mips", target_arch = "arm")))]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time
}

/// The same by number: to look for the vDSO, which most of these CPUs' kernels lack, is 1.5 kB of musl.
#[cfg(any(target_arch = "mips", target_arch = "arm"))]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing, two words as this call has it.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time) };
    if result == -1 {
        // A kernel without CONFIG_COMPAT_32BIT_TIME has only this one (since 5.1).
        let mut long = [0i64; 2];
        // SAFETY: `long` is valid for writing, two numbers of 64 bits as this call has it.
        unsafe { libc::syscall(CLOCK_GETTIME64, clock, long.as_mut_ptr()) };
        time.tv_sec = long[0] as _;
        time.tv_nsec = long[1] as _;
    }
    time
}

/// Two words, as the kernel's call of that number has it.
#[cfg(any(target_arch = "mips", target_arch = "arm"))]
const _: () = assert!(size_of::<libc::timespec>() == 8);

/// clock_gettime64, for which libc has no name.
#[cfg(target_arch = "arm")]
pub(super) const CLOCK_GETTIME64: libc::c_long = 403;
#[cfg(target_arch = "mips")]
pub(super) const CLOCK_GETTIME64: libc::c_long = 4403;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_32_bits_is_good_until_2106() {
        for (seconds, year, month, day) in [
            (i32::MAX, 2038, 1, 19),
            (i32::MIN, 2038, 1, 19),
            (-1, 2106, 2, 7),
        ] {
            let time = Zone::default().local(unsigned(seconds));
            assert_eq!((time.year, time.month, time.day), (year, month, day));
        }
    }
}
