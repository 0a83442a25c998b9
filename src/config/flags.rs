//! The value of `tcpflags`.
#![forbid(unsafe_code)]

use super::Diagnostic;
use super::keys::or_list;
use super::line::{Line, trim};
use super::set::Notes;
use crate::door::{FlagRule, TCP_FLAGS};
use crate::quote::{around, cut};

/// Adds the flags of `value` to `rule`: a flag that is named again takes the new state, others stay.
pub(super) fn tcp_flags(
    line: Line<'_>,
    value: &[u8],
    rule: &mut FlagRule,
    notes: &mut Notes<'_>,
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
            let before = "knockd 0.8 refuses the blank beside ";
            let text = around(before, flag, "; write it without");
            notes.warnings.push(line.at(word, &text));
        }
        let (to, from) = match negated {
            true => (&mut rule.clear, &mut rule.set),
            false => (&mut rule.set, &mut rule.clear),
        };
        *to |= bit;
        *from &= !bit;
        let mark = if negated { "!" } else { "" };
        let text = ["config: tcp flag: ", mark, &name.to_ascii_uppercase()];
        (notes.trace)(&text.concat());
    }
    Ok(())
}

fn unknown(line: Line<'_>, word: &[u8], flag: &[u8]) -> Box<Diagnostic> {
    let upper = cut(&word.to_ascii_uppercase());
    let legal = or_list(&mut TCP_FLAGS.iter().map(|(name, _)| *name));
    let found = match flag {
        b"" => "no flag here".into(),
        _ => around("unknown flag ", flag, ""),
    };
    let right = ", a '!' right before one that must be clear";
    let words = ["unrecognized flag \"", &upper, "\""].concat();
    let text = [&found, "; use ", &legal, right].concat();
    line.error(flag, &words, &text)
}
