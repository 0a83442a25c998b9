//! The two processes: the listener has no root, is disposable, and takes orders only from the
//! keeper.

use crate::Test;
use crate::lab::{
    CLIENT, DEADLINE, Daemon, Namespace, ROUTER, Scene, children, daemon_binary, knock_until,
    packet, signal, wait_for,
};
use crate::lease::{await_notes, door, open, rules};
use crate::lines;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "an_interface_comes_back_under_its_number",
        an_interface_comes_back_under_its_number,
    ),
    (
        "a_killed_listener_is_replaced",
        a_killed_listener_is_replaced,
    ),
    (
        "an_open_copy_of_the_listeners_socket_delays_nothing",
        an_open_copy_of_the_listeners_socket_delays_nothing,
    ),
    (
        "the_listener_knows_no_command",
        the_listener_knows_no_command,
    ),
    (
        "a_reload_replaces_a_stopped_listener",
        a_reload_replaces_a_stopped_listener,
    ),
    ("signals_to_both_processes", signals_to_both_processes),
    ("pidof_finds_the_keeper_alone", pidof_finds_the_keeper_alone),
    (
        "the_listener_ends_with_the_keeper",
        the_listener_ends_with_the_keeper,
    ),
];

/// The PID of the listener: the only child while no command runs.
pub fn listener(daemon: &Daemon) -> u32 {
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

fn a_reload_replaces_a_stopped_listener() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    signal(listener(&daemon), libc::SIGSTOP);
    daemon.signal(libc::SIGHUP);
    daemon.await_text(lines::IN_FORCE);
    open(&scene, &daemon);
}

/// Like a compromised listener that found a way to fork.
fn an_open_copy_of_the_listeners_socket_delays_nothing() {
    let scene = Scene::new();
    let daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    let first = listener(&daemon);
    let _held = socket_of(first);
    signal(first, libc::SIGKILL);
    daemon.await_text("listener died");
    knock_until(&daemon, &lines::opened(CLIENT, "SSH"), || {
        scene.knock(ROUTER, &["7000", "8000:udp", "9000"]);
    });
    let _held_too = socket_of(listener(&daemon));
    let before = daemon.count(&lines::opened(CLIENT, "SSH"));
    daemon.signal(libc::SIGHUP);
    daemon.await_text(lines::IN_FORCE);
    scene.knock(ROUTER, &["7000", "8000:udp", "9000"]);
    daemon.await_count(&lines::opened(CLIENT, "SSH"), before + 1);
}

/// The socket that is a process's standard input.
pub fn socket_of(pid: u32) -> OwnedFd {
    // SAFETY: no pointers; the kernel returns new descriptors that nothing else owns.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(process >= 0, "{}", std::io::Error::last_os_error());
        let process = OwnedFd::from_raw_fd(process as i32);
        let socket = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), 0, 0);
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(socket as i32)
    }
}

fn the_listener_knows_no_command() {
    let scene = Scene::new();
    let daemon =
        scene.daemon("[A]\nsequence = 1:udp\ncommand = echo these-words-are-not-for-all\n");
    let listener = listener(&daemon);
    let secret = b"these-words-are-not-for-all";
    assert!(
        holds(daemon.pid(), secret),
        "this test must find it in the keeper's memory"
    );
    assert!(
        !holds(listener, secret),
        "the command is in the listener's memory"
    );
    scene.fence(&daemon);
}

/// Whether the memory of a process contains these bytes.
fn holds(pid: u32, bytes: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("mem");
    maps.lines()
        .filter(|line| line.contains(" r") && !line.contains("[v"))
        .any(|line| {
            let range = line
                .split(' ')
                .next()
                .and_then(|range| range.split_once('-'))
                .expect("range");
            let [start, end] =
                [range.0, range.1].map(|text| u64::from_str_radix(text, 16).expect("hex"));
            let mut part = vec![0; (end - start) as usize];
            // Unreadable memory (a guard page) contains nothing.
            let length = memory.read_at(&mut part, start).unwrap_or(0);
            part[..length]
                .windows(bytes.len())
                .any(|window| window == bytes)
        })
}

/// For example `pkill -HUP knockd` after a log rotation.
fn signals_to_both_processes() {
    let scene = Scene::new();
    let mut daemon = scene.daemon(&door(600));
    open(&scene, &daemon);
    for times in 1..=2 {
        for number in [libc::SIGUSR2, libc::SIGUSR1, libc::SIGHUP] {
            signal(listener(&daemon), number);
        }
        daemon.signal(libc::SIGUSR1);
        daemon.signal(libc::SIGHUP);
        daemon.await_count(lines::RELOADING, times);
    }
    knock_until(&daemon, &lines::opened(CLIENT, "SSH"), || {
        scene.knock(ROUTER, &["7000", "8000:udp", "9000"]);
    });
    wait_for("one rule", || (rules(&scene) == 1).then_some(()));
    signal(listener(&daemon), libc::SIGTERM);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(15));
    assert_eq!(rules(&scene), 0);
}

