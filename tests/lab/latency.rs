//! From the last knock on the wire to the execve of the shell, and to the effect of the command.
//!
//! The daemon gets a copy of the shell in place of /bin/sh, in its own mount namespace; inotify tells when that file
//! is opened for execve, and when `touch`, the command, opens its file. The clock starts right before the last packet is sent and
//! stops when the sender has been woken by that event, so a figure includes one wake-up of the sender.

use super::{CLIENT, DEADLINE, Daemon, ROUTER, Scene, lines, packet};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Calls `job` on a thread that, with all that it starts, goes before whatever else runs on this machine: that is
/// not to be measured.
pub fn at_high_priority<T: Send>(job: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let parameters = libc::sched_param { sched_priority: 1 };
            // Where that is forbidden, the figures hold on an idle machine only.
            // SAFETY: the parameters are live; with id 0 it is this thread's policy on Linux.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
            job()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What one knock took.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// To the execve of the shell.
    pub shell: Duration,
    /// To the moment that `touch` opens its file.
    pub effect: Duration,
}

/// A daemon on a network of its own, whose shell and command are watched.
pub struct Latency {
    /// The daemon.
    pub daemon: Daemon,
    scene: Scene,
    shell: Watch,
    effect: Watch,
    rounds: Cell<u64>,
}

impl Latency {
    /// Starts that program; `is_original`: it is knockd 0.8.
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
        latency.round(); // Neighbours, page cache and lazy start-up are not measured.
        latency
    }

    /// One knock. Before its last step a pause of 0 to 59 ms, so that the sender does not fall into step with the
    /// 50 ms clock of knockd 0.8's capture; afterwards one in which the command ends.
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

/// Tells when a file is opened.
struct Watch(File);

impl Watch {
    fn new(path: &Path) -> Watch {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("path");
        // SAFETY: inotify_init1 takes flags only; the result is checked before it is owned.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        assert!(fd >= 0, "inotify: {}", std::io::Error::last_os_error());
        // SAFETY: fd is a fresh descriptor that nothing else owns.
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
