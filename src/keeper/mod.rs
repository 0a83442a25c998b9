//! The privileged process: runs the commands, keeps the leases and writes the log. It reads no
//! packets.
#![forbid(unsafe_code)]

mod commands;
pub(crate) mod config_file;
pub mod control;
pub(crate) mod doors;
mod listener_process;
pub mod log;
mod one_time;
mod process;
mod run;
mod secure_open;
mod settings;
mod start;
pub(crate) mod state;
mod status;

pub use settings::Settings;
pub use start::start;
