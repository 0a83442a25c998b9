//! Classic BPF (linux/filter.h), written from its end to its start: whoever emits a jump already knows where it goes,
//! since in this language all jumps go forward. So there are no open labels to resolve later.
#![forbid(unsafe_code)]

use crate::limits::MAX_FILTER_INSTRUCTIONS;

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when the test is true.
    pub jt: u8,
    /// Instructions to skip when the test is false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Opcodes: the values of linux/bpf_common.h, those that knockd needs. A is the accumulator, X the index register, M the
/// 16 words of scratch memory.
pub mod op {
    /// A = the 32-bit word at k; from offset -0x1000 up, what the kernel knows about the packet.
    pub const LD_WORD: u16 = 0x20;
    /// A = the 16-bit word at k.
    pub const LD_HALF: u16 = 0x28;
    /// A = the byte at k.
    pub const LD_BYTE: u16 = 0x30;
    /// A = the 16-bit word at X + k.
    pub const LD_HALF_X: u16 = 0x48;
    /// A = the byte at X + k.
    pub const LD_BYTE_X: u16 = 0x50;
    /// A = k.
    pub const LD_IMM: u16 = 0x00;
    /// A = `M[k]`.
    pub const LD_MEM: u16 = 0x60;
    /// X = k.
    pub const LDX_IMM: u16 = 0x01;
    /// X = 4 * (the byte at k & 15): the length of an IPv4 header.
    pub const LDX_MSH: u16 = 0xb1;
    /// `M[k]` = A.
    pub const ST: u16 = 0x02;
    /// A += k.
    pub const ADD: u16 = 0x04;
    /// A += X.
    pub const ADD_X: u16 = 0x0c;
    /// A -= k.
    pub const SUB: u16 = 0x14;
    /// A <<= k.
    pub const LSH: u16 = 0x64;
    /// X = A.
    pub const TAX: u16 = 0x07;
    /// Skip k instructions.
    pub const JA: u16 = 0x05;
    /// A == k?
    pub const JEQ: u16 = 0x15;
    /// A > k?
    pub const JGT: u16 = 0x25;
    /// A >= k?
    pub const JGE: u16 = 0x35;
    /// A & k != 0?
    pub const JSET: u16 = 0x45;
    /// A > X?
    pub const JGT_X: u16 = 0x2d;
    /// The verdict: pass the first k bytes, 0: drop.
    pub const RET: u16 = 0x06;
}

/// From this offset up a word load asks for what the kernel knows about the packet (SKF_AD_OFF).
pub const ANCILLARY: u32 = -0x1000_i32 as u32;
/// The protocol by the link's header, an ETH_P number (SKF_AD_PROTOCOL).
pub const AD_PROTOCOL: u32 = ANCILLARY;
/// Whom the frame is for, a PACKET number of linux/if_packet.h (SKF_AD_PKTTYPE).
pub const AD_PACKET_TYPE: u32 = ANCILLARY + 4;
/// The frame's VLAN tag: 3 bits of priority, 1 bit, 12 bits of the VLAN's number (SKF_AD_VLAN_TAG, Linux 3.8). Where there is none,
/// anything.
pub const AD_VLAN_TAG: u32 = ANCILLARY + 44;
/// Whether the frame has a VLAN tag (SKF_AD_VLAN_TAG_PRESENT, Linux 3.8).
pub const AD_VLAN_TAG_PRESENT: u32 = ANCILLARY + 48;

/// A place in the program: how many instructions there are from it to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// One value, or a range of them, and where to go when A is in it.
pub(crate) struct Case {
    pub low: u32,
    pub high: u32,
    pub then: Label,
}

/// A line of straight code, in the order of running.
pub(crate) enum Statement {
    /// Opcode and operand.
    Do(u16, u32),
    /// A test that the packet must pass.
    Need(u16, u32),
    /// A test that the packet must not pass.
    Refuse(u16, u32),
}

/// A program that grows towards its start.
pub(crate) struct Builder {
    /// The instructions, last one first. It stops growing when it is too long, and then is useless.
    reversed: Vec<Instruction>,
    /// `ja` instructions: (where to, where it stands), for conditional jumps that do not reach that far themselves.
    bridges: Vec<(Label, Label)>,
    /// The place that drops the packet.
    pub drop: Label,
    /// Cases that are tried one by one; more are halved first.
    few: usize,
}

