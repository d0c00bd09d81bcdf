"""System calls that no generated program may make, as the filter that the kernel runs (seccomp BPF). Pure.

A sandbox without network, files and other processes still has a kernel below it: what this denies would give a program
a second process or thread, memory that its limit does not count, a socket, or parts of the kernel that no answer needs.
"""

import errno
import struct

LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
"""Codes of <linux/bpf_common.h>: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K, BPF_RET|BPF_K."""

NUMBER, ARCHITECTURE, SECOND_ARGUMENT = 0, 4, 24
"""Places in `struct seccomp_data`; of the argument its lower half."""

ALLOW, KILL, DENY = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
"""SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS and SECCOMP_RET_ERRNO of <linux/seccomp.h>."""

X32 = 0x40000000
"""On x86-64, numbers from here on are the same calls under another name."""

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_… of <linux/audit.h>. A program of another architecture is killed."""

FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # another process or thread
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "clone3": (435, 435),
    # a socket: network namespaces do not hold all families (AF_VSOCK, AF_ALG)
    "socket": (41, 198),
    # memory beside the limit on address space
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    # what all processes of the worker's user, or of the host, have together
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "io_setup": (206, 0),
    "flock": (73, 32),
    # bubblewrap's own process in the sandbox
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    # to step back behind everything else on a busy host, and so stay long
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    # another namespace, in which it would be root
    "unshare": (272, 97),
    "setns": (308, 268),
    # parts of the kernel that have had more holes than others
    "ptrace": (101, 117),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "modify_ldt": (154, None),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
"""Numbers on x86-64 and on AArch64 (the kernel's `syscall_64.tbl` and `unistd.h`); None where there is no such call."""

FCNTL, F_SETPIPE_SZ = (72, 25), 1031
"""`fcntl`, of which this alone is denied: pages of pipes are counted for all processes of the worker's user."""


def filter_for(machine: str) -> bytes | None:
    """The filter, an array of `struct sock_filter`, for a `platform.machine()`; None where the numbers are unknown."""
    if machine not in AUDIT:
        return None
    column = list(AUDIT).index(machine)
    numbers = [number for row in FORBIDDEN.values() if (number := row[column]) is not None]
    rows = [(LOAD_WORD, 0, 0, ARCHITECTURE), (JUMP_EQUAL, 1, 0, AUDIT[machine]), (RETURN, 0, 0, KILL)]
    rows.append((LOAD_WORD, 0, 0, NUMBER))
    tests = [(JUMP_AT_LEAST, X32)] + [(JUMP_EQUAL, number) for number in numbers]
    # Each test jumps over those behind it, the three for `fcntl` and ALLOW, to DENY.
    rows += [(code, len(tests) - place + 3, 0, value) for place, (code, value) in enumerate(tests)]
    rows += [(JUMP_EQUAL, 0, 2, FCNTL[column]), (LOAD_WORD, 0, 0, SECOND_ARGUMENT), (JUMP_EQUAL, 1, 0, F_SETPIPE_SZ)]
    rows += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY)]
    return b"".join(struct.pack("=HBBI", *row) for row in rows)
