//! There is one daemon for each pair of config and `-i`. Tests a second start, other values of
//! `-i`, and two daemons that run because the state directory was removed in between.

use crate::Test;
use crate::control::{ask, json, refused, said as said_by};
use crate::lab::{
    CLIENT, DEADLINE, Daemon, ROUTER, Scene, children, daemon_binary, knock, signal, wait_for,
};
use crate::lease::{STEPS, await_notes, door, notes, open, rules};
use crate::lines;
use crate::restart::{await_open_lease, kill, read_journal, start};
use std::fs;
use std::time::Instant;

pub const TESTS: &[Test] = &[
    (
        "the_pid_file_of_another_daemon_stays",
        the_pid_file_of_another_daemon_stays,
    ),
    (
        "a_second_start_in_the_background_is_a_success",
        a_second_start_in_the_background_is_a_success,
    ),
    (
        "a_second_start_needs_no_control_socket",
        a_second_start_needs_no_control_socket,
    ),
    (
        "a_start_leaves_a_daemon_when_its_caller_is_gone",
        a_start_leaves_a_daemon_when_its_caller_is_gone,
    ),
    (
        "kill_and_start_at_once_leaves_a_daemon",
        kill_and_start_at_once_leaves_a_daemon,
    ),
    (
        "a_removed_state_directory_is_created_again",
        a_removed_state_directory_is_created_again,
    ),
    (
        "a_state_directory_that_reappears_stays_locked",
        a_state_directory_that_reappears_stays_locked,
    ),
    (
        "a_daemon_without_its_state_directory_yields_to_another",
        a_daemon_without_its_state_directory_yields_to_another,
    ),
    (
        "two_daemons_of_one_config_listen_on_two_interfaces",
        two_daemons_of_one_config_listen_on_two_interfaces,
    ),
    (
        "what_a_dead_daemon_of_another_interface_left_closes",
        what_a_dead_daemon_of_another_interface_left_closes,
    ),
    (
        "what_another_interface_of_another_namespace_left_stays",
        what_another_interface_of_another_namespace_left_stays,
    ),
    (
        "a_start_that_fails_closes_doors_of_another_interface",
        a_start_that_fails_closes_doors_of_another_interface,
    ),
    (
        "doors_left_by_another_daemon_in_a_new_state_directory_close",
        doors_left_by_another_daemon_in_a_new_state_directory_close,
    ),
];

fn a_second_start_in_the_background_is_a_success() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    let second = ask(&scene, &["-d", "-i", "wan0"]);
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    let who = format!("process {}", daemon.pid());
    assert!(
        String::from_utf8_lossy(&second.stderr).contains(&who),
        "{second:?}"
    );
    let foreground = refused(&scene, &["-i", "wan0"]);
    assert!(
        foreground.contains(&who) && foreground.contains("stop it first"),
        "{foreground}"
    );
    assert!(daemon.is_alive());
    assert_eq!((rules(&scene), notes(&scene, "stop")), (1, 0));
    assert_eq!(daemon.count(&lines::opened(CLIENT, "SSH")), 1);
}

/// The path of its control socket exceeds the limit.
fn a_second_start_needs_no_control_socket() {
    let scene = Scene::new();
    drop(scene.daemon(&door(600)));
    // A file that cannot be removed.
    let socket = scene.home.instance().join("control");
    let _ = std::fs::remove_file(&socket);
    std::fs::create_dir(&socket).expect("directory");
    let mut daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    daemon.await_text("no control socket");
    let begin = Instant::now();
    let second = ask(&scene, &["-d", "-i", "wan0"]);
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    let said = format!(
        "already runs with {}: process {}",
        scene.home.path("knockd.conf").display(),
        daemon.pid()
    );
    assert!(
        String::from_utf8_lossy(&second.stderr).contains(&said),
        "{second:?}"
    );
    // It would wait 20 s for a daemon that is starting or exiting.
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
    assert!(daemon.is_alive());
}

/// It has received SIGTERM. Until then a second start finds a running daemon.
const CLOSING: &str = "waiting for child processes...";

