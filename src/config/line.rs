//! One line of the config: its type, and the position of its parts.
#![forbid(unsafe_code)]

use super::Diagnostic;

/// White space of the C locale, which knockd 0.8 strips. Rust's lacks the vertical tab.
pub(super) fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Returns the text without C-locale white space at both ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, tail @ ..] = text
        && is_blank(*first)
    {
        text = tail;
    }
    while let [head @ .., last] = text
        && is_blank(*last)
    {
        text = head;
    }
    text
}

/// The content of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// Empty or a comment.
    Nothing,
    /// `[name]`; the name is not trimmed.
    Section(&'a [u8]),
    /// `key = value`, both trimmed, split at the first `=`.
    Pair { key: &'a [u8], value: &'a [u8] },
    /// Anything else.
    Word(&'a [u8]),
}

/// A physical line of the file, for diagnostics about its parts.
#[derive(Clone, Copy)]
pub(super) struct ConfigLine<'a> {
    /// The number, from 1.
    pub number: usize,
    /// The text without the line end.
    pub text: &'a [u8],
}

impl<'a> ConfigLine<'a> {
    /// Returns the content.
    pub fn content(&self) -> Content<'a> {
        let text = trim(self.text);
        match text {
            [] | [b'#', ..] => Content::Nothing,
            [b'[', name @ .., b']'] => Content::Section(name),
            _ => match text.iter().position(|byte| *byte == b'=') {
                Some(at) => Content::Pair {
                    key: trim(&text[..at]),
                    value: trim(&text[at + 1..]),
                },
                None => Content::Word(text),
            },
        }
    }

    /// Returns the column, in characters from 1, of `part` of this line.
    pub fn column(&self, part: &[u8]) -> usize {
        1 + characters_before(self.text, part)
    }

    /// Returns a diagnostic about `part` of this line.
    pub fn at(&self, part: &[u8], text: &[&str]) -> Box<Diagnostic> {
        Diagnostic::at((self.number, self.column(part)), text)
    }

    /// Returns an error about `part` of this line for which knockd 0.8 prints `config: line N:
    /// WORDS`.
    pub fn error(&self, part: &[u8], words: &[&str], text: &[&str]) -> Box<Diagnostic> {
        let mut error = self.at(part, text);
        let words = words.concat();
        error.knockd_wording = Some(format!("config: line {}: {words}", self.number));
        error
    }
}

/// Calls a function for each part of a value between commas.
pub(super) fn each_part<'a>(
    value: &'a [u8],
    of: &mut dyn FnMut(&'a [u8]) -> Result<(), Box<Diagnostic>>,
) -> Result<(), Box<Diagnostic>> {
    value.split(|b| *b == b',').try_for_each(of)
}

/// Returns the number of characters of `text` before its slice `part`.
pub(super) fn characters_before(text: &[u8], part: &[u8]) -> usize {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    String::from_utf8_lossy(&text[..offset.min(text.len())])
        .chars()
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content_of(text: &str) -> Content<'_> {
        ConfigLine {
            number: 1,
            text: text.as_bytes(),
        }
        .content()
    }

    #[test]
    fn lines_are_what_knockd_takes_them_for() {
        assert_eq!(content_of(" \t\x0b\r"), Content::Nothing);
        assert_eq!(content_of("  # [a]"), Content::Nothing);
        assert_eq!(content_of("\t[ a b ]\r"), Content::Section(b" a b "));
        assert_eq!(
            content_of("[a] # see [b]"),
            Content::Section(b"a] # see [b")
        );
        assert_eq!(
            content_of("[a]=b"),
            Content::Pair {
                key: b"[a]",
                value: b"b"
            }
        );
        assert_eq!(
            content_of("a b = c = d "),
            Content::Pair {
                key: b"a b",
                value: b"c = d"
            }
        );
        assert_eq!(
            content_of("="),
            Content::Pair {
                key: b"",
                value: b""
            }
        );
        assert_eq!(content_of("["), Content::Word(b"["));
        assert_eq!(content_of("[a"), Content::Word(b"[a"));
    }

    #[test]
    fn columns_count_characters_also_where_bytes_are_not_text() {
        let text = "ä\u{20ac}x".as_bytes();
        assert_eq!(ConfigLine { number: 1, text }.column(&text[5..]), 3);
        let text = b"\xff=x";
        assert_eq!(ConfigLine { number: 1, text }.column(&text[2..]), 3);
        assert_eq!(ConfigLine { number: 1, text }.column(&text[3..]), 4);
    }
}
