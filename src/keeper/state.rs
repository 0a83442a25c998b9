//! The instance's folder under `StateDir`: the lock that keeps it the only one, and the journal.
#![forbid(unsafe_code)]

use super::log::LogKind;
use super::secure_open;
use crate::lease::Lease;
use crate::lease::journal::{self, BootContext};
use crate::limits::{MAX_JOURNAL_BYTES, STATE_PAUSE_MS, STATE_TRIES};
use crate::sys::daemon::Holder;
use crate::sys::error::{Error, Result};
use crate::sys::file::FileStatus;
use crate::sys::{daemon, file, folder, poll, privileges};
use crate::util::path::{file_name, folder_of};
use crate::util::text::shown;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Names in the state folder and in an instance's.
const EMPTY: &str = "empty";
const LOCK: &str = "lock";
const JOURNAL: &str = "journal";
const JOURNAL_NEW: &str = "journal.new";
const JOURNAL_BROKEN: &str = "journal.broken";

/// How a file of its own is opened.
const PRIVATE_FILE: libc::c_int = libc::O_CREAT | libc::O_WRONLY;

/// A daemon's folder.
pub struct StateDir {
    folder: File,
    /// The lock by the path that another daemon would take, which may be a link that points elsewhere by now.
    named: PathBuf,
    /// Open, so that the listener has it also when the folder is gone.
    empty: File,
    place: BootContext,
    /// Holds the lock as long as it is open.
    lock: File,
}

/// Why there is no folder.
#[derive(Debug)]
pub enum StateDirError {
    /// Another daemon has it.
    Locked(Holder),
    /// It cannot be made or used: what, and why.
    Io(String),
}

fn io_error(path: &Path) -> impl Fn(Error) -> StateDirError + '_ {
    move |error| StateDirError::Io(format!("{}: {}", path.to_string_lossy(), error))
}

/// A daemon among others: its config and `-i`, as given.
pub struct Instance {
    /// The name of its folder.
    name: String,
    /// How many bytes of it stand for the config.
    config: usize,
}

/// What comes between the two.
const AT: char = '@';

/// An `-i` that is longer is a checksum: the folder's name is in the path of the control socket, which may have 107 bytes.
const MAX_INTERFACE: usize = 32;

/// FNV-1a.
fn checksum(text: &[u8]) -> String {
    format!("{:016x}", journal::checksum(journal::NO_BYTES, text))
}

impl Instance {
    /// The same path, which is absolute, always gives the same name: the file's, and a checksum of the whole path.
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

