//! What a shell command seems to do, by its words: enough for advice, not for decisions.
#![forbid(unsafe_code)]

use super::line::is_blank;

/// Words, with `|` between them.
pub(super) type Words = &'static str;

/// Words that stand before the program they run.
const WRAPPERS: Words =
    "sudo|exec|nohup|setsid|env|busybox|sh|ash|bash|-c|if|then|else|while|until|do|!|{";

/// What tells a call: the program, one word of each of these lists, and none of those.
struct Rule(Words, &'static [Words], Words);

pub(super) const IPTABLES: Words = "iptables";
pub(super) const REFUSAL: Words = "DROP|REJECT|drop|reject";

const OPENS: [Rule; 4] = [
    Rule(IPTABLES, &["-A|-I|--append|--insert"], REFUSAL),
    Rule("nft", &["add|insert", "rule"], REFUSAL),
    Rule("nft", &["add", "element"], "timeout"),
    Rule("ipset", &["add|-A"], "timeout"),
];

const CLOSES: [Rule; 3] = [
    Rule(IPTABLES, &["-D|--delete|-F|--flush"], ""),
    Rule("nft", &["delete|flush"], ""),
    Rule("ipset", &["del|-D|flush"], ""),
];

const TAKES_LINE_DOWN: [Rule; 6] = [
    Rule("ip", &["link", "set", "down"], ""),
    Rule("ifconfig|wl", &["down"], ""),
    Rule("service", &["wan", "stop|restart"], ""),
    Rule("stop_service|stopservice", &["wan"], ""),
    Rule("killall", &["pppd|udhcpc"], ""),
    Rule("ifdown|reboot|poweroff|halt|shutdown", &[], ""),
];

/// A program without its folder, then its arguments.
pub(super) type Call<'a> = Vec<&'a [u8]>;

/// The programs that a command line calls, without regard to quotes and conditions. `iptables` is each of its kinds.
pub(super) fn calls(command: &[u8]) -> Vec<Call<'_>> {
    let mut calls = Vec::new();
    for part in command.split(|b| b";&|\n()`".contains(b)) {
        let mut call = Call::new();
        for word in part.split(|b| is_blank(*b) || b"\"'".contains(b)) {
            // Where output goes is not of interest.
            if word.is_empty() || word.contains(&b'>') || word.starts_with(b"/dev/") {
                continue;
            }
            if !call.is_empty() {
                call.push(word);
                continue;
            }
            let slash = word.iter().rposition(|b| *b == b'/');
            let program = slash.map_or(word, |at| &word[at + 1..]);
            if program.starts_with(b"iptables") || program.starts_with(b"ip6tables") {
                call.push(IPTABLES.as_bytes());
            } else if !program.is_empty()
                && !is_one(program, WRAPPERS)
                && !word.contains(&b'=')
                && !word.iter().all(u8::is_ascii_digit)
            {
                call.push(program);
            }
        }
        if !call.is_empty() {
            calls.push(call);
        }
    }
    calls
}

pub(super) fn is_one(word: &[u8], words: Words) -> bool {
    let mut words = words.as_bytes().split(|b| *b == b'|');
    words.any(|other| other == word)
}

/// Whether a call fits one of the rules.
fn fits(calls: &[Call<'_>], rules: &[Rule]) -> bool {
    let has = |call: &Call<'_>, words| call.iter().skip(1).any(|word| is_one(word, words));
    let fits = |call: &Call<'_>, rule: &Rule| {
        is_one(call[0], rule.0) && rule.1.iter().all(|words| has(call, words)) && !has(call, rule.2)
    };
    calls
        .iter()
        .any(|call| rules.iter().any(|rule| fits(call, rule)))
}

/// Whether it appends a rule to INPUT or FORWARD, where a router's last rule drops all.
pub(super) fn appends_rule(command: &[u8]) -> bool {
    let appends =
        |pair: &[&[u8]]| is_one(pair[0], "-A|--append") && is_one(pair[1], "INPUT|FORWARD");
    calls(command)
        .iter()
        .any(|call| is_one(call[0], IPTABLES) && call.windows(2).any(appends))
}

/// Whether it opens something in a firewall that it does not take back itself and that has no timeout.
pub(super) fn opens(command: &[u8]) -> bool {
    let calls = calls(command);
    fits(&calls, &OPENS) && !close_themselves(&calls)
}

/// Whether one of them takes back what another does.
pub(super) fn close_themselves(calls: &[Call<'_>]) -> bool {
    fits(calls, &CLOSES)
}

/// Whether it opens something in a firewall for more than the knocker's address.
pub(super) fn opens_to_all(command: &[u8]) -> bool {
    !has_address(command) && !misspells_address(command) && fits(&calls(command), &OPENS)
}

/// Whether the knocker's address will stand in it.
pub(super) fn has_address(command: &[u8]) -> bool {
    command.windows(4).any(|part| part == b"%IP%")
}

/// Whether it has something like `%IP%` that is not replaced: `%ip%`, `%IP`.
pub(super) fn misspells_address(command: &[u8]) -> bool {
    let like = |at: &usize| {
        let rest = command.get(*at..).unwrap_or_default();
        let begins = rest.get(..3);
        begins.is_some_and(|part| part.eq_ignore_ascii_case(b"%ip")) && !rest.starts_with(b"%IP%")
    };
    (0..command.len()).any(|at| like(&at))
}

/// Whether all of it stands in one pair of quotes, with blanks in it.
pub(super) fn is_quoted(command: &[u8]) -> bool {
    match command {
        [first @ (b'"' | b'\''), inner @ .., last] => {
            first == last && !inner.contains(first) && inner.iter().any(|b| is_blank(*b))
        }
        _ => false,
    }
}

/// Whether it has what web pages and word processors make of plain characters: U+2000 to U+203F, which are dashes, quotes and blanks,
/// or the blank U+00A0.
pub(super) fn is_typeset(command: &[u8]) -> bool {
    command
        .windows(2)
        .any(|pair| pair == b"\xe2\x80" || pair == b"\xc2\xa0")
}

/// Whether it takes a link, or the whole router, down.
pub(super) fn takes_line_down(command: &[u8]) -> bool {
    fits(&calls(command), &TAKES_LINE_DOWN)
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
            "nft add element inet filter knock4 { %IP% }",
            "ipset add knock %IP%",
        ] {
            assert!(opens(yes.as_bytes()), "{yes}");
        }
        for no in [
            "iptables -I INPUT -s %IP% -j DROP",
            "iptables -I INPUT -j ACCEPT; sleep 9; iptables -D INPUT -j ACCEPT",
            "nft add element inet filter knock4 { %IP% timeout 20s }",
            "ipset add knock %IP% timeout 20",
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
                &["a %ip%", "a %IP", "a \\%IP\\% b", "%Ip% %IP%", "%IP"][..],
                &["a %IP%", "%%IP%%", "%I%", "date +%H", ""][..],
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
                opens_to_all,
                &["iptables -I INPUT -j ACCEPT", "ipset add knock 1.2.3.4"],
                &[
                    "iptables -I INPUT -s %IP% -j ACCEPT",
                    "iptables -I INPUT -s %ip% -j ACCEPT",
                    "iptables -D INPUT -j DROP",
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
}
