//! The journal, and what a killed daemon leaves to the next one.

use crate::Test;
use crate::lab::{CLIENT, Daemon, ROUTER, Scene, children, packet, signal, wait_for};
use crate::lease::{STEPS, await_notes, door, notes, open, rules};
use crate::lines;
use knockd_rs::lease::journal::{self, Journal};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    (
        "the_journal_is_written_before_each_command",
        the_journal_is_written_before_each_command,
    ),
    (
        "the_keeper_writes_the_journal_before_it_releases_the_command",
        the_keeper_writes_the_journal_before_it_releases_the_command,
    ),
    (
        "expired_doors_close_before_anything_else",
        expired_doors_close_before_anything_else,
    ),
    (
        "a_start_without_a_config_still_closes_doors",
        a_start_without_a_config_still_closes_doors,
    ),
    (
        "a_lease_keeps_its_deadline_through_a_kill",
        a_lease_keeps_its_deadline_through_a_kill,
    ),
    (
        "nothing_is_run_in_another_namespace_or_boot",
        nothing_is_run_in_another_namespace_or_boot,
    ),
    (
        "a_corrupt_journal_is_used_up_to_the_damage",
        a_corrupt_journal_is_used_up_to_the_damage,
    ),
    (
        "a_journal_that_is_not_ours_is_not_used",
        a_journal_that_is_not_ours_is_not_used,
    ),
    (
        "a_takeover_kills_no_foreign_processes",
        a_takeover_kills_no_foreign_processes,
    ),
];

/// The path of the instance's journal.
fn journal_path(scene: &Scene) -> PathBuf {
    scene.home.instance().join("journal")
}

pub fn read_journal(scene: &Scene) -> Journal {
    let text = fs::read(journal_path(scene)).expect("journal");
    journal::decode(&text).expect("a journal")
}

fn write_journal(scene: &Scene, journal: &Journal) {
    let text = journal::encode(&journal.place, journal.leases.iter());
    fs::write(journal_path(scene), text).expect("journal");
}

pub fn kill(mut daemon: Daemon) {
    daemon.signal(libc::SIGKILL);
    daemon.wait();
}

pub fn start(scene: &Scene) -> Daemon {
    Daemon::start(&scene.router, &scene.home, &["-i", "wan0"])
}

/// Part of each log line about it.
const JOURNAL_LINE: &str = "/journal: ";

fn said_of_the_journal(daemon: &Daemon) -> usize {
    daemon.count(JOURNAL_LINE)
}

fn the_journal_is_written_before_each_command() {
    let scene = Scene::new();
    let _daemon = scene.daemon(
        "[SSH]
         sequence = 7000,8000:udp,9000
         start_command = echo $$ >@HOME@/start; cp @HOME@/state/knockd.conf-*/journal @HOME@/at_start
         cmd_timeout = 1
         stop_command = echo $$ >@HOME@/stop; cp @HOME@/state/knockd.conf-*/journal @HOME@/at_stop; touch @HOME@/done\n",
    );
    scene.knock(ROUTER, STEPS);
    wait_for("the stop command", || {
        scene.home.path("done").exists().then_some(())
    });
    for (name, phase) in [("start", "starting"), ("stop", "stopping")] {
        let text = scene.home.read(&format!("at_{name}"));
        let head = format!(
            "lease {CLIENT} {phase} 0 1000 {} ",
            scene.home.read(name).trim()
        );
        assert!(text.contains(&head), "{head:?} in {text}");
    }
    wait_for("an empty journal", || {
        read_journal(&scene).leases.is_empty().then_some(())
    });
}

/// The same observed from outside, by the order of the keeper's system calls, because a command
/// could outrun the journal. A forked command waits for a byte in a pipe.
fn the_keeper_writes_the_journal_before_it_releases_the_command() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(1));
    let trace = scene.home.path("trace");
    let mut command = std::process::Command::new("strace");
    command.args(["-e", "trace=pipe2,rename,renameat,renameat2,write", "-p"]);
    command.arg(daemon.pid().to_string()).arg("-o").arg(&trace);
    let mut strace = Daemon::run(command);
    strace.await_text("attached");
    open(&scene, &daemon);
    await_notes(&scene, "stop", 1);
    wait_for("an empty journal", || {
        read_journal(&scene).leases.is_empty().then_some(())
    });
    strace.signal(libc::SIGINT);
    strace.wait();
    let (mut gate, mut in_journal, mut let_go) = (String::new(), false, 0);
    for line in scene.home.read("trace").lines() {
        if line.starts_with("pipe2([") {
            // `pipe2([3, 4], O_CLOEXEC) = 0`
            let descriptors = line.split(']').next().unwrap_or_default();
            gate = descriptors.split(", ").nth(1).expect("two").to_string();
            in_journal = false;
        } else if line.starts_with("rename") && line.contains("/journal\")") {
            in_journal = true;
        } else if line.starts_with(&format!("write({gate}, \"!\", 1)")) {
            assert!(in_journal, "{}", scene.home.read("trace"));
            let_go += 1;
        }
    }
    assert_eq!(let_go, 2, "{}", scene.home.read("trace"));
}

