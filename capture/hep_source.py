"""A listener for HEP: SIP and RTCP from proxies and agents, also where the SIP itself is encrypted on the wire.

In: HEP versions 1 to 3 in UDP datagrams, version 3 over TCP. Out: a `LiveSource` of frames (see `capture.hep_frames`).
It answers nobody, never raises on what comes, and holds no more than its buffers: one batch, and one packet for each of
a limited number of connections. Packets without the configured key are counted and forgotten; no text shows the key.

A frame's time is the sender's where that is near the time of arrival, else the latter: the clocks of proxies and of
this machine should be kept by NTP, or signalling and media do not stand in their true order.
"""

import hmac
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from capture.batch import PacketBatch
from capture.hep import HEAD, MOST_PACKET, MOST_PAYLOAD, HepPacket, Refusal, length_of_hep, parse_hep, refusal_of
from capture.hep_frames import HEADROOM, put_frame
from capture.listening import format_place, kernel_drops, open_socket, parse_place
from capture.live import SourceCounters

PORT = 9060
DEFAULT_PLACE = f"127.0.0.1:{PORT}"
MOST_CONNECTIONS = 64
CLOCK_DISTANCE = 60.0
"""Seconds that a sender's clock may be away from ours."""
IDLE = 3600.0
"""Seconds of silence after which a connection is closed: agents keep theirs open through quiet nights."""
STALLED = 30.0
"""Seconds that a connection may take to finish a packet."""

BUFFER = 4 << 20
MOST_ROWS = 8192
TURN = 512
"""Datagrams read from one socket before the others have their turn."""
_LARGEST_FRAME = HEADROOM + MOST_PAYLOAD
_MOST_DATAGRAM = 0xFFFF
_REAP_EVERY = 1.0
_PAUSE = 0.01
"""Seconds between tries to accept where the system has no descriptor left."""


@dataclass(slots=True)
class _Connection:
    """A TCP peer and what it has sent of its next packet."""

    socket: socket.socket
    heard: float
    """When octets last came, and ..."""
    begun: float
    """... when the packet that is pending began to; by a clock that only goes forward."""
    pending: bytearray = field(default_factory=bytearray)
    greeted: bool = False
    """It has sent a whole packet."""

    def is_stale(self, now: float) -> bool:
        """Whether it is silent, or stuck in the middle of a packet."""
        return now - self.heard > IDLE or (bool(self.pending) and now - self.begun > STALLED)


class _Frames:
    """The next batch, in a buffer that is used again."""

    def __init__(self, capture: int) -> None:
        self._capture = capture
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._octets = np.frombuffer(self._buffer, np.uint8)
        self._octets.flags.writeable = False
        self.number = 0
        """Frames so far, of all batches."""
        self.begin()

    def begin(self) -> None:
        """Forget the batch that was given."""
        self._used = 0
        self._times: list[int] = []
        self._sizes: list[int] = []
        self._link_types: list[int] = []

    @property
    def full(self) -> bool:
        """Whether the next frame may not fit."""
        return self._used + _LARGEST_FRAME > BUFFER or len(self._times) >= MOST_ROWS

    def add(self, packet: HepPacket, moment: int) -> int:
        """Append the frame of a packet; tells its octets."""
        size, link_type = put_frame(self._view, self._used, packet)
        self._used += size
        self._times.append(moment)
        self._sizes.append(size)
        self._link_types.append(link_type)
        return size

    def batch(self) -> PacketBatch | None:
        """What was added since `begin`."""
        count = len(self._times)
        if not count:
            return None
        sizes = np.array(self._sizes, np.int32)
        offset = np.cumsum(sizes, dtype=np.int64) - sizes
        self.number += count
        return PacketBatch(
            buffer=self._octets,
            time=np.array(self._times, np.int64),
            offset=offset,
            captured=sizes,
            wire=sizes.copy(),
            link_type=np.array(self._link_types, np.int32),
            number=np.arange(self.number - count + 1, self.number + 1, dtype=np.int64),
            capture=np.full(count, self._capture, np.int32),
        )


