//! Which files knockd creates and uses: private ones, and never a file planted by another user.

use crate::Test;
use crate::lab::{CLIENT, Daemon, ROUTER, Scene, daemon_binary, knock_until, signal, wait_for};
use crate::lease::{STEPS, await_notes, notes};
use crate::lines;
use crate::rights::USER;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Command, Output};

pub const TESTS: &[Test] = &[
    ("files_are_private", files_are_private),
    ("links_of_others_are_refused", links_of_others_are_refused),
    ("files_of_others_are_refused", files_of_others_are_refused),
    (
        "a_config_that_others_can_write_is_warned_of",
        a_config_that_others_can_write_is_warned_of,
    ),
    (
        "a_list_that_becomes_a_link_is_refused",
        a_list_that_becomes_a_link_is_refused,
    ),
    (
        "a_state_directory_of_others_is_refused",
        a_state_directory_of_others_is_refused,
    ),
    (
        "a_null_device_as_pid_file_stays",
        a_null_device_as_pid_file_stays,
    ),
    (
        "a_full_device_as_pid_file_stays",
        a_full_device_as_pid_file_stays,
    ),
];

/// Starts it in the background with this umask. Returns its terminal output.
fn background(scene: &Scene, umask: &str, args: &[&Path]) -> Output {
    let mut command: Command = scene.router.command("sh");
    command
        .args(["-c", "umask $0; exec \"$@\"", umask])
        .arg(daemon_binary())
        .args(["-d", "-i", "wan0", "-c"])
        .arg(scene.home.path("knockd.conf"))
        .args(args);
    command.output().expect("knockd -d")
}

/// Ends the daemon that [`background`] started with the log `log`, and waits until the log says so.
fn end_of_scene(scene: &Scene) {
    let output = Command::new("ip")
        .args(["netns", "pids", scene.router.name()])
        .output();
    let output = output.expect("ip netns pids");
    for pid in String::from_utf8_lossy(&output.stdout).lines() {
        signal(pid.trim().parse().expect("pid"), libc::SIGTERM);
    }
    wait_for("the end of the daemon", || {
        scene
            .home
            .read("log")
            .contains("shutting down")
            .then_some(())
    });
}

fn files_are_private() {
    for umask in ["000", "077"] {
        let scene = Scene::new();
        let config = scene.home.config(
            "[A]
             sequence = 7000,8000:udp,9000
             start_command = echo start >> @HOME@/notes
             cmd_timeout = 600
             stop_command = echo stop >> @HOME@/notes\n",
        );
        let [log, pid] = ["log", "pid"].map(|name| scene.home.path(name));
        let output = background(
            &scene,
            umask,
            &[Path::new("-g"), &log, Path::new("-p"), &pid],
        );
        assert!(output.status.success(), "{output:?}");
        scene.knock(ROUTER, STEPS);
        await_notes(&scene, "start", 1);
        let state = scene.home.path("state");
        let instance = scene.home.instance();
        for (path, mode) in [
            (&log, 0o600),
            (&pid, 0o644),
            (&state, 0o700),
            (&state.join("empty"), 0o700),
            (&instance, 0o700),
            (&instance.join("journal"), 0o600),
            (&instance.join("lock"), 0o600),
        ] {
            let found = fs::metadata(path).expect("file").mode() & 0o7777;
            assert_eq!(found, mode, "{} is {found:o}", path.display());
        }
        let number = fs::read_to_string(&pid).expect("pid file");
        assert!(Path::new(&format!("/proc/{}", number.trim())).exists());
        end_of_scene(&scene);
        wait_for("the end of the pid file", || (!pid.exists()).then_some(()));
        assert_eq!(notes(&scene, "stop"), 1, "{}", config.display());
    }
}

/// A world-writable directory like /tmp.
fn world_writable_directory(scene: &Scene) -> std::path::PathBuf {
    let open = scene.home.path("open");
    fs::create_dir(&open).expect("directory");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("chmod");
    open
}

/// Makes a link owned by another user.
fn plant_link(target: &Path, link: &Path) {
    symlink(target, link).expect("link");
    lchown(link, Some(USER), Some(USER)).expect("lchown");
}

