//! Full, read-only and missing disks: each file that the daemon writes then costs one log line, and
//! the doors keep working.

use crate::Test;
use crate::lab::{
    CLIENT, Daemon, ROUTER, Scene, children, daemon_binary, instance_in, signal, wait_for,
};
use crate::lease::{STEPS, await_notes, door, notes, rules};
use crate::lines;
use knockd_rs::lease::journal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("the_journal_on_a_full_disk", the_journal_on_a_full_disk),
    (
        "the_journal_on_a_read_only_disk",
        the_journal_on_a_read_only_disk,
    ),
    ("a_missing_state_dir", a_missing_state_dir),
    (
        "a_state_dir_that_cannot_be_made",
        a_state_dir_that_cannot_be_made,
    ),
    ("the_log_file_on_a_full_disk", the_log_file_on_a_full_disk),
    (
        "a_log_file_that_cannot_be_opened",
        a_log_file_that_cannot_be_opened,
    ),
    (
        "a_pid_file_that_cannot_be_written",
        a_pid_file_that_cannot_be_written,
    ),
    (
        "a_one_time_list_that_cannot_be_marked",
        a_one_time_list_that_cannot_be_marked,
    ),
];

/// A small tmpfs in its own mount namespace, in which daemons are started.
struct Disk {
    holder: Daemon,
    path: PathBuf,
}

impl Disk {
    /// Mounts it on the directory `disk` of the scene's home.
    fn new(scene: &Scene) -> Disk {
        let path = scene.home.path("disk");
        std::fs::create_dir(&path).expect("directory");
        let mut command = scene.router.command("sh");
        command.arg("-ec").arg(format!(
            "mount -t tmpfs -o size=64k none {}; echo mounted; exec sleep 1000",
            path.display()
        ));
        let holder = Daemon::run(command);
        holder.await_text("mounted");
        Disk { holder, path }
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.holder.pid().to_string();
        command.args(["-t", &pid, "-m", "-n"]).arg(program.as_ref());
        command.stdin(Stdio::null());
        command
    }

    /// Runs shell lines in which `$D` is the disk.
    fn run(&self, script: &str) {
        let mut command = self.command("sh");
        let output = command
            .env("D", &self.path)
            .args(["-ec", script])
            .output()
            .expect("nsenter");
        assert!(output.status.success(), "{script}: {output:?}");
    }

    fn fill(&self) {
        self.run("cat /dev/zero >$D/fill 2>/dev/null || true; test -s $D/fill");
    }

    fn make_room(&self) {
        self.run("rm $D/fill");
    }

    /// Mounts a read-only view over the disk, because a disk with files open for writing cannot be
    /// remounted.
    fn make_read_only(&self) {
        self.run("mount --bind $D $D; mount -o remount,ro,bind $D; ! touch $D/x 2>/dev/null");
    }

    fn take_away(&self) {
        self.run("umount -l $D");
    }

    fn spawn(&self, scene: &Scene, args: &[&str]) -> Daemon {
        let mut command = self.command(daemon_binary());
        command.args(["-v", "-i", "wan0", "-c"]);
        command.arg(scene.home.path("knockd.conf")).args(args);
        Daemon::run(command)
    }

    fn start(&self, scene: &Scene) -> Daemon {
        let daemon = self.spawn(scene, &[]);
        daemon.await_text(lines::LISTENING);
        daemon
    }

    /// The path under which this process can open the file.
    fn file(&self, name: &str) -> PathBuf {
        let inside = self.path.strip_prefix("/").expect("absolute").join(name);
        PathBuf::from(format!("/proc/{}/root", self.holder.pid())).join(inside)
    }

    fn leases(&self) -> usize {
        let journal = instance_in(&self.file("state")).join("journal");
        let text = std::fs::read(journal).expect("journal");
        journal::decode(&text).expect("a journal").leases.len()
    }
}

const NO_JOURNAL: &str = "cannot write the journal";

