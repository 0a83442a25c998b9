//! `knockd --check`: what the config means, and what is unwise about it.
#![forbid(unsafe_code)]

use super::Settings;
use crate::cli::{print, say};
use crate::config::check::{advice, describe, mode_advice};
use crate::sys::program::ExitCode;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Prints it all on standard output; errors and exit code 1 as at a start.
pub fn main(settings: &Settings) -> ExitCode {
    let mut reports = Vec::new();
    let loaded = settings.load(&mut |_| {}, &mut |problem| reports.push(problem));
    let (config, _) = match loaded {
        Ok(loaded) => loaded,
        Err(problem) => {
            say(&problem);
            return ExitCode::FAILURE;
        }
    };
    print(&describe(&config).to_string());
    let mode = fs::metadata(settings.config_path());
    let mode = mode
        .ok()
        .and_then(|found| mode_advice(found.mode(), found.uid()));
    let advice = advice(&config);
    let warnings = config.warnings.iter().chain(&mode).chain(&advice);
    for text in warnings
        .map(|warning| warning.show(&settings.config))
        .chain(reports)
    {
        print(&["warning: ", &text, "\n"].concat());
    }
    ExitCode::SUCCESS
}
