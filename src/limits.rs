//! Every bound of the program in one place, with its reason and its cost.
#![forbid(unsafe_code)]

/// Steps of one sequence: knockd 0.8's own bound. 4 bytes a step and door.
pub const MAX_STEPS: usize = 32;

/// Doors of one config. knockd 0.8 has no bound; a router's config has a handful. A door index is sent as 16 bits.
pub const MAX_DOORS: usize = 256;

/// Bytes of a command after `%IP%` was replaced: knockd 0.8 runs nothing longer than 4095 bytes.
pub const MAX_COMMAND: usize = 4095;

/// Bytes of a config file or a one-time list. A config is a few hundred bytes; what is longer is not a config.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Bytes of one packet that the listener reads: an IPv6 header, three extension headers and 14 bytes of TCP fit.
pub const SNAP_LENGTH: usize = 256;

/// IPv6 extension headers followed before a packet is given up: hop-by-hop, routing and fragment are three.
pub const MAX_IPV6_EXTENSIONS: usize = 3;

/// Instructions of a kernel filter. Old kernels take at most `optmem_max` (10 kB, 8 bytes an instruction) for
/// the old filter and the new one together while one replaces the other.
pub const MAX_FILTER_INSTRUCTIONS: usize = 550;

/// Attempts remembered at once, over all sources and doors. When one more comes, the attempt that got least far
/// goes, the oldest first; so a knock survives a flood as long as its gaps are shorter than this many knocks of the flood
/// (a quarter of them if the flood knows a door's first steps, `matcher::table`).
/// At most about 100 bytes each, which are touched only when used, and 1 MB of address space.
pub const MAX_ATTEMPTS: usize = 4096;

/// With more attempts than this, time-outs are looked for at most once in [`SWEEP_PAUSE_MS`]: a look visits them all.
pub const FEW_ATTEMPTS: usize = 64;

/// The pause between two looks for time-outs among many attempts (ms). The line may be late by this; matching is exact.
pub const SWEEP_PAUSE_MS: u64 = 50;

/// Knocks on a door's own ports, other than the step that is due, that one attempt survives by default.
pub const MAX_STRAYS: u8 = 2;

/// A TCP packet with the ports and sequence number of the last step is a retransmission within this time (ms).
/// The kernel's first two retransmissions of a SYN come after 1 s and 3 s (RFC 6298).
pub const RETRANSMISSION_MS: u64 = 3_000;