/// Sleeps for longer than two retries.
fn let_it_try_again() {
    std::thread::sleep(Duration::from_millis(2500));
}

/// Knocks and waits until the door opens and, if it is a door for a short time, until it closes.
fn use_door(scene: &Scene, daemon: &Daemon) {
    let (starts, stops) = (notes(scene, "start"), notes(scene, "stop"));
    let timeout = lines::timeout(CLIENT, "SSH");
    let timeouts = daemon.count(&timeout);
    scene.knock(ROUTER, STEPS);
    await_notes(scene, "start", starts + 1);
    daemon.await_count(&timeout, timeouts + 1);
    await_notes(scene, "stop", stops + 1);
    assert_eq!(rules(scene), 0);
}

/// Writes a config with its StateDir on the disk.
fn config_on_disk(scene: &Scene, options: &str, doors: &str) {
    scene.home.config_with_options(options, doors);
    let text = scene.home.read("knockd.conf");
    let text = text.replace("/state\n", "/disk/state\n");
    scene.home.write("knockd.conf", &text);
}

const LONG: &str = "[Long]\nsequence = 4000:udp\nstart_command = echo long >>@HOME@/notes\ncmd_timeout = 600\n\
    stop_command = echo short >>@HOME@/notes\n";

fn the_journal_on_a_full_disk() {
    let scene = Scene::new();
    let disk = Disk::new(&scene);
    config_on_disk(&scene, "", &format!("{}{LONG}", door(1)));
    let daemon = disk.start(&scene);
    disk.fill();
    use_door(&scene, &daemon);
    scene.knock(ROUTER, &["4000:udp"]);
    await_notes(&scene, "long", 1);
    let_it_try_again();
    assert_eq!(daemon.count(NO_JOURNAL), 1, "not a line for each try");
    assert_eq!(daemon.errors().lines().count(), 1);
    assert!(
        daemon.errors().contains("No space left"),
        "{}",
        daemon.errors()
    );
    assert_eq!(disk.leases(), 0);
    // Once there is space again, the file is written without any other event.
    disk.make_room();
    daemon.await_text("the journal is writable again");
    assert_eq!(disk.leases(), 1);
    daemon.signal(libc::SIGKILL);
    { daemon }.wait();
    let mut daemon = disk.start(&scene);
    daemon.await_text("1 open doors taken over");
    daemon.signal(libc::SIGTERM);
    daemon.wait();
    assert_eq!(notes(&scene, "short"), 1);
}

fn the_journal_on_a_read_only_disk() {
    let scene = Scene::new();
    let disk = Disk::new(&scene);
    config_on_disk(&scene, "", &door(1));
    let daemon = disk.start(&scene);
    // A disk with a file open for writing becomes read-only only through an I/O error. The daemon
    // treats all errors alike.
    disk.run("cd $D/state/knockd.conf-*; mkdir journal.new");
    use_door(&scene, &daemon);
    use_door(&scene, &daemon);
    let_it_try_again();
    assert_eq!(daemon.count(NO_JOURNAL), 1);
    assert_eq!(daemon.errors().lines().count(), 1);
    assert!(
        daemon.errors().contains("Is a directory"),
        "{}",
        daemon.errors()
    );
    disk.run("cd $D/state/knockd.conf-*; rmdir journal.new");
    daemon.await_text("the journal is writable again");
    // A daemon that starts in this state reports what it cannot do, and works.
    daemon.signal(libc::SIGTERM);
    { daemon }.wait();
    disk.make_read_only();
    let daemon = disk.start(&scene);
    use_door(&scene, &daemon);
    assert_has_no_state(&daemon, "Read-only file system");
}

/// One line in total. It also covers the consequence that the listener has no empty directory to
/// chroot to.
fn assert_has_no_state(daemon: &Daemon, problem: &str) {
    let errors = daemon.errors();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    for text in [
        "cannot use StateDir",
        problem,
        "the listener can see the file system",
    ] {
        assert!(errors.contains(text), "{errors}");
    }
}

