//! From the last knock on the wire to the execve of the shell, and what the processes weigh.
//!
//! The daemon gets a copy of the shell in place of /bin/sh, in its own mount namespace; inotify tells when that file
//! is opened for execve. The clock starts right before the last packet is sent and stops when the sender has been
//! woken by that event, so the figure includes one wake-up of the sender.

use crate::lab::{
    CLIENT, DEADLINE, Daemon, ROUTER, Scene, daemon_binary, descendants, is_original, packet,
};
use crate::lines;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where Debian has knockd 0.8, to compare with.
const ORIGINAL: &str = "/usr/sbin/knockd";

/// The figure stays far below that of knockd 0.8 (about 26 ms), also in a debug build on a busy machine.
pub fn is_low() {
    let times = Times(at_high_priority(|| {
        let bench = Bench::new(&daemon_binary());
        (0..50).map(|_| bench.round()).collect()
    }));
    assert!(
        times.quantile(50) < Duration::from_millis(5) || is_original(),
        "{}",
        times.show()
    );
}

/// Prints a table of ours and, where it is installed, of knockd 0.8, both measured in one run.
pub fn measure() {
    at_high_priority(compare);
}

fn compare() {
    const ROUNDS: usize = 200;
    let ours = Bench::new(&daemon_binary());
    let original = Path::new(ORIGINAL)
        .exists()
        .then(|| Bench::new(Path::new(ORIGINAL)));
    let (mut our_times, mut original_times, mut ratios) = (vec![], vec![], vec![]);
    for number in 0..ROUNDS {
        let Some(original) = &original else {
            our_times.push(ours.round());
            continue;
        };
        // A B, B A: neither is always first.
        let (a, b) = if number % 2 == 0 {
            let a = ours.round();
            (a, original.round())
        } else {
            let b = original.round();
            (ours.round(), b)
        };
        our_times.push(a);
        original_times.push(b);
        ratios.push(b.as_secs_f64() / a.as_secs_f64());
    }
    println!("\nlast knock on the wire to execve of the shell, {ROUNDS} rounds:");
    let our_times = Times(our_times);
    println!("  {}: {}", daemon_binary().display(), our_times.show());
    if !ratios.is_empty() {
        println!("  {ORIGINAL}: {}", Times(original_times).show());
        ratios.sort_by(f64::total_cmp);
        let (low, middle, high) = (
            ratios[0],
            ratios[ratios.len() / 2],
            ratios[ratios.len() - 1],
        );
        println!("  times as fast: median {middle:.1}, min {low:.1}, max {high:.1}");
    }
    println!("memory of all its processes (PSS):");
    println!("  {}: {} kB", daemon_binary().display(), ours.memory());
    if let Some(original) = &original {
        println!("  {ORIGINAL}: {} kB", original.memory());
    }
    if !is_original() {
        assert!(
            our_times.quantile(50) < Duration::from_millis(1),
            "{}",
            our_times.show()
        );
        assert!(ours.memory() < 2048, "{} kB", ours.memory());
    }
}

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

/// A daemon on a network of its own, whose shell is watched.
struct Bench {
    daemon: Daemon,
    scene: Scene,
    shell: Watch,
    rounds: Cell<u64>,
}

impl Bench {
    fn new(binary: &Path) -> Bench {
        let scene = Scene::new();
        let doors = "[A]\nsequence = 1:udp,2:udp,3:udp\ncommand = true\n";
        let config = match binary == Path::new(ORIGINAL) {
            true => scene.home.write(
                "knockd.conf",
                &format!("[fence]\nsequence = 9:udp\n{doors}"),
            ),
            false => scene.home.config(doors),
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
        let bench = Bench {
            daemon,
            scene,
            shell: Watch::new(&copy),
            rounds: Cell::new(0),
        };
        bench.round(); // Neighbours, page cache and lazy start-up are not measured.
        bench
    }

    /// One knock. Before its last step a pause of 0 to 59 ms, so that the sender does not fall into step with the
    /// 50 ms clock of knockd 0.8's capture; afterwards one in which the command ends.
    fn round(&self) -> Duration {
        let number = self.rounds.replace(self.rounds.get() + 1);
        for port in 1..=2 {
            self.scene.wire.send(&packet::udp(CLIENT, ROUTER, port));
        }
        let last = packet::udp(CLIENT, ROUTER, 3);
        std::thread::sleep(Duration::from_millis(number * 37 % 60));
        let start = Instant::now();
        self.scene.wire.send(&last);
        self.shell.wait();
        let time = start.elapsed();
        std::thread::sleep(Duration::from_millis(10));
        self.shell.drain();
        time
    }

    /// Proportional memory of its processes in kB.
    fn memory(&self) -> u64 {
        let mut pids = descendants(self.daemon.pid());
        pids.push(self.daemon.pid());
        let pss = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps");
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("Pss:"))
                .expect("Pss");
            line.trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .expect("kB")
        };
        pids.iter().map(pss).sum()
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
        assert_eq!(ready, 1, "no shell was started");
    }

    fn drain(&self) {
        while (&self.0).read(&mut [0; 4096]).is_ok() {}
    }
}

struct Times(Vec<Duration>);

impl Times {
    fn quantile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted[(sorted.len() - 1) * percent / 100]
    }

    fn show(&self) -> String {
        let [least, median, p95] = [0, 50, 95].map(|p| self.quantile(p).as_secs_f64() * 1e3);
        format!("median {median:.2} ms, p95 {p95:.2} ms, least {least:.2} ms")
    }
}
