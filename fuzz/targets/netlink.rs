//! Parses arbitrary rtnetlink messages. Interface names must not contain line breaks, and an
//! interface that is found must be one of those read.
#![no_main]

use knockd_rs::capture::interfaces::{Interfaces, Selector, matters};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|messages: Vec<(u8, Vec<u8>)>| {
    let mut all = Interfaces::default();
    for (kind, body) in &messages {
        // RTM_NEWLINK is 16, RTM_NEWADDR 20, RTM_NEWROUTE 24.
        let kind = 16 + u16::from(kind % 12);
        let _ = matters(kind, body);
        all.add(kind, body);
    }
    assert!(!all.names().contains('\n'));
    let named = all.links.first().map(|link| link.name.to_string());
    let mut wanted = vec![Selector::Any, Selector::Auto, Selector::AutoIpv6];
    wanted.extend(Selector::list(&named.unwrap_or_default()).unwrap_or_default());
    for selector in &wanted {
        let local = all.local(selector);
        assert!(local.iter().all(|address| all.is_on_link(*address)));
        if let Some(link) = all.find(selector) {
            assert!(all.links.contains(link));
            let _ = all.counts_under_any(link.index);
        }
    }
});
