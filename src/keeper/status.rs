//! The output of `knockd --status`, as text and as JSON.
#![forbid(unsafe_code)]

use crate::ipc::{COUNTERS, Counters, Interface};
use crate::lease::{Lease, Phase};
use crate::util::quote::printable;
use crate::util::text::shown;
use crate::util::time::Millis;
use std::fmt::{self, Write};

/// The state of a daemon at one moment.
pub struct Status<'a> {
    /// The keeper's PID.
    pub process: u32,
    /// Time since its start.
    pub uptime: Millis,
    /// The path of its config.
    pub config: &'a str,
    /// The listener's report. `None` if it does not answer.
    pub listener: Option<&'a ListenerStatus>,
    /// Number of listeners that have died.
    pub restarts: u32,
    /// Number of complete knocks.
    pub opened: u64,
    /// The doors of the config.
    pub doors: Vec<DoorStatus<'a>>,
    /// The leases.
    pub leases: &'a [Lease],
    /// The current time.
    pub now: Millis,
}

/// A door of the config.
pub struct DoorStatus<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it has a sequence: a one-time list may be used up.
    pub enabled: bool,
}

/// The listener's report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Time since its start.
    pub uptime: Millis,
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Its counters.
    pub counters: Counters,
}

impl Status<'_> {
    /// Returns the lines for the user.
    pub fn text(&self) -> String {
        let mut out = format!(
            "knockd {}, process {}, config {}, running for {}\n",
            env!("CARGO_PKG_VERSION"),
            self.process,
            safe_for_terminal(self.config),
            duration(self.uptime)
        );
        match self.listener {
            Some(listener) => listener_text(&mut out, listener),
            None => out.push_str("the listener does not answer\n"),
        }
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            out,
            "doors opened {} times, listener restarted {} times",
            self.opened, self.restarts
        );
        for door in &self.doors {
            let state = if door.enabled {
                ""
            } else {
                " (disabled: its one-time list is used up)"
            };
            let _ = writeln!(out, "door {}{state}", safe_for_terminal(door.name));
            // If two doors have the same name, shows the leases below the first.
            let first = self.doors.iter().find(|other| other.name == door.name);
            if first.is_some_and(|first| std::ptr::eq(first, door)) {
                self.leases_text(&mut out, &|lease: &Lease| is_of(lease, door));
            }
        }
        let is_known = |lease: &Lease| self.doors.iter().any(|door| is_of(lease, door));
        self.leases_text(&mut out, &|lease: &Lease| {
            !lease.is_ban() && !is_known(lease)
        });
        if self.leases.iter().any(Lease::is_ban) {
            out.push_str("bans\n");
            self.leases_text(&mut out, &Lease::is_ban);
        }
        out
    }

    fn leases_text(&self, out: &mut String, wanted: &dyn Fn(&Lease) -> bool) {
        for lease in self.leases.iter().filter(|lease| wanted(lease)) {
            let _ = write!(
                out,
                "  {}, {}: ",
                safe_for_terminal(lease.name()),
                lease.source
            );
            out.push_str(state(lease));
            if let Phase::Open { until } = lease.phase {
                let left = duration(until.saturating_sub(self.now));
                let _ = write!(out, ", {left} left");
            }
            out.push('\n');
        }
    }

    /// Returns one line of JSON (RFC 8259). Times are in milliseconds.
    pub fn json(&self) -> String {
        let mut out = Json::default();
        out.begin("", '{');
        out.text("version", env!("CARGO_PKG_VERSION"));
        out.plain("process", &self.process);
        out.text("config", self.config);
        out.plain("uptime_ms", &self.uptime);
        match self.listener {
            Some(listener) => listener_json(&mut out, listener),
            None => out.plain("listener", &"null"),
        }
        out.plain("restarts", &self.restarts);
        out.plain("opened", &self.opened);
        out.begin("doors", '[');
        for door in &self.doors {
            out.begin("", '{');
            out.text("name", door.name);
            out.plain("enabled", &door.enabled);
            out.end('}');
        }
        out.end(']');
        for (name, are_bans) in [("leases", false), ("bans", true)] {
            out.begin(name, '[');
            let leases = self.leases.iter();
            leases
                .filter(|lease| lease.is_ban() == are_bans)
                .for_each(|lease| self.lease_json(&mut out, lease));
            out.end(']');
        }
        out.end('}');
        out.0.push('\n');
        out.0
    }

    fn lease_json(&self, out: &mut Json, lease: &Lease) {
        out.begin("", '{');
        if !lease.is_ban() {
            out.text("door", lease.name());
        }
        out.text("source", &shown(&lease.source));
        out.text("state", state(lease));
        match lease.phase {
            Phase::Open { until } => out.plain("left_ms", &until.saturating_sub(self.now)),
            _ => out.plain("left_ms", &"null"),
        }
        out.end('}');
    }
}

