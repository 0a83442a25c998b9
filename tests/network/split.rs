//! The two processes: the listener has no root, is disposable, and heeds nobody but the keeper.

use crate::Test;
use crate::lab::{CLIENT, Daemon, ROUTER, Scene, children, knock_until, signal, wait_for};
use crate::lease::{await_notes, door, open, rules};
use crate::lines;
use std::fs;

pub const TESTS: &[Test] = &[
    (
        "a_killed_listener_is_replaced",
        a_killed_listener_is_replaced,
    ),
    ("the_listener_has_no_root", the_listener_has_no_root),
    ("signals_to_both_processes", signals_to_both_processes),
    (
        "the_listener_ends_with_the_keeper",
        the_listener_ends_with_the_keeper,
    ),
];

/// The listener: the only child while no command runs.
fn listener(daemon: &Daemon) -> u32 {
    wait_for("one listener", || match children(daemon.pid())[..] {
        [pid] => Some(pid),
        _ => None,
    })
}

fn a_killed_listener_is_replaced() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    for times in 2..=3 {
        let first = listener(&daemon);
        signal(first, libc::SIGKILL);
        wait_for("another listener", || {
            children(daemon.pid())
                .first()
                .filter(|&&pid| pid != first)
                .copied()
        });
        knock_until(&daemon, &lines::opened(CLIENT, "SSH"), || {
            scene.knock(ROUTER, &["7000", "8000:udp", "9000"]);
        });
        assert!(daemon.count(&lines::opened(CLIENT, "SSH")) >= times);
        assert_eq!(rules(&scene), 1, "the lease is known to the keeper");
    }
    daemon.signal(libc::SIGTERM);
    daemon.wait();
    await_notes(&scene, "stop", 1);
}

fn the_listener_has_no_root() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    let pid = listener(&daemon);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect(name);
        line.split_whitespace().skip(1).collect::<Vec<_>>()
    };
    for ids in ["Uid:", "Gid:"] {
        assert!(
            field(ids).iter().all(|&id| id != "0"),
            "{ids} {:?}",
            field(ids)
        );
    }
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert!(field("Groups:").is_empty(), "groups {:?}", field("Groups:"));
    // Nothing to see where it is, and nothing in its memory of what the doors run.
    let root = fs::read_link(format!("/proc/{pid}/root")).expect("root");
    assert_ne!(root, std::path::Path::new("/"), "chroot");
    let entries = fs::read_dir(format!("/proc/{pid}/root/"))
        .expect("root")
        .count();
    assert_eq!(entries, 0, "files where it is");
}

/// `killall -HUP knockd` of a log rotation, and the like.
fn signals_to_both_processes() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    for number in [libc::SIGHUP, libc::SIGUSR1, libc::SIGHUP] {
        signal(listener(&daemon), libc::SIGUSR2);
        signal(listener(&daemon), number);
        daemon.signal(number);
    }
    daemon.await_count(lines::RELOADING, 2);
    knock_until(&daemon, &lines::opened(CLIENT, "SSH"), || {
        scene.knock(ROUTER, &["7000", "8000:udp", "9000"]);
    });
    wait_for("one rule", || (rules(&scene) == 1).then_some(()));
    signal(listener(&daemon), libc::SIGTERM);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(rules(&scene), 0);
}

fn the_listener_ends_with_the_keeper() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    let pid = listener(&daemon);
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    wait_for("the end of the listener", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
}
