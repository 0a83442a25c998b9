//! A network namespace for the calling thread. Child processes inherit it, and it ends with its
//! last user.

use std::process::Command;

/// Why namespaces cannot be created here; `None` if they can.
pub fn missing() -> Option<&'static str> {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Some("not root");
    }
    match Command::new("ip").arg("-Version").output() {
        Ok(output) if output.status.success() => None,
        _ => Some("no `ip` program (Debian package iproute2)"),
    }
}

/// Creates a namespace with only `lo`.
pub fn loopback_only() {
    // SAFETY: no pointers; CLONE_NEWNET changes the calling thread alone.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    run("ip link set lo up");
}

/// Creates a namespace with `lo` and `v0`, behind which are 10.9.0.9, fd00:9::9 and fe80::9, which
/// never answer.
pub fn with_silent_hosts() {
    loopback_only();
    run(
        "ip link add v0 address 02:00:00:00:00:01 type veth peer name v1 address 02:00:00:00:00:09",
    );
    run("ip link set v1 up");
    run("ip link set v0 up");
    for address in ["10.9.0.1/24", "fd00:9::1/64 nodad", "fe80::1/64 nodad"] {
        run(&format!("ip address add {address} dev v0"));
    }
    for neighbour in ["10.9.0.9", "fd00:9::9", "fe80::9"] {
        run(&format!(
            "ip neighbour add {neighbour} lladdr 02:00:00:00:00:09 dev v0"
        ));
    }
}

/// Runs a command that must succeed.
pub fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
