"""Media sent to ports of our own: a source over thousands of bound UDP sockets, opened and closed while it runs.

In: a range of ports, and calls of `open` and `release`, from any thread. Out: a `LiveSource` of raw IP packets in time
order, whose headers are made from what the kernel tells (the sender; the address that the port was announced under), so
that they are decoded, claimed by destination and kept like packets from an interface. RTCP comes as rows too.

A poll waits, and then a kernel takes what waits, no Python a packet. Where the system allows it (`port_steering`), all
of it is in one socket, hundreds of datagrams a system call; else it takes a system call a socket. Nothing is ever
answered by itself, and nothing raises for what comes. Datagrams longer than `MOST_DATAGRAM` are cut and counted.
"""

import errno
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from capture.address import Endpoint, parse_endpoint
from capture.batch import Int32, PacketBatch
from capture.datagram_slots import ask_for_times
from capture.listening import Address, kernel_drops, open_socket, parse_address
from capture.live import LiveCaptureError, SourceCounters
from capture.port_pool import HIGH_PORT, LOW_PORT, REST, PortPool, PortsExhausted
from capture.port_rows import MOST_DESCRIPTORS, PortRows
from capture.port_steering import Collectors

__all__ = ["MediaPort", "MediaPortOptions", "MediaPorts", "PortsExhausted"]

