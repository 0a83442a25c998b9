//! `knockd --status` and `--close`: the control socket and its clients.

use crate::Test;
use crate::lab::{
    CLIENT, Daemon, OTHER, ROUTER, ROUTER6, Scene, children, daemon_binary, packet, ran_at, signal,
    wait_for,
};
use crate::lease::{STEPS, await_notes, door, notes, open, rules};
use crate::lines;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "a_door_with_the_longest_name_closes",
        a_door_with_the_longest_name_closes,
    ),
    ("status_tells_everything", status_tells_everything),
    ("status_of_what_is_not_there", status_of_what_is_not_there),
    ("status_of_a_stopped_listener", status_of_a_stopped_listener),
    (
        "status_of_a_state_dir_with_a_long_path",
        status_of_a_state_dir_with_a_long_path,
    ),
    ("close_ends_a_lease_now", close_ends_a_lease_now),
    ("close_while_commands_run", close_while_commands_run),
    (
        "close_before_the_start_command",
        close_before_the_start_command,
    ),
    (
        "a_start_command_that_sends_usr1_ends_in_time",
        a_start_command_that_sends_usr1_ends_in_time,
    ),
    ("silent_clients_delay_nothing", silent_clients_delay_nothing),
    (
        "a_client_that_does_not_read_delays_nothing",
        a_client_that_does_not_read_delays_nothing,
    ),
    (
        "the_control_socket_is_private_and_survives_malformed_requests",
        the_control_socket_is_private_and_survives_malformed_requests,
    ),
];

/// Runs `knockd ARGS -c .../knockd.conf` on the router.
pub fn ask(scene: &Scene, args: &[&str]) -> Output {
    let mut command = scene.router.command(daemon_binary().to_str().unwrap());
    let config = scene.home.path("knockd.conf");
    command.arg("-c").arg(config).args(args).output().unwrap()
}

