//! The test's view of the board that it shares with the preloaded library: which call fails, and which calls were made.

#[path = "preload/shared.rs"]
mod shared;

use shared::{KILL, SHORT, STANDARD, Shared, functions, map};
pub use shared::{Role, VARIABLE};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// In the order of their numbers.
const ROLES: [Role; 7] = [
    Role::Launcher,
    Role::Keeper,
    Role::Child,
    Role::Listener,
    Role::Names,
    Role::Client,
    Role::Asker,
];

macro_rules! names {
    (
        by_hand: $($hand:ident)*;
        by_number: $($number:ident)*;
        $($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $failed:expr;)*
    ) => {
        /// The functions that can fail, in the order of their numbers.
        pub const FUNCTIONS: &[&str] =
            &[$(stringify!($hand),)* $(stringify!($number),)* $(stringify!($name),)*];
    };
}

functions!(names);

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With this errno.
    Error(i32),
    /// It reads or writes less than its caller asked for.
    Short,
    /// The process is killed before it.
    Kill,
}

/// The call that fails: the `nth` at this site, from 1.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// [`Site::key`].
    pub site: u64,
    pub nth: u32,
    pub kind: Kind,
}

/// One way through the program to a function.
#[derive(Clone, Debug)]
pub struct Site {
    /// The same in each run of one binary.
    pub key: u64,
    pub role: Role,
    pub function: &'static str,
    /// What the descriptor of the first call was, for functions that read or write.
    pub descriptor: Descriptor,
    pub calls: u32,
    /// Return addresses in the executable, innermost first.
    pub frames: Vec<u64>,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// A file, a device or a directory.
    File,
    Pipe,
    /// Standard input, output or error, and a pipe, whose other end may be closed.
    Standard,
    Socket,
    /// The function has none, or it is not known.
    Other,
}

/// The file, mapped.
pub struct Board(*mut Shared);

// SAFETY: the mapping is shared memory that holds atomics only, and lives until the Board is dropped.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    /// A new file, in which that call fails, if any.
    pub fn create(path: &Path, fault: Option<Fault>) -> io::Result<Board> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        file.set_len(size_of::<Shared>() as u64)?;
        let board = Board(map(file.as_raw_fd())?);
        if let Some(fault) = fault {
            let shared = board.shared();
            shared.site.store(fault.site, Ordering::SeqCst);
            shared.nth.store(fault.nth, Ordering::SeqCst);
            let kind = match fault.kind {
                Kind::Error(error) => error as u32,
                Kind::Short => SHORT,
                Kind::Kill => KILL,
            };
            shared.kind.store(kind, Ordering::SeqCst);
        }
        Ok(board)
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping holds a Shared, whose fields are atomics, until the Board is dropped.
        unsafe { &*self.0 }
    }

    /// Whether the call was made, and failed.
    pub fn fired(&self) -> bool {
        self.shared().fired.load(Ordering::SeqCst) != 0
    }

    /// Whether a process has panicked or aborted.
    pub fn panicked(&self) -> bool {
        self.shared().panicked.load(Ordering::SeqCst) != 0
    }

    /// All sites so far.
    pub fn sites(&self) -> Vec<Site> {
        let load = |word: &AtomicU32| word.load(Ordering::SeqCst);
        let used = self
            .shared()
            .slots
            .iter()
            .filter(|slot| load(&slot.what) != 0);
        used.filter_map(|slot| {
            let what = load(&slot.what) as usize - 1;
            Some(Site {
                key: slot.key.load(Ordering::SeqCst),
                role: *ROLES.get(what / FUNCTIONS.len())?,
                function: FUNCTIONS.get(what % FUNCTIONS.len())?,
                descriptor: match (load(&slot.mode) & libc::S_IFMT, load(&slot.mode) & STANDARD) {
                    (0, _) => Descriptor::Other,
                    (libc::S_IFSOCK, _) => Descriptor::Socket,
                    (libc::S_IFIFO, 0) => Descriptor::Pipe,
                    (libc::S_IFIFO, _) => Descriptor::Standard,
                    _ => Descriptor::File,
                },
                calls: load(&slot.calls),
                frames: slot
                    .frames
                    .iter()
                    .take(load(&slot.depth) as usize)
                    .map(|frame| u64::from(load(frame)))
                    .collect(),
            })
        })
        .collect()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of that length, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.cast(), size_of::<Shared>()) };
    }
}
