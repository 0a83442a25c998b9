//! Decides whether a packet may do what it asks for: checks its length, key, number and signature,
//! in this order. Nothing changes before the signature was verified. A packet that is refused after
//! that has used up its number.
#![forbid(unsafe_code)]

use super::packet::{self, KeyAction, KeyPacket, MAX_NUMBER, PACKET};
use super::text::AddressPolicy;
use super::{DoorTag, KeyId, PacketKey, Secret};
use crate::capture::packet::can_be_host;
use std::net::IpAddr;

/// A key of the keeper.
pub struct DeviceKey {
    /// Its name in the keys file.
    pub name: String,
    id: KeyId,
    packet_key: PacketKey,
    address: AddressPolicy,
    /// The doors that list it, by index in the config, and their tags in packets.
    doors: Vec<(u16, DoorTag)>,
    /// The highest number that it has used. `None` if that is unknown; then it opens nothing.
    pub last: Option<u64>,
}

impl DeviceKey {
    /// Creates a key with an unknown last number, for the doors with these names.
    pub fn new<'a>(
        name: &str,
        secret: &Secret,
        address: AddressPolicy,
        doors: impl Iterator<Item = (u16, &'a [u8])>,
    ) -> DeviceKey {
        DeviceKey {
            name: name.to_string(),
            id: secret.id(),
            packet_key: secret.packet_key(),
            address,
            doors: doors
                .map(|(at, name)| (at, secret.door_tag(name)))
                .collect(),
            last: None,
        }
    }

    /// What names it in packets.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// What a packet may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The door, by its place in the config.
    pub door: u16,
    /// The requested action.
    pub action: KeyAction,
    /// The address that the door opens for.
    pub address: IpAddr,
    /// The maximum time in seconds; 0 means the door's time.
    pub seconds: u32,
}

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not a packet.
    Length,
    /// No key has that id.
    UnknownKey,
    /// The number has been used, or is lower than one that has been; or the last one is not known.
    UsedNumber,
    /// The signature is wrong.
    WrongMac,
    /// The number is higher than a correct client ever uses.
    NumberTooHigh,
    /// A field has a value that this version does not know.
    Fields,
    /// It states an address that no host can have.
    Address,
    /// It states another address than the sender's, and the key allows no other.
    NotTheSender,
    /// It states no address, and the key asks for one.
    NoAddress,
    /// It names no door, and the key is listed by several or by none.
    WhichDoor,
    /// It names a door that does not list the key.
    NoSuchDoor,
}

impl Refusal {
    /// Returns the reason for the log.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Length => "length",
            Refusal::UnknownKey => "unknown key",
            Refusal::UsedNumber => "used number",
            Refusal::WrongMac => "wrong mac",
            Refusal::NumberTooHigh => "number too high",
            Refusal::Fields => "fields",
            Refusal::Address => "address",
            Refusal::NotTheSender => "address is not the sender's",
            Refusal::NoAddress => "address missing",
            Refusal::WhichDoor => "which door",
            Refusal::NoSuchDoor => "no such door",
        }
    }
}

/// The judgement of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The index of its key, if it exists.
    pub key: Option<usize>,
    /// The signature is right: its number is now the key's last one, and must be on flash before
    /// anything is done.
    pub uses_number: bool,
    /// What the packet may do, or why it was refused.
    pub result: Result<Order, Refusal>,
}

/// Judges a packet from that sender. Records its number if the signature is right.
pub fn judge(bytes: &[u8], sender: IpAddr, keys: &mut [DeviceKey]) -> Judgement {
    let mut judgement = Judgement {
        key: None,
        uses_number: false,
        result: Err(Refusal::Length),
    };
    judgement.result = (|| {
        let bytes: &[u8; PACKET] = bytes.try_into().map_err(|_| Refusal::Length)?;
        let id = packet::id_of(bytes);
        let mut by_id = keys.iter_mut().enumerate();
        let (at, key) = by_id
            .find(|(_, key)| key.id == id)
            .ok_or(Refusal::UnknownKey)?;
        judgement.key = Some(at);
        let number = packet::number_of(bytes);
        if key.last.is_none_or(|last| number <= last) {
            return Err(Refusal::UsedNumber);
        }
        if !packet::is_signed(bytes, &key.packet_key) {
            return Err(Refusal::WrongMac);
        }
        if number > MAX_NUMBER {
            return Err(Refusal::NumberTooHigh);
        }
        key.last = Some(number);
        judgement.uses_number = true;
        key.order(&KeyPacket::of_bytes(bytes).ok_or(Refusal::Fields)?, sender)
    })();
    judgement
}

impl DeviceKey {
    /// Returns what a packet with a right signature may do.
    fn order(&self, packet: &KeyPacket, sender: IpAddr) -> Result<Order, Refusal> {
        let address = match (packet.address, self.address) {
            (Some(stated), _) if !can_be_host(stated) => return Err(Refusal::Address),
            (Some(stated), AddressPolicy::Sender) if stated != sender => {
                return Err(Refusal::NotTheSender);
            }
            (Some(stated), _) => stated,
            (None, AddressPolicy::Stated) => return Err(Refusal::NoAddress),
            (None, _) => sender,
        };
        let door = match (packet.door, &self.doors[..]) {
            ([0, 0, 0, 0], [(only, _)]) => *only,
            ([0, 0, 0, 0], _) => return Err(Refusal::WhichDoor),
            (tag, doors) => {
                let named = doors.iter().find(|(_, of)| *of == tag);
                named.ok_or(Refusal::NoSuchDoor)?.0
            }
        };
        Ok(Order {
            door,
            action: packet.action,
            address,
            seconds: packet.seconds,
        })
    }
}
