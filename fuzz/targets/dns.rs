//! Parses arbitrary DNS responses. An answer must be part of the message, and a name must contain
//! only characters that are safe to log.
#![no_main]

use knockd_rs::resolve::dns::{RecordKind, Reply, question, reply};
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, rest) = input;
    let kind = match kind % 3 {
        0 => RecordKind::A,
        1 => RecordKind::Aaaa,
        _ => RecordKind::Ptr,
    };
    let asked = question("host.example", kind, [1, 2]).expect("a name");
    // Only the header is fixed: a server echoes the ID and the question.
    let (flags, records) = rest.split_at(rest.len().min(8));
    let mut message = vec![1, 2];
    message.extend(flags);
    message.resize(10, 0);
    message[4..6].copy_from_slice(&[0, 1]);
    message.resize(12, 0);
    message.extend(&asked[12..]);
    message.extend(records);
    match reply(&message, &asked) {
        Some(Reply::Address(address)) => {
            let is_in = |octets: &[u8]| message.windows(octets.len()).any(|part| part == octets);
            assert!(match address {
                IpAddr::V4(v4) => kind == RecordKind::A && is_in(&v4.octets()),
                IpAddr::V6(v6) => kind == RecordKind::Aaaa && is_in(&v6.octets()),
            });
        }
        Some(Reply::Name(name)) => {
            assert!(kind == RecordKind::Ptr && name.len() <= 254);
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        }
        _ => {}
    }
    let _ = reply(rest, &asked);
});