fn is_of(lease: &Lease, door: &DoorStatus<'_>) -> bool {
    !lease.is_ban() && lease.name() == door.name
}

/// Makes a name from the config, which may contain any bytes, safe for a terminal.
fn safe_for_terminal(name: &str) -> String {
    printable(name.as_bytes())
}

/// Returns the word for the state of a lease.
fn state(lease: &Lease) -> &'static str {
    match (lease.phase, lease.is_ban()) {
        (Phase::Starting { .. }, false) => "opening",
        (Phase::Open { .. }, false) => "open",
        (Phase::Starting { .. } | Phase::Open { .. }, true) => "banned",
        (Phase::Stopping { .. }, false) => "closing",
        (Phase::Stopping { .. }, true) => "ending",
    }
}

fn listener_text(out: &mut String, listener: &ListenerStatus) {
    for interface in &listener.interfaces {
        let _ = write!(out, "interface {}", interface.wanted);
        match interface.name.as_str() {
            "" if interface.wanted != "any" => out.push_str(" (missing)"),
            name if !name.is_empty() && *name != interface.wanted => {
                let _ = write!(out, " ({name})");
            }
            _ => {}
        }
        for (index, address) in interface.addresses.iter().enumerate() {
            let _ = write!(out, "{} {address}", if index == 0 { ":" } else { "," });
        }
        if interface.more > 0 {
            let _ = write!(out, " and {} more", interface.more);
        }
        out.push('\n');
    }
    let uptime = duration(listener.uptime);
    let _ = write!(out, "in the {uptime} since the listener started");
    let mut before = ":";
    for ((_, words), number) in COUNTERS.iter().zip(&listener.counters) {
        let _ = write!(out, "{before} {number} {words}");
        before = ",";
    }
    out.push('\n');
}

fn listener_json(out: &mut Json, listener: &ListenerStatus) {
    out.begin("listener", '{');
    out.plain("uptime_ms", &listener.uptime);
    for ((name, _), number) in COUNTERS.iter().zip(&listener.counters) {
        out.plain(name, number);
    }
    out.begin("interfaces", '[');
    for interface in &listener.interfaces {
        out.begin("", '{');
        out.text("wanted", &interface.wanted);
        out.text("name", &interface.name);
        out.begin("addresses", '[');
        for address in &interface.addresses {
            out.text("", &shown(address));
        }
        out.end(']');
        out.plain("more", &interface.more);
        out.end('}');
    }
    out.end(']');
    out.end('}');
}

/// A JSON writer. A value in an object has a name. In an array, and at the top level, its name is
/// empty.
#[derive(Default)]
struct Json(String);

impl Json {
    /// Writes the separator and the name before a value.
    fn name(&mut self, name: &str) {
        if !matches!(self.0.as_bytes().last(), None | Some(b'{' | b'[')) {
            self.0.push(',');
        }
        if !name.is_empty() {
            self.string(name);
            self.0.push(':');
        }
    }

    /// Begins an object or array, which ends at the matching [`end`](Json::end).
    fn begin(&mut self, name: &str, bracket: char) {
        self.name(name);
        self.0.push(bracket);
    }

    fn end(&mut self, bracket: char) {
        self.0.push(bracket);
    }

    /// Writes a number, boolean or null.
    fn plain(&mut self, name: &str, value: &dyn fmt::Display) {
        self.name(name);
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{value}");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.string(text);
    }

    fn string(&mut self, text: &str) {
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => {
                    self.0.push('\\');
                    self.0.push(character);
                }
                '\0'..='\x1f' => {
                    let _ = write!(self.0, "\\u{:04x}", u64::from(character));
                }
                _ => self.0.push(character),
            }
        }
        self.0.push('"');
    }
}

