//! Names from a DNS server. Server and resolver files belong to the test and exist only in the
//! namespace of its thread.

use super::network::{run, with_silent_hosts};
use super::{THEIR_CLIENT, directory, knock, run as run_program};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const A: u8 = 1;
const AAAA: u8 = 28;

/// How the server answers a query.
enum Answer {
    /// A response code and records for the name in the query: type and data.
    Reply(u8, Vec<(u8, Vec<u8>)>),
    /// The same with a wrong ID, like the response of an attacker who guesses.
    Forged(Vec<(u8, Vec<u8>)>),
    Silence,
}

use Answer::{Forged, Reply, Silence};

fn v4() -> (u8, Vec<u8>) {
    (A, vec![10, 9, 0, 9])
}

fn v6(text: &str) -> (u8, Vec<u8>) {
    let address: std::net::Ipv6Addr = text.parse().unwrap();
    (AAAA, address.octets().to_vec())
}

/// A namespace with silent hosts and these files in /etc.
fn with_files(files: &[(&str, &str)]) {
    with_silent_hosts();
    // SAFETY: no pointers; the thread gets its own mounts and working directory.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    run("mount --make-rprivate /");
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    for (name, text) in files {
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let file = directory().join(format!("{name}.{count}"));
        std::fs::write(&file, text).unwrap();
        run(&format!("mount --bind {} /etc/{name}", file.display()));
    }
}

/// Runs a server at that address. `answer` gets the name, the type, and the number of previous
/// queries.
fn serve(address: &str, mut answer: impl FnMut(&str, u8, usize) -> Vec<Answer> + Send + 'static) {
    let socket = UdpSocket::bind((address, 53)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0u8; 512];
        for count in 0.. {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                return;
            };
            let answer = |name: &str, kind| answer(name, kind, count);
            for reply in replies(&buffer[..length], answer) {
                let _ = socket.send_to(&reply, peer);
            }
        }
    });
}

/// The responses to a query.
fn replies(question: &[u8], answer: impl FnOnce(&str, u8) -> Vec<Answer>) -> Vec<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
        at = end;
    }
    let answers = answer(&labels.join("."), question[at + 2]).into_iter();
    let reply = |answer| {
        let (id, code, records) = match answer {
            Reply(code, records) => (question[0], code, records),
            Forged(records) => (!question[0], 0, records),
            Silence => return None,
        };
        let mut reply = question.to_vec();
        reply[0] = id;
        reply[2..8].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, records.len() as u8]);
        for (kind, data) in records {
            reply.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 9, 0]);
            reply.push(data.len() as u8);
            reply.extend_from_slice(&data);
        }
        Some(reply)
    };
    answers.filter_map(reply).collect()
}

const ONE_SERVER: (&str, &str) = (
    "resolv.conf",
    "# x\nnameserver 127.0.0.1\nsearch nowhere lan\n",
);
const NO_HOSTS: (&str, &str) = ("hosts", "");

/// The address to which the client's knock goes.
fn hits(line: &str) -> String {
    let ran = knock(&format!("-v {line} 7000:udp"));
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{line}");
    ran.stdout
        .trim()
        .replace("hitting udp ", "")
        .replace(":7000", "")
}

pub fn names_are_asked_of_a_dns_server() {
    with_files(&[ONE_SERVER, NO_HOSTS]);
    serve("127.0.0.1", |name, kind, _| {
        let all = match &*name.to_ascii_lowercase() {
            "both.example" | "router.lan" => vec![v4(), v6("fd00:9::9")],
            "far.example" => vec![v4(), v6("2001:db8::9")],
            "v6.example" => vec![v6("fd00:9::9")],
            _ => return vec![Reply(3, vec![])],
        };
        let mut records = vec![(5, b"\xc0\x0c".to_vec())];
        records.extend(all.into_iter().filter(|(its, _)| *its == kind));
        // A forged response arrives first.
        vec![Forged(vec![(A, vec![10, 9, 0, 66])]), Reply(0, records)]
    });
    assert_eq!(hits("both.example"), "fd00:9::9");
    assert_eq!(hits("-4 both.example"), "10.9.0.9");
    assert_eq!(hits("-6 BOTH.example."), "fd00:9::9");
    assert_eq!(
        hits("far.example"),
        "10.9.0.9",
        "no way to its IPv6 address"
    );
    assert_eq!(hits("v6.example"), "fd00:9::9");
    assert_eq!(hits("-4 router"), "10.9.0.9", "searched for in two domains");
}

pub fn an_unknown_name_is_reported_as_the_original_does() {
    with_files(&[
        ONE_SERVER,
        NO_HOSTS,
        ("nsswitch.conf", "hosts: files dns\nservices: files\n"),
    ]);
    serve("127.0.0.1", |name, kind, _| {
        vec![match name {
            "v4.example" => Reply(
                0,
                [v4()].into_iter().filter(|(its, _)| *its == kind).collect(),
            ),
            "fails.example" => Reply(2, vec![]),
            "refused.example" => Reply(5, vec![]),
            _ => Reply(3, vec![]),
        }]
    });
    let began = Instant::now();
    for (line, words) in [
        ("-6 v4.example 7000", "No address associated with hostname"),
        ("nosuch.example 7000", "Name or service not known"),
        ("nosuch 7000", "Name or service not known"),
        ("fails.example 7000", "Temporary failure in name resolution"),
        (
            "refused.example 7000",
            "Temporary failure in name resolution",
        ),
    ] {
        let ran = knock(line);
        assert_eq!(ran.status, Some(1), "knock {line}");
        assert!(ran.stderr.contains(words), "knock {line}: {}", ran.stderr);
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "all were answered"
    );
    for line in ["-6 v4.example 7000", "nosuch.example 7000"] {
        assert_eq!(knock(line), run_program(THEIR_CLIENT, line), "knock {line}");
    }
}

