//! Plays a case to a daemon and records its reaction.

use crate::case::{Case, Outcome};
use crate::lab::{Daemon, Home, lines, wait_for};
use crate::lane::{Lane, start};
use crate::packet::{Token, await_second, parse};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two packets.
const GAP: Duration = Duration::from_millis(30);
/// If a packet is sent later than this after its time, the case is played again.
const LATE: Duration = Duration::from_millis(60);
/// How long to wait for lines beyond the expected ones.
const QUIET: Duration = Duration::from_millis(250);

/// The matching rule that our program uses. The original has no such option.
#[derive(Clone, Copy, PartialEq)]
pub enum Rule {
    Original,
    Strict,
    Default,
}

pub struct Played {
    pub outcome: Outcome,
    /// The number of lines left out because only our program prints them, see [`is_place`].
    pub places: usize,
    /// Lines about knocks and commands on standard output, sorted.
    printed: Vec<String>,
    /// The same lines in the log.
    logged: Vec<String>,
    /// Openings, `SOURCE: DOOR`, each with the number of packets that the daemon had seen. Only for
    /// our program, which logs that with `-D`.
    pub openings: Vec<(usize, String)>,
}

/// Plays a case. Waits until the daemon has printed what is expected, and then a while for more.
pub fn play(binary: &Path, lane: &Lane, case: &Case, rule: Rule, expected: &Outcome) -> Played {
    for _ in 0..5 {
        if let Some(played) = attempt(binary, lane, case, rule, expected) {
            return played;
        }
    }
    panic!("the machine is too busy to send packets in time");
}

