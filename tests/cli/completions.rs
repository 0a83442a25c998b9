//! The shell completions offer exactly the options of the help texts, with values where an option
//! takes one.

use knockd_rs::cli::{KNOCK, KNOCKD};
use std::collections::BTreeSet;
use std::process::Command;

const BASH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/files/completions/knockd.bash");
const ZSH: &str = include_str!("../../files/completions/knockd.zsh");
const FISH: &str = include_str!("../../files/completions/knockd.fish");

/// An option: its names with their dashes, short name first, and whether a value follows.
type Options = BTreeSet<(Vec<String>, bool)>;

/// Parses the options of a help text: `  -i, --interface <if>   listen ...`.
fn of_usage(usage: &str) -> Options {
    let lines = usage.lines().map(str::trim_start);
    lines
        .filter(|line| line.starts_with('-'))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let names = words.iter().take_while(|word| word.starts_with('-'));
            let names: Vec<String> = names.map(|name| name.replace(',', "")).collect();
            let value = words[names.len()].starts_with('<');
            (names, value)
        })
        .collect()
}

/// `{-i,--interface}'[listen on it]:interface:...`, `--check'[...]'`
fn of_zsh(block: &str) -> Options {
    let lines = block.lines().map(str::trim_start);
    lines
        .filter(|line| line.starts_with(['{', '-']))
        .map(|line| {
            let (names, rest) = line.split_once(['\'', '"']).unwrap();
            let names = names.trim_matches(['{', '}']).split(',');
            (names.map(String::from).collect(), rest.contains("]:"))
        })
        .collect()
}

/// `complete -c knockd -s i -l interface -x -a ... -d ...`
fn of_fish(program: &str) -> Options {
    FISH.lines()
        .filter(|line| line.starts_with(&format!("complete -c {program} ")))
        .filter(|line| line.contains(" -l "))
        .map(|line| {
            let after = |flag| line.split_once(flag)?.1.split(' ').next();
            let short = after(" -s ").map(|name| format!("-{name}"));
            let long = after(" -l ").map(|name| format!("--{name}"));
            let value = line.contains(" -x ") || line.contains(" -r ");
            (short.into_iter().chain(long).collect(), value)
        })
        .collect()
}

/// The completions that bash's function for this program offers for `word` after `previous`.
fn bash_offers(program: &str, word: &str, previous: &str) -> BTreeSet<String> {
    let script = format!(
        ". '{BASH}' && complete -p {program} > /dev/null && _{program} \"$@\" && printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", &script, "bash", program, word, previous])
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let words = String::from_utf8(output.stdout).unwrap();
    words.split_whitespace().map(String::from).collect()
}

#[test]
fn zsh_and_fish_complete_the_options_of_the_help_text() {
    let (client, daemon) = ZSH.split_once("\nelse\n").unwrap();
    for (program, usage, zsh) in [
        ("knockd", KNOCKD.usage, daemon),
        ("knock", KNOCK.usage, client),
    ] {
        let options = of_usage(usage);
        assert!(options.len() > 6, "{options:?}");
        assert_eq!(of_zsh(zsh), options, "zsh, {program}");
        assert_eq!(of_fish(program), options, "fish, {program}");
    }
}

#[test]
fn bash_completes_the_options_of_the_help_text() {
    for (program, usage) in [("knockd", KNOCKD.usage), ("knock", KNOCK.usage)] {
        let options = of_usage(usage);
        let names = options.iter().flat_map(|(names, _)| names.clone());
        assert_eq!(bash_offers(program, "-", program), names.collect());
        for (names, value) in &options {
            for name in names {
                let offered = bash_offers(program, "-", name).contains("--help");
                assert_eq!(offered, !value, "after {name}");
            }
        }
    }
    assert!(bash_offers("knockd", "l", "-i").contains("lo"));
    assert!(bash_offers("knockd", "", "--interface").contains("auto"));
    assert!(bash_offers("knockd", "b", "--close").contains("ban"));
}
