//! The unprivileged process: reads packets and sends records to the keeper. It knows what opens
//! each door, but not the commands.
#![forbid(unsafe_code)]

mod follow;
mod output;
mod pace;
mod run;
mod start;

use crate::ipc::ToListener;
use crate::limits::MAX_RECORD;
use crate::sys::error::Error;
use crate::sys::message_socket::MessageSocket;
use crate::util::text::shown;
use std::ffi::CStr;

pub use start::main;

/// The program name under which the keeper executes itself as the listener. It is not `knockd`, so
/// that `pidof knockd` finds only the keeper.
pub const PROGRAM: &CStr = c"knockd-listener";

/// Puts the context before the text of an error.
fn with_context(what: &str, error: Error) -> String {
    [what, ": ", &shown(&error)].concat()
}

/// Waits for the next record. Returns `None` if the keeper has ended or sent a malformed record.
fn receive(keeper: &MessageSocket) -> Option<ToListener> {
    let mut buffer = [0u8; MAX_RECORD];
    let length = keeper.receive(&mut buffer, true).ok()?;
    ToListener::decode(buffer.get(..length)?)
}