fn attempt(
    binary: &Path,
    lane: &Lane,
    case: &Case,
    rule: Rule,
    expected: &Outcome,
) -> Option<Played> {
    let home = Home::new();
    let directory = home.path("").display().to_string();
    let directory = directory.trim_end_matches('/');
    home.write("conf", &case.conf.replace("@W@", directory));
    for (name, text) in &case.files {
        home.write(name, text);
    }
    let mut args: Vec<String> = case.args.split_whitespace().map(String::from).collect();
    args.extend(["-vDc", "conf", "-g"].map(String::from));
    args[case.args.split_whitespace().count() + 1] = format!("{directory}/conf");
    args.push(format!("{directory}/log"));
    if rule == Rule::Strict {
        args.push("--strict".to_string());
    }
    let mut daemon = start(binary, &lane.server, &home, &args);
    wait_for("the start or the end of the daemon", || {
        (daemon.is_ready() || daemon.ended().is_some()).then_some(())
    });
    if daemon.ended().is_none() && !send(lane, &parse(&case.packets)) {
        return None;
    }
    std::thread::sleep(Duration::from_secs_f64(case.post));
    let end = Instant::now() + Duration::from_secs(5);
    let mut observe = || observe(&mut daemon, &home, directory, case, rule);
    let mut until = |ready: &dyn Fn(&Played) -> bool| loop {
        let played = observe();
        if ready(&played) || Instant::now() > end {
            return played;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    until(&|played| is_enough(&played.outcome, expected));
    if expected.exit.is_none() {
        std::thread::sleep(QUIET);
    }
    let played = until(&|played| played.printed == played.logged);
    assert_eq!(played.printed, played.logged, "-v prints what the log says");
    Some(played)
}

/// Sends the packets at their times. Returns `false` if one was late.
pub fn send(lane: &Lane, tokens: &[Token]) -> bool {
    let mut due = Instant::now();
    let mut in_time = true;
    for (number, token) in (1u32..).zip(tokens) {
        match token {
            Token::Second => {
                await_second();
                due = Instant::now();
                continue;
            }
            Token::Wait(time) => due += *time,
            Token::Send(packet) => {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                lane.wire.send(&packet.bytes(number * 1_000_003));
                in_time &= due.elapsed() < LATE;
                due += GAP;
            }
        }
    }
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    in_time
}

fn is_enough(now: &Outcome, expected: &Outcome) -> bool {
    now.exit == expected.exit
        && now.matcher_log.len() >= expected.matcher_log.len()
        && now.command_log.len() >= expected.command_log.len()
        && now.stderr.len() >= expected.stderr.len()
}

/// The kinds of log lines.
#[derive(PartialEq)]
enum Kind {
    Matcher,
    Command,
    Life,
    Other,
}

fn kind(line: &str) -> Kind {
    let has = |texts: &[&str]| texts.iter().any(|text| line.contains(text));
    if has(&[
        ": running command: ",
        ": command timeout",
        "non-zero status code",
        "has been truncated!",
    ]) {
        Kind::Command
    } else if has(&[
        ": Stage ",
        ": OPEN SESAME",
        ": sequence timeout (",
        lines::EXHAUSTED,
    ]) {
        Kind::Matcher
    } else if has(&["starting up, listening on ", "shutting down"]) {
        Kind::Life
    } else {
        Kind::Other
    }
}

/// The messages in a log file: `[2026-11-23 18:00] message`. knockd 0.8 writes an empty line after
/// some (D-LOG-01).
pub fn log_lines(text: &str, rule: Rule) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.lines() {
        if line.is_empty() && rule == Rule::Original {
            continue;
        }
        let stamp = line.get(..19).unwrap_or_default();
        let shape: String = stamp
            .chars()
            .map(|c| if c.is_ascii_digit() { '9' } else { c })
            .collect();
        assert_eq!(shape, "[9999-99-99 99:99] ", "{line:?}");
        out.push(line[19..].to_string());
    }
    out
}

/// The lines that only our program prints (D-CFG-01): `FILE:LINE:COLUMN: text`, without the column
/// if a whole line is meant, without line and column if the file is meant. A warning starts with
/// that word.
pub fn is_place(line: &str, files: &[String]) -> bool {
    let line = line.strip_prefix("warning: ").unwrap_or(line);
    let Some(rest) = files
        .iter()
        .find_map(|file| line.strip_prefix(file.as_str()))
    else {
        return false;
    };
    let mut rest = rest;
    for _ in 0..2 {
        let end = rest
            .strip_prefix(':')
            .map(|r| 1 + r.bytes().take_while(u8::is_ascii_digit).count());
        match end {
            Some(end) if end > 1 => rest = &rest[end..],
            _ => break,
        }
    }
    rest.starts_with(": ")
}

pub fn only_places_are_left_out() {
    let files = ["/w/conf".to_string(), "/w/ots".to_string()];
    for line in [
        "/w/conf:3:14: text",
        "warning: /w/ots:3: text",
        "warning: /w/conf: text",
    ] {
        assert!(is_place(line, &files), "{line}");
    }
    for line in [
        "/w/conf:3:14:1: text",
        "/w/other:3:14: text",
        "config: line 3: syntax error",
        "/w/conf:3 text",
        "/w/ots:x: text",
        " /w/conf: text",
    ] {
        assert!(!is_place(line, &files), "{line}");
    }
}

fn observe(daemon: &mut Daemon, home: &Home, directory: &str, case: &Case, rule: Rule) -> Played {
    let exit = daemon.ended().map(|status| {
        status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or(0))
    });
    let anonymous = |line: &str| line.replace(directory, "@W@");
    let files = ["conf".to_string()]
        .into_iter()
        .chain(case.files.iter().map(|(name, _)| name.clone()));
    let files: Vec<String> = files.map(|name| format!("{directory}/{name}")).collect();
    let is_ours = |line: &str| rule != Rule::Original && is_place(line, &files);
    let mut log = log_lines(&home.read("log"), rule);
    log.retain(|line| !is_ours(line));
    let pick = |wanted: Kind| -> Vec<String> {
        let lines = log.iter().filter(|line| kind(line) == wanted);
        lines.map(|line| anonymous(line)).collect()
    };
    let output = daemon.output();
    let verbose = [
        ": Stage ",
        ": OPEN SESAME",
        ": sequence timeout (",
        ": running command: ",
        ": command timeout",
    ];
    let events = |lines: &[String]| -> Vec<String> {
        let lines = lines
            .iter()
            .filter(|line| verbose.iter().any(|text| line.contains(text)));
        let mut lines: Vec<String> = lines.cloned().collect();
        lines.sort_unstable();
        lines
    };
    let all_errors = daemon.errors();
    let places = all_errors.lines().filter(|line| is_ours(line)).count();
    let errors = all_errors.lines().filter(|line| !is_ours(line));
    let debug = || {
        let lines = output.iter().filter(|line| line.starts_with("config: "));
        // The recorder kept only this much of a line.
        lines
            .map(|line| anonymous(line).chars().take(160).collect())
            .collect()
    };
    let mut seen = 0;
    let mut openings = Vec::new();
    for line in &output {
        seen += usize::from(line.contains(" -> "));
        if let Some(who) = line.strip_suffix(": OPEN SESAME") {
            openings.push((seen, who.to_string()));
        }
    }
    Played {
        outcome: Outcome {
            started: daemon.is_ready(),
            exit,
            matcher_log: pick(Kind::Matcher),
            command_log: pick(Kind::Command),
            other_log: pick(Kind::Other),
            stderr: errors.map(anonymous).collect(),
            debug_config: case.about_config.then(debug),
            file: case.out.as_ref().map(|name| home.read(name)),
        },
        places,
        printed: events(&output),
        // With an empty LogFile there is no log (M019).
        logged: if home.path("log").exists() {
            events(&log)
        } else {
            events(&output)
        },
        openings,
    }
}
