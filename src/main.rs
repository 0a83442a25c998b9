//! One binary, two programs: `knock` when called by that name, otherwise `knockd`.

fn main() {}