class HepSource:
    """A `LiveSource` of what agents send to one address and port, over UDP and TCP."""

    stamped_here = False
    ended = False

    def __init__(
        self,
        place: str = DEFAULT_PLACE,
        *,
        key: str | None = None,
        clock_distance: float = CLOCK_DISTANCE,
        connections: int = MOST_CONNECTIONS,
        capture: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Listen on `place` (`address:port`; port 0 takes any). `key` is what HEP3 senders must show.

        `capture` is the source's index in its batches, `connections` how many TCP peers there may be at once.

        Raises:
            LiveCaptureError: it is no address, or nothing can listen there.
        """
        address, port = parse_place(place, PORT)
        self._udp = open_socket(address, socket.SOCK_DGRAM, port)
        try:
            port = self._udp.getsockname()[1]
            self._tcp = open_socket(address, socket.SOCK_STREAM, port)
        except BaseException:
            self._udp.close()
            raise
        self.place = format_place(address, port)
        self.name = f"hep {self.place}"
        self.exposed = key is None and not address.is_loopback
        """Whether any host that can reach the address may feed calls into the recorder."""
        self.refused: Counter[Refusal] = Counter()
        self.turned_away = 0
        """Connections beyond the limit."""
        self.hung_up = 0
        """Connections closed because they sent no HEP, or went silent."""
        self._key = None if key is None else key.encode()
        self._distance = round(clock_distance * 1e9)
        self._limit = connections
        self._clock = clock
        self._frames = _Frames(capture)
        self._datagram = bytearray(_MOST_DATAGRAM)
        self._connections: dict[socket.socket, _Connection] = {}
        self._unread: dict[socket.socket, _Connection] = {}
        """Connections that may have whole packets pending, because the last batch was full."""
        self._packets = self._octets = self._drops = 0
        self._reaped = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._udp, selectors.EVENT_READ)
        self._selector.register(self._tcp, selectors.EVENT_READ)
        self._closed = False

    def poll(self, timeout: float) -> PacketBatch | None:
        """The next frames; None where nothing of use came within `timeout` seconds."""
        if self._closed:
            return None
        deadline = time.monotonic() + timeout
        self._frames.begin()
        while True:
            self._take_unread()
            left = 0.0 if self._unread else max(deadline - time.monotonic(), 0.0)
            self._receive(left)
            self._reap()
            batch = self._frames.batch()
            if batch is not None or time.monotonic() >= deadline:
                return batch

    def counters(self) -> SourceCounters:
        """Counts since the source was opened; what was refused stands in the note."""
        self._drops = max(self._drops, kernel_drops(self._udp))
        return SourceCounters(
            packets=self._packets,
            octets=self._octets,
            dropped=self._drops,
            frozen=0,
            up=not self._closed,
            note=self._note(),
        )

    def close(self) -> None:
        """Close the listeners and all connections."""
        if self._closed:
            return
        self._drops = max(self._drops, kernel_drops(self._udp))
        self._closed = True
        self._selector.close()
        for each in (self._udp, self._tcp, *self._connections):
            each.close()
        self._connections.clear()
        self._unread.clear()

    def _receive(self, timeout: float) -> None:
        for ready, _ in self._selector.select(timeout):
            if self._frames.full:
                return
            if ready.fileobj is self._udp:
                self._read_datagrams()
            elif ready.fileobj is self._tcp:
                self._accept()
            else:
                peer = self._connections.get(ready.fileobj)  # type: ignore[call-overload]  # all are sockets
                if peer is not None:  # else it made room for another just now
                    self._read_stream(peer)

    def _read_datagrams(self) -> None:
        for _ in range(TURN):
            if self._frames.full:
                return
            try:
                size = self._udp.recv_into(self._datagram)
            except OSError:  # nothing more, or an ICMP error that is no concern of a listener
                return
            self._take(memoryview(self._datagram)[:size])

    def _take(self, octets: memoryview) -> None:
        """Check one HEP packet and append its frame."""
        packet = parse_hep(octets)
        if isinstance(packet, Refusal):
            self.refused[packet] += 1
            return
        if self._key is not None and not hmac.compare_digest(bytes(packet.key or b""), self._key):
            self.refused[Refusal.UNAUTHORISED] += 1
            return
        refusal = refusal_of(packet)
        if refusal is not None:
            self.refused[refusal] += 1
            return
        self._octets += self._frames.add(packet, self._moment(packet))
        self._packets += 1

    def _moment(self, packet: HepPacket) -> int:
        """When the packet was seen, ns since the epoch."""
        arrival = self._clock()
        sent = packet.time
        return sent if sent is not None and abs(sent - arrival) <= self._distance else arrival

    def _accept(self) -> None:
        try:
            peer, _ = self._tcp.accept()
        except BlockingIOError:
            return
        except OSError:
            time.sleep(_PAUSE)
            return
        if len(self._connections) >= self._limit and not self._make_room():
            self.turned_away += 1
            peer.close()
            return
        peer.setblocking(False)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        now = time.monotonic()
        self._connections[peer] = _Connection(peer, now, now)
        self._selector.register(peer, selectors.EVENT_READ)

    def _make_room(self) -> bool:
        """Close the oldest connection that never sent a packet; False where all have."""
        for peer in self._connections.values():
            if not peer.greeted:
                self.hung_up += 1
                self._hang_up(peer)
                return True
        return False

    def _read_stream(self, peer: _Connection) -> None:
        try:
            octets = peer.socket.recv(MOST_PACKET)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._hang_up(peer)
            return
        now = peer.heard = time.monotonic()
        if not peer.pending:
            peer.begun = now
        peer.pending += octets
        self._take_pending(peer)

    def _take_unread(self) -> None:
        for peer in list(self._unread.values()):
            self._take_pending(peer)

    def _take_pending(self, peer: _Connection) -> None:
        """Take the whole packets that a connection has sent, as far as the batch has room."""
        self._unread.pop(peer.socket, None)
        view = memoryview(peer.pending)
        at, sound = 0, True
        while len(view) - at >= HEAD and not self._frames.full:
            length = length_of_hep(view[at : at + HEAD])
            if length is None:
                sound = False
                break
            if length > len(view) - at:
                break
            self._take(view[at : at + length])
            at += length
        view.release()
        if at:
            del peer.pending[:at]
            peer.greeted = True
            peer.begun = time.monotonic()
        if not sound:
            self.refused[Refusal.NOT_HEP] += 1
            self.hung_up += 1
            self._hang_up(peer)
        elif self._frames.full and len(peer.pending) >= HEAD:
            self._unread[peer.socket] = peer

    def _reap(self) -> None:
        """Close connections that are silent or stuck."""
        now = time.monotonic()
        if now - self._reaped < _REAP_EVERY:
            return
        self._reaped = now
        for peer in list(self._connections.values()):
            if peer.is_stale(now) and peer.socket not in self._unread:
                self.hung_up += 1
                self._hang_up(peer)

    def _hang_up(self, peer: _Connection) -> None:
        self._selector.unregister(peer.socket)
        self._connections.pop(peer.socket, None)
        self._unread.pop(peer.socket, None)
        peer.socket.close()

    def _note(self) -> str | None:
        parts = []
        refused = [f"{self.refused[why]} {why}" for why in Refusal if self.refused[why]]
        if refused:
            parts.append(f"packets refused: {', '.join(refused)}")
        if self.hung_up:
            parts.append(f"connections closed that sent no HEP or went silent: {self.hung_up}")
        if self.turned_away:
            parts.append(f"connections turned away beyond the limit of {self._limit}: {self.turned_away}")
        return "; ".join(parts) or None
