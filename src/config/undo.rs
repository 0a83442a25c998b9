//! Decides from their words whether one command undoes another.
#![forbid(unsafe_code)]

use super::shell::{Call, IPTABLES, REFUSAL, WordList, any_call, closes, is_one};

/// The verbs of all these programs.
const ADDS: WordList = "-A|-I|--append|--insert|add|insert";
const REMOVES: WordList = "-D|--delete|del|delete";
/// Words that do not change the meaning of a call.
const NEUTRAL: WordList = "-w|--wait|-v|-n|-q|-!|-exist|-t|--table|filter|-m|--match|tcp|udp|{|}";
/// Programs that change nothing.
const HARMLESS: WordList = "logger|echo|sleep|true|:";

/// A call that opens or closes something.
struct RuleChange<'a> {
    opens: bool,
    /// Its words without verb, number and [`NEUTRAL`] words.
    what: Vec<&'a [u8]>,
}

/// Returns the calls of a command that open, or those that close.
fn changes(command: &[u8], opening: bool) -> Vec<RuleChange<'_>> {
    let mut changes = Vec::new();
    any_call(command, &mut |call| {
        changes.extend(change(call).filter(|change| change.opens == opening));
        false
    });
    changes
}

/// Returns what a call changes. `None` also if it deletes by number.
fn change<'a>(call: &Call<'a>) -> Option<RuleChange<'a>> {
    // Only ufw has no verb.
    let mut adds = (call[0] == b"ufw").then_some(true);
    let (mut what, mut verb_at) = (Vec::new(), call.len());
    let mut before = &b""[..];
    let refuses = call.iter().any(|word| is_one(word, REFUSAL));
    for (at, &word) in call.iter().enumerate() {
        let has_verb = verb_at < call.len();
        let is_number = is_number(word);
        if word.starts_with(b"timeout") || word.starts_with(b"--timeout") {
            break;
        } else if !has_verb && is_one(word, ADDS) {
            (adds, verb_at) = (Some(true), at);
        } else if !has_verb && is_one(word, REMOVES) {
            (adds, verb_at) = (Some(false), at);
        } else if let Some(rest) = word.strip_prefix(b"--add-") {
            adds = Some(true);
            what.push(rest);
        } else if let Some(rest) = word.strip_prefix(b"--remove-") {
            adds = Some(false);
            what.push(rest);
        } else if is_number && (1..3).contains(&at.saturating_sub(verb_at)) {
            // iptables -I INPUT 1, ufw insert 1.
            adds = adds.filter(|adds| *adds);
        } else if is_one(before, "-p|--protocol|--proto")
            || !(is_one(word, NEUTRAL) || is_number && is_one(before, "-w|--wait"))
        {
            // Long option names begin with the letter of the short one: --source, --src, -s.
            let is_long = word.starts_with(b"--") && !word.contains(&b'=');
            what.push(word.get(1..3).filter(|_| is_long).unwrap_or(word));
        }
        before = word;
    }
    adds.map(|adds| RuleChange {
        opens: adds != refuses,
        what,
    })
}

fn is_number(word: &[u8]) -> bool {
    word.iter().all(u8::is_ascii_digit)
}

/// Returns whether it is an option, a chain or a target: if one differs, the rules differ. Other
/// words can be names of the same thing.
fn is_fixed(word: &[u8]) -> bool {
    match word {
        [b'-', _, ..] | [b'!'] => true,
        [first, ..] => first.is_ascii_uppercase() && word.len() > 3,
        [] => false,
    }
}

/// Returns whether two changes have the same of these words, in any order.
fn agree(a: &RuleChange<'_>, b: &RuleChange<'_>, test: fn(&[u8]) -> bool) -> bool {
    let count = |of: &RuleChange<'_>, word| of.what.iter().filter(|other| **other == word).count();
    let mut words = a.what.iter().chain(&b.what);
    words.all(|word| !test(word) || count(a, *word) == count(b, *word))
}

/// Returns whether two changes to iptables are certainly of different rules.
fn differ(a: &RuleChange<'_>, b: &RuleChange<'_>) -> bool {
    let numbers =
        |change: &RuleChange<'_>| change.what.iter().filter(|word| is_number(word)).count();
    !agree(a, b, is_fixed) || numbers(a) == numbers(b) && !agree(a, b, is_number)
}