/// The commands that scripts and monitors use, in a PID namespace with only this daemon. The
/// program's second name is for `pidof` of busybox and procps. Waits for each reload, because a
/// newly forked listener has the keeper's name until it calls exec.
fn pidof_finds_the_keeper_alone() {
    let scene = Scene::new();
    scene.home.config("");
    let script = format!(
        "cd {}; cp {} knockd; ln knockd knockd-listener
         ./knockd -d -i wan0 -c knockd.conf -p $PWD/pid -g $PWD/log
         done='{}'
         has() {{ command -v $1 > /dev/null; }}
         reloads() {{
             seen=0
             while [ $(grep -c \"$done\" log) -lt $1 ]; do
                 seen=$((seen + 1)); [ $seen -lt 500 ]; sleep 0.02
             done
         }}
         echo \"$(cat pid)\"
         pidof knockd
         if has busybox; then busybox pidof knockd; fi
         if has pgrep; then pgrep -x knockd; fi
         kill -HUP \"$(pidof knockd)\"; reloads 1
         if has killall; then killall -HUP knockd; reloads 2; fi
         if has busybox; then busybox killall -HUP knockd; reloads $(($(grep -c \"$done\" log) + 1)); fi
         kill \"$(pidof -s knockd)\"
         while [ -e pid ]; do sleep 0.02; done",
        scene.home.as_ref().display(),
        daemon_binary().display(),
        lines::IN_FORCE,
    );
    let output = scene
        .router
        .command("timeout")
        .args(["-k", "1", "30", "unshare", "-pf", "--mount-proc"])
        .args(["--kill-child", "sh", "-ec", &script])
        .output()
        .expect("unshare");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut pids: Vec<&str> = text.lines().collect();
    assert!(pids.len() >= 2, "{output:?}");
    pids.dedup();
    assert_eq!(pids.len(), 1, "{output:?}");
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

/// The interface disappears and returns while the listener does not look, so a single look shows no
/// difference.
fn an_interface_comes_back_under_its_number() {
    let scene = Scene::new();
    let other = Namespace::new("other");
    let daemon = scene.daemon(&door(600));
    let number = scene.router.index("wan0");
    let listener = listener(&daemon);
    signal(listener, libc::SIGSTOP);
    scene
        .router
        .run(&format!("ip link set wan0 netns {}", other.name()));
    other.run(&format!("ip link set wan0 netns {}", scene.router.name()));
    scene.router.run(&format!(
        "ip addr add {ROUTER}/24 dev wan0; ip link set wan0 up"
    ));
    assert_eq!(
        scene.router.index("wan0"),
        number,
        "its number is another: the test shows nothing"
    );
    signal(listener, libc::SIGCONT);
    knock_until(&daemon, &lines::opened(CLIENT, "SSH"), || {
        scene.knock(ROUTER, &["7000", "8000:udp", "9000"]);
    });
}

/// From the SIGKILL of the listener until a knock opens. Knocks that come too early are lost, so
/// one is sent every 2 ms. Other load only makes it longer, so the fastest of several runs shows
/// what the daemon needs.
pub fn a_killed_listener_is_back_within_100_ms() {
    let mut times = Vec::new();
    for _ in 0..10 {
        let scene = Scene::new();
        let daemon = scene.daemon(&door(600));
        scene.fence(&daemon);
        let listener = wait_for("one listener", || match children(daemon.pid())[..] {
            [pid] => Some(pid),
            _ => None,
        });
        let opened = lines::opened("198.51.100.77", "fence");
        let begin = Instant::now();
        signal(listener, libc::SIGKILL);
        let took = loop {
            scene.wire.send(&packet::udp("198.51.100.77", ROUTER, 9));
            std::thread::sleep(Duration::from_millis(2));
            // A knock seen by the old listener does not count.
            if daemon.count(&opened) > 0 && children(daemon.pid()) != [listener] {
                break begin.elapsed();
            }
            assert!(begin.elapsed() < DEADLINE, "it is not back");
        };
        times.push(took);
        if took < Duration::from_millis(100) {
            println!("knocks work again after {times:?}");
            return;
        }
    }
    panic!("knocks work again after {times:?} only");
}
