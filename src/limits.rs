//! Every bound that costs memory or time, with its reason and its cost; what one file alone knows stands there.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

/// Steps of one sequence: knockd 0.8's own bound. 4 bytes a step and door.
pub const MAX_STEPS: usize = 32;

/// Doors of one config. knockd 0.8 has no bound; a router's config has a handful. A door index is sent as 16 bits.
pub const MAX_DOORS: usize = 256;

/// Bytes of a door's name, which stands in each of its leases and log lines. knockd 0.8 cuts names at 127.
pub const MAX_DOOR_NAME: usize = 1023;

/// Bytes of a line of the config that says something: all ranges of a `Tripwire`, 12 bytes each, and blanks. To say where a part of a line
/// stands takes a look at all before it.
pub const MAX_CONFIG_LINE: usize = 16 * 1024;

/// Bytes of a command after `%IP%` was replaced: knockd 0.8 runs nothing longer than 4095 bytes.
pub const MAX_COMMAND: usize = 4095;

/// Bytes of a config file or a one-time list. A config is a few hundred bytes; what is longer is not a config.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Bytes that are read of any other file, such as those of /proc.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Bytes that are read of a journal: all leases with the longest commands and names.
pub const MAX_JOURNAL_BYTES: usize =
    (MAX_LEASES + MAX_BAN_LEASES) * (2 * MAX_COMMAND + MAX_DOOR_NAME + 256);

/// Bytes of a line of /etc/hosts and the like, and of what is read of such a file at once: all names of the longest kind and what is
/// written beside them.
pub const MAX_LINE: usize = 4096;

/// Bytes of one packet that the listener reads: an IPv6 header, three extension headers and 14 bytes of TCP fit.
pub const SNAP_LENGTH: usize = 256;

/// IPv6 extension headers followed before a packet is given up: hop-by-hop, routing and fragment are three.
pub const MAX_IPV6_EXTENSIONS: usize = 3;

/// Instructions of a kernel filter. Old kernels take at most `optmem_max` (10 kB, 8 bytes an instruction) for
/// the old filter and the new one together while one replaces the other.
pub const MAX_FILTER_INSTRUCTIONS: usize = 550;

/// What `MaxAttempts` may be: attempts remembered at once, over all sources and doors. When one more comes, the attempt that
/// got least far goes, the oldest first; so a knock survives a flood as long as its gaps are shorter than this many knocks of
/// the flood (a quarter of them if the flood knows a door's first steps, `matcher::table`). 64 bytes each, 4 to find it by, and 8
/// for a packet whose copies are recognised, which are touched only when used. A slot is numbered by 16 bits.
pub const MAX_ATTEMPTS: RangeInclusive<usize> = 256..=60_000;

/// `MaxAttempts` where the config says nothing: 1.2 MB once a flood has filled it.
pub const DEFAULT_ATTEMPTS: usize = 16_384;

/// One network (IPv4 /24, IPv6 /64) has at most one part in this many of all attempts ...
pub const NETWORK_SHARES: usize = 16;

/// ... but always as many as a /24 has addresses.
pub const MIN_NETWORK_SHARE: usize = 256;

/// With more attempts than this, time-outs are looked for at most once in [`TICK_MS`].
pub const FEW_ATTEMPTS: usize = 64;

/// The pause between two looks for time-outs among many attempts (ms). The line may be late by this; matching is exact.
pub const TICK_MS: u64 = 32;

/// Knocks on a door's own ports, other than the step that is due, that one attempt survives by default.
pub const MAX_STRAYS: u8 = 2;

/// Ranges of ports that `Tripwire` may list. 4 bytes each; the kernel filter takes the nearest together where they are too many for it.
pub const MAX_TRIPWIRES: usize = 1024;

/// The most `TripwireHits`. Who touches three has not erred, and each one more takes 16 bytes of each source that is counted.
pub const MAX_HITS: usize = 8;

/// Sources whose tripwire hits are remembered for bans: this many times ...
pub const HIT_BUCKETS: usize = 256;

/// ... this many, with up to [`MAX_HITS`] each; 160 bytes each, taken when the first source of a bucket comes.
pub const SOURCES_PER_BUCKET: usize = 4;