/// The listener must be able to restart as well.
fn a_missing_state_dir() {
    let scene = Scene::new();
    let disk = Disk::new(&scene);
    config_on_disk(&scene, "", &door(1));
    let daemon = disk.start(&scene);
    disk.take_away();
    use_door(&scene, &daemon);
    let old = children(daemon.pid());
    signal(old[0], libc::SIGKILL);
    wait_for("another listener", || {
        let new = children(daemon.pid());
        (new.len() == 1 && new != old).then_some(())
    });
    crate::lab::knock_until(&daemon, &lines::opened(CLIENT, "SSH"), || {
        scene.knock(ROUTER, STEPS);
    });
    daemon.signal(libc::SIGHUP);
    daemon.await_text(lines::IN_FORCE);
    wait_for("a shut door", || (rules(&scene) == 0).then_some(()));
    let stops = notes(&scene, "stop");
    daemon.await_count(&lines::timeout(CLIENT, "SSH"), stops);
    use_door(&scene, &daemon);
    let_it_try_again();
    assert_eq!(daemon.count(NO_JOURNAL), 1);
    // The directory is created again where the disk was.
    assert_eq!(daemon.count("directory was removed or moved"), 1);
    assert_eq!(daemon.count("the journal is writable again"), 1);
}

fn a_state_dir_that_cannot_be_made() {
    for (make, problem) in [
        ("mount -o remount,ro $D", "Read-only file system"),
        ("touch $D/state", "Not a directory"),
        (
            "mount -o remount,nr_inodes=1 $D || true; while touch $D/$((n=n+1)) 2>/dev/null; do :; done",
            "No space left on device",
        ),
    ] {
        let scene = Scene::new();
        let disk = Disk::new(&scene);
        disk.run(make);
        config_on_disk(&scene, "", &door(1));
        let daemon = disk.start(&scene);
        use_door(&scene, &daemon);
        let_it_try_again();
        assert_has_no_state(&daemon, problem);
    }
}

fn the_log_file_on_a_full_disk() {
    let scene = Scene::new();
    let disk = Disk::new(&scene);
    let log = format!("LogFile = {}", disk.path.join("log").display());
    scene.home.config_with_options(&log, &door(1));
    let daemon = disk.start(&scene);
    disk.fill();
    // The last page of the log still has some space.
    for _ in 0..120 {
        scene.fence(&daemon);
    }
    wait_for("the line", || {
        (daemon.count("cannot write the log file") > 0).then_some(())
    });
    use_door(&scene, &daemon);
    assert_eq!(
        daemon.count("cannot write the log file: No space left on device"),
        1
    );
    assert_eq!(daemon.errors().lines().count(), 1);
    disk.make_room();
    scene.fence(&daemon);
    use_door(&scene, &daemon);
    let text = std::fs::read_to_string(disk.file("log")).expect("log");
    // The lines in the file plus the dropped lines are all lines that were printed. The start is
    // not printed.
    let lost: usize = text
        .lines()
        .filter_map(|line| line.split_once("log file: ")?.1.strip_suffix(" lines lost"))
        .map(|number| number.parse::<usize>().expect("a number"))
        .sum();
    assert!(lost >= 5, "{lost}: {text}");
    let whole = |line: &&str| line.starts_with('[') && line.get(17..19) == Some("] ");
    let opened = daemon.count("OPEN SESAME");
    let kept = text
        .lines()
        .filter(|line| line.contains("OPEN SESAME"))
        .count();
    assert!(kept < opened && kept > 2, "{kept} of {opened}");
    assert!(text.lines().all(|line| whole(&line)), "{text}");
    let counts = text.lines().filter(|line| line.contains("log file: "));
    for line in counts {
        assert!(line[19..].starts_with("log file: "), "{line}");
    }
    assert!(text.ends_with('\n'));
}

