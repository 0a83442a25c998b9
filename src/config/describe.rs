//! A config in words that a person can check.
#![forbid(unsafe_code)]

use super::shadow::closed_by;
use super::{Bans, Commands, Config, Door, Options, Reknock};
use crate::door::{FlagRule, Matching, Millis, Protocol, TCP_FLAGS};
use crate::quote::{printable, quote};
use crate::tripwire::Tripwire;
use std::path::Path;

/// What the config means: the options, then door by door what to knock and what runs. Ends with a newline.
pub fn describe(config: &Config) -> String {
    let mut out = String::new();
    about_options(&mut out, &config.options);
    for door in &config.doors {
        about_door(&mut out, door, &config.doors);
    }
    out
}

/// One line: what, padded, and its value.
fn put(out: &mut String, what: &str, value: &str) {
    out.push_str(&format!("  {what:<14}{value}\n"));
}

fn path(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

fn about_options(out: &mut String, options: &Options) {
    out.push_str("Options\n");
    let interface = options
        .interface
        .as_deref()
        .unwrap_or("eth0, or auto where there is none, if no -i says otherwise");
    put(out, "interface", interface);
    put(
        out,
        "matching",
        match options.matching {
            Matching::Tolerant => "tolerant: repeats and a few stray knocks are forgiven",
            Matching::Strict => "strict: as knockd 0.8",
        },
    );
    put(
        out,
        "second knock",
        match options.reknock {
            Reknock::Renew => "renews the time of an open door",
            Reknock::Stack => "runs the start command again, and later both stop commands",
        },
    );
    match &options.tripwire {
        Tripwire::None => {}
        Tripwire::Auto => put(out, "tripwires", "around each step, and some random ports"),
        Tripwire::Ports(ranges) => {
            let ports = list(ranges, ", ", |range| match range.high == range.low {
                true => range.low.to_string(),
                false => format!("{}-{}", range.low, range.high),
            });
            put(out, "tripwires", &ports);
        }
    }
    about_bans(out, &options.bans);
    let mut log = match (options.use_syslog, &options.log_file) {
        (false, None) => "nowhere".to_string(),
        (true, None) => "syslog".to_string(),
        (false, Some(file)) => path(file),
        (true, Some(file)) => format!("syslog and {}", path(file)),
    };
    if options.log_rate > 0 {
        log.push_str(&format!(
            ", at most {} lines of stages a second",
            options.log_rate
        ));
    }
    put(out, "log", &log);
    if let Some(file) = &options.pid_file {
        put(out, "pid file", &path(file));
    }
    put(out, "state", &path(&options.state_dir));
    let number = options.max_commands;
    let time = duration(options.command_timeout);
    let text = format!("at most {number} that open and {number} that close at once, {time} each");
    put(out, "commands", &text);
}

fn about_bans(out: &mut String, bans: &Bans) {
    let Some(rule) = bans.rule else { return };
    let text = format!(
        "for {} after {} tripwires within {}, at most {} at once",
        duration(bans.time),
        rule.hits,
        duration(rule.window),
        bans.max
    );
    put(out, "bans", &text);
    let mut text = "this machine's own addresses and networks".to_string();
    for network in &bans.allow {
        text.push_str(&format!(", {}/{}", network.address, network.prefix));
    }
    put(out, "never banned", &text);
    families(
        out,
        "ban",
        pairs(&bans.start, "runs nothing: only knocks are ignored"),
    );
    if bans.stop != Commands::default() {
        families(out, "unban", pairs(&bans.stop, "runs nothing"));
    }
}

/// What runs for each address family.
fn pairs(commands: &Commands, none: &str) -> (String, String) {
    let show = |c: &Option<Vec<u8>>| c.as_deref().map_or_else(|| none.to_string(), printable);
    (show(&commands.v4), show(&commands.v6))
}

/// A door as messages name it: its name, and its line since names may stand twice.
pub(super) fn name_of(door: &Door) -> String {
    format!("{} (line {})", quote(door.name.as_bytes()), door.line)
}

fn about_door(out: &mut String, door: &Door, doors: &[Door]) {
    out.push_str(&["\nDoor ", &name_of(door), "\n"].concat());
    let pattern = &door.pattern;
    match (&door.one_time, &pattern.sequence) {
        (Some(file), _) => {
            put(
                out,
                "knock",
                &format!("the first unused line of {}", path(file)),
            );
        }
        (None, Some(sequence)) => {
            put(
                out,
                "knock",
                &list(sequence.steps(), ", ", |s| {
                    format!("{}/{}", s.port, s.protocol)
                }),
            );
            let client = list(sequence.steps(), " ", |step| match step.protocol {
                Protocol::Tcp => step.port.to_string(),
                Protocol::Udp => step.to_string(),
            });
            let host = pattern
                .target
                .map_or("ROUTER".into(), |target| target.to_string());
            put(out, "client", &format!("knock {host} {client}"));
        }
        (None, None) => put(out, "knock", "nothing: it is disabled"),
    }
    let within = match pattern.seq_timeout {
        0 => "no time: only a sequence of one step can open".to_string(),
        time => format!("{} from the first knock", duration(time)),
    };
    put(out, "within", &within);
    put(out, "TCP flags", &flags(pattern.flags));
    match pattern.target {
        Some(target) => put(out, "sent to", &format!("{target} only")),
        None => put(out, "sent to", "any address of the interface"),
    }
    families(
        out,
        "opening",
        pairs(&door.start, "runs nothing, only a log line"),
    );
    if door.stop != Commands::default() {
        families(out, "closing", pairs(&door.stop, "runs nothing"));
        let after = format!(
            "{} after the opening command has ended",
            duration(door.cmd_timeout)
        );
        put(out, "closes", &after);
    } else if let Some(closing) = closed_by(door, doors) {
        put(
            out,
            "closes",
            &["by the knock of ", &name_of(closing)].concat(),
        );
    } else if let Some(opening) = doors
        .iter()
        .find(|other| closed_by(other, doors).is_some_and(|closing| closing.line == door.line))
    {
        put(out, "undoes", &name_of(opening));
    } else if door.start != Commands::default() {
        put(out, "closes", "not by knockd: no stop command");
    }
}

fn families(out: &mut String, what: &str, (v4, v6): (String, String)) {
    if v4 == v6 {
        put(out, what, &v4);
    } else {
        put(out, &format!("{what}, IPv4"), &v4);
        put(out, &format!("{what}, IPv6"), &v6);
    }
}

fn list<T>(items: &[T], between: &str, show: fn(&T) -> String) -> String {
    let mut out = String::new();
    for item in items {
        out.push_str(if out.is_empty() { "" } else { between });
        out.push_str(&show(item));
    }
    out
}

fn flags(rule: FlagRule) -> String {
    let mut out = String::new();
    for (bits, state) in [(rule.set, "set"), (rule.clear, "clear")] {
        for (name, bit) in TCP_FLAGS {
            if bits & bit != 0 {
                out.push_str(if out.is_empty() { "" } else { ", " });
                out.push_str(&format!("{name} {state}"));
            }
        }
    }
    if out.is_empty() { "any".into() } else { out }
}

fn duration(time: Millis) -> String {
    match time / 1000 {
        // A negative cmd_timeout.
        seconds if seconds > i32::MAX as u64 => "about 136 years".into(),
        seconds => format!("{seconds} s"),
    }
}