pub fn a_missing_silent_or_broken_server_does_not_matter_if_another_works() {
    with_files(&[
        (
            "resolv.conf",
            "nameserver 127.0.0.7\nnameserver 10.9.0.9\nnameserver ::1\nnameserver 127.0.0.1\n",
        ),
        NO_HOSTS,
    ]);
    // Nothing listens at the first address, the second never answers, and the fourth exceeds the
    // limit.
    serve("::1", |_, _, _| vec![Reply(0, vec![v4()])]);
    let began = Instant::now();
    assert_eq!(hits("-4 a.example"), "10.9.0.9");
    assert!(began.elapsed() < Duration::from_secs(1));

    serve("127.0.0.7", |_, _, _| vec![Reply(2, vec![])]);
    assert_eq!(hits("-4 a.example"), "10.9.0.9");
}

/// The client does not run before both servers have answered.
pub fn of_two_simultaneous_replies_an_address_and_the_first_server_win() {
    with_files(&[
        (
            "resolv.conf",
            "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n",
        ),
        NO_HOSTS,
    ]);
    let servers = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let servers = servers.map(|address| UdpSocket::bind((address, 53)).unwrap());
    // Run everything on one CPU, and the server first.
    // SAFETY: zero is a valid CPU set; the set has a bit for CPU 0 and is live.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        let result = libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
    std::thread::spawn(move || {
        // SAFETY: the parameters are live.
        unsafe {
            let parameters = libc::sched_param { sched_priority: 1 };
            let result = libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters);
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        }
        let mut buffer = [0u8; 512];
        loop {
            let asked: Vec<_> = (servers.iter())
                .map(|server| {
                    let (length, peer) = server.recv_from(&mut buffer).unwrap();
                    (server, peer, buffer[..length].to_vec())
                })
                .collect();
            for (number, (server, peer, question)) in asked.into_iter().enumerate() {
                let [reply] = &replies(&question, |name, _| {
                    vec![match (name, number) {
                        ("first.example", 0) | ("second.example", 1) => Reply(0, vec![v4()]),
                        ("first.example", _) => Reply(0, vec![(A, vec![10, 9, 0, 8])]),
                        _ => Reply(3, vec![]),
                    }]
                })[..] else {
                    unreachable!()
                };
                server.send_to(reply, peer).unwrap();
            }
        }
    });
    for _ in 0..20 {
        assert_eq!(hits("-4 first.example"), "10.9.0.9");
        assert_eq!(hits("-4 second.example"), "10.9.0.9");
    }
}

pub fn a_server_that_fails_for_one_kind_or_domain_is_asked_for_the_others() {
    with_files(&[ONE_SERVER, NO_HOSTS]);
    serve("127.0.0.1", |name, kind, _| {
        vec![match (name, kind) {
            ("v6.example", AAAA) => Reply(0, vec![v6("fd00:9::9")]),
            ("router.lan", A) => Reply(0, vec![v4()]),
            ("v6.example", _) | ("router.nowhere" | "gone.nowhere", _) => Reply(2, vec![]),
            ("router.lan", _) => Reply(0, vec![]),
            _ => Reply(3, vec![]),
        }]
    });
    assert_eq!(hits("v6.example"), "fd00:9::9");
    assert_eq!(hits("router"), "10.9.0.9");
    let ran = knock("gone 7000");
    let words = "Temporary failure in name resolution";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

pub fn a_lost_query_is_repeated_and_then_given_up() {
    with_files(&[ONE_SERVER, NO_HOSTS]);
    serve("127.0.0.1", |_, _, count| match count {
        1 => vec![Reply(0, vec![v4()])],
        _ => vec![Silence],
    });
    let began = Instant::now();
    assert_eq!(hits("-4 a.example"), "10.9.0.9");
    assert!(
        (2..4).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    let ran = knock("a.example 7000");
    assert!(
        ran.stderr.contains("Temporary failure in name resolution"),
        "{}",
        ran.stderr
    );
    assert!(
        (4..7).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
}

pub fn hosts_comes_before_the_dns() {
    with_files(&[
        ("resolv.conf", ""),
        (
            "hosts",
            "10.9.0.9 a.example near # x\n2001:db8::9 a.example\nfe80::9 local\n",
        ),
    ]);
    serve("127.0.0.1", |_, _, _| {
        vec![Reply(0, vec![(A, vec![10, 9, 0, 1])])]
    });
    assert_eq!(hits("a.example"), "10.9.0.9");
    assert_eq!(hits("NEAR"), "10.9.0.9");
    // If resolv.conf names no server, the client queries this machine.
    assert_eq!(hits("-4 b.example"), "10.9.0.1");
}
