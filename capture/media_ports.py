"""Media sent to ports of our own: a source over thousands of bound UDP sockets, opened and closed while it runs.

In: a range of ports, and calls of `open` and `release`, from any thread. Out: a `LiveSource` of raw IP packets in time
order, whose headers are made from what the kernel tells (the sender; the address that the port was announced under), so
that they are decoded, claimed by destination and kept like packets from an interface. RTCP comes as rows too.

A poll waits, and then one kernel takes what waits at all sockets: a system call a socket, no Python a packet. It never
answers by itself and never raises for what comes. Datagrams longer than `MOST_DATAGRAM` are cut and counted.
"""

import errno
import platform
import select
import socket
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from capture._media_port_kernels import (
    CUT,
    HEAD_4,
    HEAD_6,
    MORE,
    MOST_HEAD,
    RESULT,
    ROWS,
    STRANGE,
    read_drops,
    receive_ready,
)
from capture.address import Endpoint, parse_endpoint
from capture.batch import Int32, PacketBatch
from capture.datagram_slots import DatagramSlots, ask_for_times
from capture.listening import Address, kernel_drops, open_socket, parse_address
from capture.live import LiveCaptureError, SourceCounters
from capture.port_pool import HIGH_PORT, LOW_PORT, REST, PortPool, PortsExhausted

__all__ = ["MediaPort", "MediaPortOptions", "MediaPorts", "PortsExhausted"]

MOST_DATAGRAM = 2048
"""Octets kept of one: more than an Ethernet frame carries."""
LINKTYPE_RAW = 101

_MOST_DESCRIPTORS = 1 << 20
_LOOK = 1.0
"""Seconds between two looks at the kernel's counts of drops."""
_PACKET = 0.02
"""Seconds between two packets of most streams."""
_MOST_LIKELY = 16
_TRIES = 256
"""Pairs that are tried before it is given up that another program leaves one free."""


@dataclass(frozen=True, slots=True)
class MediaPortOptions:
    """How media is received."""

    low: int = LOW_PORT
    high: int = HIGH_PORT
    """Range of ports, both included."""
    rest: float = REST
    """Seconds before a released pair is opened anew."""
    linger: float = 0.25
    """Seconds that a released pair is still read: what was sent before the end may come after it."""
    pace: float = 0.04
    """Least seconds between two batches: a look at a socket costs as much as a packet, and is to find some."""
    receive_buffer: int = 512 << 10
    """Octets per socket, by the kernel's count: some ten seconds of G.711."""
    batch_rows: int = 8192
    """Most packets of a batch."""


@dataclass(frozen=True, slots=True)
class MediaPort:
    """A pair of open ports."""

    rtp: Endpoint
    """As it was announced: the destination of the rows."""
    rtcp: Endpoint
    place: int
    """Of the RTP socket among all sockets of the source; the RTCP socket has the next."""
    opening: int
    """Running number: the same ports have another when they are opened again."""


@dataclass(slots=True)
class _Open:
    """The sockets of a pair."""

    rtp: socket.socket
    rtcp: socket.socket
    even: int
    opening: int
    leaving: bool = False