/// The longest `TripwireWindow` and `BanTime` (s): 30 days. Neither outlives a reboot.
pub const MAX_BAN_SECONDS: u64 = 30 * 86_400;

/// `TripwireWindow` where the config has none (s): a day, so that a slow scan is seen, too.
pub const TRIPWIRE_WINDOW_S: u64 = 86_400;

/// `BanTime` where the config has none (s).
pub const BAN_TIME_S: u64 = 600;

/// `MaxBans` where the config has none.
pub const BANS: usize = 64;

/// The largest `MaxBans`: each ban is two commands to run and about 300 bytes of the journal.
pub const MAX_BANS: usize = 256;

/// Bans in the lease book, with those whose `UnbanCommand` still runs.
pub const MAX_BAN_LEASES: usize = 2 * MAX_BANS;

/// Bans that begin or are renewed in a second, and so many more at once: whoever forges senders must not keep the router busy with
/// commands.
pub const BANS_PER_SECOND: u32 = 4;

/// How often in a second the listener says of a source that it is to be banned: the keeper looks for each whether it may be.
pub const SCANNED_PER_SECOND: u32 = 100;

/// See [`BANS_PER_SECOND`].
pub const BAN_BURST: u32 = 16;

/// A command of a ban is ended after this time (ms): the next one waits for it. One runs at a time, since whoever forges senders must not
/// keep all processors busy, and an old iptables loses a change when two are at work.
pub const BAN_COMMAND_MS: u64 = 10_000;

/// Networks that `Allow` may list: all are gone through for each source that is to be banned. 18 bytes each.
pub const MAX_ALLOWED: usize = 64;

/// Ports by chance that `Tripwire = auto` takes, of each transport: a scan of all ports in random order has then less than one chance in
/// 1,000 at a door of three steps (docs/security.md). About 1.6 instructions of the kernel filter each.
pub const AUTO_TRIPWIRES: usize = 64;

/// Ports on each side of a step that `Tripwire = auto` takes. A flood of random ports opens a door of k steps with T tripwires at a rate
/// of about 1 / T^(k-1), and these are 16 per step (docs/security.md). Together with the step they are one range of the kernel
/// filter, so they take no more instructions than one port on each side would.
pub const GUARDS: u16 = 8;

/// From this port on hosts choose ports for what they ask (Linux; others higher up), so that answers come there.
pub const FIRST_LAN_PORT: u64 = 32_768;

/// The first copy of a packet comes within this time (ms): old stacks retransmit a SYN after 3 s.
pub const FIRST_COPY_MS: u32 = 4_000;

/// The pause before a further copy is at most the longest pause so far times this (`matcher::copies` has the reason) ...
pub const COPY_FACTOR: u32 = 7;

/// ... and this (ms): the last retransmission of a SYN comes 32 s after the one before; 70 s allow for one that was lost.
pub const LAST_COPY_MS: u32 = 70_000;

/// Interfaces that one listener captures on by name; `any` takes all. One packet socket each.
pub const MAX_INTERFACES: usize = 8;

/// Bytes of one record between keeper and listener. A door of 32 steps takes about 140.
pub const MAX_RECORD: usize = 512;

/// Bytes of address space of the listener and of the lookup process (RLIMIT_AS): eight times what the listener takes with the largest
/// `MaxAttempts`. One that was taken over gets no more of the machine's memory.
pub const CONFINED_MEMORY: std::ffi::c_ulong = 48 << 20;

/// Descriptors of either (RLIMIT_NOFILE). poll(2) takes no more at once either: the listener waits for its packet sockets, the keeper and
/// netlink.
pub const CONFINED_FILES: std::ffi::c_ulong = MAX_INTERFACES as std::ffi::c_ulong + 2;

/// Leases live at once. Each holds two commands, and the journal is written whole at each change.
pub const MAX_LEASES: usize = 256;

/// `MaxCommands` where the config has none: commands that run at once, so many that open, so many that close, and so many of doors
/// that do not close. A shell takes about 500 kB on a router.
pub const COMMANDS: usize = 16;

/// The largest `MaxCommands`: with 64 places for each of the three, shells take up to 100 MB.
pub const MAX_COMMANDS: usize = 64;

/// Commands that wait for one of those to end. Those of leases always find room: there are at most [`MAX_LEASES`] and [`MAX_BAN_LEASES`].
pub const MAX_QUEUE: usize = 256;

