//! knockd-rs: a port-knock daemon for home routers, a drop-in for knockd 0.8.
//!
//! Two processes: the **listener** reads the network without root and reports to the **keeper**,
//! which has root, what opened. The keeper runs the commands and closes every door again. Every
//! decision is a pure function of (state, input, now). Only [`sys`] has unsafe code.
//! `docs/architecture.md` has the picture.
//!
//! The modules are in the order of their dependencies: each imports only from those above it
//! (`tests/tree.rs`).
#![deny(unsafe_code)]

// Every limit that costs memory or time, with its reason.
pub mod limits;

// Small tools that are not about knocking: time, numbers, paths, text.
pub mod util;

// System calls; the only unsafe code.
pub mod sys;

// The shared vocabulary: step, sequence, knock, door, tripwire.
pub mod knock;

// From the kernel to a knock: interfaces, packet filter, packets.
pub mod capture;

// Signed knocks: keys, packets, and what a packet can do.
pub mod keys;

// Knocks to events: the progress of each source at each door.
pub mod matcher;

// The leases: open doors with source and deadline; and their journal.
pub mod lease;

// The messages between the two processes.
pub mod ipc;

// Names to addresses, and back.
pub mod resolve;

// From the text of a config file to a config.
pub mod config;

// Command lines and output.
pub mod cli;

// The process that reads the network, without root.
pub mod listener;

// The process that runs commands, with root.
pub mod keeper;

// `knockd --check`.
pub mod check;

// `knock`, and `knockd --status` and `--close`.
pub mod client;
