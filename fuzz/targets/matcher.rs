//! Feeds arbitrary packets to the default rule, which must agree with its simple model.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use knockd_rs::knock::{Knock, Matching, Pattern, Sequence, Step};
use knockd_rs::util::time::Millis;
use libfuzzer_sys::fuzz_target;
use script::{Packet, door, host, knock, of, run};

#[path = "../../tests/matcher/script.rs"]
#[allow(dead_code, unused_imports)] // The tests use the rest.
mod script;
#[path = "../../tests/matcher/tolerant_model.rs"]
#[allow(dead_code, unused_imports)] // Only the tests use its proptest part.
mod tolerant_model;

#[derive(Debug)]
struct Case {
    doors: Vec<Pattern>,
    packets: Vec<Packet>,
}

fn step(u: &mut Unstructured) -> Result<Step> {
    Ok(script::step(u.choose(&["1", "2", "3", "2:udp"])?))
}

impl Arbitrary<'_> for Case {
    fn arbitrary(u: &mut Unstructured) -> Result<Case> {
        let mut doors = Vec::new();
        for _ in 0..u.int_in_range(1..=4)? {
            let steps: Vec<Step> = (0..u.int_in_range(1..=5)?)
                .map(|_| step(u))
                .collect::<Result<_>>()?;
            doors.push(Pattern {
                sequence: Sequence::new(&steps),
                ..door("1", u.int_in_range(0..=60)? * 100)
            });
        }
        let (mut now, mut packets): (Millis, Vec<(Millis, Knock, bool)>) = (0, Vec::new());
        for number in 1..=u.int_in_range(1..=40)? {
            now += u.int_in_range(0..=15)? * 100;
            let copied = packets
                .get(u.int_in_range(0..=60)?)
                .map(|packet| packet.1.clone());
            let fresh = knock(host(2), step(u)?, number);
            packets.push((now, copied.unwrap_or(fresh), true));
        }
        Ok(Case { doors, packets })
    }
}

fuzz_target!(|case: Case| {
    let events: Vec<_> = run(&case.doors, Matching::Tolerant, &case.packets)
        .into_iter()
        .map(|(_, event)| event)
        .collect();
    let expected = tolerant_model::model(&case.doors, host(2), &case.packets);
    for door in 0..case.doors.len() as u16 {
        assert_eq!(of(&events, door, host(2)), of(&expected, door, host(2)));
    }
});
