//! A hash with a random key, so that attackers cannot choose addresses or packets that collide.
#![forbid(unsafe_code)]

use std::array;
use std::net::IpAddr;

/// Where the attempts of a source are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashSlot {
    pub bucket: u16,
    pub network: u16,
}

/// The key of the hash. Each word of an address is multiplied by a random number; the hash is the
/// upper half of the sum of the products and one more random number. Without knowledge of the
/// numbers, any two chosen addresses have the same lower n bits with a probability of 2^-n (Lemire
/// and Kaser, "Strongly universal string hashing is fast"). The final steps are those of
/// MurmurHash3. They map 32 bits to 32 bits one to one, so they keep that property, and they spread
/// consecutive addresses if one of the numbers is a bad one. Nothing visible from outside depends
/// on the hash, so an attacker cannot learn the numbers.
pub(super) struct Keys([u64; 5]);

impl Keys {
    /// Derives the key from random bits, which SplitMix64 (Steele, Lea, Flood) expands.
    pub fn new(seed: u64) -> Keys {
        let mut state = seed;
        Keys(array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        }))
    }

    /// Hashes four words.
    pub fn hash(&self, words: [u32; 4]) -> u32 {
        let [a, b, c, d, more] = self.0;
        let products = [a, b, c, d].into_iter().zip(words);
        let sum = products.fold(more, |sum, (key, word)| {
            sum.wrapping_add(key.wrapping_mul(word.into()))
        });
        let mut hash = (sum >> 32) as u32;
        hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
        hash ^ hash >> 16
    }

    /// Hashes an address. An IPv4 address and the IPv6 address that begins with its bytes have the
    /// same hash.
    pub fn hash_address(&self, address: IpAddr) -> u32 {
        self.hash(words(address))
    }

    /// Returns the position of a source. The numbers of buckets and networks are powers of two.
    pub fn place(&self, source: IpAddr, buckets: usize, networks: usize) -> HashSlot {
        let words = words(source);
        let network = match source.is_ipv6() {
            true => [words[0], words[1], 0, 0],
            false => [words[0] & !0xff, 0, 0, 0],
        };
        HashSlot {
            bucket: (self.hash(words) as usize & (buckets - 1)) as u16,
            network: (self.hash(network) as usize & (networks - 1)) as u16,
        }
    }
}

fn words(address: IpAddr) -> [u32; 4] {
    let (bytes, _) = octets(address);
    let (words, _) = bytes.as_chunks();
    array::from_fn(|at| words.get(at).copied().map_or(0, u32::from_be_bytes))
}

/// The address as 16 bytes, and whether it is IPv6.
pub(super) fn octets(source: IpAddr) -> ([u8; 16], bool) {
    match source {
        IpAddr::V4(source) => {
            let [a, b, c, d] = source.octets();
            ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false)
        }
        IpAddr::V6(source) => (source.octets(), true),
    }
}
