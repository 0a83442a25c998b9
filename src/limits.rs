//! Every limit that costs memory or time, with its reason and its cost. Limits of one file only are
//! in that file.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

/// Steps of one sequence: the limit of knockd 0.8. 4 bytes per step and door.
pub const MAX_STEPS: usize = 32;

/// Doors of one config. knockd 0.8 has no limit; a router's config has a handful. A door index is
/// sent as 16 bits.
pub const MAX_DOORS: usize = 256;

/// Bytes of a door's name, which is in each of its leases and log lines. knockd 0.8 cuts names at
/// 127.
pub const MAX_DOOR_NAME: usize = 1023;

/// Bytes of a config line: all ranges of a `Tripwire` at 12 bytes each, and spaces. Finding the
/// column of an error takes time in proportion.
pub const MAX_CONFIG_LINE: usize = 16 * 1024;

/// Bytes of a command after `%IP%` was replaced: knockd 0.8 runs nothing longer than 4095 bytes.
pub const MAX_COMMAND: usize = 4095;

/// Bytes of a config file or a one-time list. A config has a few hundred bytes; a longer file is
/// not a config.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Bytes read from any other file, such as those of /proc.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Bytes read from a journal: all leases with the longest commands and names.
pub const MAX_JOURNAL_BYTES: usize =
    (MAX_LEASES + MAX_BAN_LEASES) * (2 * MAX_COMMAND + MAX_DOOR_NAME + 256);

/// Bytes of a line of /etc/hosts and similar files, and of one read from them: all names of maximum
/// length, with comments.
pub const MAX_LINE: usize = 4096;

/// Bytes of one packet that the listener reads: enough for an IPv6 header, three extension headers
/// and 14 bytes of TCP.
pub const SNAP_LENGTH: usize = 256;

/// IPv6 extension headers that are followed: hop-by-hop, routing and fragment are three.
pub const MAX_IPV6_EXTENSIONS: usize = 3;

/// Instructions of a kernel filter. Old kernels accept at most `optmem_max` (10 kB, 8 bytes per
/// instruction) for the old and the new filter together while one replaces the other.
pub const MAX_FILTER_INSTRUCTIONS: usize = 550;

/// The range of `MaxAttempts`: attempts stored at once, over all sources and doors. A new one
/// evicts the attempt with the lowest stage, the oldest first. So a knock survives a flood as long
/// as its gaps are shorter than this number of the flood's knocks (a quarter of them if the flood
/// knows a door's first steps, see `matcher::table`). 64 bytes each, 4 for the look-up, and 8 for a
/// packet whose copies are recognised; touched only when used. A slot number has 16 bits.
pub const MAX_ATTEMPTS: RangeInclusive<usize> = 256..=60_000;

/// Default of `MaxAttempts`: 1.2 MB once a flood has filled it.
pub const DEFAULT_ATTEMPTS: usize = 16_384;

/// One network (IPv4 /24, IPv6 /64) has at most one part in this number of all attempts ...
pub const NETWORK_SHARES: usize = 16;

/// ... but always the number of addresses in a /24.
pub const MIN_NETWORK_SHARE: usize = 256;

/// With more attempts than this, time-outs are checked at most once per [`TICK_MS`].
pub const FEW_ATTEMPTS: usize = 64;

/// The pause between two checks for time-outs among many attempts (ms). A log line can be late by
/// this; matching is exact.
pub const TICK_MS: u64 = 32;

/// Strays that one attempt survives: knocks on the door's own ports other than the next step.
pub const MAX_STRAYS: u8 = 2;

/// Port ranges in `Tripwire`. 4 bytes each; the kernel filter joins the nearest ones if it has no
/// room for all.
pub const MAX_TRIPWIRES: usize = 1024;

/// The maximum of `TripwireHits`. Three hits are no accident, and each further one takes 16 bytes
/// per counted source.
pub const MAX_HITS: usize = 8;

/// Sources whose tripwire hits are counted for bans: this number of lists ...
pub const HIT_BUCKETS: usize = 256;

/// ... with this number of sources, each with up to [`MAX_HITS`]. 160 bytes each, allocated with
/// the first source of a list.
pub const SOURCES_PER_BUCKET: usize = 4;

