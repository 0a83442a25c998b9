//! Parses arbitrary lines from the control socket. An accepted request must encode to the same
//! bytes.
#![no_main]

use knockd_rs::keeper::control::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    if let Some(question) = Request::parse(line) {
        let written = question.line();
        assert_eq!(Request::parse(written.as_bytes()), Some(question));
    }
});
