//! DNS messages (RFC 1035): the query for one type of record, and the reply. A reply is untrusted.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::net::IpAddr;

/// A record type, with its number in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// IPv4 address of a name.
    A = 1,
    /// Name of an address.
    Ptr = 12,
    /// IPv6 address of a name (RFC 3596).
    Aaaa = 28,
}

/// The content of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The first address.
    Address(IpAddr),
    /// The first name.
    Name(String),
    /// The name exists, but has no usable record of this type.
    NoRecord,
    /// The name does not exist.
    NoName,
    /// This server cannot answer.
    Failed,
}

/// Bytes of a message over UDP. Longer replies are truncated (RFC 1035, 4.2.1).
pub const MAX_MESSAGE: usize = 512;

/// The longest name as text, without the final dot.
pub const MAX_DNS_NAME: usize = 253;

/// The longest label of a name.
const MAX_LABEL: usize = 63;

const HEADER: usize = 12;

/// Encodes the query for that record. The reply must have the same id. Returns `None` if no host
/// can have such a name.
pub fn question(name: &str, kind: RecordKind, id: [u8; 2]) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > MAX_DNS_NAME {
        return None;
    }
    // Recursion desired, one question.
    let mut message = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let label = label.as_bytes();
        if label.is_empty() || label.len() > MAX_LABEL || !is_of_host(label) {
            return None;
        }
        message.push(label.len() as u8);
        message.extend_from_slice(label);
    }
    // The end of the name, the type, and class IN.
    message.extend_from_slice(&[0, 0, kind as u8, 0, 1]);
    Some(message)
}

/// Returns the name under which the DNS stores the name of an address.
pub fn reverse_name(address: IpAddr) -> String {
    let mut name = String::new();
    // Writing to a String cannot fail.
    let _ = match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            write!(name, "{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            for byte in v6.octets().iter().rev() {
                let byte = u64::from(*byte);
                let _ = write!(name, "{:x}.{:x}.", byte & 15, byte >> 4);
            }
            name.write_str("ip6.arpa")
        }
    };
    name
}

/// Decodes the reply `message` to that query. Returns `None` if it is not a reply to it.
pub fn reply(message: &[u8], question: &[u8]) -> Option<Reply> {
    let (header, rest) = message.split_at_checked(HEADER)?;
    let (asked_header, asked) = question.split_at_checked(HEADER)?;
    let said = rest.get(..asked.len())?;
    // A response (the upper bit) to a standard query (the next four) with one question, which is
    // ours.
    let is_ours = header[..2] == asked_header[..2]
        && header[2] >> 3 == 0b1_0000
        && header[4..6] == [0, 1]
        && said.eq_ignore_ascii_case(asked);
    if !is_ours {
        return None;
    }
    // The record may be in the truncated part, and an overloaded server sends no record at all.
    let is_cut = header[2] & 2 != 0;
    Some(match header[3] & 15 {
        0 => {
            let records = u16::from_be_bytes([header[6], header[7]]);
            let none = match is_cut {
                true => Reply::Failed,
                false => Reply::NoRecord,
            };
            first_record(message, question, records).unwrap_or(none)
        }
        3 => Reply::NoName,
        _ => Reply::Failed,
    })
}

/// Returns the first record of the right type and class, of any owner: servers put aliases before
/// it.
fn first_record(message: &[u8], question: &[u8], records: u16) -> Option<Reply> {
    let wanted = question.last_chunk::<4>()?;
    let mut at = question.len();
    for _ in 0..records {
        // The owner: labels up to an empty one or a pointer.
        at += loop {
            match *message.get(at)? {
                0 => break 1,
                length @ 1..64 => at += 1 + usize::from(length),
                _ => break 2,
            }
        };
        // Type, class, time to live, length of what follows.
        let fixed = message.get(at..)?.first_chunk::<10>()?;
        let data_at = at + fixed.len();
        at = data_at + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data = message.get(data_at..at)?;
        if fixed[..4] != *wanted {
            continue;
        }
        if wanted[1] == RecordKind::Ptr as u8 {
            return name_at(message, data_at).map(Reply::Name);
        }
        let address = if wanted[1] == RecordKind::A as u8 {
            <[u8; 4]>::try_from(data).ok().map(IpAddr::from)
        } else {
            <[u8; 16]>::try_from(data).ok().map(IpAddr::from)
        };
        return address.map(Reply::Address);
    }
    None
}

/// Decodes the name at that offset of a message, if it has only characters of host names.
fn name_at(message: &[u8], mut at: usize) -> Option<String> {
    let mut name = String::new();
    // Each pointer must lead to before the target of the last one, so the loop ends.
    let mut limit = at;
    loop {
        match *message.get(at)? {
            0 => return Some(name).filter(|name| !name.is_empty()),
            length @ 1..64 => {
                let label = message.get(at + 1..)?.get(..usize::from(length))?;
                if !name.is_empty() {
                    name.push('.');
                }
                if !is_of_host(label) || name.len() + label.len() > MAX_DNS_NAME {
                    return None;
                }
                name.push_str(std::str::from_utf8(label).ok()?);
                at += 1 + label.len();
            }
            high @ 0xc0.. => {
                at = usize::from(high & 63) << 8 | usize::from(*message.get(at + 1)?);
                if at >= limit {
                    return None;
                }
                limit = at;
            }
            _ => return None,
        }
    }
}

/// Returns whether a label has only characters of host names.
fn is_of_host(label: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    label.iter().all(fits)
}

#[cfg(test)]
mod tests;