fn files_of_others_are_refused() {
    let scene = Scene::new();
    let open = world_writable_directory(&scene);
    let [pid, log, list] = ["pid", "log", "list"].map(|name| {
        let path = open.join(name);
        fs::write(&path, "7000:udp\n").expect("file");
        chown(&path, Some(USER), Some(USER)).expect("chown");
        path
    });
    scene.home.config("");
    let own_log = scene.home.path("log");
    let (g, p) = (Path::new("-g"), Path::new("-p"));
    let output = background(&scene, "022", &[g, &own_log, p, &pid]);
    assert!(output.status.success(), "{output:?}");
    let refusal = |path: &Path| {
        let path = path.display();
        format!("{path}: refused: owned by another user, in a directory that others can write to")
    };
    // If fs.protected_regular is set, the kernel refuses first.
    let is_refused = |text: &str, path: &Path| {
        let by_kernel = format!("{}: Permission denied", path.display());
        text.contains(&refusal(path)) || text.contains(&by_kernel)
    };
    assert!(is_refused(&scene.home.read("log"), &pid));
    end_of_scene(&scene);
    assert_eq!(fs::read_to_string(&pid).expect("pid"), "7000:udp\n");

    let args = ["-i", "wan0", "-g", log.to_str().expect("path")];
    let daemon = Daemon::start(&scene.router, &scene.home, &args);
    wait_for("a refusal of the log file", || {
        is_refused(&daemon.errors(), &log).then_some(())
    });
    scene.fence(&daemon);
    drop(daemon);
    assert_eq!(fs::read_to_string(&log).expect("log"), "7000:udp\n");

    // A one-time list grants access, so no other user may be able to write to it, wherever it is.
    let own = scene.home.write("list", "7000:udp\n");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o660)).expect("chmod");
    for (list, text) in [
        (&list, refusal(&list)),
        (&own, "others own it or can write to it".to_string()),
    ] {
        let door = format!("[A]\none_time_sequences = {}\n", list.display());
        scene.home.config(&door);
        let mut daemon = Daemon::spawn(&scene.router, &scene.home, &["-i", "wan0"]);
        assert_eq!(daemon.wait().code(), Some(1));
        daemon.await_text(&text);
    }
}

