//! Compares figures with knockd 0.8: both daemons in one run, in turn, each on its own network. See
//! scripts/bench.
#![allow(clippy::unwrap_used)] // A failed measurement ends the run.

mod figures;
mod subject;
mod table;

use knockd_testlab as lab;
use std::path::{Path, PathBuf};
use subject::{ORIGINAL, Subject};
use table::Table;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments
        .iter()
        .position(|argument| argument == "--json")
        .map(|at| {
            arguments.remove(at);
            arguments.remove(at)
        });
    if let Some(reason) = lab::missing() {
        eprintln!("cannot measure here: {reason}");
        std::process::exit(1);
    }
    if !Path::new(ORIGINAL).exists() {
        eprintln!("{ORIGINAL} is missing; scripts/bench installs it");
        std::process::exit(1);
    }
    lab::sweep();
    let ours = Subject {
        binary: lab::daemon_binary(),
        is_original: false,
    };
    let original = Subject {
        binary: PathBuf::from(ORIGINAL),
        is_original: true,
    };
    let mut table = Table::default();
    let is_wanted = |name: &str| {
        arguments.is_empty()
            || arguments
                .iter()
                .any(|wanted| name.contains(wanted.as_str()))
    };
    let wanted = figures::ALL.iter().filter(|(name, _)| is_wanted(name));
    let count = wanted.clone().count();
    for (index, (name, measure)) in wanted.enumerate() {
        eprintln!("measuring {} of {count}: {name} ...", index + 1);
        measure(&ours, &original, &mut table);
    }
    print!("{}", table.text());
    if let Some(path) = json {
        std::fs::write(&path, table.json()).expect("the file for --json");
    }
}
