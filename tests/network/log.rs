//! What the daemon logs, where, and how much: syslog, log file, LogRate, client names.

use crate::lab::{
    CLIENT, DEADLINE, Daemon, OTHER, ROUTER, Scene, children, daemon_binary, descendants, packet,
    signal, wait_for, wait_within,
};
use crate::lease::{STEPS, await_notes, door, notes};
use crate::{Test, lines};
use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("syslog_gets_knockds_lines", syslog_gets_knockds_lines),
    ("a_log_file_can_be_rotated", a_log_file_can_be_rotated),
    ("a_flood_leaves_lines_out", a_flood_leaves_lines_out),
    (
        "too_many_openings_are_counted",
        too_many_openings_are_counted,
    ),
    ("an_unread_log_delays_nothing", an_unread_log_delays_nothing),
    (
        "a_command_that_fills_the_output_delays_nothing",
        a_command_that_fills_the_output_delays_nothing,
    ),
    ("names_are_shown", names_are_shown),
    (
        "log_times_are_those_of_the_zone",
        log_times_are_those_of_the_zone,
    ),
    (
        "signals_do_not_end_the_other_processes",
        signals_do_not_end_the_other_processes,
    ),
    (
        "a_silent_dns_server_delays_lines_only",
        a_silent_dns_server_delays_lines_only,
    ),
];

const DOOR: &str =
    "[A]\nsequence = 7000,8000:udp\ntcpflags = syn\ncommand = echo open >@HOME@/out\n";

/// Starts the daemon with these files mounted over the machine's own. Runs the shell commands
/// `prepare` first.
fn start_with(scene: &Scene, prepare: &str, args: &str) -> Daemon {
    let mut command = scene.router.command("sh");
    command.arg("-c").arg(format!(
        "set -e; cd {home}; {prepare}; exec {binary} -v -i wan0 -c {home}/knockd.conf {args}",
        home = scene.home.as_ref().display(),
        binary = daemon_binary().display(),
    ));
    let daemon = Daemon::run(command);
    daemon.await_text(lines::LISTENING);
    daemon
}

fn syslog_gets_knockds_lines() {
    let scene = Scene::new();
    fs::create_dir(scene.home.path("dev")).expect("directory");
    let log = UnixDatagram::bind(scene.home.path("dev/log")).expect("socket");
    log.set_read_timeout(Some(DEADLINE)).expect("timeout");
    scene.home.config_with_options("UseSyslog", DOOR);
    let daemon = start_with(
        &scene,
        "mknod -m 666 dev/null c 1 3; mknod -m 666 dev/urandom c 1 9; mount --bind dev /dev",
        "",
    );
    scene.knock(ROUTER, &["7000", "8000:udp"]);
    daemon.await_text(&lines::running("A", ""));
    let mut messages = Vec::new();
    while messages.len() < 5 {
        let mut buffer = [0; 2000];
        let length = log.recv(&mut buffer).expect("a syslog datagram");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        // `<29>Nov 23 18:00:00 knockd: message`: facility daemon, severity notice (RFC 3164).
        let rest = text.strip_prefix("<29>").expect("priority 29");
        let (stamp, message) = rest.split_at(16);
        let shape: String = stamp
            .chars()
            .map(|c| match c {
                'A'..='Z' | 'a'..='z' => 'a',
                '0'..='9' => '9',
                other => other,
            })
            .collect();
        assert!(
            ["aaa 99 99:99:99 ", "aaa  9 99:99:99 "].contains(&shape.as_str()),
            "{text:?}"
        );
        messages.push(
            message
                .strip_prefix("knockd: ")
                .expect("knockd: ")
                .to_string(),
        );
    }
    assert_eq!(messages[0], "starting up, listening on wan0");
    assert_eq!(messages[1], lines::stage(CLIENT, "A", 1));
    assert_eq!(messages[2], lines::stage(CLIENT, "A", 2));
    assert_eq!(messages[3], lines::opened(CLIENT, "A"));
    assert!(
        messages[4].starts_with("A: running command: echo open"),
        "{messages:?}"
    );
}

