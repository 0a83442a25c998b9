//! The config parser against knockd 0.8's recorded behaviour, every error and warning verbatim, and
//! broken files.

use knockd_rs::config::{Commands, Config, Diagnostic, key_names, parse, salvage_options};
use knockd_rs::knock::Matching;
use knockd_rs::lease::Reknock;
use std::path::Path;

mod check;
mod golden;
mod messages;
mod random;
mod shipped;

fn parse_with_trace(text: &[u8]) -> (Result<Config, Box<Diagnostic>>, Vec<String>) {
    let mut trace = Vec::new();
    let result = parse(text, &mut |line| trace.push(line.to_string()));
    (result, trace)
}

fn accepted(text: &str) -> Config {
    parse(text.as_bytes(), &mut |_| ()).unwrap_or_else(|e| panic!("{text:?}: {e:?}"))
}

#[test]
fn recorded_contract_cases_agree_to_the_letter() {
    let cases: Vec<_> = golden::GOLDEN
        .iter()
        .filter(|case| case.class == 'C')
        .collect();
    assert_eq!(cases.len(), 15);
    for case in cases {
        let (result, trace) = parse_with_trace(case.conf.as_bytes());
        assert_eq!(trace, case.trace, "{} {}", case.id, case.title);
        let wording = result.err().map(|e| e.knockd_wording.unwrap_or_default());
        assert_eq!(wording.as_deref(), case.error, "{} {}", case.id, case.title);
    }
}

#[test]
fn recorded_quirks_are_kept_with_a_warning_or_refused_as_documented() {
    for case in golden::GOLDEN.iter().filter(|case| case.class == 'Q') {
        let (result, trace) = parse_with_trace(case.conf.as_bytes());
        let label = format!("{} {}", case.id, case.title);
        match case.id {
            // knockd 0.8 accepts these, although no knock can match them as written.
            "K116" | "K117" | "K118" | "K120" => {
                assert_eq!(case.error, None, "{label}");
                assert!(result.is_err(), "{label}");
            }
            // knockd 0.8 refuses this.
            "K127" => {
                let config = result.unwrap();
                assert_eq!(config.warnings.len(), 1, "{label}");
                assert_eq!(config.doors[0].flags.set, 0x12, "{label}");
            }
            _ => {
                assert_eq!(trace, case.trace, "{label}");
                match (result, case.error) {
                    (Ok(config), None) => {
                        let quiet = case.id == "K131";
                        assert_eq!(config.warnings.is_empty(), quiet, "{label}");
                    }
                    (Err(e), Some(wording)) => {
                        assert_eq!(e.knockd_wording.as_deref(), Some(wording), "{label}");
                    }
                    (result, _) => panic!("{label}: {result:?}"),
                }
            }
        }
    }
}

#[test]
fn every_error_reads_as_written_here() {
    for (text, shown) in messages::ERRORS {
        let error = parse(text, &mut |_| ()).expect_err(shown);
        assert_eq!(
            &error.show(Path::new("k.conf")),
            shown,
            "{}",
            String::from_utf8_lossy(text)
        );
    }
}

#[test]
fn an_unknown_word_is_answered_with_the_keys() {
    for (text, begin) in [
        ("[options]\nfoo\n", "[options] has UseSyslog, "),
        ("[A]\nfoo\n", "a door has sequence, "),
    ] {
        let is_option = text.starts_with("[o");
        let error = parse(text.as_bytes(), &mut |_| ()).unwrap_err().text;
        assert!(
            error.starts_with(&format!("unknown word 'foo'; {begin}")),
            "{error}"
        );
        assert!(
            key_names(is_option).iter().all(|name| error.contains(name)),
            "{error}"
        );
    }
}

#[test]
fn every_warning_reads_as_written_here() {
    for (text, shown) in messages::WARNINGS {
        let config = accepted(text);
        let warnings: Vec<_> = config
            .warnings
            .iter()
            .map(|w| w.show(Path::new("k.conf")))
            .collect();
        assert_eq!(&warnings, shown, "{text}");
    }
}

#[test]
fn a_full_config_means_what_it_says() {
    let text = "[options]\n USESYSLOG\n logfile = /var/log/k\n PidFile=/tmp/p\n interface = ppp0 , vlan1\n\
                matching = STRICT\n lograte = 0\n statedir = /jffs/k\n[A]\n sequence = 1,2:udp\n \
                timeout = 7\n tcpflags = syn,!ack\n tcpflags = !syn\n target = FD00::1\n command = x = y # z\n \
                cmd_timeout = 0\n stop_command = s\n";
    let config = accepted(text);
    assert_eq!(config.warnings, []);
    let options = &config.options;
    assert!(options.use_syslog);
    assert_eq!(options.log_file.as_deref(), Some(Path::new("/var/log/k")));
    assert_eq!(options.pid_file.as_deref(), Some(Path::new("/tmp/p")));
    assert_eq!(options.interface.as_deref(), Some("ppp0,vlan1"));
    assert_eq!(
        (options.matching(), options.reknock()),
        (Matching::Strict, Reknock::Stack)
    );
    assert_eq!(
        (options.log_rate, options.state_dir.to_str()),
        (0, Some("/jffs/k"))
    );
    let door = &config.doors[0];
    assert_eq!((door.name.as_str(), door.line), ("A", 9));
    assert_eq!(
        door.sequence().map(|s| s.to_string()).as_deref(),
        Some("1:tcp,2:udp")
    );
    assert_eq!((door.seq_timeout, door.cmd_timeout), (7_000, 0));
    assert_eq!((door.flags.set, door.flags.clear), (0, 0x12));
    assert_eq!(
        door.target.map(|t| t.to_string()).as_deref(),
        Some("fd00::1")
    );
    assert_eq!(door.start.v4.as_deref(), Some(&b"x = y # z"[..]));
}

