//! The process that looks up the names of sources, which can take many seconds. It runs without
//! root, and uses a socketpair with the keeper.
#![forbid(unsafe_code)]

use super::HostNames;
use super::dns::MAX_DNS_NAME;
use crate::sys::message_socket::MessageSocket;
use crate::sys::program::ExitCode;
use crate::sys::{privileges, program, seccomp};
use std::ffi::CStr;
use std::os::fd::AsFd;

/// The program name under which the keeper executes itself as the lookup process.
pub const PROGRAM: &CStr = c"knockd-names";

/// Runs the process: an address in, a name out, `?` if there is none.
pub fn main() -> ! {
    privileges::set_name(PROGRAM);
    let Ok(socket) = program::input().as_fd().try_clone_to_owned() else {
        program::exit(ExitCode::FAILURE);
    };
    // Open all files now: later none is visible.
    let Some(names) = HostNames::open() else {
        program::exit(ExitCode::FAILURE);
    };
    if privileges::is_root() {
        // Without a state directory there is no empty directory, which the keeper has reported.
        let _ = privileges::chroot_to_empty_dir();
        if privileges::become_unprivileged(privileges::LOOKUP).is_err() {
            program::exit(ExitCode::FAILURE);
        }
    }
    // The privileges of an ordinary user.
    let _ = privileges::drop_capabilities();
    privileges::close_outputs();
    privileges::limit_resources();
    let _ = seccomp::confine_lookup();
    let socket = MessageSocket::from_owned(socket);
    let mut buffer = [0u8; MAX_DNS_NAME];
    loop {
        let length = match socket.receive(&mut buffer, true) {
            Ok(length) if length > 0 => length,
            _ => program::exit(ExitCode::SUCCESS),
        };
        let address = buffer
            .get(..length)
            .and_then(|text| std::str::from_utf8(text).ok());
        let Some(source) = address.and_then(|text| text.parse().ok()) else {
            program::exit(ExitCode::FAILURE);
        };
        let name = names.find(source).unwrap_or_else(|| "?".to_string());
        if socket.send(name.as_bytes(), true).is_err() {
            program::exit(ExitCode::SUCCESS);
        }
    }
}
