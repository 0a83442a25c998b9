//! `knockd --check`: what the config means, and what is unwise about it.
#![forbid(unsafe_code)]

use super::{Settings, doors};
use crate::config::check::{advice, describe, mode_advice};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

/// Prints it all on standard output; errors and exit code 1 as at a start.
pub fn main(settings: &Settings) -> ExitCode {
    let mut reports = Vec::new();
    let checked = settings.parse(&mut |_| {}).and_then(|config| {
        let (text, advice) = (describe(&config), advice(&config));
        doors::open(
            config.doors,
            &settings.directory,
            &mut |_| {},
            &mut |problem| reports.push(problem),
        )?;
        Ok((text, config.warnings, advice))
    });
    let mut out = io::stdout();
    let (text, warnings, advice) = match checked {
        Ok(checked) => checked,
        Err(problem) => {
            let _ = writeln!(io::stderr(), "{problem}");
            return ExitCode::FAILURE;
        }
    };
    let _ = out.write_all(text.as_bytes());
    let mode = fs::metadata(settings.config_path());
    let mode = mode
        .ok()
        .and_then(|found| mode_advice(found.mode(), found.uid()));
    let warnings = warnings.iter().chain(&mode).chain(&advice);
    for text in warnings
        .map(|warning| warning.show(&settings.config))
        .chain(reports)
    {
        let _ = writeln!(out, "warning: {text}");
    }
    ExitCode::SUCCESS
}
