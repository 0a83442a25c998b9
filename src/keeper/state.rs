//! The directory of a daemon under `StateDir`: the lock that allows only one daemon per config, and
//! the journal.
#![forbid(unsafe_code)]

use super::log::LogKind;
use super::secure_open;
use crate::lease::Lease;
use crate::lease::journal::{self, BootContext};
use crate::limits::{MAX_JOURNAL_BYTES, STATE_PAUSE_MS, STATE_TRIES};
use crate::sys::daemon::Holder;
use crate::sys::error::{Error, Result};
use crate::sys::file::FileStatus;
use crate::sys::{daemon, directory, file, poll, privileges};
use crate::util::path::{file_name, parent};
use crate::util::text::shown;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Names of files and directories in StateDir and in an instance's directory.
const EMPTY: &str = "empty";
const LOCK: &str = "lock";
const JOURNAL: &str = "journal";
const JOURNAL_NEW: &str = "journal.new";
const JOURNAL_BROKEN: &str = "journal.broken";

/// The flags to open the journal.
const PRIVATE_FILE: libc::c_int = libc::O_CREAT | libc::O_WRONLY;

/// The locked directory of a daemon.
pub struct StateDir {
    directory: File,
    /// The path of the lock as another daemon would open it. It may be a link that points elsewhere
    /// by now.
    lock_path: PathBuf,
    /// Kept open, so that listeners have it even if it is removed.
    empty: File,
    boot_context: BootContext,
    /// Holds the lock while it is open.
    lock: File,
}

/// Why the directory cannot be used.
#[derive(Debug)]
pub enum StateDirError {
    /// Another daemon holds the lock.
    Locked(Holder),
    /// The path and error of a failed system call or check.
    Io(String),
}

fn io_error(path: &Path) -> impl Fn(Error) -> StateDirError + '_ {
    move |error| StateDirError::Io(format!("{}: {}", path.to_string_lossy(), error))
}

/// Identifies a daemon by its config and its `-i`, as entered.
pub struct Instance {
    /// The name of its directory.
    name: String,
    /// The length of the part that stands for the config.
    config: usize,
}

/// Separates the config from the interface.
const AT: char = '@';

/// A longer `-i` is replaced by its checksum: the name is part of the path of the control socket,
/// which is limited to 107 bytes.
const MAX_INTERFACE: usize = 32;

/// FNV-1a, in hex.
fn checksum(text: &[u8]) -> String {
    format!("{:016x}", journal::checksum(journal::NO_BYTES, text))
}

impl Instance {
    /// Creates the instance of an absolute config path. The name consists of the file name and a
    /// checksum of the whole path, so that it is always the same.
    pub fn new(config: &Path, interface: Option<&str>) -> Instance {
        let file = file_name(config).to_string_lossy();
        let sum = checksum(config.as_os_str().as_encoded_bytes());
        let mut name = [&file[..file.floor_char_boundary(64)], "-", &sum].concat();
        let config = name.len();
        if let Some(interface) = interface {
            name.push(AT);
            match interface.len() > MAX_INTERFACE || interface.contains('/') {
                true => name.push_str(&checksum(interface.as_bytes())),
                false => name.push_str(interface),
            }
        }
        Instance { name, config }
    }

    /// Returns the other instances of the same config that have a directory there.
    pub fn others(&self, state_dir: &Path) -> Vec<Instance> {
        let (config, own) = self.name.split_at(self.config);
        let mut others = Vec::new();
        for name in &directory::names(state_dir).unwrap_or_default() {
            let name = name.to_str().unwrap_or_default();
            if let Some(rest) = name.strip_prefix(config)
                && rest != own
                && (rest.is_empty() || rest.starts_with(AT))
            {
                others.push(Instance {
                    name: name.to_string(),
                    config: self.config,
                });
            }
        }
        others
    }

    /// Returns its `-i`.
    pub fn interface(&self) -> &str {
        self.name.get(self.config + 1..).unwrap_or_default()
    }

