//! Measures from the last knock on the wire to the execve of the shell, and to the effect of the
//! command.
//!
//! The daemon runs in its own mount namespace, where /bin/sh is a copy of the shell. inotify
//! reports when execve opens that copy, and when `touch`, the command, opens its file. The clock
//! starts right before the last packet is sent and stops when the event wakes the sender, so each
//! figure includes one wake-up of the sender.

use super::{CLIENT, DEADLINE, Daemon, ROUTER, Scene, lines, packet};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs `job` on a thread with real-time priority, which its children inherit, so that other work
/// on the machine does not distort the figures.
pub fn at_high_priority<T: Send>(job: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let parameters = libc::sched_param { sched_priority: 1 };
            // Where this is not permitted, the figures are valid only on an idle machine.
            // SAFETY: the parameters are live; on Linux, id 0 sets the policy of this thread.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
            job()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The times of one knock.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Until the execve of the shell.
    pub shell: Duration,
    /// Until `touch` opens its file.
    pub effect: Duration,
}

/// A daemon on its own network, whose shell and command are watched.
pub struct Latency {
    pub daemon: Daemon,
    scene: Scene,
    shell: Watch,
    effect: Watch,
    rounds: Cell<u64>,
}

impl Latency {
    /// Starts `binary`. `is_original` says that it is knockd 0.8.
    pub fn new(binary: &Path, is_original: bool) -> Latency {
        let scene = Scene::new();
        let effect = scene.home.write("effect", "");
        let doors = format!(
            "[A]\nsequence = 1:udp,2:udp,3:udp\ncommand = touch {}\n",
            effect.display()
        );
        let config = match is_original {
            true => scene.home.write(
                "knockd.conf",
                &format!("[fence]\nsequence = 9:udp\n{doors}"),
            ),
            false => scene.home.config(&doors),
        };
        let copy = scene.home.path("sh");
        fs::copy("/bin/sh", &copy).expect("copy of the shell");
        let mut command = scene.router.command("sh");
        command
            .args(["-c", "mount --bind \"$0\" /bin/sh; exec \"$@\""])
            .arg(&copy);
        command
            .arg(binary)
            .args(["-v", "-i", "wan0", "-c"])
            .arg(&config);
        let daemon = Daemon::run(command);
        daemon.await_text(lines::LISTENING);
        let latency = Latency {
            daemon,
            shell: Watch::new(&copy),
            effect: Watch::new(&effect),
            scene,
            rounds: Cell::new(0),
        };
        latency.round(); // Do not measure neighbour discovery, page cache and lazy start-up.
        latency
    }

    /// Knocks once. Sleeps 0 to 59 ms before the last step, so that the sender does not synchronize
    /// with the 50 ms timer of knockd 0.8's capture, and then until the command has ended.
    pub fn round(&self) -> Round {
        let number = self.rounds.replace(self.rounds.get() + 1);
        for port in 1..=2 {
            self.scene.wire.send(&packet::udp(CLIENT, ROUTER, port));
        }
        let last = packet::udp(CLIENT, ROUTER, 3);
        std::thread::sleep(Duration::from_millis(number * 37 % 60));
        let start = Instant::now();
        self.scene.wire.send(&last);
        self.shell.wait();
        let shell = start.elapsed();
        self.effect.wait();
        let effect = start.elapsed();
        std::thread::sleep(Duration::from_millis(10));
        self.shell.drain();
        self.effect.drain();
        Round { shell, effect }
    }
}

/// Reports when a file is opened.
struct Watch(File);

impl Watch {
    fn new(path: &Path) -> Watch {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("path");
        // SAFETY: inotify_init1 takes flags only; the result is checked before it is owned.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        assert!(fd >= 0, "inotify: {}", std::io::Error::last_os_error());
        // SAFETY: fd is a new descriptor that nothing else owns.
        let watch = Watch(File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        // SAFETY: the path ends in a zero byte and outlives the call.
        let result = unsafe { libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_OPEN) };
        assert!(result >= 0, "inotify: {}", std::io::Error::last_os_error());
        watch
    }

    fn wait(&self) {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: poll gets one live pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, DEADLINE.as_millis() as i32) };
        assert_eq!(ready, 1, "no shell was started, or its command did nothing");
    }

    fn drain(&self) {
        while (&self.0).read(&mut [0; 4096]).is_ok() {}
    }
}
