"""A forwarder under a clock of ours, packets for it, and a server's end of its legs on loopback sockets."""

import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from capture.address import Endpoint, parse_endpoint
from capture.batch import PacketBatch
from decoders.sdp import STATIC_FORMATS, PayloadFormat
from recorder.model import Side
from recorder.siprec.forward import Capacity, ForwardOptions, MediaForwarder
from recorder.siprec.legs import LegId, LocalMedia, RemoteMedia, Source

START = 1_700_000_000_000_000_000
MS = 1_000_000
PCMU, PCMA = STATIC_FORMATS[0], STATIC_FORMATS[8]
DTMF = PayloadFormat(101, "telephone-event", 8000, 1, "0-16")
FORMATS: Mapping[int, PayloadFormat] = {0: PCMU, 8: PCMA, 101: DTMF}
ALICE, BOB, RELAY = ("192.0.2.1", 4000), ("192.0.2.2", 6000), ("192.0.2.3", 8000)
SMALL = Capacity(flows=256, sources=64, legs=64, history=1 << 20, rows=512)


class Rtp(NamedTuple):
    """An RTP packet, `at` ms after START."""

    at: float
    sequence: int
    stamp: int
    payload: bytes
    ssrc: int = 0x1111
    kind: int = 0
    source: tuple[str, int] = ALICE
    destination: tuple[str, int] = BOB
    first: int = 0x80
    extra: bytes = b""
    """Between header and payload: contributing sources, extension."""

    def octets(self) -> bytes:
        sequence, stamp = self.sequence & 0xFFFF, self.stamp & 0xFFFFFFFF
        return struct.pack("!BBHII", self.first, self.kind, sequence, stamp, self.ssrc) + self.extra + self.payload

    def frame(self) -> bytes:
        """In IPv4 and UDP, without a link."""
        octets = self.octets()
        udp = struct.pack("!HHHH", self.source[1], self.destination[1], 8 + len(octets), 0)
        addresses = socket.inet_aton(self.source[0]) + socket.inet_aton(self.destination[0])
        return struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(octets), 0, 0, 64, 17, 0) + addresses + udp + octets


class Got(NamedTuple):
    """An RTP packet that a server got."""

    first: int
    kind: int
    sequence: int
    stamp: int
    ssrc: int
    payload: bytes


def talk(count: int, *, sequence: int = 100, stamp: int = 5000, at: float = 0.0, **fields: object) -> list[Rtp]:
    """PCMU of 20 ms each, every payload another."""
    ssrc = int(fields.get("ssrc", 0x1111))  # type: ignore[call-overload]
    return [
        Rtp(at + 20 * k, sequence + k, stamp + 160 * k, struct.pack("!II", ssrc, sequence + k) * 20, **fields)  # type: ignore[arg-type]
        for k in range(count)
    ]


def batch_of(packets: Iterable[Rtp], snap: int | None = None) -> PacketBatch:
    """The packets in the columns that a source would fill."""
    rows = list(packets)
    whole = [row.frame() for row in rows]
    kept = [frame[:snap] for frame in whole]
    sizes = np.array([len(frame) for frame in kept], np.int32)
    return PacketBatch(
        buffer=np.frombuffer(b"".join(kept), np.uint8),
        time=np.array([START + round(row.at * MS) for row in rows], np.int64),
        offset=np.cumsum(sizes, dtype=np.int64) - sizes,
        captured=sizes,
        wire=np.array([len(frame) for frame in whole], np.int32),
        link_type=np.full(len(rows), 101, np.int32),
        number=np.arange(1, len(rows) + 1, dtype=np.int64),
        capture=np.zeros(len(rows), np.int32),
    )


class Server:
    """A recording server's sockets for one leg."""

    def __init__(self, opened: ExitStack) -> None:
        self.rtp_socket, self.rtp = bound(opened)
        self.rtcp_socket, self.rtcp = bound(opened)
        self._rtp: list[bytes] = []
        self._rtcp: list[bytes] = []

    def remote(self, accepted: Mapping[PayloadFormat, int] | None = None, **fields: object) -> RemoteMedia:
        types = {PCMU: 0, PCMA: 8, DTMF: 101} if accepted is None else accepted
        return RemoteMedia(self.rtp, self.rtcp, types, **fields)  # type: ignore[arg-type]

    def take_in(self) -> None:
        """Read what has come, before the system's buffers are full."""
        for opened, kept in ((self.rtp_socket, self._rtp), (self.rtcp_socket, self._rtcp)):
            while True:
                try:
                    kept.append(opened.recv(4096))
                except BlockingIOError:
                    break

    def raw(self, *, rtcp: bool = False) -> list[bytes]:
        """Datagrams that have come since this was last asked."""
        self.take_in()
        kept = self._rtcp if rtcp else self._rtp
        found = list(kept)
        kept.clear()
        return found

    def got(self) -> list[Got]:
        """RTP that has come."""
        return [Got(*struct.unpack("!BBHII", each[:12]), each[12:]) for each in self.raw()]


def bound(opened: ExitStack) -> tuple[socket.socket, Endpoint]:
    made = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    made.bind(("127.0.0.1", 0))
    where = parse_endpoint(*made.getsockname())
    assert where is not None
    return made, where


class Bench:
    """A forwarder whose clock goes by the capture times that it is given, or the machine's clock where it is `live`."""

    def __init__(
        self, capacity: Capacity = SMALL, low_port: int = 35000, high_port: int = 39999, *, live: bool = False
    ) -> None:
        self.opened = ExitStack()
        self.seconds = 1000.0
        options = ForwardOptions(low_port, high_port, capacity)
        self.forwarder = MediaForwarder(options, clock=time.monotonic if live else lambda: self.seconds)
        self.now = START
        self.opened.callback(self.forwarder.shut)
        self.servers: list[Server] = []

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.close()

    def server(self) -> Server:
        self.servers.append(Server(self.opened))
        return self.servers[-1]

    def step(self, packets: PacketBatch | None = None) -> None:
        """One step of the forwarder; servers read what it sent."""
        self.forwarder.step(packets, self.now)
        for server in self.servers:
            server.take_in()

    def pass_time(self, ms: float, step: float = 5.0) -> None:
        """Let time pass without packets."""
        while ms > 0:
            self.seconds += min(step, ms) / 1000
            self.now += round(min(step, ms) * MS)
            ms -= step
            self.step()

    def feed(self, packets: Sequence[Rtp], batch: int = 5, snap: int | None = None) -> None:
        """Give packets in batches, each when its last packet has come."""
        for begin in range(0, len(packets), batch):
            some = packets[begin : begin + batch]
            until = START + round(some[-1].at * MS)
            self.seconds += max(until - self.now, 0) / 1e9
            self.now = max(self.now, until)
            self.step(batch_of(some, snap))

    def place_all(self, source: Source, formats: Mapping[int, PayloadFormat] = FORMATS, **fields: object) -> None:
        """Every flow that is new carries the source."""
        for flow in self.forwarder.take_new_flows():
            self.forwarder.place(flow, source, formats, **fields)  # type: ignore[arg-type]
        self.step()

    def leg(
        self, server: Server, source: Source, session: int = 1, since: int = 0, **fields: object
    ) -> tuple[LegId, LocalMedia]:
        """A leg that is connected."""
        leg = LegId(source, session)
        local = self.forwarder.open(leg, "127.0.0.1", since)
        self.forwarder.connect(leg, server.remote(**fields))  # type: ignore[arg-type]
        self.step()
        return leg, local


VOICE = Source(1, Side.CALLER, 0)
