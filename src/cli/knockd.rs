//! The daemon's command line.
#![forbid(unsafe_code)]

use super::getopt::{self, Opt};
use super::{Argv, Outcome, Program, Typed, early, fill};
use crate::util::path::{components_rev, parent};
use crate::util::quote::quote;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The daemon's options, in the order in which knockd 0.8 lists them when one is ambiguous; then
/// ours.
pub const OPTIONS: &[Opt] = &[
    Opt::switch("--verbose", 'v'),
    Opt::switch("--debug", 'D'),
    Opt::switch("--daemon", 'd'),
    Opt::switch("--lookup", 'l'),
    Opt::value("--interface", 'i'),
    Opt::value("--config", 'c'),
    Opt::switch("--help", 'h'),
    Opt::value("--pidfile", 'p'),
    Opt::value("--logfile", 'g'),
    Opt::switch("--only-ip-v4", '4'),
    Opt::switch("--version", 'V'),
    Opt::ours("--check"),
    Opt::ours("--strict"),
    Opt::ours("--status"),
    Opt::ours("--json"),
    Opt::ours_with_value("--close"),
];

/// The texts of the daemon. Like knockd 0.8, it also prints its usage after an error in the config.
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

/// The daemon's options. `None` means that an option was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnockdArgs {
    /// option `-i`: overrides the config's `Interface`.
    pub interface: Option<String>,
    /// option `-d`
    pub daemon: bool,
    /// option `-c`; `None`: see [`default_config`]
    pub config: Option<PathBuf>,
    /// option `-D`
    pub debug: bool,
    /// option `-l`
    pub lookup: bool,
    /// option `-p`: the config's `PidFile` overrides it.
    pub pid_file: Option<PathBuf>,
    /// option `-g`: the config's `LogFile` overrides it.
    pub log_file: Option<PathBuf>,
    /// option `-v`
    pub verbose: bool,
    /// option `-4`
    pub only_ip_v4: bool,
    /// option `--check`: explain the config and exit.
    pub check: bool,
    /// option `--strict`: overrides the config's `Matching`.
    pub strict: bool,
    /// option `--status`: print the status of the running daemon and exit.
    pub status: bool,
    /// option `--json`: print the status as JSON.
    pub json: bool,
    /// option `--close`: the name of a door that the running daemon closes.
    pub close: Option<String>,
    /// the operand of `--close`: the client's address.
    pub source: Option<IpAddr>,
}

/// Parses the daemon's command line. The first word is the program's name. Ignores operands as 0.8
/// does, except with options of ours.
pub fn knockd(argv: &[OsString]) -> Outcome<KnockdArgs> {
    let words = match Argv::new(argv, "knockd") {
        Ok(words) => words,
        Err(error) => return Outcome::Refuse(error),
    };
    let scan = getopt::scan(OPTIONS, &words.args);
    if let Some(outcome) = early(&scan, &words.program) {
        return outcome;
    }
    let read = fill(&words.program, &scan.options).and_then(|typed| checked(typed, &scan.operands));
    let refuse = |error: String| Outcome::Refuse([&words.program, ": ", &error].concat());
    read.map_or_else(refuse, Outcome::Run)
}

fn checked(typed: Typed, operands: &[&str]) -> Result<KnockdArgs, String> {
    let mut source = None;
    if typed.close.is_some() {
        if let [address] = operands {
            source = address.parse().ok();
        }
        if source.is_none() {
            let found = quote(operands.join(" ").as_bytes());
            return Err([
                "--close takes a door and the address that it is open for, not ",
                &found,
                "; for example: knockd --close SSH 203.0.113.7",
            ]
            .concat());
        }
    } else if let [first, ..] = operands
        && (typed.check || typed.status)
    {
        // Otherwise it would check another config than the user meant.
        let right = "; did you mean: knockd --check -c my.conf";
        return Err(["unexpected argument ", &quote(first.as_bytes()), right].concat());
    }
    if typed.json && !typed.status {
        return Err("--json goes with --status".into());
    }
    Ok(KnockdArgs {
        interface: typed.interface,
        daemon: typed.daemon,
        config: typed.config.map(PathBuf::from),
        debug: typed.debug,
        lookup: typed.lookup,
        pid_file: typed.pidfile.map(PathBuf::from),
        log_file: typed.logfile.map(PathBuf::from),
        verbose: typed.verbose,
        only_ip_v4: typed.only_ip_v4,
        check: typed.check,
        strict: typed.strict,
        status: typed.status,
        json: typed.json,
        close: typed.close,
        source,
    })
}

/// Returns the config to read without `-c`: `../../etc/knockd.conf` relative to the program if that
/// exists (the tree can be under /jffs or /tmp, because a router's /etc is read-only), otherwise
/// /etc/knockd.conf. `program` is the absolute path of the program without symbolic links, as in
/// /proc/self/exe. For any other path the result is /etc/knockd.conf.
pub fn default_config(program: &Path, exists: impl Fn(&Path) -> bool) -> PathBuf {
    if program.is_absolute() && components_rev(program).all(|part| part != "..") {
        // From the program to its directory, then two levels up.
        let tree = parent(parent(parent(program)));
        let config = tree.join("etc/knockd.conf");
        if exists(&config) {
            return config;
        }
    }
    PathBuf::from("/etc/knockd.conf")
}