/// Returns whether `by` closes everything that `done` opens. `None` if unknown.
pub fn undoes(done: &[u8], by: &[u8]) -> Option<bool> {
    if done.iter().chain(by).any(|b| b"$`".contains(b)) {
        return None;
    }
    let (opened, closed) = (changes(done, true), changes(by, false));
    if opened.is_empty() || closed.is_empty() {
        return None;
    }
    let is_closed = |open: &RuleChange<'_>| closed.iter().any(|close| agree(close, open, |_| true));
    if opened.iter().all(is_closed) {
        return Some(true);
    }
    let stays = |open: &RuleChange<'_>| {
        open.what.contains(&IPTABLES.as_bytes()) && closed.iter().all(|close| differ(open, close))
    };
    let is_unknown = &mut |call: &Call<'_>| {
        let is_known = call[0] == IPTABLES.as_bytes() && change(call).is_some();
        !is_known && !is_one(call[0], HARMLESS)
    };
    let uncertain = any_call(by, is_unknown) || closes(done);
    (!uncertain && opened.iter().any(stays)).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_undoes_another_by_the_same_rule_in_any_spelling() {
        for (done, by, expected) in [
            (
                "iptables -I INPUT -s %IP% -j ACCEPT",
                "iptables -D INPUT -s %IP% -j ACCEPT",
                Some(true),
            ),
            (
                "/sbin/iptables -w 5 -I INPUT 1 --source %IP% -p tcp -m tcp --destination-port 22 -j ACCEPT",
                "iptables -t filter -D INPUT -p tcp --dport 22 -s %IP% --jump ACCEPT 2>/dev/null || true",
                Some(true),
            ),
            (
                "iptables -D INPUT -s %IP% -j DROP",
                "iptables -I INPUT -s %IP% -j DROP",
                Some(true),
            ),
            (
                "ipset add k %IP% -exist timeout 60",
                "ipset del k %IP% 2>&1 | logger",
                Some(true),
            ),
            (
                "nft add element inet filter k { %IP% timeout 1h }",
                "nft delete element inet filter k { %IP% }",
                Some(true),
            ),
            (
                "ufw allow from %IP% to any port 22",
                "ufw delete allow from %IP% to any port 22",
                Some(true),
            ),
            (
                "ufw insert 1 allow from %IP%",
                "ufw delete allow from %IP%",
                Some(true),
            ),
            (
                "firewall-cmd --add-port=22/tcp",
                "firewall-cmd --remove-port=22/tcp",
                Some(true),
            ),
            (
                "/usr/sbin/helper insert tcp %IP% 22",
                "/usr/sbin/helper delete tcp %IP% 22",
                Some(true),
            ),
            // Certainly another rule.
            (
                "iptables -I INPUT -i wan -s %IP% -p tcp --dport 22 -j ACCEPT",
                "iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
                Some(false),
            ),
            (
                "iptables -I INPUT -p tcp --dport 22 -j ACCEPT",
                "iptables -D INPUT -p tcp --dport 23 -j ACCEPT",
                Some(false),
            ),
            (
                "iptables -I INPUT -s %IP% -j ACCEPT",
                "iptables -D FORWARD -s %IP% -j ACCEPT; logger closed",
                Some(false),
            ),
            (
                "iptables -I INPUT -s %IP% -j ACCEPT; iptables -I FORWARD -s %IP% -j ACCEPT",
                "iptables -D INPUT -s %IP% -j ACCEPT",
                Some(false),
            ),
            // Possibly the same.
            (
                "iptables -I INPUT -p tcp --dport ssh -j ACCEPT",
                "iptables -D INPUT -p tcp --dport 22 -j ACCEPT",
                None,
            ),
            (
                "iptables -I INPUT -s %IP%/32 -j ACCEPT",
                "iptables -D INPUT -s %IP% -j ACCEPT",
                None,
            ),
            (
                "iptables -I INPUT -p tcp --dport 22 -j ACCEPT",
                "iptables -D INPUT 1",
                None,
            ),
            (
                "iptables -I INPUT -p tcp --dport 22 -j ACCEPT",
                "iptables -D INPUT -j ACCEPT; /etc/init.d/firewall restart",
                None,
            ),
            (
                "iptables -I INPUT -p tcp --dport $P -j ACCEPT",
                "iptables -D INPUT -j ACCEPT",
                None,
            ),
            (
                "iptables -I INPUT -p tcp -j ACCEPT",
                "iptables -F INPUT",
                None,
            ),
            (
                "iptables -I INPUT -p tcp -j ACCEPT",
                "iptables -I INPUT -p tcp -j ACCEPT",
                None,
            ),
            (
                "iptables -I INPUT -p tcp -j ACCEPT",
                "iptables -D INPUT -p udp -j ACCEPT",
                None,
            ),
            ("etherwake 1", "iptables -D INPUT -j ACCEPT", None),
            ("", "", None),
        ] {
            assert_eq!(
                undoes(done.as_bytes(), by.as_bytes()),
                expected,
                "{done}  /  {by}"
            );
        }
    }
}