/// Waits until the journal contains an open lease, as a daemon killed now would leave it.
pub fn await_open_lease(scene: &Scene) {
    wait_for("an open lease in the journal", || {
        let open = fs::read_to_string(journal_path(scene)).unwrap();
        open.contains(" open ").then_some(())
    });
}

/// The stop command of an expired lease notes how many children the keeper has. It must be the only
/// one.
fn expired_doors_close_before_anything_else() {
    let scene = Scene::new();
    let daemon = scene.daemon(
        "[SSH]
         sequence = 7000,8000:udp,9000
         start_command = echo start >>@HOME@/notes
         cmd_timeout = 1
         stop_command = sleep 0.3; wc -w </proc/$PPID/task/$PPID/children >@HOME@/children; echo stop >>@HOME@/notes\n",
    );
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 1);
    await_open_lease(&scene);
    kill(daemon);
    // Let the lease expire.
    std::thread::sleep(Duration::from_millis(1100));
    let daemon = start(&scene);
    assert_eq!(
        notes(&scene, "stop"),
        1,
        "when it listens, the door is shut"
    );
    assert_eq!(scene.home.read("children"), "1\n");
    let output = daemon.output();
    let place = |text: &str| output.iter().position(|line| line.contains(text));
    let timeout = place(&lines::timeout(CLIENT, "SSH"));
    assert!(
        timeout.is_some() && timeout < place(lines::LISTENING),
        "{output:?}"
    );
    // A restart with nothing to close starts its listener at once.
    wait_for("the listener", || {
        (children(daemon.pid()).len() == 1).then_some(())
    });
}

/// Whatever the reason for the failed start, and even with a lease that has not expired.
fn a_start_without_a_config_still_closes_doors() {
    type Spoil = fn(&Scene);
    let faults: [(&str, Spoil); 3] = [
        ("unknown key 'nonsense'", |scene| {
            let text = scene.home.read("knockd.conf");
            scene
                .home
                .write("knockd.conf", &format!("{text}nonsense = 1\n"));
        }),
        ("no more sequences left", |scene| {
            let text = scene.home.read("knockd.conf");
            let list = scene.home.write("list", "#1,2\n");
            let door = format!("[once]\none_time_sequences = {}\n", list.display());
            scene.home.write("knockd.conf", &format!("{text}{door}"));
        }),
        ("no such interface name", |scene| {
            let text = scene.home.read("knockd.conf");
            let text = text.replace(
                "[options]\n",
                "[options]\nInterface = no such interface name\n",
            );
            scene.home.write("knockd.conf", &text);
        }),
    ];
    for (problem, spoil) in faults {
        let scene = Scene::new();
        let daemon = scene.daemon(&door(600));
        open(&scene, &daemon);
        spoil(&scene);
        // The doors of a running daemon remain its own.
        let mut second = Daemon::spawn(&scene.router, &scene.home, &[]);
        assert_eq!(second.wait().code(), Some(1));
        assert_eq!(notes(&scene, "stop"), 0);
        kill(daemon);
        let mut failing = Daemon::spawn(&scene.router, &scene.home, &[]);
        assert_eq!(failing.wait().code(), Some(1));
        failing.await_text(problem);
        assert_eq!((rules(&scene), notes(&scene, "stop")), (0, 1), "{problem}");
    }
    // Without a journal, nothing is created.
    let scene = Scene::new();
    scene.home.config("nonsense");
    let mut failing = Daemon::spawn(&scene.router, &scene.home, &[]);
    assert_eq!(failing.wait().code(), Some(1));
    assert!(!scene.home.path("state").exists());
}

/// A shell command that notes the uptime in seconds.
const NOTE_TIME: &str = "cut -d' ' -f1 /proc/uptime";

