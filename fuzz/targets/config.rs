//! Parses arbitrary bytes as a config. The parser, the description and the advice must not panic,
//! and an error must name a line that exists.
#![no_main]

use knockd_rs::check::{advice, describe};
use knockd_rs::config::{salvage_options, parse};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &[u8]| {
    match parse(text, &mut |_| {}) {
        Ok(mut config) => {
            let _ = describe(&mut config);
            let _ = advice(&config);
            for warning in &config.warnings {
                let _ = warning.show(Path::new("knockd.conf"));
            }
        }
        Err(error) => {
            let lines = text.split(|byte| *byte == b'\n').count();
            assert!(error.line <= lines, "line {} of {lines}", error.line);
            let _ = error.show(Path::new("knockd.conf"));
            let _ = salvage_options(text);
        }
    }
});