fn a_config_that_others_can_write_is_warned_of() {
    let scene = Scene::new();
    let config = scene.home.config("");
    let warning = "others can write this file, and its commands run as root";
    let set_mode = |mode| {
        fs::set_permissions(&config, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    set_mode(0o666);
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
    daemon.await_count(warning, 1);
    daemon.signal(libc::SIGHUP);
    daemon.await_count(lines::IN_FORCE, 1);
    daemon.await_count(warning, 2);
    set_mode(0o644);
    daemon.signal(libc::SIGHUP);
    daemon.await_count(lines::IN_FORCE, 2);
    chown(&config, Some(USER), None).expect("chown");
    daemon.signal(libc::SIGHUP);
    daemon.await_text(&format!("user {USER} owns this file"));
    assert_eq!(daemon.errors().matches(warning).count(), 2);
}

fn links_of_others_are_refused() {
    let scene = Scene::new();
    let open = world_writable_directory(&scene);
    let target = scene.home.write("target", "precious\n");
    let link = open.join("link");
    plant_link(&target, &link);
    let log = scene.home.path("log");
    scene.home.config("");

    // The error about the pid file is in the log, and the daemon runs.
    let output = background(
        &scene,
        "022",
        &[Path::new("-g"), &log, Path::new("-p"), &link],
    );
    assert!(output.status.success(), "{output:?}");
    let refusal = "refused: its path has a symbolic link in a directory that others can write to";
    let line = format!("could not create pid file {}: {refusal}", link.display());
    assert_eq!(scene.home.read("log").matches(&line).count(), 1);
    scene.knock(ROUTER, &["9:udp"]);
    wait_for("an opening", || {
        scene
            .home
            .read("log")
            .contains("fence: OPEN SESAME")
            .then_some(())
    });
    end_of_scene(&scene);

    // The log file.
    let daemon = Daemon::start(
        &scene.router,
        &scene.home,
        &["-i", "wan0", "-g", link.to_str().unwrap()],
    );
    let line = format!(
        "warning: cannot open logfile: {}: {refusal}",
        link.display()
    );
    daemon.await_text(&line);
    scene.fence(&daemon);
    assert_eq!(daemon.errors().lines().count(), 1);
    drop(daemon);

    // The one-time list is treated like any list that cannot be used.
    scene
        .home
        .config(&format!("[A]\none_time_sequences = {}\n", link.display()));
    let mut daemon = Daemon::spawn(&scene.router, &scene.home, &["-i", "wan0"]);
    assert_eq!(daemon.wait().code(), Some(1));
    daemon.await_text(refusal);
    assert_eq!(scene.home.read("target"), "precious\n");
    assert!(link.is_symlink());
}

fn a_list_that_becomes_a_link_is_refused() {
    let scene = Scene::new();
    let list = world_writable_directory(&scene).join("list");
    fs::write(&list, "1:udp,2:udp\n3:udp,4:udp\n").expect("list");
    let daemon = scene.daemon(&format!(
        "[A]\none_time_sequences = {}\ncommand = echo opened >> @HOME@/notes\n",
        list.display()
    ));
    let moved = scene.home.path("moved");
    fs::rename(&list, &moved).expect("rename");
    plant_link(&moved, &list);
    scene.knock(ROUTER, &["1:udp", "2:udp"]);
    daemon.await_text("--> disabling the door");
    scene.fence(&daemon);
    let errors = daemon.errors();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.contains("has a symbolic link in a directory that others"),
        "{errors}"
    );
    assert_eq!(scene.home.read("notes"), "", "it opened");
    assert_eq!(scene.home.read("moved"), "1:udp,2:udp\n3:udp,4:udp\n");
}

/// The service continues without it.
fn a_state_directory_of_others_is_refused() {
    /// Creates the directory.
    type Make = fn(&Path);
    let cases: [(&str, &str, Make); 4] = [
        ("another user's", "belongs to another user", |path| {
            fs::create_dir(path).expect("directory");
            chown(path, Some(USER), None).expect("chown");
        }),
        ("others write", "others can write to it", |path| {
            fs::create_dir(path).expect("directory");
            fs::set_permissions(path, fs::Permissions::from_mode(0o770)).expect("chmod");
        }),
        ("like /var/run", "it contains other files", |path| {
            fs::create_dir(path).expect("directory");
            fs::create_dir(path.join("sshd")).expect("directory");
        }),
        ("a link", "has a symbolic link in a directory", |path| {
            fs::create_dir(path.with_file_name("other")).expect("directory");
            plant_link(Path::new("other"), path);
        }),
    ];
    for (what, text, make) in cases {
        let scene = Scene::new();
        let state = world_writable_directory(&scene).join("state");
        make(&state);
        // Do not follow the link: fs.protected_symlinks stops even root.
        let mode = || fs::symlink_metadata(&state).expect("state").mode();
        let before = mode();
        scene.home.write(
            "knockd.conf",
            &format!(
                "[options]\nStateDir = {}\n[fence]\nsequence = 9:udp\n",
                state.display()
            ),
        );
        let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0"]);
        daemon.await_text("cannot use StateDir");
        let errors = daemon.errors();
        // The second line: without a state directory the listener has no empty directory either.
        let refusals = errors
            .lines()
            .filter(|line| line.contains("cannot use StateDir"));
        let refusals: Vec<&str> = refusals.collect();
        assert_eq!(refusals.len(), 1, "{what}: {errors}");
        assert!(refusals[0].contains(text), "{what}: {errors}");
        knock_until(&daemon, &lines::opened(CLIENT, "fence"), || {
            scene.knock(ROUTER, &["9:udp"]);
        });
        assert_eq!(mode(), before, "{what}");
        assert!(!state.join("empty").exists(), "{what}");
    }
}

/// Containers use PidFile = /dev/null and the like.
fn a_null_device_as_pid_file_stays() {
    let scene = Scene::new();
    let log = scene.home.path("log");
    scene.home.config("");
    // Use a test device: if this fails, the machine still has its /dev/null.
    let device = scene.home.path("null");
    let made = Command::new("mknod")
        .arg(&device)
        .args(["c", "1", "3"])
        .status();
    assert!(made.expect("mknod").success());
    let mode = fs::metadata(&device).expect("device").mode();
    let output = background(
        &scene,
        "022",
        &[Path::new("-g"), &log, Path::new("-p"), &device],
    );
    assert!(output.status.success(), "{output:?}");
    assert!(!scene.home.read("log").contains("pid file"));
    end_of_scene(&scene);
    assert_eq!(fs::metadata(&device).expect("it was removed").mode(), mode);
}

fn a_full_device_as_pid_file_stays() {
    let scene = Scene::new();
    let log = scene.home.path("log");
    scene.home.config("");
    let device = scene.home.path("full");
    let made = Command::new("mknod")
        .arg(&device)
        .args(["c", "1", "7"])
        .status();
    assert!(made.expect("mknod").success());
    let output = background(
        &scene,
        "022",
        &[Path::new("-g"), &log, Path::new("-p"), &device],
    );
    assert!(output.status.success(), "{output:?}");
    assert!(scene.home.read("log").contains("could not create pid file"));
    end_of_scene(&scene);
    assert!(device.exists(), "it was removed");
}
