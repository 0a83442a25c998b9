//! Selects the faults worth testing: for each function, the errors that its man page lists and that
//! the program can meet.

use crate::board::Kind::{self, Error, Kill, Short};
use crate::board::{Descriptor, FUNCTIONS, Role, Site};
use libc::*;

/// The faults of the common sweep: one for each kind of error that the program can handle
/// differently.
fn common(site: &Site) -> &'static [Kind] {
    match site.function {
        "read" if site.descriptor != Descriptor::File => &[Error(EINTR)],
        "write" => match site.descriptor {
            Descriptor::Pipe => &[Error(EINTR)],
            Descriptor::Standard => &[Error(EINTR), Error(EPIPE), Short],
            Descriptor::Socket => &[Error(EINTR), Error(EPIPE), Error(ENOBUFS)],
            _ => &[Error(ENOSPC), Error(EINTR), Short],
        },
        "accept4" => &[Error(EMFILE), Error(ECONNABORTED)],
        "bind" => &[Error(ENODEV)],
        "chmod" => &[Error(EROFS)],
        "chdir" | "fchdir" => &[Error(EACCES)],
        "chroot" | "setgid" | "setgroups" | "setrlimit" | "setuid" | "setsid" | "capset" => {
            &[Error(EPERM)]
        }
        "close" => &[Error(EIO)],
        "connect" => &[Error(ECONNREFUSED), Error(EINTR)],
        "pipe2" | "socketpair" => &[Error(EMFILE)],
        "dup2" => &[Error(EBUSY)],
        "execv" => &[Error(ENOMEM), Error(ENOENT)],
        "fcntl" => &[Error(EMFILE), Error(EINTR)],
        "fork" => &[Error(EAGAIN)],
        "fstat64" | "lstat64" | "stat64" => &[Error(EIO)],
        "fsync" => &[Error(EIO), Error(EINTR)],
        "getcwd" => &[Error(ENOENT)],
        "kill" => &[Error(ESRCH)],
        "lseek64" => &[Error(ESPIPE)],
        "mkdir" => &[Error(ENOSPC)],
        "open64" => &[Error(EMFILE), Error(EINTR)],
        "opendir" => &[Error(EMFILE)],
        "poll" => &[Error(ENOMEM), Error(EINTR)],
        "prctl" | "sigaction" | "sigprocmask" => &[Error(EINVAL)],
        "read" => &[Error(EIO), Error(EINTR), Short],
        "readdir64" => &[Error(EIO)],
        "readlinkat" => &[Error(EACCES)],
        "recv" => &[Error(ENOBUFS), Error(EINTR)],
        "recvfrom" => &[Error(ENETDOWN), Error(EINTR)],
        "recvmmsg" => &[Error(ENETDOWN), Error(EINTR), Error(ENOSYS)],
        "rename" => &[Error(ENOSPC)],
        "send" => &[Error(ENOBUFS), Error(EINTR)],
        "sendto" => &[Error(ENOBUFS), Error(ENETUNREACH)],
        "getsockopt" | "listen" => &[Error(EINVAL)],
        "setsockopt" => &[Error(ENOMEM)],
        "socket" => &[Error(EMFILE), Error(EPERM)],
        "statx" => &[Error(EIO), Error(ENOSYS)],
        "unlink" => &[Error(EROFS)],
        "waitpid" => &[Error(EINTR)],
        _ => &[],
    }
}

/// The additional faults of the whole sweep.
fn more(site: &Site) -> &'static [Kind] {
    match site.function {
        "write" => match site.descriptor {
            Descriptor::Pipe => &[],
            Descriptor::File => &[Error(EIO), Error(EROFS)],
            _ => &[Error(EAGAIN)],
        },
        "bind" => &[Error(ENOMEM), Error(ENETDOWN), Error(EADDRINUSE)],
        "close" => &[Error(EINTR)],
        "connect" => &[Error(ENETUNREACH)],
        "execv" => &[Error(EACCES)],
        "fcntl" => &[Error(ENOLCK)],
        "fork" => &[Error(ENOMEM)],
        "fsync" => &[Error(ENOSPC)],
        "kill" => &[Error(EPERM)],
        "mkdir" => &[Error(EROFS), Error(EACCES)],
        "open64" => &[Error(EACCES), Error(ENOSPC), Error(EROFS), Error(ENOMEM)],
        "pipe2" | "socketpair" | "opendir" => &[Error(ENFILE)],
        "recv" | "recvfrom" | "recvmmsg" => &[Error(ENOMEM)],
        "rename" => &[Error(EIO), Error(EROFS)],
        "send" => &[Error(ENOMEM), Error(EPIPE), Error(EAGAIN)],
        "setsockopt" => &[Error(EPERM), Error(ENOPROTOOPT)],
        "setuid" => &[Error(EAGAIN)],
        "socket" => &[Error(ENOBUFS), Error(EAFNOSUPPORT)],
        "fstat64" | "lstat64" | "stat64" | "statx" => &[Error(ENOMEM)],
        _ => &[],
    }
}

