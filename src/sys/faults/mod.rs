//! Fault injection, for `tests/faults` only: compiled with the feature `faults`, which no shipped program has.
//!
//! [`interpose`] defines functions of the C library anew, so that the calls of this program and of std reach them first. They
//! ask here whether to fail. All processes of a story share one [`Board`], a file whose path is in the environment: it counts the calls at
//! each *site* (process, function and the way to it through the program), and names the one call that fails.

pub mod interpose;

use interpose::FUNCTIONS;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// The variable that holds the path of the board. Without it nothing is counted and nothing fails.
pub const VARIABLE: &str = "KNOCKD_FAULTS";

/// Which process of the daemon, or the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Role {
    /// With `-d`: the process that was called, and waits for the start.
    Launcher,
    /// The keeper.
    Keeper,
    /// What the keeper forked, before it executes something.
    Child,
    /// The listener.
    Listener,
    /// The process that looks names up.
    Names,
    /// `knock`.
    Client,
    /// `knockd --status` and `--close`.
    Asker,
}

const ROLES: [Role; 7] = [
    Role::Launcher,
    Role::Keeper,
    Role::Child,
    Role::Listener,
    Role::Names,
    Role::Client,
    Role::Asker,
];

/// What happens at the call. A number below is the error that it fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It fails with this errno.
    Error(i32),
    /// It reads or writes less than it was asked to.
    Short,
    /// The process is killed before it.
    Kill,
}

const SHORT: u32 = 1 << 16;
const KILL: u32 = SHORT + 1;

/// The call that fails: the `nth` at this site, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// [`Site::key`].
    pub site: u64,
    /// From 1.
    pub nth: u32,
    /// How.
    pub kind: Kind,
}

/// A place that calls were made from.
#[derive(Clone, Debug)]
pub struct Site {
    /// The same in each run of one binary.
    pub key: u64,
    /// In which process.
    pub role: Role,
    /// Of which function.
    pub function: &'static str,
    /// What the first descriptor there was, for functions that read or write.
    pub descriptor: Descriptor,
    /// How often.
    pub calls: u32,
    /// Return addresses from the inside out, from the start of the executable.
    pub frames: Vec<u64>,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// A file, a device or a directory.
    File,
    /// A pipe.
    Pipe,
    /// Standard input, output or error, and a pipe: whoever is at its other end may go.
    Standard,
    /// A socket.
    Socket,
    /// Not asked for, or not known.
    Other,
}

/// Beside the type of a descriptor's file: it is a standard one.
const STANDARD: u32 = 1 << 31;

/// One story has some hundreds.
const SITES: usize = 4096;
const FRAMES: usize = 96;

#[repr(C)]
struct Slot {
    key: AtomicU64,
    /// Role and function.
    what: AtomicU32,
    /// The type of the descriptor's file, as in `st_mode`.
    mode: AtomicU32,
    calls: AtomicU32,
    depth: AtomicU32,
    frames: [AtomicU32; FRAMES],
}

/// What the file holds; zeros are an empty one.
#[repr(C)]
struct Shared {
    site: AtomicU64,
    nth: AtomicU32,
    kind: AtomicU32,
    fired: AtomicU32,
    panicked: AtomicU32,
    slots: [Slot; SITES],
}

/// The test's view of the file.
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

    /// Whether the call has been made, and has failed.
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

fn map(file: libc::c_int) -> io::Result<*mut Shared> {
    // SAFETY: a new mapping, wherever the kernel likes.
    let place = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Shared>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file,
            0,
        )
    };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(place.cast())
}

/// The board of this process, null where there is none.
static BOARD: AtomicPtr<Shared> = AtomicPtr::new(ptr::null_mut());
static ROLE: AtomicU32 = AtomicU32::new(Role::Keeper as u32);

/// Runs before main, as the C library calls it: with main's arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn(libc::c_int, *const *const libc::c_char) = begin;