    /// Returns the path of its control socket, which exists while it runs.
    pub fn control(&self, state_dir: &Path) -> PathBuf {
        state_dir.join(&self.name).join(CONTROL)
    }
}

/// The name of the control socket in the directory.
const CONTROL: &str = "control";

impl StateDir {
    /// Creates the directory if necessary and locks it. Retries errors.
    pub fn lock(state_dir: &Path, instance: &Instance) -> Result<StateDir, StateDirError> {
        retry_transient(
            || StateDir::try_lock(state_dir, instance),
            |error| matches!(error, StateDirError::Io(_)),
        )
    }

    /// Like [`lock`](Self::lock), without retries.
    pub fn try_lock(state_dir: &Path, instance: &Instance) -> Result<StateDir, StateDirError> {
        let lock_path = state_dir.join(&instance.name).join(LOCK);
        let parent = secure_open::open_parent(state_dir).map_err(io_error(state_dir))?;
        let state =
            private_directory(&parent.directory, &parent.name).map_err(io_error(&parent.path))?;
        let make = |name: &str| {
            let made = private_directory(&state, OsStr::new(name));
            made.map_err(io_error(&parent.path.join(name)))
        };
        let empty = make(EMPTY)?;
        let directory = make(&instance.name)?;
        let flags = libc::O_CREAT | libc::O_RDWR;
        let lock = file::open(&within(&directory, OsStr::new(LOCK)), flags, 0o600)
            .map_err(io_error(&lock_path))?;
        match daemon::lock(&lock, false) {
            Ok(None) => {}
            Ok(Some(holder)) => return Err(StateDirError::Locked(holder)),
            Err(error) => return Err(io_error(&lock_path)(error)),
        }
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = file::read_file(path).map_err(io_error(path))?;
        let path = Path::new("/proc/self/ns/net");
        let net = match file::find(path) {
            Ok(namespace) => namespace.identity.1,
            // Kernels before 3.0 have no such file.
            Err(error) if error.is(libc::ENOENT) => 0,
            Err(error) => return Err(io_error(path)(error)),
        };
        Ok(StateDir {
            directory,
            lock_path,
            empty,
            boot_context: BootContext {
                boot: String::from_utf8_lossy(boot.trim_ascii()).into_owned(),
                net,
            },
            lock,
        })
    }

    /// Marks this daemon as running, or as starting or stopping, in which case a second daemon
    /// waits for it. Returns the holder of the lock if that is another daemon by now.
    pub fn set_running(&self, is_up: bool) -> Option<Holder> {
        // On an error, a second daemon waits in vain or does not wait.
        daemon::lock(&self.lock, is_up).ok().flatten()
    }

    /// Returns whether a second daemon would find this lock, which it does not if the directory was
    /// removed or moved.
    pub fn is_in_place(&self) -> bool {
        match (
            file::find_open(self.lock.as_fd()),
            file::find(&self.lock_path),
        ) {
            (Ok(held), Ok(found)) => held.identity == found.identity,
            (_, Err(error)) => !error.is(libc::ENOENT),
            _ => true,
        }
    }

    /// Removes the journal, because another directory has it now.
    pub fn abandon(&self) {
        if self.is_in_place() {
            let _ = file::remove(&self.journal_path());
        }
    }

    /// Locks the directory only if a dead daemon has left a journal there. The error says why it
    /// cannot be used.
    pub fn lock_abandoned(
        state_dir: &Path,
        instance: &Instance,
    ) -> Result<Option<StateDir>, String> {
        let journal = state_dir.join(&instance.name).join(JOURNAL);
        if file::find_link(&journal).is_err() {
            return Ok(None);
        }
        match StateDir::lock(state_dir, instance) {
            Ok(state) => Ok(Some(state)),
            Err(StateDirError::Locked(_)) => Ok(None),
            Err(StateDirError::Io(fault)) => Err(fault),
        }
    }