fn a_lease_keeps_its_deadline_through_a_kill() {
    const SECONDS: u64 = 4;
    let scene = Scene::new();
    let daemon = scene.daemon(&format!(
        "[SSH]
         sequence = 7000,8000:udp,9000
         start_command = {NOTE_TIME} >@HOME@/started; echo start >>@HOME@/notes
         cmd_timeout = {SECONDS}
         stop_command = {NOTE_TIME} >@HOME@/stopped; echo stop >>@HOME@/notes\n"
    ));
    scene.knock(ROUTER, STEPS);
    await_notes(&scene, "start", 1);
    await_open_lease(&scene);
    kill(daemon);
    // Part of the lease.
    std::thread::sleep(Duration::from_millis(1500));
    let daemon = start(&scene);
    daemon.await_text("1 open doors taken over");
    await_notes(&scene, "stop", 1);
    let at = |name: &str| -> f64 { scene.home.read(name).trim().parse().expect("uptime") };
    let lasted = at("stopped") - at("started");
    // A new deadline would be 1.5 s later.
    let right = SECONDS as f64..SECONDS as f64 + 1.4;
    assert!(right.contains(&(lasted + 0.02)), "{lasted} s");
    assert_eq!(notes(&scene, "start"), 1);
}

fn nothing_is_run_in_another_namespace_or_boot() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    kill(daemon);
    let kept = read_journal(&scene);
    let has_one_line = |daemon: &Daemon| {
        scene.home.config(&door(600));
        assert_eq!(said_of_the_journal(daemon), 1);
        assert_eq!(daemon.count("from another boot or network namespace"), 1);
        assert_eq!(daemon.count("ignored, with 1 open doors"), 1);
        assert_eq!(daemon.errors(), "");
    };

    scene
        .wan
        .run("ip link add wan0 type veth peer name far0; ip link set wan0 up");
    let elsewhere = Daemon::start(&scene.wan, &scene.home, &["-i", "wan0"]);
    has_one_line(&elsewhere);
    elsewhere.signal(libc::SIGTERM);
    { elsewhere }.wait();
    assert_eq!((rules(&scene), notes(&scene, "stop")), (1, 0));

    let mut other_boot = kept.clone();
    other_boot.place.boot = "00000000-0000-0000-0000-000000000000".to_string();
    write_journal(&scene, &other_boot);
    let daemon = start(&scene);
    has_one_line(&daemon);
    scene.fence(&daemon);
    assert!(read_journal(&scene).leases.is_empty());
    kill(daemon);
    assert_eq!((rules(&scene), notes(&scene, "stop")), (1, 0));

    // No line if no door was open, and none for a journal of this boot.
    other_boot.leases.clear();
    write_journal(&scene, &other_boot);
    let daemon = start(&scene);
    assert_eq!(said_of_the_journal(&daemon), 0);
    kill(daemon);
    write_journal(&scene, &kept);
    let daemon = start(&scene);
    assert_eq!(said_of_the_journal(&daemon), 0);
    daemon.signal(libc::SIGTERM);
    { daemon }.wait();
    assert_eq!((rules(&scene), notes(&scene, "stop")), (0, 1));
}