/// An init script with a time limit, or Ctrl-C.
fn a_start_leaves_a_daemon_when_its_caller_is_gone() {
    let scene = Scene::new();
    let slow = door(600).replace("echo stop >>", "sleep 2; echo stop >>");
    let mut daemon = scene.daemon(&slow);
    open(&scene, &daemon);
    daemon.signal(libc::SIGTERM);
    daemon.await_text(CLOSING);
    let mut command = scene.router.command(daemon_binary().to_str().unwrap());
    command
        .args(["-d", "-i", "wan0", "-c"])
        .arg(scene.home.path("knockd.conf"))
        .arg("-p")
        .arg(scene.home.path("pid"));
    let mut starter = command.spawn().unwrap();
    // The future daemon waits for the old one.
    wait_for("its child", || {
        (!children(starter.id()).is_empty()).then_some(())
    });
    starter.kill().unwrap();
    starter.wait().unwrap();
    assert_eq!(daemon.wait().code(), Some(15));
    let new: u32 = wait_for("a pid file", || scene.home.read("pid").trim().parse().ok());
    wait_for("the new daemon", || {
        (ask(&scene, &["--status"]).status.code() == Some(0)).then_some(())
    });
    assert_eq!(json(&scene)["process"], new);
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 2);
    signal(new, libc::SIGTERM);
    await_notes(&scene, "stop", 2);
}

fn kill_and_start_at_once_leaves_a_daemon() {
    let scene = Scene::new();
    let slow = door(600).replace("echo stop >>", "sleep 2; echo stop >>");
    let mut daemon = scene.daemon(&slow);
    open(&scene, &daemon);
    let pid_file = scene.home.path("pid");
    // Like a script: the old daemon takes its time to close the door.
    daemon.signal(libc::SIGTERM);
    daemon.await_text(CLOSING);
    let second = ask(
        &scene,
        &["-d", "-i", "wan0", "-p", pid_file.to_str().unwrap()],
    );
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!((rules(&scene), notes(&scene, "stop")), (0, 1));
    let new: u32 = scene.home.read("pid").trim().parse().unwrap();
    assert_eq!(json(&scene)["process"], new);
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 2);
    signal(new, libc::SIGTERM);
    await_notes(&scene, "stop", 2);
    wait_for("the end", || {
        (!fs::exists(format!("/proc/{new}")).unwrap()).then_some(())
    });
}

const GONE: &str = "directory was removed or moved";

fn a_removed_state_directory_is_created_again() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    fs::remove_dir_all(scene.home.path("state")).expect("remove");
    open(&scene, &daemon);
    daemon.await_text("the journal is writable again");
    assert_eq!(daemon.count(GONE), 1);
    assert_eq!(read_journal(&scene).leases.len(), 1);
    assert_eq!(json(&scene)["process"], daemon.pid());
    let mut second = Daemon::spawn(&scene.router, &scene.home, &["-i", "wan0"]);
    second.await_text(&format!("process {}", daemon.pid()));
    assert_eq!(second.wait().code(), Some(1));
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(rules(&scene), 0);
}

/// The directory reappears after the daemon has missed it and before it creates a new one. A second
/// daemon starts before the first continues.
fn a_state_directory_that_reappears_stays_locked() {
    let scene = Scene::new();
    scene.home.config(&door(600));
    // The start creates three directories and one control socket.
    let mut strace = scene.router.command("strace");
    strace
        .args(["-D", "-o", "/dev/null", "-e", "trace=mkdir,bind"])
        .args(["-e", "inject=mkdir:delay_enter=2s:when=4"])
        .args(["-e", "inject=bind:delay_enter=3s:when=2"])
        .arg(daemon_binary())
        .args(["-v", "-i", "wan0", "-c"])
        .arg(scene.home.path("knockd.conf"));
    let mut daemon = Daemon::run(strace);
    daemon.await_text(lines::LISTENING);
    let (state, moved) = (scene.home.path("state"), scene.home.path("moved"));
    fs::rename(&state, &moved).expect("rename");
    open(&scene, &daemon);
    let keeper = daemon.pid();
    let await_call = |number: libc::c_long| {
        wait_for("a system call", || {
            let call = fs::read_to_string(format!("/proc/{keeper}/syscall")).unwrap();
            call.starts_with(&format!("{number} ")).then_some(())
        });
    };
    await_call(libc::SYS_mkdir);
    fs::rename(&moved, &state).expect("rename");
    await_call(libc::SYS_bind);
    let mut second = Daemon::spawn(&scene.router, &scene.home, &["-i", "wan0"]);
    second.await_text(&format!("process {keeper}"));
    assert_eq!(second.wait().code(), Some(1));
    daemon.await_text("the journal is writable again");
    assert_eq!(read_journal(&scene).leases.len(), 1);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(rules(&scene), 0);
}

