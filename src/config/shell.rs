//! Guesses from its words what a shell command does: good enough for advice, not for decisions.
#![forbid(unsafe_code)]

use super::line::is_blank;

/// Words separated by `|`.
pub(crate) type WordList = &'static str;

/// Words that precede the program they run.
const WRAPPERS: WordList =
    "sudo|exec|nohup|setsid|env|busybox|sh|ash|bash|-c|if|then|else|while|until|do|!|{";

/// A pattern of calls: the program, one word of each of these lists, and none of the last.
struct Rule(WordList, &'static [WordList], WordList);

pub(crate) const IPTABLES: WordList = "iptables";
pub(crate) const REFUSAL: WordList = "DROP|REJECT|drop|reject";

const ADDS: WordList = "-A|-I|--append|--insert";
const DELETES: WordList = "-D|--delete";
/// Targets that accept packets. The user's own chains are unknown.
const GRANTS: WordList = "ACCEPT|DNAT|REDIRECT|accept|dnat|redirect";

/// Not sets: their elements can have timeouts.
const OPENS: [Rule; 6] = [
    Rule(IPTABLES, &[ADDS, GRANTS], "OUTPUT"),
    Rule(IPTABLES, &[DELETES, REFUSAL], "OUTPUT"),
    Rule(IPTABLES, &["-P|--policy", GRANTS], "OUTPUT"),
    Rule("nft", &["add|insert", "rule", GRANTS], ""),
    Rule("ufw", &["allow|limit"], "delete|out"),
    Rule(
        "firewall-cmd",
        &["--add-port|--add-service|--add-source|--add-rich-rule|--add-forward-port"],
        "--timeout",
    ),
];

const CLOSES: [Rule; 7] = [
    Rule(IPTABLES, &["-D|--delete|-F|--flush"], REFUSAL),
    Rule(
        IPTABLES,
        &["-A|-I|--append|--insert|-P|--policy", REFUSAL],
        "",
    ),
    Rule("nft", &["delete|flush"], ""),
    Rule("ipset", &["del|-D|flush"], ""),
    Rule("ufw", &["delete|deny|reject"], ""),
    Rule(
        "firewall-cmd",
        &["--remove-port|--remove-service|--remove-source|--remove-rich-rule|--reload"],
        "",
    ),
    // Later.
    Rule("at|batch|systemd-run", &[], ""),
];

/// Words that restrict a call to some sources.
const NARROWS: WordList = "-s|--source|--src|--src-range|--match-set|--mac-source|--rcheck|--update|saddr|from|source|--add-source";

/// Built-in chains.
const CHAINS: WordList = "INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING";

const TAKES_LINE_DOWN: [Rule; 6] = [
    Rule("ip", &["link", "set", "down"], ""),
    Rule("ifconfig|wl", &["down"], ""),
    Rule("service", &["wan", "stop|restart"], ""),
    Rule("stop_service|stopservice", &["wan"], ""),
    Rule("killall", &["pppd|udhcpc"], ""),
    Rule("ifdown|reboot|poweroff|halt|shutdown", &[], ""),
];

/// A program name without directory, then its arguments.
pub(crate) type Call<'a> = Vec<&'a [u8]>;

/// Returns whether one of the called programs passes the test. Ignores quotes and conditions.
/// `iptables` stands for all its variants.
pub(crate) fn any_call<'a>(command: &'a [u8], test: &mut dyn FnMut(&Call<'a>) -> bool) -> bool {
    let mut call = Call::new();
    for part in command.split(|b| b";&|\n()`".contains(b)) {
        call.clear();
        for word in part.split(|b| is_blank(*b) || b"\"'".contains(b)) {
            // Ignore redirections.
            if word.is_empty() || word.contains(&b'>') || word.starts_with(b"/dev/") {
                continue;
            }
            let mut word = word;
            if call.is_empty() {
                let slash = word.iter().rposition(|b| *b == b'/');
                let program = slash.map_or(word, |at| &word[at + 1..]);
                if program.starts_with(b"iptables") || program.starts_with(b"ip6tables") {
                    word = IPTABLES.as_bytes();
                } else if program.is_empty()
                    || is_one(program, WRAPPERS)
                    || word.contains(&b'=')
                    || word.iter().all(u8::is_ascii_digit)
                {
                    continue;
                } else {
                    word = program;
                }
            }
            call.push(word);
        }
        if !call.is_empty() && test(&call) {
            return true;
        }
    }
    false
}

pub(crate) fn is_one(word: &[u8], words: WordList) -> bool {
    // --add-port=22/tcp
    let word = match word.starts_with(b"--") {
        true => word.split(|b| *b == b'=').next().unwrap_or(word),
        false => word,
    };
    let mut words = words.as_bytes().split(|b| *b == b'|');
    words.any(|other| other == word)
}

/// Returns whether an argument is one of these words.
fn has(call: &Call<'_>, words: WordList) -> bool {
    call.iter().skip(1).any(|word| is_one(word, words))
}

/// Returns whether a call matches one of the rules.
fn fits(call: &Call<'_>, rules: &[Rule]) -> bool {
    rules.iter().any(|rule| {
        is_one(call[0], rule.0) && rule.1.iter().all(|words| has(call, words)) && !has(call, rule.2)
    })
}

/// Returns whether an iptables call passes a test.
fn calls_iptables(command: &[u8], test: fn(&Call<'_>) -> bool) -> bool {
    any_call(command, &mut |call| {
        call[0] == IPTABLES.as_bytes() && test(call)
    })
}

/// Returns the index of one of these options.
fn find(call: &Call<'_>, options: WordList) -> Option<usize> {
    call.iter().position(|word| is_one(word, options))
}

/// Returns the word at that distance after one of these options.
fn after<'a>(call: &Call<'a>, options: WordList, far: usize) -> Option<&'a [u8]> {
    call.get(find(call, options)? + far).copied()
}