/// Three leases. The byte at `spoil` in the journal's text is changed, or the text is cut there.
fn a_corrupt_journal_is_used_up_to_the_damage() {
    let scene = Scene::new();
    let daemon = scene.daemon(
        "[SSH]
         sequence = 7000:udp
         start_command = echo start >>@HOME@/notes
         cmd_timeout = 600
         stop_command = echo stop%IP% >>@HOME@/notes\n",
    );
    for source in ["10.1.0.1", "10.1.0.2", "10.1.0.3"] {
        scene.wire.send(&packet::udp(source, ROUTER, 7000));
        daemon.await_text(&lines::opened(source, "SSH"));
    }
    await_notes(&scene, "start", 3);
    wait_for("three open leases in the journal", || {
        let text = fs::read_to_string(journal_path(&scene)).unwrap();
        (text.matches(" open ").count() == 3).then_some(())
    });
    kill(daemon);
    let sound = fs::read(journal_path(&scene)).expect("journal");
    let place_of = |text: &str| {
        let at = sound.windows(text.len()).position(|w| w == text.as_bytes());
        at.unwrap_or_else(|| panic!("{text}"))
    };
    let changed = |place: usize, with: &[u8]| {
        let mut text = sound.clone();
        text[place..place + with.len()].copy_from_slice(with);
        text
    };
    let second_stop = place_of("echo stop10.1.0.2");
    let noise: Vec<u8> = (0..4000u32).map(|n| (n * n / 7 % 251) as u8).collect();
    for (what, text, closed) in [
        (
            "the last line is missing",
            sound[..sound.len() - 4].to_vec(),
            3,
        ),
        (
            "cut in the third lease",
            sound[..place_of("10.1.0.3") + 20].to_vec(),
            2,
        ),
        ("another command", changed(second_stop, b"echo evil"), 1),
        (
            "noise in the second",
            changed(second_stop - 30, &noise[..60]),
            1,
        ),
        ("noise after it", [&sound[..], &noise].concat(), 3),
        ("noise", noise.clone(), 0),
        ("empty", Vec::new(), 0),
        (
            "another boot, by a changed byte",
            changed(place_of("boot ") + 5, b"?"),
            0,
        ),
        ("a later version", changed(0, b"knockd-rs journal 9"), 0),
    ] {
        fs::write(journal_path(&scene), &text).expect("write");
        scene.home.write("notes", "");
        let mut daemon = start(&scene);
        daemon.await_text(JOURNAL_LINE);
        assert_eq!(said_of_the_journal(&daemon), 1, "{what}");
        assert_eq!(daemon.errors().lines().count(), 1, "{what}");
        let aside = journal_path(&scene).with_extension("broken");
        assert_eq!(fs::read(aside).expect("journal.broken"), text, "{what}");
        daemon.signal(libc::SIGTERM);
        daemon.wait();
        let mut notes: Vec<String> = scene.home.read("notes").lines().map(String::from).collect();
        notes.sort();
        let right: Vec<String> = (1..=closed).map(|n| format!("stop10.1.0.{n}")).collect();
        assert_eq!(notes, right, "{what}");
    }
}

fn a_journal_that_is_not_ours_is_not_used() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    kill(daemon);
    let path = journal_path(&scene);
    let sound = fs::read(&path).expect("journal");
    type Make<'a> = &'a dyn Fn();
    let cases: [(&str, Make<'_>); 5] = [
        ("belongs to another user", &|| {
            fs::write(&path, &sound).unwrap();
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        }),
        ("others can write to it", &|| {
            fs::write(&path, &sound).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        }),
        ("Too many levels of symbolic links", &|| {
            let other = scene.home.path("other");
            fs::write(&other, &sound).unwrap();
            std::os::unix::fs::symlink(&other, &path).unwrap();
        }),
        ("not a file", &|| {
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.unwrap().success());
        }),
        ("not a file", &|| fs::create_dir(&path).unwrap()),
    ];
    for (fault, make) in cases {
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(path.with_extension("broken"));
        make();
        let daemon = start(&scene);
        daemon.await_text(JOURNAL_LINE);
        assert_eq!(said_of_the_journal(&daemon), 1, "{fault}");
        assert_eq!(daemon.errors().lines().count(), 1, "{fault}");
        assert!(daemon.errors().contains(fault), "{}", daemon.errors());
        assert_eq!(rules(&scene), 1, "{fault}");
        // A new journal has replaced it.
        let found = fs::symlink_metadata(&path).expect("journal");
        assert!(found.is_file(), "{fault}");
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o600, 0), "{fault}");
        kill(daemon);
    }
    assert_eq!(notes(&scene, "stop"), 0);
}

/// The leader of a command's process group has exited, and its PID now belongs to a foreign group,
/// whose leader has also exited: that of a daemon that puts itself into the background.
fn a_takeover_kills_no_foreign_processes() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    kill(daemon);
    let output = scene
        .router
        .run("setsid sh -c 'echo $$; sleep 100 > /dev/null 2>&1 & echo $!'");
    let pids: Vec<u32> = output
        .lines()
        .map(|line| line.parse().expect("pid"))
        .collect();
    let [leader, stranger] = pids[..] else {
        panic!("{output}");
    };
    wait_for("the end of the leader", || {
        (!fs::exists(format!("/proc/{leader}")).expect("/proc")).then_some(())
    });
    let mut journal = read_journal(&scene);
    journal.leases[0].running = Some(knockd_rs::util::process::ProcessGroup {
        leader: knockd_rs::util::process::Pid(leader as i32),
        started: 1,
    });
    write_journal(&scene, &journal);
    let daemon = start(&scene);
    daemon.await_text("1 open doors taken over");
    scene.fence(&daemon);
    let stat = fs::read_to_string(format!("/proc/{stranger}/stat")).unwrap_or_default();
    signal(stranger, libc::SIGKILL);
    assert!(
        stat.contains("(sleep) S "),
        "the stranger was killed: {stat:?}"
    );
}
