//! The client `knock`, run like a user does, observed by a capture. Each test uses its own network
//! namespace, which ends with it. Needs root and iproute2. If something is missing, the tests that
//! need it report why, and fail for root.
#![allow(clippy::unwrap_used)] // A test may panic.

mod capture;
mod dns;
mod network;

use capture::{Capture, Seen};
use knockd_rs::cli::{self, KNOCK, Outcome};
use libtest_mimic::{Arguments, Trial};
use network::{loopback_only, with_silent_hosts};
use std::ffi::OsString;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const THEIR_CLIENT: &str = "/usr/bin/knock";
const THEIR_DAEMON: &str = "/usr/sbin/knockd";

#[derive(Debug, PartialEq)]
struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(program: impl AsRef<Path>, line: &str) -> Ran {
    let mut command = Command::new(program.as_ref());
    command
        .args(line.split_whitespace())
        .env_remove("LANGUAGE")
        .env("LC_ALL", "C");
    let output = command.output().unwrap();
    Ran {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A directory of this run that contains the built program under the client's name.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("client-{}", std::process::id()))
}

/// Runs our client in this thread's namespace.
fn knock(line: &str) -> Ran {
    run(directory().join("knock"), line)
}

/// The packets that the client sends through that interface. It must exit with 0 and print no
/// error.
fn sends(interface: &str, line: &str) -> Vec<Seen> {
    let capture = Capture::on(interface);
    let ran = knock(line);
    assert_eq!(
        (ran.status, ran.stderr.as_str()),
        (Some(0), ""),
        "knock {line}"
    );
    capture.sent_by_client()
}

/// `tcp 7000` and so on, in order.
fn steps(seen: &[Seen]) -> Vec<String> {
    seen.iter()
        .map(|s| format!("{} {}", s.protocol, s.port))
        .collect()
}

/// The client's error message when it does not knock. It must not send anything.
fn refuses(line: &str) -> String {
    let capture = Capture::on("lo");
    let ran = knock(line);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (Some(1), ""),
        "knock {line}"
    );
    assert_eq!(steps(&capture.sent_by_client()), [""; 0], "knock {line}");
    ran.stderr
}

fn each_step_is_one_packet_with_a_source_port_of_its_own() {
    loopback_only();
    for host in ["127.0.0.1", "::1"] {
        let seen = sends(
            "lo",
            &format!("{host} 7000 8000:udp 9000:tcp 22:udp 22:udp"),
        );
        assert_eq!(
            steps(&seen),
            ["tcp 7000", "udp 8000", "tcp 9000", "udp 22", "udp 22"]
        );
        for s in &seen {
            assert_eq!(s.to, host.parse::<IpAddr>().unwrap());
            assert!(s.is_knock());
            assert_eq!(
                s.payload,
                if s.protocol == "udp" { &[0u8][..] } else { &[] }
            );
        }
        let mut ports: Vec<u16> = seen.iter().map(|s| s.source_port).collect();
        ports.sort();
        ports.dedup();
        assert_eq!(ports.len(), 5, "{host}");
    }
}

fn an_unanswered_syn_is_not_retransmitted() {
    with_silent_hosts();
    // The kernel's first retransmission would be sent after 1 s, while the client waits.
    for host in ["10.9.0.9", "fd00:9::9"] {
        let seen = sends("v0", &format!("-d 1300 {host} 7000"));
        assert_eq!(steps(&seen), ["tcp 7000"]);
        assert!(seen[0].is_knock());
    }
}

fn an_open_port_gets_one_syn_too() {
    loopback_only();
    for host in ["127.0.0.1", "::1"] {
        let _tcp = TcpListener::bind((host, 7000)).unwrap();
        let udp = UdpSocket::bind((host, 8000)).unwrap();
        let mut seen = sends("lo", &format!("{host} 7000 8000:udp 7000"));
        seen.retain(|s| s.is_knock());
        assert_eq!(steps(&seen), ["tcp 7000", "udp 8000", "tcp 7000"]);
        assert_eq!(udp.recv(&mut [9; 9]).unwrap(), 1);
    }
}

