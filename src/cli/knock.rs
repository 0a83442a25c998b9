//! The client's command line.
#![forbid(unsafe_code)]

use super::getopt::{self, Opt};
use super::{Argv, Outcome, Program, Typed, early, fill};
use crate::knock::Protocol;
use crate::resolve::Family;
use crate::util::number::parse_uint;
use crate::util::time::Millis;
use std::ffi::OsString;

/// The client's options, in the order in which knock 0.8 lists them when one is ambiguous.
pub const OPTIONS: &[Opt] = &[
    Opt::switch("--verbose", 'v'),
    Opt::switch("--udp", 'u'),
    Opt::value("--delay", 'd'),
    Opt::switch("--help", 'h'),
    Opt::switch("--version", 'V'),
    Opt::switch("--ipv4", '4'),
    Opt::switch("--ipv6", '6'),
];

/// The texts of the client.
pub const KNOCK: Program = Program {
    version: concat!(
        "knock ",
        env!("CARGO_PKG_VERSION"),
        " (knockd-rs, a drop-in for knock 0.8)\n",
        "Licensed under MIT or Apache-2.0, as you like; no warranty.\n"
    ),
    usage: "\
usage: knock [options] <host> <port[:proto]> [port[:proto]] ...
options:
  -u, --udp            send every knock over UDP (default: TCP, or as <proto>)
  -d, --delay <t>      wait <t> milliseconds after each knock (default 0)
  -4, --ipv4           use IPv4 only
  -6, --ipv6           use IPv6 only
  -v, --verbose        print each knock
  -V, --version        print the version
  -h, --help           print this help

example:  knock myserver.example.com 123:tcp 456:udp 789:tcp
          knock -v -d 300 myrouter.example.com 7000 8000:udp 9000
                    (over the Internet a delay keeps the knocks in order)

",
    usage_status: 1,
};

/// One `PORT[:PROTO]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnockStep<'a> {
    /// PORT as typed: a number or a service name, not yet checked.
    pub port: &'a str,
    /// The transport.
    pub protocol: Protocol,
    /// A PROTO other than `tcp` and `udp`; such a step uses TCP, as in 0.8.
    pub unknown_protocol: Option<&'a str>,
}

impl<'a> KnockStep<'a> {
    /// As in 0.8, only `udp` is UDP and everything else is TCP. With `all_udp` everything is UDP.
    fn new(text: &'a str, all_udp: bool) -> KnockStep<'a> {
        let (port, typed) = match text.split_once(':') {
            Some((port, protocol)) => (port, Some(protocol)),
            None => (text, None),
        };
        let udp = all_udp || typed == Some("udp");
        KnockStep {
            port,
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            unknown_protocol: typed.filter(|t| !udp && *t != "tcp"),
        }
    }
}

/// The task of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnockArgs<'a> {
    /// The target: a name or an address, as typed.
    pub host: &'a str,
    /// The steps in order, at least one.
    pub steps: Vec<KnockStep<'a>>,
    /// The pause after each knock, including the last.
    pub delay: Millis,
    /// `-4`, `-6`
    pub family: Family,
    /// `-v`
    pub verbose: bool,
}

/// Parses the client's command line. The first word is the program's name.
pub fn knock(argv: &[OsString]) -> Outcome<KnockArgs<'_>> {
    let words = match Argv::new(argv, "knock") {
        Ok(words) => words,
        Err(error) => return Outcome::Refuse(error),
    };
    let scan = getopt::scan(OPTIONS, &words.args);
    if let Some(outcome) = early(&scan, &words.program) {
        return outcome;
    }
    if scan.operands.len() < 2 {
        return Outcome::Usage(None);
    }
    // The last of -4 and -6 counts; argh does not see their order.
    let mut family = Family::Any;
    for (option, _) in &scan.options {
        match option.short {
            Some('4') => family = Family::V4,
            Some('6') => family = Family::V6,
            _ => {}
        }
    }
    let read = fill(&words.program, &scan.options)
        .and_then(|typed| checked(typed, &scan.operands, family));
    read.map_or_else(Outcome::Refuse, Outcome::Run)
}

fn checked<'a>(
    typed: Typed,
    operands: &[&'a str],
    family: Family,
) -> Result<KnockArgs<'a>, String> {
    let (host, words) = operands.split_first().unwrap_or((&"", &[]));
    let mut steps = Vec::new();
    for word in words {
        steps.push(KnockStep::new(word, typed.udp));
    }
    Ok(KnockArgs {
        delay: typed.delay.as_deref().map_or(Ok(0), delay)?,
        steps,
        host,
        family,
        verbose: typed.verbose,
    })
}

/// Parses milliseconds in the range of `int`, as 0.8's `atoi`. What `atoi` would make 0 or truncate
/// is an error.
fn delay(text: &str) -> Result<Millis, String> {
    let (is_negative, unsigned) = match text.trim_ascii().as_bytes() {
        [sign @ (b'+' | b'-'), unsigned @ ..] => (*sign == b'-', unsigned),
        unsigned => (false, unsigned),
    };
    match parse_uint(unsigned, i32::MAX as u64) {
        Some(1..) if is_negative => Err("error: delay cannot be negative".into()),
        Some(ms) => Ok(ms),
        None => Err([
            "error: delay \"",
            text,
            "\" is not a number of milliseconds; use 0 to 2147483647, such as -d 300",
        ]
        .concat()),
    }
}