/// Returns whether it appends a rule to INPUT or FORWARD, whose last rule on a router drops
/// everything.
pub(crate) fn appends_rule(command: &[u8]) -> bool {
    calls_iptables(command, |call| {
        after(call, "-A|--append", 1).is_some_and(|chain| is_one(chain, "INPUT|FORWARD"))
    })
}

/// Returns whether it opens something in a firewall that it does not close itself and that has no
/// timeout.
pub(crate) fn opens(command: &[u8]) -> bool {
    any_call(command, &mut |call| fits(call, &OPENS)) && !closes(command)
}

/// Returns whether it closes something in a firewall, or may do so later.
pub(crate) fn closes(command: &[u8]) -> bool {
    any_call(command, &mut |call| fits(call, &CLOSES))
}

/// Returns whether it certainly opens something in a firewall for any address.
pub(crate) fn opens_to_all(command: &[u8]) -> bool {
    !has_address(command)
        && !misspells_address(command)
        && any_call(command, &mut |call| {
            !has(call, NARROWS) && fits(call, &OPENS)
        })
}

/// Returns whether it removes all rules of a chain that other programs use.
pub(crate) fn flushes(command: &[u8]) -> bool {
    calls_iptables(command, |call| {
        let all = "-F|--flush";
        find(call, all).is_some() && after(call, all, 1).is_none_or(|chain| is_one(chain, CHAINS))
    })
}

/// Returns whether it deletes a rule by its number.
pub(crate) fn deletes_by_number(command: &[u8]) -> bool {
    calls_iptables(command, |call| {
        after(call, DELETES, 2).is_some_and(|word| word.iter().all(u8::is_ascii_digit))
    })
}

