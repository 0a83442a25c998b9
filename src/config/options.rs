//! The keys of the config, one row of a table each, and the values of `[options]`.
//!
//! A row drives the look-up of a key, its parser, its line of `-D`, its line of `--check`, and its
//! part of docs/config.md and knockd.conf(5) (`check/docs.rs` compares). A new option is a field
//! with its default and a row.
#![forbid(unsafe_code)]

use super::{Commands, DoorConfig};
use crate::knock::network::Network;
use crate::knock::tripwire::{BanRule, PortRange, Tripwire};
use crate::knock::{FlagRule, Matching, Trigger};
use crate::lease::Reknock;
use crate::limits::{
    BAN_TIME_S, BANS, COMMAND_TIMEOUT_MS, COMMANDS, DEFAULT_ATTEMPTS, MAX_ATTEMPTS,
    MAX_BAN_SECONDS, MAX_BANS, MAX_COMMAND_TIMEOUT_S, MAX_COMMANDS, MAX_HITS, TRIPWIRE_WINDOW_S,
};
use crate::util::time::Millis;
use Field::{Address, Command, Directory, Flags, Interfaces, List, Networks, Number, Path, Ports};
use Field::{Seconds, Steps, Switch, Time, Word};
use std::net::IpAddr;
use std::path::PathBuf;

/// The `[options]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `UseSyslog`: log to syslog.
    pub use_syslog: bool,
    /// `LogFile`, as written.
    pub log_file: Option<PathBuf>,
    /// `PidFile`, as written.
    pub pid_file: Option<PathBuf>,
    /// `Interface`: a name, `any`, `auto`, or a comma-separated list of names; no blanks, each 1 to
    /// 15 bytes.
    pub interface: Option<String>,
    /// `Matching = strict`; see [`matching`](Self::matching).
    pub strict: bool,
    /// `Reknock = stack`; see [`reknock`](Self::reknock).
    pub stack: bool,
    /// `LogRate`: stage and failure lines per second; 0: no bound.
    pub log_rate: u32,
    /// `MaxAttempts`: attempts remembered at once, within [`MAX_ATTEMPTS`].
    pub max_attempts: u32,
    /// `Tripwire`: the second hit of these ports ends an attempt. At most
    /// [`MAX_TRIPWIRES`](crate::limits::MAX_TRIPWIRES) ascending ranges that do not touch.
    pub tripwire: Tripwire<Vec<PortRange>>,
    /// Settings of bans.
    pub bans: Bans,
    /// `StateDir`: where the journal, lock and sockets of each instance live.
    pub state_dir: PathBuf,
    /// `CommandTimeout`: how long a command of a lease may run.
    pub command_timeout: Millis,
    /// `MaxCommands`: the maximum of running commands that open, of those that close, and of those
    /// of doors without a stop command.
    pub max_commands: u32,
}

/// Settings of bans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bans {
    /// `TripwireHits`; 0 disables bans. See [`rule`](Self::rule).
    pub hits: u32,
    /// `TripwireWindow`.
    pub window: Millis,
    /// `BanTime`.
    pub time: Millis,
    /// `BanCommand`: run when a ban begins.
    pub start: Commands,
    /// `UnbanCommand`: run when it ends.
    pub stop: Commands,
    /// `MaxBans`: bans at once; a new one ends the oldest.
    pub max: u32,
    /// `Allow`: never banned, nor are this machine's own addresses and networks.
    pub allow: Vec<Network>,
}

impl Default for Options {
    /// The defaults, without `[options]`.
    fn default() -> Options {
        Options {
            use_syslog: false,
            log_file: None,
            pid_file: None,
            interface: None,
            strict: false,
            stack: false,
            log_rate: 50,
            max_attempts: DEFAULT_ATTEMPTS as u32,
            tripwire: Tripwire::None,
            bans: Bans {
                hits: 0,
                window: TRIPWIRE_WINDOW_S * 1000,
                time: BAN_TIME_S * 1000,
                start: Commands::default(),
                stop: Commands::default(),
                max: BANS as u32,
                allow: Vec::new(),
            },
            state_dir: PathBuf::from("/var/run/knockd"),
            command_timeout: COMMAND_TIMEOUT_MS,
            max_commands: COMMANDS as u32,
        }
    }
}

