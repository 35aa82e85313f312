"""One AF_PACKET socket with a TPACKET_V3 ring (packet(7), Documentation/networking/packet_mmap.rst).

In: how large the ring is and what it is bound to. Out: a descriptor whose memory is the ring, and the kernel's counts.
Only making one needs a capability (CAP_NET_RAW): binding it, again and to another interface too, promiscuous mode, the
filter and the counts do not. A socket that is bound stays so when its interface goes down and comes up again.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from capture.libpcap import Instruction
from capture.live import LiveCaptureError
from capture.packet_filter import REJECT_ALL, attach, detach

SOL_PACKET = 263
_ADD_MEMBERSHIP = 1
_RX_RING = 5
_STATISTICS = 6
_VERSION = 10
_RESERVE = 12
_TIMESTAMP = 17
_FANOUT = 18
_IGNORE_OUTGOING = 23
_TPACKET_V3 = 2
_MEMBER_PROMISCUOUS = 1
_FANOUT_HASH = 0
_FANOUT_UNIQUE = 0x2000
_RAW_HARDWARE = 1 << 6
_EVERY_PROTOCOL = 3

RESERVE = 32
"""Octets before each frame for what is put back: a VLAN tag, or a Linux SLL2 header with one."""


@dataclass(frozen=True, slots=True)
class RingShape:
    """Size of a ring."""

    block_size: int
    """Octets; a power of two and whole pages. It bounds the size of a frame too."""
    blocks: int
    retire_ms: int
    """A block that is not full is handed over after one to two times this."""

    @property
    def size(self) -> int:
        """Octets of memory."""
        return self.block_size * self.blocks


class RingSocket:
    """A packet socket. It gets nothing until it has a ring, is bound, and lets something through."""

    def __init__(self, where: str, *, cooked: bool) -> None:
        """Raises `LiveCaptureError` where that is not permitted; `where` is for the texts of errors."""
        self._where = where
        try:
            kind = socket.SOCK_DGRAM if cooked else socket.SOCK_RAW
            self.socket = socket.socket(socket.AF_PACKET, kind, 0)
        except PermissionError as error:
            raise LiveCaptureError(
                f"{where}: capturing needs the capability CAP_NET_RAW. Run as root, or give it to this one process: "
                f"AmbientCapabilities=CAP_NET_RAW in its unit, or setpriv --reuid=USER --init-groups "
                f"--inh-caps=+net_raw --ambient-caps=+net_raw before the command. Do not setcap the interpreter: every "
                f"Python program would get it."
            ) from error

    def allocate(self, shape: RingShape) -> None:
        """Make the ring. Raises `LiveCaptureError`, without memory for it too."""
        where = self._where
        try:
            self._option(_VERSION, _TPACKET_V3)
            self._option(_RESERVE, RESERVE)
            request = (shape.block_size, shape.blocks, shape.block_size, shape.blocks, shape.retire_ms, 0, 0)
            self.socket.setsockopt(SOL_PACKET, _RX_RING, struct.pack("=7I", *request))
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise LiveCaptureError(
                    f"{where}: no memory for a ring of {shape.size >> 20} MiB. Ask for a smaller one."
                ) from error
            raise LiveCaptureError(
                f"{where}: the kernel refuses a TPACKET_V3 ring of {shape.blocks} blocks of {shape.block_size} octets "
                f"({error.strerror}). Linux 3.2 or newer is needed, and blocks of a power of two."
            ) from error
        attach(self.socket, REJECT_ALL)

    def fileno(self) -> int:
        """The descriptor: readable when a block is ready."""
        return self.socket.fileno()

    def bind(self, index: int) -> None:
        """Listen to an interface, to all where `index` is 0. May be called again, unless the socket joined others.

        Raises OSError. An interface that is down is bound to all the same, and gives packets once it is up.
        """
        # Python's own bind looks a name up, and there is none for all.
        address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(_EVERY_PROTOCOL), index, 0, 0, 0, b"")
        if ctypes.CDLL(None, use_errno=True).bind(self.fileno(), address, len(address)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def let_through(self, instructions: Sequence[Instruction]) -> None:
        """Let frames in that the filter takes; all where there are no instructions."""
        if instructions:
            attach(self.socket, instructions)
        else:
            detach(self.socket)

    def ignore_outgoing(self) -> bool:
        """Ask for incoming frames only; whether the kernel knows how (Linux 4.20)."""
        try:
            self._option(_IGNORE_OUTGOING, 1)
        except OSError:
            return False
        return True

    def join(self, group: int | None) -> int:
        """Share an interface's frames with the other sockets of a group, each flow in both directions in one socket.

        None makes a group; gives its identifier. Fragments are not put together on the way: all go to one socket.
        """
        flags = _FANOUT_HASH | (_FANOUT_UNIQUE if group is None else 0)
        self._option(_FANOUT, (group or 0) | flags << 16)
        return self.socket.getsockopt(SOL_PACKET, _FANOUT) & 0xFFFF

    def join_promiscuous(self, index: int) -> None:
        """Have the interface take frames for others, as long as this socket is open and the interface exists."""
        self.socket.setsockopt(SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("=iHH8s", index, _MEMBER_PROMISCUOUS, 0, b""))

    def use_hardware_time(self, wanted: bool) -> None:
        """Stamp frames with the network card's time where it gave one, or with the kernel's."""
        self._option(_TIMESTAMP, _RAW_HARDWARE if wanted else 0)

    def statistics(self) -> tuple[int, int]:
        """(frames dropped, times the ring froze) since the last question."""
        _, dropped, frozen = struct.unpack("=3I", self.socket.getsockopt(SOL_PACKET, _STATISTICS, 12))
        return dropped, frozen

    def clear_error(self) -> int:
        """The error that woke a poll, such as ENETDOWN; 0 where there is none. Asking clears it."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def close(self) -> None:
        """Let go of the descriptor."""
        self.socket.close()

    def _option(self, option: int, value: int) -> None:
        self.socket.setsockopt(SOL_PACKET, option, value)
