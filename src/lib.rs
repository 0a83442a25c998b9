//! knockd-rs: a port-knock daemon for home routers, a drop-in for knockd 0.8.
//!
//! Two processes: the **listener** reads the network without root and tells the **keeper**, which has root,
//! what opened; the keeper runs the commands and closes every door again. Whatever decides is a pure function
//! of (state, input, now); the only module with unsafe code is [`sys`].
//! `docs/architecture.md` has the picture.
#![deny(unsafe_code)]

pub mod capture;
pub mod cli;
pub mod client;
pub mod config;
pub mod ipc;
pub mod keeper;
pub mod knock;
pub mod lease;
pub mod limits;
pub mod listener;
pub mod matcher;
pub mod resolve;
pub mod status;
pub mod sys;
pub mod util;
