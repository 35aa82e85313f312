"""The compiler of libpcap, called through ctypes: tcpdump expressions become programs of the kernel's packet filter.

In: an expression and a link type. Out: the program's instructions. It opens no interface and needs no privileges. Names
of hosts in an expression are looked up as tcpdump does.
"""

import ctypes
import re
from functools import cache
from typing import NamedTuple

from capture.interface import LINK_ETHERNET, LINK_RAW, LINK_SLL2
from capture.live import LiveCaptureError

_NAMES = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so", "libpcap.dylib", "libpcap.A.dylib")
_WHOLE = 262_144
"""Octets of a frame that a program lets through, tcpdump's own figure: all."""
_NETMASK_UNKNOWN = 0xFFFFFFFF
_DLT = {LINK_ETHERNET: 1, LINK_RAW: 12, LINK_SLL2: 276}
"""libpcap's own numbers are those of link types but for raw IP."""


class Instruction(NamedTuple):
    """One instruction of the classic BPF machine, as `struct sock_filter` has it."""

    code: int
    jump_true: int
    jump_false: int
    k: int


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


@cache
def library() -> ctypes.CDLL | None:
    """libpcap, None where it is not installed."""
    for name in _NAMES:
        try:
            found = ctypes.CDLL(name)
        except OSError:
            continue
        found.pcap_open_dead.restype = ctypes.c_void_p
        found.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
        found.pcap_compile.argtypes = [
            ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32,
        ]  # fmt: skip
        found.pcap_geterr.restype = ctypes.c_char_p
        found.pcap_geterr.argtypes = [ctypes.c_void_p]
        found.pcap_freecode.argtypes = [ctypes.POINTER(_Program)]
        found.pcap_close.argtypes = [ctypes.c_void_p]
        return found
    return None


def compile_expression(expression: str, link_type: int) -> tuple[Instruction, ...]:
    """Program of a tcpdump expression. Raises `LiveCaptureError` with libpcap's own words where it refuses."""
    pcap = library()
    if pcap is None:
        raise LiveCaptureError(
            "A kernel filter needs libpcap, which is not installed (Debian: apt install libpcap0.8). "
            "Install it, or capture without a filter."
        )
    if "\0" in expression:
        raise LiveCaptureError("The kernel filter holds a NUL character.")
    handle = pcap.pcap_open_dead(_DLT[link_type], _WHOLE)
    if not handle:
        raise LiveCaptureError("libpcap has no memory for a filter.")
    program = _Program()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, _NETMASK_UNKNOWN) != 0:
            said = pcap.pcap_geterr(handle).decode(errors="replace")
            raise LiveCaptureError(f"The kernel filter is not understood: {_printable(said)}.")
        found = program.instructions[: program.length]
        instructions = tuple(Instruction(each.code, each.jt, each.jf, each.k) for each in found)
        pcap.pcap_freecode(ctypes.byref(program))
    finally:
        pcap.pcap_close(handle)
    return instructions


def _printable(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", text).rstrip(". ")
