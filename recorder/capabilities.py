"""Linux capabilities (capabilities(7)) of this process's threads, and the two prctl(2) calls that go with them.

In: /proc/self/task, and the calling thread. Out: what each thread holds, as masks and names; the calling thread with
less. Gives nothing, only takes away. Capabilities belong to threads, not to the process: what is said here of the
calling thread holds for threads that it starts later, and for no other.
"""

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NAMES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner"),
    *("sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice"),
    *("sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap"),
    *("mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf"),
    "checkpoint_restore",
)
"""By number, as in linux/capability.h, without CAP_ and in small letters."""

_TASKS = Path("/proc/self/task")
_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


@dataclass(frozen=True, slots=True)
class ThreadState:
    """What /proc says of one thread. Sets of capabilities are masks: bit n is capability n."""

    tid: int
    name: str
    users: tuple[int, ...]
    """Real, effective, saved and file system user."""
    groups: tuple[int, ...]
    """The same of the group."""
    supplementary: frozenset[int]
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    no_new_privileges: bool
    filtered: bool
    """System calls pass a seccomp filter."""

    @property
    def held(self) -> int:
        """Every capability that the thread has, or could use or pass on."""
        return self.inheritable | self.permitted | self.effective | self.ambient


def threads() -> list[ThreadState]:
    """Every thread of this process; one that ends meanwhile is left out."""
    states = []
    for directory in sorted(_TASKS.iterdir(), key=lambda path: int(path.name)):
        try:
            text = (directory / "status").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        states.append(_state(int(directory.name), text))
    return states


def this_thread() -> ThreadState:
    """The calling thread."""
    status = Path("/proc/thread-self/status")
    text = status.read_text(errors="replace")
    return _state(int(_fields(text)["Pid"]), text)


def names_of(mask: int) -> tuple[str, ...]:
    """The capabilities in a mask; one that is newer than `NAMES` goes by its number."""
    numbers = (number for number in range(mask.bit_length()) if mask >> number & 1)
    return tuple(NAMES[number] if number < len(NAMES) else str(number) for number in numbers)


def mask_of(names: Iterable[str]) -> int:
    """The mask of capabilities that are given by name."""
    return sum(1 << NAMES.index(name) for name in set(names))


def keep_only(mask: int) -> None:
    """Leave the calling thread the capabilities of `mask`, which it must have, and nothing to pass on to programs."""
    # A kernel without ambient capabilities (before 4.3) has none to clear.
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, failure_matters=False)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    # Twice (effective, permitted, inheritable), low halves first.
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _check(_libc().capset(header, sets))


def empty_bounding_set() -> bool:
    """Take everything from the calling thread's bounding set; False where it may not (it needs CAP_SETPCAP)."""
    may = bool(this_thread().effective & mask_of(["setpcap"]))
    number = 0
    while (held := _libc().prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
        if held and not may:
            return False
        if held:
            _prctl(_PR_CAPBSET_DROP, number)
        number += 1
    return True


def keep_across_identity(keep: bool) -> None:
    """Whether the calling thread's permitted set outlives its change from root to another user."""
    _prctl(_PR_SET_KEEPCAPS, int(keep))


def forgo_new_privileges() -> None:
    """No program that the calling thread executes gets more than the thread has (PR_SET_NO_NEW_PRIVS)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _fields(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _state(tid: int, text: str) -> ThreadState:
    fields = _fields(text)
    return ThreadState(
        tid=tid,
        name=fields["Name"],
        users=tuple(map(int, fields["Uid"].split())),
        groups=tuple(map(int, fields["Gid"].split())),
        supplementary=frozenset(map(int, fields["Groups"].split())),
        inheritable=int(fields["CapInh"], 16),
        permitted=int(fields["CapPrm"], 16),
        effective=int(fields["CapEff"], 16),
        bounding=int(fields["CapBnd"], 16),
        ambient=int(fields.get("CapAmb", "0"), 16),
        no_new_privileges=fields.get("NoNewPrivs") == "1",
        filtered=fields.get("Seccomp") == "2",
    )


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int, *, failure_matters: bool = True) -> None:
    unused = ctypes.c_ulong(0)
    result = _libc().prctl(option, ctypes.c_ulong(argument), unused, unused, unused)
    if failure_matters:
        _check(result)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
