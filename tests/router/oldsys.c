/* oldsys [-r | -t] PROGRAM ARGUMENTS...: runs PROGRAM and everything it starts as if on DD-WRT's
 * router kernel 2.6.24. seccomp fails all newer system calls with ENOSYS, as well as futex, epoll,
 * signalfd, eventfd and timerfd, which that kernel is built without. Unknown flags fail with EINVAL.
 * -r: permits the futex calls.
 * -t: simulates a new kernel without CONFIG_COMPAT_32BIT_TIME instead, which lacks the calls with
 * 32-bit times.
 * For x86_64 (without -t), i386, 32-bit ARM and MIPS; not under qemu-user. The real kernel needs
 * SECCOMP_FILTER. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* NEWEST: the last call of 2.6.24. HOLE: a lower number that was assigned later (timerfd_create or
 * fallocate). */
#if defined __mips__ && _MIPS_SIM == _ABIO32
enum { NEWEST = 4320, HOLE = 4318 };
#elif defined __arm__
enum { NEWEST = 351, HOLE = 350 };
#elif defined __i386__
enum { NEWEST = 324, HOLE = 322 };
#elif defined __x86_64__ && !defined __ILP32__
enum { NEWEST = 285, HOLE = 283 };
#else
#error "no table for this machine"
#endif

static struct sock_filter filter[128];
static unsigned short length;

static void add(unsigned short code, unsigned char yes, unsigned char no, unsigned value)
{
    filter[length++] = (struct sock_filter){code, yes, no, value};
}

static void load(size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, 0, 0, (unsigned)offset); }
static void load_number(void) { load(offsetof(struct seccomp_data, nr)); }
static void answer(unsigned value) { add(BPF_RET | BPF_K, 0, 0, value); }
static void deny(int error) { answer(SECCOMP_RET_ERRNO | (unsigned)error); }

/* Loads the low half of an argument. */
static void load_argument(int index)
{
    size_t offset = offsetof(struct seccomp_data, args) + 8 * (size_t)index;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    offset += 4;
#endif
    load(offset);
}

static void missing(unsigned call)
{
    add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, call);
    deny(ENOSYS);
}

/* Fails call with error if the comparison of its argument with value is true. */
static void wrong(unsigned call, int argument, unsigned short compare, unsigned value, int error)
{
    add(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, call);
    load_argument(argument);
    add(BPF_JMP | compare | BPF_K, 0, 1, value);
    deny(error);
    load_number();
}

/* The calls of CONFIG_COMPAT_32BIT_TIME (kernel Kconfig) that sys_ni.c lists. musl has other names
 * for some of them. */
static void no_times_of_32_bits(void)
{
#ifdef SYS_clock_gettime64
    static const unsigned calls[] = {
#ifdef SYS_clock_gettime32
        SYS_clock_gettime32, SYS_clock_settime32, SYS_clock_getres_time32, SYS_clock_nanosleep_time32,
#else
        SYS_clock_gettime, SYS_clock_settime, SYS_clock_getres, SYS_clock_nanosleep,
#endif
        SYS_nanosleep, SYS_futex, SYS_ppoll, SYS_pselect6, SYS_recvmmsg, SYS_rt_sigtimedwait, SYS_utimensat,
#ifdef SYS_time
        SYS_time,
#endif
    };
    for (size_t at = 0; at < sizeof calls / sizeof *calls; at++)
        missing(calls[at]);
#endif
}

static void as_2_6_24(int with_futex)
{
#ifdef __arm__
    add(BPF_JMP | BPF_JGE | BPF_K, 0, 1, 0x0f0000); /* set_tls and the like */
    answer(SECCOMP_RET_ALLOW);
#endif
    add(BPF_JMP | BPF_JGT | BPF_K, 0, 1, NEWEST);
    deny(ENOSYS);
    missing(HOLE);
    if (!with_futex)
        missing(SYS_futex);
    missing(SYS_epoll_create);
    missing(SYS_epoll_ctl);
    missing(SYS_epoll_wait);
    missing(SYS_signalfd);
    missing(SYS_eventfd);
    missing(SYS_fallocate);

    /* SOCK_CLOEXEC and SOCK_NONBLOCK: 2.6.27. i386 passes them to socketcall, where seccomp cannot
     * see them. */
#ifdef SYS_socket
    wrong(SYS_socket, 1, BPF_JSET, SOCK_CLOEXEC | SOCK_NONBLOCK, EINVAL);
    wrong(SYS_socketpair, 1, BPF_JSET, SOCK_CLOEXEC | SOCK_NONBLOCK, EINVAL);
#endif
    /* 2.6.24 ignores MSG_CMSG_CLOEXEC like any flag and has F_DUPFD_CLOEXEC. F_SETPIPE_SZ: 2.6.35. */
    wrong(SYS_fcntl, 1, BPF_JGT, 1030, EINVAL);
    /* PR_SET_NO_NEW_PRIVS: 3.5. PR_SET_SECCOMP: not configured in that kernel. All others above 28:
     * 2.6.26 and later. */
    wrong(SYS_prctl, 0, BPF_JGT, 28, EINVAL);
    wrong(SYS_prctl, 0, BPF_JEQ, PR_SET_SECCOMP, EINVAL);
    /* CLOCK_MONOTONIC_RAW 2.6.28, _COARSE 2.6.32, BOOTTIME 2.6.39. */
#ifdef SYS_clock_gettime
    wrong(SYS_clock_gettime, 0, BPF_JGT, 3, EINVAL);
#elif defined SYS_clock_gettime32
    wrong(SYS_clock_gettime32, 0, BPF_JGT, 3, EINVAL);
#endif
}

int main(int count, char **words)
{
    int with_futex = count > 1 && strcmp(words[1], "-r") == 0;
    int without_times = count > 1 && strcmp(words[1], "-t") == 0;
    char **program = words + 1 + with_futex + without_times;
    if (program[0] == NULL) {
        fprintf(stderr, "usage: oldsys [-r | -t] PROGRAM ARGUMENTS...\n");
        return 2;
    }

    load_number();
    if (without_times)
        no_times_of_32_bits();
    else
        as_2_6_24(with_futex);
    if (length == 1) {
        fprintf(stderr, "oldsys: -t: this machine's calls know no times of 32 bits\n");
        return 2;
    }
    answer(SECCOMP_RET_ALLOW);

    struct sock_fprog all = {length, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) != 0) {
        perror("oldsys: seccomp");
        return 2;
    }
    execvp(program[0], program);
    perror(program[0]);
    return 127;
}
