//! The doors of the soak, the sources that knock, and the configs.

use crate::model::{Key, Times};
use std::fmt::Write;
use std::path::Path;

/// A kind of door.
pub struct Door {
    pub name: &'static str,
    /// cmd_timeout in seconds.
    lease: u64,
    /// `@RULE@` is replaced by iptables or ip6tables with `-I`. If empty, the command writes a
    /// note.
    start: &'static str,
    /// The same with `-D`.
    stop: &'static str,
    /// How long the two commands sleep, in milliseconds.
    sleeps: (u64, u64),
    /// Only every n-th source knocks at it, because only 16 start and 16 stop commands run at once.
    every: usize,
}

const fn door(name: &'static str, lease: u64) -> Door {
    Door {
        name,
        lease,
        start: "@RULE@",
        stop: "@RULE@",
        sleeps: (0, 0),
        every: 1,
    }
}

/// All doors. The rule of the n-th is for port 1000 + n.
pub const DOORS: &[Door] = &[
    door("blink", 0),
    door("short", 1),
    door("medium", 3),
    door("long", 8),
    door("longer", 12),
    Door {
        start: "sleep 0.5; @RULE@",
        sleeps: (500, 0),
        every: 2,
        ..door("slow start", 9)
    },
    Door {
        stop: "sleep 0.5; @RULE@",
        sleeps: (0, 500),
        every: 2,
        ..door("slow stop", 9)
    },
    Door {
        start: "@RULE@; sleep 0.4; exit 7",
        stop: "@RULE@; exit 9",
        sleeps: (400, 0),
        ..door("failing", 8)
    },
    Door {
        start: "@RULE@; sleep 5",
        sleeps: (5000, 0),
        every: 7,
        ..door("hanging start", 1)
    },
    Door {
        stop: "@RULE@; sleep 4",
        sleeps: (0, 4000),
        every: 7,
        ..door("hanging stop", 2)
    },
    door("once", 8),
    Door {
        start: "",
        stop: "",
        ..door("note", 0)
    },
];

/// The index of the door with a one-time list.
pub const ONCE: usize = DOORS.len() - 2;
/// The index of the door without a stop command.
pub const NOTE: usize = DOORS.len() - 1;

/// The number of lines in the one-time list.
pub const LIST_LINES: usize = 600;

/// seq_timeout in seconds.
pub const SEQ_TIMEOUT: u64 = 3;

/// The link through which a source knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// wan0, a veth.
    Wan,
    /// ppp0, a tun.
    Ppp,
}

/// All links.
pub const LINKS: [Link; 2] = [Link::Wan, Link::Ppp];

/// A client.
pub struct Source {
    pub address: &'static str,
    pub link: Link,
    /// It never knocks correctly.
    pub stranger: bool,
}

impl Source {
    pub fn is_ipv6(&self) -> bool {
        self.address.contains(':')
    }
}

const fn source(address: &'static str, link: Link, stranger: bool) -> Source {
    Source {
        address,
        link,
        stranger,
    }
}

/// All sources. The first two can run the real client.
pub const SOURCES: &[Source] = &[
    source("198.51.100.2", Link::Wan, false),
    source("2001:db8::2", Link::Wan, false),
    source("198.51.100.21", Link::Wan, false),
    source("198.51.100.22", Link::Wan, false),
    source("198.51.100.23", Link::Wan, false),
    source("2001:db8::21", Link::Wan, false),
    source("10.64.0.21", Link::Ppp, false),
    source("10.64.0.22", Link::Ppp, false),
    source("2001:db8:64::21", Link::Ppp, false),
    source("198.51.100.31", Link::Wan, true),
    source("2001:db8::31", Link::Wan, true),
    source("10.64.0.31", Link::Ppp, true),
];

/// The model's view of the doors.
pub fn times() -> Vec<Times> {
    let times = |door: &Door| Times {
        lease: door.lease * 1000,
        start: door.sleeps.0,
        stop: door.sleeps.1,
        fails: door.start.ends_with("exit 7"),
    };
    DOORS.iter().map(times).collect()
}

/// Whether that source may knock correctly at that door.
pub fn is_customer(key: Key) -> bool {
    !SOURCES[key.source].stranger && key.source.is_multiple_of(DOORS[key.door].every)
}

