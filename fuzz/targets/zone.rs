//! Any time zone, from a rule or a file: times of two centuries are dates, and no offset is beyond what a rule can say.
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
        // 168 hours are the most (RFC 8536), and an hour of summer.
        assert!((1969..=2107).contains(&local.year));
    }
});
