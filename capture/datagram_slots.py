"""Many datagrams with one system call, into one buffer: Linux's recvmmsg with the kernel's time of each.

In: bound datagram or raw sockets. Out: rows of one buffer, with columns for length, time and sender. Each row has room
before the datagram for headers. Nothing is allocated and no Python runs per datagram. Only making it can raise.
"""

import ctypes
import errno
import os
import socket
import time

import numpy as np
from numpy.typing import NDArray

from capture.batch import Bytes, Int64
from capture.live import LiveCaptureError

SO_TIMESTAMPNS = 35
"""As 64-bit Linux numbers it, where the time is two words of 64 bits; the control message has the same number."""

_MESSAGE = np.dtype(
    [
        ("name", np.uintp),
        ("name_size", np.uint32),
        ("vector", np.uintp),
        ("vector_count", np.uintp),
        ("control", np.uintp),
        ("control_size", np.uintp),
        ("flags", np.int32),
        ("filler", np.int32),
        ("length", np.uint32),
    ],
    align=True,
)
"""struct mmsghdr; the filler ends the struct msghdr in it."""
_VECTOR = np.dtype([("base", np.uintp), ("size", np.uintp)])
"""struct iovec."""
_NAME = 32
"""Octets kept for a struct sockaddr_in or sockaddr_in6."""
_CONTROL = np.dtype(
    [("size", np.uintp), ("level", np.int32), ("type", np.int32), ("seconds", np.int64), ("nanoseconds", np.int64)],
    align=True,
)
"""struct cmsghdr and the struct timespec that it carries."""


def ask_for_times(opened: socket.socket) -> None:
    """Have the kernel note when each datagram of a socket came. Raises OSError."""
    opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


class DatagramSlots:
    """`count` rows of `room` octets each, and `headroom` before them."""

    def __init__(self, count: int, headroom: int, room: int) -> None:
        """Make the buffer. Raises LiveCaptureError on systems other than 64-bit Linux."""
        self._receive = _find_recvmmsg()
        self.count = count
        self.headroom = headroom
        self.room = room
        self.stride = -(-(headroom + room) // 64) * 64
        self.rows: Bytes = np.zeros((count, self.stride), np.uint8)
        """Shape (count, stride); datagrams begin at column `headroom`."""
        self.names: NDArray[np.uint8] = np.zeros((count, _NAME), np.uint8)
        """The senders, as the system's socket addresses."""
        self.lengths: Int64 = np.zeros(count, np.int64)
        """Octets that the datagrams had; what is beyond `room` is not here."""
        self.times: Int64 = np.zeros(count, np.int64)
        """ns since the epoch."""
        self.messages = np.zeros(count, _MESSAGE)
        """What recvmmsg is given, for those who call it themselves (after `make_ready`)."""
        self._vectors = np.zeros(count, _VECTOR)
        self.controls = np.zeros(count, _CONTROL)
        places = np.arange(count, dtype=np.uintp)
        self._vectors["base"] = self.rows.ctypes.data + headroom + places * self.stride
        self._vectors["size"] = room
        self.messages["name"] = self.names.ctypes.data + places * _NAME
        self.messages["vector"] = self._vectors.ctypes.data + places * _VECTOR.itemsize
        self.messages["vector_count"] = 1
        self.messages["control"] = self.controls.ctypes.data + places * _CONTROL.itemsize

    def make_ready(self, begin: int = 0) -> None:
        """Tell the kernel again how much room there is for senders and times, from row `begin` on."""
        self.messages["name_size"][begin:] = _NAME
        self.messages["control_size"][begin:] = _CONTROL.itemsize

    def receive(self, opened: socket.socket, begin: int) -> int:
        """Fill rows from `begin` on with what waits at a socket; how many that were. Never waits."""
        rest = self.messages[begin:]
        self.make_ready(begin)
        flags = socket.MSG_DONTWAIT | socket.MSG_TRUNC
        while True:
            got = self._receive(opened.fileno(), rest.ctypes.data, len(rest), flags, None)
            if got >= 0 or ctypes.get_errno() != errno.EINTR:
                break
        if got <= 0:
            return 0
        end = begin + int(got)
        self.lengths[begin:end] = rest["length"][:got]
        stamps = self.controls[begin:end]
        sound = (stamps["level"] == socket.SOL_SOCKET) & (stamps["type"] == SO_TIMESTAMPNS)
        sound &= rest["control_size"][:got] == _CONTROL.itemsize
        stamped = stamps["seconds"] * 1_000_000_000 + stamps["nanoseconds"]
        self.times[begin:end] = np.where(sound, stamped, time.time_ns())
        return end - begin


def _find_recvmmsg() -> "ctypes._NamedFuncPointer":
    """The C library's function. Raises LiveCaptureError where there is none that fits the structures above."""
    library = ctypes.CDLL(None, use_errno=True)
    if os.uname().sysname != "Linux" or _MESSAGE.itemsize != 64 or not hasattr(library, "recvmmsg"):
        raise LiveCaptureError("tunnels end at 64-bit Linux only: capture the interface that they come in on instead")
    function = library.recvmmsg
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    function.restype = ctypes.c_int
    return function
