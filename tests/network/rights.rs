//! The rights of the processes, seen from outside.

use crate::Test;
use crate::lab::{
    CLIENT, Daemon, ROUTER, Scene, children, daemon_binary, knock_until, open_files, status,
    wait_for,
};
use crate::lease::STEPS;
use crate::lines;
use crate::split::listener;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("the_listener_has_no_rights", the_listener_has_no_rights),
    (
        "root_that_cannot_be_given_up_is_confined",
        root_that_cannot_be_given_up_is_confined,
    ),
    (
        "root_that_cannot_be_given_up_needs_seccomp",
        root_that_cannot_be_given_up_needs_seccomp,
    ),
    (
        "the_lookup_process_has_no_rights",
        the_lookup_process_has_no_rights,
    ),
    ("an_ordinary_user_can_run_it", an_ordinary_user_can_run_it),
    (
        "a_file_that_gives_rights_to_everyone_is_refused",
        a_file_that_gives_rights_to_everyone_is_refused,
    ),
    (
        "an_ordinary_user_without_the_right_gets_an_error",
        an_ordinary_user_without_the_right_gets_an_error,
    ),
];

const UDP_DOOR: &str = "[A]\nsequence = 1:udp,2:udp\n";
const NOBODY: &str = "65534";
const NONE: &str = "0000000000000000";
pub const USER: u32 = 65532;

/// Checks what no listener has: capabilities, a way to get any, further system calls, open files.
fn check_listener(pid: u32, user: &str) {
    check_confined(pid, user);
    let open = open_files(pid);
    assert!(open.len() >= 4, "{open:?}");
    for (number, file) in &open {
        assert!(file.starts_with("socket:["), "{number} is {file}");
    }
}

/// Checks what neither the listener nor the lookup process has.
fn check_confined(pid: u32, user: &str) {
    for ids in ["Uid:", "Gid:"] {
        assert_eq!(status(pid, ids), [user; 4], "{ids}");
    }
    assert!(status(pid, "Groups:").is_empty());
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(status(pid, set), [NONE], "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs:"), ["1"]);
    assert_eq!(status(pid, "Seccomp:"), ["2"]);
    // This holds without seccomp too.
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    for (name, most) in [
        ("Max processes", "0"),
        ("Max file size", "0"),
        ("Max core file size", "0"),
        ("Max open files", "10"),
        ("Max address space", "50331648"),
    ] {
        let limit = limits.lines().find_map(|line| line.strip_prefix(name));
        let words: Vec<&str> = limit.expect(name).split_whitespace().collect();
        assert_eq!(words[..2], [most; 2], "{name}");
    }
}

/// It queries the DNS for client names (`-l`).
fn the_lookup_process_has_no_rights() {
    let scene = Scene::new();
    scene.home.config("[A]\nsequence = 7000:udp\n");
    let daemon = Daemon::start(&scene.router, &scene.home, &["-i", "wan0", "-l"]);
    scene.knock(ROUTER, &["7000:udp"]);
    daemon.await_text(&lines::opened(CLIENT, "A"));
    let is_its = |pid: &u32| status(*pid, "Uid:") == ["65533"; 4];
    let pid = wait_for("the lookup process", || {
        children(daemon.pid()).into_iter().find(is_its)
    });
    wait_for("its lock", || {
        (status(pid, "Seccomp:") == ["2"]).then_some(())
    });
    check_confined(pid, "65533");
    assert_eq!(status(pid, "CapBnd:"), [NONE]);
    let root = fs::read_link(format!("/proc/{pid}/root")).expect("root");
    assert_eq!(root, scene.home.path("state/empty"), "chroot");
    for (number, file) in open_files(pid) {
        let is_its = ["socket:[", "/etc/hosts", "/dev/urandom"];
        assert!(
            is_its.iter().any(|own| file.starts_with(own)),
            "{number} is {file}"
        );
    }
}

