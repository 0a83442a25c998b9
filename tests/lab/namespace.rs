//! Network namespaces and the links between them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A network namespace. Dropping it kills the processes in it and removes it with its interfaces.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates a namespace with `lo` up. IPv6 address configuration neither waits nor sends
    /// anything.
    pub fn new(label: &str) -> Namespace {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kt-{}-{number}-{label}", std::process::id());
        shell(&format!("ip netns add {name}"));
        let namespace = Namespace { name };
        namespace.run(
            "ip link set lo up
             for scope in all default; do
                 echo 0 > /proc/sys/net/ipv6/conf/$scope/accept_dad
                 echo 0 > /proc/sys/net/ipv6/conf/$scope/accept_ra
                 echo 0 > /proc/sys/net/ipv6/conf/$scope/router_solicitations
             done",
        );
        namespace
    }

    /// The name that `ip netns` shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs `program` in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, program])
            .stdin(Stdio::null());
        command
    }

    /// Runs shell lines in it with `sh -e`, for at most 30 s.
    pub fn attempt(&self, script: &str) -> Output {
        self.command("timeout")
            .args(["-k", "1", "30", "sh", "-ec", script])
            .output()
            .expect("ip netns exec")
    }

    /// Like [`Namespace::attempt`], but returns the output and panics if the script fails.
    pub fn run(&self, script: &str) -> String {
        checked(&format!("{}: {script}", self.name), self.attempt(script))
    }

    /// Calls `job` on a new thread inside this namespace. Sockets that it opens stay in the
    /// namespace.
    pub fn enter<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let place = File::open(format!("/run/netns/{}", self.name)).expect("namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the descriptor is open. setns changes only this thread, which ends after the
                // job.
                let result = unsafe { libc::setns(place.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
                job()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The index of an interface, if it exists.
    pub fn index(&self, interface: &str) -> Option<u32> {
        let output = self.attempt(&format!("ip -o link show dev {interface}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split(':').next()?.trim().parse().ok()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Makes a veth pair: interface `a.1` of namespace `a.0` and `b.1` of `b.0`, both up. Returns their
/// Ethernet addresses.
pub fn link(a: (&Namespace, &str), b: (&Namespace, &str)) -> (Mac, Mac) {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mac = |end: u8| [0x02, end, number[0], number[1], number[2], number[3]];
    let (mac_a, mac_b) = (mac(0xa), mac(0xb));
    let text = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
    shell(&format!(
        "ip -n {na} link add {ia} address {ma} type veth peer name {ib} address {mb} netns {nb}
         ip -n {na} link set {ia} up
         ip -n {nb} link set {ib} up",
        na = a.0.name,
        ia = a.1,
        ma = text(mac_a),
        nb = b.0.name,
        ib = b.1,
        mb = text(mac_b),
    ));
    (mac_a, mac_b)
}

/// Removes what killed runs have left: namespaces with their processes, and directories.
pub fn sweep() {
    for path in stale(Path::new("/run/netns")) {
        remove(&path.file_name().unwrap_or_default().to_string_lossy());
    }
    for path in stale(&std::env::temp_dir()) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// The entries `kt-<pid>-...` of `directory` whose process no longer exists.
pub fn stale(directory: &Path) -> Vec<PathBuf> {
    let is_stale = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let pid = name
            .strip_prefix("kt-")
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(is_stale).collect()
}

/// Kills the processes of a test namespace and removes it.
fn remove(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).output();
    for pid in String::from_utf8_lossy(&pids.map(|o| o.stdout).unwrap_or_default()).lines() {
        if let Ok(pid) = pid.trim().parse::<u32>()
            && pid != std::process::id()
        {
            super::signal(pid, libc::SIGKILL);
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).output();
}

/// Runs shell lines outside of the namespaces with `sh -e`. Used only for `ip -n` and `ip netns`.
fn shell(script: &str) -> String {
    let output = Command::new("timeout")
        .args(["10", "sh", "-ec", script])
        .output();
    checked(script, output.expect("sh"))
}

fn checked(script: &str, output: Output) -> String {
    assert!(
        output.status.success(),
        "{script}\n{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
