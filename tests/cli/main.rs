//! The command lines: the output of each, the text of each error, and which error has priority.
#![allow(clippy::unwrap_used)] // A test may panic.

mod check;
mod completions;
mod getopt;

use knockd_rs::cli::{self, KNOCK, KNOCKD, KnockArgs, KnockdArgs, Outcome, default_config};
use knockd_rs::knock::Protocol;
use knockd_rs::resolve::Family;
use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn argv(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn knockd(line: &str) -> Outcome<KnockdArgs> {
    cli::knockd(&argv(&format!("knockd {line}")))
}

fn knock(line: &str) -> Outcome<KnockArgs<'static>> {
    cli::knock(argv(&format!("knock {line}")).leak())
}

fn run<T>(outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Run(args) => args,
        Outcome::Version => panic!("version"),
        Outcome::Usage(error) => panic!("usage: {error:?}"),
        Outcome::Refuse(error) => panic!("refused: {error}"),
    }
}

fn usage_error<T>(outcome: Outcome<T>) -> String {
    match outcome {
        Outcome::Usage(Some(error)) => error,
        _ => panic!("no error"),
    }
}

#[test]
fn knockd_fills_every_option() {
    let all = KnockdArgs {
        interface: Some("ppp0,vlan1".into()),
        daemon: true,
        config: Some("/jffs/etc/knockd.conf".into()),
        debug: true,
        lookup: true,
        pid_file: Some("/tmp/p".into()),
        log_file: Some("/tmp/g".into()),
        verbose: true,
        only_ip_v4: true,
        check: true,
        strict: true,
        status: true,
        json: true,
        close: Some("SSH".into()),
        source: "fd09::2".parse().ok(),
    };
    let short = "-i ppp0,vlan1 -d -c /jffs/etc/knockd.conf -D -l -p /tmp/p -g /tmp/g -v -4";
    let ours = "--check --strict --status --json --close SSH fd09::2";
    assert_eq!(run(knockd(&format!("{short} {ours}"))), all);
    let joined = "--strict -dDlv4ippp0,vlan1 --conf=/jffs/etc/knockd.conf --p /tmp/p --log=/tmp/g";
    let ours = "fd09::2 --check --json --close=SSH --status";
    assert_eq!(run(knockd(&format!("{joined} {ours}"))), all);
    assert_eq!(run(knockd("")), KnockdArgs::default());
    assert_eq!(run(cli::knockd(&[])), KnockdArgs::default());
}

#[test]
fn questions_to_the_daemon_are_checked() {
    let refused = |line| match knockd(line) {
        Outcome::Refuse(error) => error,
        _ => panic!("{line}"),
    };
    for line in ["--close SSH", "--close SSH nonsense", "--close SSH ::1 ::2"] {
        let error = refused(line);
        assert!(
            error.starts_with("knockd: --close takes a door and the address"),
            "{error}"
        );
    }
    for line in ["--check my.conf", "--status my.conf --json"] {
        assert_eq!(
            refused(line),
            "knockd: unexpected argument 'my.conf'; did you mean: knockd --check -c my.conf"
        );
    }
    assert_eq!(refused("--json"), "knockd: --json goes with --status");
    assert_eq!(
        usage_error(knockd("--close")),
        "knockd: option '--close' requires an argument"
    );
    // No abbreviations, as for all of our own options.
    assert_eq!(
        usage_error(knockd("--stat")),
        "knockd: unrecognized option '--stat'"
    );
}

#[test]
fn the_last_repeat_wins_and_operands_are_ignored() {
    let args = run(knockd("stray -c a -vv help -c b -- -d --bogus"));
    let expected = KnockdArgs {
        config: Some("b".into()),
        verbose: true,
        ..Default::default()
    };
    assert_eq!(args, expected);
}

#[test]
fn a_value_may_look_like_an_option() {
    assert_eq!(
        run(knockd("-c --help -i -- -d")).config,
        Some("--help".into())
    );
    assert_eq!(run(knockd("-i -- -d")).interface.as_deref(), Some("--"));
    assert_eq!(run(knockd("--config=")).config, Some("".into()));
}

