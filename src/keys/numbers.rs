//! The file of the highest number that each key has used. It has two regions with an entry for each
//! key, and only one of them is written at a time, so a write that is cut off at any byte leaves
//! the previous number.
//!
//! An entry: key id (8), number (8), zero (8), and the first 8 bytes of SHA-256("knockd-rs 1
//! counter", those 24 bytes). All zero means free.
#![forbid(unsafe_code)]

use super::{KeyId, VERSION};
use crate::limits::MAX_KEYS;
use sha2::{Digest, Sha256};

/// Bytes of an entry.
pub const ENTRY: usize = 32;

/// Bytes of it that the checksum is over.
const SUMMED: usize = 24;

/// Where the second region begins.
const SECOND_REGION: usize = 4096;

/// Bytes of the file.
pub const FILE: usize = 2 * SECOND_REGION;

const _: () = assert!(MAX_KEYS * ENTRY <= SECOND_REGION);

/// The entry of a key in both regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyNumber {
    id: KeyId,
    /// Which entry, the same in both regions.
    index: usize,
    /// What each region says; `None`: nothing that is whole.
    regions: [Option<u64>; 2],
}

impl KeyNumber {
    /// The key's entry in the file; `None` if neither region has one that is whole.
    pub fn find(file: &[u8], id: KeyId) -> Option<KeyNumber> {
        let mut found: Option<KeyNumber> = None;
        for index in 0..MAX_KEYS {
            let regions = [0, SECOND_REGION].map(|region| {
                let entry = file.get(region + index * ENTRY..)?.get(..ENTRY)?;
                decode(entry)
                    .filter(|(of, _)| *of == id)
                    .map(|(_, number)| number)
            });
            let here = KeyNumber { id, index, regions };
            // Never twice, but if it is, the higher number holds.
            if regions != [None, None] && found.is_none_or(|before| before.last() < here.last()) {
                found = Some(here);
            }
        }
        found
    }

    /// A new key's, in an entry that is free in both regions; `None` if there is none.
    pub fn free(file: &[u8], id: KeyId) -> Option<KeyNumber> {
        let is_zero = |region: usize, index: usize| {
            let entry = file
                .get(region + index * ENTRY..)
                .and_then(|rest| rest.get(..ENTRY));
            entry.is_some_and(|entry| entry.iter().all(|byte| *byte == 0))
        };
        let index = (0..MAX_KEYS).find(|at| is_zero(0, *at) && is_zero(SECOND_REGION, *at))?;
        Some(KeyNumber {
            id,
            index,
            regions: [None, None],
        })
    }

    /// The highest number that the key has used.
    pub fn last(&self) -> u64 {
        let [first, second] = self.regions;
        first.max(second).unwrap_or(0)
    }

    /// What to write for this number, and where: over the entry that is broken or lower.
    pub fn entry(&self, number: u64) -> (u64, [u8; ENTRY]) {
        let at = self.lower() * SECOND_REGION + self.index * ENTRY;
        (at as u64, encode(self.id, number))
    }

    /// That number is on flash.
    pub fn wrote(&mut self, number: u64) {
        let lower = self.lower();
        if let Some(region) = self.regions.get_mut(lower) {
            *region = Some(number);
        }
    }

    /// The region whose entry is broken or lower.
    fn lower(&self) -> usize {
        // `None` is less than any number.
        let [first, second] = self.regions;
        usize::from(second < first)
    }
}

fn encode(id: KeyId, number: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..8].copy_from_slice(&id);
    entry[8..16].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(&entry);
    entry[SUMMED..].copy_from_slice(&sum);
    entry
}

fn decode(entry: &[u8]) -> Option<(KeyId, u64)> {
    let entry: &[u8; ENTRY] = entry.try_into().ok()?;
    let (id, rest) = entry.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    // The sum of 24 zero bytes is not zero, so that a free entry is none.
    (entry[SUMMED..] == checksum(entry)).then(|| (*id, u64::from_be_bytes(*number)))
}

fn checksum(entry: &[u8; ENTRY]) -> [u8; ENTRY - SUMMED] {
    let hash = Sha256::new()
        .chain_update(VERSION)
        .chain_update(b"counter")
        .chain_update(&entry[..SUMMED])
        .finalize();
    super::first(&hash.into())
}
