//! The two clocks: monotonic time for every decision, local time for log lines.

use crate::util::time::Millis;

/// Milliseconds of CLOCK_MONOTONIC.
pub fn monotonic() -> Millis {
    let time = read(libc::CLOCK_MONOTONIC);
    time.tv_sec as Millis * 1000 + (time.tv_nsec / 1_000_000) as Millis
}

/// Wall-clock time, in seconds since 1970.
pub type UnixTime = i64;

/// Returns the wall-clock time.
pub fn wall() -> UnixTime {
    let time = read(libc::CLOCK_REALTIME);
    #[cfg(target_pointer_width = "32")]
    return unsigned(time.tv_sec);
    #[cfg(not(target_pointer_width = "32"))]
    time.tv_sec
}

/// Converts seconds of a 32-bit clock, which are negative from 2038 on. Valid until 2106.
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

/// The same by number: musl's look-up of the vDSO takes 1.5 kB, and most kernels of these CPUs have
/// none.
#[cfg(any(target_arch = "mips", target_arch = "arm"))]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing, two words as this call has it.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time) };
    if result == -1 {
        // Kernels without CONFIG_COMPAT_32BIT_TIME have only this call (since 5.1).
        let mut long = [0i64; 2];
        // SAFETY: `long` is valid for writing, two numbers of 64 bits as this call has it.
        unsafe { libc::syscall(CLOCK_GETTIME64, clock, long.as_mut_ptr()) };
        time.tv_sec = long[0] as _;
        time.tv_nsec = long[1] as _;
    }
    time
}

/// Two words, as this call of the kernel takes them.
#[cfg(any(target_arch = "mips", target_arch = "arm"))]
const _: () = assert!(size_of::<libc::timespec>() == 8);

/// clock_gettime64, which libc does not name.
#[cfg(target_arch = "arm")]
pub(super) const CLOCK_GETTIME64: libc::c_long = 403;
#[cfg(target_arch = "mips")]
pub(super) const CLOCK_GETTIME64: libc::c_long = 4403;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_32_bits_is_good_until_2106() {
        const YEAR: UnixTime = 31_556_952;
        for (seconds, years) in [(i32::MAX, 68), (i32::MIN, 68), (-1, 136)] {
            assert_eq!(unsigned(seconds) / YEAR, years);
        }
    }
}
