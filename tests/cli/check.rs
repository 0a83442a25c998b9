//! What `knockd --check` reports about files and this machine, which the config alone does not
//! contain.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

/// Runs `knockd --check` in its own directory with this config and a one-time list `once`.
fn check_beside(config: &str, list_mode: u32) -> Output {
    use std::os::unix::fs::PermissionsExt;
    let (process, thread) = (std::process::id(), std::thread::current().id());
    let home = std::env::temp_dir().join(format!("knockd-check-{process}-{thread:?}"));
    std::fs::create_dir_all(&home).unwrap();
    for (name, text, mode) in [("k.conf", config, 0o600), ("once", " 1,2,3\n", list_mode)] {
        std::fs::write(home.join(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(home.join(name), mode).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_knockd"))
        .args(["--check", "-c", "k.conf"])
        .current_dir(&home)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&home).unwrap();
    output
}

/// Like [`check_beside`], but returns standard output.
fn check(config: &str) -> String {
    let output = check_beside(config, 0o600);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn check_refuses_a_list_that_others_can_write_as_a_start_does() {
    let config = "[B]\none_time_sequences = once\ntcpflags = syn\n";
    let output = check_beside(config, 0o620);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("once: others own it or can write to it"),
        "{stderr}"
    );
}

/// The last line of `--check` for this number of warnings, plus one for each file if an
/// unprivileged user owns it.
fn verdict(doors: &str, warnings: usize, files: usize) -> String {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    match warnings + if is_root { 0 } else { files } {
        1 => format!("config OK: {doors}, 1 warning"),
        count => format!("config OK: {doors}, {count} warnings"),
    }
}

/// Without eth0 a start uses `auto`.
#[test]
fn check_accepts_a_missing_interface_that_no_key_names() {
    let said = check("[A]\nsequence = 9,4,7,4\ntcpflags = syn\n");
    assert!(!said.contains("no interface"), "{said}");
}

#[test]
fn check_names_what_this_machine_lacks_and_ends_with_a_verdict() {
    let good = "[options]\nInterface = lo\n[A]\nsequence = 9,4,7,4\ntcpflags = syn\n";
    let said = check(good);
    assert_eq!(
        said.lines().last(),
        Some(&*verdict("1 door", 0, 1)),
        "{said}"
    );
    let keys = "start_command = /usr/sbin/no_such_helper insert tcp %IP% 22\n\
                stop_command = /no/such -i x; cd /; other\n";
    let rules = "[B]\none_time_sequences = once\ntcpflags = syn\n\
                 command = sh -c 'nothing; no'\nstop_command = true -i eht0; test -f x && exit\n";
    let config = format!("{good}{keys}{rules}");
    let said = check(&config.replace("= lo", "= lo,eht1,lo:1"));
    let warnings: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("arning") && !line.contains("owns this file"))
        .collect();
    assert_eq!(
        warnings,
        [
            "warning: no interface 'eht1' on this machine",
            "warning: no program '/usr/sbin/no_such_helper' on this machine",
            "warning: no program '/no/such' on this machine",
            &verdict("2 doors", 3, 2),
        ]
    );
    let rule = "command = iptables -I INPUT -i eht0 -s %IP% -j ACCEPT\nstop_command = true\n";
    assert!(
        check(&format!("{good}{rule}")).contains("warning: no interface 'eht0' on this machine\n")
    );
}
