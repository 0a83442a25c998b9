//! Numbers in text. (`str::parse` generates code for each type, and accepts a sign.)
#![forbid(unsafe_code)]

/// Parses a decimal number up to `most`, digits only.
pub fn parse_uint(text: &[u8], most: u64) -> Option<u64> {
    let mut number = None;
    for byte in text {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        let before: u64 = number.unwrap_or(0);
        number = Some(before.checked_mul(10)?.checked_add(digit.into())?);
    }
    number.filter(|number| *number <= most)
}

/// Parses up to four hexadecimal digits.
pub fn parse_hex_u16(text: &[u8]) -> Option<u16> {
    let digits = Some(text).filter(|text| (1..=4).contains(&text.len()))?;
    digits.iter().try_fold(0, |number, byte| {
        Some(number << 4 | char::from(*byte).to_digit(16)? as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_up_to_the_bound_are_a_number() {
        assert_eq!(parse_uint(b"0", 0), Some(0));
        assert_eq!(parse_uint(b"007", 7), Some(7));
        let most = u64::MAX.to_string();
        assert_eq!(parse_uint(most.as_bytes(), u64::MAX), Some(u64::MAX));
        assert_eq!(parse_uint(b"18446744073709551616", u64::MAX), None);
        for text in ["", "+1", "-1", " 1", "1 ", "1x", "8"] {
            assert_eq!(parse_uint(text.as_bytes(), 7), None, "{text}");
        }
    }

    #[test]
    fn up_to_four_digits_of_base_16_are_a_port() {
        assert_eq!(parse_hex_u16(b"0016"), Some(22));
        assert_eq!(parse_hex_u16(b"fFfF"), Some(u16::MAX));
        for text in ["", "10000", "+1", "-1", "1G", " 1"] {
            assert_eq!(parse_hex_u16(text.as_bytes()), None, "{text}");
        }
    }
}
