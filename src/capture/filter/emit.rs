//! Emits the program of a [`Plan`]. Each function emits code that continues at existing labels, and
//! returns the label of its own start. So the program is written from its end to its start, and
//! this file reads in that order, too.
#![forbid(unsafe_code)]

use super::{ANY_FLAGS, FlagTable, Kernel, Plan, Range};
use crate::capture::packet::{TCP_NEED, UDP_NEED};
use crate::knock::Protocol;
use crate::limits::{MAX_IPV6_EXTENSIONS, SNAP_LENGTH};
use crate::util::bpf::{
    AD_PACKET_TYPE, AD_PROTOCOL, AD_VLAN_TAG, AD_VLAN_TAG_PRESENT, Builder, Case, Instruction,
    Label, Statement, op,
};
use Statement::{Do, Need, Refuse};
use std::net::IpAddr;

// linux/if_ether.h
const ETH_P_IP: u32 = 0x0800;
const ETH_P_IPV6: u32 = 0x86dd;
/// linux/if_packet.h: 0, 1 and 2 are to this host, broadcast and multicast. 3 is to another MAC
/// address, which may belong to a macvlan or bridge of this host: the IP address decides. Higher
/// values are sent by this host, or looped back.
const PACKET_OTHERHOST: u32 = 3;
// IP protocol numbers (IANA).
const HOP_BY_HOP: u32 = 0;
const TCP: u32 = 6;
const UDP: u32 = 17;
const ROUTING: u32 = 43;
const FRAGMENT: u32 = 44;
const DESTINATION_OPTIONS: u32 = 60;
const IPV6_HEADER: u32 = 40;
/// The word of scratch memory that holds the transport's protocol number.
const TRANSPORT: u32 = 0;

/// Emits the program. Returns `None` if it is too long.
pub(super) fn program(plan: &Plan, kernel: Kernel) -> Option<Vec<Instruction>> {
    [2, 8]
        .into_iter()
        .find_map(|few| with_few(plan, kernel, few))
}

/// The same with that number of ports tested one by one.
fn with_few(plan: &Plan, kernel: Kernel, few: usize) -> Option<Vec<Instruction>> {
    let mut b = Builder::new(few);
    if plan.classes.is_empty() {
        return b.finish();
    }
    let sound = Sound::emit(&mut b, plan, kernel);
    let mut flags = Flags::default();
    let classes: Vec<Class> = plan
        .classes
        .iter()
        .enumerate()
        .map(|(index, ranges)| {
            let transport = transports(&mut b, ranges, &sound, &mut flags);
            Class::emit(&mut b, plan, index, transport)
        })
        .collect();

    let mut families = Vec::new();
    for (is_v6, number) in [(false, ETH_P_IP), (true, ETH_P_IPV6)] {
        let mut places = Vec::new();
        for &(address, class) in &plan.places {
            if address.is_ipv6() == is_v6 {
                let Class { v4, v6 } = classes[class];
                places.push((address, if is_v6 { v6 } else { v4 }));
            }
        }
        let Some(&(_, anywhere)) = places.first() else {
            continue;
        };
        let mut then = match plan.any_address {
            true => anywhere,
            false => by_address(&mut b, &places, 0),
        };
        if is_v6 {
            then = v6_extensions(&mut b, then);
            then = b.lines(&[Do(op::LDX_IMM, IPV6_HEADER), Do(op::LD_BYTE, 6)], then);
        }
        families.push(one(number, then));
    }
    // Close to the start, so that packets other than IP need only one jump.
    let drop = b.pass(0);
    let start = b.choose(&families, drop);
    b.step(op::LD_WORD, AD_PROTOCOL, start);
    b.finish()
}

impl Plan {
    fn has_v4(&self) -> bool {
        self.places.iter().any(|(address, _)| address.is_ipv4())
    }

    fn has_v6(&self) -> bool {
        self.places.iter().any(|(address, _)| address.is_ipv6())
    }

    fn has(&self, protocol: Protocol) -> bool {
        self.wants(&|range| range.protocol == protocol)
    }