    /// The other instances of the same config that have a folder there.
    pub fn others(&self, state_dir: &Path) -> Vec<Instance> {
        let (config, own) = self.name.split_at(self.config);
        let mut others = Vec::new();
        for name in &folder::names(state_dir).unwrap_or_default() {
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

    /// Its `-i`.
    pub fn interface(&self) -> &str {
        self.name.get(self.config + 1..).unwrap_or_default()
    }

    /// Where its control socket is, if it runs.
    pub fn control(&self, state_dir: &Path) -> PathBuf {
        state_dir.join(&self.name).join(CONTROL)
    }
}

/// The control socket's name in the folder.
const CONTROL: &str = "control";

impl StateDir {
    /// Makes the folder if need be, and takes its lock.
    pub fn lock(state_dir: &Path, instance: &Instance) -> Result<StateDir, StateDirError> {
        retry_transient(
            || StateDir::try_lock(state_dir, instance),
            |error| matches!(error, StateDirError::Io(_)),
        )
    }

    /// The same without a pause.
    pub fn try_lock(state_dir: &Path, instance: &Instance) -> Result<StateDir, StateDirError> {
        let named = state_dir.join(&instance.name).join(LOCK);
        let way = secure_open::folder(state_dir).map_err(io_error(state_dir))?;
        let state = private_directory(&way.folder, &way.name).map_err(io_error(&way.path))?;
        let make = |name: &str| {
            let made = private_directory(&state, OsStr::new(name));
            made.map_err(io_error(&way.path.join(name)))
        };
        let empty = make(EMPTY)?;
        let folder = make(&instance.name)?;
        let flags = libc::O_CREAT | libc::O_RDWR;
        let lock = file::open(&within(&folder, OsStr::new(LOCK)), flags, 0o600)
            .map_err(io_error(&named))?;
        match daemon::lock(&lock, false) {
            Ok(None) => {}
            Ok(Some(holder)) => return Err(StateDirError::Locked(holder)),
            Err(error) => return Err(io_error(&named)(error)),
        }
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = file::read_file(path).map_err(io_error(path))?;
        let path = Path::new("/proc/self/ns/net");
        let net = match file::find(path) {
            Ok(namespace) => namespace.identity.1,
            // Kernels before 3.0 do not tell.
            Err(error) if error.is(libc::ENOENT) => 0,
            Err(error) => return Err(io_error(path)(error)),
        };
        Ok(StateDir {
            folder,
            named,
            empty,
            place: BootContext {
                boot: String::from_utf8_lossy(boot.trim_ascii()).into_owned(),
                net,
            },
            lock,
        })
    }

    /// Tells a second daemon whether this one is up: one that starts or ends is waited for. Who has the lock, if it is another by now.
    pub fn set_running(&self, is_up: bool) -> Option<Holder> {
        // Where it cannot be said, the second waits in vain, or does not wait.
        daemon::lock(&self.lock, is_up).ok().flatten()
    }

    /// Whether a second daemon would find our lock. Not if somebody has removed or moved the folder.
    pub fn is_in_place(&self) -> bool {
        match (file::find_open(self.lock.as_fd()), file::find(&self.named)) {
            (Ok(held), Ok(found)) => held.identity == found.identity,
            (_, Err(error)) => !error.is(libc::ENOENT),
            _ => true,
        }
    }

    /// Leaves it for good: the journal is kept elsewhere now.
    pub fn leave(&self) {
        if self.is_in_place() {
            let _ = file::remove(&self.journal());
        }
    }

    /// Takes it only if a daemon has left a journal in it and is gone. The error says why it cannot be used.
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

    /// The directory that listeners take for the root of the file system; nothing is in it.
    pub fn empty_directory(&self) -> BorrowedFd<'_> {
        self.empty.as_fd()
    }

    /// Where the control socket is.
    pub fn control(&self) -> PathBuf {
        within(&self.folder, OsStr::new(CONTROL))
    }

    fn journal(&self) -> PathBuf {
        within(&self.folder, OsStr::new(JOURNAL))
    }

    /// The journal's path, for a person.
    fn shown_journal(&self) -> String {
        folder_of(&self.named)
            .join(JOURNAL)
            .to_string_lossy()
            .into_owned()
    }

    /// The leases that a daemon left here in this boot and network namespace, as far as its journal is sound, and what there is to say about
    /// it: one line. A journal that is not sound, or not ours, is put aside.
    pub fn leases(&self) -> (Vec<Lease>, Option<(LogKind, String)>) {
        let path = self.journal();
        // What the system says may pass; that a file is not ours is our own word.
        let may_pass = |error: &Error| matches!(error, Error::Os(_)) && !error.is(libc::ENOENT);
        let (leases, fault) = match retry_transient(|| read_own_journal(&path), may_pass) {
            Ok(text) => match journal::decode(&text) {
                // Without /proc one boot cannot be told from another.
                Some(found) if found.place != self.place || found.place.boot.is_empty() => {
                    let number = found.leases.len();
                    let text = format!(
                        "{}: of another boot or network namespace: nothing is run for its {number} open doors",
                        self.shown_journal()
                    );
                    return (Vec::new(), (number > 0).then_some((LogKind::Event, text)));
                }
                Some(found) if found.whole => return (found.leases, None),
                Some(found) => (found.leases, "not a whole journal".to_string()),
                None => (Vec::new(), "not a journal".to_string()),
            },
            Err(error) if error.is(libc::ENOENT) => return (Vec::new(), None),
            Err(error) => (Vec::new(), shown(&error)),
        };
        let aside = within(&self.folder, OsStr::new(JOURNAL_BROKEN));
        let fate = match file::rename(&path, &aside) {
            Ok(()) => "put aside",
            Err(_) => "it cannot be put aside",
        };
        let text = format!(
            "error: {}: {fault}; {fate}; {} open doors were found in it, others may still be open",
            self.shown_journal(),
            leases.len()
        );
        (leases, Some((LogKind::Error, text)))
    }

    /// Removes the journal, after what was in it is in another one.
    pub fn forget(&self) {
        // Otherwise it is taken over once more, and its stop commands run twice.
        let _ = file::remove(&self.journal());
    }

    /// Puts these leases in place of what the journal held. It outlives this process, not the machine: so no fsync.
    pub fn write<'a>(&self, leases: impl Iterator<Item = &'a Lease>) -> Result<()> {
        if !self.is_in_place() {
            // Another daemon's journal may be there now.
            return Err(Error::Own("its directory was removed or moved"));
        }
        let new = within(&self.folder, OsStr::new(JOURNAL_NEW));
        let file = file::open(&new, PRIVATE_FILE | libc::O_TRUNC, 0o600)?;
        file::write_all(file.as_fd(), &journal::encode(&self.place, leases))?;
        file::rename(&new, &self.journal())
    }
}

