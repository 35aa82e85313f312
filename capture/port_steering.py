"""UDP ports of which one socket takes all datagrams: a program in the kernel's socket lookup (BPF_PROG_TYPE_SK_LOOKUP).

In: two collecting sockets, and addresses and ports as they are opened and closed. Out: datagrams to open ports are in
the collector of their IP version, from which one system call takes hundreds; without it, each port's own socket is to
be asked. Ports themselves stay bound by sockets of their own, so that nobody else has them and answers leave from them;
firewalls are passed first as ever, and other ports are not touched.

What is open stands in memory that is shared with the program, so that opening and closing needs no system call and no
rights. Making it needs Linux 5.9 and CAP_BPF with CAP_NET_ADMIN; where these are missing, OSError is raised.
"""

import ctypes
import errno
import mmap
import os
import platform
import socket
import struct
import sys

import numpy as np

from capture.batch import UInt32
from capture.datagram_slots import ask_for_times
from capture.listening import Address, kernel_drops, open_socket, parse_address
from capture.live import LiveCaptureError

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _LINK_CREATE = 0, 2, 5, 28
_ARRAY, _SOCKMAP = 2, 15
_MMAPABLE = 1 << 10
_SK_LOOKUP_PROGRAM, _SK_LOOKUP_ATTACH = 30, 36

_PORTS = 1 << 16
_WORDS = 6
"""Of a port's entry: four of its address, its family (0: closed), one that fills up."""
_FAMILY = 16
"""Octets before the family."""

# Fields of struct bpf_sk_lookup.
_CTX_FAMILY, _CTX_PROTOCOL, _CTX_IP4, _CTX_IP6, _CTX_PORT = 8, 12, 40, 44, 60

_SENT_TO = {socket.AF_INET: (socket.IPPROTO_IP, 20), socket.AF_INET6: (socket.IPPROTO_IPV6, 74)}
"""Level and number of the option that has the kernel tell where a datagram was sent to (IP_RECVORIGDSTADDR)."""

_Instruction = tuple[int, int, int, int, int]
"""Operation, destination, source, offset, immediate."""

_LOAD, _STORE, _STORE_VALUE, _MOVE, _SET, _ADD = 0x61, 0x63, 0x62, 0xBF, 0xB7, 0x07
_UNEQUAL_REGISTER, _UNEQUAL, _EQUAL, _JUMP, _CALL, _EXIT, _MAP = 0x5D, 0x55, 0x15, 0x05, 0x85, 0x95, 0x18
_LOOK_UP, _ASSIGN, _RELEASE = 1, 124, 86
"""Functions of the kernel."""


class Collectors:
    """One socket for each IP version, in which is what was sent to all ports that were added."""

    def __init__(self, buffer: int) -> None:
        """`buffer`: octets that may wait in each. Raises OSError where the system does not allow it."""
        self._opened: dict[socket.AddressFamily, socket.socket] = {}
        self._dropped = 0
        try:
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                try:
                    opened = open_socket(parse_address(host), socket.SOCK_DGRAM, 0, 0, buffer)
                except LiveCaptureError:
                    continue  # no IP of this version
                self._opened[family] = opened
                ask_for_times(opened)
                opened.setsockopt(*_SENT_TO[family], 1)
            self._steering = PortSteering(self._opened)
        except BaseException:
            self._close_sockets()
            raise

    @property
    def descriptors(self) -> list[int]:
        """Of the sockets."""
        return [each.fileno() for each in self._opened.values()]

    @property
    def dropped(self) -> int:
        """Datagrams that the kernel dropped because a collector was full."""
        return self._dropped + sum(kernel_drops(each) for each in self._opened.values())

    def add(self, address: Address, port: int) -> None:
        """Datagrams to this port are collected from now on."""
        self._steering.add(address, port)

    def remove(self, port: int) -> None:
        """They go where they went before."""
        self._steering.remove(port)

    def close(self) -> None:
        """Leave all ports to their own sockets."""
        self._steering.close()
        self._dropped = self.dropped
        self._close_sockets()

    def _close_sockets(self) -> None:
        while self._opened:
            self._opened.popitem()[1].close()