/// The maximum of `TripwireWindow` and `BanTime` (s): 30 days. Neither outlives a reboot.
pub const MAX_BAN_SECONDS: u64 = 30 * 86_400;

/// Default of `TripwireWindow` (s): a day, so that slow scans are detected, too.
pub const TRIPWIRE_WINDOW_S: u64 = 86_400;

/// Default of `BanTime` (s).
pub const BAN_TIME_S: u64 = 600;

/// Default of `MaxBans`.
pub const BANS: usize = 64;

/// The maximum of `MaxBans`: each ban runs two commands and takes about 300 bytes of the journal.
pub const MAX_BANS: usize = 256;

/// Bans in the lease book, including those whose `UnbanCommand` still runs.
pub const MAX_BAN_LEASES: usize = 2 * MAX_BANS;

/// Bans that start or are renewed per second, and the size of a burst: an attacker who forges
/// sources must not keep the router busy with commands.
pub const BANS_PER_SECOND: u32 = 4;

/// Scanner reports from the listener per second: for each the keeper checks whether it may ban the
/// source.
pub const SCANNED_PER_SECOND: u32 = 100;

/// See [`BANS_PER_SECOND`].
pub const BAN_BURST: u32 = 16;

/// The time limit of a ban command (ms), because the next one waits for it. Only one runs at a
/// time: an attacker who forges sources must not occupy all processors, and old versions of
/// iptables lose a change when two run at once.
pub const BAN_COMMAND_MS: u64 = 10_000;

/// Networks in `Allow`: all are compared for each source to be banned. 18 bytes each.
pub const MAX_ALLOWED: usize = 64;

/// Random ports of `Tripwire = auto` for each transport. With them, a scan of all ports in random
/// order has less than one chance in 1,000 at a door of three steps (docs/security.md). About 1.6
/// instructions of the kernel filter each.
pub const AUTO_TRIPWIRES: usize = 64;

/// Ports on each side of a step that `Tripwire = auto` uses. A flood of random ports opens a door
/// of k steps with T tripwires at a rate of about 1 / T^(k-1), and these are 16 per step
/// (docs/security.md). Together with the step they are one range of the kernel filter, so they need
/// no more instructions than one port on each side would.
pub const GUARDS: u16 = 8;

/// From this port on hosts choose the source ports of their requests (Linux; other systems start
/// higher), so replies arrive there.
pub const FIRST_LAN_PORT: u64 = 32_768;

/// The first copy of a packet arrives within this time (ms): old systems retransmit a SYN after 3
/// s.
pub const FIRST_COPY_MS: u32 = 4_000;

/// The pause before a further copy is at most the longest pause so far times this (see
/// `matcher::copies`) ...
pub const COPY_FACTOR: u32 = 7;

/// ... and at most this (ms): the last retransmission of a SYN comes 32 s after the previous one;
/// 70 s allow for a lost one.
pub const LAST_COPY_MS: u32 = 70_000;

/// Interfaces that one listener captures by name; `any` captures all. One packet socket each.
pub const MAX_INTERFACES: usize = 8;

/// Bytes of one record between keeper and listener. A door of 32 steps takes about 140.
pub const MAX_RECORD: usize = 512;

/// Address space of the listener and of the lookup process in bytes (RLIMIT_AS): eight times the
/// need of the listener with the largest `MaxAttempts`. A process under an attacker's control gets
/// no more memory.
pub const CONFINED_MEMORY: std::ffi::c_ulong = 48 << 20;

/// Descriptors of either (RLIMIT_NOFILE). This also limits poll(2): the listener polls its packet
/// sockets, the keeper and netlink.
pub const CONFINED_FILES: std::ffi::c_ulong = MAX_INTERFACES as std::ffi::c_ulong + 2;

/// Leases at once. Each contains two commands, and the whole journal is written at each change.
pub const MAX_LEASES: usize = 256;

/// Default of `MaxCommands`: commands that run at once, counted separately for those that open,
/// those that close, and those of doors without a stop command. A shell takes about 500 kB on a
/// router.
pub const COMMANDS: usize = 16;

/// The maximum of `MaxCommands`: with 64 of each of the three kinds, shells take up to 100 MB.
pub const MAX_COMMANDS: usize = 64;

/// Commands in the queue. Those of leases always have room: there are at most [`MAX_LEASES`] and
/// [`MAX_BAN_LEASES`].
pub const MAX_QUEUE: usize = 256;