#[test]
fn every_error_has_glibcs_words() {
    for (line, words) in [
        ("-z", "invalid option -- 'z'"),
        ("-dz", "invalid option -- 'z'"),
        ("-:", "invalid option -- ':'"),
        ("-i", "option requires an argument -- 'i'"),
        ("-dc", "option requires an argument -- 'c'"),
        ("--bogus", "unrecognized option '--bogus'"),
        ("--bogus=1", "unrecognized option '--bogus=1'"),
        ("--config", "option '--config' requires an argument"),
        ("--c", "option '--config' requires an argument"),
        ("--daemon=1", "option '--daemon' doesn't allow an argument"),
        ("--de=1", "option '--debug' doesn't allow an argument"),
        ("--check=1", "option '--check' doesn't allow an argument"),
        (
            "--lo",
            "option '--lo' is ambiguous; possibilities: '--lookup' '--logfile'",
        ),
        (
            "--d=1",
            "option '--d=1' is ambiguous; possibilities: '--debug' '--daemon'",
        ),
        (
            "--v",
            "option '--v' is ambiguous; possibilities: '--verbose' '--version'",
        ),
    ] {
        assert_eq!(
            usage_error(knockd(line)),
            format!("knockd: {words}"),
            "{line}"
        );
    }
    let ambiguous = "option '--ip' is ambiguous; possibilities: '--ipv4' '--ipv6'";
    assert_eq!(
        usage_error(knock("--ip h 1")),
        format!("knock: {ambiguous}")
    );
    let by_path = cli::knockd(&argv("/usr/sbin/knockd -z"));
    assert_eq!(
        usage_error(by_path),
        "/usr/sbin/knockd: invalid option -- 'z'"
    );
}

#[test]
fn our_options_take_no_abbreviation_from_those_of_0_8() {
    assert_eq!(run(knockd("--c file")).config, Some("file".into()));
    for line in ["--chec", "--ch", "--s", "--stric", "--strict1"] {
        assert_eq!(
            usage_error(knockd(line)),
            format!("knockd: unrecognized option '{line}'")
        );
    }
}

#[test]
fn version_help_and_the_first_error_go_by_order() {
    assert_eq!(knockd("-dVh -z"), Outcome::Version);
    assert_eq!(knockd("-hV"), Outcome::Usage(None));
    assert_eq!(knockd("stray --help --bogus"), Outcome::Usage(None));
    assert_eq!(
        usage_error(knockd("-z -V")),
        "knockd: invalid option -- 'z'"
    );
    assert_eq!(
        usage_error(knockd("--bogus -h")),
        "knockd: unrecognized option '--bogus'"
    );
    assert_eq!(knockd("-- -V -z"), Outcome::Run(KnockdArgs::default()));
    assert_eq!(knock("-V"), Outcome::Version);
    assert_eq!(knock("-d junk -V"), Outcome::Version);
}

#[test]
fn knock_fills_every_option() {
    let args = run(knock(
        "-v -d 300 -6 router.example 7000 8000:udp 9000:tcp ssh",
    ));
    assert_eq!(args.host, "router.example");
    assert_eq!(args.delay, 300);
    assert_eq!((args.family, args.verbose), (Family::V6, true));
    let steps: Vec<_> = args.steps.iter().map(|s| (s.port, s.protocol)).collect();
    let tcp = Protocol::Tcp;
    assert_eq!(
        steps,
        [
            ("7000", tcp),
            ("8000", Protocol::Udp),
            ("9000", tcp),
            ("ssh", tcp)
        ]
    );
    assert!(args.steps.iter().all(|s| s.unknown_protocol.is_none()));
}