    fn wants(&self, test: &dyn Fn(&Range) -> bool) -> bool {
        let mut classes = self.classes.iter();
        classes.any(|ranges| ranges.iter().any(test))
    }
}

fn one(value: u32, then: Label) -> Case {
    Case {
        low: value,
        high: value,
        then,
    }
}

/// The label at which the program decides whether a wanted packet came in and is valid, and passes
/// it if so. X is the start of the transport header.
struct Sound {
    tcp: Label,
    /// The packet contains its flags.
    tcp_with_flags: Label,
    udp: Label,
}

impl Sound {
    fn emit(b: &mut Builder, plan: &Plan, kernel: Kernel) -> Sound {
        let pass = b.pass(SNAP_LENGTH as u32);
        // A first fragment from a possible host. User space handles wrong header and length fields,
        // which are rare.
        let v4 = plan.has_v4().then(|| {
            let lines = &[
                Do(op::LD_HALF, 6),
                Refuse(op::JSET, 0x1fff),
                Do(op::LD_WORD, 12),
                Need(op::JGE, 0x0100_0000),
                Refuse(op::JGE, 0xe000_0000),
            ];
            b.lines(lines, pass)
        });
        let v6 = plan.has_v6().then(|| {
            // The source is neither :: nor IPv4-mapped.
            let mut specified = b.drop;
            for offset in [20, 16, 12, 8] {
                let other = match offset {
                    16 => b.test(op::JEQ, 0xffff, b.drop, pass),
                    _ => pass,
                };
                let test = b.test(op::JEQ, 0, specified, other);
                specified = b.step(op::LD_WORD, offset, test);
            }
            let lines = &[
                // X = the offset of the last byte that the transport needs. All of that exists (a
                // load beyond the end drops the packet) and reaches user space.
                Do(op::ADD_X, 0),
                Refuse(op::JGT, SNAP_LENGTH as u32),
                Do(op::SUB, 1),
                Do(op::TAX, 0),
                Do(op::LD_BYTE_X, 0),
                // Version 6; long enough; not from a multicast address.
                Do(op::LD_BYTE, 0),
                Need(op::JGE, 0x60),
                Refuse(op::JGT, 0x6f),
                Do(op::LD_HALF, 4),
                Do(op::ADD, IPV6_HEADER),
                Need(op::JGT_X, 0),
                Do(op::LD_BYTE, 8),
                Refuse(op::JEQ, 0xff),
            ];
            b.lines(lines, specified)
        });
        let came_in = |b: &mut Builder, protocol, need: usize| {
            if !plan.has(protocol) {
                return b.drop;
            }
            let v6 = v6.map(|v6| one(ETH_P_IPV6, b.step(op::LD_IMM, need as u32, v6)));
            let families: Vec<Case> = v4
                .map(|v4| one(ETH_P_IP, v4))
                .into_iter()
                .chain(v6)
                .collect();
            let family = b.choose(&families, b.drop);
            let mut then = b.step(op::LD_WORD, AD_PROTOCOL, family);
            if kernel.vlan_tag_present {
                // VLAN 0 is a priority tag, not a VLAN: the host treats such a frame as untagged.
                let priority = &[Do(op::LD_WORD, AD_VLAN_TAG), Refuse(op::JSET, 0x0fff)];
                let tagged = b.lines(priority, then);
                let tag = b.test(op::JGT, 0, tagged, then);
                then = b.step(op::LD_WORD, AD_VLAN_TAG_PRESENT, tag);
            }
            let received = &[
                Do(op::LD_WORD, AD_PACKET_TYPE),
                Refuse(op::JGT, PACKET_OTHERHOST),
            ];
            b.lines(received, then)
        };
        let udp = came_in(b, Protocol::Udp, UDP_NEED);
        let udp = match plan.has(Protocol::Udp) {
            true => b.step(op::LD_BYTE_X, UDP_NEED as u32 - 1, udp),
            false => udp,
        };
        let tcp_with_flags = came_in(b, Protocol::Tcp, TCP_NEED);
        // If flags are tested, the packet is known to contain them. The kernel rejects unreachable
        // code, so do not emit any.
        let any_tcp = |range: &Range| range.protocol == Protocol::Tcp && range.flags == ANY_FLAGS;
        let tcp = match plan.wants(&any_tcp) {
            true => b.step(op::LD_BYTE_X, TCP_NEED as u32 - 1, tcp_with_flags),
            false => tcp_with_flags,
        };
        Sound {
            tcp,
            tcp_with_flags,
            udp,
        }
    }
}