fn the_listener_has_no_rights() {
    let scene = Scene::new();
    scene.home.config("");
    // Root often has supplementary groups.
    let mut command = scene.router.command("setpriv");
    command
        .args(["--groups", "4,24"])
        .arg(daemon_binary())
        .args(["-v", "-i", "wan0", "-c"])
        .arg(scene.home.path("knockd.conf"));
    let daemon = Daemon::run(command);
    daemon.await_text(lines::LISTENING);
    assert_eq!(status(daemon.pid(), "Groups:"), ["4", "24"]);
    for _ in 0..2 {
        scene.fence(&daemon);
        let pid = listener(&daemon);
        check_listener(pid, NOBODY);
        assert_eq!(status(pid, "CapBnd:"), [NONE]);
        // Its root directory is empty.
        let root = fs::read_link(format!("/proc/{pid}/root")).expect("root");
        assert_eq!(root, scene.home.path("state/empty"), "chroot");
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).expect("cwd");
        assert_eq!(directory, root);
        let entries = fs::read_dir(&root).expect("root").count();
        assert_eq!(entries, 0, "files where it is");
        assert_eq!(fs::metadata(&root).expect("root").uid(), 0, "its root");
        // The same is true for the listener of a reload.
        let before = daemon.count(lines::IN_FORCE);
        daemon.signal(libc::SIGHUP);
        daemon.await_count(lines::IN_FORCE, before + 1);
    }
}

/// The bounding set of the unit in Debian's knockd 0.8 package, and a user namespace with one user.
const CONFINEMENTS: &[&[&str]] = &[
    &["setpriv", "--bounding-set", "-all,+net_raw,+net_admin"],
    &["unshare", "--user", "--map-root-user"],
];

/// The daemon under that confinement, started through `words`. In a user namespace, the router's
/// network is foreign.
fn confined(scene: &Scene, words: &[&str], interface: &str) -> Daemon {
    let mut command = scene.router.command(words[0]);
    command
        .args(&words[1..])
        .arg(daemon_binary())
        .args(["-v", "-l", "-i", interface, "-c"])
        .arg(scene.home.path("knockd.conf"));
    Daemon::run(command)
}

const CURE: &str = "the listener cannot give up root: ";

fn root_that_cannot_be_given_up_is_confined() {
    let scene = Scene::new();
    scene.home.config(UDP_DOOR);
    let daemon = confined(&scene, CONFINEMENTS[0], "wan0");
    daemon.await_text(lines::LISTENING);
    let warning = daemon.await_text(CURE);
    assert!(
        warning.starts_with("warning: ") && warning.contains("CAP_SETUID and CAP_SETGID"),
        "{warning}"
    );
    let pid = listener(&daemon);
    assert_eq!(status(pid, "CapEff:"), [NONE]);
    assert_eq!(status(pid, "Seccomp:"), ["2"]);
    knock_until(&daemon, &lines::opened(CLIENT, "A"), || {
        scene.knock(ROUTER, &["1:udp", "2:udp"]);
    });
    drop(daemon);

    let network = &[
        CONFINEMENTS[1],
        &["--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"],
    ];
    let daemon = confined(&scene, &network.concat(), "lo");
    daemon.await_text(CURE);
    daemon.await_text(lines::LISTENING);
    assert_eq!(status(listener(&daemon), "Seccomp:"), ["2"]);
}

/// strace simulates a kernel without it.
fn root_that_cannot_be_given_up_needs_seccomp() {
    let scene = Scene::new();
    scene.home.config("");
    let strace = [
        "strace",
        "-fqqo",
        "/dev/null",
        "-e",
        "inject=prctl:error=EINVAL",
    ];
    let words = [CONFINEMENTS[0], &strace].concat();
    let mut daemon = confined(&scene, &words, "wan0");
    let refusal = daemon.await_text(CURE);
    assert!(
        refusal.starts_with("could not open wan0: ")
            && refusal.contains("CAP_SETUID and CAP_SETGID"),
        "{refusal}"
    );
    assert_eq!(daemon.wait().code(), Some(1));
    assert_eq!(daemon.count(lines::LISTENING), 0);
}

