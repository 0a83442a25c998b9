//! Configs that people use (`wild/*.conf`). Both programs must accept or refuse each of them alike,
//! or a row of docs/differences.md explains why not. Our `--check` must print what is in
//! `wild/*.check`, which was reviewed.

use crate::lab::{Home, daemon_binary, is_original, wait_for};
use crate::lane::{Lanes, start};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Configs that only one of the programs accepts, and the row for it.
pub const UNLIKE: &[(&str, &str)] = &[
    ("mistake-flags", "D-CFG-10"),
    ("mistake-quotes", "D-CFG-02"),
];
/// Configs that both refuse.
const REFUSED: &[&str] = &["mistake-icmp", "mistake-syslog", "one-time"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/wild")
}

/// One trial for each file.
pub fn trials(lanes: &Arc<Lanes>) -> Vec<(String, Box<dyn FnOnce() + Send>)> {
    let mut names: Vec<String> = fs::read_dir(directory())
        .expect("wild")
        .filter_map(|entry| {
            Some(
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".conf")?
                    .to_string(),
            )
        })
        .collect();
    names.sort_unstable();
    assert!(names.len() >= 25);
    let mut trials: Vec<(String, Box<dyn FnOnce() + Send>)> = Vec::new();
    for name in names {
        let lanes = Arc::clone(lanes);
        trials.push((
            format!("wild::{name}"),
            Box::new(move || check(&lanes, &name)),
        ));
    }
    trials
}

fn check(lanes: &Lanes, name: &str) {
    let home = Home::new();
    let text = fs::read(directory().join(format!("{name}.conf"))).expect("config");
    fs::write(home.path("conf"), text).expect("write");
    let started = lanes.with(|lane| {
        let conf = home.path("conf").display().to_string();
        let args = ["-v", "-i", "s0", "-c", &conf].map(String::from);
        let mut daemon = start(&daemon_binary(), &lane.server, &home, &args);
        wait_for("the start or the end of the daemon", || {
            (daemon.is_ready() || daemon.ended().is_some()).then_some(())
        });
        let started = daemon.ended().is_none();
        if !started {
            assert_eq!(daemon.ended().and_then(|status| status.code()), Some(1));
        }
        started
    });
    let unlike = UNLIKE.iter().any(|(known, _)| *known == name);
    let accepted = match (unlike, is_original()) {
        // The original refuses spaces, ours refuses quotes.
        (true, original) => original == (name == "mistake-quotes"),
        (false, _) => !REFUSED.contains(&name),
    };
    assert_eq!(started, accepted, "accepted");
    if !is_original() {
        let found = reading(&home, accepted);
        let file = directory().join(format!("{name}.check"));
        if std::env::var_os("COMPAT_RECORD").is_some() {
            fs::write(&file, &found).expect("write");
        }
        let known = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            found,
            known,
            "COMPAT_RECORD=1 writes it to {}",
            file.display()
        );
    }
}

/// The output of `--check` without what depends on the machine: missing programs and interfaces,
/// and the number of warnings. Only those options that the config contains.
fn reading(home: &Home, accepted: bool) -> String {
    use std::os::unix::fs::PermissionsExt;
    let conf = home.path("conf");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).expect("chmod");
    let mut command = Command::new(daemon_binary());
    let output = command
        .arg("--check")
        .arg("-c")
        .arg(&conf)
        .output()
        .expect("--check");
    assert_eq!(output.status.success(), accepted);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
    let verdict = text.lines().last().expect("a line");
    if accepted {
        let warnings = text.matches("\nwarning: ").count();
        assert!(verdict.starts_with("config OK: "), "{verdict}");
        assert!(
            verdict.contains(&format!(", {warnings} warning")),
            "{verdict}"
        );
    }
    let depends =
        |line: &&str| !line.ends_with(" on this machine") && !line.starts_with("config OK: ");
    let keys = fs::read_to_string(&conf).unwrap_or_default().to_lowercase();
    let mut in_options = true;
    let is_given = |line: &&str| {
        in_options &= !line.is_empty();
        let key = line
            .strip_prefix("  ")
            .and_then(|line| line.split(' ').next());
        !in_options || key.is_none_or(|key| keys.contains(&key.to_lowercase()))
    };
    let lines: Vec<&str> = text.lines().filter(depends).filter(is_given).collect();
    (lines.join("\n") + "\n").replace(&conf.display().to_string(), "conf")
}
