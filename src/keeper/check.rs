//! `knockd --check`: what the config means, and what is unwise about it.
#![forbid(unsafe_code)]

use super::{Settings, doors};
use crate::cli::{print, say};
use crate::config::check::{advice, describe};
use crate::sys::program::ExitCode;

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
    let (text, warnings, advice) = match checked {
        Ok(checked) => checked,
        Err(problem) => {
            say(&problem);
            return ExitCode::FAILURE;
        }
    };
    print(&text);
    let warn = |text: &str| print(&["warning: ", text, "\n"].concat());
    for warning in warnings.iter().chain(&advice) {
        warn(&warning.show(&settings.config));
    }
    for report in &reports {
        warn(report);
    }
    ExitCode::SUCCESS
}
