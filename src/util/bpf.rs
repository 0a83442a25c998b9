//! Classic BPF (linux/filter.h), written from the end to the start: all jumps of this language go
//! forward, so the target of a jump is always known when it is emitted, and there are no labels to
//! resolve later.
#![forbid(unsafe_code)]

use crate::limits::MAX_FILTER_INSTRUCTIONS;

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The opcode.
    pub code: u16,
    /// Instructions to skip when the test is true.
    pub jt: u8,
    /// Instructions to skip when the test is false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The needed opcodes, with the values of linux/bpf_common.h. A is the accumulator, X the index
/// register, M the 16 words of scratch memory.
pub mod op {
    /// A = the 32-bit word at k. From offset -0x1000 up: metadata of the packet.
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

/// From this offset up a word load returns metadata of the packet (SKF_AD_OFF).
pub const ANCILLARY: u32 = -0x1000_i32 as u32;
/// The protocol of the link header, an ETH_P number (SKF_AD_PROTOCOL).
pub const AD_PROTOCOL: u32 = ANCILLARY;
/// The type of the frame's destination, a PACKET number of linux/if_packet.h (SKF_AD_PKTTYPE).
pub const AD_PACKET_TYPE: u32 = ANCILLARY + 4;
/// The VLAN tag of the frame: 3 bits of priority, 1 bit, 12 bits of the VLAN number
/// (SKF_AD_VLAN_TAG, Linux 3.8). Undefined without a tag.
pub const AD_VLAN_TAG: u32 = ANCILLARY + 44;
/// Whether the frame has a VLAN tag (SKF_AD_VLAN_TAG_PRESENT, Linux 3.8).
pub const AD_VLAN_TAG_PRESENT: u32 = ANCILLARY + 48;

/// A label: the number of instructions from it to the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// A value or range of values, and the label for A in it.
pub(crate) struct Case {
    pub low: u32,
    pub high: u32,
    pub then: Label,
}

/// A step of straight code, in the order of execution.
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
    /// The instructions, last one first. If the program gets too long, it stops growing and is
    /// unusable.
    reversed: Vec<Instruction>,
    /// `ja` instructions (target, own label), for conditional jumps that cannot reach the target
    /// themselves.
    bridges: Vec<(Label, Label)>,
    /// The label that drops the packet.
    pub drop: Label,
    /// The number of cases that are tested one by one; more are halved first.
    few: usize,
}

impl Builder {
    /// Creates a program that drops everything. Tests `few` cases one by one: a smaller number
    /// makes it faster and longer.
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

    /// Returns the program. `None` if it is too long for old kernels.
    pub fn finish(mut self) -> Option<Vec<Instruction>> {
        self.reversed.reverse();
        (self.reversed.len() <= MAX_FILTER_INSTRUCTIONS).then_some(self.reversed)
    }

    /// Emits: pass the first `bytes` bytes of the packet.
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

    /// Emits a test of A.
    pub fn test(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        let yes = self.bridge(yes);
        let no = self.bridge(no);
        self.push(code, self.distance(yes) as u8, self.distance(no) as u8, k)
    }

    /// Emits straight code that continues at `next` or drops the packet.
    pub fn lines(&mut self, lines: &[Statement], next: Label) -> Label {
        lines.iter().rev().fold(next, |next, line| match *line {
            Statement::Do(code, k) => self.step(code, k, next),
            Statement::Need(code, k) => self.test(code, k, next, self.drop),
            Statement::Refuse(code, k) => self.test(code, k, self.drop, next),
        })
    }

    /// Emits a branch to the case that contains A, or to `otherwise`. The cases are in ascending
    /// order and do not overlap.
    pub fn choose(&mut self, cases: &[Case], otherwise: Label) -> Label {
        self.choose_from(cases, otherwise, false)
    }

    /// `is_above`: A is known to be at or above the first case.
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

    /// Returns the label of the last emitted instruction, which is the start of the program so far.
    fn top(&self) -> Label {
        Label(self.reversed.len())
    }

    /// Returns the number of instructions between the next one to be emitted and that label.
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

    /// Returns that label, or a jump to it within reach of the 8 bits of a conditional jump. The
    /// reach is one less than possible, because the jump of the other branch may come in between.
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
