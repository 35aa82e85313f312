"""What comes to many sockets as rows with headers: the memory that kernels fill for `media_ports`.

In: sockets as they are opened and closed, each with a place of its own, and when to look at them. Out: the columns of
packets in time order over one buffer. Callers see to it that no socket is closed while `receive` runs.
"""

import platform
import select
import socket
import time
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from capture._media_port_kernels import (
    CONTROL_ROOM,
    CUT,
    MORE,
    MOST_HEAD,
    RESULT,
    ROWS,
    SLOTS,
    STRANGE,
    read_drops,
    receive_collected,
    receive_ready,
)
from capture.batch import Int32, Int64, PacketBatch
from capture.datagram_slots import DatagramSlots
from capture.listening import Address

MOST_DESCRIPTORS = 1 << 20
"""Numbers of files that are told apart."""
LINKTYPE_RAW = 101


class PortRows:
    """Rows of one source."""

    def __init__(self, sockets: int, rows: int, room: int, lowest: int) -> None:
        """For so many sockets, `rows` packets of at most `room` octets at once; `lowest` is the port of place 0.

        Raises LiveCaptureError on systems other than 64-bit Linux.
        """
        self._lowest = lowest
        slots = self._slots = DatagramSlots(rows, MOST_HEAD, room)
        slots.make_ready()
        self._controls = np.zeros((rows, CONTROL_ROOM // 8), np.int64)
        slots.messages["control"] = self._controls.ctypes.data + np.arange(rows, dtype=np.uintp) * CONTROL_ROOM
        slots.messages["control_size"] = CONTROL_ROOM
        self._messages = slots.messages.view(np.int64).reshape(rows, -1)
        self._flat = slots.rows.reshape(-1)
        self._flat.flags.writeable = False
        # struct epoll_event is packed on x86-64 only.
        packed = platform.machine() == "x86_64"
        self._events = np.zeros((sockets + 2, 3 if packed else 4), np.uint32)
        self._descriptor_at = 1 if packed else 2
        self._socket_of = np.full(MOST_DESCRIPTORS, -1, np.int32)
        self.descriptors: Int32 = np.full(sockets, -1, np.int32)
        self._heads = np.zeros(sockets, np.int32)
        self._templates = np.zeros((sockets, MOST_HEAD), np.uint8)
        self._drops: Int64 = np.zeros(sockets, np.int64)
        self._facts = np.zeros(9, np.uint32)
        self._size = np.zeros(1, np.uint32)
        self._offset = np.zeros(rows, np.int64)
        self._captured, self._wire, self._place = (np.zeros(rows, np.int32) for _ in range(3))
        self._result = np.zeros(RESULT, np.int64)
        self.read_drops()

    def __len__(self) -> int:
        """Rows of the last look."""
        return int(self._result[ROWS])

    @property
    def more(self) -> bool:
        """Whether the last look left something waiting."""
        return bool(self._result[MORE])

    @property
    def cut(self) -> int:
        """Datagrams of the last look that were longer than their room."""
        return int(self._result[CUT])

    @property
    def strange(self) -> int:
        """Those to which the kernel gave no time."""
        return int(self._result[STRANGE])

    def place(self, place: int, descriptor: int, address: Address) -> None:
        """A socket is open, and stands for its port at `address`."""
        head = bytearray(_head(address))
        head[-6:-4] = (self._lowest + place).to_bytes(2, "big")
        self._templates[place, : len(head)] = head
        self._heads[place] = len(head)
        self._drops[place] = 0
        self.descriptors[place] = descriptor
        self._socket_of[descriptor] = place

    def displace(self, place: int) -> int:
        """It is about to be closed; drops that were read of it."""
        dropped = int(self._drops[place])
        if self.descriptors[place] >= 0:
            self._socket_of[self.descriptors[place]] = -1
            self.descriptors[place] = -1
            self._drops[place] = 0
        return dropped

    def read_drops(self) -> int:
        """Datagrams that the kernel dropped for the sockets that are open."""
        read_drops(self.descriptors, self._facts, self._size, self._drops)
        return int(self._drops.sum())

    def receive(self, epoll: select.epoll, collectors: Sequence[int], likely: int) -> None:
        """Take what waits: at collectors (descriptors), and at each socket, where `likely` datagrams should be."""
        slots, result, now = self._slots, self._result, time.time_ns()
        result[[ROWS, SLOTS, MORE, CUT, STRANGE]] = 0
        buffers = (slots.headroom, slots.room, slots.rows, slots.names, self._messages, self._controls)
        columns = (slots.times, self._offset, self._captured, self._wire, self._place, result)
        for collector in collectors:
            receive_collected(
                collector, self._lowest, self.descriptors, now, *buffers, self._heads, self._templates, *columns
            )  # fmt: skip
        # What came to a port itself: all of it without collectors, else what came while it was opened.
        receive_ready(
            epoll.fileno(), self._events, self._descriptor_at, self._socket_of, likely, now, *buffers,
            self._heads, self._templates, *columns,
        )  # fmt: skip

    def batch(self, first_number: int, capture: int) -> tuple[PacketBatch, Int32]:
        """The rows of the last look in time order, and the place of each one's socket."""
        count = len(self)
        order = np.argsort(self._slots.times[:count], kind="stable")
        batch = PacketBatch(
            buffer=self._flat,
            time=self._slots.times[order],
            offset=self._offset[order],
            captured=self._captured[order],
            wire=self._wire[order],
            link_type=np.full(count, LINKTYPE_RAW, np.int32),
            number=np.arange(first_number, first_number + count, dtype=np.int64),
            capture=np.full(count, capture, np.int32),
        )
        return batch, self._place[order]


@lru_cache(maxsize=64)
def _head(destination: Address) -> bytes:
    """IP and UDP headers to an address, with port, lengths, the IPv4 checksum and the sender left to fill in."""
    protocol = socket.IPPROTO_UDP
    if destination.version == 4:
        head = bytes([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]) + bytes(4) + destination.packed
    else:
        head = bytes([0x60, 0, 0, 0, 0, 0, protocol, 64]) + bytes(16) + destination.packed
    return head + bytes(8)
