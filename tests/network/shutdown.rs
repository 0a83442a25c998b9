//! Open doors close, even if commands hang or are slow, and if the next daemon starts differently.

use crate::Test;
use crate::control::{json, refused};
use crate::lab::{CLIENT, Daemon, ROUTER, Scene, children, daemon_binary, wait_for};
use crate::lease::{STEPS, await_notes, door, notes, open, rules};
use crate::lines;
use crate::restart::{kill, start};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "endless_commands_do_not_keep_doors_open",
        endless_commands_do_not_keep_doors_open,
    ),
    ("blocked_signals_are_handled", blocked_signals_are_handled),
    (
        "term_ends_a_hanging_start_command",
        term_ends_a_hanging_start_command,
    ),
    (
        "term_lets_a_stop_command_that_runs_finish",
        term_lets_a_stop_command_that_runs_finish,
    ),
    (
        "a_stop_command_that_hangs_runs_at_the_next_start",
        a_stop_command_that_hangs_runs_at_the_next_start,
    ),
    (
        "the_daemon_outlives_its_listener",
        the_daemon_outlives_its_listener,
    ),
    ("more_stop_commands_than_time", more_stop_commands_than_time),
    (
        "another_spelling_of_the_config_is_the_same_daemon",
        another_spelling_of_the_config_is_the_same_daemon,
    ),
    (
        "a_start_that_fails_still_closes_doors",
        a_start_that_fails_still_closes_doors,
    ),
    (
        "another_state_dir_at_reload_is_taken",
        another_state_dir_at_reload_is_taken,
    ),
    (
        "the_shipped_example_works_as_it_is",
        the_shipped_example_works_as_it_is,
    ),
];

/// An upgrade overwrites the old program as soon as the daemon has ended.
fn the_daemon_outlives_its_listener() {
    let scene = Scene::new();
    let mut daemon = scene.daemon("[SSH]\nsequence = 7000,8000\ncommand = true\n");
    let listener = children(daemon.pid())[0];
    // A process has not ended until its tracer is notified, and this tracer is stopped.
    let mut tracer = Command::new("strace");
    tracer.args(["-o", "/dev/null", "-p", &listener.to_string()]);
    let mut tracer = Daemon::run(tracer);
    tracer.await_text("attached");
    tracer.signal(libc::SIGSTOP);
    daemon.signal(libc::SIGTERM);
    let wchan = format!("/proc/{}/wchan", daemon.pid());
    wait_for("a daemon that waits for its listener", || {
        (fs::read_to_string(&wchan).ok()? == "do_wait").then_some(())
    });
    assert!(daemon.is_alive());
    tracer.signal(libc::SIGCONT);
    assert_eq!(daemon.wait().code(), Some(15));
    assert!(!fs::exists(format!("/proc/{listener}")).unwrap());
    tracer.wait();
}

fn term_ends_a_hanging_start_command() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(
        "[SSH]\nsequence = 7000,8000:udp,9000\nstart_command = echo start >>@HOME@/notes; sleep 60\n\
         stop_command = echo stop >>@HOME@/notes\n",
    );
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 1);
    let begin = Instant::now();
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(notes(&scene, "stop"), 1);
}

/// It gets as long as one that starts at SIGTERM, which is longer than a running start command
/// gets.
fn term_lets_a_stop_command_that_runs_finish() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(
        "[SSH]\nsequence = 7000,8000:udp,9000\ncmd_timeout = 1\nstart_command = true\n\
         stop_command = echo begin >>@HOME@/notes; sleep 4; echo stop >>@HOME@/notes\n",
    );
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "begin", 1);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(notes(&scene, "stop"), 1, "{}", daemon.errors());
    assert_eq!(notes(&scene, "begin"), 1);
}

