//! What a shell command seems to do, by its words: enough for advice, not for decisions.
#![forbid(unsafe_code)]

use super::line::is_blank;

/// Words that stand before the program they run.
const WRAPPERS: [&[u8]; 16] = [
    b"sudo", b"exec", b"nohup", b"setsid", b"env", b"busybox", b"sh", b"ash", b"bash", b"-c",
    b"if", b"then", b"else", b"do", b"!", b"{",
];

/// One program with its arguments.
struct Call<'a> {
    /// Without its folder.
    program: &'a [u8],
    arguments: Vec<&'a [u8]>,
}

impl Call<'_> {
    fn has(&self, argument: &str) -> bool {
        self.arguments.contains(&argument.as_bytes())
    }

    fn has_any(&self, arguments: &[&str]) -> bool {
        arguments.iter().any(|a| self.has(a))
    }

    /// Whether these two arguments stand side by side.
    fn has_pair(&self, first: &[&str], second: &[&str]) -> bool {
        let is = |word: &[u8], list: &[&str]| list.iter().any(|l| l.as_bytes() == word);
        self.arguments
            .windows(2)
            .any(|w| is(w[0], first) && is(w[1], second))
    }

    fn is_iptables(&self) -> bool {
        self.program.starts_with(b"iptables") || self.program.starts_with(b"ip6tables")
    }
}

/// The programs that a command line calls, without regard to quotes and conditions.
fn calls(command: &[u8]) -> impl Iterator<Item = Call<'_>> {
    command
        .split(|b| b";&|\n()`".contains(b))
        .filter_map(|part| {
            let mut words = part
                .split(|b| is_blank(*b) || *b == b'"' || *b == b'\'')
                .filter(|word| !word.is_empty())
                .map(|word| (word, word.rsplit(|b| *b == b'/').next().unwrap_or(word)))
                .skip_while(|(word, base)| WRAPPERS.contains(base) || word.contains(&b'='));
            let (_, program) = words.next()?;
            Some(Call {
                program,
                arguments: words.map(|(word, _)| word).collect(),
            })
        })
}

/// Whether it appends a rule to INPUT or FORWARD, where a router's last rule drops all.
pub(super) fn appends_rule(command: &[u8]) -> bool {
    calls(command)
        .any(|call| call.is_iptables() && call.has_pair(&["-A", "--append"], &["INPUT", "FORWARD"]))
}

/// Whether it opens something in a firewall that it does not take back itself and that has no timeout.
pub(super) fn opens(command: &[u8]) -> bool {
    let refuses = |call: &Call<'_>| call.has_any(&["DROP", "REJECT", "drop", "reject"]);
    let adds = |call: &Call<'_>| match call.program {
        _ if call.is_iptables() => {
            call.has_any(&["-A", "-I", "--append", "--insert"]) && !refuses(call)
        }
        b"nft" => {
            call.has_pair(&["add", "insert"], &["rule"]) && !refuses(call)
                || call.has_pair(&["add"], &["element"]) && !call.has("timeout")
        }
        b"ipset" => call.has_any(&["add", "-A"]) && !call.has("timeout"),
        _ => false,
    };
    let removes = |call: &Call<'_>| match call.program {
        _ if call.is_iptables() => call.has_any(&["-D", "--delete", "-F", "--flush"]),
        b"nft" => call.has_any(&["delete", "flush"]),
        b"ipset" => call.has_any(&["del", "-D", "flush"]),
        _ => false,
    };
    calls(command).any(|call| adds(&call)) && !calls(command).any(|call| removes(&call))
}

/// Whether it takes a link, or the whole router, down.
pub(super) fn takes_line_down(command: &[u8]) -> bool {
    calls(command).any(|call| match call.program {
        b"ip" => call.has("link") && call.has("set") && call.has("down"),
        b"ifconfig" | b"wl" => call.has("down"),
        b"service" => call.has("wan") && call.has_any(&["stop", "restart"]),
        b"stop_service" | b"stopservice" => call.has("wan"),
        b"killall" => call.has_any(&["pppd", "udhcpc"]),
        program => {
            [&b"ifdown"[..], b"reboot", b"poweroff", b"halt", b"shutdown"].contains(&program)
        }
    })
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
            "ip link set vlan1 up",
            "ifconfig ppp0 up",
            "echo down",
            "logger reboot",
        ] {
            assert!(!takes_line_down(no.as_bytes()), "{no}");
        }
    }
}
