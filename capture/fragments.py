"""IP fragments become whole datagrams again (RFC 791, section 3.2; RFC 8200, section 4.5).

In: a `DatagramBatch` and its rows of fragments. Out: the UDP payloads and TCP segments inside the datagrams that the
rows complete, each at the row that completed it; a datagram that holds a tunnel goes through the layers again, and may
itself be a fragment. Fragments belong together by addresses, identification, protocol (IPv4) and realm, in any order;
the first copy of an octet wins. What stays incomplete is counted and, where its beginning is there, reported. It
never looks at a clock and is bounded in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from capture._tcp_kernels import FLAG_SYN
from capture.address import Endpoint
from capture.batch import KIND_FRAGMENT, KIND_TCP, KIND_UDP, DatagramBatch, Int64
from capture.layers import decode_frame
from capture.pieces import Pieces
from capture.tcpstreams import TcpPacket, endpoints

MAX_AGE = 30_000_000_000
"""ns of capture time after which a datagram is incomplete for good."""
MAX_DATAGRAMS = 4096
"""Datagrams being put together; beyond, the oldest is given up."""
MAX_COST = 32 * 1024 * 1024
"""Octets (with what they cost to keep) of all of them."""
MAX_REPORTS = 1024
"""Incomplete datagrams kept until the caller takes them."""
MAX_NESTING = 4
"""Fragments of tunnels in fragments of tunnels."""
MAX_DONE = 256
"""Datagrams remembered after they were complete, to know mirrored copies of their fragments."""
DONE_AGE = 1_000_000_000
MAX_PACKET = 65_535
LINKTYPE_RAW = 101

Key = tuple[bytes, int, int, int]
"""Addresses (both), protocol (-1 for IPv6), identification, realm."""


@dataclass(frozen=True, slots=True)
class Payload:
    """Payload of a UDP datagram that was rebuilt from fragments."""

    packet: int
    """Row in the batch of the fragment that completed it."""
    data: bytes
    source: Endpoint
    destination: Endpoint
    realm: int
    time: int
    """Capture time of that fragment, ns."""


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A UDP datagram whose first fragment was seen, and not all of the others."""

    number: int
    """Of the first fragment's frame in its capture, ..."""
    capture: int
    """... which is this one, as in `PacketBatch.capture`."""
    time: int
    source: Endpoint
    destination: Endpoint
    realm: int
    data: bytes
    """Payload of the first fragment."""


@dataclass(slots=True)
class FragmentCounters:
    """What became of the fragments."""

    fragments: int = 0
    datagrams: int = 0
    """Put together."""
    duplicates: int = 0
    """Fragments that brought nothing new."""
    overlapped: int = 0
    """Fragments of which a part was there already."""
    malformed: int = 0
    """Fragments with a damaged header, or beyond the greatest size or the end of their datagram."""
    expired: int = 0
    """Datagrams given up because the rest did not come in time, or the capture ended."""
    evicted: int = 0
    """Datagrams given up for lack of room."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One fragment: `header` is what stands before its body, without any trace of fragmentation."""

    key: Key
    header: bytes
    offset: int
    more: bool
    body: bytes
    whole: bool
    """Not cut by the snap length."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Where a fragment came from."""

    packet: int
    time: int
    number: int
    capture: int


class _Partial:
    """A datagram being put together."""

    __slots__ = ("began", "header", "pieces", "seen", "total")

    def __init__(self, seen: _Seen) -> None:
        self.began = seen.time
        self.seen = seen
        """Of the first fragment (offset 0) once it came."""
        self.header = b""
        self.total: int | None = None
        self.pieces = Pieces()


