//! Keys as text, and the lines of a keys file.
#![forbid(unsafe_code)]

use super::{SECRET, Secret, VERSION};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

/// RFC 4648, section 6.
const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Letters of a secret, and of its checksum.
const SECRET_LETTERS: usize = SECRET * 8 / 5;
const CHECK_LETTERS: usize = 4;

/// The longest name of a key.
pub const MAX_KEY_NAME: usize = 32;

/// The addresses that a packet of a key can open for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// The sender's address, or another that the packet states.
    #[default]
    Any,
    /// Only the sender's address. The packet may state it.
    Sender,
    /// An address that the packet must state: an attacker who intercepts the packet cannot resend
    /// it as their own.
    Stated,
}

/// A line of a keys file.
#[derive(Clone)]
pub struct KeyLine<'a> {
    /// The name of the key.
    pub name: &'a str,
    /// Its secret.
    pub secret: Secret,
    /// Which address its packets may open for.
    pub address: AddressPolicy,
}

/// Why a line of a keys file, or a key, is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// The name is empty, too long, or has another character than `a-z 0-9 . _ -`.
    Name,
    /// There is no key, or it has too few or too many letters.
    Length,
    /// A letter that base32 does not have.
    Letter,
    /// All letters are valid, but one of them is wrong.
    Check,
    /// What follows the key is not `address=any`, `address=sender` or `address=stated`.
    Address,
}

impl NoKey {
    /// Describes what is wrong and what would be right.
    pub fn text(self) -> &'static str {
        match self {
            NoKey::Name => "a key's name is 1 to 32 of a-z 0-9 . _ -",
            NoKey::Length => "a key has 36 letters and digits",
            NoKey::Letter => "a key has only the letters A-Z and the digits 2-7",
            NoKey::Check => "the key has a typing error: its last 4 letters do not match the rest",
            NoKey::Address => "after the key comes nothing, or address=any, sender or stated",
        }
    }
}

/// Parses a line of a keys file: `NAME KEY [address=POLICY]`. `None` if it is empty or a comment.
pub fn key_line(line: &str) -> Option<Result<KeyLine<'_>, NoKey>> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    Some(key_of_words(name, &mut words))
}

fn key_of_words<'a>(
    name: &'a str,
    words: &mut dyn Iterator<Item = &'a str>,
) -> Result<KeyLine<'a>, NoKey> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if name.len() > MAX_KEY_NAME || !name.bytes().all(fits) {
        return Err(NoKey::Name);
    }
    let secret = secret_of_text(words.next().unwrap_or_default().as_bytes())?;
    let address = match words.next() {
        None | Some("address=any") => AddressPolicy::Any,
        Some("address=sender") => AddressPolicy::Sender,
        Some("address=stated") => AddressPolicy::Stated,
        Some(_) => return Err(NoKey::Address),
    };
    match words.next() {
        None => Ok(KeyLine {
            name,
            secret,
            address,
        }),
        Some(_) => Err(NoKey::Address),
    }
}

/// Parses a key as users write it: in any case, with or without spaces and dashes.
pub fn secret_of_text(text: &[u8]) -> Result<Secret, NoKey> {
    let mut values = [0u8; SECRET_LETTERS + CHECK_LETTERS];
    let mut count = 0;
    for letter in text.iter().map(u8::to_ascii_uppercase) {
        if matches!(letter, b' ' | b'-') {
            continue;
        }
        let value = LETTERS.iter().position(|known| *known == letter);
        let value = value.ok_or(NoKey::Letter)?;
        *values.get_mut(count).ok_or(NoKey::Length)? = value as u8;
        count += 1;
    }
    if count != values.len() {
        return Err(NoKey::Length);
    }
    let (letters, check) = values.split_at(SECRET_LETTERS);
    let mut bytes = [0; SECRET];
    // 8 letters of 5 bits are 5 bytes.
    for (letters, bytes) in letters.chunks(8).zip(bytes.chunks_mut(5)) {
        let bits = letters
            .iter()
            .fold(0, |bits, value| bits << 5 | u64::from(*value));
        bytes.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    let is_right = check_letters(&bytes) == check;
    let secret = Secret::new(bytes);
    bytes.zeroize();
    values.zeroize();
    match is_right {
        true => Ok(secret),
        false => Err(NoKey::Check),
    }
}

/// Formats the key for [`secret_of_text`].
pub fn text_of_secret(secret: &Secret) -> String {
    let mut text = String::with_capacity(SECRET_LETTERS + 1 + CHECK_LETTERS);
    let mut push = |value: u8| text.push(char::from(LETTERS[usize::from(value & 31)]));
    for bytes in secret.0.chunks(5) {
        let bits = bytes
            .iter()
            .fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        for letter in (0..8).rev() {
            push((bits >> (5 * letter)) as u8);
        }
    }
    for value in check_letters(&secret.0) {
        push(value);
    }
    text.insert(SECRET_LETTERS, '-');
    text
}

/// Returns the first 20 bits of a hash of the secret, 5 in each byte.
fn check_letters(secret: &[u8; SECRET]) -> [u8; CHECK_LETTERS] {
    let hash = Sha256::new()
        .chain_update(VERSION)
        .chain_update(b"check")
        .chain_update(secret)
        .finalize();
    let bits = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    [27, 22, 17, 12].map(|shift| (bits >> shift) as u8 & 31)
}
