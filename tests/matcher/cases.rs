//! Plays the cases of `whole.json` with the default rule and with the strict rule.
//!
//! `packets`: `+100` advances the clock by 100 ms. `7000` is a SYN from 10.9.0.2 to 10.9.0.1,
//! `7000/udp` a UDP packet, `7000@ack` has other flags, `.3:7000` comes from 10.9.0.3. `*` marks a
//! copy of the last packet with the same text, `^` a copy of the first one. `opens`: the openings
//! in order. `O@1100` is door O at the packet sent at 1100 ms, with `.3` for that source. `strict`:
//! the doors that knockd 0.8's rule opens. All doors have tcpflags = syn.

use crate::script::{Lab, door, flags, host, knock, step};
use knockd_rs::knock::{Knock, Matching, Pattern};
use knockd_rs::matcher::Event;
use serde_json::Value;
use std::collections::HashMap;

/// The openings in the format of `opens` and in that of `strict`.
fn play(case: &Value, matching: Matching) -> (String, String) {
    let seq_timeout = case["seq_timeout_ms"].as_u64().unwrap_or(15_000);
    let doors = case["doors"].as_object().expect("doors");
    let patterns: Vec<Pattern> = doors
        .values()
        .map(|steps| door(&text(steps).replace('/', ":"), seq_timeout))
        .collect();
    let names: Vec<&String> = doors.keys().collect();
    let mut lab = Lab::new(&patterns, matching);
    let start = lab.now;
    let mut sent: HashMap<&str, Vec<Knock>> = HashMap::new();
    let (mut opens, mut order) = (Vec::new(), Vec::new());
    for (id, token) in (1..).zip(text(&case["packets"]).split_whitespace()) {
        if let Some(pause) = token.strip_prefix('+') {
            lab.wait(pause.parse().expect(token));
            continue;
        }
        let name = token.trim_end_matches(['*', '^']);
        let same: &mut Vec<Knock> = sent.entry(name).or_default();
        let packet = match token.chars().last() {
            Some('*') => *same.last().expect(token),
            Some('^') => same[0],
            _ => packet(name, id),
        };
        same.push(packet);
        lab.packet(&packet, true);
        for event in lab.events.drain(..) {
            if let Event::Opened { door, source } = event {
                let name = names[usize::from(door)];
                let source = match source == host(2) {
                    true => String::new(),
                    false => source.to_string().replace("10.9.0", ""),
                };
                opens.push(format!("{name}@{}{source}", lab.now - start));
                order.push(name.clone());
            }
        }
    }
    (opens.join(" "), order.join(" "))
}

fn packet(name: &str, id: u32) -> Knock {
    let (source, rest) = match name.strip_prefix('.').and_then(|rest| rest.split_once(':')) {
        Some((last, rest)) => (last.parse().expect(name), rest),
        None => (2, name),
    };
    let (port, other) = rest
        .split_once('@')
        .map_or((rest, None), |(port, other)| (port, Some(other)));
    let mut packet = knock(host(source), step(&port.replace('/', ":")), id);
    packet.flags = other.map_or(packet.flags, flags);
    packet
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn each_case_opens_what_it_says() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("whole.json")).expect("whole.json");
    assert!(cases.len() >= 38);
    for case in &cases {
        let (opens, _) = play(case, Matching::Tolerant);
        assert_eq!(
            opens,
            text(&case["opens"]),
            "{} {}",
            case["id"],
            case["title"]
        );
        if let Some(strict) = case["strict"].as_str() {
            let (_, opens) = play(case, Matching::Strict);
            assert_eq!(opens, strict, "{} {} strict", case["id"], case["title"]);
        }
    }
}
