//! From bytes to knocks: how packets are decoded, and what the kernel filter passes when our own
//! interpreter runs it.
#![forbid(unsafe_code)]

mod decode;
mod filter;
mod interpret;
mod packets;
mod room;
mod world;