/// Like `setcap cap_net_raw+ep` (struct vfs_cap_data, revision 2).
fn set_capability(path: &Path) {
    const CAP_NET_RAW: u32 = 13;
    let words = [0x0200_0001, 1 << CAP_NET_RAW, 0, 0, 0];
    let value: Vec<u8> = words
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect();
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("path");
    let (name, first) = (c"security.capability", value.as_ptr().cast());
    // SAFETY: C strings; pointer and length describe `value`.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), first, value.len(), 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// File capabilities are accepted for a group of users but not for everyone. The set-user-ID bit is
/// never accepted.
fn a_file_that_gives_rights_to_everyone_is_refused() {
    let scene = Scene::new();
    scene.home.config("");
    let state = scene.home.path("state");
    fs::create_dir(&state).expect("directory");
    chown(&state, Some(USER), Some(USER)).expect("chown");
    let start = |mode: u32, has_capability: bool| {
        let binary = scene.home.path("knockd");
        let _ = fs::remove_file(&binary);
        fs::copy(daemon_binary(), &binary).expect("copy");
        chown(&binary, Some(0), Some(USER)).expect("chown");
        fs::set_permissions(&binary, fs::Permissions::from_mode(mode)).expect("chmod");
        if has_capability {
            set_capability(&binary);
        }
        let user = USER.to_string();
        let mut command = scene.router.command("setpriv");
        command
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .arg(&binary)
            .args(["-v", "-i", "wan0", "-c"])
            .arg(scene.home.path("knockd.conf"));
        Daemon::run(command)
    };
    for (mode, has_capability) in [(0o755, true), (0o4755, false), (0o4750, false)] {
        let mut daemon = start(mode, has_capability);
        assert_eq!(daemon.wait().code(), Some(1), "{mode:o}");
        assert!(daemon.errors().starts_with("refused: "), "{mode:o}");
    }
    let daemon = start(0o750, true);
    daemon.await_text(lines::LISTENING);
    scene.fence(&daemon);
}

/// Runs `knockd -v -c HOME/knockd.conf ARGS` as [`USER`], with or without CAP_NET_RAW.
fn as_user(scene: &Scene, capability: &str, args: &[&str]) -> Daemon {
    let mut command = scene.router.command("setpriv");
    let user = USER.to_string();
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["--bounding-set", capability, "--inh-caps", capability])
        .args(["--ambient-caps", capability])
        .arg(daemon_binary())
        .args(["-v", "-i", "wan0", "-c"])
        .arg(scene.home.path("knockd.conf"))
        .args(args);
    Daemon::run(command)
}

fn an_ordinary_user_can_run_it() {
    let scene = Scene::new();
    // As an administrator would create them.
    for directory in ["state", "own"] {
        let path = scene.home.path(directory);
        fs::create_dir(&path).expect("directory");
        chown(&path, Some(USER), Some(USER)).expect("chown");
    }
    scene.home.config_with_options(
        &format!("LogFile = {}\n", scene.home.path("own/log").display()),
        "[A]
         sequence = 7000,8000:udp,9000
         start_command = id -u >> @HOME@/own/notes
         cmd_timeout = 3
         stop_command = echo stop >> @HOME@/own/notes\n",
    );
    let mut daemon = as_user(&scene, "-all,+net_raw", &["-l"]);
    daemon.await_text(lines::LISTENING);
    check_listener(listener(&daemon), &USER.to_string());
    // The user would own the files of a dumpable process.
    for pid in [daemon.pid(), listener(&daemon)] {
        let environment = fs::metadata(format!("/proc/{pid}/environ")).expect("environ");
        assert_eq!(environment.uid(), 0, "{pid} can be dumped");
    }
    assert_ne!(
        status(daemon.pid(), "CapEff:"),
        [NONE],
        "the keeper opens sockets"
    );
    scene.knock(ROUTER, STEPS);
    // The lookup process has none either.
    wait_for("no capabilities of both children", || {
        let children = children(daemon.pid());
        // A command may have ended since.
        let status = |pid| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let bare = |pid: &u32| status(*pid).contains(&format!("CapEff:\t{NONE}\n"));
        (children.into_iter().filter(bare).count() == 2).then_some(())
    });
    daemon.await_text(&lines::opened(CLIENT, "A"));
    let user = format!("{USER}\n");
    let await_own = |text: &str| {
        wait_for(text, || {
            (scene.home.read("own/notes") == text).then_some(())
        });
    };
    await_own(&user);
    assert_eq!(daemon.errors(), "");
    for (path, mode) in [("own/log", 0o600), ("state", 0o700)] {
        let found = fs::metadata(scene.home.path(path)).expect(path);
        assert_eq!((found.uid(), found.mode() & 0o777), (USER, mode), "{path}");
    }
    // Its journal works too.
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    drop(daemon);
    let daemon = as_user(&scene, "-all,+net_raw", &[]);
    daemon.await_text("1 open doors taken over");
    await_own(&format!("{user}stop\n"));
}

fn an_ordinary_user_without_the_right_gets_an_error() {
    let scene = Scene::new();
    scene.home.config("");
    let mut daemon = as_user(&scene, "-all", &[]);
    assert_eq!(daemon.wait().code(), Some(1));
    daemon.await_text("could not open wan0: wan0: You don't have permission");
    daemon.await_text("run knockd as root or with CAP_NET_RAW");
}