fn udp_overrides_tcp_and_options_may_follow_operands() {
    loopback_only();
    let capture = Capture::on("lo");
    let ran = knock("127.0.0.1 7000:tcp -v 8000 --udp 9000:udp");
    assert_eq!(ran.status, Some(0));
    let hit = |port| format!("hitting udp 127.0.0.1:{port}\n");
    assert_eq!(ran.stdout, [hit(7000), hit(8000), hit(9000)].concat());
    assert_eq!(
        steps(&capture.sent_by_client()),
        ["udp 7000", "udp 8000", "udp 9000"]
    );
}

fn forty_steps_arrive_in_order() {
    loopback_only();
    let ports: Vec<String> = (1..=40)
        .map(|i| format!("{}", 1000 + i * 7919 % 9973))
        .collect();
    let seen = sends("lo", &format!("127.0.0.1 {}", ports.join(" ")));
    assert_eq!(
        seen.iter().map(|s| s.port.to_string()).collect::<Vec<_>>(),
        ports
    );
}

fn the_delay_follows_every_step() {
    loopback_only();
    let start = Instant::now();
    assert_eq!(
        steps(&sends("lo", "-d 100 127.0.0.1 1 2:udp 3")),
        ["tcp 1", "udp 2", "tcp 3"]
    );
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
}

fn a_service_name_is_a_port() {
    loopback_only();
    let capture = Capture::on("lo");
    let ran = knock("-v 127.0.0.1 ssh ssh:udp");
    assert_eq!(
        ran.stdout,
        "hitting tcp 127.0.0.1:ssh\nhitting udp 127.0.0.1:ssh\n"
    );
    assert_eq!(steps(&capture.sent_by_client()), ["tcp 22", "udp 22"]);
}

fn an_address_with_a_zone_is_reached() {
    with_silent_hosts();
    let capture = Capture::on("v0");
    let ran = knock("-v fe80::9%v0 7000 8000:udp");
    let lines = "hitting tcp fe80::9%v0:7000\nhitting udp fe80::9%v0:8000\n";
    assert_eq!(
        ran,
        Ran {
            status: Some(0),
            stdout: lines.into(),
            stderr: "".into()
        }
    );
    assert_eq!(steps(&capture.sent_by_client()), ["tcp 7000", "udp 8000"]);
}

fn an_unknown_protocol_is_warned_of_and_sent_over_tcp() {
    loopback_only();
    let capture = Capture::on("lo");
    let ran = knock("127.0.0.1 5:UDP 6:udp 7:tcp 8:foo");
    assert_eq!(ran.status, Some(0));
    assert_eq!(
        steps(&capture.sent_by_client()),
        ["tcp 5", "udp 6", "tcp 7", "tcp 8"]
    );
    let warnings: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(warnings.len(), 2, "{}", ran.stderr);
    assert!(warnings[0].contains("\"5:UDP\"") && warnings[1].contains("\"8:foo\""));
}

