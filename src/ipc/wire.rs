//! The encoding of fields: numbers are big-endian; an address is its length (4 or 16) and octets;
//! text is its length (2 bytes) and bytes without deceptive characters; a list is its length (1
//! byte) and items.
#![forbid(unsafe_code)]

use super::{Bytes, CUT, MAX_TEXT};
use crate::knock::tripwire::{BanRule, Tripwire};
use crate::knock::{Protocol, Sequence, Step};
use crate::limits::MAX_STEPS;
use crate::util::quote::is_deceptive;
use std::net::IpAddr;

/// Visits the fields of a record in order, and either writes each or reads into it. So one list of
/// fields serves both directions.
pub struct Codec<'a> {
    /// The bytes left to read. `None` when writing.
    input: Option<&'a [u8]>,
    output: Bytes,
    /// All fields read so far are valid.
    is_valid: bool,
}

impl<'a> Codec<'a> {
    /// Starts writing a record of that kind.
    pub fn writer(kind: u8) -> Codec<'a> {
        Codec {
            input: None,
            output: Bytes::from_iter([kind]),
            is_valid: true,
        }
    }

    /// Starts reading after the kind.
    pub fn reader(fields: &'a [u8]) -> Codec<'a> {
        Codec {
            input: Some(fields),
            output: Bytes::new(),
            is_valid: true,
        }
    }

    /// Returns the written bytes.
    pub fn written(self) -> Bytes {
        self.output
    }

    /// Returns whether everything was read and is valid.
    pub fn is_whole(&self) -> bool {
        self.is_valid && self.input.is_none_or(<[u8]>::is_empty)
    }

    fn bytes(&mut self, bytes: &mut [u8]) {
        match &mut self.input {
            // MAX_RECORD is enough for the longest record, as `the_longest_records_fit` tests.
            None => drop(self.output.extend_from_slice(bytes)),
            Some(rest) => match rest.split_at_checked(bytes.len()) {
                Some((read, left)) => {
                    bytes.copy_from_slice(read);
                    *rest = left;
                }
                None => self.is_valid = false,
            },
        }
    }

    pub fn u8(&mut self, value: &mut u8) {
        self.bytes(std::slice::from_mut(value));
    }

    pub fn u16(&mut self, value: &mut u16) {
        let mut bytes = value.to_be_bytes();
        self.bytes(&mut bytes);
        *value = u16::from_be_bytes(bytes);
    }

    pub fn u32(&mut self, value: &mut u32) {
        let mut bytes = value.to_be_bytes();
        self.bytes(&mut bytes);
        *value = u32::from_be_bytes(bytes);
    }

    pub fn u64(&mut self, value: &mut u64) {
        let mut bytes = value.to_be_bytes();
        self.bytes(&mut bytes);
        *value = u64::from_be_bytes(bytes);
    }

    pub fn bool(&mut self, value: &mut bool) {
        let mut byte = u8::from(*value);
        self.u8(&mut byte);
        self.is_valid &= byte <= 1;
        *value = byte == 1;
    }

    /// Cuts text that is too long, and marks it.
    pub fn text(&mut self, text: &mut String) {
        if text.len() > MAX_TEXT {
            text.truncate(text.floor_char_boundary(MAX_TEXT - CUT.len()));
            text.push_str(CUT);
        }
        let mut length = text.len() as u16;
        self.u16(&mut length);
        let mut bytes = std::mem::take(text).into_bytes();
        bytes.resize(length.into(), 0);
        self.bytes(&mut bytes);
        match String::from_utf8(bytes) {
            // It can appear in a log: nothing in it may look like another line.
            Ok(read) if !read.chars().any(is_deceptive) => *text = read,
            _ => self.is_valid = false,
        }
    }

    pub fn ip(&mut self, ip: &mut IpAddr) {
        let mut some = Some(*ip);
        self.ip_if_any(&mut some);
        match some {
            Some(read) => *ip = read,
            None => self.is_valid = false,
        }
    }

    /// An address, or length 0 for none.
    pub fn ip_if_any(&mut self, ip: &mut Option<IpAddr>) {
        let (mut v4, mut v6) = ([0; 4], [0; 16]);
        let mut length = match ip {
            None => 0,
            Some(IpAddr::V4(ip)) => {
                v4 = ip.octets();
                4
            }
            Some(IpAddr::V6(ip)) => {
                v6 = ip.octets();
                16
            }
        };
        self.u8(&mut length);
        *ip = match length {
            4 => {
                self.bytes(&mut v4);
                Some(v4.into())
            }
            16 => {
                self.bytes(&mut v6);
                Some(v6.into())
            }
            other => {
                self.is_valid &= other == 0;
                None
            }
        };
    }

    pub fn step(&mut self, step: &mut Step) {
        let mut protocol = match step.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        self.u8(&mut protocol);
        self.is_valid &= matches!(protocol, 6 | 17);
        step.protocol = match protocol {
            17 => Protocol::Udp,
            _ => Protocol::Tcp,
        };
        self.u16(&mut step.port);
    }

    pub fn sequence(&mut self, sequence: &mut Option<Sequence>) {
        let mut steps = sequence.take().map_or(Vec::new(), |s| s.steps().to_vec());
        self.list(&mut steps, Step::default(), Codec::step);
        self.is_valid &= steps.len() <= MAX_STEPS;
        *sequence = Sequence::new(&steps);
    }

    pub fn tripwire(&mut self, tripwire: &mut Tripwire<u16>) {
        let (mut kind, mut count) = match tripwire {
            Tripwire::None => (0, 0),
            Tripwire::Auto => (1, 0),
            Tripwire::Ports(count) => (2, *count),
        };
        self.u8(&mut kind);
        self.u16(&mut count);
        *tripwire = match kind {
            1 => Tripwire::Auto,
            2 => Tripwire::Ports(count),
            other => {
                self.is_valid &= other == 0;
                Tripwire::None
            }
        };
    }

    /// The number of hits, 0 for no rule, then the time.
    pub fn ban(&mut self, rule: &mut Option<BanRule>) {
        let (mut hits, mut window) = rule.map_or((0, 0), |rule| (rule.hits, rule.window));
        self.u8(&mut hits);
        self.u64(&mut window);
        *rule = (hits > 0).then_some(BanRule { hits, window });
    }

    /// At most 255 items, each visited by `walk`.
    pub fn list<T: Clone>(
        &mut self,
        items: &mut Vec<T>,
        blank: T,
        walk: fn(&mut Codec<'a>, &mut T),
    ) {
        let mut length = items.len() as u8;
        self.u8(&mut length);
        items.resize(length.into(), blank);
        for item in items {
            walk(self, item);
        }
    }
}
