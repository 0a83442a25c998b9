//! From the kernel to a knock: the interfaces of `-i`, the filter of their sockets, and the
//! decoding of packets.
#![forbid(unsafe_code)]

pub mod filter;
pub mod interfaces;
pub mod packet;
