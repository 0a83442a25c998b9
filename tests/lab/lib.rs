//! Networks for tests: namespaces, links, daemons and packets that clean up after themselves, even
//! after a panic.
//!
//! All tests run in namespaces named `kt-<pid>-<number>-<label>`, so tests can run in parallel and
//! the next run removes what a killed run left. Every wait has a deadline.

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

/// The longest wait for one condition. It is generous: only a broken program uses it up.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Calls `ask` every 10 ms until it returns a value. Panics after [`DEADLINE`].
pub fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, Duration::from_millis(10), what, ask)
}

/// Calls `ask` every `pause` until it returns a value. Panics after `deadline`.
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
        assert!(Instant::now() < end, "timed out after {deadline:?}: {what}");
        std::thread::sleep(pause);
    }
}

pub fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The result of a test that cannot run. For root it is a failure, because root is expected to run
/// every test.
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
    // The first namespace also makes /run/netns a mount point. Make it before tests run in
    // parallel.
    let probe = std::panic::catch_unwind(|| {
        Namespace::new("probe").run("iptables -w -S && ip6tables -w -S && test -c /dev/net/tun");
    });
    probe
        .err()
        .map(|_| "no network namespaces with iptables and /dev/net/tun here".to_string())
}

/// The full path of a program in PATH.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}
