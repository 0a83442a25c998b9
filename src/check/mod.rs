//! `knockd --check`: describes a config ([`describe`]), and what is valid in it but unwise
//! ([`advice`]).
#![forbid(unsafe_code)]

mod advice;
mod describe;
#[cfg(test)]
mod docs;
mod shadow;

pub use advice::{advice, needs_of};
pub use describe::describe;

use crate::cli::{fail, print};
use crate::config::shell::Need;
use crate::config::{Config, Diagnostic};
pub use crate::keeper::config_file::mode_advice;
use crate::keeper::{Settings, doors};
use crate::knock::Trigger;
use crate::sys::file;
use crate::sys::program::{self, ExitCode};
use crate::util::quote::quote;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Prints everything on standard output. Errors and exit code 1 are as at a start.
pub fn main(settings: &Settings) -> ! {
    let mut warnings = Vec::new();
    let checked = settings.parse(&mut |_| {}).and_then(|mut config| {
        let text = describe(&mut config);
        let mut unwise = advice(&config);
        config.warnings.append(&mut unwise);
        for found in &config.warnings {
            warnings.push(found.show(&settings.config));
        }
        missing(settings, &config, &mut warnings);
        for door in &config.doors {
            if let Trigger::OneTime(list) = &door.trigger
                && let Some(found) = mode(
                    &settings.directory.join(list),
                    "its sequences open the door",
                )
            {
                warnings.push(found.show(list));
            }
        }
        let report = &mut |problem| warnings.push(problem);
        let doors = doors::open(
            config.doors,
            &settings.directory,
            &config.options,
            &mut |_| {},
            report,
        )?;
        Ok((text, doors.len()))
    });
    let (mut text, doors) = checked.unwrap_or_else(|problem| fail(&problem));
    for warning in &warnings {
        text.push_str(&["warning: ", warning, "\n"].concat());
    }
    let plural = |number| if number == 1 { "" } else { "s" };
    let number = warnings.len();
    let verdict = format!(
        "config OK: {doors} door{}, {number} warning{}\n",
        plural(doors),
        plural(number)
    );
    print(&(text + &verdict));
    program::exit(ExitCode::SUCCESS)
}

/// Returns advice about the owner and mode of a file.
fn mode(path: &Path, why: &str) -> Option<Box<Diagnostic>> {
    let found = file::find(path).ok()?;
    mode_advice(found.mode, found.user, why)
}

/// Warns of programs and interfaces that this machine does not have.
fn missing(settings: &Settings, config: &Config, warnings: &mut Vec<String>) {
    let mut check = |need: Need<'_>| {
        let (what, name, exists) = match need {
            Need::Program(name) => ("program ", name, exists(name)),
            Need::Interface(name) => {
                // eth0:1 is a label of eth0. Without /sys there is no way to know.
                let device = name.split(|b| *b == b':').next().unwrap_or(name);
                let link = |name: &[u8]| {
                    let links = Path::new("/sys/class/net");
                    file::find(&links.join(OsStr::from_bytes(name))).is_ok()
                };
                (
                    "interface ",
                    name,
                    matches!(device, b"any" | b"auto") || link(device) || !link(b"lo"),
                )
            }
        };
        let text = ["no ", what, &quote(name), " on this machine"].concat();
        if !exists && !warnings.contains(&text) {
            warnings.push(text);
        }
    };
    // Without a name, a start uses `auto` if there is no eth0.
    let named = (settings.args.interface.as_ref()).or(config.options.interface.as_ref());
    if let Some(names) = named {
        for name in names.split(',') {
            check(Need::Interface(name.as_bytes()));
        }
    }
    needs_of(config, &mut check);
}

fn exists(path: &[u8]) -> bool {
    file::find(Path::new(OsStr::from_bytes(path))).is_ok()
}
