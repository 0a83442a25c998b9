//! Numbers in text. (`str::parse` has a copy for each kind of number, and takes a sign.)
#![forbid(unsafe_code)]

/// Any number of 19 digits fits into 64 bits.
const MOST_DIGITS: usize = 19;

/// A whole number up to `most`, in digits alone.
pub fn number(text: &[u8], most: u64) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if !is_number || text.len() > MOST_DIGITS {
        return None;
    }
    let number = text
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    (number <= most).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_up_to_the_bound_are_a_number() {
        assert_eq!(number(b"0", 0), Some(0));
        assert_eq!(number(b"007", 7), Some(7));
        assert_eq!(
            number(b"9999999999999999999", u64::MAX),
            Some(9_999_999_999_999_999_999)
        );
        for text in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1x",
            "8",
            "10000000000000000000",
        ] {
            assert_eq!(number(text.as_bytes(), 7), None, "{text}");
        }
    }
}