impl Builder {
    /// A program that drops everything. So `few` cases are tried one by one: fewer make it faster and longer.
    pub fn new(few: usize) -> Builder {
        let mut builder = Builder {
            reversed: Vec::new(),
            bridges: Vec::new(),
            drop: Label(1),
            few,
        };
        builder.push(op::RET, 0, 0, 0);
        builder
    }

    /// The program; `None` if it is too long for old kernels.
    pub fn finish(mut self) -> Option<Vec<Instruction>> {
        self.reversed.reverse();
        (self.reversed.len() <= MAX_FILTER_INSTRUCTIONS).then_some(self.reversed)
    }

    /// Passes the first `bytes` bytes of the packet.
    pub fn pass(&mut self, bytes: u32) -> Label {
        self.push(op::RET, 0, 0, bytes)
    }

    /// One instruction that does not jump, and goes on at `next`.
    pub fn step(&mut self, code: u16, k: u32, next: Label) -> Label {
        if next != self.top() {
            self.jump(next);
        }
        self.push(code, 0, 0, k)
    }

    /// A test of A.
    pub fn test(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        let yes = self.bridge(yes);
        let no = self.bridge(no);
        self.push(code, self.distance(yes) as u8, self.distance(no) as u8, k)
    }

    /// Straight code that ends at `next`, or drops the packet.
    pub fn lines(&mut self, lines: &[Statement], next: Label) -> Label {
        lines.iter().rev().fold(next, |next, line| match *line {
            Statement::Do(code, k) => self.step(code, k, next),
            Statement::Need(code, k) => self.test(code, k, next, self.drop),
            Statement::Refuse(code, k) => self.test(code, k, self.drop, next),
        })
    }

    /// Goes where A belongs; to `otherwise` if to none. The cases are in ascending order and do not overlap.
    pub fn choose(&mut self, cases: &[Case], otherwise: Label) -> Label {
        self.choose_from(cases, otherwise, false)
    }

    /// `is_above`: A is not below the first case.
    fn choose_from(&mut self, cases: &[Case], otherwise: Label, is_above: bool) -> Label {
        if cases.len() > self.few {
            let (lower, upper) = cases.split_at(cases.len() / 2);
            let above = self.choose_from(upper, otherwise, true);
            let below = self.choose_from(lower, otherwise, is_above);
            return self.test(op::JGE, upper[0].low, above, below);
        }
        cases
            .iter()
            .enumerate()
            .rev()
            .fold(otherwise, |next, (at, case)| {
                if case.low == case.high {
                    return self.test(op::JEQ, case.low, case.then, next);
                }
                let not_above = match is_above && at == 0 {
                    true => case.then,
                    false => self.test(op::JGE, case.low, case.then, otherwise),
                };
                self.test(op::JGT, case.high, next, not_above)
            })
    }

    /// The place of the instruction that was emitted last, the program's first so far.
    fn top(&self) -> Label {
        Label(self.reversed.len())
    }

    /// Instructions between the next one to be emitted and that place.
    fn distance(&self, place: Label) -> usize {
        self.reversed.len() - place.0
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        if self.reversed.len() <= MAX_FILTER_INSTRUCTIONS {
            self.reversed.push(Instruction { code, jt, jf, k });
        }
        self.top()
    }

    fn jump(&mut self, place: Label) -> Label {
        self.push(op::JA, 0, 0, self.distance(place) as u32)
    }

    /// That place, or a jump to it which the 8 bits of a conditional jump reach. One less than they could, because the
    /// bridge for the other branch may come between.
    fn bridge(&mut self, place: Label) -> Label {
        const REACH: usize = 254;
        if self.distance(place) <= REACH {
            return place;
        }
        let known = self.bridges.iter().rev().find(|(to, _)| *to == place);
        if let Some(&(_, at)) = known
            && self.distance(at) <= REACH
        {
            return at;
        }
        let at = self.jump(place);
        self.bridges.push((place, at));
        at
    }
}
