//! Checks that what `--check` says about two doors with shared ports matches what the default rule
//! does.

use crate::script::{Lab, of};
use knockd_rs::check;
use knockd_rs::config::parse;
use knockd_rs::knock::{Matching::Tolerant, Pattern};
use knockd_rs::matcher::Event;

/// All sequences of one to `most` steps over the ports 1 to 3.
fn sequences(most: usize) -> Vec<Vec<u16>> {
    let mut all: Vec<Vec<u16>> = (1..=3).map(|port| vec![port]).collect();
    let mut from = 0;
    while all[from].len() < most {
        for port in 1..=3 {
            let longer = [&all[from][..], &[port]].concat();
            all.push(longer);
        }
        from += 1;
    }
    all
}

fn text(ports: &[u16], between: &str) -> String {
    let words: Vec<String> = ports.iter().map(u16::to_string).collect();
    words.join(between)
}

/// Which of the two doors opens when these ports are knocked in order.
fn opened(doors: &[Pattern], ports: &[u16]) -> [bool; 2] {
    let mut lab = Lab::new(doors, Tolerant);
    lab.knocks(&text(ports, " "));
    [0, 1].map(|door| {
        let events = of(&lab.events, door, crate::script::host(2));
        events
            .iter()
            .any(|event| matches!(event, Event::Opened { .. }))
    })
}

#[test]
fn what_is_said_of_two_doors_is_so() {
    let mut said = [0; 5];
    for a in sequences(4) {
        for b in sequences(4) {
            let config = format!(
                "[A]\nsequence={}\ntcpflags=syn\n[B]\nsequence={}\ntcpflags=syn\n",
                text(&a, ","),
                text(&b, ",")
            );
            let config = parse(config.as_bytes(), &mut |_| ()).expect("a config");
            let advice = check::advice(&config);
            let advice = advice.iter().find(|advice| advice.text.contains("'B'"));
            let advice = advice.map_or("", |advice| advice.text.trim_start_matches("door 'A': "));
            let doors: Vec<Pattern> = config
                .doors
                .into_iter()
                .map(|door| door.pattern(door.sequence().cloned()))
                .collect();
            let (by_a, by_b) = (opened(&doors, &a), opened(&doors, &b));
            let kind = [
                ("the same knock opens", [true, true], [true, true]),
                (
                    "its sequence begins with that of",
                    [true, true],
                    [false, true],
                ),
                ("its sequence begins that of", [true, false], [true, true]),
                // No advice and all other advice: each knock opens only its own door.
                ("", [true, false], [false, true]),
            ];
            let kind = kind.into_iter().position(|(begin, a, b)| {
                advice.starts_with(begin) && {
                    assert_eq!((by_a, by_b), (a, b), "{advice}: {doors:?}");
                    true
                }
            });
            said[kind.expect("the last")] += 1;
            // After the first steps of the longer sequence, the shorter one has to be knocked
            // again.
            let (long, short, door) = match advice {
                _ if advice.starts_with("its sequence contains") => (&a, &b, 1),
                _ if advice.starts_with("its sequence lies within") => (&b, &a, 0),
                _ => continue,
            };
            let at = long
                .windows(short.len())
                .position(|part| part == short)
                .expect("a part");
            let knocked = [&long[..at], short].concat();
            assert!(!opened(&doors, &knocked)[door], "{knocked:?}: {doors:?}");
            let again = [&knocked[..], short].concat();
            // If the two sequences repeat ports, the second knock can also continue the longer one.
            let distinct = long
                .iter()
                .all(|port| long.iter().filter(|other| *other == port).count() == 1);
            assert!(
                !distinct || opened(&doors, &again)[door],
                "{again:?}: {doors:?}"
            );
            said[4] += 1;
        }
    }
    assert!(said.iter().all(|count| *count > 50), "{said:?}");
}