/// Commands caused by one source run in the order of its knocks: a command waits for those of
/// earlier knocks at other doors until they have finished or have run this long (ms), and at most
/// this long after its own knock. An iptables that waits for its lock takes some 100 ms; a server
/// that stays in the foreground must not block the next door.
pub const ORDER_MS: u64 = 2_000;

/// Default of `CommandTimeout` (ms): a start or stop command of a lease is killed after it.
/// Otherwise a door whose command hangs would stay open forever.
pub const COMMAND_TIMEOUT_MS: u64 = 600_000;

/// The maximum of `CommandTimeout` (s): a day. A program that runs longer is a service.
pub const MAX_COMMAND_TIMEOUT_S: u64 = 86_400;

/// After SIGTERM a running start command may continue for this time (ms), so that its stop command
/// has time ...
pub const SHUTDOWN_START_MS: u64 = 3_000;

/// ... stop commands start and run until this time (ms) ...
pub const SHUTDOWN_COMMAND_MS: u64 = 8_000;

/// ... and the daemon exits after this time (ms). Remaining leases stay in the journal.
pub const SHUTDOWN_MS: u64 = 10_000;

/// The time (ms) for commands that a daemon killed by SIGKILL left running, before they are killed.
/// The start of the next daemon waits equally long for the stop commands of expired doors.
pub const ORPHAN_MS: u64 = 2_000;

/// Burst of lines about stages, or about one door's openings, before `LogRate` applies.
pub const LOG_BURST: u32 = 500;

/// The maximum delay of a log line by the look-up of a name (ms, `-l`).
pub const NAME_WAIT_MS: u64 = 2_000;

/// DNS servers of /etc/resolv.conf that are queried, all at once: the first three, as by other
/// resolvers.
pub const MAX_DNS_SERVERS: usize = 3;

/// A DNS query is sent this number of times ...
pub const DNS_TRIES: u32 = 2;

/// ... and has this time (ms) for each: 5 s in total, as in musl.
pub const DNS_WAIT_MS: u64 = 2_500;

/// Log lines that wait for names at once. With more, the oldest is written without one. About 200
/// bytes each.
pub const MAX_WAITING_LINES: usize = 256;

/// The lifetime of the lookup process (ms). It reads /etc/hosts and /etc/resolv.conf at its start
/// and cannot open files later, so it is replaced when it is needed after this time.
pub const LOOKUP_LIFE_MS: u64 = 60_000;

/// Cached names of sources for `-l`.
pub const MAX_NAMES: usize = 64;

/// The maximum delay of a listener's restart (ms): it is restarted at once the first time, then
/// after 1 s, 2 s, 4 s ...
pub const MAX_RESTART_DELAY_MS: u64 = 60_000;

/// Packets read by one system call. 300 bytes each, untouched until used.
pub const BATCH: usize = 16;

/// Packets read from one socket before the others get their turn.
pub const PACKETS_AT_ONCE: u64 = 64;

/// With more than one packet per millisecond over this time (ms) ...
pub const PACE_WINDOW_MS: u64 = 16;

/// ... the listener sleeps for this time (ms) between two reads, because a wake-up costs several
/// times as much as a packet. The socket's buffer holds what arrives in the meantime, up to some
/// 150,000 packets per second.
pub const PAUSE_MS: u64 = 4;

/// Dropped log lines (`LogRate`) are counted for this time (ms) before the number is logged.
pub const LEFT_OUT_REPORT_MS: u64 = 5_000;

/// The time (ms) that the keeper waits for a syslog daemon or reader of standard output that hangs,
/// once. Then it drops lines until the reader accepts one again.
pub const LOG_WAIT_MS: u64 = 100;

/// The time (ms) for a listener to start. A booting router reads the program from flash while
/// everything else starts: 10 s were too short for an emulated one next to a compiler, and a failed
/// start leaves the router without a listener.
pub const LISTENER_START_MS: u64 = 30_000;

/// A failed fork is tried again after this time (ms).
pub const FORK_RETRY_MS: u64 = 1_000;

/// If /bin/sh cannot be executed, for instance without memory, the child tries this number of times
/// ...
pub const EXEC_TRIES: u32 = 20;

