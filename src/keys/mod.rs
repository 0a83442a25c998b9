//! Signed knocks: keys, the packet that one sends, and what a router makes of it. Pure: no file, no socket, no clock.
//!
//! A key is 20 random bytes that one device and one router know. What they use is derived from it with HMAC-SHA256
//! (RFC 2104, FIPS 180-4), one value for each purpose.
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

/// Stands before each purpose in what is hashed: another version would have other keys and ids.
const VERSION: &[u8] = b"knockd-rs 1 ";

/// The secret of a key. It is wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; SECRET]);

/// What names a key in a packet, in clear.
pub type KeyId = [u8; 8];

/// What names a door in a packet; 0 bytes: none is named.
pub type DoorTag = [u8; 4];

impl Secret {
    /// Of these bytes, which must be random.
    pub fn new(bytes: [u8; SECRET]) -> Secret {
        Secret(bytes)
    }

    /// What is derived from it for one purpose.
    fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        keyed_hash(&self.0, &[VERSION, purpose])
    }

    /// The id of the key.
    pub fn id(&self) -> KeyId {
        first(&self.derive(b"id"))
    }

    /// The key that packets are signed with.
    pub fn packet_key(&self) -> PacketKey {
        PacketKey(self.derive(b"packet"))
    }

    /// The tag by which a packet names a door: without the key it does not show which door is meant.
    pub fn door_tag(&self, door: &[u8]) -> DoorTag {
        let mut key = self.derive(b"door");
        let tag = first(&keyed_hash(&key, &[door]));
        key.zeroize();
        match tag {
            // That would be no door.
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

/// HMAC with a key of at most 64 bytes, which is padded with zeros to a block (RFC 2104, section 2).
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

/// The first bytes of a longer value.
fn first<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}