    /// Returns the empty directory to which listeners change their root.
    pub fn empty_directory(&self) -> BorrowedFd<'_> {
        self.empty.as_fd()
    }

    /// Returns the path of the control socket.
    pub fn control_path(&self) -> PathBuf {
        within(&self.directory, OsStr::new(CONTROL))
    }

    fn journal_path(&self) -> PathBuf {
        within(&self.directory, OsStr::new(JOURNAL))
    }

    /// Returns the path of the journal, for messages.
    fn shown_journal(&self) -> String {
        parent(&self.lock_path)
            .join(JOURNAL)
            .to_string_lossy()
            .into_owned()
    }

    /// Returns the valid leases in the journal from this boot and network namespace, and a log line
    /// if there is something to report. Renames a journal that is damaged or untrusted.
    pub fn leases(&self) -> (Vec<Lease>, Option<(LogKind, String)>) {
        let path = self.journal_path();
        // System errors may be transient. An untrusted file is not.
        let may_pass = |error: &Error| matches!(error, Error::Os(_)) && !error.is(libc::ENOENT);
        let (leases, fault) = match retry_transient(|| read_own_journal(&path), may_pass) {
            Ok(text) => match journal::decode(&text) {
                // Without /proc, boots cannot be distinguished.
                Some(found) if found.place != self.boot_context || found.place.boot.is_empty() => {
                    let number = found.leases.len();
                    let text = format!(
                        "{}: from another boot or network namespace: ignored, with {number} open \
                         doors",
                        self.shown_journal()
                    );
                    return (Vec::new(), (number > 0).then_some((LogKind::Event, text)));
                }
                Some(found) if found.whole => return (found.leases, None),
                Some(found) => (found.leases, "damaged".to_string()),
                None => (Vec::new(), "not a journal".to_string()),
            },
            Err(error) if error.is(libc::ENOENT) => return (Vec::new(), None),
            Err(error) => (Vec::new(), shown(&error)),
        };
        let aside = within(&self.directory, OsStr::new(JOURNAL_BROKEN));
        let fate = match file::rename(&path, &aside) {
            Ok(()) => "renamed to journal.broken",
            Err(_) => "cannot be renamed",
        };
        let text = format!(
            "error: {}: {fault}; {fate}; it lists {} open doors, others may still be open",
            self.shown_journal(),
            leases.len()
        );
        (leases, Some((LogKind::Error, text)))
    }

    /// Removes the journal, whose leases are in another one now.
    pub fn remove_journal(&self) {
        // Otherwise the next start takes it over again, and its stop commands run twice.
        let _ = file::remove(&self.journal_path());
    }

    /// Replaces the content of the journal. No fsync: the journal has to survive this process, but
    /// not the machine.
    pub fn write<'a>(&self, leases: impl Iterator<Item = &'a Lease>) -> Result<()> {
        if !self.is_in_place() {
            // Another daemon's journal may be at that path now.
            return Err(Error::Own("its directory was removed or moved"));
        }
        let new = within(&self.directory, OsStr::new(JOURNAL_NEW));
        let file = file::open(&new, PRIVATE_FILE | libc::O_TRUNC, 0o600)?;
        file::write_all(file.as_fd(), &journal::encode(&self.boot_context, leases))?;
        file::rename(&new, &self.journal_path())
    }
}

/// Retries an attempt that may have failed because memory or descriptors were short: without its
/// state a daemon forgets what it has to close.
fn retry_transient<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    may_pass: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let mut tries = 1;
    loop {
        let result = attempt();
        match &result {
            Err(error) if tries < STATE_TRIES && may_pass(error) => poll::pause(STATE_PAUSE_MS),
            _ => return result,
        }
        tries += 1;
    }
}

/// Reads a journal that no other user can have written.
fn read_own_journal(path: &Path) -> Result<Vec<u8>> {
    // Does not follow a link or wait for a FIFO.
    let file = file::open(path, libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)?;
    let found = file::find_open(file.as_fd())?;
    let fault = match found.is_file() {
        true => untrusted_reason(&found),
        false => Some("not a file"),
    };
    match fault {
        None => file::read_all(file.as_fd(), MAX_JOURNAL_BYTES),
        Some(fault) => Err(Error::Own(fault)),
    }
}

