//! The unprivileged process: packets in, records to the keeper out. It knows what opens each door, never what
//! opening means.
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

/// The name that the keeper calls this program by, to make it a listener. Not `knockd`: `pidof knockd` is the keeper alone.
pub const PROGRAM: &CStr = c"knockd-listener";

/// Text for a person about an error of the system.
fn told(what: &str, error: Error) -> String {
    [what, ": ", &shown(&error)].concat()
}

/// The next record, waited for; `None` when the keeper is gone or talks nonsense.
fn receive(keeper: &MessageSocket) -> Option<ToListener> {
    let mut buffer = [0u8; MAX_RECORD];
    let length = keeper.receive(&mut buffer, true).ok()?;
    ToListener::decode(buffer.get(..length)?)
}
