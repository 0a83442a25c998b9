use super::*;
use proptest::prelude::*;
use std::io::Write;
use std::process::{Command, Stdio};

fn text(t: LocalTime) -> String {
    let LocalTime {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = t;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The local times that this machine's C library computes, through `date`.
fn by_date(tz: &str, times: &[Time]) -> Vec<String> {
    let mut date = Command::new("date")
        .args(["-f", "-", "+%Y-%m-%d %H:%M:%S"])
        .env("TZ", tz)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("date");
    let lines: String = times.iter().map(|time| format!("@{time}\n")).collect();
    let mut input = date.stdin.take().expect("stdin");
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = date.wait_with_output().expect("date");
    writer.join().expect("writer").expect("written");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(String::from)
        .collect()
}

/// Times from 1970 to 2122 and each half hour of 2026. A signed 32-bit clock ends in 2038, an
/// unsigned one in 2106.
fn times() -> Vec<Time> {
    let all = (0..4_800_000_000).step_by(9 * 3600 * 11 + 1800);
    all.chain((1_767_225_600..1_798_761_600).step_by(1800))
        .collect()
}

#[test]
fn local_time_is_that_of_the_c_library() {
    let times = times();
    for tz in [
        "UTC0",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "EST5EDT4,M3.2.0/2,M11.1.0/2:00:00",
        "<+0330>-3:30",
        "<-03>3<-02>,M3.5.0/-2,M10.5.0/-1",
        "AEST-10AEDT,M10.1.0,M4.1.0/3",
        "STD3DST,J60/0,J300",
        "STD-2DST,59,300/5",
        "IST-2IDT,M3.4.4/26,M10.5.0",
    ] {
        let zone = Zone::of_rule(tz.as_bytes()).expect(tz);
        let ours: Vec<String> = times.iter().map(|time| text(zone.local(*time))).collect();
        assert!(
            ours == by_date(tz, &times),
            "{tz}: {:?}",
            differing(&ours, &by_date(tz, &times))
        );
    }
}

fn differing(ours: &[String], theirs: &[String]) -> Option<(String, String)> {
    let mut pairs = ours.iter().zip(theirs);
    pairs
        .find(|(a, b)| a != b)
        .map(|(a, b)| (a.clone(), b.clone()))
}

#[test]
fn files_of_the_zone_database_mean_what_the_c_library_makes_of_them() {
    let times: Vec<Time> = (1_780_000_000..1_860_000_000).step_by(1800 * 7).collect();
    for name in [
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Asia/Tehran",
        "Antarctica/Troll",
        "Etc/GMT+5",
        "UTC",
    ] {
        let bytes =
            std::fs::read(format!("/usr/share/zoneinfo/{name}")).expect("the package tzdata");
        let zone = Zone::of_file(&bytes).expect(name);
        let ours: Vec<String> = times.iter().map(|time| text(zone.local(*time))).collect();
        let theirs = by_date(name, &times);
        assert!(ours == theirs, "{name}: {:?}", differing(&ours, &theirs));
        for length in 0..bytes.len() {
            let _ = Zone::of_file(&bytes[..length]);
        }
    }
}

/// Version 1 has no rule at its end. (The first block of a newer file has the same format.)
#[test]
fn a_file_of_before_2005_is_none() {
    let bytes = std::fs::read("/usr/share/zoneinfo/Europe/Berlin").expect("the package tzdata");
    let second = bytes[4..].windows(4).position(|word| word == b"TZif");
    let mut old = bytes[..4 + second.expect("a second block")].to_vec();
    old[4] = 0;
    assert_eq!(Zone::of_file(&old), None);
}

#[test]
fn what_is_no_rule_is_refused_and_a_rule_may_leave_out_when() {
    for bad in [
        "",
        "UTC",
        "Europe/Berlin",
        "C-1",
        "CET-",
        "CET-1CEST,",
        "CET-1CEST,M3.5.0",
        "CET-1CEST,M13.5.0,M10.5.0",
        "CET-1CEST,M3.6.0,M10.5.0",
        "CET-1CEST,M3.5.7,M10.5.0",
        "CET-1CEST,M3.5.0,M10.5.0x",
        "<+01-1",
        "CET-1 ",
        "CET-1234",
    ] {
        assert_eq!(Zone::of_rule(bad.as_bytes()), None, "{bad}");
    }
    // As glibc does without its file of default rules.
    let usual = Zone::of_rule(b"EST5EDT,M3.2.0,M11.1.0");
    assert!(usual.is_some() && Zone::of_rule(b"EST5EDT") == usual);
    assert_eq!(text(Zone::default().local(-1)), "1969-12-31 23:59:59");
}

proptest! {
    #[test]
    fn dates_come_back(day in -1_000_000..1_000_000) {
        let (year, month, of_month) = date(day);
        prop_assert!((1..=12).contains(&month) && (1..=31).contains(&of_month));
        prop_assert_eq!(day_number(year, month, of_month), day);
    }

    #[test]
    fn no_bytes_are_a_zone_that_panics(
        version in b'0'..b'5',
        bytes in prop::collection::vec(prop_oneof![Just(0), 0u8..8, any::<u8>()], 0..400),
        time in -100_000_000_000_i64..100_000_000_000,
    ) {
        let mut file = b"TZif".to_vec();
        file.push(version);
        file.extend_from_slice(&bytes);
        if let Some(zone) = Zone::of_file(&file) {
            zone.local(time);
        }
    }

    #[test]
    fn no_text_is_a_rule_that_panics(text in "[A-Z<>]{0,4}[-+0-9:]{0,6}[A-Z]{0,4}(,[JM0-9./:-]{0,9}){0,3}", time in any::<i32>()) {
        if let Some(zone) = Zone::of_rule(text.as_bytes()) {
            zone.local(time.into());
        }
    }
}
