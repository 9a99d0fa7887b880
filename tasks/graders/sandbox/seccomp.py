"""The filter of system calls: what a single-threaded computation needs is allowed, anything else fails with EPERM.

Written as BPF by hand (seccomp(2), linux/filter.h): pyseccomp needs the system library libseccomp, which pip cannot
install, so that a user without root would have no sandbox. The numbers are those of the kernel's own tables.

Left out on purpose, beside processes, threads, sockets, signals to others and ptrace: chmod, chown, utime, xattr and
truncate by path, which Landlock does not see (the last before its third version) and which would reach any file of the
user; memfd_create and the System V calls, whose memory no limit counts; io_uring, which goes around this filter.
"""

import platform
import struct

from tasks.graders.sandbox.records import SandboxError

EPERM, ENOSYS = 1, 38
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, AND, JUMP_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06  # BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_JMP|JEQ|K, BPF_RET|K
NUMBER, ARCHITECTURE = 0, 4  # offsets into struct seccomp_data; argument i is at 16 + 8 i, low half first
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*

# name: its number on x86_64, on aarch64 (None where it has none)
ALLOWED: dict[str, tuple[int, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "close": (3, 57),
    "close_range": (436, 436),
    "lseek": (8, 62),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents": (78, None),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "ftruncate": (77, 46),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "umask": (95, 166),
    "flock": (73, 32),
    "fadvise64": (221, 223),
    "copy_file_range": (326, 285),
    "sendfile": (40, 71),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "msync": (26, 227),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132),
    "pause": (34, None),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "restart_syscall": (219, 128),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getgroups": (115, 158),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrandom": (318, 278),
    "getrlimit": (97, 163),
    "exit": (60, 93),
    "exit_group": (231, 94),
}

OPENAT, FCNTL, IOCTL, PRLIMIT64 = (257, 56), (72, 25), (16, 29), (302, 261)
CLONE3, OPENAT2 = (435, 435), (437, 437)  # ENOSYS: glibc then takes the older call, which the filter can look into

O_ACCMODE, O_TRUNC = 0o3, 0o1000
# F_DUPFD, F_GETFD to F_SETLKW, F_DUPFD_CLOEXEC, F_GETPIPE_SZ; not F_SETOWN, which makes the kernel send signals
FCNTL_COMMANDS = (*range(8), 1030, 1032)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX; not TIOCSTI, which types into a terminal
IOCTL_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)

Block = list[tuple[int, int, int, int]]  # instructions: code, jump if true, jump if false, operand


def program(machine: str = platform.machine()) -> bytes:
    """The filter as an array of struct sock_filter, for a machine named as by uname(1); SandboxError for another."""
    if machine not in MACHINES:
        raise SandboxError(f"no filter of system calls for {machine}: the sandbox needs one of {', '.join(MACHINES)}")
    column = list(MACHINES).index(machine)
    instructions = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, MACHINES[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
    ]
    for numbers in ALLOWED.values():
        if numbers[column] is not None:
            instructions += when(numbers[column], [(RETURN, 0, 0, ALLOW)])
    for numbers, block in (
        (OPENAT, opening()),
        (FCNTL, one_of(FCNTL_COMMANDS)),
        (IOCTL, one_of(IOCTL_COMMANDS)),
        (PRLIMIT64, reading_own_limits()),
        (CLONE3, [refuse(ENOSYS)]),
        (OPENAT2, [refuse(ENOSYS)]),
    ):
        instructions += when(numbers[column], block)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in [*instructions, refuse(EPERM)])


def when(value: int, block: Block) -> Block:
    """The block, run where the value loaded last is this one; at most 255 instructions."""
    return [(JUMP_EQUAL, 0, len(block), value), *block]


def refuse(errno: int) -> tuple[int, int, int, int]:
    return RETURN, 0, 0, ERRNO | errno


def argument(index: int, high: bool = False) -> tuple[int, int, int, int]:
    """Load the low or the high half of a call's argument."""
    return LOAD, 0, 0, 16 + 8 * index + 4 * high


def one_of(commands: tuple[int, ...]) -> Block:
    """Allow a call whose second argument is one of these."""
    tests = [step for command in commands for step in when(command, [(RETURN, 0, 0, ALLOW)])]
    return [argument(1), *tests, refuse(EPERM)]


def opening() -> Block:
    """Refuse openat with O_TRUNC but not for writing: it truncates, and early Landlock takes it for a read."""
    bad = [O_TRUNC, O_TRUNC | O_ACCMODE, O_ACCMODE]
    tests = [step for flags in bad for step in when(flags, [refuse(EPERM)])]
    return [argument(2), (AND, 0, 0, O_ACCMODE | O_TRUNC), *tests, (RETURN, 0, 0, ALLOW)]


def reading_own_limits() -> Block:
    """Allow prlimit64 with pid 0 and no new limit, which is what getrlimit is."""
    steps = [argument(0), argument(2), argument(2, high=True)]
    tests = [step for load in steps for step in (load, (JUMP_EQUAL, 1, 0, 0), refuse(EPERM))]
    return [*tests, (RETURN, 0, 0, ALLOW)]
