//! The two programs under comparison, and what can be measured on a running daemon.

use crate::lab::{Daemon, Scene, descendants, lines};
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The path of knockd 0.8 on Debian.
pub const ORIGINAL: &str = "/usr/sbin/knockd";

/// One of the programs.
#[derive(Clone, Debug)]
pub struct Subject {
    pub binary: PathBuf,
    pub is_original: bool,
}

/// A running daemon on its own network. The firewall drops packets right after the packet sockets
/// have seen them.
pub struct Running {
    pub scene: Scene,
    pub daemon: Daemon,
}

impl Subject {
    /// Starts it without `-v`, pinned to the last CPU. The sender uses the first one.
    pub fn start(&self, options: &str, doors: &str) -> Running {
        let scene = Scene::new();
        scene
            .router
            .run("iptables -w -t raw -A PREROUTING -i wan0 -j DROP");
        let config = match self.is_original {
            true => scene.home.write(
                "knockd.conf",
                &doors.replace("@HOME@", &scene.home.as_ref().display().to_string()),
            ),
            false => scene.home.config_with_options(options, doors),
        };
        let log = scene.home.path("log");
        let mut command = scene.router.command("taskset");
        command
            .args(["-c", &(processors() - 1).to_string()])
            .arg(&self.binary)
            .args(["-i", "wan0", "-c"])
            .arg(config)
            .arg("-g")
            .arg(log);
        let daemon = Daemon::run(command);
        crate::lab::wait_for("a daemon that listens", || {
            scene
                .home
                .read("log")
                .contains(lines::LISTENING)
                .then_some(())
        });
        Running { scene, daemon }
    }
}

/// The number of CPUs.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Running {
    /// The PIDs of its processes.
    pub fn processes(&self) -> Vec<u32> {
        let mut all = descendants(self.daemon.pid());
        all.insert(0, self.daemon.pid());
        all
    }

    /// CPU time in nanoseconds so far, the sum of all its processes.
    pub fn cpu(&self) -> u64 {
        let of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
            text.split(' ')
                .next()
                .and_then(|ns| ns.parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.processes().iter().map(of).sum()
    }

    /// The number of context switches, voluntary or not.
    pub fn switches(&self) -> u64 {
        self.sum("status", "voluntary_ctxt_switches:")
            + self.sum("status", "nonvoluntary_ctxt_switches:")
    }

    /// Resident memory in kB.
    pub fn resident(&self) -> u64 {
        self.sum("smaps_rollup", "Rss:")
    }

    /// Private memory in kB.
    pub fn private(&self) -> u64 {
        self.sum("smaps_rollup", "Private_Dirty:") + self.sum("smaps_rollup", "Private_Clean:")
    }

    /// Proportional set size in kB: shared memory divided by the number of users.
    pub fn proportional(&self) -> u64 {
        self.sum("smaps_rollup", "Pss:")
    }

    fn sum(&self, file: &str, field: &str) -> u64 {
        let of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.processes().iter().map(of).sum()
    }

    /// Packets that passed its filters since the last call, and how many of them were dropped
    /// because the buffer was full (PACKET_STATISTICS, read through pidfd_getfd).
    pub fn packets(&self) -> (u64, u64) {
        let (mut seen, mut dropped) = (0, 0);
        for pid in self.processes() {
            for (packets, drops) in statistics(pid) {
                seen += u64::from(packets);
                dropped += u64::from(drops);
            }
        }
        (seen, dropped)
    }

    /// The number of open attempts that `--status` reports.
    pub fn attempts(&self) -> u64 {
        let home = self.scene.home.as_ref().display();
        let binary = crate::lab::daemon_binary();
        let text = self.scene.router.run(&format!(
            "{} -c {home}/knockd.conf --status --json",
            binary.display()
        ));
        let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        status["listener"]["attempts"].as_u64().expect("a number")
    }

    /// The number of lines in a file written by its commands.
    pub fn count(&self, file: &str) -> usize {
        self.scene.home.read(file).lines().count()
    }
}

/// The counters of each packet socket of a process.
fn statistics(pid: u32) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    // SAFETY: passes only integers; returns a descriptor or -1.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32;
    if process < 0 {
        return found;
    }
    // SAFETY: the kernel has just created this descriptor.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers {
        // SAFETY: passes only integers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
        if fd < 0 {
            continue;
        }
        // SAFETY: the kernel has just created this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut counters = [0u32; 3];
        let mut length = size_of_val(&counters) as libc::socklen_t;
        // SAFETY: the buffer is writable for the length given; other sockets reject the call.
        let result = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                counters.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            found.push((counters[0], counters[1]));
        }
    }
    found
}

/// Its size on disk in bytes: the program, and all libraries that it loads.
pub fn disk(binary: &Path) -> (u64, u64) {
    let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let list = std::process::Command::new("ldd").arg(binary).output();
    let list = list.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let list = list.unwrap_or_default();
    let paths = list
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let libraries: Vec<&str> = paths.collect();
    let pcap = libraries.iter().filter(|path| path.contains("libpcap"));
    let own = size(binary) + pcap.map(|path| size(Path::new(path))).sum::<u64>();
    let all = size(binary)
        + libraries
            .iter()
            .map(|path| size(Path::new(path)))
            .sum::<u64>();
    (own, all)
}
