//! The daemon's command line.
#![forbid(unsafe_code)]

use super::getopt::{self, Opt};
use super::{Outcome, Program, Words, early, fill};
use crate::path::{folder_of, parts_backwards};
use crate::quote::quote;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The daemon's options, in the order in which knockd 0.8 names them when one is ambiguous; then ours.
pub const OPTIONS: &[Opt] = &[
    Opt::switch("verbose", 'v'),
    Opt::switch("debug", 'D'),
    Opt::switch("daemon", 'd'),
    Opt::switch("lookup", 'l'),
    Opt::value("interface", 'i'),
    Opt::value("config", 'c'),
    Opt::switch("help", 'h'),
    Opt::value("pidfile", 'p'),
    Opt::value("logfile", 'g'),
    Opt::switch("only-ip-v4", '4'),
    Opt::switch("version", 'V'),
    Opt::ours("check"),
    Opt::ours("strict"),
    Opt::ours("status"),
    Opt::ours("json"),
    Opt::ours_with_value("close"),
];

/// What the daemon says of itself. After an error of the config knockd 0.8 prints its usage as well.
pub const KNOCKD: Program = Program {
    version: concat!(
        "knockd ",
        env!("CARGO_PKG_VERSION"),
        " (knockd-rs, a drop-in for knockd 0.8)\n",
        "Licensed under MIT or Apache-2.0, as you like; no warranty.\n"
    ),
    usage: "\
usage: knockd [options]
options:
  -i, --interface <if>   listen on <if>: a name, a list (ppp0,vlan1), \"auto\" for
                         the one with the default route, \"any\" (default \"eth0\",
                         or \"auto\" if there is none)
  -d, --daemon           run in the background and write the pid file
  -c, --config <file>    read this config (default \"/etc/knockd.conf\")
  -D, --debug            print debug messages
  -l, --lookup           log host names too (tells a DNS server who knocks)
  -p, --pidfile <file>   with -d: the pid file (default \"/var/run/knockd.pid\")
  -g, --logfile <file>   log to this file
  -v, --verbose          print what happens
  -4, --only-ip-v4       ignore IPv6
  -V, --version          print the version
  -h, --help             print this help
      --check            say what the config means, warn of what is unwise, exit
      --strict           match knocks by knockd 0.8's own, unforgiving rule
      --status           ask the daemon that runs: open doors, counters, ...
      --json             with --status: for programs
      --close <door> <ip>  have the daemon that runs close a door for <ip> now

examples:
  knockd --check -c my.conf                    first see what a config does
  knockd -v -i lo -c my.conf                   then watch it in the foreground
  knockd -d -i ppp0 -c /jffs/etc/knockd.conf   then leave it to run

",
    usage_status: 0,
};

/// The daemon's options. `None` is: not given on the command line.
#[derive(argh::FromArgs, Clone, Debug, Default, PartialEq, Eq)]
/// listens for knocks
pub struct KnockdArgs {
    #[argh(option)]
    /// option `-i`: beats the config's `Interface`.
    pub interface: Option<String>,
    #[argh(switch)]
    /// option `-d`
    pub daemon: bool,
    #[argh(option)]
    /// option `-c`; `None`: see [`default_config`]
    pub config: Option<PathBuf>,
    #[argh(switch)]
    /// option `-D`
    pub debug: bool,
    #[argh(switch)]
    /// option `-l`
    pub lookup: bool,
    #[argh(option, long = "pidfile")]
    /// option `-p`: the config's `PidFile` beats it.
    pub pid_file: Option<PathBuf>,
    #[argh(option, long = "logfile")]
    /// option `-g`: the config's `LogFile` beats it.
    pub log_file: Option<PathBuf>,
    #[argh(switch)]
    /// option `-v`
    pub verbose: bool,
    #[argh(switch)]
    /// option `-4`
    pub only_ip_v4: bool,
    #[argh(switch)]
    /// option `--check`: explain the config and exit.
    pub check: bool,
    #[argh(switch)]
    /// option `--strict`: beats the config's `Matching`.
    pub strict: bool,
    #[argh(switch)]
    /// option `--status`: ask the daemon that runs, and exit.
    pub status: bool,
    #[argh(switch)]
    /// option `--json`: the status for programs.
    pub json: bool,
    #[argh(option)]
    /// option `--close`: the name of a door that the daemon that runs closes.
    pub close: Option<String>,
    #[argh(positional)]
    /// the operand of `--close`: for whom.
    pub source: Option<IpAddr>,
}

/// Reads the daemon's command line; the first word is the program's name. Operands are ignored, as 0.8 does, but with
/// options of ours.
pub fn knockd(argv: &[OsString]) -> Outcome<KnockdArgs> {
    let words = match Words::new(argv, "knockd") {
        Ok(words) => words,
        Err(error) => return Outcome::Refuse(error),
    };
    let scan = getopt::scan(OPTIONS, &words.args);
    if let Some(outcome) = early(&scan, &words.program) {
        return outcome;
    }
    let given = |name| scan.options.iter().any(|(option, _)| option.name == name);
    let operands = match (given("close"), scan.operands.as_slice()) {
        // Otherwise another config than was meant would be called right.
        (false, [first, ..]) if given("check") || given("status") => {
            return Outcome::Refuse(format!(
                "{}: {} is one word too many; a config comes after -c: knockd --check -c my.conf",
                words.program,
                quote(first.as_bytes())
            ));
        }
        (false, _) => &[],
        (true, [source]) if source.parse::<IpAddr>().is_ok() => scan.operands.as_slice(),
        (true, other) => {
            return Outcome::Refuse(format!(
                "{}: --close takes a door and the address that it is open for, not {}; for example: \
                 knockd --close SSH 203.0.113.7",
                words.program,
                quote(other.join(" ").as_bytes())
            ));
        }
    };
    if given("json") && !given("status") {
        return Outcome::Refuse(format!("{}: --json goes with --status", words.program));
    }
    match fill(&words.program, &scan.options, operands) {
        Ok(args) => Outcome::Run(args),
        Err(error) => Outcome::Refuse(error),
    }
}

/// The config to read when there is no `-c`: `../../etc/knockd.conf` beside the program where that exists (the whole
/// tree may live under /jffs or /tmp, because a router's /etc is read-only), otherwise /etc/knockd.conf.
/// `program`: the absolute path of the program, symbolic links resolved, as in /proc/self/exe; with any other
/// path the answer is /etc/knockd.conf.
pub fn default_config(program: &Path, exists: impl Fn(&Path) -> bool) -> PathBuf {
    if program.is_absolute() && parts_backwards(program).all(|part| part != "..") {
        // Up from the program to its folder, then twice more.
        let tree = folder_of(folder_of(folder_of(program)));
        let beside = tree.join("etc/knockd.conf");
        if exists(&beside) {
            return beside;
        }
    }
    PathBuf::from("/etc/knockd.conf")
}
