//! Runs filters like the kernel, and checks them like the kernel does when they are attached.
#![forbid(unsafe_code)]

use knockd_rs::limits::MAX_FILTER_INSTRUCTIONS;
use knockd_rs::util::bpf::{AD_PACKET_TYPE, AD_PROTOCOL, AD_VLAN_TAG, AD_VLAN_TAG_PRESENT};
use knockd_rs::util::bpf::{Instruction, op};

/// What the kernel knows about a packet apart from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The protocol in the link header, an ETH_P constant.
    pub protocol: u16,
    /// The destination of the frame, a PACKET constant of linux/if_packet.h.
    pub packet_type: u8,
    /// Whether the frame has a VLAN tag.
    pub vlan_tag_present: bool,
    /// The tag; arbitrary if there is none.
    pub vlan_tag: u16,
}

impl Meta {
    /// An untagged frame for this host. Since 5.0, kernels do not clear the field when they remove
    /// a tag.
    pub fn host(protocol: u16) -> Meta {
        Meta {
            protocol,
            packet_type: 0,
            vlan_tag_present: false,
            vlan_tag: 5,
        }
    }
}

/// The number of bytes that the program passes; 0 if it drops the packet. It drops the packet on a
/// load beyond the packet's end. A program that [`check`] rejects drops everything.
pub fn run(program: &[Instruction], packet: &[u8], meta: &Meta) -> u32 {
    count(program, packet, meta).0
}

/// Like [`run`], and returns the number of instructions that were run.
pub fn count(program: &[Instruction], packet: &[u8], meta: &Meta) -> (u32, usize) {
    let mut count = 0;
    let verdict = execute(program, packet, meta, &mut count).unwrap_or(0);
    (verdict, count)
}

fn execute(program: &[Instruction], packet: &[u8], meta: &Meta, count: &mut usize) -> Option<u32> {
    let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [0_u32; 16], 0_usize);
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        *count += 1;
        let mut skip = |test: bool| at += usize::from(if test { jt } else { jf });
        match code {
            op::LD_WORD => {
                a = match k {
                    AD_PROTOCOL => meta.protocol.into(),
                    AD_PACKET_TYPE => meta.packet_type.into(),
                    AD_VLAN_TAG => meta.vlan_tag.into(),
                    AD_VLAN_TAG_PRESENT => meta.vlan_tag_present.into(),
                    _ => u32::from_be_bytes(load(packet, k)?),
                }
            }
            op::LD_HALF => a = u16::from_be_bytes(load(packet, k)?).into(),
            op::LD_BYTE => a = u8::from_be_bytes(load(packet, k)?).into(),
            op::LD_HALF_X => a = u16::from_be_bytes(load(packet, x.checked_add(k)?)?).into(),
            op::LD_BYTE_X => a = u8::from_be_bytes(load(packet, x.checked_add(k)?)?).into(),
            op::LD_IMM => a = k,
            op::LD_MEM => a = *memory.get(k as usize)?,
            op::LDX_IMM => x = k,
            op::LDX_MSH => x = 4 * u32::from(load::<1>(packet, k)?[0] & 15),
            op::ST => *memory.get_mut(k as usize)? = a,
            op::ADD => a = a.wrapping_add(k),
            op::ADD_X => a = a.wrapping_add(x),
            op::SUB => a = a.wrapping_sub(k),
            op::LSH => a = a.checked_shl(k)?,
            op::TAX => x = a,
            op::JA => at = at.checked_add(k as usize)?,
            op::JEQ => skip(a == k),
            op::JGT => skip(a > k),
            op::JGE => skip(a >= k),
            op::JSET => skip(a & k != 0),
            op::JGT_X => skip(a > x),
            op::RET => return Some(k),
            _ => return None,
        }
    }
}

fn load<const N: usize>(packet: &[u8], offset: u32) -> Option<[u8; N]> {
    packet.get(offset as usize..)?.first_chunk().copied()
}

/// Checks whether the kernel accepts this program (`sk_chk_filter`: known opcodes, jumps inside the
/// program, memory words that exist and are written before they are read, a verdict at the end).
/// Also checks that it fits the limit of old kernels and that every instruction is reachable. On
/// error returns the index of the wrong instruction and the problem.
pub fn check(program: &[Instruction]) -> Result<(), (usize, &'static str)> {
    if program.is_empty() || program.len() > MAX_FILTER_INSTRUCTIONS {
        return Err((program.len(), "length"));
    }
    // For each instruction, the memory words that are written on every path to it; `None` if no
    // path leads there.
    let mut written: Vec<Option<u16>> = vec![None; program.len()];
    written[0] = Some(0);
    for (at, &Instruction { code, jt, jf, k }) in program.iter().enumerate() {
        let Some(words) = written[at] else {
            return Err((at, "is never reached"));
        };
        let (mut words, mut next) = (words, vec![at + 1]);
        match code {
            op::LD_WORD | op::LD_HALF | op::LD_BYTE | op::LD_HALF_X | op::LD_BYTE_X => {}
            op::LD_IMM | op::LDX_IMM | op::LDX_MSH | op::TAX => {}
            op::ADD | op::ADD_X | op::SUB => {}
            op::LSH if k < 32 => {}
            op::ST if k < 16 => words |= 1 << k,
            op::LD_MEM if k < 16 && words & 1 << k != 0 => {}
            op::JA => next = vec![at.saturating_add(1).saturating_add(k as usize)],
            op::JEQ | op::JGT | op::JGE | op::JSET | op::JGT_X => {
                next = vec![at + 1 + usize::from(jt), at + 1 + usize::from(jf)];
            }
            op::RET => next = vec![],
            _ => return Err((at, "opcode or operand")),
        }
        for next in next {
            let Some(seen) = written.get_mut(next) else {
                return Err((at, "goes on beyond the end"));
            };
            *seen = Some(seen.unwrap_or(u16::MAX) & words);
        }
    }
    Ok(())
}