/// The output of a successful command.
pub fn said(scene: &Scene, args: &[&str]) -> String {
    let output = ask(scene, args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The single line on standard error of a failed command.
pub fn refused(scene: &Scene, args: &[&str]) -> String {
    let output = ask(scene, args);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

pub fn json(scene: &Scene) -> Value {
    serde_json::from_str(&said(scene, &["--status", "--json"])).unwrap()
}

/// The path is longer than a Unix socket address can be.
fn status_of_a_state_dir_with_a_long_path() {
    let scene = Scene::new();
    let long = "x".repeat(120);
    scene.home.config(&door(600));
    let text = scene.home.read("knockd.conf");
    let text = text.replace("/state\n", &format!("/{long}\n"));
    scene.home.write("knockd.conf", &text);
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    scene.fence(&daemon);
    assert!(said(&scene, &["--status"]).contains("listener"));
    assert_eq!(daemon.errors(), "");
}

fn socket(scene: &Scene) -> PathBuf {
    scene.home.instance().join("control")
}

fn status_tells_everything() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    // One attempt is in progress; wrong knocks end another.
    let wrong = [7000, 9000, 9000, 9000, 9000, 9000];
    for (source, ports) in [(OTHER, &wrong[..1]), (CLIENT, &wrong)] {
        for (number, port) in (1..).zip(ports) {
            scene.wire.send(&packet::syn(source, ROUTER, *port, number));
        }
    }
    scene.fence(&daemon);
    let status = json(&scene);
    assert_eq!(status["process"], daemon.pid());
    assert_eq!(status["opened"], 2, "{status}");
    assert_eq!(status["restarts"], 0);
    let names: Vec<&Value> = status["doors"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2, "{status}");
    assert_eq!(status["doors"][1]["name"], "SSH");
    assert_eq!(status["leases"][0]["door"], "SSH");
    assert_eq!(status["leases"][0]["source"], CLIENT);
    assert_eq!(status["leases"][0]["state"], "open");
    let left = status["leases"][0]["left_ms"].as_u64().unwrap();
    assert!((540_000..=600_000).contains(&left), "{left}");
    let listener = &status["listener"];
    assert_eq!(listener["knocks"], 3 + 1 + 6 + 1, "{status}");
    assert_eq!(listener["failed"], 1, "{status}");
    assert_eq!(listener["attempts"], 1, "{status}");
    assert_eq!(listener["dropped"], 0);
    let interface = &listener["interfaces"][0];
    assert_eq!(interface["name"], "wan0");
    let addresses = interface["addresses"].as_array().unwrap();
    assert!(addresses.iter().any(|a| a == ROUTER), "{status}");
    assert!(addresses.iter().any(|a| a == ROUTER6), "{status}");

    let text = said(&scene, &["--status"]);
    assert!(
        text.contains(&format!("interface wan0: {ROUTER}")),
        "{text}"
    );
    assert!(
        text.contains(&format!("door SSH\n  SSH, {CLIENT}: open, 9 min ")),
        "{text}"
    );

    // The death of a listener is counted, and the next listener replies.
    signal(children(daemon.pid())[0], libc::SIGKILL);
    wait_for("another listener", || {
        let status = json(&scene);
        (status["restarts"] == 1 && status["listener"]["knocks"] == 0).then_some(())
    });
    // None of this keeps the daemon awake.
    let idle = || {
        let mut all = children(daemon.pid());
        all.push(daemon.pid());
        all.into_iter().map(ran_at).collect::<Vec<_>>()
    };
    wait_for("an idle daemon", || {
        let before = idle();
        std::thread::sleep(Duration::from_millis(1500));
        (idle() == before).then_some(())
    });
}

fn status_of_what_is_not_there() {
    let scene = Scene::new();
    scene.home.config(&door(600));
    let none = refused(&scene, &["--status"]);
    assert!(none.starts_with("no running knockd found for "), "{none}");
    assert_eq!(none.lines().count(), 1, "{none}");
    assert!(
        !scene.home.path("state").exists(),
        "a question must not leave anything behind"
    );
    let mut daemon = scene.daemon(&door(600));
    json(&scene);
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    let none = refused(&scene, &["--close", "SSH", CLIENT]);
    assert!(none.starts_with("no running knockd found for "), "{none}");
}

fn status_of_a_stopped_listener() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    let listener = children(daemon.pid())[0];
    signal(listener, libc::SIGSTOP);
    let begin = Instant::now();
    let text = said(&scene, &["--status"]);
    assert!(text.contains("the listener does not answer\n"), "{text}");
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    // In the meantime, more packets arrive than the kernel queues for it.
    let frames: Vec<Vec<u8>> = (0..3_000)
        .map(|number| {
            let knock = packet::syn(OTHER, ROUTER, 9000, number);
            scene.wire.frame(&knock)
        })
        .collect();
    scene.wire.send_frames(frames.iter().map(Vec::as_slice));
    signal(listener, libc::SIGCONT);
    // Its late reply is not used for another request.
    wait_for("a reply", || {
        (!json(&scene)["listener"].is_null()).then_some(())
    });
    open(&scene, &daemon);
    let status = json(&scene);
    let (seen, lost) = (
        &status["listener"]["knocks"],
        &status["listener"]["dropped"],
    );
    let (seen, lost) = (seen.as_u64().unwrap(), lost.as_u64().unwrap());
    assert!(seen >= 100 && lost >= 100, "{status}");
    assert_eq!(seen + lost, 3_000 + 3, "{status}");
    assert_eq!(
        status["listener"]["interfaces"].as_array().unwrap().len(),
        1
    );
}

fn close_ends_a_lease_now() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    let other = refused(&scene, &["--close", "SSH", CLIENT]);
    assert_eq!(other, format!("SSH is not open for {CLIENT}\n"));
    open(&scene, &daemon);
    for (door, source) in [("SSH", OTHER), ("fence", CLIENT)] {
        refused(&scene, &["--close", door, source]);
    }
    let none = refused(&scene, &["--close", "ssh", CLIENT]);
    assert_eq!(none, "there is no door ssh\n");
    assert_eq!(rules(&scene), 1);
    let closes = said(&scene, &["--close", "SSH", CLIENT]);
    assert_eq!(closes, format!("SSH is closing for {CLIENT}\n"));
    wait_for("a closed door", || (rules(&scene) == 0).then_some(()));
    daemon.await_text(&format!("{CLIENT}: SSH: closed by --close"));
    // The door opens again as usual, even if the config has been broken in the meantime.
    open(&scene, &daemon);
    let config = scene.home.read("knockd.conf");
    scene.home.write("knockd.conf", &format!("{config}\n[\n"));
    let output = ask(&scene, &["--close", "SSH", CLIENT]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.starts_with("warning: ") && errors.contains("knockd.conf:"),
        "{errors}"
    );
    await_notes(&scene, "stop", 2);
}

