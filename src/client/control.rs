//! `knockd --status` and `knockd --close`: sends a request to the daemon that runs with this
//! config.
#![forbid(unsafe_code)]

use crate::cli::{KnockdArgs, eprint_line, fail, print};
use crate::config::{self, Options};
use crate::keeper::config_file;
use crate::keeper::control::{ERROR, OK, Request};
use crate::keeper::{Settings, state};
use crate::limits::{CLIENT_MS, MAX_DOOR_NAME, MAX_FILE_BYTES};
use crate::sys::error::{Error, Result};
use crate::sys::file::{self, read_all, write_all};
use crate::sys::program::{self, ExitCode};
use crate::util::path::{file_name, parent};
use crate::util::quote::printable;
use crate::util::text::shown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Returns the request on the command line.
pub fn question(args: &KnockdArgs) -> Option<Request> {
    match (args.close.clone(), args.source) {
        (Some(door), Some(source)) => Some(Request::Close {
            door,
            source: source.to_canonical(),
        }),
        _ => args.status.then_some(Request::Status { json: args.json }),
    }
}

/// Sends the request and prints the answer. Exits with 1 without an answer, or if it is an error.
pub fn main(settings: &Settings, question: &Request) -> ! {
    if let Request::Close { door, .. } = question
        && (door.len() > MAX_DOOR_NAME || door.contains('\n'))
    {
        // No door can have that name, and the request would have another meaning.
        fail(&["there is no door ", &printable(door.as_bytes())].concat());
    }
    let state_dir = settings.state_dir(&options(settings));
    let instance = &settings.instance;
    let path = instance.control(&state_dir);
    let mut connected = connect(&path);
    let mut several = false;
    if settings.args.interface.is_none() && connected.is_err() {
        // Use another instance if it is the only one.
        let mut names = String::new();
        for other in &instance.others(&state_dir) {
            if let Ok(stream) = connect(&other.control(&state_dir)) {
                let before = if names.is_empty() { "-i " } else { ", -i " };
                names.push_str(before);
                names.push_str(other.interface());
                several = connected.is_ok();
                connected = Ok(stream);
            }
        }
        if several {
            let config = settings.config.to_string_lossy();
            fail(
                &[
                    "several daemons run with ",
                    &config,
                    ": add one of ",
                    &names,
                ]
                .concat(),
            );
        }
    }
    let answer = connected
        .and_then(|stream| ask(&stream, question))
        .unwrap_or_else(|error| fail(&problem(settings, &path, error)));
    if let Some(text) = answer.strip_prefix(OK) {
        print(text);
        program::exit(ExitCode::SUCCESS);
    }
    match answer.strip_prefix(ERROR) {
        Some(text) => fail(text.trim_ascii_end()),
        // The daemon serves a few clients at a time.
        None => fail(&problem(settings, &path, Error::Os(libc::ETIMEDOUT))),
    }
}

/// Reads the options of the config. Reports errors in it, but looks for the daemon in any case.
fn options(settings: &Settings) -> Options {
    let warn = |problem: String| {
        eprint_line(&["warning: ", &problem].concat());
    };
    let text = match config_file::read(&settings.config_path()) {
        Ok(text) => text,
        Err(error) => {
            warn(error.to_string());
            return Options::default();
        }
    };
    match config::parse(&text, &mut |_| {}) {
        Ok(config) => config.options,
        Err(problem) => {
            warn(problem.show(&settings.config));
            config::salvage_options(&text)
        }
    }
}

/// Connects by the directory, as the keeper binds it: the complete path can be too long for a
/// socket.
fn connect(path: &Path) -> Result<UnixStream> {
    let directory = file::open(parent(path), libc::O_PATH | libc::O_DIRECTORY, 0)?;
    Ok(UnixStream::connect(state::within(
        &directory,
        file_name(path),
    ))?)
}

fn ask(stream: &UnixStream, question: &Request) -> Result<String> {
    // Other clients can be served first.
    stream.set_read_timeout(Some(Duration::from_millis(5 * CLIENT_MS)))?;
    write_all(stream.as_fd(), (question.line() + "\n").as_bytes())?;
    let answer = read_all(stream.as_fd(), MAX_FILE_BYTES)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn problem(settings: &Settings, path: &Path, error: Error) -> String {
    let (config, path) = (settings.config.to_string_lossy(), path.to_string_lossy());
    let reason = shown(&error);
    let parts = match error {
        Error::Os(libc::ENOENT | libc::ECONNREFUSED) => [
            "no running knockd found for ",
            &config,
            " (nothing listens on ",
            &path,
            ")",
        ],
        Error::Os(libc::EACCES) => {
            let who = "; only root and knockd's own user can ask";
            [&path, ": ", &reason, who, ""]
        }
        Error::Os(libc::EAGAIN | libc::ETIMEDOUT) => {
            ["no answer from knockd at ", &path, "; try again", "", ""]
        }
        _ => [&path, ": ", &reason, "", ""],
    };
    parts.concat()
}