fn a_wrong_host_or_port_stops_it_before_the_first_knock() {
    loopback_only();
    let error = refuses("nosuch.invalid 7000 8000");
    let start = "Failed to resolve hostname 'nosuch.invalid' on port 7000\ngetaddrinfo: ";
    assert!(
        error.starts_with(start) && error.lines().count() == 2,
        "{error}"
    );

    let error = refuses("127.0.0.1 7000 8000 7300x");
    let start = "Failed to resolve hostname '127.0.0.1' on port 7300x\ngetaddrinfo: ";
    assert!(error.starts_with(start), "{error}");

    assert!(refuses("-6 127.0.0.1 7000").starts_with("Failed to resolve hostname '127.0.0.1'"));
    assert!(refuses("-4 ::1 7000").starts_with("Failed to resolve hostname '::1'"));
    for port in ["70000", "0", "-- -1", ":udp"] {
        let error = refuses(&format!("127.0.0.1 7000 {port}"));
        assert!(error.contains("1 to 65535"), "{error}");
    }
    for port in ["7000,8000:udp,9000", "7000/udp"] {
        let error = refuses(&format!("127.0.0.1 {port}"));
        assert!(
            error.ends_with("write ports as 7000 8000:udp 9000\n"),
            "{error}"
        );
    }
    assert_eq!(
        refuses("-d -5 127.0.0.1 7000"),
        "error: delay cannot be negative\n"
    );
    assert!(refuses("-d 1s 127.0.0.1 7000").contains("\"1s\" is not a number"));
}

fn no_route_is_reported_as_a_failure() {
    loopback_only();
    for host in ["10.9.0.9", "fd00:9::9"] {
        let error = refuses(&format!("{host} 7000 8000:udp"));
        let lines: Vec<&str> = error.lines().collect();
        assert!(
            lines[0].starts_with(&format!("knock: tcp {host}:7000 not sent: ")),
            "{error}"
        );
        assert!(
            lines[1].starts_with(&format!("knock: udp {host}:8000 not sent: ")),
            "{error}"
        );
        assert!(lines[0].ends_with("Network is unreachable"), "{error}");
        assert_eq!(lines[2..], ["knock: nothing was sent"]);
    }
}

/// Over UDP the kernel finds a zone by itself, as for knock 0.8. Over TCP it does not.
fn an_address_that_needs_a_zone_is_refused_before_the_first_knock() {
    with_silent_hosts();
    let capture = Capture::on("v0");
    let error = refuses("fe80::9 7000:udp 8000 9000:udp");
    assert_eq!(
        error,
        "knock: fe80::9 needs an interface, as in fe80::1%eth0\n"
    );
    assert_eq!(knock("-u fe80::9 7000").status, Some(0));
    assert_eq!(steps(&capture.sent_by_client()), ["udp 7000"]);
}

fn a_refused_step_is_a_failure_and_the_others_are_sent() {
    with_silent_hosts();
    network::run("ip rule add pref 100 ipproto udp prohibit");
    network::run("ip route add unreachable 10.8.0.0/16");
    let capture = Capture::on("v0");
    let ran = knock("10.9.0.9 7000 8000:udp 9000");
    assert_eq!(ran.status, Some(1));
    assert_eq!(
        ran.stderr,
        "knock: udp 10.9.0.9:8000 not sent: Permission denied\n\
         knock: not every step was sent, so no door opens\n"
    );
    assert_eq!(steps(&capture.sent_by_client()), ["tcp 7000", "tcp 9000"]);
    assert!(refuses("10.8.0.1 7000").contains("No route to host"));
}

fn an_icmp_answer_that_comes_at_once_is_no_failure() {
    loopback_only();
    for (iptables, host, with) in [
        ("iptables", "127.0.0.1", "icmp-host-prohibited"),
        ("iptables", "127.0.0.1", "icmp-net-unreachable"),
        ("ip6tables", "::1", "icmp6-no-route"),
    ] {
        network::run(&format!(
            "{iptables} -w -I INPUT -p tcp --dport 7000 -j REJECT --reject-with {with}"
        ));
        assert_eq!(
            steps(&sends("lo", &format!("{host} 7000"))),
            ["tcp 7000"],
            "{with}"
        );
    }
}

