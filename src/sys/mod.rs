//! System calls that std lacks or implements with too much code, and all unsafe code. Each file
//! wraps one facility in safe functions and makes no decisions.
#![allow(unsafe_code)]

pub mod clock;
pub mod daemon;
pub mod directory;
pub mod error;
pub mod exec;
pub mod file;
pub mod knocker;
pub mod memory;
pub mod message_socket;
pub mod netlink;
pub mod packet_socket;
pub mod poll;
pub mod privileges;
pub mod program;
pub mod random;
mod raw_address;
pub mod seccomp;
pub mod signals;
