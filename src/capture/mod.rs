//! From the kernel to a knock: which interfaces are meant, the filter in front of their sockets, and what a packet says.
#![forbid(unsafe_code)]

pub mod filter;
pub mod interfaces;
pub mod packet;