#[test]
fn of_ipv4_and_ipv6_the_last_wins() {
    assert_eq!(run(knock("-4 -6 h 1")).family, Family::V6);
    assert_eq!(run(knock("-6 --ipv4 h 1")).family, Family::V4);
    assert_eq!(run(knock("-464 h 1")).family, Family::V4);
    assert_eq!(run(knock("-6 -v -4 h -u 1 -6")).family, Family::V6);
    assert_eq!(run(knock("h 1")).family, Family::Any);
}

#[test]
fn only_lower_case_udp_is_udp() {
    let args = run(knock("h 1:UDP 2:foo 3:udp:x 4: 5:udp :udp"));
    let steps: Vec<_> = args
        .steps
        .iter()
        .map(|s| (s.port, s.protocol == Protocol::Udp, s.unknown_protocol))
        .collect();
    assert_eq!(
        steps,
        [
            ("1", false, Some("UDP")),
            ("2", false, Some("foo")),
            ("3", false, Some("udp:x")),
            ("4", false, Some("")),
            ("5", true, None),
            ("", true, None),
        ]
    );
    let args = run(knock("h 1:tcp 2 3:foo -u"));
    assert!(
        args.steps
            .iter()
            .all(|s| s.protocol == Protocol::Udp && s.unknown_protocol.is_none())
    );
}

