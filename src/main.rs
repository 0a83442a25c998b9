//! One binary, two programs: `knock` when called by that name, otherwise `knockd`.
#![forbid(unsafe_code)]

use knockd_rs::{cli, client};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    if client::is_called_by(&argv) {
        client::main(&argv)
    } else {
        daemon(&argv)
    }
}

fn daemon(argv: &[OsString]) -> ExitCode {
    match cli::knockd(argv).settle(&cli::KNOCKD) {
        Ok(_args) => {
            // keeper::main(_args) belongs here
            eprintln!("knockd: not built yet");
            ExitCode::FAILURE
        }
        Err(status) => status.into(),
    }
}
