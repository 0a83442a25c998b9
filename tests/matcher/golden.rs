//! Plays the cases of `golden.json`, recorded from the real knockd 0.8, with strict matching. Where
//! 0.8 lost attempts from its list, the case contains the correct result.

use crate::script::{ACK, Lab, SYN, address, flags, host, knock, sequence, step};
use knockd_rs::knock::{FlagRule, Knock, Matching, Pattern, Sequence};
use knockd_rs::matcher::Event;
use serde_json::Value;
use std::net::IpAddr;

const PACKET_GAP: u64 = 30;

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn list(value: &Value) -> Vec<&Value> {
    value.as_array().expect("a list").iter().collect()
}

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("golden.json")).expect("golden.json")
}

struct Door {
    name: String,
    pattern: Pattern,
    /// The unused one-time sequences.
    next: Vec<Option<Sequence>>,
}

fn parse_door(door: &Value) -> Door {
    let bits = |key: &str| door[key].as_u64().unwrap_or(0) as u8;
    let mut next: Vec<Option<Sequence>> = list(&door["sequences"])
        .into_iter()
        .map(|steps| {
            let steps: Vec<&str> = list(steps).into_iter().map(text).collect();
            Some(sequence(&steps.join(",")))
        })
        .collect();
    let first = next.remove(0);
    next.push(None);
    if door["one_time"] != true {
        next.clear();
    }
    let pattern = Pattern {
        sequence: first,
        seq_timeout: door["seq_timeout_ms"].as_u64().expect("a time"),
        flags: FlagRule {
            set: bits("set"),
            clear: bits("clear"),
        },
        target: door["target"].as_str().map(address),
    };
    Door {
        name: text(&door["name"]).into(),
        pattern,
        next,
    }
}

/// Parses `.3:7000/udp>10.9.0.11` or `6:7000@syn,ack`: [source:]port[/udp][@flags][>destination].
fn parse_packet(token: &str, id: u32) -> Knock {
    let (source, rest) = match token.split_once(':') {
        None => (host(2), token),
        Some(("6", rest)) => (address("fd00:9::2"), rest),
        Some((last, rest)) => (address(&format!("10.9.0{last}")), rest),
    };
    let (rest, destination) = match rest.split_once('>') {
        Some((rest, destination)) => (rest, address(destination)),
        None if source.is_ipv6() => (rest, address("fd00:9::1")),
        None => (rest, host(1)),
    };
    let (port, flags) = match rest.split_once('@') {
        Some((port, names)) => (port, Some(flags(names))),
        None => (rest, None),
    };
    let mut packet = knock(source, step(&port.replace('/', ":")), id);
    packet.destination = destination;
    packet.flags = flags.unwrap_or(packet.flags);
    packet
}

/// Plays the packets and returns knockd's log lines. It logs nothing for a failed knock.
fn play(case: &Value, matching: Matching) -> Vec<String> {
    let mut doors: Vec<Door> = list(&case["doors"]).into_iter().map(parse_door).collect();
    let patterns: Vec<Pattern> = doors.iter().map(|door| door.pattern.clone()).collect();
    let local: [IpAddr; 3] = [host(1), host(11), address("fd00:9::1")];
    let mut lab = Lab::new(&patterns, matching);
    let mut lines = Vec::new();
    for (id, token) in (1u32..).zip(text(&case["packets"]).split_whitespace()) {
        if let Some(seconds) = token.strip_prefix("wait") {
            let seconds: f64 = seconds.parse().expect(token);
            lab.wait((seconds * 1000.0) as u64);
        } else if token != "sec" {
            let packet = parse_packet(token, id);
            lab.packet(&packet, local.contains(&packet.destination));
        }
        for event in lab.events.drain(..) {
            let (door, source, what) = match event {
                Event::Stage {
                    door,
                    source,
                    stage,
                } => (door, source, format!("Stage {stage}")),
                Event::Opened { door, source } => (door, source, "OPEN SESAME".into()),
                Event::TimedOut {
                    door,
                    source,
                    stage,
                } => (door, source, format!("sequence timeout (stage {stage})")),
                Event::Failed { .. } | Event::Scanned { .. } => continue,
            };
            let door = usize::from(door);
            lines.push(format!("{source}: {}: {what}", doors[door].name));
            if matches!(event, Event::Opened { .. }) && !doors[door].next.is_empty() {
                let next = doors[door].next.remove(0);
                lab.matcher.set_sequence(door as u16, next);
            }
        }
        if !token.starts_with("wait") && token != "sec" {
            lab.wait(PACKET_GAP);
            lines.extend(lab.events.iter().map(|event| match event {
                Event::TimedOut { .. } => {
                    panic!("{}: a time-out within {PACKET_GAP} ms", case["id"])
                }
                _ => unreachable!("waiting only times out"),
            }));
        }
    }
    lines
}

#[test]
fn strict_matching_logs_what_knockd_logs() {
    let cases = cases();
    assert!(cases.len() > 50);
    for case in &cases {
        let expect: Vec<&str> = list(&case["expect"]).into_iter().map(text).collect();
        assert_eq!(
            play(case, Matching::Strict),
            expect,
            "{} {}",
            case["id"],
            case["title"]
        );
    }
}

#[test]
fn what_opens_in_knockd_opens_by_default() {
    for case in &cases() {
        let opened = play(case, Matching::Tolerant);
        for line in list(&case["expect"])
            .into_iter()
            .map(text)
            .filter(|l| l.ends_with("SESAME"))
        {
            assert!(
                opened.iter().any(|o| o == line),
                "{} {}: {line}",
                case["id"],
                case["title"]
            );
        }
    }
}

#[test]
fn tokens_mean_what_section_13_says() {
    let packet = parse_packet(".3:7000@syn,ack>10.9.0.11", 1);
    assert_eq!((packet.source, packet.destination), (host(3), host(11)));
    assert_eq!((packet.step, packet.flags), (step("7000"), SYN | ACK));
    assert_eq!(parse_packet("9000@-", 1).flags, 0);
    assert_eq!(parse_packet("1000/udp", 1).step, step("1000:udp"));
    assert_eq!(parse_packet("6:1", 1).source, address("fd00:9::2"));
}
