//! `knockd --check`: what the config means, and what is unwise about it.
#![forbid(unsafe_code)]

use super::{Settings, doors};
use crate::cli::{print, say};
use crate::config::check::{Need, advice, describe, mode_advice, needs_of};
use crate::config::{Config, Diagnostic};
use crate::quote::quote;
use crate::sys::program::ExitCode;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Prints it all on standard output; errors and exit code 1 as at a start.
pub fn main(settings: &Settings) -> ExitCode {
    let mut warnings = Vec::new();
    let checked = settings.parse(&mut |_| {}).and_then(|config| {
        let text = describe(&config);
        let show = |found: &Diagnostic| found.show(&settings.config);
        warnings.extend(config.warnings.iter().map(show));
        let commands = "its commands run as root";
        warnings.extend(mode(&settings.config_path(), commands).as_ref().map(show));
        warnings.extend(advice(&config).iter().map(show));
        missing(settings, &config, &mut warnings);
        for list in config
            .doors
            .iter()
            .filter_map(|door| door.one_time.as_ref())
        {
            let found = mode(
                &settings.directory.join(list),
                "its sequences open the door",
            );
            warnings.extend(found.map(|found| found.show(list)));
        }
        let report = &mut |problem| warnings.push(problem);
        let doors = doors::open(config.doors, &settings.directory, &mut |_| {}, report)?;
        Ok((text, doors.len()))
    });
    let (text, doors) = match checked {
        Ok(checked) => checked,
        Err(problem) => {
            say(&problem);
            return ExitCode::FAILURE;
        }
    };
    print(&text);
    for warning in &warnings {
        print(&["warning: ", warning, "\n"].concat());
    }
    let of = |number, what| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (doors, warnings) = (of(doors, "door"), of(warnings.len(), "warning"));
    print(&format!("config OK: {doors}, {warnings}\n"));
    ExitCode::SUCCESS
}

/// What is unwise about the owner and mode of a file.
fn mode(path: &Path, why: &str) -> Option<Diagnostic> {
    let found = fs::metadata(path).ok()?;
    mode_advice(found.mode(), found.uid(), why)
}

/// Names programs and interfaces that this machine does not have.
fn missing(settings: &Settings, config: &Config, warnings: &mut Vec<String>) {
    let mut lacks = |what: &str, name: &[u8]| {
        let text = format!("no {what} {} on this machine", quote(name));
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    };
    let has_interface = |name: &[u8]| {
        // eth0:1 is a label of eth0. Without /sys nothing can be told.
        let device = name.split(|b| *b == b':').next().unwrap_or(name);
        let all = Path::new("/sys/class/net");
        matches!(device, b"any" | b"auto")
            || !all.join("lo").exists()
            || all.join(OsStr::from_bytes(device)).exists()
    };
    for name in settings.interface(&config.options).split(',') {
        if !has_interface(name.as_bytes()) {
            lacks("interface", name.as_bytes());
        }
    }
    for need in needs_of(config) {
        match need {
            Need::Interface(name) if !has_interface(name) => lacks("interface", name),
            Need::Program(name) if !has_program(name) => lacks("program", name),
            _ => {}
        }
    }
}

/// Whether the shell finds such a program, or knows the word itself.
fn has_program(name: &[u8]) -> bool {
    // Of POSIX, dash and busybox; where the daemon looks may differ from where we look.
    const WORDS: &str = "! . : alias bg break case cd command continue do echo else eval exec exit export false fg for getopts hash if jobs kill local \
                         printf pwd read readonly return set shift source test then times trap true type ulimit umask unset until wait while";
    const FOLDERS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/sbin:/opt/bin:/jffs/usr/sbin";
    if WORDS
        .as_bytes()
        .split(|b| *b == b' ')
        .any(|word| word == name)
    {
        return true;
    }
    let name = Path::new(OsStr::from_bytes(name));
    if name.components().count() > 1 {
        return !name.is_absolute() || name.exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [path.as_bytes(), FOLDERS.as_bytes()].join(&b':');
    folders
        .split(|b| *b == b':')
        .any(|folder| Path::new(OsStr::from_bytes(folder)).join(name).exists())
}