/// What one source's knocks cause runs in the order of its knocks: a command waits for those of earlier knocks at other doors until they
/// have ended or have run this long (ms), and at most this long after its own knock. An iptables that waits for its lock takes some
/// 100 ms; a server that stays in the foreground must not keep the next door waiting.
pub const ORDER_MS: u64 = 2_000;

/// `CommandTimeout` where the config has none (ms): a start or stop command of a lease is ended after it, or a door with a command that
/// hangs would stay open for ever.
pub const COMMAND_TIMEOUT_MS: u64 = 600_000;

/// The longest `CommandTimeout` (s): a day. A command that needs longer is no command but a service.
pub const MAX_COMMAND_TIMEOUT_S: u64 = 86_400;

/// After SIGTERM a start command that runs may go on this long (ms), so that its stop command has time ...
pub const SHUTDOWN_START_MS: u64 = 3_000;

/// ... stop commands begin and run until this time (ms) ...
pub const SHUTDOWN_COMMAND_MS: u64 = 8_000;

/// ... and the daemon is gone after this; what is left stays in the journal.
pub const SHUTDOWN_MS: u64 = 10_000;

/// A command group that a daemon killed by SIGKILL left running gets this long (ms) to end before it is killed. The next
/// daemon's start waits as long for the stop commands of overdue doors.
pub const ORPHAN_MS: u64 = 2_000;

/// Lines about stages, or about one door's openings, that may come at once before `LogRate` bounds them.
pub const LOG_BURST: u32 = 500;

/// A log line waits at most this long (ms) for the name of its source (`-l`).
pub const NAME_WAIT_MS: u64 = 2_000;

/// DNS servers of /etc/resolv.conf that are asked, all at once: the first three, as by other resolvers.
pub const MAX_DNS_SERVERS: usize = 3;

/// A DNS question is asked so often in all ...
pub const DNS_TRIES: u32 = 2;

/// ... and has this long (ms) each time: 5 s together, as in musl.
pub const DNS_WAIT_MS: u64 = 2_500;

/// Log lines that wait for names at once; the oldest goes without when there are more. About 200 bytes each.
pub const MAX_WAITING_LINES: usize = 256;

/// The lookup process reads /etc/hosts and /etc/resolv.conf at its start and sees no files later, so it is replaced after this time (ms) when
/// it is needed again.
pub const LOOKUP_LIFE_MS: u64 = 60_000;

/// Names of sources remembered for `-l`.
pub const MAX_NAMES: usize = 64;

/// A listener that dies is started again at once the first time, then after 1 s, doubling up to this (ms).
pub const MAX_RESTART_DELAY_MS: u64 = 60_000;

/// Packets read by one system call; 300 bytes each, untouched until used.
pub const BATCH: usize = 16;

/// Packets read from one socket before the others get their turn.
pub const PACKETS_AT_ONCE: u64 = 64;

/// With more than one packet each millisecond, over this time (ms), ...
pub const PACE_WINDOW_MS: u64 = 16;

/// ... the listener sleeps this long (ms) between two reads: a wake-up costs several times as much as a packet. The socket's buffer
/// holds what comes meanwhile up to some 150,000 packets a second.
pub const PAUSE_MS: u64 = 4;

/// Log lines that `LogRate` left out are counted for this time (ms) before the count is logged.
pub const LEFT_OUT_REPORT_MS: u64 = 5_000;

/// A syslog daemon or a reader of standard output that hangs is waited for this long (ms), once; then lines for it are lost until it
/// takes one again.
pub const LOG_WAIT_MS: u64 = 100;

/// A listener must be ready within this time (ms). A router that boots reads the program from its flash while all else starts, too: 10 s were
/// too short for an emulated one beside a compiler, and a start that fails leaves the router deaf.
pub const LISTENER_START_MS: u64 = 30_000;

/// A fork that fails is tried again after this time (ms).
pub const FORK_RETRY_MS: u64 = 1_000;

/// Where /bin/sh could not be executed, for want of memory say, the child tries again, so often in all ...
pub const EXEC_TRIES: u32 = 20;

/// ... and after this time (ms): a stop command that never ran would leave its door open.
pub const EXEC_PAUSE_MS: u64 = 100;