class FragmentReassembler:
    """All fragmented datagrams of a capture."""

    def __init__(self) -> None:
        self._partials: dict[Key, _Partial] = {}
        self._done: dict[Key, tuple[int, bytes]] = {}
        self._cost = 0
        self._reports: list[Incomplete] = []
        self.counters = FragmentCounters()

    def feed(self, datagrams: DatagramBatch, rows: Int64) -> list[Payload | TcpPacket]:
        """Payloads of the datagrams that the fragment `rows` (ascending) complete."""
        packets = datagrams.packets
        out: list[Payload | TcpPacket] = []
        for row in rows.tolist():
            seen = _Seen(row, int(packets.time[row]), int(packets.number[row]), int(packets.capture[row]))
            self._expire(seen.time)
            out.extend(self._fragment(datagrams, row, seen, MAX_NESTING))
        return out

    def take_incomplete(self) -> list[Incomplete]:
        """Incomplete UDP datagrams since the last call whose payload begins like text; at most `MAX_REPORTS`."""
        reports, self._reports = self._reports, []
        return reports

    def finish(self) -> None:
        """The capture ends: what is incomplete now stays so."""
        while self._partials:
            self.counters.expired += 1
            self._give_up(next(iter(self._partials)))

    def _fragment(self, datagrams: DatagramBatch, row: int, seen: _Seen, depth: int) -> Iterator[Payload | TcpPacket]:
        self.counters.fragments += 1
        at, size = int(datagrams.payload[row]), int(datagrams.length[row])
        packet = datagrams.packets.buffer[at : at + size].tobytes()
        fragment = parse_fragment(packet, int(datagrams.realm[row]), whole=not datagrams.missing[row])
        if fragment is None:
            self.counters.malformed += 1
            return
        rebuilt = self._add(fragment, seen)
        if rebuilt is None:
            return
        inner = decode_frame(rebuilt, LINKTYPE_RAW, realm=fragment.key[3])
        kind = inner.kind[0]
        if kind == KIND_FRAGMENT and depth > 0:
            yield from self._fragment(inner, 0, seen, depth - 1)
        elif kind == KIND_UDP:
            source, destination = endpoints(inner, 0)
            data = _payload(inner, rebuilt)
            yield Payload(seen.packet, data, source, destination, int(inner.realm[0]), seen.time)
        elif kind == KIND_TCP:
            yield from _segment(inner, rebuilt, seen)

    def _add(self, fragment: Fragment, seen: _Seen) -> bytes | None:
        """Add a fragment to its datagram; the packet, as if it had never been cut, where that completes it."""
        key, offset = fragment.key, fragment.offset
        end = offset + len(fragment.body)
        if self._is_repeated(fragment, seen.time):
            self.counters.duplicates += 1
            return None
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial(seen)
        total = partial.total
        bad = end > MAX_PACKET or (total is not None and end > total)
        if not fragment.more and fragment.whole:
            bad = bad or partial.pieces.end > end or total not in (None, end)
        if bad:
            self.counters.malformed += 1
            return None
        if not fragment.more and fragment.whole:
            partial.total = end
        if offset == 0 and not partial.header:
            partial.header = fragment.header
            partial.seen = seen
        cost = partial.pieces.cost
        added = partial.pieces.add(offset, fragment.body, seen.time)
        self.counters.duplicates += added == 0 < len(fragment.body)
        self.counters.overlapped += 0 < added < len(fragment.body)
        self._cost += partial.pieces.cost - cost
        if partial.header and partial.total == partial.pieces.size:
            return self._complete(key, partial, seen.time)
        self._make_room()
        return None

    def _complete(self, key: Key, partial: _Partial, time: int) -> bytes | None:
        self._drop(key)
        body = partial.pieces.joined()
        packet = whole_packet(partial.header, body)
        if packet is None:
            self.counters.malformed += 1
            return None
        self.counters.datagrams += 1
        self._done.pop(key, None)
        self._done[key] = (time, body)
        if len(self._done) > MAX_DONE:
            del self._done[next(iter(self._done))]
        return packet

    def _is_repeated(self, fragment: Fragment, time: int) -> bool:
        """Whether this is a further copy of a fragment whose datagram is complete already."""
        done = self._done.get(fragment.key)
        if done is None or time - done[0] > DONE_AGE or fragment.key in self._partials:
            return False
        return done[1][fragment.offset : fragment.offset + len(fragment.body)] == fragment.body

    def _expire(self, now: int) -> None:
        while self._partials:
            key, partial = next(iter(self._partials.items()))
            if now - partial.began <= MAX_AGE:
                return
            self.counters.expired += 1
            self._give_up(key)

    def _make_room(self) -> None:
        while len(self._partials) > MAX_DATAGRAMS or self._cost > MAX_COST:
            self.counters.evicted += 1
            self._give_up(next(iter(self._partials)))

    def _give_up(self, key: Key) -> None:
        partial = self._drop(key)
        first = partial.pieces.first()
        if not partial.header or first is None or len(self._reports) >= MAX_REPORTS:
            return
        packet = whole_packet(partial.header, first.data)
        if packet is None:
            return
        inner = decode_frame(packet, LINKTYPE_RAW, realm=key[3])
        data = _payload(inner, packet)
        if inner.kind[0] != KIND_UDP or not data[:1].isalpha():
            return
        source, destination = endpoints(inner, 0)
        seen = partial.seen
        self._reports.append(
            Incomplete(seen.number, seen.capture, seen.time, source, destination, int(inner.realm[0]), data)
        )

    def _drop(self, key: Key) -> _Partial:
        partial = self._partials.pop(key)
        self._cost -= partial.pieces.cost
        return partial


