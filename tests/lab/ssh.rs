//! A TCP listener that sends the greeting of an SSH server.

use super::Namespace;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;

/// A listener in a namespace. It sends [`Banner::TEXT`] to every client and closes the connection.
pub struct Banner {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Banner {
    /// The greeting.
    pub const TEXT: &str = "SSH-2.0-lab";

    pub fn listen(namespace: &Namespace, address: &str) -> Banner {
        let listener = namespace.enter(|| TcpListener::bind(address).expect("listen"));
        let accepting = listener.try_clone().expect("clone");
        let thread = std::thread::spawn(move || {
            while let Ok((mut client, _)) = accepting.accept() {
                let _ = client.write_all(format!("{}\r\n", Banner::TEXT).as_bytes());
            }
        });
        Banner {
            listener,
            thread: Some(thread),
        }
    }
}

impl Drop for Banner {
    fn drop(&mut self) {
        // SAFETY: the descriptor is open. On Linux, shutdown makes the thread's accept fail, so
        // that it ends.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
