//! The value of `tcpflags`.
#![forbid(unsafe_code)]

use super::Diagnostic;
use super::keys::or_list;
use super::line::{Line, trim};
use crate::door::{FlagRule, TCP_FLAGS};
use crate::quote::{cut, quote};

/// Adds the flags of `value` to `rule`: a flag that is named again takes the new state, others stay.
pub(super) fn tcp_flags(
    line: Line<'_>,
    value: &[u8],
    rule: &mut FlagRule,
    warnings: &mut Vec<Diagnostic>,
    trace: &mut dyn FnMut(&str),
) -> Result<(), Box<Diagnostic>> {
    for word in value.split(|b| *b == b',') {
        let flag = trim(word);
        let (name, negated) = match flag.strip_prefix(b"!") {
            Some(name) => (name, true),
            None => (flag, false),
        };
        let known = TCP_FLAGS
            .iter()
            .find(|(n, _)| n.as_bytes().eq_ignore_ascii_case(name));
        let Some(&(name, bit)) = known else {
            return Err(unknown(line, word, flag));
        };
        if flag.len() != word.len() {
            let text = format!(
                "knockd 0.8 refuses the blank beside {}; write it without",
                quote(flag)
            );
            warnings.push(line.at(word, text));
        }
        let (to, from) = match negated {
            true => (&mut rule.clear, &mut rule.set),
            false => (&mut rule.set, &mut rule.clear),
        };
        *to |= bit;
        *from &= !bit;
        let mark = if negated { "!" } else { "" };
        trace(&format!(
            "config: tcp flag: {mark}{}",
            name.to_ascii_uppercase()
        ));
    }
    Ok(())
}

fn unknown(line: Line<'_>, word: &[u8], flag: &[u8]) -> Box<Diagnostic> {
    let upper = cut(&word.to_ascii_uppercase());
    let legal = or_list(TCP_FLAGS.iter().map(|(name, _)| *name));
    let found = if flag.is_empty() {
        "no flag here".into()
    } else {
        format!("unknown flag {}", quote(flag))
    };
    let text = format!("{found}; use {legal}, a '!' right before one that must be clear");
    line.error(flag, &format!("unrecognized flag \"{upper}\""), text)
}