/// How long (ms) a name that was looked up, or that there is none, is remembered.
pub const NAME_LIFE_MS: u64 = 600_000;

/// Bytes of packets that wait in the kernel for the listener, by socket(7)'s count; the kernel doubles it. A small packet counts
/// as about 700 bytes, so that a burst of about 700 is not lost. Taken only while packets wait.
pub const PACKET_BUFFER_BYTES: i32 = 256 * 1024;

/// Where the interfaces could not be looked at, the listener tries again after this time (ms).
pub const REFRESH_RETRY_MS: u64 = 1_000;

/// Changes of interfaces are looked at this long (ms) after one another at least: a look reads all interfaces, addresses and, with
/// `auto`, routes, and a redial or a routing daemon makes many changes at once.
pub const REFRESH_PAUSE_MS: u64 = 10;

/// Where an interface is after this time (ms) from its first change is told, in one line.
pub const SETTLE_MS: u64 = 200;

/// Addresses that the line about an interface names. 45 bytes each; a record has 512.
pub const MAX_TOLD_ADDRESSES: usize = 6;

/// Records that the keeper reads from the listener before deadlines and signals get their turn, ...
pub const RECORDS_AT_ONCE: usize = 64;

/// ... and, after as many, it leaves the listener alone for this time (ms): one that was taken over must not keep the keeper busy. An honest
/// one waits meanwhile; it sends as much only where each packet of a flood opens a door of one step.
pub const LISTENER_PAUSE_MS: u64 = 8;

/// Lines in the listener's own words (interfaces, errors, `-D`) that the keeper logs in a second ...
pub const TEXTS_PER_SECOND: u32 = 1;

/// ... after as many at once: with `-D` there is one for each address.
pub const TEXT_BURST: u32 = 500;

/// A listener that a reload has told to stop is waited for this long (ms), then killed, ...
pub const LISTENER_END_MS: u64 = 1_000;

/// ... and what it said last is read up to this many records, several times what its socket holds.
pub const MAX_LAST_RECORDS: usize = 4096;

/// Where the journal could not be written, the next try is after this time (ms).
pub const JOURNAL_RETRY_MS: u64 = 1_000;

/// How often one door opens in a second, once it has opened [`OPENINGS_BURST`] times: each opening costs log lines, a journal and perhaps a
/// process. A door of one step opens on each packet, and a listener that was taken over may claim what it likes.
pub const OPENINGS_PER_SECOND: u32 = 50;

/// See [`OPENINGS_PER_SECOND`].
pub const OPENINGS_BURST: u32 = 1_000;

/// Clients of the control socket at once; more wait in the kernel's queue.
pub const MAX_CLIENTS: usize = 4;

/// A client of the control socket is served this long (ms), then it is let go: half of it is for the listener's answer.
pub const CLIENT_MS: u64 = 1_000;

/// Bytes of a question at the control socket: a verb, an address and a door's name.
pub const MAX_QUESTION: usize = MAX_DOOR_NAME + 64;

/// Addresses of one interface that the listener tells for `--status`; the rest is counted. They fill half a record.
pub const MAX_STATUS_ADDRESSES: usize = 16;

/// From one reload to the next (ms). A reload ends all attempts, so SIGHUP again and again would keep every door shut; in this time
/// a knock has room.
pub const RELOAD_PAUSE_MS: u64 = 2_000;

/// A new listener must take its doors within this time (ms).
pub const LISTENER_SEND_MS: u64 = 1_000;

/// A record that must arrive is sent again where the kernel has no memory for it, so often in all ...
pub const SEND_TRIES: u32 = 50;

/// ... and after this time (ms).
pub const SEND_PAUSE_MS: u64 = 20;

/// Where the state folder, its lock or its journal cannot be used at the start, they are tried again, so often in all ...
pub const STATE_TRIES: u32 = 4;

/// ... and after this time (ms).
pub const STATE_PAUSE_MS: u64 = 100;

/// Descriptors that a caller may have left open, where /proc does not tell: the usual bound of a process. A system call each, once.
pub const MAX_INHERITED: u64 = 1024;

/// Keys for signed knocks. Each is 32 bytes in both regions of the file of their numbers, and about 150 bytes of memory.
pub const MAX_KEYS: usize = 64;