fn a_log_file_can_be_rotated() {
    let scene = Scene::new();
    let file = scene.home.path("log");
    scene
        .home
        .config_with_options(&format!("LogFile = {}", file.display()), DOOR);
    let daemon = start_with(&scene, ":", "");
    fs::rename(&file, scene.home.path("log.1")).expect("rename");
    daemon.signal(libc::SIGHUP);
    daemon.await_text(lines::IN_FORCE);
    scene.knock(ROUTER, &["7000", "8000:udp"]);
    daemon.await_text(&lines::running("A", ""));
    let (old, new) = (scene.home.read("log.1"), scene.home.read("log"));
    assert!(old.contains("] starting up, listening on wan0\n"), "{old}");
    assert!(old.contains(&format!("] {}", lines::RELOADING)), "{old}");
    assert!(
        new.contains(&format!("] {}\n", lines::opened(CLIENT, "A"))),
        "{new}"
    );
    for line in old.lines().chain(new.lines()) {
        // `[2026-11-23 18:00] message`
        assert_eq!((&line[..1], &line[17..19]), ("[", "] "), "{line:?}");
    }
}

/// 3,000 first knocks from as many sources. A burst and what the rate allows in the meantime is
/// logged, the rest is counted. Openings are logged regardless.
fn a_flood_leaves_lines_out() {
    let scene = Scene::new();
    let daemon = scene.daemon(DOOR);
    for number in 0..3000u32 {
        let [.., high, low] = number.to_be_bytes();
        let source = format!("10.1.{high}.{low}");
        scene.wire.send(&packet::syn(&source, ROUTER, 7000, number));
        if number % 100 == 99 {
            // No more than fit into the socket's buffer, so that none is lost before it is counted.
            scene.fence(&daemon);
        }
    }
    scene.knock(ROUTER, &["7000", "8000:udp"]);
    daemon.await_text(&lines::opened(CLIENT, "A"));
    let logged = daemon.count("A: Stage 1");
    assert!((400..1500).contains(&logged), "{logged} of 3000 lines");
    let left_out = daemon.await_text(lines::LEFT_OUT);
    let number: usize = left_out
        .trim_start_matches(lines::LEFT_OUT)
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{left_out:?}"));
    assert!(
        logged + number >= 3000,
        "{logged} logged, {number} left out"
    );
}

