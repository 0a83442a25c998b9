//! The value of `tcpflags`.
#![forbid(unsafe_code)]

use super::Diagnostic;
use super::line::{each_part, trim};
use super::set::{KeyValue, Notes};
use crate::knock::{FlagRule, TCP_FLAGS};
use crate::util::quote::{quote, truncate_for_log};

/// Adds the flags of the value to `rule`. A flag that is named again gets the new state, the others
/// stay.
pub(super) fn tcp_flags(
    given: &KeyValue<'_>,
    rule: &mut FlagRule,
    notes: &mut Notes<'_>,
) -> Result<(), Box<Diagnostic>> {
    let line = given.line;
    each_part(given.value, &mut |word| {
        let flag = trim(word);
        let name = flag.strip_prefix(b"!").unwrap_or(flag);
        let known = TCP_FLAGS
            .iter()
            .find(|(n, _)| n.as_bytes().eq_ignore_ascii_case(name));
        let upper = word.to_ascii_uppercase();
        let Some(&(_, bit)) = known else {
            let right =
                "use fin, syn, rst, psh, ack or urg, a '!' right before one that must be clear";
            let words = ["unrecognized flag \"", &truncate_for_log(&upper), "\""].concat();
            return Err(given.wrong(flag, &words, &[right]));
        };
        if flag.len() != word.len() {
            let text = ["knockd 0.8 refuses the space next to ", &quote(flag)];
            line.at(word, &text).add_to(&mut notes.warnings);
        }
        let (to, from) = match name.len() < flag.len() {
            true => (&mut rule.clear, &mut rule.set),
            false => (&mut rule.set, &mut rule.clear),
        };
        *to |= bit;
        *from &= !bit;
        (notes.trace)(&["config: tcp flag: ", &truncate_for_log(trim(&upper))].concat());
        Ok(())
    })
}