fn a_log_file_that_cannot_be_opened() {
    for (make, problem) in [
        ("mount -o remount,ro $D", "Read-only file system"),
        ("umount $D; rmdir $D", "No such file or directory"),
    ] {
        let scene = Scene::new();
        let disk = Disk::new(&scene);
        disk.run(make);
        let log = disk.path.join("log").display().to_string();
        scene
            .home
            .config_with_options(&format!("LogFile = {log}"), &door(1));
        let daemon = disk.start(&scene);
        use_door(&scene, &daemon);
        let line = format!("warning: cannot open logfile: {log}: {problem}");
        assert_eq!(daemon.errors(), line);
        daemon.signal(libc::SIGHUP);
        daemon.await_text(lines::IN_FORCE);
        use_door(&scene, &daemon);
        assert_eq!(daemon.errors(), format!("{line}\n{line}"));
    }
}

fn a_pid_file_that_cannot_be_written() {
    for (make, problem) in [
        (
            "cat /dev/zero >$D/fill 2>/dev/null || true",
            "No space left on device",
        ),
        ("mount -o remount,ro $D", "Read-only file system"),
        ("umount $D; rmdir $D", "No such file or directory"),
    ] {
        let scene = Scene::new();
        let disk = Disk::new(&scene);
        disk.run(make);
        let pid_file = disk.path.join("pid").display().to_string();
        let options = format!(
            "PidFile = {pid_file}\nLogFile = {}",
            scene.home.path("log").display()
        );
        scene.home.config_with_options(&options, &door(1));
        let mut starting = disk.spawn(&scene, &["-d"]);
        assert_eq!(starting.wait().code(), Some(0));
        let line = format!("could not create pid file {pid_file}: {problem}");
        wait_for("the line", || (starting.errors() == line).then_some(()));
        assert!(!disk.file("pid").exists(), "{problem}");
        scene.knock(ROUTER, STEPS);
        await_notes(&scene, "start", 1);
        await_notes(&scene, "stop", 1);
        assert_eq!(scene.home.read("log").matches("pid file").count(), 1);
    }
}

/// Read-only, missing and full. On an overlay whose upper layer is full, even opening the list for
/// writing needs space.
fn a_one_time_list_that_cannot_be_marked() {
    for (make, problem) in [
        ("mount --bind $D $D; mount -o remount,ro,bind $D", "Read-only file system"),
        ("rm $D/list", "No such file or directory"),
        (
            "mkdir $D/up $D/work; cat /dev/zero >$D/fill 2>/dev/null || true; mkdir $D/low $D/over; cp $D/list $D/low/list 2>/dev/null || true
             mount -t tmpfs none $D/low; cp $D/list $D/low/list
             mount -t overlay -o lowerdir=$D/low,upperdir=$D/up,workdir=$D/work none $D/over; mount --bind $D/over $D",
            "No space left on device",
        ),
    ] {
        let scene = Scene::new();
        let disk = Disk::new(&scene);
        std::fs::write(disk.file("list"), "1001:udp,1002:udp\n2001:udp,2002:udp\n").expect("list");
        scene.home.config(&format!(
            "[Once]\none_time_sequences = {}\ncommand = echo once >>@HOME@/notes\n{}",
            disk.path.join("list").display(),
            door(1)
        ));
        let daemon = disk.start(&scene);
        disk.run(make);
        scene.knock(ROUTER, &["1001:udp", "1002:udp"]);
        daemon.await_text("--> disabling the door");
        // Neither this sequence nor the next one opens any more. Other doors do.
        scene.knock(ROUTER, &["1001:udp", "1002:udp", "2001:udp", "2002:udp"]);
        use_door(&scene, &daemon);
        assert_eq!(notes(&scene, "once"), 0, "{problem}");
        let errors = daemon.errors();
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains(problem), "{errors}");
    }
}