extern "C" fn begin(count: libc::c_int, arguments: *const *const libc::c_char) {
    const NAME: &std::ffi::CStr = c"KNOCKD_FAULTS";
    const _: () = assert!(NAME.count_bytes() == VARIABLE.len());
    // SAFETY: getenv gives null or a C string that lives on, since nothing changes the environment; open and close take it so. The
    // arguments are `count` C strings.
    unsafe {
        let path = libc::getenv(NAME.as_ptr());
        if path.is_null() {
            return;
        }
        let file = libc::open(path, libc::O_RDWR | libc::O_CLOEXEC);
        if file == -1 {
            return;
        }
        let mapped = map(file);
        libc::close(file);
        let argument = |index: isize| std::ffi::CStr::from_ptr(*arguments.offset(index)).to_bytes();
        let program = if count > 0 { argument(0) } else { b"" };
        let has = |wanted: &[u8]| (1..count as isize).any(|index| argument(index) == wanted);
        let role = match program {
            b"knockd-listener" => Role::Listener,
            b"knockd-names" => Role::Names,
            _ if program.ends_with(b"knock") => Role::Client,
            _ if has(b"-d") => Role::Launcher,
            _ if has(b"--status") || has(b"--close") => Role::Asker,
            _ => Role::Keeper,
        };
        ROLE.store(role as u32, Ordering::SeqCst);
        interpose::prepare();
        // The first call loads the unwinder.
        let mut frame = ptr::null_mut();
        libc::backtrace(&raw mut frame, 1);
        if let Ok(board) = mapped {
            BOARD.store(board, Ordering::SeqCst);
        }
    }
}

fn board() -> Option<&'static Shared> {
    // SAFETY: null, or the mapping that `begin` made, which stays until the process ends and holds atomics only.
    unsafe { BOARD.load(Ordering::SeqCst).as_ref() }
}

/// This process was forked just now.
fn forked() {
    let role = match ROLE.load(Ordering::SeqCst) {
        launcher if launcher == Role::Launcher as u32 => Role::Keeper,
        _ => Role::Child,
    };
    ROLE.store(role as u32, Ordering::SeqCst);
}

/// Something was said that only a process that breaks down says.
fn panicking() {
    if let Some(board) = board() {
        board.panicked.store(1, Ordering::SeqCst);
    }
}

unsafe extern "C" {
    // The linker defines both: where the executable is in memory.
    static __executable_start: u8;
    static etext: u8;
}

/// Counts a call of that function; what must happen to it, if anything. `mode` tells of its descriptor, if that matters.
fn next_call(function: usize, mode: impl FnOnce() -> u32) -> Option<Kind> {
    let board = board()?;
    let mut stack = [ptr::null_mut(); FRAMES];
    // SAFETY: pointer and length are the array's.
    let depth = unsafe { libc::backtrace(stack.as_mut_ptr(), FRAMES as libc::c_int) };
    let (start, end) = (
        (&raw const __executable_start).addr(),
        (&raw const etext).addr(),
    );
    // Up to the C library: below a signal handler is what it interrupted, by chance.
    let frames = stack
        .iter()
        .take(depth as usize)
        .map(|frame| frame.addr())
        .take_while(|address| (start..end).contains(address))
        .map(|address| (address - start) as u32);
    let what = ROLE.load(Ordering::SeqCst) as usize * FUNCTIONS.len() + function;
    let what = what as u32 + 1;
    let mix = |sum: u64, word: u32| {
        word.to_le_bytes().iter().fold(sum, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let key = frames.clone().fold(mix(0xcbf2_9ce4_8422_2325, what), mix);
    let home = key as usize % SITES;
    let (around, before) = (board.slots.get(home..)?, board.slots.get(..home)?);
    let slot = around.iter().chain(before).find(|slot| {
        let found = slot
            .key
            .compare_exchange(0, key, Ordering::SeqCst, Ordering::SeqCst);
        found.is_ok() || found == Err(key)
    })?;
    let nth = slot.calls.fetch_add(1, Ordering::SeqCst) + 1;
    if nth == 1 {
        let mut depth = 0;
        for (place, frame) in slot.frames.iter().zip(frames) {
            place.store(frame, Ordering::SeqCst);
            depth += 1;
        }
        slot.depth.store(depth, Ordering::SeqCst);
        slot.mode.store(mode(), Ordering::SeqCst);
        slot.what.store(what, Ordering::SeqCst);
    }
    let wanted = board.site.load(Ordering::SeqCst) == key
        && board.nth.load(Ordering::SeqCst) == nth
        && board.fired.swap(1, Ordering::SeqCst) == 0;
    wanted.then(|| match board.kind.load(Ordering::SeqCst) {
        SHORT => Kind::Short,
        KILL => Kind::Kill,
        error => Kind::Error(error as i32),
    })
}