fn close_while_commands_run() {
    let scene = Scene::new();
    let doors = "[options]\nReknock = stack\n[SSH]\nsequence = 7000,8000:udp,9000\ntcpflags = syn\n\
                 start_command = echo start >>@HOME@/notes; while [ -e @HOME@/hold ]; do sleep 0.05; done\n\
                 cmd_timeout = 600\nstop_command = echo stop >>@HOME@/notes; while [ -e @HOME@/hold ]; do sleep 0.05; done\n";
    let daemon = scene.daemon(doors);
    scene.home.write("hold", "");
    // Two leases, both running their start commands.
    for number in 1..=2 {
        scene.knock(ROUTER, STEPS);
        daemon.await_count(&lines::opened(CLIENT, "SSH"), number);
        await_notes(&scene, "start", number);
    }
    said(&scene, &["--close", "SSH", CLIENT]);
    assert_eq!(json(&scene)["leases"].as_array().unwrap().len(), 2);
    assert_eq!(notes(&scene, "stop"), 0, "a start command still runs");
    fs::remove_file(scene.home.path("hold")).unwrap();
    await_notes(&scene, "stop", 2);
    wait_for("no lease", || {
        (json(&scene)["leases"].as_array().unwrap().is_empty()).then_some(())
    });
    // A lease whose stop command is running, and whose client knocks again: a closed door stays
    // closed.
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 3);
    wait_for("open", || {
        (json(&scene)["leases"][0]["state"] == "open").then_some(())
    });
    scene.home.write("hold", "");
    said(&scene, &["--close", "SSH", CLIENT]);
    await_notes(&scene, "stop", 3);
    said(&scene, &["--close", "SSH", CLIENT]);
    fs::remove_file(scene.home.path("hold")).unwrap();
    wait_for("no lease", || {
        (json(&scene)["leases"].as_array().unwrap().is_empty()).then_some(())
    });
    assert_eq!((notes(&scene, "start"), notes(&scene, "stop")), (3, 3));
}

/// A command that is still queued when its door is closed never starts.
fn close_before_the_start_command() {
    let scene = Scene::new();
    scene.home.config_with_options(
        "MaxCommands = 1\n",
        "[other]\nsequence = 5000,6000\ntcpflags = syn\ncmd_timeout = 600\n\
         start_command = echo other >>@HOME@/notes; while [ -e @HOME@/hold ]; do sleep 0.05; done\nstop_command = true\n\
         [SSH]\nsequence = 7000,8000:udp,9000\ntcpflags = syn\ncmd_timeout = 600\n\
         start_command = echo start >>@HOME@/notes\nstop_command = echo stop >>@HOME@/notes\n",
    );
    scene.home.write("hold", "");
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    scene.knock(ROUTER, &["5000", "6000"]);
    await_notes(&scene, "other", 1);
    scene.knock(ROUTER, STEPS);
    daemon.await_text(&lines::opened(CLIENT, "SSH"));
    said(&scene, &["--close", "SSH", CLIENT]);
    assert_eq!(json(&scene)["leases"].as_array().unwrap().len(), 1);
    fs::remove_file(scene.home.path("hold")).unwrap();
    wait_for("open", || {
        (json(&scene)["leases"][0]["state"] == "open").then_some(())
    });
    assert_eq!((notes(&scene, "start"), notes(&scene, "stop")), (0, 0));
    // A new knock opens.
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 1);
}

/// A start command that restarts the firewall has its own rule re-applied until its lease expires.
fn a_start_command_that_sends_usr1_ends_in_time() {
    let scene = Scene::new();
    let daemon = scene.daemon(
        "[SSH]\nsequence = 7000,8000:udp,9000\ntcpflags = syn\ncmd_timeout = 2\n\
         start_command = echo start >>@HOME@/notes; kill -USR1 $PPID\n\
         stop_command = echo stop >>@HOME@/notes\n",
    );
    scene.knock(ROUTER, STEPS);
    daemon.await_text(&lines::opened(CLIENT, "SSH"));
    await_notes_at_least(&scene, "start", 2);
    wait_for("its end", || {
        (json(&scene)["leases"].as_array().unwrap().is_empty()).then_some(())
    });
    assert_eq!(notes(&scene, "start"), notes(&scene, "stop"));
}