/// The state in which code for a class starts.
struct Class {
    /// From the IPv4 header.
    v4: Label,
    /// With X at the start of the transport header, and its protocol number in memory.
    v6: Label,
}

impl Class {
    /// Only for the families of its addresses.
    fn emit(b: &mut Builder, plan: &Plan, index: usize, transport: Label) -> Class {
        let mut places = plan.places.iter().filter(|(_, class)| *class == index);
        let (v6, v4) = (
            places.clone().any(|(address, _)| address.is_ipv6()),
            places.any(|(address, _)| address.is_ipv4()),
        );
        // Placed right before their targets, so that no jump is needed: for IPv6 that would cost
        // one.
        let v4 = match v4 {
            // X = the start of the transport header.
            true => b.lines(&[Do(op::LDX_MSH, 0), Do(op::LD_BYTE, 9)], transport),
            false => transport,
        };
        let v6 = match v6 {
            true => b.step(op::LD_MEM, TRANSPORT, transport),
            false => transport,
        };
        Class { v4, v6 }
    }
}

/// From the first port of one range to the last of the other.
fn case(first: &Range, last: &Range, then: Label) -> Case {
    Case {
        low: first.low.into(),
        high: last.high.into(),
        then,
    }
}

/// The label at which the program decides what a class wants. X is the start of the transport
/// header, and A its protocol number.
fn transports(b: &mut Builder, ranges: &[Range], sound: &Sound, flags: &mut Flags) -> Label {
    let (tcp, udp) = ranges.split_at(ranges.partition_point(|r| r.protocol == Protocol::Tcp));
    let mut transports = Vec::new();
    for (number, ranges) in [(TCP, tcp), (UDP, udp)] {
        if ranges.is_empty() {
            continue;
        }
        let mut cases = Vec::new();
        // A run of ports without a gap is one case: the flags of its widest range, with the other
        // ports distinguished there. So a step between its tripwires costs no more than the step
        // and one port on each side.
        for run in ranges.chunk_by(|range, next| next.low - range.high == 1) {
            let base = run
                .iter()
                .map(|range| (range.high - range.low, range.flags));
            let base = base.max().map_or(ANY_FLAGS, |(_, flags)| flags);
            let mut then = |b: &mut Builder, table| match number {
                TCP => flags.emit(b, table, sound),
                _ => sound.udp,
            };
            let mut others = Vec::new();
            for range in run.iter().filter(|range| range.flags != base) {
                others.push(case(range, range, then(b, range.flags)));
            }
            let base = then(b, base);
            let inner = b.choose(&others, base);
            cases.push(case(&run[0], &run[run.len() - 1], inner));
        }
        let port = b.choose(&cases, b.drop);
        transports.push(one(number, b.step(op::LD_HALF_X, 2, port)));
    }
    b.choose(&transports, b.drop)
}

/// Code that tests flags. Equal tables share one test.
#[derive(Default)]
struct Flags {
    /// Tables, and the label at which their test starts.
    tests: Vec<(FlagTable, Label)>,
    /// Tables, and the label at which their test continues with the flags in A.
    loaded: Vec<(FlagTable, Label)>,
}

impl Flags {
    /// Continues if the table contains the packet's flags.
    fn emit(&mut self, b: &mut Builder, table: FlagTable, sound: &Sound) -> Label {
        if table == ANY_FLAGS {
            return sound.tcp;
        }
        if let Some(&(_, at)) = self.tests.iter().find(|(known, _)| *known == table) {
            return at;
        }
        let at = self.decide(b, table, 0, sound.tcp_with_flags);
        let at = b.step(op::LD_BYTE_X, 13, at);
        self.tests.push((table, at));
        at
    }

