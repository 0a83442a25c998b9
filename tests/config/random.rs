//! Parses 100,000 random configs. The parser, the description and the advice must not panic, and an
//! accepted config must have the same meaning when it is written out and parsed again.

use knockd_rs::check::{advice, describe, mode_advice};
use knockd_rs::config::{Config, parse};
use knockd_rs::knock::network::Network;
use knockd_rs::knock::tripwire::{PortRange, Tripwire};
use knockd_rs::knock::{TCP_FLAGS, Trigger};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// xorshift64*, so that a failure can be reproduced from its number.
struct Random(u64);

impl Random {
    fn new(case: u64) -> Random {
        Random(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn bytes(&mut self, at_most: usize) -> Vec<u8> {
        let length = self.below(at_most + 1);
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// Arbitrary bytes, most of them meaningful to the parser.
fn noise(random: &mut Random) -> Vec<u8> {
    let letters = b"[]=#:,!\n\r \t\x0b;0123456789-+abcAsyn_\xff\xc3\xa4%/\0";
    let length = random.below(200);
    (0..length)
        .map(|_| {
            if random.one_in(9) {
                random.below(256) as u8
            } else {
                letters[random.below(letters.len())]
            }
        })
        .collect()
}

const SECTIONS: [&str; 6] = ["A", "B", "options", "A b", " options ", "x]y["];
/// The keys that `written` writes.
const KEYS: [&str; 34] = [
    "LogFile",
    "PidFile",
    "interface",
    "MATCHING",
    "Reknock",
    "LogRate",
    "MaxAttempts",
    "Tripwire",
    "TripwireHits",
    "TripwireWindow",
    "BanTime",
    "BanCommand",
    "BanCommand_6",
    "UnbanCommand",
    "UnbanCommand_6",
    "MaxBans",
    "Allow",
    "StateDir",
    "CommandTimeout",
    "MaxCommands",
    "sequence",
    "Sequence",
    "one_time_sequences",
    "seq_timeout",
    "timeout",
    "tcpflags",
    "target",
    "command",
    "start_command",
    "start_command_6",
    "command_6",
    "cmd_timeout",
    "stop_command",
    "stop_command_6",
];

/// The first 20 keys belong in `[options]`.
const OPTIONS: usize = 20;

/// A value that is usually valid for its key.
fn value(random: &mut Random, key: &str) -> Vec<u8> {
    if random.one_in(30) {
        return random.bytes(20);
    }
    let text = match key.to_ascii_lowercase().as_str() {
        "sequence" => {
            let most = if random.one_in(20) { 40 } else { 6 };
            let steps = 1 + random.below(most);
            let steps: Vec<_> = (0..steps)
                .map(|_| {
                    let port = if random.one_in(3) {
                        random.below(66000)
                    } else {
                        1 + random.below(6)
                    };
                    let tail = random.pick(&["", "", "", ":udp", ":TCP", " : udp ", ":tcp:x"]);
                    format!("{port}{tail}")
                })
                .collect();
            steps.join(random.pick(&[",", ", ", " ,"]))
        }
        "matching" => random.pick(&["strict", "Tolerant"]).into(),
        "reknock" => random.pick(&["renew", "STACK"]).into(),
        "lograte" => random.below(1000).to_string(),
        "maxattempts" => random.pick(&["256", "16384", "60000", "0"]).into(),
        "tripwire" => random.pick(&["auto", "NONE", "1-1023, 5000", "7-6"]).into(),
        "commandtimeout" => random.pick(&["1", "600", "86400", "86401"]).into(),
        "tripwirehits" => random.pick(&["1", "3", "8", "9"]).into(),
        "tripwirewindow" | "bantime" => random.pick(&["1", "2592000", "x"]).into(),
        "maxbans" => random.pick(&["1", "256", "257"]).into(),
        "allow" => random
            .pick(&[
                "192.168.1.7/24, ::1",
                "10.0.0.0/0",
                "fe80::/10",
                "10.0.0.0/33",
            ])
            .into(),
        "maxcommands" => random.pick(&["1", "4", "64", "0"]).into(),
        "interface" => random
            .pick(&["", "any", "auto", "ppp0, vlan1", "eth0:1"])
            .into(),
        "timeout" | "seq_timeout" | "cmd_timeout" => random
            .pick(&["0", "25", "-1", "3s", "+7", "2147483647", "-2147483648"])
            .into(),
        "tcpflags" => random
            .pick(&["syn", "syn,!ack", "SYN , fin", "!rst,psh,urg"])
            .into(),
        "target" => random
            .pick(&["192.0.2.1", "FD00::1", "::ffff:192.0.2.2"])
            .into(),
        "logfile" | "pidfile" | "statedir" | "one_time_sequences" => {
            random.pick(&["/a", "/b c"]).into()
        }
        _ => random
            .pick(&[
                "",
                "true",
                "iptables -A INPUT -s %IP% -j ACCEPT",
                "ip link set x down",
                "reboot",
                "nft add element inet t s { %IP% }",
                "echo \u{1b}[2J 'a;b|c&d(`e`)\"",
            ])
            .into(),
    };
    text.into_bytes()
}

/// A config that is mostly valid.
fn plausible(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    if random.one_in(10) {
        text.extend(b"\xef\xbb\xbf");
    }
    let end: &[u8] = random.pick(&[&b"\n"[..], b"\r\n"]);
    let mut options = false;
    for _ in 0..1 + random.below(4) {
        let section = random.pick(&SECTIONS);
        options = section == "options" || (options && random.one_in(50));
        text.extend(format!("{}[{section}]", random.pick(&["", "  "])).bytes());
        text.extend(end);
        if section != "options" {
            text.extend(b"sequence = ");
            text.extend(value(random, "sequence"));
            text.extend(end);
        }
        for _ in 0..random.below(8) {
            let from = if section == "options" {
                &KEYS[..OPTIONS]
            } else {
                &KEYS[OPTIONS..]
            };
            let from = if random.one_in(50) { &KEYS } else { from };
            let key = random.pick(from);
            let spelt = match random.one_in(20) {
                true => key.to_ascii_uppercase(),
                false => key.to_string(),
            };
            text.extend(spelt.bytes());
            text.extend(random.pick(&["=", " = ", "\t="]).bytes());
            text.extend(value(random, key));
            text.extend(end);
        }
        if random.one_in(9) {
            text.extend(
                random
                    .pick(&["UseSyslog\n", "# c\n", "; c\n", "\n", "x\n"])
                    .bytes(),
            );
        }
    }
    if random.one_in(10) && !text.is_empty() {
        let at = random.below(text.len());
        text[at] = random.below(256) as u8;
    }
    text
}

/// Writes the config out as text.
fn written(config: &Config) -> Vec<u8> {
    let mut out = b"[options]\n".to_vec();
    let mut put = |key: &str, value: &[u8]| {
        out.extend(key.bytes());
        out.extend(value);
        out.push(b'\n');
    };
    let options = &config.options;
    if options.use_syslog {
        put("UseSyslog", b"");
    }
    let bytes = |p: &Path| p.as_os_str().as_bytes().to_vec();
    for (key, path) in [
        ("LogFile=", &options.log_file),
        ("PidFile=", &options.pid_file),
    ] {
        put(key, &path.as_deref().map(bytes).unwrap_or_default());
    }
    put(
        "Interface=",
        options.interface.as_deref().unwrap_or_default().as_bytes(),
    );
    put(
        "Matching=",
        if options.strict {
            b"strict"
        } else {
            b"tolerant"
        },
    );
    put("Reknock=", if options.stack { b"stack" } else { b"renew" });
    put("LogRate=", options.log_rate.to_string().as_bytes());
    put("MaxAttempts=", options.max_attempts.to_string().as_bytes());
    let ranges = |ranges: &Vec<PortRange>| {
        let range = |range: &PortRange| format!("{}-{}", range.low, range.high);
        ranges.iter().map(range).collect::<Vec<_>>().join(",")
    };
    let tripwire = match &options.tripwire {
        Tripwire::None => "none".to_string(),
        Tripwire::Auto => "auto".to_string(),
        Tripwire::Ports(ports) => ranges(ports),
    };
    put("Tripwire=", tripwire.as_bytes());
    let bans = &options.bans;
    if bans.hits > 0 {
        put("TripwireHits=", bans.hits.to_string().as_bytes());
    }
    let window = bans.window / 1000;
    put("TripwireWindow=", window.to_string().as_bytes());
    put("BanTime=", (bans.time / 1000).to_string().as_bytes());
    put("MaxBans=", bans.max.to_string().as_bytes());
    for (key, command) in [
        ("BanCommand=", &bans.start.v4),
        ("BanCommand_6=", &bans.start.v6),
        ("UnbanCommand=", &bans.stop.v4),
        ("UnbanCommand_6=", &bans.stop.v6),
    ] {
        put(key, command.as_deref().unwrap_or_default());
    }
    if !bans.allow.is_empty() {
        let network = |network: &Network| format!("{}/{}", network.address, network.prefix);
        let networks: Vec<String> = bans.allow.iter().map(network).collect();
        put("Allow=", networks.join(",").as_bytes());
    }
    put("StateDir=", &bytes(&options.state_dir));
    let seconds = options.command_timeout / 1000;
    put("CommandTimeout=", seconds.to_string().as_bytes());
    put("MaxCommands=", options.max_commands.to_string().as_bytes());
    for door in &config.doors {
        put("", format!("[{}]", door.name).as_bytes());
        if let Some(sequence) = door.sequence() {
            put("sequence=", sequence.to_string().as_bytes());
        }
        if let Trigger::OneTime(file) = &door.trigger {
            put("one_time_sequences=", &bytes(file));
        }
        put(
            "seq_timeout=",
            (door.seq_timeout / 1000).to_string().as_bytes(),
        );
        put(
            "cmd_timeout=",
            ((door.cmd_timeout / 1000) as u32 as i32)
                .to_string()
                .as_bytes(),
        );
        for (name, bit) in TCP_FLAGS {
            if door.flags.set & bit != 0 {
                put("tcpflags=", name.as_bytes());
            }
            if door.flags.clear & bit != 0 {
                put("tcpflags=!", name.as_bytes());
            }
        }
        if let Some(target) = door.target {
            put("target=", target.to_string().as_bytes());
        }
        for (key, command) in [
            ("start_command=", &door.start.v4),
            ("start_command_6=", &door.start.v6),
            ("stop_command=", &door.stop.v4),
            ("stop_command_6=", &door.stop.v6),
        ] {
            put(key, command.as_deref().unwrap_or_default());
        }
    }
    out
}

/// Removes whatever depends on line numbers.
fn meaning(mut config: Config) -> Config {
    config.warnings.clear();
    for door in &mut config.doors {
        door.line = 0;
    }
    config
}

fn check(case: u64, text: &[u8]) -> bool {
    let mut trace = Vec::new();
    let result = parse(text, &mut |line| trace.push(line.to_string()));
    match result {
        Err(error) => {
            assert!(!error.show(Path::new("k")).is_empty());
            let lines = text.split(|b| *b == b'\n').count();
            assert!(error.line <= lines, "case {case}: {error:?}");
            false
        }
        Ok(mut config) => {
            assert!(!describe(&mut config).is_empty());
            for diagnostic in advice(&config).iter().chain(&config.warnings) {
                assert!(!diagnostic.show(Path::new("k")).is_empty());
            }
            let reparsed = parse(&written(&config), &mut |_| ())
                .unwrap_or_else(|e| panic!("case {case}: {e:?}\n{config:?}"));
            assert_eq!(meaning(reparsed), meaning(config), "case {case}");
            true
        }
    }
}

#[test]
fn random_configs_never_panic_and_accepted_ones_keep_their_meaning() {
    let mut accepted = 0;
    for case in 0..100_000 {
        let mut random = Random::new(case);
        let text = match case % 4 {
            0 => random.bytes(200),
            1 => noise(&mut random),
            _ => plausible(&mut random),
        };
        accepted += u32::from(check(case, &text));
    }
    // Otherwise the generator no longer matches the grammar and the test shows little.
    assert!(
        accepted > 10_000,
        "only {accepted} of 100,000 were accepted"
    );
}

#[test]
fn every_mode_and_owner_gets_an_answer() {
    for mode in 0..0o10000 {
        let tight = mode & 0o066 == 0;
        assert_eq!(mode_advice(mode, 0, "x").is_none(), tight, "{mode:o}");
        assert!(mode_advice(mode, 1000, "x").is_some());
    }
}
