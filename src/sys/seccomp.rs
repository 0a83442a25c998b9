//! The listener's last lock: a seccomp filter (seccomp(2)) that leaves it the few system calls that its loop makes. It can
//! open nothing, start nothing and reach no other process.

use super::error::cerr;
use crate::filter::Instruction;
use std::io;

/// `struct seccomp_data`: the number of the call at 0, the architecture at 4.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// AUDIT_ARCH_* of linux/audit.h: the ELF machine, with a bit for 64-bit and one for little-endian ones.
#[cfg(target_arch = "x86_64")]
const THIS_ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const THIS_ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(target_arch = "arm")]
const THIS_ARCHITECTURE: Option<u32> = Some(0x4000_0028);
#[cfg(all(target_arch = "mips", target_endian = "little"))]
const THIS_ARCHITECTURE: Option<u32> = Some(0x4000_0008);
#[cfg(all(target_arch = "mips", target_endian = "big"))]
const THIS_ARCHITECTURE: Option<u32> = Some(0x0000_0008);
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "mips"
)))]
const THIS_ARCHITECTURE: Option<u32> = None;

/// What the loop of the listener calls, and what memory allocation, the clock and a panic's last words need.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_bind,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_clock_gettime,
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(not(target_arch = "aarch64"))]
    libc::SYS_poll,
    #[cfg(not(any(target_arch = "arm", target_arch = "mips")))]
    libc::SYS_mmap,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS_mmap2,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS_send,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS_recv,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS_gettimeofday,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    super::clock::CLOCK_GETTIME64,
];

/// Jumps in classic BPF reach 255 instructions.
const _: () = assert!(ALLOWED.len() < 255);

fn program(architecture: u32) -> Vec<Instruction> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, k, jt, jf| Instruction { code, jt, jf, k };
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE, 0, 0),
        instruction(JUMP_IF_EQUAL, architecture, 1, 0),
        instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        instruction(LOAD, NUMBER, 0, 0),
    ];
    let to_allow = ALLOWED.len() as u8;
    for (done, number) in (0..).zip(ALLOWED) {
        program.push(instruction(
            JUMP_IF_EQUAL,
            *number as u32,
            to_allow - done,
            0,
        ));
    }
    program.push(instruction(
        RETURN,
        libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        0,
        0,
    ));
    program.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    program
}

/// Installs the filter, for good. Kernels before 3.5 and those built without it refuse (EINVAL).
pub fn confine() -> io::Result<()> {
    let Some(architecture) = THIS_ARCHITECTURE else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let program = program(architecture);
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `filter` points at `len` instructions laid out as the kernel's; it copies them. The other arguments are numbers.
    unsafe {
        cerr(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        cerr(libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        ))
        .map(drop)
    }
}