#[test]
fn defaults_are_knockd_0_8s() {
    let config = accepted("[A]\nsequence=1");
    let (options, door) = (&config.options, &config.doors[0]);
    assert_eq!(
        (options.matching(), options.reknock()),
        (Matching::Tolerant, Reknock::Renew)
    );
    assert_eq!(
        (options.log_rate, options.state_dir.to_str()),
        (50, Some("/var/run/knockd"))
    );
    assert_eq!(
        (options.use_syslog, &options.log_file, &options.interface),
        (false, &None, &None)
    );
    assert_eq!((door.seq_timeout, door.cmd_timeout), (25_000, 10_000));
    assert_eq!(
        (&door.start, &door.stop),
        (&Commands::default(), &Commands::default())
    );
}

#[test]
fn commands_fall_back_from_ipv6_to_ipv4_as_knockd_does() {
    let commands = |keys: &str| {
        let door = accepted(&format!("[A]\nsequence=1\n{keys}"))
            .doors
            .remove(0);
        let text = |c: Option<Vec<u8>>| c.map_or("-".into(), |c| String::from_utf8(c).unwrap());
        [door.start.v4, door.start.v6, door.stop.v4, door.stop.v6]
            .map(text)
            .join(" ")
    };
    assert_eq!(commands("command=a\nstop_command=b"), "a a b b");
    assert_eq!(
        commands("command=a\ncommand_6=c\nstop_command=b\nstop_command_6=d"),
        "a c b d"
    );
    assert_eq!(
        commands("command=a\nstart_command_6=\nstop_command=b"),
        "a - b -"
    );
    assert_eq!(
        commands("command=a\nstop_command=b\nstop_command_6="),
        "a a b -"
    );
    assert_eq!(commands("command_6=c\nstop_command=b"), "- c - b");
    assert_eq!(commands("command_6=c"), "- c - -");
    assert_eq!(commands("stop_command=b"), "- - - -");
    assert_eq!(commands("command=\nstop_command=b"), "- - - -");
    assert_eq!(commands("command=a\nstop_command="), "a a - -");
}

#[test]
fn commands_and_comments_may_hold_any_byte() {
    let text = b"# \xff\xfe\n[\xe9]\nsequence=1\ncommand=echo \xff\x01\x80\n";
    let (config, trace) = parse_with_trace(text);
    let config = config.unwrap();
    assert_eq!(
        config.doors[0].start.v4.as_deref(),
        Some(&b"echo \xff\x01\x80"[..])
    );
    assert_eq!(config.doors[0].name, "\u{fffd}");
    assert_eq!(trace.len(), 3);
}

#[test]
fn windows_files_read_like_unix_files() {
    let unix = "[options]\nLogFile = /l\n[A]\nsequence = 1,2:udp\ncommand = true\n";
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    assert_eq!(accepted(unix), accepted(&windows));
    assert_eq!(accepted(unix), accepted(unix.trim_end()));
}

#[test]
fn a_long_line_is_read_whole_and_said_to_be_long() {
    let long = "a".repeat(4200);
    let config = accepted(&format!("# {long}\n[A]\nsequence=1\ncommand=echo {long}\n"));
    assert_eq!(config.doors[0].start.v4.as_ref().map(Vec::len), Some(4205));
    let texts: Vec<_> = config
        .warnings
        .iter()
        .map(|w| (w.line, w.text.as_str()))
        .collect();
    assert_eq!(
        texts,
        [
            (4, "knockd 0.8 would cut this line after 4095 bytes"),
            (4, "a command longer than 4095 bytes is never run"),
        ]
    );
}

#[test]
fn lines_and_names_are_bounded() {
    let line = |n: usize| format!("[A]\nsequence=1\ncommand={}\n", "x".repeat(n));
    accepted(&line(16_384 - 8));
    let error = parse(line(16_384).as_bytes(), &mut |_| ()).unwrap_err();
    let shown = "k:3:1: this line is too long; give at most 16384 bytes";
    assert_eq!(error.show(Path::new("k")), shown);
    accepted(&format!("# {}\n[A]\nsequence=1\n", "x".repeat(100_000)));
    let name = |n: usize| format!("[{}]\nsequence=1\n", "x".repeat(n));
    assert_eq!(accepted(&name(1_023)).doors[0].name.len(), 1_023);
    let error = parse(name(1_024).as_bytes(), &mut |_| ()).unwrap_err();
    let shown = "k:1:2: this name is too long; give at most 1023 bytes";
    assert_eq!(error.show(Path::new("k")), shown);
}

#[test]
fn doors_are_bounded() {
    let doors = |n: usize| "[A]\nsequence=1\n".repeat(n);
    assert_eq!(accepted(&doors(256)).doors.len(), 256);
    let error = parse(doors(257).as_bytes(), &mut |_| ()).unwrap_err();
    assert_eq!(error.show(Path::new("k")), "k:513:2: more than 256 doors");
}

#[test]
fn the_state_dir_of_a_config_that_is_wrong_elsewhere_is_found() {
    let default = "/var/run/knockd";
    for (text, found) in [
        ("nonsense\n[options]\n statedir=/a b \n[A\n", "/a b"),
        ("StateDir = /a\nStateDir = /b\nStateDir = c\n", "/b"),
        ("#StateDir = /a\nStateDirs = /b\nStateDir /c\n", default),
        ("", default),
    ] {
        assert_eq!(
            salvage_options(text.as_bytes()).state_dir,
            Path::new(found),
            "{text}"
        );
    }
}
