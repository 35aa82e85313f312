"""Send speech as RTP to many ports in real time: the media of many recording sessions.

In: for each stream where it goes and when it begins. Out: G.711 packets every 20 ms, all streams evenly spread over
that time, a kernel and one system call (sendmmsg) a slot of 2 ms. What stream `s` sends is that of call `s // 2`, side
`s % 2`, in `bench.calls`.
"""

import ctypes
import errno
import os
import socket
import time
from dataclasses import dataclass

import numpy as np

from bench._rtp_kernels import HEADER, NAME, PACKET_NS, fill_slot
from bench.calls import BANK, bank, bank_offset, leg

SLOT_NS = 2_000_000
MOST_AT_ONCE = 1024
MOST_LATE = 0.2
"""s of lateness that are made up for."""
SOURCES = PACKET_NS // SLOT_NS
"""Ports that packets leave from: streams that are due at the same time share one."""
_REFUSED = {errno.ENOBUFS, errno.EAGAIN, errno.ECONNREFUSED, errno.EPERM}


@dataclass(slots=True)
class Pace:
    """How well the slots kept their time."""

    latest: float = 0.0
    """s that a slot began after its time at most."""
    late: int = 0
    """Slots later than 5 ms."""
    slots: int = 0
    slipped: float = 0.0
    """s by which everything is later than planned, because the machine was too busy."""


class RtpSender:
    """Streams that may begin at any time; `turn` sends what is due."""

    def __init__(self, streams: int, packets: int, family: socket.AddressFamily = socket.AF_INET) -> None:
        legs = [leg(number // 2, number % 2) for number in range(streams)]
        self.streams = streams
        self.packets = packets
        self._sequence = np.array([each.sequence for each in legs], np.int64)
        self._timestamp = np.array([each.timestamp for each in legs], np.int64)
        self.ssrc = np.array([each.ssrc for each in legs], np.int64)
        self._offset = np.array([bank_offset(number // 2, number % 2) for number in range(streams)], np.int64)
        self._bank = np.ascontiguousarray(bank("PCMU"))
        self._start = np.full(streams, -1, np.int64)
        self._stop = np.full(streams, packets, np.int64)
        self.sent = np.zeros(streams, np.int64)
        """Packets of each stream so far."""
        self.unsent = 0
        self._phase = np.arange(streams, dtype=np.int64) * PACKET_NS // max(streams, 1)
        self._of_slot = [np.flatnonzero(self._phase // SLOT_NS == k).astype(np.int64) for k in range(SOURCES)]
        self._family = family
        self._sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(SOURCES)]
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            each.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
            each.setblocking(False)
        self._names = np.zeros((streams, NAME), np.uint8)
        most = max(len(each) for each in self._of_slot) + 1
        self._headers = np.zeros((most, HEADER), np.uint8)
        self._vectors = np.zeros((most, 2, 2), np.int64)
        self._vectors[:, 0, 0] = self._headers.ctypes.data + np.arange(most) * HEADER
        self._vectors[:, 0, 1] = HEADER
        self._messages = np.zeros((most, 8), np.int64)
        self._messages[:, 2] = self._vectors.ctypes.data + np.arange(most) * 32
        self._messages[:, 3] = 2
        self._send = ctypes.CDLL(None, use_errno=True).sendmmsg
        self.pace = Pace()
        self._prepare(0)  # compiles the kernel; nothing has begun
        self._begin = time.monotonic_ns() // PACKET_NS * PACKET_NS + PACKET_NS
        self._done = 0

    def begin(self, stream: int, host: str, port: int, packets: int | None = None) -> None:
        """Send a stream to a port from now on, so many packets if not all."""
        if packets is not None:
            self._stop[stream] = packets
        octets = socket.inet_pton(self._family, host)
        head = int(self._family).to_bytes(2, "little") + port.to_bytes(2, "big")
        name = head + (bytes(4) + octets if self._family == socket.AF_INET6 else octets)
        self._names[stream, : len(name)] = np.frombuffer(name, np.uint8)
        due = self._done - self._done % PACKET_NS + int(self._phase[stream])
        self._start[stream] = due if due >= self._done else due + PACKET_NS

    def stop(self, stream: int) -> None:
        """Send no more of a stream."""
        self._stop[stream] = min(self._stop[stream], self.sent[stream])

    def over(self, stream: int) -> bool:
        """Whether all of a stream is out."""
        return bool(self.sent[stream] >= self._stop[stream])

    def source(self, stream: int) -> tuple[str, int]:
        """Where a stream comes from."""
        host, port = self._sockets[int(self._phase[stream]) // SLOT_NS].getsockname()[:2]
        return host, port

    def turn(self) -> None:
        """Send what is due, or sleep until something is."""
        now = time.monotonic_ns() - self._begin
        if now < self._done:
            time.sleep((self._done - now) / 1e9)
            now = time.monotonic_ns() - self._begin
        late = (now - self._done) / 1e9
        self.pace.latest = max(self.pace.latest, late)
        self.pace.late += late > 0.005
        self.pace.slots += 1
        if late > MOST_LATE:
            # No sender makes up for what it could not send: all of them are late from now on.
            self._begin += int(late * 1e9)
            self.pace.slipped += late
        self._flush(self._sockets[self._done // SLOT_NS % SOURCES], self._prepare(self._done))
        self._done += SLOT_NS

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def drain(self) -> int:
        """Take what came back (reports); how many."""
        got = 0
        for each in self._sockets:
            while True:
                try:
                    each.recv(2048)
                except OSError:
                    break
                got += 1
        return got

    def _prepare(self, begin: int) -> int:
        return fill_slot(
            self._headers, self._vectors, self._messages, begin, begin + SLOT_NS,
            self._of_slot[begin // SLOT_NS % SOURCES], self._start, self._stop, self._sequence,
            self._timestamp, self.ssrc, 0, self._offset, self._bank.ctypes.data, BANK, self._names.ctypes.data,
            28 if self._family == socket.AF_INET6 else 16, self.sent,
        )  # fmt: skip

    def _flush(self, through: socket.socket, count: int) -> None:
        at = 0
        while at < count:
            first = ctypes.c_void_p(self._messages.ctypes.data + at * 64)
            sent = self._send(through.fileno(), first, min(count - at, MOST_AT_ONCE), 0)
            if sent < 0:
                code = ctypes.get_errno()
                if code not in _REFUSED:
                    raise OSError(code, os.strerror(code))
                self.unsent += 1
                sent = 1
            at += sent