def parse_fragment(packet: bytes, realm: int, *, whole: bool) -> Fragment | None:
    """Read the headers of a packet that begins with IP, None where they are damaged."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        flags = int.from_bytes(packet[6:8], "big")
        if not 20 <= size <= len(packet):
            return None
        key = (packet[12:20], packet[9], int.from_bytes(packet[4:6], "big"), realm)
        header = packet[:6] + bytes(2) + packet[8:size]
        return Fragment(key, header, (flags & 0x1FFF) * 8, bool(flags & 0x2000), packet[size:], whole)
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return _parse6(packet, realm, whole=whole)
    return None


def _parse6(packet: bytes, realm: int, *, whole: bool) -> Fragment | None:
    pointer, at = 6, 40
    while at + 8 <= len(packet):
        protocol = packet[pointer]
        if protocol == 44:
            header = bytearray(packet[:at])
            header[pointer] = packet[at]
            flags = int.from_bytes(packet[at + 2 : at + 4], "big")
            key = (packet[8:40], -1, int.from_bytes(packet[at + 4 : at + 8], "big"), realm)
            return Fragment(key, bytes(header), flags & 0xFFF8, bool(flags & 1), packet[at + 8 :], whole)
        pointer = at
        at += (packet[at + 1] + 2) * 4 if protocol == 51 else (packet[at + 1] + 1) * 8
    return None


def whole_packet(header: bytes, body: bytes) -> bytes | None:
    """The packet with its length set, None where that is beyond what IP allows."""
    version6 = header[0] >> 4 == 6
    size = len(header) + len(body) - (40 if version6 else 0)
    if size > MAX_PACKET:
        return None
    at = 4 if version6 else 2
    return header[:at] + size.to_bytes(2, "big") + header[at + 2 :] + body


def _payload(inner: DatagramBatch, packet: bytes) -> bytes:
    at = int(inner.payload[0])
    return packet[at : at + int(inner.length[0])]


def _segment(inner: DatagramBatch, packet: bytes, seen: _Seen) -> Iterator[TcpPacket]:
    """The TCP segment of a rebuilt packet, nothing where its header is damaged."""
    segment = _payload(inner, packet)
    size = (segment[12] >> 4) * 4
    flags = segment[13]
    if 20 <= size <= len(segment) and (len(segment) > size or flags & FLAG_SYN):
        source, destination = endpoints(inner, 0)
        sequence = int.from_bytes(segment[4:8], "big")
        realm = int(inner.realm[0])
        yield TcpPacket(seen.packet, seen.time, source, destination, realm, sequence, flags, segment[size:], 0)