fn a_stop_command_that_hangs_runs_at_the_next_start() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(
        "[SSH]\nsequence = 7000,8000:udp,9000\nstart_command = echo start >>@HOME@/notes\ncmd_timeout = 600\n\
         stop_command = test -e @HOME@/mended && echo stop >>@HOME@/notes || sleep 60\n",
    );
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 1);
    daemon.await_text(&lines::running("SSH", ""));
    daemon.signal(libc::SIGTERM);
    // The usual deadline of the tests.
    assert_eq!(daemon.wait().code(), Some(15));
    daemon.await_text("its stop command did not end in time");
    assert_eq!(notes(&scene, "stop"), 0);
    scene.home.write("mended", "");
    let _daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    await_notes(&scene, "stop", 1);
}

/// 40 doors whose stop commands take 3 s, 16 at a time, need 9 s; 8 s are allowed. The next start
/// runs the remaining ones.
fn more_stop_commands_than_time() {
    const DOORS: usize = 40;
    let scene = Scene::new();
    let doors: String = (0..DOORS)
        .map(|number| {
            format!(
                "[D{number}]\nsequence = {}:udp\ncmd_timeout = 600\n\
                 start_command = touch @HOME@/open{number}\n\
                 stop_command = test -e @HOME@/fast || sleep 3; rm @HOME@/open{number}\n",
                20000 + number
            )
        })
        .collect();
    let mut daemon = scene.daemon(&doors);
    let steps: Vec<String> = (0..DOORS)
        .map(|number| format!("{}:udp", 20000 + number))
        .collect();
    scene.knock(
        ROUTER,
        &steps.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let opened = || {
        let names = fs::read_dir(scene.home.path("")).expect("directory");
        names
            .flatten()
            .filter(|name| name.file_name().to_string_lossy().starts_with("open"))
            .count()
    };
    wait_for("all doors open", || (opened() == DOORS).then_some(()));
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    let left = opened();
    assert!(
        (1..DOORS).contains(&left),
        "{left} of {DOORS} doors are left"
    );
    scene.home.write("fast", "");
    let _daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    wait_for("all doors shut", || (opened() == 0).then_some(()));
}

fn another_spelling_of_the_config_is_the_same_daemon() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    let start_by_link = || {
        let mut command = scene.router.command("sh");
        command.arg("-c").arg(format!(
            "cd {}; ln -sf knockd.conf link.conf; exec {} -v -i wan0 -c ./link.conf",
            scene.home.as_ref().display(),
            daemon_binary().display()
        ));
        Daemon::run(command)
    };
    let mut second = start_by_link();
    assert_eq!(second.wait().code(), Some(1));
    second.await_text("knockd already runs with ./link.conf");
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    drop(daemon);
    let mut third = start_by_link();
    third.await_text("1 open doors taken over");
    third.signal(libc::SIGTERM);
    third.wait();
    assert_eq!(rules(&scene), 0);
}

fn a_start_that_fails_still_closes_doors() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    drop(daemon);
    // It has no right to capture.
    let mut command = scene.router.command("setpriv");
    command
        .args(["--bounding-set", "-net_raw"])
        .arg(daemon_binary())
        .arg("-c")
        .arg(scene.home.path("knockd.conf"))
        .args(["-i", "wan0"]);
    let mut failing = Daemon::run(command);
    failing.await_text("could not open wan0: wan0: You don't have permission");
    assert_eq!(failing.wait().code(), Some(1));
    assert_eq!(rules(&scene), 0);
    assert_eq!(notes(&scene, "stop"), 1);
}