class PortSteering:
    """The program, attached to this network namespace for as long as this lives."""

    def __init__(self, collectors: dict[socket.AddressFamily, socket.socket]) -> None:
        """`collectors`: a bound UDP socket each for AF_INET and, where there is IPv6, AF_INET6. Raises OSError."""
        if sys.platform != "linux" or platform.machine() not in _SYSCALL:
            raise OSError(errno.ENOSYS, "no socket lookup programs here")
        self._descriptors: list[int] = []
        try:
            ports = self._bpf(_MAP_CREATE, struct.pack("=5I", _ARRAY, 4, 4 * _WORDS, _PORTS, _MMAPABLE))
            sockets = self._bpf(_MAP_CREATE, struct.pack("=4I", _SOCKMAP, 4, 8, 2))
            for place, family in enumerate((socket.AF_INET, socket.AF_INET6)):
                if family in collectors:
                    self._put(sockets, place, collectors[family].fileno())
            program = self._load(_program(ports, sockets))
            self._memory = mmap.mmap(ports, 4 * _WORDS * _PORTS)
            self._open: UInt32 = np.frombuffer(self._memory, np.uint32).reshape(_PORTS, _WORDS)
            namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
            try:
                self._bpf(_LINK_CREATE, struct.pack("=4I", program, namespace, _SK_LOOKUP_ATTACH, 0))
            finally:
                os.close(namespace)
        except BaseException:
            self.close()
            raise

    def add(self, address: Address, port: int) -> None:
        """Datagrams to this port go to the collector from now on."""
        words = np.zeros(4, np.uint32)
        packed = np.frombuffer(address.packed, np.uint32)
        words[: len(packed)] = packed
        self._open[port, :4] = words
        # Last, so that no datagram is compared with half an address.
        self._open[port, 4] = int(socket.AF_INET if address.version == 4 else socket.AF_INET6)

    def remove(self, port: int) -> None:
        """They go where they went before."""
        self._open[port, 4] = 0

    def close(self) -> None:
        """Detach the program. A second call does nothing."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _put(self, map_of: int, place: int, value: int) -> None:
        key, entry = ctypes.c_uint32(place), ctypes.c_uint64(value)
        attributes = struct.pack("=IIQQQ", map_of, 0, ctypes.addressof(key), ctypes.addressof(entry), 0)
        _bpf(_MAP_UPDATE, attributes)

    def _load(self, program: bytes) -> int:
        octets, licence = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"MIT")
        log = ctypes.create_string_buffer(1 << 16)
        attributes = struct.pack(
            "=IIQQIIQII16sII",
            _SK_LOOKUP_PROGRAM, len(program) // 8, ctypes.addressof(octets), ctypes.addressof(licence),
            1, len(log), ctypes.addressof(log), 0, 0, b"spanrec_ports", 0, _SK_LOOKUP_ATTACH,
        )  # fmt: skip
        return self._bpf(_PROG_LOAD, attributes)

    def _bpf(self, command: int, attributes: bytes) -> int:
        """A call that gives a descriptor."""
        descriptor = _bpf(command, attributes)
        self._descriptors.append(descriptor)
        os.set_inheritable(descriptor, False)
        return descriptor


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2). Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = library.syscall(_SYSCALL[platform.machine()], command, buffer, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def _program(ports: int, sockets: int) -> bytes:
    """Steers a UDP datagram to an open port to the collector of its family, and lets everything else be.

    R6 holds the context, R7 the port's entry, R8 the collector.
    """
    same_6: list[_Instruction | str] = []
    for word in range(4):
        same_6 += [(_LOAD, 2, 7, 4 * word, 0), (_LOAD, 3, 6, _CTX_IP6 + 4 * word, 0), "2!=3"]
    return _assemble(
        [
            (_MOVE, 6, 1, 0, 0),
            (_LOAD, 2, 6, _CTX_PROTOCOL, 0),
            f"2!={int(socket.IPPROTO_UDP)}i",
            (_LOAD, 2, 6, _CTX_PORT, 0),
            (_STORE, 10, 2, -4, 0),
            (_MAP, 1, 1, 0, ports), (0, 0, 0, 0, 0),
            (_MOVE, 2, 10, 0, 0), (_ADD, 2, 0, 0, -4),
            (_CALL, 0, 0, 0, _LOOK_UP),
            "0==0i",
            (_MOVE, 7, 0, 0, 0),
            (_LOAD, 2, 7, _FAMILY, 0), (_LOAD, 3, 6, _CTX_FAMILY, 0), "2!=3",
            (_STORE_VALUE, 10, 0, -4, 0),
            (_UNEQUAL, 2, 0, 4, int(socket.AF_INET)),
            (_LOAD, 2, 7, 0, 0), (_LOAD, 3, 6, _CTX_IP4, 0), "2!=3",
            (_JUMP, 0, 0, len(same_6) + 1, 0),
            *same_6,
            (_STORE_VALUE, 10, 0, -4, 1),
            (_MAP, 1, 1, 0, sockets), (0, 0, 0, 0, 0),
            (_MOVE, 2, 10, 0, 0), (_ADD, 2, 0, 0, -4),
            (_CALL, 0, 0, 0, _LOOK_UP),
            "0==0i",
            (_MOVE, 8, 0, 0, 0),
            (_MOVE, 1, 6, 0, 0), (_MOVE, 2, 8, 0, 0), (_SET, 3, 0, 0, 0),
            (_CALL, 0, 0, 0, _ASSIGN),
            (_MOVE, 1, 8, 0, 0),
            (_CALL, 0, 0, 0, _RELEASE),
        ]
    )  # fmt: skip


def _assemble(lines: list[_Instruction | str]) -> bytes:
    """Octets of the instructions, a text among them being a jump to the end: `2!=3` of registers, `0==0i` of a register
    and a number. At the end the lookup goes on, with what was assigned."""
    octets = b""
    for at, line in enumerate(lines):
        if isinstance(line, str):
            equal = "==" in line
            left, right = line.split("==" if equal else "!=")
            ahead = len(lines) - at - 1
            if right.endswith("i"):
                line = (_EQUAL if equal else _UNEQUAL, int(left), 0, ahead, int(right[:-1]))
            else:
                line = (_UNEQUAL_REGISTER, int(left), int(right), ahead, 0)
        operation, destination, source, offset, value = line
        octets += struct.pack("=BBhi", operation, destination | source << 4, offset, value)
    pass_on = struct.pack("=BBhi", _SET, 0, 0, 1) + struct.pack("=BBhi", _EXIT, 0, 0, 0)
    return octets + pass_on
