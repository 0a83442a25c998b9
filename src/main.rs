//! One binary, two programs: `knock` if called by that name, otherwise `knockd`. The daemon
//! executes it under two more names for its other processes.
#![no_main]
#![deny(unsafe_code)]

use knockd_rs::keeper::Settings;
use knockd_rs::sys::memory::Memory;
use knockd_rs::sys::privileges;
use knockd_rs::{check, cli, client, keeper, listener, resolve};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

knockd_rs::program!(program);

#[global_allocator]
static MEMORY: Memory = Memory;

fn program(argv: &'static [OsString]) -> ! {
    // A core dump would contain the sequences.
    privileges::forbid_dumps();
    if privileges::lends_rights() {
        cli::fail(
            "refused: this file lets everyone who starts it watch the network; without the set-user-ID bit, chown root:GROUP and chmod 0750 it",
        );
    }
    let program = argv.first().map_or(&[][..], |name| name.as_bytes());
    if program == listener::PROGRAM.to_bytes() {
        listener::main();
    }
    if program == resolve::process::PROGRAM.to_bytes() {
        resolve::process::main();
    }
    if client::is_called_by(argv) {
        client::main(argv);
    }
    knockd(Settings::new(cli::knockd(argv).settle(&cli::KNOCKD)))
}

/// Runs the daemon, or a request of the user to it.
fn knockd(settings: Settings) -> ! {
    if settings.args.check {
        check::main(&settings);
    }
    if let Some(question) = client::control::question(&settings.args) {
        client::control::main(&settings, &question);
    }
    keeper::start(settings)
}