impl Options {
    /// Applies `Matching = strict` or `--strict`: the rule of knockd 0.8, and what it implies.
    pub fn apply_strict_preset(&mut self) {
        (self.strict, self.stack) = (true, true);
        self.tripwire = Tripwire::None;
        self.bans.hits = 0;
    }

    /// The rule of matching.
    pub fn matching(&self) -> Matching {
        match self.strict {
            true => Matching::Strict,
            false => Matching::Tolerant,
        }
    }

    /// The effect of a second knock.
    pub fn reknock(&self) -> Reknock {
        match self.stack {
            true => Reknock::Stack,
            false => Reknock::Renew,
        }
    }
}

impl Bans {
    /// The number of hits and the time that lead to a ban. `None` disables bans.
    pub fn rule(&self) -> Option<BanRule> {
        (self.hits > 0).then_some(BanRule {
            hits: self.hits as u8,
            window: self.window,
        })
    }
}

/// The place of a key's value, and its permitted values.
pub(crate) enum Field<'a> {
    /// A key without a value.
    Switch(&'a mut bool),
    /// One of two words, each with its description. `true` is the second.
    Word(&'a mut bool, &'static [(&'static str, &'static str); 2]),
    /// Minimum, maximum and unit.
    Number(&'a mut u32, u32, u32, &'static str),
    /// Whole seconds from 1 to this maximum.
    Seconds(&'a mut Millis, u32),
    /// Seconds as knockd 0.8 reads them: a negative time means 2^32 s more.
    Time(&'a mut Millis),
    /// `None` if empty.
    Path(&'a mut Option<PathBuf>),
    /// An absolute path.
    Directory(&'a mut PathBuf),
    /// Empty and absent differ.
    Command(&'a mut Option<Vec<u8>>),
    /// Comma-separated names; `None` if empty.
    Interfaces(&'a mut Option<String>),
    /// The value of `Tripwire`.
    Ports(&'a mut Tripwire<Vec<PortRange>>),
    Networks(&'a mut Vec<Network>),
    /// The value of `sequence`.
    Steps(&'a mut Trigger<PathBuf>),
    /// The path of a file of sequences, which overrides `Steps`.
    List(&'a mut Trigger<PathBuf>),
    Flags(&'a mut FlagRule),
    Address(&'a mut Option<IpAddr>),
}

/// The section of a key, and its place there.
#[derive(Clone, Copy)]
pub(crate) enum Setting {
    Options(fn(&mut Options) -> Field<'_>),
    Door(fn(&mut DoorConfig) -> Field<'_>),
}

/// A key.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub name: &'static str,
    /// The alias, or empty.
    pub alias: &'static str,
    /// The name in the output of `-D`.
    pub trace: &'static str,
    /// The description of an absent key that has no default value.
    pub absent: &'static str,
    pub place: Setting,
}

/// A row with its text for docs/config.md and knockd.conf(5), which is not part of the program.
pub(crate) struct Documented {
    pub row: Row,
    // Only used by the test that compares the documents.
    #[cfg_attr(not(test), allow(dead_code))]
    pub doc: &'static str,
}

const fn row(name: &'static str, place: Setting, doc: &'static str) -> Documented {
    let row = Row {
        name,
        alias: "",
        trace: name,
        absent: "none",
        place,
    };
    Documented { row, doc }
}

const fn option(
    name: &'static str,
    slot: fn(&mut Options) -> Field<'_>,
    doc: &'static str,
) -> Documented {
    row(name, Setting::Options(slot), doc)
}

const fn door(
    name: &'static str,
    slot: fn(&mut DoorConfig) -> Field<'_>,
    doc: &'static str,
) -> Documented {
    row(name, Setting::Door(slot), doc)
}

impl Documented {
    const fn alias(mut self, alias: &'static str) -> Documented {
        self.row.alias = alias;
        self
    }

    const fn trace(mut self, trace: &'static str) -> Documented {
        self.row.trace = trace;
        self
    }

    const fn absent(mut self, absent: &'static str) -> Documented {
        self.row.absent = absent;
        self
    }
}

const MATCHING: [(&str, &str); 2] = [
    ("tolerant", "repeats and a few stray knocks are forgiven"),
    ("strict", "as knockd 0.8"),
];
const REKNOCK: [(&str, &str); 2] = [
    ("renew", "a second knock renews the time of an open door"),
    (
        "stack",
        "a second knock runs the start command again, and later both stop commands",
    ),
];

/// The keys of `[options]`, then those of doors, in the order of the documents. Those about bans
/// are the last options. In the texts, `code` is in backquotes, with a space before it, and a space
/// or punctuation after it.
#[rustfmt::skip]
pub(crate) const DOCUMENTED: &[Documented] = &[
    option("UseSyslog", |o| Switch(&mut o.use_syslog),
        "Log to syslog. Takes no value."),
    option("LogFile", |o| Path(&mut o.log_file),
        "Append the log to this file. Empty: none. Overrides `-g`.").trace("log file").absent("no file"),
    option("PidFile", |o| Path(&mut o.pid_file),
        "Written with `-d` only. Overrides `-p`.").trace("pid file").absent("/var/run/knockd.pid"),
    option("Interface", |o| Interfaces(&mut o.interface),
        "Where to listen. A packet for an address of any of these interfaces counts on each of them. `auto` is the interface \
        with the default route, and that with the default route of IPv6, where it is another. knockd waits for an interface \
        that is missing, down or without an address, but at SIGHUP a new one must exist. `any` and `auto` cannot be combined \
        with other names. `-i` overrides this key, also at SIGHUP.")
        .trace("interface").absent("eth0, or auto where there is none"),
    option("Matching", |o| Word(&mut o.strict, &MATCHING),
        "`tolerant` reads knocks as whole sequences and forgives a few mistakes, see MATCHING below. `strict` is the rule of \
        knockd 0.8 and implies `Reknock = stack`."),
    option("Reknock", |o| Word(&mut o.stack, &REKNOCK),
        "What a second whole knock does while the door is open for that address. `renew` restarts `cmd_timeout`, and runs stop \
        and start command again if the start command failed, or if another door has undone it since: a close door that \
        deletes its iptables, nft or ipset rule. `stack` runs the start command again, and later the stop command twice."),
    option("LogRate", |o| Number(&mut o.log_rate, 0, u32::MAX, "lines a second (0: no bound)"),
        "Bound for the lines about stages and failed knocks, and for those about the openings of each door."),
    option("MaxAttempts", |o| Number(&mut o.max_attempts, *MAX_ATTEMPTS.start() as u32, *MAX_ATTEMPTS.end() as u32, "attempts"),
        "Attempts remembered at once, over all doors and senders. Each takes 68 bytes once it is used."),
    option("StateDir", |o| Directory(&mut o.state_dir),
        "Where the journal of open doors and the lock live: a directory of knockd's own, made with mode 0700."),
    option("CommandTimeout", |o| Seconds(&mut o.command_timeout, MAX_COMMAND_TIMEOUT_S as u32),
        "A start or stop command of a door with a stop command is killed after this time, with all that it started and that \
        did not leave its process group. Commands of other doors may run forever."),
    option("MaxCommands", |o| Number(&mut o.max_commands, 1, MAX_COMMANDS as u32, "commands of a kind at once"),
        "At most this number of commands that open doors run at once, the same number that close doors, and the same number of \
        doors without a stop command; the others wait. Of all ban and unban commands one runs at a time."),
    option("Tripwire", |o| Ports(&mut o.tripwire),
        "Ports that end an attempt: a client that hits two of them during a knock has to start over. `auto` takes the eight \
        ports on each side of each step (one for the other transport, and for UDP from 32760 up, where replies to the LAN \
        arrive), and for each transport 64 random ports (UDP: below 32768), none on which something listens. In a list such as \
        `1-1023,5000` ports of doors do not count. TCP counts with SYN and without ACK. Not with `Matching = strict`."),
    option("TripwireHits", |o| Number(&mut o.bans.hits, 1, MAX_HITS as u32, "tripwires"),
        "A client that hits this many different TCP tripwires within `TripwireWindow` is banned: its knocks open nothing. \
        Anyone can have an address banned by forging it as sender; see `Allow`.").absent("no one is banned"),
    option("TripwireWindow", |o| Seconds(&mut o.bans.window, MAX_BAN_SECONDS as u32),
        "The time for `TripwireHits`. A slow scan needs a long one."),
    option("BanTime", |o| Seconds(&mut o.bans.time, MAX_BAN_SECONDS as u32),
        "How long a ban lasts, from the last tripwire."),
    option("BanCommand", |o| Command(&mut o.bans.start.v4),
        "Run when a ban begins, such as `iptables -I INPUT -s %IP% -m state --state NEW -j DROP`. Without `--state NEW` it \
        would also cut DNS answers and sessions of a forged address.").absent("none: only knocks are ignored"),
    option("BanCommand_6", |o| Command(&mut o.bans.start.v6),
        "The same for IPv6. Empty: nothing runs.").absent("BanCommand"),
    option("UnbanCommand", |o| Command(&mut o.bans.stop.v4),
        "Run when a ban ends: when it expires, when knockd exits, or after a crash."),
    option("UnbanCommand_6", |o| Command(&mut o.bans.stop.v6),
        "The same for IPv6. Empty: nothing runs.").absent("UnbanCommand"),
    option("MaxBans", |o| Number(&mut o.bans.max, 1, MAX_BANS as u32, "bans at once"),
        "Bans at once; the oldest makes room for the next."),
    option("Allow", |o| Networks(&mut o.bans.allow),
        "Such as `192.168.1.0/24, 2001:db8::/32`: never banned. Nor are this machine's own addresses and networks, and \
        addresses with a lease."),
    door("sequence", |d| Steps(&mut d.trigger),
        "The ports to knock at, in order, 1 to 32 of them, each `PORT`, `PORT:tcp` or `PORT:udp`; without a protocol it is \
        TCP. Ports are 1 to 65535 and may repeat. A door needs it, or `one_time_sequences`."),
    door("one_time_sequences", |d| List(&mut d.trigger),
        "A file with one sequence a line, each good for one opening. Overrides `sequence`. A used line gets a `#` over its \
        first byte, so each should begin with a blank. Append lines to it, or stop knockd before changing it: an editor would \
        write back what was used in the meantime.").trace("one time sequences file"),
    door("seq_timeout", |d| Time(&mut d.seq_timeout),
        "The whole knock must be done within this time from its first step.").alias("timeout"),
    door("tcpflags", |d| Flags(&mut d.flags),
        "Which TCP packets count: `fin`, `syn`, `rst`, `psh`, `ack`, `urg`, separated by commas; `!` stands before a flag that \
        must be clear. Flags that are not named do not matter. UDP always counts. Use `syn`.").absent("none: any TCP packet"),
    door("target", |d| Address(&mut d.target),
        "Only packets to this address count. No host name, no network.").absent("any address of the interface"),
    door("start_command", |d| Command(&mut d.start.v4),
        "Run with `/bin/sh -c` when the door opens.").alias("command").absent("none: only a log line"),
    door("start_command_6", |d| Command(&mut d.start.v6),
        "The same for knocks over IPv6. Empty: nothing runs.").alias("command_6").absent("start_command"),
    door("cmd_timeout", |d| Time(&mut d.cmd_timeout),
        "From the end of the start command to the stop command."),
    door("stop_command", |d| Command(&mut d.stop.v4),
        "Run after `cmd_timeout`. It may run twice and must be idempotent. Never without a start command."),
    door("stop_command_6", |d| Command(&mut d.stop.v6),
        "The same for knocks over IPv6. Empty: nothing runs.").absent("stop_command"),
];

/// How many keys there are.
pub(crate) const KEYS: usize = DOCUMENTED.len();

/// The table without the texts.
pub(crate) static ROWS: [Row; KEYS] = {
    let mut rows = [DOCUMENTED[0].row; KEYS];
    let mut i = 0;
    while i < KEYS {
        rows[i] = DOCUMENTED[i].row;
        i += 1;
    }
    rows
};