/// Each packet opens a one-step door. Openings beyond 50 a second, after a burst of 1,000, are
/// counted and do not happen. Other doors open as usual.
fn too_many_openings_are_counted() {
    const SENT: usize = 6000;
    let scene = Scene::new();
    let daemon = scene.daemon_with_options("LogRate = 0\n", "[A]\nsequence = 8000:udp\n");
    let begin = Instant::now();
    for number in 0..SENT {
        scene.wire.send(&packet::udp(CLIENT, ROUTER, 8000));
        if number % 300 == 299 {
            scene.fence(&daemon);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let report = daemon.await_text(lines::TOO_MANY_OPENINGS);
    let refused: usize = report
        .split(' ')
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{report:?}"));
    let opened = daemon.count(&lines::opened(CLIENT, "A"));
    assert!(
        opened as f64 <= 1001.0 + 50.0 * seconds,
        "{opened} opened in {seconds} s"
    );
    assert_eq!(opened + refused, SENT);
}

/// The syslog daemon hangs and no process reads standard output. Doors open and close as usual.
fn an_unread_log_delays_nothing() {
    let scene = Scene::new();
    fs::create_dir(scene.home.path("dev")).expect("directory");
    let _log = UnixDatagram::bind(scene.home.path("dev/log")).expect("socket");
    scene
        .wan
        .run(&format!("mkfifo {}", scene.home.path("pipe").display()));
    let _pipe = fs::File::options()
        .read(true)
        .write(true)
        .open(scene.home.path("pipe"))
        .expect("pipe");
    scene.home.config_with_options(
        "UseSyslog\nLogRate = 0",
        "[A]\nsequence = 7000,8000:udp\ntcpflags = syn\n\
         start_command = echo open >>@HOME@/out\ncmd_timeout = 1\nstop_command = echo shut >>@HOME@/out\n",
    );
    let mut command = scene.router.command("sh");
    command.arg("-c").arg(format!(
        "cd {home}; mknod -m 666 dev/null c 1 3; mknod -m 666 dev/urandom c 1 9; \
         mount --bind dev /dev; exec {binary} -v -D -i wan0 -c {home}/knockd.conf >pipe",
        home = scene.home.as_ref().display(),
        binary = daemon_binary().display(),
    ));
    let _daemon = Daemon::run(command);
    let out = || scene.home.read("out");
    wait_for("the door to open", || {
        scene.knock(ROUTER, &["7000", "8000:udp"]);
        out().contains("open").then_some(())
    });
    wait_for("the door to shut", || out().contains("shut").then_some(()));
    // 8,000 lines are far more than a pipe and a syslog socket hold.
    for number in 0..4000u32 {
        let [.., high, low] = number.to_be_bytes();
        let source = format!("10.1.{high}.{low}");
        scene.wire.send(&packet::syn(&source, ROUTER, 7000, number));
    }
    let before = out().len();
    let begin = Instant::now();
    wait_for("the door to open again", || {
        scene.knock(ROUTER, &["7000", "8000:udp"]);
        (out().len() > before).then_some(())
    });
    wait_for("the door to shut again", || {
        (out().matches("shut").count() == 2).then_some(())
    });
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "took {:?}",
        begin.elapsed()
    );
}

/// A command fills the pipe that is also the daemon's standard output and error. Its reader drains
/// a page now and then, which command and daemon race to fill. The daemon must never block in
/// write(2). In the end no process reads at all.
fn a_command_that_fills_the_output_delays_nothing() {
    let scene = Scene::new();
    let made = Command::new("mkfifo").arg(scene.home.path("pipe")).status();
    assert!(made.expect("mkfifo").success());
    let mut options = fs::File::options();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK);
    let mut pipe = options.open(scene.home.path("pipe")).expect("pipe");
    scene.home.config_with_options(
        "LogRate = 0\nCommandTimeout = 20",
        &format!(
            "[Y]\nsequence = 7000:udp\nstart_command = yes & yes >&2\nstop_command = echo shut >>@HOME@/notes\n\
             [B]\nsequence = 8000:udp,8001:udp\n{}",
            door(1)
        ),
    );
    let mut command = scene.router.command("sh");
    command.arg("-c").arg(format!(
        "exec {} -v -D -i wan0 -c {home}/knockd.conf >{home}/pipe 2>&1",
        daemon_binary().display(),
        home = scene.home.as_ref().display(),
    ));
    let mut daemon = Daemon::run(command);
    wait_for("the daemon to listen", || {
        (children(daemon.pid()).len() == 1).then_some(())
    });
    wait_within(
        Duration::from_secs(10),
        Duration::from_millis(50),
        "a full pipe",
        || {
            scene.wire.send(&packet::udp(OTHER, ROUTER, 7000));
            is_waiting_in_write(descendants(daemon.pid())).then_some(())
        },
    );
    let keeper = [daemon.pid()];
    let mut page = [0; 4096];
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        for _ in 0..20 {
            scene.wire.send(&packet::udp(CLIENT, ROUTER, 8000));
            let _ = pipe.read(&mut page);
        }
        std::thread::sleep(Duration::from_millis(4));
        let since = Instant::now();
        while is_waiting_in_write(keeper) {
            assert!(
                since.elapsed() < Duration::from_millis(100),
                "the keeper waits for its reader"
            );
        }
    }
    // With no reader, doors open and close, and the daemon exits.
    for times in 1..=2 {
        scene.knock(ROUTER, STEPS);
        await_notes(&scene, "start", times);
        await_notes(&scene, "stop", times);
    }
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(notes(&scene, "shut"), 1);
}

/// Whether one of these processes blocks in write(2) (proc(5), syscall).
fn is_waiting_in_write(processes: impl IntoIterator<Item = u32>) -> bool {
    let in_write = format!("{} ", libc::SYS_write);
    processes.into_iter().any(|pid| {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall"));
        call.is_ok_and(|call| call.starts_with(&in_write))
    })
}

/// A DNS server for the daemon's machine. Answers every query with `name`, or not at all. Counts
/// queries.
fn dns_server(scene: &Scene, name: Option<&'static str>) -> Arc<AtomicUsize> {
    // A router's usual rules allow its own programs to communicate.
    scene.router.run("iptables -w -I INPUT -i lo -j ACCEPT");
    let socket = scene
        .router
        .enter(|| UdpSocket::bind("127.0.0.1:53").expect("port 53"));
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0u8; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            counter.fetch_add(1, Ordering::SeqCst);
            let Some(name) = name else { continue };
            // RFC 1035: the header with "response" and one answer, the question, then a PTR record
            // that refers back to the question's name.
            let question_end = 12
                + buffer[12..length]
                    .iter()
                    .position(|b| *b == 0)
                    .expect("name")
                + 5;
            let mut reply = buffer[..question_end].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            let mut data = Vec::new();
            for label in name.split('.') {
                data.push(label.len() as u8);
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            reply.extend_from_slice(&[0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
            reply.extend_from_slice(&data);
            let _ = socket.send_to(&reply, peer);
        }
    });
    asked
}

