//! Signed knocks: keys, the packets that they sign, and how a router judges them. Pure: no file, no
//! socket, no clock.
//!
//! A key is 20 random bytes that one device and one router share. HMAC-SHA256 (RFC 2104, FIPS
//! 180-4) derives from it one value for each purpose.
#![forbid(unsafe_code)]

pub mod judge;
pub mod numbers;
pub mod packet;
pub mod stun;
pub mod text;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a secret.
pub const SECRET: usize = 20;

/// Precedes each purpose in what is hashed, so that another version has other keys and ids.
const VERSION: &[u8] = b"knockd-rs 1 ";

/// The secret of a key. Dropping it wipes it from memory.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; SECRET]);

/// The id of a key in a packet, in clear text.
pub type KeyId = [u8; 8];

/// What names a door in a packet; 0 bytes: none is named.
pub type DoorTag = [u8; 4];

impl Secret {
    /// Creates a secret from these bytes, which must be random.
    pub fn new(bytes: [u8; SECRET]) -> Secret {
        Secret(bytes)
    }

    /// Derives a value for one purpose.
    fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        keyed_hash(&self.0, &[VERSION, purpose])
    }

    /// Returns the id of the key.
    pub fn id(&self) -> KeyId {
        first(&self.derive(b"id"))
    }

    /// The key that packets are signed with.
    pub fn packet_key(&self) -> PacketKey {
        PacketKey(self.derive(b"packet"))
    }

    /// Returns the tag of a door in packets. Without the key it does not reveal the door.
    pub fn door_tag(&self, door: &[u8]) -> DoorTag {
        let mut key = self.derive(b"door");
        let tag = first(&keyed_hash(&key, &[door]));
        key.zeroize();
        match tag {
            // All zero would mean no door.
            [0, 0, 0, 0] => [0, 0, 0, 1],
            tag => tag,
        }
    }
}

/// The key that packets are signed with. It is wiped from memory when it is dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PacketKey([u8; 32]);

impl PacketKey {
    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        mac(&self.0).chain_update(signed)
    }
}

/// Computes HMAC with a key of at most 64 bytes, padded with zeros to a block (RFC 2104, section
/// 2).
fn mac(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mac = Hmac::new(&block.into());
    block.zeroize();
    mac
}

fn keyed_hash(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = mac(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Returns the first bytes of a longer value.
fn first<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}
