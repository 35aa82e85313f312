"""The sandbox of the live service: what it has no need of, the kernel refuses it, for good and in every thread.

In: this process. Out: the same process under the filter of `recorder.seccomp_filter`: no other program, no packet
socket that is not open already, nothing of the machine's. Memory that is executable stays allowed, for kernels are
compiled and loaded while recording. Enter it last, after `recorder.privileges.drop`; it cannot be left.
"""

import ctypes
import os
import sys
from dataclasses import dataclass

from capture.errors import SpanrecError
from recorder import capabilities
from recorder.seccomp_filter import ARCHITECTURES, REFUSED, assemble

_NUMBERS = {"x86_64": 317, "aarch64": 277, "riscv64": 277}
"""Of the system call seccomp, which the C library has no function for."""
_SET_MODE_FILTER = 1
_EVERY_THREAD = 1
"""SECCOMP_FILTER_FLAG_TSYNC"""
_WAY_OUT = "start with --no-sandbox to do without; the unit file has a sandbox of its own"


class SandboxError(SpanrecError):
    """The kernel will not sandbox this process."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What holds from now on, for the log."""

    refused: tuple[str, ...]
    """System calls that fail with EPERM."""
    threads: int
    """That it holds for."""


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def enter() -> Sandbox:
    """Sandbox every thread of this process, and all that they start. Raises `SandboxError` where that cannot be."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES or sys.maxsize < 2**32:
        raise SandboxError(f"there is no sandbox for a {machine} machine: {_WAY_OUT}")
    code = assemble(machine)
    program = _Program(len(code) // 8, code)
    capabilities.forgo_new_privileges()
    call = ctypes.CDLL(None, use_errno=True).syscall
    number, mode, flags = (ctypes.c_long(value) for value in (_NUMBERS[machine], _SET_MODE_FILTER, _EVERY_THREAD))
    result = call(number, mode, flags, ctypes.byref(program))
    if result < 0:
        raise SandboxError(f"the kernel takes no seccomp filter ({os.strerror(ctypes.get_errno())}): {_WAY_OUT}")
    if result > 0:
        raise SandboxError(f"thread {result} has a seccomp filter of its own, the sandbox cannot reach it: {_WAY_OUT}")
    states = capabilities.threads()
    if outside := [thread for thread in states if not (thread.filtered and thread.no_new_privileges)]:
        raise SandboxError(f"thread {outside[0].tid} ({outside[0].name}) is outside the sandbox: {_WAY_OUT}")
    column = ARCHITECTURES[machine].column
    return Sandbox(tuple(name for name, numbers in REFUSED.items() if numbers[column] is not None), len(states))