fn a_daemon_without_its_state_directory_yields_to_another() {
    let scene = Scene::new();
    let mut first = scene.daemon(&door(600));
    open(&scene, &first);
    fs::rename(scene.home.path("state"), scene.home.path("moved")).expect("rename");
    let mut second = start(&scene);
    // Both see the knock. The second one's action is a second rule.
    scene.knock(ROUTER, STEPS);
    second.await_text(&lines::opened(CLIENT, "SSH"));
    first.await_text(GONE);
    first.await_text(&format!("process {} has taken over", second.pid()));
    assert_eq!(first.wait().code(), Some(1));
    await_notes(&scene, "start", 2);
    assert_eq!((rules(&scene), notes(&scene, "stop")), (1, 1));
    // It has its own journal and control socket.
    assert_eq!(read_journal(&scene).leases.len(), 1);
    assert_eq!(json(&scene)["process"], second.pid());
    second.signal(libc::SIGTERM);
    assert_eq!(second.wait().code(), Some(15));
    assert_eq!(rules(&scene), 0);
}

/// Two daemons of one config that now has another Interface. Both run because the directory was
/// removed between their starts.
fn doors_left_by_another_daemon_in_a_new_state_directory_close() {
    let scene = Scene::new();
    let start = |interface: &str| {
        let option = format!("Interface = {interface}\n");
        scene.home.config_with_options(&option, &door(600));
        Daemon::start(&scene.router, &scene.home, &[])
    };
    let mut first = start("lo");
    fs::remove_dir_all(scene.home.path("state")).expect("remove");
    let second = start("wan0");
    open(&scene, &second);
    await_open_lease(&scene);
    kill(second);
    assert_eq!(rules(&scene), 1);
    knock(&scene.router, "127.0.0.1", STEPS);
    first.await_text("1 open doors taken over");
    assert_eq!(read_journal(&scene).leases.len(), 2);
    first.signal(libc::SIGTERM);
    assert_eq!(first.wait().code(), Some(15));
    assert_eq!((rules(&scene), notes(&scene, "stop")), (0, 2));
}