/// Whether a command of that door takes seconds.
pub fn hangs(door: usize) -> bool {
    let (start, stop) = DOORS[door].sleeps;
    start.max(stop) >= 1000
}

/// One step of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub port: u16,
    pub udp: bool,
}

/// The sequence of a door in that variant of the config. No two doors or variants share a port.
pub fn sequence(variant: u16, door: usize) -> Vec<Step> {
    let base = 20000 + variant * 1000 + door as u16 * 10;
    [(3, true), (1, false), (7, true), (5, false)]
        .map(|(port, udp)| Step {
            port: base + port,
            udp,
        })
        .to_vec()
}

/// The n-th sequence of the one-time list.
pub fn listed(line: usize) -> Vec<Step> {
    let base = 40000 + line as u16 * 4;
    [(0, true), (1, false), (2, true)]
        .map(|(port, udp)| Step {
            port: base + port,
            udp,
        })
        .to_vec()
}

fn text(steps: &[Step]) -> String {
    let texts: Vec<String> = steps
        .iter()
        .map(|step| format!("{}:{}", step.port, if step.udp { "udp" } else { "tcp" }))
        .collect();
    texts.join(",")
}

/// The client's arguments for these steps.
pub fn words(steps: &[Step]) -> Vec<String> {
    text(steps).split(',').map(str::to_string).collect()
}

/// An unused one-time list.
pub fn list() -> String {
    let lines: Vec<String> = (0..LIST_LINES).map(|line| text(&listed(line))).collect();
    lines.join("\n") + "\n"
}

/// The doors of the config in that variant. Their files are in `home`.
pub fn config(variant: u16, home: &Path) -> String {
    let home = home.display();
    let mut config = String::new();
    for (index, door) in DOORS.iter().enumerate() {
        let command = |key: &str, text: &str, flag: &str| {
            ["", "6"]
                .map(|family| {
                    let program = if family == "6" {
                        "ip6tables"
                    } else {
                        "iptables"
                    };
                    let key = if family == "6" {
                        format!("{key}_6")
                    } else {
                        key.to_string()
                    };
                    let port = 1000 + index;
                    let rule = format!(
                        "{program} -w {flag} INPUT -s %IP% -p tcp --dport {port} -j ACCEPT"
                    );
                    format!("{key} = {}\n", text.replace("@RULE@", &rule))
                })
                .concat()
        };
        let mut commands = match index {
            NOTE => format!("command = echo %IP% >> {home}/notes\n"),
            _ => {
                command("start_command", door.start, "-I")
                    + &command("stop_command", door.stop, "-D")
            }
        };
        if index == ONCE {
            let _ = writeln!(commands, "one_time_sequences = {home}/once");
        } else {
            let _ = writeln!(commands, "sequence = {}", text(&sequence(variant, index)));
        }
        let (name, lease) = (door.name, door.lease);
        let _ = writeln!(
            config,
            "[{name}]\nseq_timeout = {SEQ_TIMEOUT}\ntcpflags = syn\ncmd_timeout = {lease}\n{commands}"
        );
    }
    config
}

/// Broken configs, which must change nothing.
pub const BROKEN: &[&str] = &[
    "sequence = 1,2\n",
    "[A]\nsequence = 1,99999\n",
    "[A]\nsequence = \n",
    "[options]\nNonsense = 1\n",
    "[A]\nsequence = 1:sctp\n",
    "[A\n",
    "[A]\nsequence = 1,2\ntcpflags = syn,\n",
    "[A]\nsequence = 1\none_time_sequences = /nonexistent/list\n",
];

/// The key of a rule as `iptables -S` shows it; `None` if it is not a door's rule.
pub fn key_of(rule: &str) -> Option<Key> {
    let words: Vec<&str> = rule.split(' ').collect();
    let after = |flag: &str| {
        let index = words.iter().position(|word| *word == flag)?;
        words.get(index + 1).copied()
    };
    let address = after("-s")?.split('/').next()?;
    let port: usize = after("--dport")?.parse().ok()?;
    let source = SOURCES
        .iter()
        .position(|source| source.address == address)?;
    let door = port.checked_sub(1000).filter(|door| *door < DOORS.len())?;
    Some(Key { door, source })
}