/// ... with this pause (ms): a stop command that never ran would leave its door open.
pub const EXEC_PAUSE_MS: u64 = 100;

/// How long (ms) a name, or the fact that there is none, is cached.
pub const NAME_LIFE_MS: u64 = 600_000;

/// Bytes of packets that wait in the kernel for the listener, as socket(7) counts them; the kernel
/// doubles it. A small packet counts as about 700 bytes, so a burst of about 700 is not lost. Used
/// only while packets wait.
pub const PACKET_BUFFER_BYTES: i32 = 256 * 1024;

/// After a failed refresh of the interfaces the listener tries again after this time (ms).
pub const REFRESH_RETRY_MS: u64 = 1_000;

/// The minimum time (ms) between two refreshes: each reads all interfaces, addresses and, with
/// `auto`, routes, and a redial or a routing daemon makes many changes at once.
pub const REFRESH_PAUSE_MS: u64 = 10;

/// The location of an interface is reported this time (ms) after its first change, in one line.
pub const SETTLE_MS: u64 = 200;

/// Addresses in the line about an interface. 45 bytes each; a record has 512.
pub const MAX_TOLD_ADDRESSES: usize = 6;

/// Records that the keeper reads from the listener before deadlines and signals get their turn ...
pub const RECORDS_AT_ONCE: usize = 64;

/// ... and the pause (ms) after that number: a listener under an attacker's control must not keep
/// the keeper busy. A correct one only sends that much if each packet of a flood opens a door of
/// one step, and then waits.
pub const LISTENER_PAUSE_MS: u64 = 8;

/// The listener's own lines (interfaces, errors, `-D`) that the keeper logs per second ...
pub const TEXTS_PER_SECOND: u32 = 1;

/// ... and the size of a burst: with `-D` there is one line for each address.
pub const TEXT_BURST: u32 = 500;

/// The time (ms) for a listener to stop at a reload. Then it is killed ...
pub const LISTENER_END_MS: u64 = 1_000;

/// ... and this number of its last records is read, several times what its socket holds.
pub const MAX_LAST_RECORDS: usize = 4096;

/// After a failed write of the journal the next attempt is after this time (ms).
pub const JOURNAL_RETRY_MS: u64 = 1_000;

/// Openings of one door per second after a burst of [`OPENINGS_BURST`]: each opening costs log
/// lines, a journal write and usually a process. A door of one step opens on each packet, and a
/// listener under an attacker's control can send any record.
pub const OPENINGS_PER_SECOND: u32 = 50;

/// See [`OPENINGS_PER_SECOND`].
pub const OPENINGS_BURST: u32 = 1_000;

/// Clients of the control socket at once. More wait in the kernel's queue.
pub const MAX_CLIENTS: usize = 4;

/// The time (ms) for a client of the control socket, half of it for the listener's answer.
pub const CLIENT_MS: u64 = 1_000;

/// Bytes of a request at the control socket: a verb, an address and a door's name.
pub const MAX_QUESTION: usize = MAX_DOOR_NAME + 64;

/// Addresses of one interface that the listener sends for `--status`; the others are counted. They
/// fill half a record.
pub const MAX_STATUS_ADDRESSES: usize = 16;

/// The minimum time (ms) between two reloads. A reload ends all attempts, so repeated SIGHUPs would
/// keep every door shut; a knock fits into this time.
pub const RELOAD_PAUSE_MS: u64 = 2_000;

/// The time (ms) for a new listener to receive its doors.
pub const LISTENER_SEND_MS: u64 = 1_000;

/// A reliable record is sent again if the kernel has no memory for it, this number of times ...
pub const SEND_TRIES: u32 = 50;

/// ... and after this time (ms).
pub const SEND_PAUSE_MS: u64 = 20;

/// If the state directory, its lock or its journal cannot be used at the start, the keeper tries
/// this number of times ...
pub const STATE_TRIES: u32 = 4;

/// ... and after this time (ms).
pub const STATE_PAUSE_MS: u64 = 100;

/// Descriptors that a parent can have left open, if /proc does not list them: the usual limit of a
/// process. One system call each, once.
pub const MAX_INHERITED: u64 = 1024;

/// Keys for signed knocks. Each is 32 bytes in both regions of the file of their numbers, and about
/// 150 bytes of memory.
pub const MAX_KEYS: usize = 64;
