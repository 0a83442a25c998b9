//! Inspects processes through /proc and sends signals to those that a test started.

use std::fs;

/// Sends a signal to a process of this test. The process may have exited already.
pub fn signal(pid: u32, signal: i32) {
    assert!(pid > 1, "pid {pid} is not ours");
    // SAFETY: kill takes two integers and touches no memory of ours.
    unsafe { libc::kill(pid as i32, signal) };
}

/// The children of a process, sorted by PID.
pub fn children(parent: u32) -> Vec<u32> {
    let mut found: Vec<u32> = processes()
        .filter(|&(_, p)| p == parent)
        .map(|(pid, _)| pid)
        .collect();
    found.sort_unstable();
    found
}

/// The children, their children, and so on.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = processes().collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            all.iter()
                .filter(|&&(_, p)| p == parent)
                .map(|&(pid, _)| pid),
        );
        next += 1;
    }
    found.remove(0);
    found
}

/// PID and parent PID of every process.
fn processes() -> impl Iterator<Item = (u32, u32)> {
    fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // "PID (NAME) STATE PARENT ...": NAME can contain any characters, including brackets.
        let parent = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()?;
        Some((pid, parent))
    })
}

/// How long the process has run and how often it was scheduled. While this does not change, the
/// process has executed nothing, not even a system call.
pub fn ran_at(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("schedstat");
    let fields: Vec<&str> = text.split_whitespace().collect();
    format!("{} ns, {} times", fields[0], fields[2])
}

/// The values in one line of /proc/PID/status, such as `Uid:`.
pub fn status(pid: u32, field: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = text.lines().find(|line| line.starts_with(field));
    let words = line.expect(field).split_whitespace().skip(1);
    words.map(String::from).collect()
}

/// The open files of a process: descriptors in order, each with its target (`socket:[123]` or a
/// path).
pub fn open_files(pid: u32) -> Vec<(u32, String)> {
    let mut files: Vec<(u32, String)> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("fd")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, target.display().to_string()))
        })
        .collect();
    files.sort_unstable();
    files
}