fn await_notes_at_least(scene: &Scene, word: &str, times: usize) {
    wait_for(&format!("{times} {word}"), || {
        (notes(scene, word) >= times).then_some(())
    });
}

fn silent_clients_delay_nothing() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    let path = socket(&scene);
    let begin = Instant::now();
    // As many clients as are served at once, and more that wait. One of them sends half a request.
    let mut silent: Vec<UnixStream> = (0..12)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    silent[1].write_all(b"stat").unwrap();
    scene.knock(ROUTER, STEPS);
    let knocked = Instant::now();
    daemon.await_text(&lines::opened(CLIENT, "SSH"));
    assert!(
        knocked.elapsed() < Duration::from_secs(1),
        "{:?}",
        knocked.elapsed()
    );
    // Twelve silent clients take three rounds of one second.
    json(&scene);
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    for stream in &mut silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
    // After they have gone, the reply is immediate.
    let begin = Instant::now();
    json(&scene);
    assert!(
        begin.elapsed() < Duration::from_millis(900),
        "{:?}",
        begin.elapsed()
    );
}

/// 250 doors with names of 1 kB, whose bytes JSON escapes to twice the length: the reply exceeds
/// the socket buffer.
fn a_client_that_does_not_read_delays_nothing() {
    let scene = Scene::new();
    let long = "\"".repeat(1_000);
    let many: String = (0..250)
        .map(|number| format!("[{number}{long}]\nsequence = 1:udp,2:udp\n"))
        .collect();
    let daemon = scene.daemon(&format!("{}{many}", door(600)));
    let mut slow = UnixStream::connect(socket(&scene)).unwrap();
    slow.write_all(b"status json\n").unwrap();
    let mut first = [0u8; 1];
    slow.read_exact(&mut first).unwrap();
    let begin = Instant::now();
    scene.knock(ROUTER, STEPS);
    daemon.await_text(&lines::opened(CLIENT, "SSH"));
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    // A client that reads receives the complete reply.
    let status = json(&scene);
    assert_eq!(status["doors"].as_array().unwrap().len(), 252);
    assert!(status.to_string().len() > 400_000);
    // The other client is disconnected after its second, with what the socket buffer held.
    std::thread::sleep(Duration::from_millis(1500).saturating_sub(begin.elapsed()));
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert!(
        rest.len() < 400_000,
        "everything was written in one go, so this test shows nothing"
    );
}

fn the_control_socket_is_private_and_survives_malformed_requests() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    let path = socket(&scene);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let other = scene.router.attempt(&format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups {} --status -c {}",
        daemon_binary().display(),
        scene.home.path("knockd.conf").display()
    ));
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    let descriptors = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .count()
    };
    let before = descriptors();
    let questions: [&[u8]; 6] = [
        b"\n",
        b"status nonsense\n",
        b"close SSH 198.51.100.2\n",
        b"close 198.51.100.2 \xff\xfe\n",
        &[b'x'; 1500],
        b"\0\0\0\n",
    ];
    for question in questions {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(question).unwrap();
        let mut answer = String::new();
        // A request that is too long is cut off.
        let _ = stream.read_to_string(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with("error\n"),
            "{answer}"
        );
    }
    // Clients that disconnect before the reply.
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&path).unwrap();
        let _ = stream.write_all(b"status json\n");
    }
    json(&scene);
    wait_for("no descriptor left over", || {
        (descriptors() == before).then_some(())
    });
    open(&scene, &daemon);
}

/// A name of 1,023 bytes is valid. A longer one, or one with a line break, is not.
fn a_door_with_the_longest_name_closes() {
    let scene = Scene::new();
    let name = "x".repeat(1023);
    let daemon = scene.daemon(&door(600).replace("[SSH]", &format!("[{name}]")));
    scene.knock(ROUTER, STEPS);
    daemon.await_text(&lines::opened(CLIENT, &name));
    await_notes(&scene, "start", 1);
    for wrong in [
        format!("{name}x"),
        "x".repeat(9000),
        format!("{name}\nclose {CLIENT} SSH"),
    ] {
        let text = refused(&scene, &["--close", &wrong, CLIENT]);
        let shown = wrong.replace('\n', "\\n");
        assert_eq!(text, format!("there is no door {shown}\n"));
    }
    assert_eq!(rules(&scene), 1);
    said(&scene, &["--close", &name, CLIENT]);
    await_notes(&scene, "stop", 1);
}
