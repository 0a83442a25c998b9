//! The test's view of the board, which it shares with the preloaded library: which call fails, and
//! which calls were made.

#[path = "preload/shared.rs"]
mod shared;

use shared::{KILL, SHORT, STANDARD, Shared, functions, map};
pub use shared::{Role, VARIABLE};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Indexed by their numeric value.
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
        /// The functions that can fail, indexed by their number.
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
    /// It transfers less than the caller requested.
    Short,
    /// The process is killed before the call.
    Kill,
}

/// The call that fails: the `nth` at this site, counted from 1.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// [`Site::key`].
    pub site: u64,
    pub nth: u32,
    pub kind: Kind,
}

/// One call path through the program to a function.
#[derive(Clone, Debug)]
pub struct Site {
    /// Identical in every run of the same binary.
    pub key: u64,
    pub role: Role,
    pub function: &'static str,
    /// The kind of descriptor in the first call, for functions that read or write.
    pub descriptor: Descriptor,
    pub calls: u32,
    /// Return addresses in the executable, innermost first.
    pub frames: Vec<u64>,
}

/// A kind of descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// A file, a device or a directory.
    File,
    Pipe,
    /// Standard input, output or error, or a pipe, whose other end can be closed.
    Standard,
    Socket,
    /// No descriptor, or an unknown one.
    Other,
}

/// The mapped file.
pub struct Board(*mut Shared);

// SAFETY: the mapping is shared memory that contains only atomics and lives until the Board is
// dropped.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    /// Creates the file. The call given by `fault` fails.
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

    /// Whether the call was made and failed.
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
        // SAFETY: we own the mapping, it has this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.cast(), size_of::<Shared>()) };
    }
}