fn another_state_dir_at_reload_is_taken() {
    const REFUSED: &str = "keeping the old one";
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    let text = scene.home.read("knockd.conf");
    // Both paths lead to the same directory.
    symlink("state", scene.home.path("link")).expect("link");
    for (number, same) in (1..).zip(["./state//.", "link"]) {
        let changed = text.replace("/state\n", &format!("/{same}\n"));
        assert_ne!(text, changed);
        scene.home.write("knockd.conf", &changed);
        daemon.signal(libc::SIGHUP);
        daemon.await_count(lines::IN_FORCE, number);
        assert_eq!(daemon.count(REFUSED), 0, "{same}");
    }
    // Other users can write to this one.
    let exposed = scene.home.path("exposed");
    fs::create_dir(&exposed).expect("directory");
    fs::set_permissions(&exposed, Permissions::from_mode(0o777)).expect("mode");
    let change = |name: &str, reloads| {
        let changed = text.replace("/state\n", &format!("/{name}\n"));
        assert_ne!(text, changed);
        scene.home.write("knockd.conf", &changed);
        daemon.signal(libc::SIGHUP);
        daemon.await_count(lines::IN_FORCE, reloads);
    };
    change("exposed", 3);
    // On standard error, which is another pipe.
    daemon.await_text(REFUSED);
    let journal = scene.home.instance().join("journal");
    assert!(journal.exists());

    change("other", 4);
    assert_eq!(daemon.count(REFUSED), 1);
    assert!(!journal.exists(), "it is elsewhere now");
    // Any process with this config can find it.
    assert_eq!(json(&scene)["process"], daemon.pid());
    let second = refused(&scene, &["-i", "wan0"]);
    assert!(
        second.contains(&format!("process {}", daemon.pid())),
        "{second}"
    );
    kill(daemon);
    let mut daemon = start(&scene);
    daemon.await_text("1 open doors taken over");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(rules(&scene), 0);
}

/// The first example of the shipped config, changed only by removing the comment signs, on a router
/// whose INPUT chain ends in DROP.
fn the_shipped_example_works_as_it_is() {
    const SHIPPED: &str = include_str!("../../files/etc/knockd.conf");
    let example = SHIPPED.split("#[SSH]\n").nth(1).expect("the example");
    let example = example.split("\n\n").next().expect("its end");
    let door: String = example
        .lines()
        .map(|line| format!("{}\n", &line[1..]))
        .collect();
    let scene = Scene::new();
    let before = scene.rules();
    let mut daemon = scene.daemon(&format!("[SSH]\n{door}"));
    let nc = |address: &str| {
        let mut command = scene.wan.command("nc");
        command.args(["-z", "-w", "1", "-s", address, ROUTER, "22"]);
        command.status().expect("nc").success()
    };
    let _ssh = crate::lab::Banner::listen(&scene.router, &format!("{ROUTER}:22"));
    assert!(!nc(CLIENT));
    scene.knock(ROUTER, &["40217", "1893:udp", "22861", "7354:udp", "51926"]);
    daemon.await_text(&lines::running("SSH", "iptables -I INPUT"));
    wait_for("an open port", || nc(CLIENT).then_some(()));
    assert!(!nc(crate::lab::OTHER), "only for the address that knocked");
    daemon.signal(libc::SIGTERM);
    daemon.wait();
    assert_eq!(scene.rules(), before);
}

/// 40 commands that never end, of a door without a stop command.
fn endless_commands_do_not_keep_doors_open() {
    let scene = Scene::new();
    let daemon = scene.daemon(&format!(
        "{}\n[N]\nsequence = 1:udp\ncommand = sleep 600\n",
        door(2)
    ));
    scene.knock(ROUTER, &["1:udp"; 40]);
    daemon.await_count("N: OPEN SESAME", 40);
    open(&scene, &daemon);
    daemon.await_text(&lines::timeout(CLIENT, "SSH"));
    await_notes(&scene, "stop", 1);
}

fn blocked_signals_are_handled() {
    let scene = Scene::new();
    scene.home.config(&door(1));
    let mut command = scene
        .router
        .command(daemon_binary().to_str().expect("path"));
    command
        .args(["-v", "-i", "wan0", "-c"])
        .arg(scene.home.path("knockd.conf"));
    // SAFETY: sigfillset and sigprocmask are async-signal-safe, and the set is local.
    unsafe {
        command.pre_exec(|| {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
            Ok(())
        });
    }
    let mut daemon = Daemon::run(command);
    daemon.await_text(lines::LISTENING);
    open(&scene, &daemon);
    await_notes(&scene, "stop", 1);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
}
