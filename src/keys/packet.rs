//! The packet: 64 bytes, of which 48 say what is asked for and 16 sign them. Numbers are
//! big-endian.
//!
//! ```text
//!  0  key id (8)      8  number (8)       16  door tag (4)    20  seconds (4)
//! 24  action (1)     25  family (1)       26  zero (2)        28  address (16)
//! 44  zero (4)       48  HMAC-SHA256 of bytes 0 to 47, its first 16 bytes
//! ```
#![forbid(unsafe_code)]

use super::{DoorTag, KeyId, PacketKey};
use hmac::Mac;
use std::net::IpAddr;

/// Bytes of a packet.
pub const PACKET: usize = 64;

/// The bytes of it that are signed.
const SIGNED: usize = 48;

/// The highest number of a packet.
pub const MAX_NUMBER: u64 = i64::MAX as u64;

/// The action of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAction {
    /// To open the door.
    Open,
    /// To close it.
    Close,
}

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPacket {
    /// Which key signs it.
    pub id: KeyId,
    /// Higher than that of each packet before.
    pub number: u64,
    /// Which door; zero: the only one that there is for this key.
    pub door: DoorTag,
    /// For how many seconds, if that is less than the door's time; 0: for the door's time.
    pub seconds: u32,
    /// What to do with it.
    pub action: KeyAction,
    /// For which address; `None`: for the sender's.
    pub address: Option<IpAddr>,
}

impl KeyPacket {
    /// Encodes and signs the packet.
    pub fn sign(&self, key: &PacketKey) -> [u8; PACKET] {
        let mut bytes = [0; PACKET];
        let mut put = |at: usize, value: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        };
        put(0, &self.id);
        put(8, &self.number.to_be_bytes());
        put(16, &self.door);
        put(20, &self.seconds.to_be_bytes());
        put(24, &[u8::from(self.action == KeyAction::Close)]);
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => {
                put(25, &[4]);
                put(28, &address.octets());
            }
            Some(IpAddr::V6(address)) => {
                put(25, &[6]);
                put(28, &address.octets());
            }
        }
        let (signed, mac) = bytes.split_at_mut(SIGNED);
        let whole = key.mac(signed).finalize().into_bytes();
        mac.copy_from_slice(&whole[..PACKET - SIGNED]);
        bytes
    }

    /// Decodes a packet with a right signature. Returns `None` if this version does not know one of
    /// its values.
    pub fn of_bytes(bytes: &[u8; PACKET]) -> Option<KeyPacket> {
        let action = match bytes[24] {
            0 => KeyAction::Open,
            1 => KeyAction::Close,
            _ => return None,
        };
        let v6: [u8; 16] = field(bytes, 28);
        let v4: [u8; 4] = field(bytes, 28);
        let is_zero = |from: usize, to: usize| bytes[from..to].iter().all(|byte| *byte == 0);
        let address = match bytes[25] {
            0 if is_zero(28, 44) => None,
            4 if is_zero(32, 44) => Some(IpAddr::from(v4)),
            6 => Some(IpAddr::from(v6)),
            _ => return None,
        };
        if !is_zero(26, 28) || !is_zero(44, SIGNED) {
            return None;
        }
        Some(KeyPacket {
            id: id_of(bytes),
            number: number_of(bytes),
            door: field(bytes, 16),
            seconds: u32::from_be_bytes(field(bytes, 20)),
            action,
            address,
        })
    }
}

/// Returns the id of the key that a packet names.
pub fn id_of(bytes: &[u8; PACKET]) -> KeyId {
    field(bytes, 0)
}

/// Returns the number that a packet states.
pub fn number_of(bytes: &[u8; PACKET]) -> u64 {
    u64::from_be_bytes(field(bytes, 8))
}

/// Verifies the signature of the packet with that key, in constant time.
pub fn is_signed(bytes: &[u8; PACKET], key: &PacketKey) -> bool {
    let (signed, mac) = bytes.split_at(SIGNED);
    key.mac(signed).verify_truncated_left(mac).is_ok()
}

fn field<const N: usize>(bytes: &[u8; PACKET], at: usize) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    field
}