MOST_DATAGRAM = 2048
"""Octets kept of one: more than an Ethernet frame carries."""

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
    steered: bool = True
    """Have one socket take what comes to all ports, where the system allows it."""
    collector_buffer: int = 128 << 20
    """Octets that may wait there; the kernel takes twice as many, three seconds of 2,000 streams."""


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
        self._sockets = 2 * self._pool.pairs
        self._rows = PortRows(self._sockets, self._options.batch_rows, MOST_DATAGRAM, self._pool.low)
        self.places: Int32 = self._rows.descriptors[:0]
        """Of the last batch's rows: the socket that each came to (see `MediaPort.place`)."""
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        """Of what is open, and of the counts."""
        self._reading = threading.Lock()
        """Held while a kernel reads the sockets: none is closed meanwhile, lest its number become another file's."""
        self._open: dict[int, _Open] = {}
        self._openings = 0
        self._leaving: deque[tuple[float, int]] = deque()
        self._packets = self._octets = self._cut = self._strange = 0
        self._dropped = self._dropped_now = 0
        """By sockets that are closed, and by those that are open."""
        self._next_look = self._handed_over = 0.0
        self._closed = False
        self._collectors = self._collect() if self._options.steered else None
        self._receive(1)  # compiles the kernels, or loads them, before there is anything to lose

    @property
    def ended(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def steered(self) -> bool:
        """Whether one socket takes what comes to all ports."""
        return self._collectors is not None

    @property
    def opened(self) -> int:
        """Pairs that are open, those included that are only read to their end."""
        return len(self._open)

    @property
    def sockets(self) -> int:
        """Sockets that can be open at once: every `MediaPort.place` is less."""
        return self._sockets

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

    def avoid(self, ports: Iterable[int], seconds: float) -> None:
        """Open none of these RTP ports for some seconds: what others send there is for somebody else."""
        self._pool.avoid(ports, seconds)

    def relent(self, ports: Iterable[int]) -> None:
        """Avoided ports need only rest from now on, as others do: who sent there has noticed."""
        self._pool.relent(ports, self._options.rest)

    def release(self, port: MediaPort) -> None:
        """Have a pair closed by a later `poll`, after what was sent to it has been read. A second call does nothing."""
        with self._lock:
            pair = self._open.get(port.place)
            if pair is None or pair.leaving or pair.opening != port.opening:
                return
            pair.leaving = True
            self._leaving.append((time.monotonic() + self._options.linger, port.place))

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
        if not self._rows.more:
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
        return self._batch() if len(self._rows) else None

    @property
    def behind(self) -> bool:
        """Whether the last `poll` left datagrams waiting: what came before now is not all handed over."""
        return self._rows.more

    def counters(self) -> SourceCounters:
        """Counts since the source was made."""
        with self._lock:
            now = time.monotonic()
            if now >= self._next_look and not self._closed:
                self._next_look = now + _LOOK
                self._dropped_now = self._rows.read_drops()
                self._dropped_now += self._collectors.dropped if self._collectors is not None else 0
            notes = []
            if self._cut:
                notes.append(f"datagrams cut at {MOST_DATAGRAM} octets: {self._cut}")
            if self._strange:
                notes.append(f"datagrams without a time of the kernel's: {self._strange}")
            return SourceCounters(
                packets=self._packets,
                octets=self._octets,
                dropped=self._dropped + self._dropped_now,
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
            with self._lock:
                if self._collectors is not None:
                    self._collectors.close()
            self._epoll.close()

    def _open_pair(self, address: Address, seen: Address, even: int) -> MediaPort:
        place = even - self._pool.low
        pair: list[socket.socket] = []
        try:
            for port in (even, even + 1):
                pair.append(open_socket(address, socket.SOCK_DGRAM, port, 0, self._options.receive_buffer))
                ask_for_times(pair[-1])
            with self._lock:
                if self._closed or max(opened.fileno() for opened in pair) >= MOST_DESCRIPTORS:
                    raise PortsExhausted("media is received no more, or too many files are open")
                for each, opened in enumerate(pair, place):
                    self._place(each, opened, address, seen)
                self._openings += 1
                self._open[place] = _Open(pair[0], pair[1], even, self._openings)
                return MediaPort(_endpoint(seen, even), _endpoint(seen, even + 1), place, self._openings)
        except BaseException:
            for each, opened in enumerate(pair, place):
                self._displace(each)
                opened.close()
            raise

    def _place(self, place: int, opened: socket.socket, address: Address, seen: Address) -> None:
        """Say what the kernels need to know of a socket, then have it watched."""
        self._rows.place(place, opened.fileno(), seen)
        try:
            self._epoll.register(opened.fileno(), select.EPOLLIN)
        except OSError as error:
            raise PortsExhausted("the system watches no more sockets: raise fs.epoll.max_user_watches") from error
        if self._collectors is not None:
            self._collectors.add(address, self._pool.low + place)

    def _displace(self, place: int) -> int:
        """The reverse, before the socket is closed; drops that were read of it."""
        if self._collectors is not None:
            self._collectors.remove(self._pool.low + place)
        return self._rows.displace(place)

    def _collect(self) -> Collectors | None:
        try:
            collectors = Collectors(self._options.collector_buffer)
        except OSError:
            return None  # each port is asked by itself
        for descriptor in collectors.descriptors:
            self._epoll.register(descriptor, select.EPOLLIN)
        return collectors

    def _receive(self, likely: int) -> None:
        self._rows.receive(self._epoll, self._collectors.descriptors if self._collectors else (), likely)

    def _batch(self) -> PacketBatch:
        batch, self.places = self._rows.batch(self._packets + 1, self._capture)
        with self._lock:
            self._packets += len(batch)
            self._octets += int(batch.wire.sum(dtype=np.int64))
            self._cut += self._rows.cut
            self._strange += self._rows.strange
        return batch

    def _tidy(self) -> None:
        if self._leaving:
            with self._reading:
                self._reap()

    def _reap(self) -> None:
        """Close pairs that have been read to their end; `_reading` is held."""
        now = time.monotonic()
        while not self._rows.more and self._leaving and self._leaving[0][0] <= now:
            with self._lock:
                _, place = self._leaving.popleft()
            self._close_pair(place)

    def _close_pair(self, place: int) -> None:
        with self._lock:
            pair = self._open.pop(place, None)
            if pair is None:
                return
            for each, opened in ((place, pair.rtp), (place + 1, pair.rtcp)):
                self._dropped += max(kernel_drops(opened), self._displace(each))
                opened.close()
            self._next_look = 0.0  # what was counted of them is not to be counted again
        self._pool.give_back(pair.even)


def _endpoint(address: Address, port: int) -> Endpoint:
    found = parse_endpoint(str(address), port)
    assert found is not None  # an address that was parsed
    return found