const USE_DNS: &str = "echo nameserver 127.0.0.1 >resolv.conf; echo hosts: dns >nsswitch.conf; \
    mount --bind resolv.conf /etc/resolv.conf; mount --bind nsswitch.conf /etc/nsswitch.conf";

/// Each place that can define the zone, and that the first of them has priority.
fn log_times_are_those_of_the_zone() {
    let places = [
        "mount -t tmpfs none /etc; echo XXX-5:45 >/etc/TZ",
        "export TZ=XXX-5:45",
        "mount -t tmpfs none /etc; printf 'TZif2\\n%s\\n' XXX-5:45 >/etc/localtime; echo UTC0 >/etc/TZ",
        "mount -t tmpfs none /etc; printf 'TZif2\\n%s\\n' XXX-5:45 >/etc/mine; export TZ=:/etc/mine",
    ];
    for place in places {
        let now = || {
            let mut date = std::process::Command::new("date");
            date.env("TZ", "XXX-5:45").arg("+[%Y-%m-%d %H:%M] ");
            let output = date.output().expect("date");
            String::from_utf8_lossy(&output.stdout)
                .trim_end_matches('\n')
                .to_string()
        };
        let scene = Scene::new();
        scene.home.config(DOOR);
        let before = now();
        let _daemon = start_with(&scene, place, "-g log");
        let stamp = wait_for("a line", || {
            scene.home.read("log").get(..before.len()).map(String::from)
        });
        assert!(
            (before.clone()..=now()).contains(&stamp),
            "{place}: {before} {stamp}"
        );
    }
}

fn names_are_shown() {
    let scene = Scene::new();
    let asked = dns_server(&scene, Some("client.example"));
    scene.home.config(DOOR);
    let daemon = start_with(&scene, USE_DNS, "-l");
    scene.knock(ROUTER, &["7000", "8000:udp"]);
    let who = format!("{CLIENT} (client.example)");
    daemon.await_text(&lines::stage(&who, "A", 1));
    daemon.await_text(&lines::opened(&who, "A"));
    daemon.await_text(&lines::running("A", "echo open"));
    scene.knock(ROUTER, &["7000", "8000:udp"]);
    daemon.await_count(&lines::opened(&who, "A"), 2);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the name is remembered");
}

/// `pkill -HUP knockd` reaches the listener and the lookup process too. They ignore it from their
/// first instruction on.
fn signals_do_not_end_the_other_processes() {
    let scene = Scene::new();
    dns_server(&scene, Some("client.example"));
    scene.home.config(DOOR);
    let daemon = start_with(&scene, USE_DNS, "-l");
    scene.knock(ROUTER, &["7000", "8000:udp"]);
    let opened = lines::opened(&format!("{CLIENT} (client.example)"), "A");
    daemon.await_text(&opened);
    let pids = wait_for("only the listener and the lookup process", || {
        <[u32; 2]>::try_from(children(daemon.pid())).ok()
    });
    let mut names = pids.map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap());
    names.sort();
    assert_eq!(names, ["knockd-listener\n", "knockd-names\n"]);
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        let ignored = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .expect("SigIgn");
        let ignored = u64::from_str_radix(ignored.trim(), 16).expect("mask");
        for number in [
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGTERM,
        ] {
            assert!(ignored >> (number - 1) & 1 == 1, "{pid}: {number}");
            signal(pid, number);
        }
    }
    scene.knock(ROUTER, &["7000", "8000:udp"]);
    daemon.await_count(&opened, 2);
    wait_for("only these two again", || {
        (children(daemon.pid()) == pids).then_some(())
    });
}

fn a_silent_dns_server_delays_lines_only() {
    let scene = Scene::new();
    let asked = dns_server(&scene, None);
    scene.home.config(DOOR);
    let daemon = start_with(&scene, USE_DNS, "-l");
    let begin = Instant::now();
    scene.knock(ROUTER, &["7000", "8000:udp"]);
    wait_for("the command", || {
        (!scene.home.read("out").is_empty()).then_some(())
    });
    assert!(
        begin.elapsed() < Duration::from_millis(1500),
        "opened after {:?}",
        begin.elapsed()
    );
    assert_eq!(
        daemon.count("OPEN SESAME"),
        0,
        "the line waits for the name"
    );
    daemon.await_text(&lines::opened(CLIENT, "A"));
    let waited = begin.elapsed();
    assert!(
        (1500..6000).contains(&waited.as_millis()),
        "waited {waited:?}"
    );
    assert!(asked.load(Ordering::SeqCst) > 0, "no DNS query was sent");
}
