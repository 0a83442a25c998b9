//! Parses arbitrary time zones, from a rule or a file. Times of two centuries must convert to valid
//! dates, and no offset may exceed what a rule can express.
#![no_main]

use knockd_rs::keeper::log::zone::Zone;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u32, &[u8])| {
    let (time, text) = input;
    for zone in [Zone::of_rule(text), Zone::of_file(text)]
        .into_iter()
        .flatten()
    {
        let local = zone.local(time.into());
        assert!((1..=12).contains(&local.month) && (1..=31).contains(&local.day));
        assert!((0..24).contains(&local.hour) && (0..60).contains(&local.minute));
        assert!((0..60).contains(&local.second));
        // RFC 8536 allows up to 168 hours, plus one hour of summer time.
        assert!((1969..=2107).contains(&local.year));
    }
});
