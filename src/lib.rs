//! knockd-rs: a port-knock daemon for home routers, a drop-in for knockd 0.8.
//!
//! Two processes: the **listener** reads the network without root and tells the **keeper**, which has root,
//! what opened; the keeper runs the commands and closes every door again. Whatever decides is a pure function
//! of (state, input, now); the only module with unsafe code is [`sys`].
//! `docs/architecture.md` has the picture.
#![deny(unsafe_code)]

pub mod cli;
pub mod client;
pub mod config;
pub mod dns;
pub mod door;
pub mod filter;
pub mod host_files;
pub mod interfaces;
pub mod keeper;
pub mod lease;
pub mod limits;
pub mod listener;
pub mod matcher;
pub mod names;
pub mod network;
pub mod packet;
pub mod record;
pub mod status;
pub mod sys;
pub mod tripwire;
pub mod util;
pub mod zone;
