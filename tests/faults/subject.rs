//! A daemon of a story, in the foreground or with `-d`.

use crate::lab::{Daemon, Namespace, signal};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;

/// A process under observation.
pub struct Subject {
    /// The process that was started. With `-d` it exits once the daemon runs.
    pub called: Daemon,
    /// The PID of a daemon started with `-d`, once known.
    behind: Option<u32>,
    detaches: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Its exit code; `None` if it was killed or the code is unknown.
    pub code: Option<i32>,
    /// It may have been killed by SIGKILL.
    pub killed: bool,
}

impl Subject {
    pub fn new(called: Daemon, detaches: bool) -> Subject {
        Subject {
            called,
            behind: None,
            detaches,
        }
    }

    /// Whether the started process has exited with success. The daemon is then the process with
    /// `argument` in `namespace`.
    pub fn detached(&mut self, namespace: &Namespace, argument: &str) -> bool {
        if !self.detaches || self.called.ended().and_then(|status| status.code()) != Some(0) {
            return false;
        }
        let daemon = processes_in(namespace)
            .into_iter()
            .find(|(_, line)| line.contains(argument));
        self.behind = daemon.map(|(pid, _)| pid);
        true
    }

    /// The keeper's PID.
    pub fn pid(&self) -> u32 {
        self.behind.unwrap_or(self.called.pid())
    }

    /// How the daemon ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<End> {
        let status = self.called.ended();
        if self.detaches && status.and_then(|status| status.code()) == Some(0) {
            let runs = self.behind.is_some_and(|pid| !has_ended(pid));
            return (!runs).then_some(End {
                code: None,
                killed: true,
            });
        }
        status.map(|status| End {
            code: status.code(),
            // With -d the killed process can be the child of the one that exited.
            killed: status.signal() == Some(libc::SIGKILL) || self.detaches,
        })
    }

    /// Sends a signal to the keeper.
    pub fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    /// Whether the daemon's exit code can be observed.
    pub fn exit_code_is_known(&self) -> bool {
        !self.detaches
    }
}

/// Whether a process is gone or is an unreaped zombie. In both cases it has released its resources.
pub fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // "PID (NAME) STATE ...": NAME can contain any characters.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_none_or(|state| state.starts_with('Z'))
}

/// The processes in a namespace, each with PID and command line.
pub fn processes_in(namespace: &Namespace) -> Vec<(u32, String)> {
    let place = fs::metadata(format!("/run/netns/{}", namespace.name())).expect("namespace");
    let place = format!("net:[{}]", place.ino());
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let here = fs::read_link(entry.path().join("ns/net")).ok()?;
            (here.to_string_lossy() == place).then(|| {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                (pid, String::from_utf8_lossy(&line).replace('\0', " "))
            })
        })
        .collect()
}
