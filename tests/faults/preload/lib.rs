//! Fault injection: an LD_PRELOAD library that makes one call of an unmodified knockd fail.
//!
//! `interpose` defines functions of the C library, so that calls of knockd and of its standard
//! library arrive here first. `next_call` counts each call on the board under its *site*: process,
//! function and path through the program. The board specifies the call that fails. In programs
//! other than knockd the library does nothing.

mod interpose;
mod shared;

use interpose::FUNCTIONS;
use shared::{FRAMES, Role, SITES, Shared, VARIABLE, map};
use std::ffi::CStr;
use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A knockd process with a board.
struct Process {
    board: &'static Shared,
    /// The load address of the executable.
    base: usize,
    code: Range<usize>,
}

/// Set at the end of `begin`. Until then each function behaves like the C library's.
static PROCESS: OnceLock<Process> = OnceLock::new();
static ROLE: AtomicU32 = AtomicU32::new(Role::Keeper as u32);

/// Runs before main. The C library calls it with main's arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn(libc::c_int, *const *const libc::c_char) = begin;

extern "C" fn begin(count: libc::c_int, arguments: *const *const libc::c_char) {
    const NAME: &CStr = c"KNOCKD_FAULTS";
    const _: () = assert!(NAME.count_bytes() == VARIABLE.len());
    if !is_knockd() {
        return;
    }
    // SAFETY: getenv returns null or a C string that stays valid, because nothing changes the
    // environment before main. open and close accept it. The arguments are `count` C strings.
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
        let Ok(board) = mapped else {
            return;
        };
        let argument = |index: isize| CStr::from_ptr(*arguments.offset(index)).to_bytes();
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
        let (base, code) = executable();
        let board = &*board;
        let _ = PROCESS.set(Process { board, base, code });
    }
}

/// Whether the executable's name starts with `knockd`.
fn is_knockd() -> bool {
    let mut path = [0u8; 4096];
    // SAFETY: a C string, and a buffer of that length.
    let length = unsafe {
        let program = c"/proc/self/exe".as_ptr();
        libc::readlink(program, path.as_mut_ptr().cast(), path.len())
    };
    let path = path.get(..length as usize).unwrap_or_default();
    let name = path.rsplit(|byte| *byte == b'/').next();
    name.is_some_and(|name| name.starts_with(b"knockd"))
}

/// The executable's load address and code range.
fn executable() -> (usize, Range<usize>) {
    // SAFETY: the kernel provides the address and the number of the executable's program headers,
    // which stay mapped.
    let headers = unsafe {
        let address = ptr::with_exposed_provenance(libc::getauxval(libc::AT_PHDR) as usize);
        slice::from_raw_parts::<libc::Elf64_Phdr>(address, libc::getauxval(libc::AT_PHNUM) as usize)
    };
    let table = headers.iter().find(|part| part.p_type == libc::PT_PHDR);
    let base = table.map_or(0, |table| headers.as_ptr().addr() - table.p_vaddr as usize);
    let is_code =
        |part: &&libc::Elf64_Phdr| part.p_type == libc::PT_LOAD && part.p_flags & libc::PF_X != 0;
    let code = headers.iter().find(is_code).map_or(0..0, |part| {
        let start = base + part.p_vaddr as usize;
        start..start + part.p_memsz as usize
    });
    (base, code)
}

/// Called in a forked child.
fn forked() {
    let role = match ROLE.load(Ordering::SeqCst) {
        launcher if launcher == Role::Launcher as u32 => Role::Keeper,
        _ => Role::Child,
    };
    ROLE.store(role as u32, Ordering::SeqCst);
}

/// Called when the process panics or aborts.
fn panicking() {
    if let Some(process) = PROCESS.get() {
        process.board.panicked.store(1, Ordering::SeqCst);
    }
}

/// Counts a call of that function. If it is the call that fails, returns how: an errno, `SHORT` or
/// `KILL`. `mode` returns the file type of its descriptor if that matters, otherwise 0.
fn next_call(function: usize, mode: impl FnOnce() -> u32) -> Option<u32> {
    let Process { board, base, code } = PROCESS.get()?;
    let mut stack = [ptr::null_mut(); FRAMES];
    // SAFETY: pointer and length are the array's.
    let depth = unsafe { libc::backtrace(stack.as_mut_ptr(), FRAMES as libc::c_int) };
    // Skip this library's frames, and stop at the C library's: which code a signal handler
    // interrupted is random.
    let frames = stack
        .iter()
        .take(depth as usize)
        .map(|frame| frame.addr())
        .skip_while(|address| !code.contains(address))
        .take_while(|address| code.contains(address))
        .map(|address| (address - base) as u32);
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
        for (stored, frame) in slot.frames.iter().zip(frames) {
            stored.store(frame, Ordering::SeqCst);
            depth += 1;
        }
        slot.depth.store(depth, Ordering::SeqCst);
        slot.mode.store(mode(), Ordering::SeqCst);
        slot.what.store(what, Ordering::SeqCst);
    }
    let fails = board.site.load(Ordering::SeqCst) == key
        && board.nth.load(Ordering::SeqCst) == nth
        && board.fired.swap(1, Ordering::SeqCst) == 0;
    fails.then(|| board.kind.load(Ordering::SeqCst))
}