/// Functions that change something outside of the process. A keeper killed between two of them must
/// not leave a door open.
fn changes_something(function: &str) -> bool {
    matches!(
        function,
        "fork" | "kill" | "open64" | "rename" | "send" | "unlink" | "waitpid" | "write"
    )
}

/// The faults for the calls of a site.
pub fn kinds(site: &Site, whole: bool) -> Vec<Kind> {
    let mut kinds = common(site).to_vec();
    if whole {
        kinds.extend(more(site));
    }
    if matches!(site.role, Role::Client | Role::Asker) {
        // If no one reads its output, the program cannot report anything.
        kinds.retain(|kind| ![Error(EPIPE), Error(EAGAIN)].contains(kind));
    }
    if site.role == Role::Keeper && changes_something(site.function) {
        kinds.push(Kill);
    }
    // The OOM killer can choose any process.
    if site.role == Role::Child && site.function == "execv"
        || site.role == Role::Listener && matches!(site.function, "poll" | "send")
    {
        kinds.push(Kill);
    }
    kinds
}

/// The readable name of a fault.
pub fn name(kind: Kind) -> String {
    match kind {
        Short => "short".to_string(),
        Kill => "SIGKILL".to_string(),
        Error(number) => {
            let known = [
                (EACCES, "EACCES"),
                (EADDRINUSE, "EADDRINUSE"),
                (EAFNOSUPPORT, "EAFNOSUPPORT"),
                (EAGAIN, "EAGAIN"),
                (EBUSY, "EBUSY"),
                (ECONNABORTED, "ECONNABORTED"),
                (ECONNREFUSED, "ECONNREFUSED"),
                (EINTR, "EINTR"),
                (EINVAL, "EINVAL"),
                (EIO, "EIO"),
                (EMFILE, "EMFILE"),
                (ENETDOWN, "ENETDOWN"),
                (ENETUNREACH, "ENETUNREACH"),
                (ENFILE, "ENFILE"),
                (ENOBUFS, "ENOBUFS"),
                (ENODEV, "ENODEV"),
                (ENOENT, "ENOENT"),
                (ENOLCK, "ENOLCK"),
                (ENOMEM, "ENOMEM"),
                (ENOPROTOOPT, "ENOPROTOOPT"),
                (ENOSPC, "ENOSPC"),
                (ENOSYS, "ENOSYS"),
                (EPERM, "EPERM"),
                (EPIPE, "EPIPE"),
                (EROFS, "EROFS"),
                (ESPIPE, "ESPIPE"),
                (ESRCH, "ESRCH"),
            ];
            let found = known.iter().find(|(known, _)| *known == number);
            found.map_or_else(|| format!("errno {number}"), |(_, name)| name.to_string())
        }
    }
}

/// C library functions that cannot fail, make no system call of interest, or only end the process.
const NEVER_FAIL: &[&str] = &[
    "__errno_location",
    "_exit",
    "calloc",
    "clock_gettime",
    "closedir",
    "getenv",
    "free",
    "geteuid",
    "getpid",
    "getuid",
    "malloc",
    "realloc",
    "signal",
    "strerror",
];

/// The functions that `src/sys` calls and for which no fault can be injected.
pub fn calls_left_out() -> Vec<String> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sys");
    let mut left_out = Vec::new();
    for entry in std::fs::read_dir(directory).expect("src/sys").flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let (text, _tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for (index, _) in text.match_indices("libc::") {
            let rest = &text[index + "libc::".len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
            // Skip constants and header macros.
            let is_function =
                rest.starts_with('(') && name.starts_with(|c: char| c.is_lowercase() || c == '_');
            let known = FUNCTIONS.contains(&name) || NEVER_FAIL.contains(&name);
            if is_function && !known && !left_out.iter().any(|other| other == name) {
                left_out.push(name.to_string());
            }
        }
    }
    left_out
}