/// What a command needs and the machine can lack.
pub enum Need<'a> {
    /// A program, by its absolute path.
    Program(&'a [u8]),
    /// An interface in an iptables rule.
    Interface(&'a [u8]),
}

/// Calls `need` for what a command certainly needs: its first program and, if it has no quotes,
/// variables and the like, its interfaces.
pub(crate) fn needs<'a>(command: &'a [u8], need: &mut dyn FnMut(Need<'a>)) {
    let is_special = |b: &u8| b"\"'`$(){}[]<>\\*?#".contains(b);
    let mut words = command.split(|b| is_blank(*b) || b";&|".contains(b));
    if let Some(program @ [b'/', ..]) = words.next()
        && !program.iter().any(is_special)
    {
        need(Need::Program(program));
    }
    if command.iter().any(|b| is_special(b) && *b != b'>') {
        return;
    }
    any_call(command, &mut |call| {
        for options in ["-i|--in-interface", "-o|--out-interface"] {
            // A name that ends with + matches several.
            if call[0] == IPTABLES.as_bytes()
                && let Some(name) = after(call, options, 1)
                && !name.ends_with(b"+")
            {
                need(Need::Interface(name));
            }
        }
        false
    });
}

/// Returns whether it contains the client's address.
pub(crate) fn has_address(command: &[u8]) -> bool {
    command.windows(4).any(|part| part == b"%IP%")
}

/// Returns whether it has something like `%IP%` that is not replaced: `%ip%`, `%IP`, `%HOST%`, or
/// `$IP` without any `%IP%`.
pub(crate) fn misspells_address(command: &[u8]) -> bool {
    let is_like = |at: usize| {
        let rest = &command[at..];
        let name = &rest[1..];
        let letters = name.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let named = &name[..letters];
        let closed = name.get(letters) == Some(&b'%');
        match rest[0] {
            // At least two letters, because of date +%H%M.
            b'%' if letters > 1 && closed => named != b"IP",
            b'%' => named
                .get(..2)
                .is_some_and(|ip| ip.eq_ignore_ascii_case(b"ip")),
            b'$' => (named == b"IP" || name.starts_with(b"{IP}")) && !has_address(command),
            _ => false,
        }
    };
    (0..command.len()).any(is_like)
}

/// Returns whether it is entirely in one pair of quotes, with spaces inside.
pub(crate) fn is_quoted(command: &[u8]) -> bool {
    match command {
        [first @ (b'"' | b'\''), inner @ .., last] => {
            first == last && !inner.contains(first) && inner.iter().any(|b| is_blank(*b))
        }
        _ => false,
    }
}

/// Returns whether it has typographic characters of web pages and word processors: U+2000 to
/// U+203F, which are dashes, quotes and spaces, or the no-break space U+00A0.
pub(crate) fn is_typeset(command: &[u8]) -> bool {
    command
        .windows(2)
        .any(|pair| pair == b"\xe2\x80" || pair == b"\xc2\xa0")
}

/// Returns whether it takes a link, or the whole router, down.
pub(crate) fn takes_line_down(command: &[u8]) -> bool {
    any_call(command, &mut |call| fits(call, &TAKES_LINE_DOWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appended_rule_is_seen_in_all_its_spellings() {
        for yes in [
            "iptables -A INPUT -j ACCEPT",
            "/usr/sbin/ip6tables -w --append INPUT -j ACCEPT",
            "sleep 1; if true; then iptables-legacy -t filter -A FORWARD -j ACCEPT; fi",
            "sh -c 'iptables -A INPUT -j ACCEPT'",
        ] {
            assert!(appends_rule(yes.as_bytes()), "{yes}");
        }
        for no in [
            "iptables -I INPUT -j ACCEPT",
            "iptables -A knocked",
            "echo -A INPUT",
            "",
        ] {
            assert!(!appends_rule(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn opening_is_seen_unless_it_ends_by_itself() {
        for yes in [
            "iptables -I INPUT -s %IP% -j ACCEPT",
            "nft add rule inet filter input accept",
            "ufw allow from %IP% to any port 22",
            "firewall-cmd --add-port=22/tcp",
            "iptables -P INPUT ACCEPT",
            "iptables -D INPUT -s %IP% -j DROP",
        ] {
            assert!(opens(yes.as_bytes()), "{yes}");
        }
        for no in [
            "iptables -I INPUT -s %IP% -j DROP",
            "iptables -I INPUT -j ACCEPT; sleep 9; iptables -D INPUT -j ACCEPT",
            "iptables -I INPUT -s %IP% -j LOG",
            "iptables -I INPUT -s %IP% -j mychain",
            "iptables -I OUTPUT -d %IP% -j ACCEPT",
            // The set can have a timeout.
            "nft add element inet filter knock4 { %IP% }",
            "ipset add knock %IP%",
            "iptables -I INPUT -s %IP% -j ACCEPT; echo 'iptables -D INPUT -s %IP% -j ACCEPT' | at now + 10 minutes",
            "firewall-cmd --add-source=%IP% --timeout=300",
            "iptables -D INPUT -s %IP% -j DROP; sleep 9; iptables -I INPUT -s %IP% -j DROP",
            "ufw delete allow 22",
            "iptables -D INPUT -j ACCEPT",
            "etherwake 00:11:22:33:44:55",
        ] {
            assert!(!opens(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn slips_that_only_a_knock_would_show_are_seen() {
        for (test, yes, no) in [
            (
                misspells_address as fn(&[u8]) -> bool,
                &[
                    "a %ip%",
                    "a %IP",
                    "a \\%IP\\% b",
                    "%Ip% %IP%",
                    "%IP",
                    "a %HOST%",
                    "a $IP",
                    "a ${IP}",
                ][..],
                &[
                    "a %IP%",
                    "%%IP%%",
                    "%I%",
                    "date +%H%M%S",
                    "IP=%IP%; a $IP",
                    "a $IPS",
                    "",
                ][..],
            ),
            (
                is_quoted,
                &["\"iptables -I INPUT\"", "'a b'"],
                &[
                    "\"/opt/my prog\" \"%IP%\"",
                    "\"/opt/prog\"",
                    "'a b\"",
                    "\"",
                    "",
                ],
            ),
            (
                is_typeset,
                &["iptables \u{2013}I", "echo \u{201c}a\u{201d}", "a\u{a0}b"],
                &["iptables -I", "echo \u{e4}"],
            ),
            (
                flushes,
                &[
                    "iptables -F",
                    "iptables -F INPUT",
                    "iptables -t nat --flush PREROUTING",
                ],
                &["iptables -F knocked", "ip addr flush", "nft -F INPUT"],
            ),
            (
                deletes_by_number,
                &[
                    "iptables -D INPUT 1",
                    "sleep 1; ip6tables -w -t nat --delete PREROUTING 12",
                ],
                &[
                    "iptables -D INPUT -s 1 -j ACCEPT",
                    "iptables -I INPUT 1 -j ACCEPT",
                ],
            ),
            (
                opens_to_all,
                &[
                    "iptables -I INPUT -j ACCEPT",
                    "ufw allow 22/tcp",
                    "firewall-cmd --add-port=22/tcp",
                    "iptables -P INPUT ACCEPT",
                    "iptables -D INPUT -p tcp --dport 22 -j DROP",
                ],
                &[
                    "iptables -I INPUT -s %IP% -j ACCEPT",
                    "iptables -I INPUT -s %ip% -j ACCEPT",
                    "iptables -I INPUT -s $IP -j ACCEPT",
                    "iptables -I INPUT -s %HOST% -j ACCEPT",
                    "iptables -I INPUT -s 192.0.2.1 -j ACCEPT",
                    "iptables -I INPUT -p tcp --dport 22 -j LOG",
                    "iptables -I INPUT -m set --match-set knock src -j ACCEPT",
                    "ufw allow from 192.0.2.1",
                    "ipset add knock 192.0.2.1",
                    "etherwake 0:1",
                ],
            ),
        ] {
            for text in yes {
                assert!(test(text.as_bytes()), "{text}");
            }
            for text in no {
                assert!(!test(text.as_bytes()), "{text}");
            }
        }
    }

    #[test]
    fn taking_the_line_down_is_seen() {
        for yes in [
            "ip link set dev vlan1 down",
            "/sbin/ifconfig ppp0 down",
            "wl -i eth1 down",
            "X=1 stop_service wan",
            "sync && reboot",
        ] {
            assert!(takes_line_down(yes.as_bytes()), "{yes}");
        }
        for no in [
            "iptables  -I INPUT -s %IP% -j ACCEPT",
            "ip link set vlan1 up",
            "ifconfig ppp0 up",
            "echo down",
            "logger reboot",
        ] {
            assert!(!takes_line_down(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn only_what_a_command_certainly_needs_is_named() {
        let named = |command: &str| -> Vec<String> {
            let mut named = Vec::new();
            needs(command.as_bytes(), &mut |need| {
                named.push(match need {
                    Need::Program(name) => String::from_utf8_lossy(name).into_owned(),
                    Need::Interface(name) => format!("@{}", String::from_utf8_lossy(name)),
                });
            });
            named
        };
        assert_eq!(
            named("/sbin/iptables -I INPUT -i eht0 -o ppp+ 2>&1 && /x -i y up; logger done"),
            ["/sbin/iptables", "@eht0"]
        );
        assert_eq!(named("/bin/mail -s \"a; /b\" root; /other"), ["/bin/mail"]);
        assert_eq!(named("for p in 1 2; do /x $p; done"), [""; 0]);
        assert_eq!(named("IP=%IP%; iptables; /x"), [""; 0]);
        assert_eq!(named("/a/x$X"), [""; 0]);
        assert_eq!(named(""), [""; 0]);
    }
}
