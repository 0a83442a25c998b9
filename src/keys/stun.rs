//! Extracts the packet from a datagram: the payload itself, or the user name of a STUN binding
//! request (RFC 8489), which every browser can send as a connectivity check.
#![forbid(unsafe_code)]

use super::packet::PACKET;

const BINDING_REQUEST: [u8; 2] = [0, 1];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const USERNAME: [u8; 2] = [0, 6];

/// Browsers send 5 to 7 attributes, the user name first or second.
const MAX_ATTRIBUTES: usize = 8;

/// Base64 letters of a packet; the last carries 4 bits.
const PACKET_LETTERS: usize = (PACKET * 8).div_ceil(6);

/// Returns the packet in a datagram's payload.
pub fn unwrap(payload: &[u8]) -> Option<[u8; PACKET]> {
    if let Ok(packet) = payload.try_into() {
        return Some(packet);
    }
    if !payload.starts_with(&BINDING_REQUEST) || payload.get(4..8)? != MAGIC_COOKIE {
        return None;
    }
    let mut rest = payload.get(HEADER..)?;
    for _ in 0..MAX_ATTRIBUTES {
        let (kind, after) = rest.split_first_chunk::<2>()?;
        let (length, after) = after.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let value = after.get(..length)?;
        if *kind == USERNAME {
            return packet_of_name(value);
        }
        rest = after.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// Decodes a user name: the packet in base64 (RFC 4648, section 4) without padding, a colon, and
/// what the browser adds.
fn packet_of_name(name: &[u8]) -> Option<[u8; PACKET]> {
    let (letters, rest) = name.split_at_checked(PACKET_LETTERS)?;
    if rest.first() != Some(&b':') {
        return None;
    }
    let mut packet = [0; PACKET];
    let mut bytes = packet.iter_mut();
    let (mut bits, mut count) = (0u32, 0);
    for letter in letters {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            *bytes.next()? = (bits >> count) as u8;
            bits &= (1 << count) - 1;
        }
    }
    // Spare bits must be zero. Otherwise several texts would mean the same packet.
    (bits == 0).then_some(packet)
}
