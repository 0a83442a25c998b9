//! The last barrier of the processes without root: a seccomp filter (seccomp(2)) that permits only
//! the few system calls of their loops. They cannot open files, execute programs, or make memory
//! executable. The listener can send only to the keeper and to netlink. The lookup process can open
//! only sockets of IPv4 and IPv6.

use super::error::{Error, Result, cerr};
use crate::util::bpf::{Builder, Instruction, op};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct seccomp_data`: the number of the call at 0, the architecture at 4, the lower half of the
/// first argument at 16, or at 20 on big-endian machines.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = match cfg!(target_endian = "big") {
    true => 20,
    false => 16,
};

/// AUDIT_ARCH_* of linux/audit.h: the ELF machine, with one bit for 64-bit and one for
/// little-endian machines.
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

/// The calls of both loops, of memory allocation and of the clock.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_close,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_clock_gettime,
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(not(target_arch = "aarch64"))]
    libc::SYS_poll,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS_recv,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS_gettimeofday,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    super::clock::CLOCK_GETTIME64,
];

/// The calls that map memory, refused with PROT_EXEC. musl's malloc uses them if brk has no room.
const MAPPING: &[libc::c_long] = &[
    libc::SYS_mprotect,
    #[cfg(not(any(target_arch = "arm", target_arch = "mips")))]
    libc::SYS_mmap,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS_mmap2,
];

/// The further calls of the listener.
const LISTENER: &[libc::c_long] = &[libc::SYS_recvmmsg, libc::SYS_bind, libc::SYS_getsockopt];

/// The calls that send: the listener may send to a few sockets only. No other permitted call sends,
/// or duplicates a socket's descriptor.
const SENDING: &[libc::c_long] = &[
    libc::SYS_sendto,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS_send,
];

/// The further calls of the lookup process: it queries DNS servers, and reads its hosts file again
/// from the start.
const LOOKUP: &[libc::c_long] = &[
    libc::SYS_connect,
    libc::SYS_sendto,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS_send,
    #[cfg(not(any(target_arch = "arm", target_arch = "mips")))]
    libc::SYS_lseek,
    #[cfg(any(target_arch = "arm", target_arch = "mips"))]
    libc::SYS__llseek,
];

/// The permitted calls of one process, some of them only with these values of the first argument.
struct AllowedCalls<'a> {
    calls: &'a [libc::c_long],
    bound: &'a [libc::c_long],
    first: &'a [libc::c_long],
}

fn program(architecture: u32, rules: &AllowedCalls<'_>) -> Vec<Instruction> {
    let mut b = Builder::new(0);
    let allow = b.pass(libc::SECCOMP_RET_ALLOW);
    let refuse = b.pass(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    // For setsockopt(2) only a new filter: other options use kernel memory (PACKET_RX_RING) or take
    // other sockets' packets (PACKET_FANOUT).
    let option = b.test(op::JEQ, libc::SO_ATTACH_FILTER as u32, allow, refuse);
    let option = b.step(op::LD_WORD, FIRST_ARGUMENT + 16, option);
    let level = b.test(op::JEQ, libc::SOL_SOCKET as u32, option, refuse);
    let set = b.step(op::LD_WORD, FIRST_ARGUMENT + 8, level);
    // Memory that is not executable.
    let protection = b.test(op::JSET, libc::PROT_EXEC as u32, refuse, allow);
    let map = b.step(op::LD_WORD, FIRST_ARGUMENT + 16, protection);
    let mut first = refuse;
    for value in rules.first {
        first = b.test(op::JEQ, *value as u32, allow, first);
    }
    let bound = b.step(op::LD_WORD, FIRST_ARGUMENT, first);
    let mut number = refuse;
    for (calls, to) in [
        (&[libc::SYS_setsockopt][..], set),
        (rules.bound, bound),
        (MAPPING, map),
        (ALLOWED, allow),
        (rules.calls, allow),
    ] {
        for call in calls {
            number = b.test(op::JEQ, *call as u32, to, number);
        }
    }
    let native = b.step(op::LD_WORD, NUMBER, number);
    let other = b.pass(libc::SECCOMP_RET_KILL_PROCESS);
    let start = b.test(op::JEQ, architecture, native, other);
    b.step(op::LD_WORD, ARCHITECTURE, start);
    // The kernel would refuse a program that is too long as an empty one. None is.
    b.finish().unwrap_or_default()
}

/// Confines the listener permanently: it can send only to these sockets. Kernels before 3.5 and
/// those built without seccomp refuse (EINVAL).
pub fn confine_listener(may_send_to: [BorrowedFd<'_>; 2]) -> Result<()> {
    confine(&AllowedCalls {
        calls: LISTENER,
        bound: SENDING,
        first: &may_send_to.map(|socket| socket.as_raw_fd().into()),
    })
}

/// The same for the lookup process.
pub fn confine_lookup() -> Result<()> {
    confine(&AllowedCalls {
        calls: LOOKUP,
        bound: &[libc::SYS_socket],
        first: &[
            libc::AF_INET as libc::c_long,
            libc::AF_INET6 as libc::c_long,
        ],
    })
}

fn confine(rules: &AllowedCalls<'_>) -> Result<()> {
    let Some(architecture) = THIS_ARCHITECTURE else {
        return Err(Error::Os(libc::ENOSYS));
    };
    let program = program(architecture, rules);
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `filter` points at `len` instructions laid out as the kernel's; it copies them. The
    // other arguments are numbers.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file;
    use crate::sys::message_socket::MessageSocket;
    use std::os::fd::AsFd;
    use std::path::Path;

    #[test]
    fn what_is_confined_sends_to_its_sockets_alone_and_makes_none() {
        let pairs: [_; 3] = std::array::from_fn(|_| MessageSocket::pair().expect("sockets"));
        let [(first, _), (second, _), (other, _)] = &pairs;
        let found = std::thread::scope(|scope| {
            // The filter applies only to this thread.
            let confined = scope.spawn(|| {
                confine_listener([first.as_fd(), second.as_fd()]).expect("seccomp");
                let code = |result: Result<()>| match result {
                    Err(Error::Os(number)) => Some(number),
                    _ => None,
                };
                let number = other.as_fd().as_raw_fd();
                let set = |level, option| {
                    let value = libc::sock_fprog {
                        len: 0,
                        filter: std::ptr::null_mut(),
                    };
                    // SAFETY: `value` is of the length given.
                    let result = unsafe {
                        libc::setsockopt(
                            number,
                            level,
                            option,
                            (&raw const value).cast(),
                            size_of_val(&value) as libc::socklen_t,
                        )
                    };
                    code(cerr(result).map(drop))
                };
                let map = |protection| {
                    let none = std::ptr::null_mut();
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                    // SAFETY: new memory, at no address of ours.
                    let page = unsafe { libc::mmap(none, 4096, protection, flags, -1, 0) };
                    (page != libc::MAP_FAILED).then_some(page)
                };
                let writable = libc::PROT_READ | libc::PROT_WRITE;
                let page = map(writable).expect("memory");
                // SAFETY: no one else uses that page.
                let code_of_it = unsafe { libc::mprotect(page, 4096, libc::PROT_EXEC) };
                assert_eq!(map(writable | libc::PROT_EXEC), None);
                // SAFETY: no pointers.
                let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
                // SAFETY: no pointers.
                let copy = unsafe { libc::fcntl(number, libc::F_DUPFD, 0) };
                [
                    code(first.send(b"1", true)),
                    code(second.send(b"2", true)),
                    code(other.send(b"3", true)),
                    code(file::write(other.as_fd(), b"!").map(drop)),
                    code(cerr(socket).map(drop)),
                    code(cerr(copy).map(drop)),
                    code(cerr(code_of_it).map(drop)),
                    set(libc::SOL_SOCKET, libc::SO_RCVBUF),
                    set(libc::SOL_PACKET, libc::PACKET_RX_RING),
                    // The same number at another level.
                    set(libc::SOL_PACKET, libc::SO_ATTACH_FILTER),
                    // Refused by the kernel itself: a filter has instructions.
                    set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
                ]
            });
            confined.join().expect("thread")
        });
        let no = Some(libc::EPERM);
        let wrong = Some(libc::EINVAL);
        let mut expected = [no; 11];
        (expected[0], expected[1], expected[10]) = (None, None, wrong);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_lookup_process_opens_sockets_of_ip_alone() {
        let families = [
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_PACKET,
            libc::AF_NETLINK,
            libc::AF_UNIX,
        ];
        let found = std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                confine_lookup().expect("seccomp");
                let open = file::open(Path::new("/dev/null"), libc::O_RDONLY, 0);
                assert_eq!(open.err(), Some(Error::Os(libc::EPERM)));
                // SAFETY: no pointers.
                families.map(|family| unsafe { libc::socket(family, libc::SOCK_DGRAM, 0) } != -1)
            });
            confined.join().expect("thread")
        });
        assert_eq!(found, [true, true, false, false, false]);
    }
}
