//! Small tools that are not about knocking. Every other module may use them.
#![forbid(unsafe_code)]

pub mod bpf;
pub mod number;
pub mod path;
pub mod process;
pub mod quote;
pub mod text;
pub mod time;
pub mod token_bucket;
