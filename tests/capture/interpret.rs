//! Runs filters as the kernel does, and checks them as the kernel does when they are attached.
#![forbid(unsafe_code)]

use knockd_rs::limits::MAX_FILTER_INSTRUCTIONS;
use knockd_rs::util::bpf::{AD_PACKET_TYPE, AD_PROTOCOL, AD_VLAN_TAG, AD_VLAN_TAG_PRESENT};
use knockd_rs::util::bpf::{Instruction, op};

/// What the kernel knows about a packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The protocol by the link's header, an ETH_P number.
    pub protocol: u16,
    /// Whom the frame is for, a PACKET number of linux/if_packet.h.
    pub packet_type: u8,
    /// The frame has a VLAN tag.
    pub vlan_tag_present: bool,
    /// The tag; anything where there is none.
    pub vlan_tag: u16,
}

impl Meta {
    /// An untagged frame for this host. Kernels since 5.0 leave the tag that was taken off where it was.
    pub fn host(protocol: u16) -> Meta {
        Meta {
            protocol,
            packet_type: 0,
            vlan_tag_present: false,
            vlan_tag: 5,
        }
    }
}

/// How many bytes of the packet the program passes; 0: it drops it. A load beyond the packet's end drops it, and so does
/// whatever [`check`] refuses.
pub fn run(program: &[Instruction], packet: &[u8], meta: &Meta) -> u32 {
    count(program, packet, meta).0
}

/// The same, and how many instructions were run.
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

/// Whether the kernel takes this program (`sk_chk_filter`: known opcodes, jumps that stay inside, memory that exists and
/// was written before it is read, a verdict at the end), and whether it is as short as old kernels need and has no
/// instruction that is never reached. Else: which instruction is wrong, and what about it.
pub fn check(program: &[Instruction]) -> Result<(), (usize, &'static str)> {
    if program.is_empty() || program.len() > MAX_FILTER_INSTRUCTIONS {
        return Err((program.len(), "length"));
    }
    // For each instruction: the memory words that are written on each way to it; `None`: there is no way.
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