/// Every line means the same to both programs.
fn the_packets_are_those_of_the_original() {
    with_silent_hosts();
    let bytes = |seen: &[Seen]| seen.iter().map(|s| s.bytes.clone()).collect::<Vec<_>>();
    for (interface, line) in [
        ("lo", "127.0.0.1 7000 8000:udp 9000:tcp"),
        ("lo", "-v ::1 7000 8000:udp 9000"),
        ("lo", "-vu 127.0.0.1 7000 8000:tcp"),
        ("lo", "127.0.0.1 -v -d1 7000 8000 -u"),
        ("lo", "-v localhost ssh domain:udp +70"),
        ("v0", "-v 10.9.0.9 7000 8000:udp 9000 7000 7000"),
        ("v0", "-v fd00:9::9 7000 8000:udp 9000"),
        ("v0", "-6v4 10.9.0.9 7000"),
        ("v0", "--verb --del=5 fe80::9%v0 7000 8000:udp"),
    ] {
        let captured = |program: &Path| {
            let capture = Capture::on(interface);
            let ran = run(program, line);
            (ran, capture.sent_by_client())
        };
        let (their_words, theirs) = captured(Path::new(THEIR_CLIENT));
        let (our_words, ours) = captured(&directory().join("knock"));
        assert_eq!(our_words, their_words, "knock {line}");
        assert_eq!(steps(&ours), steps(&theirs), "knock {line}");
        assert!(!ours.is_empty());
        assert_eq!(bytes(&ours), bytes(&theirs), "knock {line}");
    }
}

/// Invalid command lines and hosts: the same text on stderr and the same exit status. Usage and
/// version are our own text.
fn the_errors_are_those_of_the_original() {
    loopback_only();
    for line in [
        "",
        "h",
        "-z",
        "-h",
        "-V",
        "--ver",
        "--ip h 1",
        "-d",
        "--delay",
        "--udp=1",
        "--bogus=1 h 1",
        "-zV",
        "-Vz",
        "-d -5 h",
        "-d -5 127.0.0.1 1",
        "nosuch.invalid 7",
        "nosuch.invalid 7x",
        "127.0.0.1 7300x",
        "-4 ::1 7",
        "-6 127.0.0.1 7",
        "fe80::1%nosuch 7",
    ] {
        let theirs = run(THEIR_CLIENT, line);
        let ours = knock(line);
        let program = directory().join("knock").display().to_string();
        let stderr = ours.stderr.replace(&program, THEIR_CLIENT);
        assert_eq!(
            (ours.status, stderr),
            (theirs.status, theirs.stderr),
            "knock {line}"
        );
        let usage = "usage: knock [options] <host> <port[:proto]> [port[:proto]] ...";
        let says_usage = |out: &str| out.lines().next() == Some(usage);
        assert_eq!(
            says_usage(&ours.stdout),
            says_usage(&theirs.stdout),
            "knock {line}"
        );
    }
}

/// Only lines with which the original exits before it does anything.
fn the_daemons_errors_are_those_of_the_original() {
    for line in [
        "-h", "-V", "-hz", "--=", "--=x", "--d", "--l", "--lo", "--v", "--ver", "--bogus", "-z",
        "-dz", "--d=1", "--de=1", "-i", "-dc", "--c", "--i", "--p", "--logf", "-W", "-:",
        "stray -z",
    ] {
        let theirs = run(THEIR_DAEMON, line);
        let ours = run(env!("CARGO_BIN_EXE_knockd"), line);
        let stderr = ours
            .stderr
            .replace(env!("CARGO_BIN_EXE_knockd"), THEIR_DAEMON);
        assert_eq!(
            (ours.status, stderr),
            (theirs.status, theirs.stderr),
            "knockd {line}"
        );
        let says_usage = |out: &str| out.lines().next() == Some("usage: knockd [options]");
        assert_eq!(
            says_usage(&ours.stdout),
            says_usage(&theirs.stdout),
            "knockd {line}"
        );
    }
}

