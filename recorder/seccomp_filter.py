"""The system calls that a recorder never needs, as a filter program for seccomp(2).

In: a machine's name as uname(2) gives it. Out: the octets of a classic BPF program (an array of struct sock_filter)
that refuses them with EPERM and lets all else pass. A list of what is refused, not of what is allowed: libraries and
the compiler of the kernels may use any ordinary call, and a filter that stops a recorder in the night protects nobody.
"""

import errno
import struct
from dataclasses import dataclass
from typing import NamedTuple

REFUSED: dict[str, tuple[int | None, int | None]] = {
    # Another program, another process's memory
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # Another view of the file system, other namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "setns": (308, 268),
    "unshare": (272, 97),
    # The kernel and the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "acct": (163, 89),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    # Where holes in the kernel are mostly found
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
"""Name to number, on x86_64 and in the kernel's generic table; None where there is no such call."""

SOCKET_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""Sockets of any other family are refused; those that are open stay open."""

NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET among clone(2)'s flags."""

_X32 = 0x40000000
"""Numbers from here on are of x86_64's second, 32-bit interface."""

# offsets in struct seccomp_data; arguments are 64 bits wide, low half first
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the filter has to know of a machine."""

    audit: int
    """AUDIT_ARCH_ value of its system calls."""
    column: int
    """Of the numbers in `REFUSED`."""
    clone: int
    socket: int
    clone3: int = 435


ARCHITECTURES = {
    "x86_64": Architecture(audit=0xC000003E, column=0, clone=56, socket=41),
    "aarch64": Architecture(audit=0xC00000B7, column=1, clone=220, socket=198),
    "riscv64": Architecture(audit=0xC00000F3, column=1, clone=220, socket=198),
}


class _Step(NamedTuple):
    """One instruction. A test goes on with the step named `then` where it holds, otherwise with the next."""

    code: int
    value: int
    then: str | None = None
    label: str | None = None


def assemble(machine: str) -> bytes:
    """The program for `machine`; `KeyError` where there is none."""
    steps = _steps(ARCHITECTURES[machine])
    places = {step.label: place for place, step in enumerate(steps) if step.label}
    program = bytearray()
    for place, step in enumerate(steps):
        distance = places[step.then] - place - 1 if step.then else 0
        program += struct.pack("=HBBI", step.code, distance, 0, step.value)
    return bytes(program)


def _steps(architecture: Architecture) -> list[_Step]:
    # A program for another architecture would have other numbers, so none may use one.
    steps = [
        _Step(_LOAD, _ARCHITECTURE),
        _Step(_EQUAL, architecture.audit, then="native"),
        _Step(_RETURN, _FAIL | errno.EPERM),
        _Step(_LOAD, _NUMBER, label="native"),
        _Step(_AT_LEAST, _X32, then="refuse"),
        _Step(_EQUAL, architecture.clone, then="clone"),
        _Step(_EQUAL, architecture.clone3, then="clone3"),
        _Step(_EQUAL, architecture.socket, then="socket"),
    ]
    for numbers in REFUSED.values():
        number = numbers[architecture.column]
        if number is not None:
            steps.append(_Step(_EQUAL, number, then="refuse"))
    steps += [
        _Step(_RETURN, _ALLOW),
        # clone3 has its flags in memory, where a filter cannot look. Without it, the C library uses clone.
        _Step(_RETURN, _FAIL | errno.ENOSYS, label="clone3"),
        _Step(_LOAD, _FIRST_ARGUMENT, label="clone"),
        _Step(_ANY_BIT, NEW_NAMESPACES, then="refuse"),
        _Step(_RETURN, _ALLOW),
        _Step(_LOAD, _FIRST_ARGUMENT, label="socket"),
        *(_Step(_EQUAL, family, then="allow") for family in SOCKET_FAMILIES.values()),
        _Step(_RETURN, _FAIL | errno.EAFNOSUPPORT),
        _Step(_RETURN, _ALLOW, label="allow"),
        _Step(_RETURN, _FAIL | errno.EPERM, label="refuse"),
    ]
    return steps
