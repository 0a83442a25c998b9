//! Of one config one daemon runs: what a second start does, and what two do when somebody has removed the state folder between them.

use crate::Test;
use crate::control::{ask, json, refused};
use crate::lab::{
    CLIENT, DEADLINE, Daemon, ROUTER, Scene, children, daemon_binary, knock, signal, wait_for,
};
use crate::lease::{STEPS, await_notes, door, notes, open, rules};
use crate::lines;
use crate::restart::{kill, read_journal, start};
use std::fs;
use std::time::Instant;

pub const TESTS: &[Test] = &[
    (
        "a_second_start_in_the_background_is_a_success",
        a_second_start_in_the_background_is_a_success,
    ),
    (
        "a_second_start_needs_no_control_socket",
        a_second_start_needs_no_control_socket,
    ),
    (
        "a_start_whose_starter_is_gone_leaves_a_daemon",
        a_start_whose_starter_is_gone_leaves_a_daemon,
    ),
    (
        "kill_and_start_at_once_leaves_a_daemon",
        kill_and_start_at_once_leaves_a_daemon,
    ),
    (
        "a_state_folder_that_was_removed_is_made_anew",
        a_state_folder_that_was_removed_is_made_anew,
    ),
    (
        "of_two_daemons_the_one_without_the_state_folder_gives_way",
        of_two_daemons_the_one_without_the_state_folder_gives_way,
    ),
    (
        "what_another_daemon_left_in_a_new_state_folder_closes",
        what_another_daemon_left_in_a_new_state_folder_closes,
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

/// The path of its control socket is longer than one may be.
fn a_second_start_needs_no_control_socket() {
    let scene = Scene::new();
    drop(scene.daemon(&door(600)));
    // What cannot be removed.
    let socket = scene.home.instance().join("control");
    let _ = std::fs::remove_file(&socket);
    std::fs::create_dir(&socket).expect("folder");
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
    // It waits 20 s for one that starts or ends.
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
    assert!(daemon.is_alive());
}

/// An init script with a time limit, or Ctrl-C.
fn a_start_whose_starter_is_gone_leaves_a_daemon() {
    let scene = Scene::new();
    let slow = door(600).replace("echo stop >>", "sleep 2; echo stop >>");
    let mut daemon = scene.daemon(&slow);
    open(&scene, &daemon);
    daemon.signal(libc::SIGTERM);
    let mut command = scene.router.command(daemon_binary().to_str().unwrap());
    command
        .args(["-d", "-i", "wan0", "-c"])
        .arg(scene.home.path("knockd.conf"))
        .arg("-p")
        .arg(scene.home.path("pid"));
    let mut starter = command.spawn().unwrap();
    // What will be the daemon waits for the old one.
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
    // As a script does: the old one takes its time to close the door.
    daemon.signal(libc::SIGTERM);
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

const GONE: &str = "lock was removed or moved";

fn a_state_folder_that_was_removed_is_made_anew() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    fs::remove_dir_all(scene.home.path("state")).expect("remove");
    open(&scene, &daemon);
    daemon.await_text("the journal is written again");
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

fn of_two_daemons_the_one_without_the_state_folder_gives_way() {
    let scene = Scene::new();
    let mut first = scene.daemon(&door(600));
    open(&scene, &first);
    fs::rename(scene.home.path("state"), scene.home.path("moved")).expect("rename");
    let mut second = start(&scene);
    // Both hear it; what the second does is a second rule.
    scene.knock(ROUTER, STEPS);
    second.await_text(&lines::opened(CLIENT, "SSH"));
    first.await_text(GONE);
    first.await_text(&format!("process {} runs with", second.pid()));
    assert_eq!(first.wait().code(), Some(1));
    await_notes(&scene, "start", 2);
    assert_eq!((rules(&scene), notes(&scene, "stop")), (1, 1));
    // Its journal and control socket are its own.
    assert_eq!(read_journal(&scene).leases.len(), 1);
    assert_eq!(json(&scene)["process"], second.pid());
    second.signal(libc::SIGTERM);
    assert_eq!(second.wait().code(), Some(15));
    assert_eq!(rules(&scene), 0);
}

/// Two daemons of one config on different interfaces, because somebody removed the folder between their starts.
fn what_another_daemon_left_in_a_new_state_folder_closes() {
    let scene = Scene::new();
    scene.home.config(&door(600));
    let mut first = Daemon::start(&scene.router, &scene.home, &["-i", "lo"]);
    fs::remove_dir_all(scene.home.path("state")).expect("remove");
    let second = start(&scene);
    open(&scene, &second);
    kill(second);
    assert_eq!(rules(&scene), 1);
    knock(&scene.router, "127.0.0.1", STEPS);
    first.await_text("1 open doors taken over");
    assert_eq!(read_journal(&scene).leases.len(), 2);
    first.signal(libc::SIGTERM);
    assert_eq!(first.wait().code(), Some(15));
    assert_eq!((rules(&scene), notes(&scene, "stop")), (0, 2));
}
