//! Parses arbitrary bytes from the socket between keeper and listener. An accepted record must
//! encode to the same bytes.
#![no_main]

use knockd_rs::limits::MAX_RECORD;
use knockd_rs::ipc::{ToKeeper, ToListener};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(record) = ToKeeper::decode(bytes) {
        let written = record.clone().encode();
        assert!(written.len() <= MAX_RECORD);
        assert_eq!(ToKeeper::decode(&written), Some(record));
    }
    if let Some(record) = ToListener::decode(bytes) {
        let written = record.clone().encode();
        assert!(written.len() <= MAX_RECORD);
        assert_eq!(ToListener::decode(&written), Some(record));
    }
});
