//! Signals by the self-pipe trick: a handler writes the signal's number into a pipe, and poll() sees it. signalfd
//! is missing on router kernels.

use super::{cerr, cerr_len};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

/// The signals that the keeper acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: run all stop commands and exit with this number.
    Shutdown(i32),
    /// SIGHUP: read the config again.
    Reload,
    /// SIGUSR1: the firewall was flushed, apply live leases again.
    Reapply,
    /// SIGCHLD: a child has ended.
    Child,
}

static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handler(number: libc::c_int) {
    let byte = number as u8;
    // SAFETY: write(2) is async-signal-safe, the buffer is one byte of this frame, and errno is put back, so that
    // the code that was interrupted notices nothing.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *errno = before;
    }
}

fn set_disposition(number: libc::c_int, disposition: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid (no flags, empty mask); the handler is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = disposition;
        action.sa_flags = libc::SA_RESTART;
        cerr(libc::sigaction(number, &action, std::ptr::null_mut())).map(drop)
    }
}

/// The reading end of the self-pipe.
pub struct Signals(UnixStream);

impl Signals {
    /// Catches the signals of [`Signal`] and ignores SIGUSR2. Once in a process.
    pub fn catch() -> io::Result<Signals> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
        let handler = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
        for number in [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGUSR1,
            libc::SIGCHLD,
        ] {
            set_disposition(number, handler)?;
        }
        set_disposition(libc::SIGUSR2, libc::SIG_IGN)?;
        Ok(Signals(reader))
    }

    /// The next signal that came, without waiting. A full pipe loses only repeats of what is in it.
    pub fn next(&self) -> Option<Signal> {
        loop {
            let mut number = 0u8;
            // SAFETY: the buffer is one byte and valid for writing.
            let read = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut number).cast(), 1) };
            match cerr_len(read) {
                Ok(1) => {}
                _ => return None,
            }
            match i32::from(number) {
                number @ (libc::SIGTERM | libc::SIGINT) => return Some(Signal::Shutdown(number)),
                libc::SIGHUP => return Some(Signal::Reload),
                libc::SIGUSR1 => return Some(Signal::Reapply),
                libc::SIGCHLD => return Some(Signal::Child),
                _ => {}
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the listener does: `killall -HUP knockd` and Ctrl-C reach it too, but all of them are the keeper's business.
/// The listener ends when the keeper does.
pub fn leave_to_keeper() -> io::Result<()> {
    for number in [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        set_disposition(number, libc::SIG_IGN)?;
    }
    Ok(())
}

/// Undoes what [`Signals::catch`] and the Rust runtime changed, for a child that is about to call exec.
pub(super) fn restore_for_exec() {
    // exec itself resets handlers, but what is ignored stays ignored.
    for number in [libc::SIGPIPE, libc::SIGUSR2] {
        let _ = set_disposition(number, libc::SIG_DFL);
    }
}
