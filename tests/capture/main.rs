//! From bytes to knocks: what a packet is decoded to, and what the kernel filter, run by our own interpreter, lets pass.
#![forbid(unsafe_code)]

mod decode;
mod filter;
mod interpret;
mod packets;
mod room;
mod world;
