//! The same behaviour as knockd 0.8: one suite that runs against it and against this program.
//!
//! KNOCKD_BIN and KNOCK_BIN select the programs to test; `scripts/compat` sets them. The recordings
//! of knockd 0.8 are in `golden.json` and `more.json`. `ours.json` lists this program's
//! differences, each with a row of docs/differences.md.
#![allow(clippy::unwrap_used)] // A test panics by design.

mod case;
mod generate;
mod generated;
mod lane;
mod life;
mod model;
mod packet;
mod play;
mod recorded;
mod rows;
mod wild;

use knockd_testlab as lab;
use lane::Lanes;
use libtest_mimic::{Arguments, Completion, Trial};
use std::sync::Arc;

fn main() -> std::process::ExitCode {
    let mut args = Arguments::from_args();
    // The cases mostly wait, so more of them run at once than there are CPUs.
    args.test_threads.get_or_insert(10);
    let missing = if args.list { None } else { lab::missing() };
    match &missing {
        Some(reason) => eprintln!("the compatibility tests are skipped: {reason}"),
        None if !args.list => lab::sweep(),
        None => {}
    }
    let lanes = Arc::new(Lanes::default());
    let plain: [(&str, fn()); 3] = [
        (
            "tokens_mean_what_they_say",
            packet::tokens_mean_what_they_say,
        ),
        (
            "generated_cases_show_enough",
            generated::generated_cases_show_enough,
        ),
        ("only_places_are_left_out", play::only_places_are_left_out),
    ];
    let mut trials: Vec<Trial> = Vec::new();
    for (name, test) in plain {
        trials.push(trial(name.to_string(), &None, Box::new(test)));
    }
    let recorded = recorded::trials(&lanes);
    for (name, test) in recorded.into_iter().chain(wild::trials(&lanes)) {
        trials.push(trial(name, &missing, test));
    }
    for (name, _, test) in life::tests() {
        trials.push(trial(format!("life::{name}"), &missing, Box::new(test)));
    }
    trials.push(trial(
        "every_difference_is_shown".to_string(),
        &None,
        Box::new(rows::every_difference_is_shown),
    ));
    let no_original = missing.clone().or_else(generated::missing);
    if let (None, Some(reason)) = (&missing, &no_original) {
        eprintln!("the generated cases are skipped: {reason}");
    }
    for (name, test) in generated::trials(&lanes) {
        trials.push(trial(name, &no_original, test));
    }
    let conclusion = libtest_mimic::run(&args, trials);
    drop(lanes);
    lab::remove_knock_link();
    conclusion.exit_code()
}

fn trial(name: String, missing: &Option<String>, test: Box<dyn FnOnce() + Send>) -> Trial {
    let missing = missing.clone();
    Trial::ignorable_test(name, move || {
        if let Some(reason) = missing {
            return lab::not_run(reason);
        }
        test();
        Ok(Completion::Completed)
    })
}