/// Tries again for a moment what may have failed for want of memory or descriptors: a daemon without its state forgets what it has to
/// close.
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

/// The bytes of a journal that nobody else can have written.
fn read_own_journal(path: &Path) -> Result<Vec<u8>> {
    // No link is followed, and a FIFO is not waited for.
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

/// Why others than this user may have made or changed what is there, if they may.
fn untrusted_reason(found: &FileStatus) -> Option<&'static str> {
    if found.user != privileges::user() {
        Some("belongs to another user")
    } else if found.mode & 0o022 != 0 {
        Some("others can write to it")
    } else {
        None
    }
}

/// The path of a name in a folder that is open, wherever that is by now.
pub fn within(folder: &File, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(shown(&folder.as_raw_fd()))
        .join(name)
}

/// Makes a folder that only this user can enter, or takes one that is there. One that others can look into, as earlier versions and
/// systemd made it, is closed to them if nothing in it is anybody else's business; never /var/run.
fn private_directory(parent: &File, name: &OsStr) -> Result<File> {
    let made = file::make_private_directory(&within(parent, name));
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    // On a full or read-only disk the one that is there will do.
    let folder = file::open_in(parent.as_fd(), name, flags, 0).map_err(|error| match made {
        Err(why) if error.is(libc::ENOENT) => why,
        _ => error,
    })?;
    let found = file::find_open(folder.as_fd())?;
    if let Some(fault) = untrusted_reason(&found) {
        return Err(Error::Own(fault));
    }
    if found.mode & 0o077 != 0 {
        let here = within(&folder, OsStr::new("."));
        if !folder::names(&here)?
            .iter()
            .all(|name| is_state_entry(name))
        {
            return Err(Error::Own(
                "others can look into it and it holds more than knockd's; name a folder of its own",
            ));
        }
        file::set_mode(&here, 0o700)?;
    }
    Ok(folder)
}

/// Whether this is the name of something that [`StateDir`] makes.
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

    /// The mode of a folder with these entries after it was taken, or why it was not.
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
    fn a_state_folder_that_others_see_is_closed_only_if_it_is_ours_alone() {
        let config = Path::new("/etc/knock@d.conf");
        let [instance, named, long] = [
            None,
            Some("eth0"),
            Some("a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s"),
        ]
        .map(|interface| Instance::new(config, interface).name);
        assert!(
            named.ends_with("@eth0") && long.len() == named.len() + 12,
            "{long}"
        );
        assert_eq!(taken(0o700, &["more"]), Ok(0o700));
        assert_eq!(taken(0o755, &[]), Ok(0o700));
        assert_eq!(
            taken(0o750, &["empty", &instance, &named, &long]),
            Ok(0o700)
        );
        for mode in [0o755, 0o711, 0o750] {
            let text = taken(mode, &["empty", &instance, "sshd"]).unwrap_err();
            assert!(text.contains("more than knockd's"), "{text}");
        }
        for mode in [0o1777, 0o770, 0o702] {
            let text = taken(mode, &[]).unwrap_err();
            assert!(text.contains("others can write"), "{text}");
        }
    }
}
