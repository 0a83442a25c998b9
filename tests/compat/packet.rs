//! The packets of a case, in the notation of the recorded cases: `.3:7000/udp>10.9.0.11`,
//! `6:7000@syn,ack`, `wait1.2`, `sec`.

use etherparse::{IpNumber, PacketBuilder};
use knockd_rs::knock::TCP_FLAGS;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The server's addresses on `s0`.
pub const SERVER: &str = "10.9.0.1";
pub const SERVER_SECOND: &str = "10.9.0.11";
pub const SERVER6: &str = "fd00:9::1";

/// The SYN bit in byte 13 of the TCP header.
pub const SYN: u8 = 0x02;

/// The next action of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Send(Packet),
    Wait(Duration),
    /// Wait until the wall clock reaches the next second.
    Second,
}

/// A packet to send. Flags of `None` mean UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub port: u16,
    pub flags: Option<u8>,
}

/// Parses the tokens of a case.
pub fn parse(tokens: &str) -> Vec<Token> {
    tokens.split_whitespace().map(token).collect()
}

fn token(text: &str) -> Token {
    if text == "sec" {
        return Token::Second;
    }
    if let Some(seconds) = text.strip_prefix("wait") {
        return Token::Wait(Duration::from_secs_f64(seconds.parse().expect(text)));
    }
    let (source, rest) = match text.split_once(':') {
        None => ("10.9.0.2".to_string(), text),
        Some(("6", rest)) => ("fd00:9::2".to_string(), rest),
        Some((last, rest)) if last.starts_with("6.") => (format!("fd00:9::{}", &last[2..]), rest),
        Some((last, rest)) if last.starts_with('.') => (format!("10.9.0{last}"), rest),
        Some(_) => panic!("{text}"),
    };
    let source: IpAddr = source.parse().expect(text);
    let (rest, destination) = match rest.split_once('>') {
        Some((rest, destination)) => (rest, destination),
        None if source.is_ipv6() => (rest, SERVER6),
        None => (rest, SERVER),
    };
    let (port, flags) = match (rest.strip_suffix("/udp"), rest.split_once('@')) {
        (Some(port), _) => (port, None),
        (None, Some((port, names))) => (port, Some(flags(names))),
        (None, None) => (rest, Some(SYN)),
    };
    Token::Send(Packet {
        source,
        destination: destination.parse().expect(text),
        port: port.parse().expect(text),
        flags,
    })
}

fn flags(names: &str) -> u8 {
    let bit = |name| {
        let found = TCP_FLAGS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("flag {name}")).1
    };
    match names {
        "-" => 0,
        names => names.split(',').map(bit).fold(0, |all, bit| all | bit),
    }
}

impl Packet {
    /// The token that [`parse`] reads as this packet.
    pub fn token(&self) -> String {
        let (source, home) = match self.source.to_string() {
            text if text == "10.9.0.2" => (String::new(), SERVER),
            text if text == "fd00:9::2" => ("6:".to_string(), SERVER6),
            text => match (text.strip_prefix("10.9.0."), text.strip_prefix("fd00:9::")) {
                (Some(last), _) => (format!(".{last}:"), SERVER),
                (_, Some(last)) => (format!("6.{last}:"), SERVER6),
                _ => panic!("no token for {text}"),
            },
        };
        let flags = match self.flags {
            None => "/udp".to_string(),
            Some(SYN) => String::new(),
            Some(0) => "@-".to_string(),
            Some(flags) => {
                let set = TCP_FLAGS.iter().filter(|(_, bit)| flags & bit != 0);
                let names: Vec<&str> = set.map(|(name, _)| *name).collect();
                format!("@{}", names.join(","))
            }
        };
        let destination = match self.destination.to_string() {
            text if text == home => String::new(),
            text => format!(">{text}"),
        };
        format!("{source}{}{flags}{destination}", self.port)
    }

    /// Its bytes, from the IP header on.
    pub fn bytes(&self, sequence_number: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let ip = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            }
            _ => panic!("two families: {self:?}"),
        };
        match self.flags {
            None => ip.udp(40000, self.port).write(&mut out, &[0]),
            Some(flags) => {
                // Build the header by hand, because the builder cannot set the flags as a byte. The
                // checksum is not checked.
                let mut tcp = [0u8; 20];
                tcp[..2].copy_from_slice(&40000u16.to_be_bytes());
                tcp[2..4].copy_from_slice(&self.port.to_be_bytes());
                tcp[4..8].copy_from_slice(&sequence_number.to_be_bytes());
                tcp[12] = 5 << 4;
                tcp[13] = flags;
                ip.write(&mut out, IpNumber::TCP, &tcp)
            }
        }
        .expect("packet");
        out
    }
}

/// Sleeps until the wall clock reaches the next second.
pub fn await_second() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("time");
    std::thread::sleep(Duration::from_nanos(
        1_000_000_000 - u64::from(now.subsec_nanos()),
    ));
}

pub fn tokens_mean_what_they_say() {
    for text in [
        "7000",
        ".3:7000@syn,ack>10.9.0.11",
        "6:1",
        "1000/udp",
        "9000@-",
        "6:2/udp",
        "6.3:2",
    ] {
        let [Token::Send(packet)] = parse(text)[..] else {
            panic!("{text}");
        };
        assert_eq!(packet.token(), text);
    }
    let [Token::Send(packet)] = parse(".3:7000@syn,ack>10.9.0.11")[..] else {
        panic!();
    };
    assert_eq!(packet.source.to_string(), "10.9.0.3");
    assert_eq!(packet.destination.to_string(), SERVER_SECOND);
    assert_eq!((packet.port, packet.flags), (7000, Some(0x12)));
    assert_eq!(packet.bytes(7).len(), 40);
    assert_eq!(packet.bytes(7)[9], 6, "IP protocol");
}
