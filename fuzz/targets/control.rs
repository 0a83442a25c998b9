//! Any line on the control socket: what is understood as a question is written the same.
#![no_main]

use knockd_rs::keeper::control::Question;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    if let Some(question) = Question::parse(line) {
        let written = question.line();
        assert_eq!(Question::parse(written.as_bytes()), Some(question));
    }
});