    /// The same with the flags in A and the bits below `bit` already tested: the table does not
    /// depend on them.
    fn decide(&mut self, b: &mut Builder, table: FlagTable, bit: u32, fit: Label) -> Label {
        /// The combinations with the n-th bit set.
        const HAVE: [FlagTable; 6] = [
            0xaaaa_aaaa_aaaa_aaaa,
            0xcccc_cccc_cccc_cccc,
            0xf0f0_f0f0_f0f0_f0f0,
            0xff00_ff00_ff00_ff00,
            0xffff_0000_ffff_0000,
            0xffff_ffff_0000_0000,
        ];
        if table == ANY_FLAGS {
            return fit;
        }
        let Some(have) = HAVE.get(bit as usize).filter(|_| table != 0) else {
            return b.drop;
        };
        if let Some(&(_, at)) = self.loaded.iter().find(|(known, _)| *known == table) {
            return at;
        }
        // What is wanted if the bit is set, and if it is clear.
        let shift = 1 << bit;
        let (set, clear) = (table & have, table & !have);
        let (set, clear) = (set | set >> shift, clear | clear << shift);
        let if_set = self.decide(b, set, bit + 1, fit);
        if set == clear {
            return if_set;
        }
        let if_clear = self.decide(b, clear, bit + 1, fit);
        let at = b.test(op::JSET, shift, if_set, if_clear);
        self.loaded.push((table, at));
        at
    }
}

/// Branches by destination of one family to the code of its class, one 32-bit word of the address
/// after the other. All destinations agree in the words before `word`.
fn by_address(b: &mut Builder, places: &[(IpAddr, Label)], word: usize) -> Label {
    let value = |&(address, _): &(IpAddr, Label)| match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let segments = address.segments();
            u32::from(segments[2 * word]) << 16 | u32::from(segments[2 * word + 1])
        }
    };
    let (offset, last) = match places[0].0.is_ipv6() {
        true => (24, 3),
        false => (16, 0),
    };
    let mut cases = Vec::new();
    for group in places.chunk_by(|a, b| value(a) == value(b)) {
        let then = match word == last {
            true => group[0].1,
            false => by_address(b, group, word + 1),
        };
        cases.push(one(value(&group[0]), then));
    }
    let address = b.choose(&cases, b.drop);
    b.step(op::LD_WORD, offset + 4 * word as u32, address)
}

/// With the number of the next header in A and its offset in X, skips the extension headers. Then X
/// is the start of the transport header, and its number is in memory.
fn v6_extensions(b: &mut Builder, then: Label) -> Label {
    let done = b.step(op::ST, TRANSPORT, then);
    (0..MAX_IPV6_EXTENSIONS).fold(done, |next, _| {
        // A = the header's length in units of 8 bytes, without the first 8 bytes (RFC 8200, section
        // 4).
        let lines = &[
            Do(op::LSH, 3),
            Do(op::ADD, 8),
            Do(op::ADD_X, 0),
            Do(op::TAX, 0),
            Do(op::LD_MEM, TRANSPORT),
        ];
        let advance = b.lines(lines, next);
        let lines = &[
            Do(op::LD_BYTE_X, 0),
            Do(op::ST, TRANSPORT),
            Do(op::LD_BYTE_X, 1),
        ];
        let options = b.lines(lines, advance);
        let lines = &[
            Do(op::LD_HALF_X, 2),
            Refuse(op::JSET, 0xfff8),
            Do(op::LD_BYTE_X, 0),
            Do(op::ST, TRANSPORT),
            Do(op::LD_IMM, 0),
        ];
        let fragment = b.lines(lines, advance);
        let cases = [
            one(HOP_BY_HOP, options),
            one(ROUTING, options),
            one(FRAGMENT, fragment),
            one(DESTINATION_OPTIONS, options),
        ];
        b.choose(&cases, next)
    })
}