fn help_and_version_are_on_stdout() {
    let quiet = |status, stdout: &str| Ran {
        status,
        stdout: stdout.into(),
        stderr: "".into(),
    };
    assert_eq!(knock("-h"), quiet(Some(1), KNOCK.usage));
    assert_eq!(knock(""), quiet(Some(1), KNOCK.usage));
    assert_eq!(knock("--version"), quiet(Some(0), KNOCK.version));
    assert_eq!(cli::knock(&[OsString::from("knock")]), Outcome::Usage(None));
}

fn original_is_missing(program: &str, package_version: &str) -> Option<String> {
    match Path::new(program).exists() {
        true if run(program, "-V").stdout.starts_with(package_version) => None,
        true => Some(format!("{program} is not {package_version}")),
        false => Some(format!("no {program} (Debian package knockd)")),
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let network = network::missing().map(String::from);
    let client = network
        .clone()
        .or_else(|| original_is_missing(THEIR_CLIENT, "knock 0.8"));
    let daemon = original_is_missing(THEIR_DAEMON, "knockd 0.8");
    let iptables = network.clone().or_else(|| {
        let there = ["iptables", "ip6tables"]
            .iter()
            .all(|p| Command::new(p).arg("-V").output().is_ok());
        (!there).then(|| "no iptables and ip6tables (Debian package iptables)".into())
    });

    macro_rules! trials {
        ($($needs:expr => $test:path),* $(,)?) => {
            vec![$({
                let path = stringify!($test);
                trial(path.rsplit(':').next().unwrap_or(path).trim(), $needs, $test)
            }),*]
        };
    }
    let trials = trials![
        &None => help_and_version_are_on_stdout,
        &daemon => the_daemons_errors_are_those_of_the_original,
        &client => the_errors_are_those_of_the_original,
        &client => the_packets_are_those_of_the_original,
        &iptables => an_icmp_answer_that_comes_at_once_is_no_failure,
        &network => each_step_is_one_packet_with_a_source_port_of_its_own,
        &network => an_unanswered_syn_is_not_retransmitted,
        &network => an_open_port_gets_one_syn_too,
        &network => udp_overrides_tcp_and_options_may_follow_operands,
        &network => forty_steps_arrive_in_order,
        &network => the_delay_follows_every_step,
        &network => a_service_name_is_a_port,
        &network => an_address_with_a_zone_is_reached,
        &network => an_unknown_protocol_is_warned_of_and_sent_over_tcp,
        &network => a_wrong_host_or_port_stops_it_before_the_first_knock,
        &network => no_route_is_reported_as_a_failure,
        &network => a_refused_step_is_a_failure_and_the_others_are_sent,
        &network => an_address_that_needs_a_zone_is_refused_before_the_first_knock,
        &network => dns::names_are_asked_of_a_dns_server,
        &client => dns::an_unknown_name_is_reported_as_the_original_does,
        &network => dns::a_missing_silent_or_broken_server_does_not_matter_if_another_works,
        &network => dns::of_two_simultaneous_replies_an_address_and_the_first_server_win,
        &network => dns::a_server_that_fails_for_one_kind_or_domain_is_asked_for_the_others,
        &network => dns::a_lost_query_is_repeated_and_then_given_up,
        &network => dns::hosts_comes_before_the_dns,
    ];

    let _ = std::fs::remove_dir_all(directory()); // left by a run that was killed
    std::fs::create_dir_all(directory()).unwrap();
    symlink(env!("CARGO_BIN_EXE_knockd"), directory().join("knock")).unwrap();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let _ = std::fs::remove_dir_all(directory());
    conclusion.exit();
}

fn trial(name: &str, missing: &Option<String>, test: fn()) -> Trial {
    if let Some(why) = missing {
        eprintln!("ignored: {name}: {why}");
    }
    let reason = missing.clone();
    // SAFETY: no arguments, cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    let run = move || match reason {
        Some(why) => Err(format!("not run: {why}").into()),
        None => {
            test();
            Ok(())
        }
    };
    // Root is expected to run every test.
    Trial::test(name, run).with_ignored_flag(missing.is_some() && !is_root)
}
