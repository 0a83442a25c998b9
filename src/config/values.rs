//! Values of single types: times, addresses, interface names, networks, ports.
#![forbid(unsafe_code)]

use super::Diagnostic;
use super::line::{each_part, is_blank, trim};
use super::set::{KeyValue, Notes};
use crate::knock::network::Network;
use crate::knock::tripwire::{PortRange, Tripwire, merge};
use crate::limits::{MAX_ALLOWED, MAX_TRIPWIRES};
use crate::util::number::parse_uint;
use crate::util::quote::quote;
use crate::util::text::shown;
use std::net::IpAddr;

/// The longest interface name in Linux (IFNAMSIZ in linux/if.h, without the NUL).
const MAX_INTERFACE_NAME: usize = 15;

/// Parses the number that C's `atoi` finds at the start, before it is truncated to 32 bits. Returns
/// it and the rest of the text, or `None` without a number.
pub(super) fn leading_number(text: &[u8]) -> Option<(i64, &[u8])> {
    let blanks = text.iter().take_while(|b| is_blank(**b)).count();
    let text = &text[blanks..];
    let unsigned = match text {
        [b'+' | b'-', unsigned @ ..] => unsigned,
        _ => text,
    };
    let length = unsigned.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, after) = unsigned.split_at(length);
    let magnitude = digits.iter().fold(0i64, |n, digit| {
        n.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
    });
    let number = match text.starts_with(b"-") {
        true => -magnitude,
        false => magnitude,
    };
    (length > 0).then_some((number, after))
}

/// Parses whole seconds as knockd 0.8 does. Warns of text after the number.
pub(super) fn seconds(given: &KeyValue<'_>, notes: &mut Notes<'_>) -> Result<i32, Box<Diagnostic>> {
    let found = leading_number(given.value);
    let Some((seconds, after)) = found.filter(|(number, _)| i32::try_from(*number).is_ok()) else {
        let right = "give whole seconds up to 2147483647, such as 10";
        return Err(given.wrong(given.value, "", &[right]));
    };
    let seconds = seconds as i32;
    if !after.is_empty() {
        let (value, read) = (quote(given.value), shown(&seconds));
        let text = [&value, " is read as ", &read, " seconds, as in knockd 0.8"];
        given.line.at(after, &text).add_to(&mut notes.warnings);
    }
    Ok(seconds)
}

/// Parses a literal address. Refuses host names and networks: knockd 0.8 accepts some, and none
/// ever matches.
pub(super) fn target(given: &KeyValue<'_>) -> Result<IpAddr, Box<Diagnostic>> {
    let text = std::str::from_utf8(given.value).unwrap_or_default();
    match text.parse::<IpAddr>() {
        // Packets never carry the IPv4-mapped form, which knockd 0.8 compares as text with their
        // address.
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => {
            let right = "give one IP address such as 192.0.2.1 or 2001:db8::1, no host name, network or zone";
            Err(given.wrong(given.value, "", &[right]))
        }
    }
}

/// Parses a list of interface names without spaces. `None` if the value is empty.
pub(super) fn interfaces(given: &KeyValue<'_>) -> Result<Option<String>, Box<Diagnostic>> {
    if given.value.is_empty() {
        return Ok(None);
    }
    let mut list = String::new();
    each_part(given.value, &mut |part| {
        let name = trim(part);
        let is_impossible = |b: &u8| is_blank(*b) || *b == b'/';
        let text = std::str::from_utf8(name).unwrap_or_default();
        if matches!(text, "" | "." | "..")
            || name.len() > MAX_INTERFACE_NAME
            || name.iter().any(is_impossible)
        {
            let right = "give a name such as ppp0 (at most 15 bytes, no blank, no '/'), several as ppp0,vlan1, or any, or auto";
            return Err(given.wrong(name, "", &[right]));
        }
        list.push_str(if list.is_empty() { "" } else { "," });
        list.push_str(text);
        Ok(())
    })?;
    Ok(Some(list))
}

/// Parses the value of `Allow`.
pub(super) fn networks(given: &KeyValue<'_>) -> Result<Vec<Network>, Box<Diagnostic>> {
    let mut networks = Vec::new();
    each_part(given.value, &mut |part| {
        let part = trim(part);
        let text = std::str::from_utf8(part).unwrap_or_default();
        let network = Network::parse(text).filter(|_| networks.len() < MAX_ALLOWED);
        let Some(network) = network else {
            const { assert!(MAX_ALLOWED == 64) };
            let right =
                "give up to 64 addresses and networks such as 192.168.1.0/24, 2001:db8::/32";
            return Err(given.wrong(part, "syntax error", &[right]));
        };
        networks.push(network);
        Ok(())
    })?;
    Ok(networks)
}

/// Parses the value of `Tripwire`.
pub(super) fn tripwire(
    given: &KeyValue<'_>,
    notes: &mut Notes<'_>,
) -> Result<Tripwire<Vec<PortRange>>, Box<Diagnostic>> {
    notes.singles.clear();
    if given.value.eq_ignore_ascii_case(b"none") {
        return Ok(Tripwire::None);
    }
    if given.value.eq_ignore_ascii_case(b"auto") {
        return Ok(Tripwire::Auto);
    }
    const { assert!(MAX_TRIPWIRES == 1024) };
    let right = "give auto, none, or up to 1024 ports and ranges such as 1-1023,5000";
    let wrong = |part: &[u8]| given.wrong(part, "syntax error", &[right]);
    let mut ranges = Vec::new();
    each_part(given.value, &mut |part| {
        let part = trim(part);
        let dash = part.iter().position(|b| *b == b'-');
        let (low, high) = match dash {
            Some(dash) => (port(&part[..dash]), port(&part[dash + 1..])),
            None => (port(part), port(part)),
        };
        if low == 0 || low > high {
            return Err(wrong(part));
        }
        if dash.is_none() {
            let line = given.line;
            notes.singles.push((low, (line.number, line.column(part))));
        }
        ranges.push(PortRange { low, high });
        Ok(())
    })?;
    let ranges = merge(ranges);
    if ranges.len() > MAX_TRIPWIRES {
        return Err(wrong(given.value));
    }
    Ok(Tripwire::Ports(ranges))
}

/// Returns 0 if it is not a port.
fn port(text: &[u8]) -> u16 {
    parse_uint(trim(text), u16::MAX.into()).unwrap_or(0) as u16
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
}