/// Two configs with the same, default pid file.
fn the_pid_file_of_another_daemon_stays() {
    let scene = Scene::new();
    let pid_file = scene.home.path("pid");
    let text = scene.home.config(&door(600));
    fs::copy(text, scene.home.path("other.conf")).unwrap();
    let start = |config: &str| -> u32 {
        let mut command = scene.router.command(daemon_binary().to_str().unwrap());
        command.args(["-d", "-i", "wan0", "-c"]);
        command
            .arg(scene.home.path(config))
            .arg("-p")
            .arg(&pid_file);
        assert!(command.status().unwrap().success());
        scene.home.read("pid").trim().parse().unwrap()
    };
    let end = |pid: u32| {
        signal(pid, libc::SIGTERM);
        wait_for("the end", || {
            (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(())
        });
    };
    let (first, second) = (start("knockd.conf"), start("other.conf"));
    end(first);
    assert_eq!(scene.home.read("pid"), format!("{second}\n"));
    end(second);
    assert!(!pid_file.exists(), "its own it removes");
}

/// One service per line, as with 0.8. With `-d`, because there a second start of the same daemon
/// succeeds.
fn two_daemons_of_one_config_listen_on_two_interfaces() {
    let scene = Scene::new();
    scene.home.config(&door(600));
    let start = |interface: &str| {
        let pid_file = scene.home.path(interface);
        let pid_file = pid_file.to_str().unwrap();
        let output = ask(&scene, &["-d", "-i", interface, "-p", pid_file]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let pid: u32 = scene.home.read(interface).trim().parse().unwrap();
        (pid, String::from_utf8(output.stderr).unwrap())
    };
    let (wan, said) = start("wan0");
    assert_eq!(said, "");
    let process = |args: &[&str]| {
        let text = said_by(&scene, &[args, &["--status", "--json"]].concat());
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["process"].clone()
    };
    assert_eq!(process(&[]), wan, "the only one");
    let (lo, said) = start("lo");
    assert_eq!(said, "");
    assert_ne!(wan, lo);
    // The same arguments find the same daemon.
    let (again, said) = start("lo");
    assert_eq!(again, lo);
    assert!(
        said.contains(&format!(
            "already runs with {}: process {lo}",
            config(&scene)
        )),
        "{said}"
    );

    assert_eq!(process(&["-i", "wan0"]), wan);
    assert_eq!(process(&["-i", "lo"]), lo);
    let several = format!("several daemons run with {}: add one of ", config(&scene));
    for question in [&["--status"][..], &["--close", "SSH", CLIENT]] {
        let text = refused(&scene, question);
        let names = text
            .strip_prefix(&several)
            .unwrap_or_else(|| panic!("{text}"));
        assert!(
            ["-i lo, -i wan0\n", "-i wan0, -i lo\n"].contains(&names),
            "{names}"
        );
    }
    assert!(refused(&scene, &["--status", "-i", "ppp0"]).contains("no running knockd"));

    knock(&scene.router, "127.0.0.1", STEPS);
    await_notes(&scene, "start", 1);
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 2);
    assert_eq!(rules(&scene), 2);
    assert!(refused(&scene, &["--close", "SSH", CLIENT, "-i", "lo"]).contains("is not open"));
    said_by(&scene, &["--close", "SSH", CLIENT, "-i", "wan0"]);
    await_notes(&scene, "stop", 1);
    signal(wan, libc::SIGTERM);
    wait_for("its end", || {
        (!scene.home.path("wan0").exists()).then_some(())
    });
    assert_eq!(process(&[]), lo, "the only one again");
    assert_eq!(rules(&scene), 1);
    signal(lo, libc::SIGTERM);
    await_notes(&scene, "stop", 2);
    wait_for("its end", || {
        (!scene.home.path("lo").exists()).then_some(())
    });
    assert_eq!(rules(&scene), 0);
}

fn config(scene: &Scene) -> String {
    scene.home.path("knockd.conf").display().to_string()
}

/// That daemon may never start again: the user has changed the interface of the service.
fn what_a_dead_daemon_of_another_interface_left_closes() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    kill(daemon);
    assert_eq!(rules(&scene), 1);
    let mut other = Daemon::start(&scene.router, &scene.home, &["-i", "lo"]);
    other.await_text("1 open doors taken over");
    // Start the first one again while the other has an open door. There is nothing left to close,
    // and the other one's door stays open.
    let mut first = start(&scene);
    scene.fence(&first);
    assert_eq!(first.count("taken over"), 0);
    assert_eq!((rules(&scene), notes(&scene, "stop")), (1, 0));
    first.signal(libc::SIGTERM);
    assert_eq!(first.wait().code(), Some(15));
    assert_eq!((rules(&scene), notes(&scene, "stop")), (1, 0));
    // The door is in the other one's journal.
    other.signal(libc::SIGKILL);
    other.wait();
    let mut last = start(&scene);
    last.await_text("1 open doors taken over");
    last.signal(libc::SIGTERM);
    assert_eq!(last.wait().code(), Some(15));
    assert_eq!((rules(&scene), notes(&scene, "stop")), (0, 1));
}

/// A start can neither close it nor quarantine it. The next start in its own namespace closes it.
fn what_another_interface_of_another_namespace_left_stays() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    kill(daemon);
    let mut foreign = Daemon::start(&scene.wan, &scene.home, &["-i", "eth0"]);
    foreign.signal(libc::SIGTERM);
    assert_eq!(foreign.wait().code(), Some(15));
    assert_eq!((rules(&scene), notes(&scene, "stop")), (1, 0));
    let mut own = start(&scene);
    own.await_text("1 open doors taken over");
    own.signal(libc::SIGTERM);
    assert_eq!(own.wait().code(), Some(15));
    assert_eq!((rules(&scene), notes(&scene, "stop")), (0, 1));
}

fn a_start_that_fails_closes_doors_of_another_interface() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    kill(daemon);
    let text = scene.home.read("knockd.conf");
    scene
        .home
        .write("knockd.conf", &format!("{text}nonsense\n"));
    let output = ask(&scene, &["-i", "lo"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!((rules(&scene), notes(&scene, "stop")), (0, 1));
}
