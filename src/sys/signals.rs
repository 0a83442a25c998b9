//! Signals with the self-pipe trick: a handler notes the signal and writes a byte to a pipe, which
//! wakes poll(). Router kernels lack signalfd.

use super::error::{Result, cerr};
use super::file::set_nonblocking;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// The signals that the keeper handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT or SIGQUIT: run all stop commands and exit with this number.
    Shutdown(i32),
    /// SIGHUP: read the config again.
    Reload,
    /// SIGUSR1: the firewall was flushed, re-apply live leases.
    Reapply,
    /// SIGCHLD: a child has ended.
    Child,
}

static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Pending signals: bit n is signal n. All handled signals are below 32.
static PENDING: AtomicU32 = AtomicU32::new(0);

extern "C" fn handler(number: libc::c_int) {
    PENDING.fetch_or(1 << number, Ordering::Relaxed);
    // SAFETY: write(2) is async-signal-safe, the buffer is one constant byte, and errno is put
    // back, so that the code that was interrupted notices nothing. A full pipe wakes as well as one
    // more byte would.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(PIPE.load(Ordering::Relaxed), c"!".as_ptr().cast(), 1);
        *errno = before;
    }
}

fn set_disposition(number: libc::c_int, disposition: libc::sighandler_t) -> Result<()> {
    // SAFETY: an all-zero sigaction is valid (no flags, empty mask); the handler is
    // async-signal-safe.
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
    /// Catches the signals of [`Signal`] and ignores SIGUSR2 and SIGXFSZ: a log file at its size
    /// limit should be an ordinary error. Call it once per process.
    pub fn catch() -> Result<Signals> {
        let (reader, writer) = UnixStream::pair()?;
        set_nonblocking(reader.as_fd(), true)?;
        set_nonblocking(writer.as_fd(), true)?;
        PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
        // The parent may have blocked signals, and children inherit the mask, also commands.
        // SAFETY: an all-zero set is empty, and the old one is not asked for.
        unsafe {
            let none: libc::sigset_t = std::mem::zeroed();
            cerr(libc::sigprocmask(
                libc::SIG_SETMASK,
                &raw const none,
                std::ptr::null_mut(),
            ))?;
        }
        let handler = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
        for number in &[
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGHUP,
            libc::SIGUSR1,
            libc::SIGCHLD,
        ] {
            set_disposition(*number, handler)?;
        }
        set_disposition(libc::SIGUSR2, libc::SIG_IGN)?;
        set_disposition(libc::SIGXFSZ, libc::SIG_IGN)?;
        Ok(Signals(reader))
    }

    /// Returns whether signals are pending. The pipe shows the same, unless the kernel had no
    /// memory for the byte.
    pub fn are_pending(&self) -> bool {
        PENDING.load(Ordering::Relaxed) != 0
    }

    /// Returns whether a pending signal ends the daemon.
    pub fn ask_for_the_end(&self) -> bool {
        const END: u32 = 1 << libc::SIGTERM | 1 << libc::SIGINT | 1 << libc::SIGQUIT;
        PENDING.load(Ordering::Relaxed) & END != 0
    }

    /// Returns the pending signals, each once, without waiting.
    pub fn take(&self) -> impl Iterator<Item = Signal> + use<> {
        let mut wake_ups = [0u8; 64];
        // SAFETY: pointer and length are the buffer's. What is left in the pipe wakes the next
        // poll.
        unsafe {
            libc::read(
                self.0.as_raw_fd(),
                wake_ups.as_mut_ptr().cast(),
                wake_ups.len(),
            )
        };
        let pending = PENDING.swap(0, Ordering::Relaxed);
        let all = [
            (libc::SIGCHLD, Signal::Child),
            (libc::SIGHUP, Signal::Reload),
            (libc::SIGUSR1, Signal::Reapply),
            (libc::SIGINT, Signal::Shutdown(libc::SIGINT)),
            (libc::SIGQUIT, Signal::Shutdown(libc::SIGQUIT)),
            (libc::SIGTERM, Signal::Shutdown(libc::SIGTERM)),
        ];
        all.into_iter()
            .filter(move |(number, _)| pending & 1 << number != 0)
            .map(|(_, signal)| signal)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ignores signals in the daemon's other processes: `killall -HUP knockd` and Ctrl-C reach them
/// too, but only the keeper handles these. They end with the keeper.
pub(super) fn leave_to_keeper() -> Result<()> {
    for number in [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        set_disposition(number, libc::SIG_IGN)?;
    }
    Ok(())
}

/// Reverts the changes of [`Signals::catch`] and [`super::program::run`] in a child before exec.
pub(super) fn restore_for_exec() {
    // exec resets handlers, but ignored signals stay ignored.
    for number in [libc::SIGPIPE, libc::SIGUSR2, libc::SIGXFSZ] {
        let _ = set_disposition(number, libc::SIG_DFL);
    }
}