/// Formats a duration in its two largest units: `2 d 3 h`, `59 s`.
fn duration(time: Millis) -> String {
    const UNITS: [(u32, &str); 4] = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    // Overflows after 136 years.
    let seconds = (time / 1000) as u32;
    for pair in UNITS.windows(2) {
        let [(large, one), (small, other)] = [pair[0], pair[1]];
        if seconds >= large {
            let rest = seconds % large / small;
            return format!("{} {one} {rest} {other}", seconds / large);
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{LeaseKind, Turn};

    fn lease(door: &str, phase: Phase) -> Lease {
        Lease {
            id: 0,
            kind: match door {
                "" => LeaseKind::Ban,
                _ => LeaseKind::Door(door.to_string()),
            },
            source: "10.9.0.2".parse().unwrap(),
            start: b"start".to_vec(),
            stop: b"stop".to_vec(),
            cmd_timeout: 20_000,
            turn: Turn::default(),
            phase,
            running: None,
        }
    }

    fn listener() -> ListenerStatus {
        ListenerStatus {
            uptime: 61_000,
            interfaces: vec![
                Interface {
                    wanted: "auto".to_string(),
                    name: "ppp0".to_string(),
                    addresses: ["10.9.0.1", "fd09::1"].map(|a| a.parse().unwrap()).into(),
                    more: 2,
                },
                Interface {
                    wanted: "vlan1".to_string(),
                    ..Interface::default()
                },
            ],
            counters: [12, 0, 1, 3],
        }
    }

    /// Calls `show` with a status of two doors, three leases, one of them of a removed door, and a
    /// ban.
    fn shown(listener: Option<&ListenerStatus>, show: impl Fn(&Status<'_>) -> String) -> String {
        let leases = [
            lease("a \"b\" \\ c", Phase::Open { until: 20_500 }),
            lease(
                "a \"b\" \\ c",
                Phase::Starting {
                    until: None,
                    reapply: false,
                },
            ),
            lease("gone\u{1}", Phase::Open { until: 1 }),
            lease("", Phase::Open { until: 63_000 }),
        ];
        let door = |name, enabled| DoorStatus { name, enabled };
        show(&Status {
            process: 7,
            uptime: 2 * 86_400_000 + 3 * 3_600_000,
            config: "/etc/\u{1b}[2J.conf",
            listener,
            restarts: 1,
            opened: 9,
            doors: vec![door("a \"b\" \\ c", true), door("list", false)],
            leases: &leases,
            now: 3_000,
        })
    }

    #[test]
    fn the_text_shows_doors_leases_and_counters() {
        let listener = listener();
        assert_eq!(
            shown(Some(&listener), |status| status.text()),
            format!(
                "knockd {}, process 7, config /etc/\\u{{1b}}[2J.conf, running for 2 d 3 h\n\
                 interface auto (ppp0): 10.9.0.1, fd09::1 and 2 more\n\
                 interface vlan1 (missing)\n\
                 in the 1 min 1 s since the listener started: 12 knocks seen, 0 lost by the kernel, \
                 1 attempts failed, 3 under way\n\
                 doors opened 9 times, listener restarted 1 times\n\
                 door a \"b\" \\ c\n  a \"b\" \\ c, 10.9.0.2: open, 17 s left\n  \
                 a \"b\" \\ c, 10.9.0.2: opening\n\
                 door list (disabled: its one-time list is used up)\n  \
                 gone\\u{{1}}, 10.9.0.2: open, 0 s left\nbans\n  ban, 10.9.0.2: banned, 1 min 0 s left\n",
                env!("CARGO_PKG_VERSION")
            )
        );
        assert!(shown(None, |status| status.text()).contains("\nthe listener does not answer\n"));
    }

    #[test]
    fn the_json_has_the_same_data() {
        let listener = listener();
        let json = shown(Some(&listener), |status| status.json());
        assert!(json.ends_with("}\n") && json.lines().count() == 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(value["process"], 7);
        assert_eq!(value["opened"], 9);
        assert_eq!(value["doors"][0]["name"], "a \"b\" \\ c");
        assert_eq!(value["doors"][1]["enabled"], false);
        assert_eq!(value["leases"][0]["left_ms"], 17_500);
        assert_eq!(value["leases"][1]["state"], "opening");
        assert_eq!(value["leases"][2]["door"], "gone\u{1}");
        assert_eq!(value["leases"][3], serde_json::Value::Null);
        assert_eq!(value["bans"][0]["source"], "10.9.0.2");
        assert_eq!(value["bans"][0]["state"], "banned");
        assert_eq!(value["bans"][0]["left_ms"], 60_000);
        assert_eq!(value["listener"]["knocks"], 12);
        assert_eq!(
            value["listener"]["interfaces"][0]["addresses"][1],
            "fd09::1"
        );
        assert_eq!(value["listener"]["interfaces"][1]["name"], "");
        let silent: serde_json::Value =
            serde_json::from_str(&shown(None, |status| status.json())).unwrap();
        assert!(silent["listener"].is_null());
    }
}
