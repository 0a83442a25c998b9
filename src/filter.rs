//! stub
use crate::door::Pattern;
use std::net::IpAddr;
/// i
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// c
    pub code: u16,
    /// j
    pub jt: u8,
    /// j
    pub jf: u8,
    /// k
    pub k: u32,
}
/// k
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// v
    pub vlan_tag_present: bool,
}
/// k
pub fn knows_vlan_tag(_: &str) -> bool {
    true
}
/// c
pub fn compile(_: &[Pattern], _: &[IpAddr], _: Kernel, _: bool) -> Vec<Instruction> {
    vec![Instruction {
        code: 6,
        jt: 0,
        jf: 0,
        k: 256,
    }]
}
