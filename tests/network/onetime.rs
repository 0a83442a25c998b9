//! One-time lists: a sequence opens once, is marked on disk, and never opens again.

use crate::Test;
use crate::lab::{CLIENT, CLIENT6, Daemon, Home, ROUTER, ROUTER6, Scene, wait_for};
use crate::lines;

pub const TESTS: &[Test] = &[
    ("one_time_list_v4", one_time_list_v4),
    ("one_time_list_v6", one_time_list_v6),
    (
        "one_time_list_after_a_restart",
        one_time_list_after_a_restart,
    ),
    (
        "a_list_that_was_rewritten_does_not_log_an_opening",
        a_list_that_was_rewritten_does_not_log_an_opening,
    ),
];

const LIST: &str = "# keep me\n 1001:udp,1002:tcp,1003:udp\n 2001:udp,2002:tcp\n";
const FIRST: &[&str] = &["1001:udp", "1002:tcp", "1003:udp"];
const SECOND: &[&str] = &["2001:udp", "2002:tcp"];

fn one_time_list_v4() {
    one_time_list(CLIENT, ROUTER);
}

fn one_time_list_v6() {
    one_time_list(CLIENT6, ROUTER6);
}

/// Starts a daemon with the list and another door, which must keep working.
fn start(scene: &Scene) -> Daemon {
    scene.daemon(
        "[Once]
         one_time_sequences = @HOME@/list
         tcpflags = syn
         command = cp @HOME@/list @HOME@/seen
         [Other]
         sequence = 7000,8000
         tcpflags = syn\n",
    )
}

fn one_time_list(who: &str, target: &str) {
    let scene = Scene::new();
    scene.home.write("list", LIST);
    let mut daemon = start(&scene);
    let opened = lines::opened(who, "Once");

    scene.knock(target, SECOND);
    scene.fence(&daemon);
    assert_eq!(daemon.count(&opened), 0, "the second line before its turn");

    scene.knock(target, FIRST);
    daemon.await_count(&opened, 1);
    let marked = LIST.replace(" 1001", "#1001");
    // What the command saw: the line was marked before it ran.
    await_list(&scene.home, "seen", &marked);
    assert_eq!(scene.home.read("list"), marked);

    scene.knock(target, FIRST);
    scene.fence(&daemon);
    assert_eq!(daemon.count(&opened), 1, "a replay");

    scene.knock(target, SECOND);
    daemon.await_count(&opened, 2);
    daemon.await_text(lines::EXHAUSTED);
    let used_up = marked.replace(" 2001", "#2001");
    await_list(&scene.home, "seen", &used_up);
    assert_eq!(scene.home.read("list"), used_up);

    for steps in [FIRST, SECOND] {
        scene.knock(target, steps);
    }
    scene.knock(target, &["7000", "8000"]);
    daemon.await_text(&lines::opened(who, "Other"));
    assert_eq!(daemon.count(&opened), 2, "the list is used up");
    assert!(daemon.is_alive());
}

fn one_time_list_after_a_restart() {
    let scene = Scene::new();
    scene.home.write("list", LIST);
    let opened = lines::opened(CLIENT, "Once");
    let mut daemon = start(&scene);
    scene.knock(ROUTER, FIRST);
    daemon.await_count(&opened, 1);
    await_list(&scene.home, "seen", &LIST.replace(" 1001", "#1001"));
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    drop(daemon);

    let daemon = start(&scene);
    scene.knock(ROUTER, FIRST);
    scene.fence(&daemon);
    assert_eq!(daemon.count(&opened), 0, "a replay");
    scene.knock(ROUTER, SECOND);
    daemon.await_count(&opened, 1);
}

/// The current sequence is no longer in the file, so it cannot be marked.
fn a_list_that_was_rewritten_does_not_log_an_opening() {
    let scene = Scene::new();
    scene.home.write("list", LIST);
    let daemon = start(&scene);
    scene.home.write("list", " 3001:udp,3002:tcp\n");
    scene.knock(ROUTER, FIRST);
    daemon.await_text("the sequence is not in the file");
    scene.fence(&daemon);
    assert_eq!(daemon.count(&lines::opened(CLIENT, "Once")), 0);
    assert_eq!(scene.home.read("seen"), "");
    assert_eq!(scene.home.read("list"), " 3001:udp,3002:tcp\n");
}

fn await_list(home: &Home, name: &str, text: &str) {
    wait_for("a marked line", || (home.read(name) == text).then_some(()));
}
