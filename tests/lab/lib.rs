//! Networks for tests: namespaces, links, daemons and packets that clean up after themselves, also after a panic.
//!
//! Everything happens in namespaces of our own, named `kt-<pid>-<number>-<label>`, so tests may run in parallel
//! and a killed run can be swept up by the next one. Every wait has a deadline.

mod daemon;
mod flood;
mod home;
pub mod latency;
pub mod lines;
mod namespace;
pub mod packet;
mod process;
mod random;
mod relay;
mod scene;
mod ssh;
mod tun;
mod wire;

pub use daemon::{Daemon, daemon_binary, is_original, knock_binary, remove_knock_link};
pub use flood::Flood;
pub use home::{Home, instance_in};
pub use namespace::{Mac, Namespace, link, stale, sweep};
pub use process::{children, descendants, open_files, ran_at, signal, status};
pub use random::Random;
pub use relay::{Faults, Relay};
pub use scene::{
    CLIENT, CLIENT6, LAN_HOST, OTHER, ROUTER, ROUTER6, Scene, fence, knock, knock_until, open_ports,
};
pub use ssh::Banner;
pub use tun::{Tun, set_address, set_up};
pub use wire::Wire;

use libtest_mimic::{Completion, Failed};
use std::time::{Duration, Instant};

/// The longest that a test waits for one thing. Generous: it is only used up when something is broken.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Asks every 10 ms until there is an answer; panics after [`DEADLINE`].
pub fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, Duration::from_millis(10), what, ask)
}

/// Asks every `pause` until there is an answer; panics after `deadline`.
pub fn wait_within<T>(
    deadline: Duration,
    pause: Duration,
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(pause);
    }
}

pub fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// What comes of a test that cannot run, for that reason: who is root wants it run.
pub fn not_run(reason: String) -> Result<Completion, Failed> {
    match is_root() {
        true => Err(format!("not run: {reason}").into()),
        false => Ok(Completion::ignored_with(reason)),
    }
}

/// Why the network tests cannot run here; `None` if they can.
pub fn missing() -> Option<String> {
    if !is_root() {
        return Some("not root".to_string());
    }
    for program in [
        "ip",
        "iptables",
        "ip6tables",
        "nmap",
        "nc",
        "strace",
        "timeout",
    ] {
        if find(program).is_none() {
            return Some(format!(
                "{program} is not installed; scripts/test installs it"
            ));
        }
    }
    // The first namespace also makes /run/netns a mount point: done here once, before tests run in parallel.
    let probe = std::panic::catch_unwind(|| {
        Namespace::new("probe").run("iptables -w -S && ip6tables -w -S && test -c /dev/net/tun");
    });
    probe
        .err()
        .map(|_| "no network namespaces with iptables and /dev/net/tun here".to_string())
}

/// The program's full path, if PATH has it.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
