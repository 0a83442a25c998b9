//! Untrusted bytes in messages and on a terminal.
#![forbid(unsafe_code)]

/// Returns whether a character can make text look like other text: a control character, or one that
/// breaks lines, changes the direction (U+202E) or is invisible (Unicode's Zl, Zp and most of Cf).
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Makes bytes safe for a terminal: replaces what is not UTF-8, and escapes deceptive characters
/// and the no-break space of web pages.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if is_deceptive(c) || c == '\u{a0}' => {
                out.push_str(&format!("\\u{{{:x}}}", u64::from(c)))
            }
            c => out.push(c),
        }
    }
    out
}

/// Quotes bytes for a message, cut at 60 characters.
pub fn quote(bytes: &[u8]) -> String {
    ["'", &truncate_for_log(bytes), "'"].concat()
}

/// Cuts bytes for a message at 60 characters.
pub fn truncate_for_log(bytes: &[u8]) -> String {
    let mut text = printable(bytes);
    let end = text.chars().take(60).map(char::len_utf8).sum();
    if end < text.len() {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_short_and_tame() {
        assert_eq!(quote(b"a\x1b[2J\xff"), "'a\\u{1b}[2J\u{fffd}'");
        assert_eq!(quote("a\u{202e}b".as_bytes()), "'a\\u{202e}b'");
        assert_eq!(quote(&[b'x'; 61]).len(), 65);
        assert_eq!(quote(&[b'x'; 60]).len(), 62);
    }
}