class MediaPorts:
    """A `LiveSource` of what is sent to open ports."""

    stamped_here = True

    def __init__(self, options: MediaPortOptions | None = None, *, capture: int = 0) -> None:
        """Nothing is open yet. `capture` is the source's index in its batches.

        Raises:
            ValueError: the range of ports holds no pair.
            LiveCaptureError: this is no 64-bit Linux.
        """
        if sys.platform != "linux" or sys.byteorder != "little":
            raise LiveCaptureError("media can be received on 64-bit little-endian Linux only")
        self._options = options or MediaPortOptions()
        self._pool = PortPool(self._options.low, self._options.high, rest=self._options.rest)
        self.name = f"media ports {self._options.low}-{self._options.high}"
        self._capture = capture
        sockets = 2 * self._pool.pairs
        self._slots = DatagramSlots(self._options.batch_rows, MOST_HEAD, MOST_DATAGRAM)
        self._slots.make_ready()
        self._messages = self._slots.messages.view(np.int64).reshape(self._slots.count, -1)
        self._controls = self._slots.controls.view(np.int64).reshape(self._slots.count, -1)
        self._flat = self._slots.rows.reshape(-1)
        self._flat.flags.writeable = False
        # struct epoll_event is packed on x86-64 only.
        packed = platform.machine() == "x86_64"
        self._events = np.zeros((sockets, 3 if packed else 4), np.uint32)
        self._descriptor_at = 1 if packed else 2
        self._socket_of = np.full(_MOST_DESCRIPTORS, -1, np.int32)
        self._heads = np.zeros(sockets, np.int32)
        self._templates = np.zeros((sockets, MOST_HEAD), np.uint8)
        self._descriptors = np.full(sockets, -1, np.int32)
        self._drops = np.zeros(sockets, np.int64)
        self._facts = np.zeros(9, np.uint32)
        self._size = np.zeros(1, np.uint32)
        self._offset = np.zeros(self._slots.count, np.int64)
        self._captured = np.zeros(self._slots.count, np.int32)
        self._wire = np.zeros(self._slots.count, np.int32)
        self._place = np.zeros(self._slots.count, np.int32)
        self._result = np.zeros(RESULT, np.int64)
        self.places: Int32 = self._place[:0]
        """Of the last batch's rows: the socket that each came to (see `MediaPort.place`)."""
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        """Of what is open, and of the counts."""
        self._reading = threading.Lock()
        """Held while a kernel reads the sockets: none is closed meanwhile, lest its number become another file's."""
        self._open: dict[int, _Open] = {}
        self._openings = 0
        self._leaving: deque[tuple[float, int]] = deque()
        self._packets = self._octets = self._cut = self._strange = self._dropped = 0
        self._next_look = self._handed_over = 0.0
        self._closed = False
        self._receive(1)  # compiles the kernels, or loads them, before there is anything to lose
        read_drops(self._descriptors, self._facts, self._size, self._drops)

    @property
    def ended(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def opened(self) -> int:
        """Pairs that are open, those included that are only read to their end."""
        return len(self._open)

    @property
    def sockets(self) -> int:
        """Sockets that can be open at once: every `MediaPort.place` is less."""
        return len(self._heads)

    def open(self, host: str, announced: str | None = None) -> MediaPort:
        """Open a pair of ports at an address of this machine.

        `announced` is the address that others send to, where it is not `host`: that of a NAT in front of us.

        Raises:
            PortsExhausted: none is free.
            LiveCaptureError: the address is none of this machine's, or the system refuses.
        """
        address = parse_address(host)
        seen = parse_address(announced) if announced else address
        if address.is_unspecified or address.version != seen.version:
            raise LiveCaptureError(f"media cannot be received at {host} as {seen}: name one address of this machine")
        for _ in range(_TRIES):
            even = self._pool.take()
            try:
                return self._open_pair(address, seen, even)
            except (LiveCaptureError, PortsExhausted) as error:
                self._pool.give_back(even)
                code = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
                if code in (errno.EMFILE, errno.ENFILE):
                    raise PortsExhausted("no file descriptor is left for media: raise the limit (ulimit -n)") from error
                if code != errno.EADDRINUSE:
                    raise
        raise PortsExhausted(f"other programs hold the media ports {self._options.low}-{self._options.high}")

    def release(self, port: MediaPort) -> None:
        """Close a pair, after what was sent to it has been read. A second call does nothing."""
        with self._lock:
            pair = self._open.get(port.place)
            if pair is None or pair.leaving or pair.opening != port.opening:
                return
            pair.leaving = True
            self._leaving.append((time.monotonic() + self._options.linger, port.place))
        # Somebody who polls does it soon anyway.
        if self._reading.acquire(blocking=False):
            try:
                self._reap()
            finally:
                self._reading.release()

    def send(self, place: int, octets: bytes, to: Endpoint) -> bool:
        """Send a datagram from an open socket; False where it is closed or the system refuses. Never waits."""
        with self._lock:
            pair = self._open.get(place & ~1)
            if pair is None:
                return False
            try:
                (pair.rtcp if place & 1 else pair.rtp).sendto(octets, (to.host, to.port))
            except OSError:
                return False
            return True

    def poll(self, timeout: float) -> PacketBatch | None:
        """What has come, in time order; see `LiveSource`."""
        if self.ended:
            return None
        start = time.monotonic()
        if not self._result[MORE]:
            rest = self._handed_over + self._options.pace - start
            if rest > 0:
                time.sleep(min(rest, timeout))
                if rest > timeout:
                    return None
            left = max(start + timeout - time.monotonic(), 0.0)
            if not self._epoll.poll(left, 1):
                self._tidy()
                return None
        with self._reading:
            if self._closed:
                return None
            now = time.monotonic()
            self._receive(min(max(round((now - self._handed_over) / _PACKET), 1), _MOST_LIKELY))
            self._handed_over = now
            self._reap()
        count = int(self._result[ROWS])
        return self._batch(count) if count else None

    def counters(self) -> SourceCounters:
        """Counts since the source was made."""
        with self._lock:
            now = time.monotonic()
            if now >= self._next_look and not self._closed:
                self._next_look = now + _LOOK
                read_drops(self._descriptors, self._facts, self._size, self._drops)
            notes = []
            if self._cut:
                notes.append(f"datagrams cut at {MOST_DATAGRAM} octets: {self._cut}")
            if self._strange:
                notes.append(f"datagrams without a time of the kernel's: {self._strange}")
            return SourceCounters(
                packets=self._packets,
                octets=self._octets,
                dropped=self._dropped + int(self._drops.sum()),
                frozen=0,
                up=not self._closed,
                note="; ".join(notes) or None,
            )

    def close(self) -> None:
        """Close all sockets."""
        with self._reading:
            if self._closed:
                return
            self._closed = True
            for place in list(self._open):
                self._close_pair(place)
            self._epoll.close()

    def _open_pair(self, address: Address, seen: Address, even: int) -> MediaPort:
        place = even - self._pool.low
        with ExitStack() as opening:
            pair = []
            for port in (even, even + 1):
                opened = open_socket(address, socket.SOCK_DGRAM, port, 0, self._options.receive_buffer)
                opening.callback(opened.close)
                ask_for_times(opened)
                pair.append(opened)
            with self._lock:
                if self._closed or max(opened.fileno() for opened in pair) >= _MOST_DESCRIPTORS:
                    raise PortsExhausted("media is received no more, or too many files are open")
                for each, opened in enumerate(pair, place):
                    opening.callback(self._displace, each)
                    self._place_socket(each, opened, _head(seen, self._pool.low + each))
                self._openings += 1
                self._open[place] = _Open(pair[0], pair[1], even, self._openings)
                opening.pop_all()
                return MediaPort(_endpoint(seen, even), _endpoint(seen, even + 1), place, self._openings)

    def _place_socket(self, place: int, opened: socket.socket, head: bytes) -> None:
        """Write what the kernels know of a socket, then have it watched."""
        self._templates[place, : len(head)] = np.frombuffer(head, np.uint8)
        self._heads[place] = len(head)
        self._drops[place] = 0
        self._descriptors[place] = opened.fileno()
        self._socket_of[opened.fileno()] = place
        try:
            self._epoll.register(opened.fileno(), select.EPOLLIN)
        except OSError as error:
            raise PortsExhausted("the system watches no more sockets: raise fs.epoll.max_user_watches") from error

    def _displace(self, place: int) -> None:
        """The reverse, before the socket is closed."""
        if self._descriptors[place] >= 0:
            self._socket_of[self._descriptors[place]] = -1
            self._descriptors[place] = -1

    def _receive(self, likely: int) -> None:
        slots = self._slots
        receive_ready(
            self._epoll.fileno(), self._events, self._descriptor_at, self._socket_of, likely, time.time_ns(),
            slots.headroom, slots.room, slots.rows, slots.names, self._messages, self._controls, self._heads,
            self._templates, slots.times, self._offset, self._captured, self._wire, self._place, self._result,
        )  # fmt: skip

    def _batch(self, count: int) -> PacketBatch:
        order = np.argsort(self._slots.times[:count], kind="stable")
        wire = self._wire[order]
        self.places = self._place[order]
        with self._lock:
            self._packets += count
            self._octets += int(wire.sum(dtype=np.int64))
            self._cut += int(self._result[CUT])
            self._strange += int(self._result[STRANGE])
        return PacketBatch(
            buffer=self._flat,
            time=self._slots.times[order],
            offset=self._offset[order],
            captured=self._captured[order],
            wire=wire,
            link_type=np.full(count, LINKTYPE_RAW, np.int32),
            number=np.arange(self._packets - count + 1, self._packets + 1, dtype=np.int64),
            capture=np.full(count, self._capture, np.int32),
        )

    def _tidy(self) -> None:
        if self._leaving:
            with self._reading:
                self._reap()

    def _reap(self) -> None:
        """Close pairs that have been read to their end; `_reading` is held."""
        now = time.monotonic()
        while not self._result[MORE] and self._leaving and self._leaving[0][0] <= now:
            with self._lock:
                _, place = self._leaving.popleft()
            self._close_pair(place)

    def _close_pair(self, place: int) -> None:
        with self._lock:
            pair = self._open.pop(place, None)
            if pair is None:
                return
            for each, opened in ((place, pair.rtp), (place + 1, pair.rtcp)):
                self._dropped += max(kernel_drops(opened), int(self._drops[each]))
                self._drops[each] = 0
                self._displace(each)
                opened.close()
        self._pool.give_back(pair.even)


def _endpoint(address: Address, port: int) -> Endpoint:
    found = parse_endpoint(str(address), port)
    assert found is not None  # an address that was parsed
    return found


def _head(destination: Address, port: int) -> bytes:
    """IP and UDP headers to a port, with lengths, the IPv4 checksum and the sender left to fill in."""
    protocol = socket.IPPROTO_UDP
    if destination.version == 4:
        head = bytes([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]) + bytes(4) + destination.packed
    else:
        head = bytes([0x60, 0, 0, 0, 0, 0, protocol, 64]) + bytes(16) + destination.packed
    head += b"\0\0" + port.to_bytes(2, "big") + bytes(4)
    assert len(head) in (HEAD_4, HEAD_6)
    return head
