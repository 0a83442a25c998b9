//! Values of single keys: times, addresses, interface names.
#![forbid(unsafe_code)]

use super::Diagnostic;
use super::line::{Line, is_blank, trim};
use crate::limits::MAX_ALLOWED;
use crate::network::Network;
use crate::quote::{around, quote};
use nom::bytes::complete::take_while;
use nom::character::complete::{digit1, one_of};
use nom::combinator::opt;
use nom::{IResult, Parser};
use std::net::{IpAddr, Ipv6Addr};

/// The longest name that Linux gives an interface (IFNAMSIZ in linux/if.h, less the NUL).
const MAX_INTERFACE_NAME: usize = 15;

/// The number that C's `atoi` finds at the start, before it is cut to 32 bits, and what follows it. `None`: no number.
pub(super) fn leading_number(text: &[u8]) -> Option<(i64, &[u8])> {
    type Parts<'a> = (&'a [u8], Option<char>, &'a [u8]);
    fn number(text: &[u8]) -> IResult<&[u8], Parts<'_>> {
        (take_while(is_blank), opt(one_of("+-")), digit1).parse(text)
    }
    let (after, (_, sign, digits)) = number(text).ok()?;
    let magnitude = digits.iter().fold(0i64, |n, digit| {
        n.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
    });
    Some((
        if sign == Some('-') {
            -magnitude
        } else {
            magnitude
        },
        after,
    ))
}

/// Whole seconds as knockd 0.8 reads them; what follows the number draws a warning.
pub(super) fn seconds(
    line: Line<'_>,
    value: &[u8],
    warnings: &mut Vec<Diagnostic>,
) -> Result<i32, Box<Diagnostic>> {
    let Some((number, after)) = leading_number(value) else {
        let found = if value.is_empty() {
            "no time".into()
        } else {
            quote(value)
        };
        let right = "; give whole seconds, such as 10 (knockd 0.8 takes anything else for 0)";
        return Err(line.at(value, &["found ", &found, right].concat()).into());
    };
    let Ok(seconds) = i32::try_from(number) else {
        let text = format!(
            "{} does not fit; the longest time is {} seconds (knockd 0.8 would take {})",
            quote(value),
            i32::MAX,
            number as i32
        );
        return Err(line.at(value, &text).into());
    };
    if !after.is_empty() {
        let text = format!(
            "{} is read as {seconds} seconds, as in knockd 0.8; {} has no meaning",
            quote(value),
            quote(trim(after))
        );
        warnings.push(line.at(after, &text));
    }
    Ok(seconds)
}

/// A literal address. Host names and networks are refused: knockd 0.8 accepts some, and none ever matches.
pub(super) fn target(line: Line<'_>, value: &[u8]) -> Result<IpAddr, Box<Diagnostic>> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    if let Ok(address) = text.parse::<IpAddr>() {
        // Packets never carry the mapped form, which knockd 0.8 compares as text with their address.
        return Ok(address.to_canonical());
    }
    let hint = if value.is_empty() {
        "leave the key out to accept the addresses of the interface"
    } else if value.contains(&b'/') {
        "a network is not possible: give one address, without '/'"
    } else if text
        .split_once('%')
        .is_some_and(|(a, _)| a.parse::<Ipv6Addr>().is_ok())
    {
        "write it without '%' and the interface"
    } else if value.contains(&b',') {
        "give one address only"
    } else {
        "host names are not looked up: give the address itself"
    };
    let after = " is not an IP address; give one such as 192.0.2.1 or 2001:db8::1; ";
    let text = around("", value, after) + hint;
    Err(line.at(value, &text).into())
}

/// A list of interface names, without blanks; `None` if the value is empty.
pub(super) fn interfaces(line: Line<'_>, value: &[u8]) -> Result<Option<String>, Box<Diagnostic>> {
    if value.is_empty() {
        return Ok(None);
    }
    let mut list = String::new();
    for name in value.split(|b| *b == b',').map(trim) {
        let problem = match std::str::from_utf8(name) {
            Ok("") => "there is no name between the commas",
            Ok("." | "..") | Err(_) => "no interface can have this name",
            Ok(_) if name.len() > MAX_INTERFACE_NAME => "a name has at most 15 bytes",
            Ok(_) if name.iter().any(|b| is_blank(*b)) => "a name has no blanks",
            Ok(_) if name.contains(&b'/') => "a name has no '/'",
            Ok(text) => {
                if !list.is_empty() {
                    list.push(',');
                }
                list.push_str(text);
                continue;
            }
        };
        let right = "; give a name such as ppp0, several as ppp0,vlan1, or any, or auto";
        let text = [&around("interface ", name, ": "), problem, right].concat();
        return Err(line.at(name, &text).into());
    }
    Ok(Some(list))
}

/// The value of `Allow`.
pub(super) fn networks(line: Line<'_>, value: &[u8]) -> Result<Vec<Network>, Box<Diagnostic>> {
    let mut networks = Vec::new();
    for part in value.split(|b| *b == b',').map(trim) {
        let text = std::str::from_utf8(part).unwrap_or_default();
        let Some(network) = Network::parse(text) else {
            let right =
                " is no network; give addresses and networks such as 192.168.1.0/24, 2001:db8::/32";
            let text = around("Allow: ", part, right);
            return Err(line.error(part, "syntax error", &text));
        };
        networks.push(network);
    }
    if networks.len() > MAX_ALLOWED {
        let text = format!("Allow: more than {MAX_ALLOWED} networks");
        return Err(line.error(value, "syntax error", &text));
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_atoi_reads_them() {
        assert_eq!(leading_number(b" \t+12x"), Some((12, &b"x"[..])));
        assert_eq!(leading_number(b"-3"), Some((-3, &b""[..])));
        assert_eq!(leading_number(b"0x10"), Some((0, &b"x10"[..])));
        assert_eq!(
            leading_number(b"99999999999999999999"),
            Some((i64::MAX, &b""[..]))
        );
        assert_eq!(leading_number(b"- 3"), None);
        assert_eq!(leading_number(b"abc"), None);
        assert_eq!(leading_number(b""), None);
    }

    #[test]
    fn a_target_is_a_literal_address_in_any_spelling() {
        let target = |text: &str| {
            let line = Line {
                number: 1,
                text: text.as_bytes(),
            };
            target(line, text.as_bytes()).ok().map(|a| a.to_string())
        };
        assert_eq!(target("192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(target("FD00:9:0::99").as_deref(), Some("fd00:9::99"));
        assert_eq!(target("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        for bad in [
            "",
            "localhost",
            "1.2.3",
            "010.1.2.3",
            "10.0.0.0/8",
            "fe80::1%eth0",
            "[::1]",
        ] {
            assert_eq!(target(bad), None, "{bad}");
        }
    }
}
