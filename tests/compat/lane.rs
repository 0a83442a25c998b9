//! Where a case runs: a server with the interface `s0`, and a wire that sends it packets from any
//! source.

use crate::lab::{Daemon, Home, Namespace, Wire, link};
use crate::packet::{SERVER, SERVER_SECOND, SERVER6};
use std::path::Path;
use std::sync::Mutex;

/// A server and its wire. Creating one takes about ten processes, so cases that leave nothing
/// behind share lanes.
pub struct Lane {
    pub server: Namespace,
    pub client: Namespace,
    pub wire: Wire,
}

impl Lane {
    pub fn new() -> Lane {
        let (server, client) = (Namespace::new("server"), Namespace::new("client"));
        let (here, there) = link((&client, "c0"), (&server, "s0"));
        server.run(&format!(
            "ip addr add {SERVER}/24 dev s0
             ip addr add {SERVER_SECOND}/24 dev s0
             ip addr add {SERVER6}/64 dev s0 nodad"
        ));
        // The clients' addresses must exist for the server's replies; otherwise it would keep
        // sending ARP requests.
        client.run(
            "ip addr add 10.9.0.2/24 dev c0
             ip addr add 10.9.0.3/24 dev c0
             ip addr add fd00:9::2/64 dev c0 nodad",
        );
        let wire = Wire::open(&client, "c0", here, there);
        Lane {
            server,
            client,
            wire,
        }
    }
}

/// Lanes that are free for the next case.
#[derive(Default)]
pub struct Lanes(Mutex<Vec<Lane>>);

impl Lanes {
    /// Calls `job` with a lane that nothing else uses. A lane whose job failed is not used again.
    pub fn with<T>(&self, job: impl FnOnce(&Lane) -> T) -> T {
        let waiting = self.0.lock().expect("lanes").pop();
        let lane = waiting.unwrap_or_else(Lane::new);
        let result = job(&lane);
        self.0.lock().expect("lanes").push(lane);
        result
    }
}

/// Starts `binary ARGS` in `home`, which is also mounted as its `/run` and `/var/log`, so that its
/// files are separate from all others.
pub fn start(binary: &Path, namespace: &Namespace, home: &Home, args: &[String]) -> Daemon {
    let mut command = namespace.command("sh");
    std::fs::create_dir_all(home.path("run")).expect("directory");
    command
        .current_dir(home)
        .arg("-c")
        .arg("mount --bind run /run && mount --bind run /var/log && exec \"$0\" \"$@\"")
        .arg(binary)
        .args(args)
        .env("TZ", "UTC")
        .env_remove("LANGUAGE")
        .env("LC_ALL", "C");
    Daemon::run(command)
}
