use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const ID: [u8; 2] = [0x12, 0x34];

fn asked(name: &str, kind: RecordKind) -> Vec<u8> {
    question(name, kind, ID).expect("a name of the DNS")
}

/// Builds a reply with that response code and these records (owner, type, data).
fn replied(question: &[u8], code: u8, records: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..8].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, records.len() as u8]);
    for (owner, kind, data) in records {
        message.extend_from_slice(owner);
        message.extend_from_slice(&[0, *kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        message.extend_from_slice(data);
    }
    message
}

/// A pointer to the question's name.
const SAME: &[u8] = &[0xc0, 12];

#[test]
fn a_question_is_as_rfc_1035_has_it() {
    let expected = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06router\x03lan\0\0\x1c\0\x01";
    assert_eq!(asked("router.lan", RecordKind::Aaaa), expected);
    assert_eq!(asked("router.lan.", RecordKind::Aaaa), expected);
}

#[test]
fn names_that_no_host_has_are_no_questions() {
    let label = "a".repeat(63);
    let longest = [&*label, &label, &label, &label[..61]].join(".");
    assert!(question(&longest, RecordKind::A, ID).is_some());
    for name in [
        "",
        ".",
        "..",
        "a..b",
        "fe80::1%eth0",
        "a b",
        "\u{e4}",
        ".a",
        &"a".repeat(64),
        &format!("{longest}a"),
    ] {
        assert_eq!(question(name, RecordKind::A, ID), None, "{name}");
    }
}

#[test]
fn addresses_have_names_backwards() {
    let name = |address: &str| reverse_name(address.parse().expect("address"));
    assert_eq!(name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
    assert_eq!(
        name("2001:db8::567:89ab"),
        "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
    );
}

#[test]
fn the_first_record_of_the_kind_counts_whatever_alias_leads_to_it() {
    let question = asked("www.example", RecordKind::A);
    let alias: &[u8] = b"\x03web\xc0\x10";
    let message = replied(
        &question,
        0,
        &[
            (SAME, 5, alias),
            (SAME, 28, &[9; 16]),
            (alias, 1, &[192, 0, 2, 1]),
            (alias, 1, &[192, 0, 2, 2]),
        ],
    );
    let address = "192.0.2.1".parse().expect("address");
    assert_eq!(reply(&message, &question), Some(Reply::Address(address)));

    let question = asked("www.example", RecordKind::Aaaa);
    let message = replied(&question, 0, &[(b"\0", 28, &[1; 16])]);
    let address = IpAddr::from([1u8; 16]);
    assert_eq!(reply(&message, &question), Some(Reply::Address(address)));
}

#[test]
fn no_name_no_record_and_failure_are_told_apart() {
    let question = asked("a.example", RecordKind::A);
    for (code, expected) in [
        (0, Reply::NoRecord),
        (2, Reply::Failed),
        (3, Reply::NoName),
        (5, Reply::Failed),
    ] {
        let message = replied(&question, code, &[(SAME, 6, b"x")]);
        assert_eq!(reply(&message, &question), Some(expected), "{code}");
    }
    // An address of the wrong length.
    let message = replied(&question, 0, &[(SAME, 1, &[1; 16])]);
    assert_eq!(reply(&message, &question), Some(Reply::NoRecord));
}

#[test]
fn another_id_question_kind_or_direction_is_no_reply() {
    let question = asked("a.example", RecordKind::A);
    let sound = replied(&question, 0, &[(SAME, 1, &[192, 0, 2, 1])]);
    assert!(reply(&sound, &question).is_some());
    let other_case: Vec<u8> = sound.to_ascii_uppercase();
    assert!(reply(&other_case, &question).is_some());
    for (at, byte) in [
        (0, 0x13),  // id
        (2, 0x01),  // a question
        (2, 0xa1),  // another opcode
        (5, 2),     // two questions
        (13, b'b'), // name
        (24, 28),   // kind
        (26, 3),    // class
    ] {
        let mut message = sound.clone();
        assert_ne!(message[at], byte);
        message[at] = byte;
        assert_eq!(reply(&message, &question), None, "byte {at}");
    }
    assert_eq!(reply(&sound[..question.len() - 1], &question), None);
}

#[test]
fn a_reply_cut_short_is_used_as_far_as_it_goes() {
    let question = asked("a.example", RecordKind::A);
    let mut message = replied(
        &question,
        0,
        &[(SAME, 1, &[192, 0, 2, 1]), (SAME, 1, &[192, 0, 2, 2])],
    );
    message[2] |= 2;
    message.truncate(message.len() - 3);
    let address = "192.0.2.1".parse().expect("address");
    assert_eq!(reply(&message, &question), Some(Reply::Address(address)));

    // Without the record it is unknown whether one exists.
    let mut message = replied(&question, 0, &[]);
    message[2] |= 2;
    assert_eq!(reply(&message, &question), Some(Reply::Failed));
}

/// Decodes a PTR record with this data. `tail` precedes the end of the question, as a name to point
/// to.
fn ptr(data: &[u8]) -> Option<Reply> {
    let question = asked("1.2.0.192.in-addr.arpa", RecordKind::Ptr);
    reply(&replied(&question, 0, &[(SAME, 12, data)]), &question)
}

#[test]
fn names_follow_pointers_and_have_only_what_host_names_have() {
    let name = |name: &str| Some(Reply::Name(name.to_string()));
    assert_eq!(ptr(b"\x06client\x08ex_ample\0"), name("client.ex_ample"));
    assert_eq!(ptr(b"\x01a\xc0\x0c"), name("a.1.2.0.192.in-addr.arpa"));
    assert_eq!(ptr(b"\xc0\x1e"), name("arpa"));
    let question = asked("1.2.0.192.in-addr.arpa", RecordKind::Ptr).len();
    let itself = [0xc0, (question + 12) as u8];
    let loops = [1, b'a', 0xc0, (question + 12) as u8];
    let ahead = [0xc0, (question + 14) as u8, 1, b'a', 0];
    for bad in [
        b"".as_slice(),
        b"\0",
        b"\x03a b\0",
        b"\x03a\nb\0",
        b"\x03a.b\0",
        b"\x02\xc3\xa4\0",
        b"\x40a\0",
        b"\x80a\0",
        b"\x05abc",
        b"\xc0",
        b"\xff\xff",
        &itself,
        &loops,
        &ahead,
    ] {
        assert_eq!(ptr(bad), Some(Reply::NoRecord), "{bad:?}");
    }
    let long = [b"\x3f".as_slice(), &[b'a'; 63]].concat();
    let three = long.repeat(3);
    assert_eq!(
        ptr(&[&three, b"\x3d".as_slice(), &[b'a'; 61], b"\0"].concat()).map(|reply| match reply {
            Reply::Name(name) => name.len(),
            _ => 0,
        }),
        Some(253)
    );
    assert_eq!(
        ptr(&[&three, b"\x3e".as_slice(), &[b'a'; 62], b"\0"].concat()),
        Some(Reply::NoRecord)
    );
}

fn kinds() -> impl Strategy<Value = RecordKind> {
    prop_oneof![
        Just(RecordKind::A),
        Just(RecordKind::Aaaa),
        Just(RecordKind::Ptr)
    ]
}

fn is_valid(reply: &Reply, kind: RecordKind) -> bool {
    match reply {
        Reply::Address(address) => match kind {
            RecordKind::A => address.is_ipv4(),
            RecordKind::Aaaa => address.is_ipv6(),
            RecordKind::Ptr => false,
        },
        Reply::Name(name) => {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            kind == RecordKind::Ptr
                && (1..=MAX_DNS_NAME).contains(&name.len())
                && name.chars().all(fits)
        }
        _ => true,
    }
}

proptest! {
    /// Bytes after our question, as an attacker who saw it could send them: few different values,
    /// so that pointers and lengths meet.
    #[test]
    fn whatever_follows_the_question_nothing_panics(
        kind in kinds(),
        records in any::<u16>(),
        rest in vec(prop_oneof![any::<u8>(), 0u8..4, Just(0xc0), 12u8..80, Just(b'a')], 0..480),
    ) {
        let question = asked("a.example", kind);
        let mut message = replied(&question, 0, &[]);
        message[6..8].copy_from_slice(&records.to_be_bytes());
        message.extend_from_slice(&rest);
        let said = reply(&message, &question).expect("a reply");
        prop_assert!(is_valid(&said, kind), "{said:?}");
    }

    #[test]
    fn a_sound_reply_with_broken_bytes_never_panics(
        kind in kinds(),
        data in vec(any::<u8>(), 0..40),
        broken in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let question = asked("a.example", kind);
        let mut message = replied(&question, 0, &[(SAME, 5, SAME), (SAME, kind as u8, &data)]);
        for (at, byte) in broken {
            let at = at.index(message.len());
            message[at] = byte;
        }
        message.truncate(cut.index(message.len() + 1));
        if let Some(said) = reply(&message, &question) {
            prop_assert!(is_valid(&said, kind), "{said:?}");
        }
    }

    #[test]
    fn any_bytes_are_no_reply_to_another_id(message in vec(any::<u8>(), 0..600)) {
        prop_assume!(message.get(..2) != Some(&ID));
        prop_assert_eq!(reply(&message, &asked("a.example", RecordKind::A)), None);
    }

    #[test]
    fn names_of_the_dns_go_out_and_come_back(labels in vec("[a-z0-9_-]{1,20}", 1..6)) {
        let name = labels.join(".");
        let question = asked("1.in-addr.arpa", RecordKind::Ptr);
        let wire = asked(&name, RecordKind::A);
        let data = &wire[HEADER..wire.len() - 4];
        let message = replied(&question, 0, &[(SAME, 12, data)]);
        prop_assert_eq!(reply(&message, &question), Some(Reply::Name(name)));
    }
}
