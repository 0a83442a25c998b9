//! The shipped config: no door is active, and each example is a valid door without its '#'. Also
//! what the config reference and the man page show and list.

use knockd_rs::check;
use knockd_rs::config::{Config, parse};
use knockd_rs::knock::Trigger;
use knockd_rs::knock::tripwire::Tripwire;

const SHIPPED: &str = include_str!("../../files/etc/knockd.conf");
const REFERENCE: &str = include_str!("../../docs/config.md");
const MAN_PAGE: &str = include_str!("../../files/man/knockd.conf.5");

fn accepted(text: &str) -> Config {
    let config = parse(text.as_bytes(), &mut |_| ()).unwrap_or_else(|e| panic!("{text}\n{e:?}"));
    assert_eq!(
        config.warnings.iter().filter(|w| w.line > 0).count(),
        0,
        "{:?}",
        config.warnings
    );
    config
}

/// The lines about bans, which have a space after the '#'.
#[test]
fn the_example_of_bans_bans() {
    let lines = SHIPPED
        .lines()
        .filter_map(|line| line.strip_prefix("#     "));
    let bans: Vec<&str> = lines.filter(|line| line.contains(" = ")).collect();
    assert!(
        bans.iter()
            .all(|line| REFERENCE.contains(line.split(" = ").nth(1).unwrap_or("?")))
    );
    let text = format!("[options]\nTripwire = auto\n{}\n", bans.join("\n"));
    let config = accepted(&format!("{text}[A]\nsequence = 9,4,7,4\ntcpflags = syn\n"));
    assert_eq!(config.options.bans.rule().map(|rule| rule.hits), Some(3));
    assert!(config.options.bans.stop.v6.is_some() && !config.options.bans.allow.is_empty());
    assert_eq!(check::advice(&config), []);
}

/// An example starts with `#[`. Each of its lines starts with '#' without a following space.
fn examples() -> Vec<String> {
    let mut examples: Vec<String> = Vec::new();
    let mut inside = false;
    for line in SHIPPED.lines() {
        let code = line
            .strip_prefix('#')
            .filter(|code| !code.is_empty() && !code.starts_with(' '));
        match code {
            Some(code) if code.starts_with('[') => {
                examples.push(format!("{code}\n"));
                inside = true;
            }
            Some(code) => {
                assert!(inside, "{line:?} looks like code outside an example");
                examples
                    .last_mut()
                    .expect(line)
                    .push_str(&format!("{code}\n"));
            }
            None => inside = false,
        }
    }
    examples
}

#[test]
fn as_shipped_it_has_options_and_no_door() {
    let config = accepted(SHIPPED);
    assert_eq!(config.doors, []);
    assert!(config.options.use_syslog);
    assert_eq!(config.options.interface.as_deref(), Some("auto"));
    assert_eq!(config.options.tripwire, Tripwire::Auto);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn each_example_is_a_door_that_draws_only_the_advice_it_earns() {
    const KNOWN: &str = "printed in manuals";
    let expected: [(&str, &[&str]); 6] = [
        ("SSH", &[KNOWN]),
        ("SSH to LAN host", &[KNOWN]),
        ("SSH once", &[]),
        ("SSH nft", &[KNOWN]),
        ("SSH to LAN host nft", &[KNOWN]),
        (
            "scan trap",
            &["ascending order", "adjacent ports", KNOWN, "danger: anyone"],
        ),
    ];
    let examples = examples();
    assert_eq!(examples.len(), expected.len());
    for (text, (name, advice)) in examples.iter().zip(expected) {
        let config = accepted(text);
        assert_eq!(config.doors.len(), 1);
        assert_eq!(config.doors[0].name, name);
        let texts: Vec<_> = check::advice(&config).into_iter().map(|a| a.text).collect();
        assert_eq!(texts.len(), advice.len(), "{name}: {texts:?}");
        for (text, part) in texts.iter().zip(advice) {
            assert!(text.contains(part), "{name}: {text}");
        }
    }
}

#[test]
fn the_examples_do_what_their_comments_say() {
    let config = accepted(&format!("{SHIPPED}\n{}", examples().concat()));
    let door = |name: &str| config.doors.iter().find(|d| d.name == name).unwrap();
    let sequence = |name: &str| door(name).sequence().unwrap().to_string();
    assert_eq!(sequence("SSH to LAN host"), "22:udp,22:udp,151:tcp,15:udp");
    assert_eq!(door("SSH to LAN host").start.v6, None);
    for name in ["SSH", "SSH to LAN host", "SSH once"] {
        assert_eq!(door(name).cmd_timeout, 20_000, "{name}");
        let undone = |command: &Option<Vec<u8>>| {
            String::from_utf8(command.clone().unwrap())
                .unwrap()
                .replace(" -I ", " -D ")
        };
        let stop = String::from_utf8(door(name).stop.v4.clone().unwrap()).unwrap();
        assert_eq!(undone(&door(name).start.v4), stop, "{name}");
    }
    assert_eq!(sequence("scan trap"), "1:tcp,2:tcp,3:tcp,4:tcp,5:tcp");
    assert_eq!(door("scan trap").cmd_timeout, 60_000);
    assert!(matches!(door("SSH once").trigger, Trigger::OneTime(_)));
}

/// The text between the first line `begin` and the next line `end`.
fn first_block<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, after) = text.split_once(begin).expect(begin);
    after.split_once(end).expect(end).0
}

#[test]
fn the_examples_of_the_documents_are_good_configs() {
    for text in [
        first_block(REFERENCE, "```\n", "```\n"),
        first_block(MAN_PAGE, ".Bd -literal -offset indent\n", ".Ed\n"),
    ] {
        let config = accepted(text);
        assert_eq!(config.doors[0].name, "SSH");
        assert_eq!(
            check::advice(&config).len(),
            1,
            "its sequence is public, and nothing else"
        );
    }
}

#[test]
fn the_documents_list_every_key() {
    // The parser lists the keys itself.
    let error =
        |section: &str| parse(format!("[{section}]\nx\n").as_bytes(), &mut |_| ()).unwrap_err();
    for section in ["options", "A"] {
        let text = error(section).text;
        let (_, keys) = text.split_once(" has ").unwrap();
        for key in keys.split([',', ' ']).filter(|word| word.len() > 3) {
            assert!(
                REFERENCE.contains(&format!("`{key}`")),
                "{key} is not in docs/config.md"
            );
            assert!(MAN_PAGE.contains(key), "{key} is not in the man page");
        }
    }
}