/// Returns why another user may have created or changed the file, if one may.
fn untrusted_reason(found: &FileStatus) -> Option<&'static str> {
    if found.user != privileges::user() {
        Some("belongs to another user")
    } else if found.mode & 0o022 != 0 {
        Some("others can write to it")
    } else {
        None
    }
}

/// Returns a path for a name in an open directory, wherever that directory is by now.
pub fn within(directory: &File, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(shown(&directory.as_raw_fd()))
        .join(name)
}

/// Creates a directory with mode 0700, or opens an existing one. Changes one that others can read,
/// as earlier versions and systemd create it, to 0700, but only if it contains nothing except
/// knockd's files, so never /var/run.
fn private_directory(parent: &File, name: &OsStr) -> Result<File> {
    let made = file::make_private_directory(&within(parent, name));
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    // On a full or read-only disk, an existing directory is enough.
    let directory = file::open_in(parent.as_fd(), name, flags, 0).map_err(|error| match made {
        Err(why) if error.is(libc::ENOENT) => why,
        _ => error,
    })?;
    let found = file::find_open(directory.as_fd())?;
    if let Some(fault) = untrusted_reason(&found) {
        return Err(Error::Own(fault));
    }
    if found.mode & 0o077 != 0 {
        let here = within(&directory, OsStr::new("."));
        if !directory::names(&here)?
            .iter()
            .all(|name| is_state_entry(name))
        {
            return Err(Error::Own(
                "others can read it and it contains other files; use a directory of its own",
            ));
        }
        file::set_mode(&here, 0o700)?;
    }
    Ok(directory)
}

/// Returns whether [`StateDir`] creates entries of this name.
fn is_state_entry(name: &OsStr) -> bool {
    let is_config = |name: &str| match name.as_bytes().split_last_chunk::<17>() {
        Some((_, [b'-', checksum @ ..])) => checksum.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    };
    let text = name.to_string_lossy();
    let mut parts = text.match_indices(AT);
    let is_instance = is_config(&text) || parts.any(|(at, _)| is_config(&text[..at]));
    let mut others = [EMPTY, LOCK, JOURNAL, JOURNAL_NEW, JOURNAL_BROKEN, CONTROL].into_iter();
    is_instance || others.any(|other| name == other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Returns the mode of a directory with these entries after [`private_directory`], or its
    /// error.
    fn taken(mode: u32, entries: &[&str]) -> Result<u32, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("knockd-state-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        for entry in entries {
            fs::create_dir(path.join(entry)).unwrap();
        }
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let parent = File::open(path.parent().unwrap()).unwrap();
        let result = private_directory(&parent, path.file_name().unwrap());
        let result = result.map_err(|error| error.to_string());
        let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
        fs::remove_dir_all(&path).unwrap();
        result.map(|_| mode)
    }

    #[test]
    fn a_state_directory_that_others_see_is_closed_only_if_it_has_no_other_files() {
        let config = Path::new("/etc/knock@d.conf");
        let [instance, with_interface, long] = [
            None,
            Some("eth0"),
            Some("a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s"),
        ]
        .map(|interface| Instance::new(config, interface).name);
        assert!(
            with_interface.ends_with("@eth0") && long.len() == with_interface.len() + 12,
            "{long}"
        );
        assert_eq!(taken(0o700, &["more"]), Ok(0o700));
        assert_eq!(taken(0o755, &[]), Ok(0o700));
        assert_eq!(
            taken(0o750, &["empty", &instance, &with_interface, &long]),
            Ok(0o700)
        );
        for mode in [0o755, 0o711, 0o750] {
            let text = taken(mode, &["empty", &instance, "sshd"]).unwrap_err();
            assert!(text.contains("contains other files"), "{text}");
        }
        for mode in [0o1777, 0o770, 0o702] {
            let text = taken(mode, &[]).unwrap_err();
            assert!(text.contains("others can write"), "{text}");
        }
    }
}