#[test]
fn the_delay_is_a_number_that_is_not_negative() {
    for (text, ms) in [
        ("0", 0),
        ("300", 300),
        ("+5", 5),
        ("2147483647", 2147483647),
    ] {
        assert_eq!(run(knock(&format!("-d {text} h 1"))).delay, ms);
    }
    assert_eq!(
        knock("-d -5 h 1"),
        Outcome::Refuse("error: delay cannot be negative".into())
    );
    for text in ["x", "5x", "0.5", "2147483648", "--", "+-5", "--5", "-+5"] {
        match knock(&format!("-d {text} h 1")) {
            Outcome::Refuse(error) => {
                assert!(error.contains(text) && error.contains("milliseconds"))
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(run(knock("-d -5 -d 1 h 1")).delay, 1);
    assert_eq!(
        knock("-d -5 h"),
        Outcome::Usage(None),
        "too few operands come first, as in 0.8"
    );
}

#[test]
fn knock_needs_a_host_and_a_port() {
    for line in ["", "h", "-v h", "-- h", "-u"] {
        assert_eq!(knock(line), Outcome::Usage(None), "{line}");
    }
}

#[test]
fn an_argument_that_is_not_utf8_is_named() {
    let bad = OsString::from_vec(b"/etc/\xff.conf".to_vec());
    let refused = cli::knockd(&["knockd".into(), "-c".into(), bad.clone()]);
    let error = "knockd: argument '/etc/\u{fffd}.conf' is not valid UTF-8".to_string();
    assert_eq!(refused, Outcome::Refuse(error));
    assert!(matches!(
        cli::knock(&["knock".into(), "h".into(), bad]),
        Outcome::Refuse(_)
    ));
}

#[test]
fn the_config_is_found_beside_the_program() {
    let asked = RefCell::new(PathBuf::new());
    let find = |program: &str, exists: bool| {
        asked.take();
        default_config(Path::new(program), |path| {
            *asked.borrow_mut() = path.into();
            exists
        })
    };
    assert_eq!(
        find("/jffs/usr/sbin/knockd", true),
        Path::new("/jffs/etc/knockd.conf")
    );
    assert_eq!(
        find("/jffs/usr/sbin/knockd", false),
        Path::new("/etc/knockd.conf")
    );
    assert_eq!(*asked.borrow(), Path::new("/jffs/etc/knockd.conf"));
    assert_eq!(
        find("/usr/sbin/knockd", true),
        Path::new("/etc/knockd.conf")
    );
    assert_eq!(
        find("/opt/sbin/knockd", true),
        Path::new("/etc/knockd.conf")
    );
    assert_eq!(find("/knockd", true), Path::new("/etc/knockd.conf"));
    for unsure in [
        "knockd",
        "jffs/usr/sbin/knockd",
        "/jffs/link/../usr/sbin/knockd",
        "",
    ] {
        assert_eq!(
            find(unsure, true),
            Path::new("/etc/knockd.conf"),
            "{unsure}"
        );
        assert_eq!(
            *asked.borrow(),
            Path::new(""),
            "{unsure} does not say where the program is"
        );
    }
}

/// The lines of a help text that name options, reduced to their short names; `-` for an option
/// without one.
fn option_lines(usage: &str) -> String {
    let options = usage
        .lines()
        .filter_map(|l| l.strip_prefix("  -").or(l.strip_prefix("      --")));
    options
        .map(|l| {
            if l.as_bytes()[1] == b',' {
                &l[..1]
            } else {
                "-"
            }
        })
        .collect()
}

#[test]
fn the_help_texts_have_the_shape_of_0_8() {
    assert!(
        KNOCKD
            .usage
            .starts_with("usage: knockd [options]\noptions:\n  -i, --interface")
    );
    assert_eq!(option_lines(KNOCKD.usage), "idcDlpgv4Vh-----");
    let first = "usage: knock [options] <host> <port[:proto]> [port[:proto]] ...\noptions:\n";
    assert!(KNOCK.usage.starts_with(first));
    assert_eq!(option_lines(KNOCK.usage), "ud46vVh");
    assert!(KNOCK.usage.contains("\nexample:  knock "));
    for program in [&KNOCKD, &KNOCK] {
        assert!(program.usage.ends_with("\n\n"));
        assert!(
            program.usage.lines().all(|l| l.len() <= 80),
            "fits a terminal"
        );
        assert_eq!(program.version.lines().count(), 2);
        assert!(program.version.contains(env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn every_option_is_in_the_help_text() {
    let tables = [(cli::KNOCKD_OPTIONS, &KNOCKD), (cli::KNOCK_OPTIONS, &KNOCK)];
    for (table, program) in tables {
        for option in table {
            let short = option.short.map_or("    ".into(), |c| format!("-{c}, "));
            assert!(
                program
                    .usage
                    .contains(&format!("  {short}--{}", option.name)),
                "{option:?}"
            );
        }
    }
}

#[test]
fn every_option_is_in_the_man_page() {
    let daemon = include_str!("../../files/man/knockd.8");
    let client = include_str!("../../files/man/knock.1");
    for (table, page) in [(cli::KNOCKD_OPTIONS, daemon), (cli::KNOCK_OPTIONS, client)] {
        for option in table {
            let short = option
                .short
                .map_or(".It ".into(), |c| format!(".It Fl {c} "));
            let long = format!("Fl -{}", option.name);
            let found = page.lines().any(|l| {
                l.starts_with(&short) && (l.ends_with(&long) || l.contains(&format!("{long} Ar")))
            });
            assert!(found, "{option:?}");
        }
    }
}

/// Runs the built daemon, only with arguments with which it exits before it does anything.
fn built(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_knockd"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn knockd_exits_0_after_help_and_after_a_wrong_option() {
    assert_eq!(built(&["-h"]), (Some(0), KNOCKD.usage.into(), "".into()));
    assert_eq!(
        built(&["--vers"]),
        (Some(0), KNOCKD.version.into(), "".into())
    );
    let (status, stdout, stderr) = built(&["-i"]);
    assert_eq!((status, stdout.as_str()), (Some(0), KNOCKD.usage));
    let name = env!("CARGO_BIN_EXE_knockd");
    assert_eq!(
        stderr,
        format!("{name}: option requires an argument -- 'i'\n")
    );
}

/// As from a shell's `<(program)`.
#[test]
fn a_config_may_be_an_inherited_descriptor() {
    for check in ["", "--check "] {
        let script = format!(
            "printf '[A]\\nsequence = x\\n' | exec \"$0\" {check}-c /dev/fd/7 7<&0 0< /dev/null"
        );
        let output = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_knockd")])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("\n/dev/fd/7:2:12: 'x' is not"), "{stderr}");
    }
}
