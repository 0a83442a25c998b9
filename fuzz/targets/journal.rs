//! Parses arbitrary journals with valid checksums. Writing what was read and reading it again must
//! give the same leases.
#![no_main]

use knockd_rs::lease::journal::{NO_BYTES, checksum, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let _ = decode(text);
    // A line `sum` is replaced by the checksum so far.
    let mut right: Vec<u8> = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match line {
            b"sum\n" => {
                let sum = checksum(NO_BYTES, &right);
                right.extend(format!("sum {sum:016x}\n").into_bytes());
            }
            line => right.extend(line),
        }
    }
    if let Some(journal) = decode(&right) {
        let written = encode(&journal.place, journal.leases.iter());
        let again = decode(&written).expect("a journal");
        assert!(again.whole);
        assert_eq!(again.leases, journal.leases);
        assert_eq!(again.place, journal.place);
    }
});
