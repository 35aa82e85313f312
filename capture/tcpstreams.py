"""TCP reassembly: segments in capture order become the octets of each direction, in sequence.

In: a `DatagramBatch` and its rows of TCP. Out: `Segment`s, in the order in which their octets became available. The two
directions of a connection are independent. Where a segment overlaps what came before, the first copy of an octet wins;
retransmissions, mirrored duplicates and keep-alive probes vanish. A hole holds back what follows until it is filled,
or until `MAX_WAIT` of capture time passed or `MAX_HELD` waits behind it: then its size is reported as `gap`. It knows
nothing of what the octets mean, never looks at a clock, and is bounded in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from capture._tcp_kernels import FLAG_FIN, FLAG_RST, FLAG_SYN, select_segments
from capture.address import Endpoint
from capture.batch import DatagramBatch, Int64, UInt16, UInt64
from capture.ignored import IgnoredDirections
from capture.layers import read_only
from capture.pieces import Pieces

MAX_WAIT = 3_000_000_000
"""ns of capture time that a hole may stay open."""
MAX_HELD = 256 * 1024
"""Octets (with what they cost to keep) that wait behind the holes of one direction."""
MAX_HELD_TOTAL = 64 * 1024 * 1024
"""The same for all directions."""
MAX_DIRECTIONS = 65_536
"""Directions remembered; beyond, the one without data for longest is forgotten."""
MAX_REPEAT = 1 << 20
"""A segment this far behind is no retransmission but another connection, whose SYN was not captured."""
MAX_LATE_SYN = 1 << 16
"""A SYN up to this far behind the first octets belongs to them: it was captured out of order."""


@dataclass(frozen=True, slots=True)
class TcpPacket:
    """One TCP segment as captured."""

    packet: int
    """Row in the batch."""
    time: int
    source: Endpoint
    destination: Endpoint
    realm: int
    sequence: int
    flags: int
    data: bytes
    missing: int
    """Octets of data that the snap length cut off."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Octets of one direction that follow, after `gap` lost ones, those of the segment before."""

    packet: int
    """Row of the batch at which the octets became available; -1 from `TcpReassembler.flush`."""
    time: int
    """Capture time of the octets themselves, ns; not later than that of `packet`."""
    source: Endpoint
    destination: Endpoint
    realm: int
    data: bytes
    gap: int
    start: bool
    """First octets seen of this direction: right after a SYN, or where the capture joined."""
    end: bool
    """The direction was closed (FIN) or reset (RST); `data` may be empty."""


class _Direction:
    """What is known of one direction. Sequence numbers are counted on beyond 32 bits, so they only grow."""

    __slots__ = ("end", "ended", "first", "held", "lost", "next", "started", "syn", "waits")

    def __init__(self, sequence: int, *, syn: bool) -> None:
        self.first = self.next = sequence
        self.syn = syn
        self.started = False
        self.ended = False
        self.end: int | None = None
        """Sequence number behind the last octet, once a FIN told it."""
        self.lost = 0
        """Octets lost since the last segment that was handed on."""
        self.held = Pieces()
        self.waits = 0
        """Deadline of the hole before `held`; 0 where there is none."""

    def unwrap(self, sequence: int) -> int:
        """The 32-bit sequence number that is nearest to the next one expected."""
        return self.next + ((sequence - self.next + 0x80000000) & 0xFFFFFFFF) - 0x80000000


Key = tuple[Endpoint, Endpoint, int]


class TcpReassembler:
    """All directions of TCP in a capture."""

    def __init__(self) -> None:
        self._directions: dict[Key, _Direction] = {}
        self._ignored = IgnoredDirections()
        self._deadlines: list[tuple[int, Key]] = []
        self._held = 0
        self._renewed: set[Key] = set()
        """Directions whose ports another connection took over during the last `feed`."""
        self.retransmitted = 0
        """Octets dropped because they were there already."""
        self.lost = 0
        """Octets reported in gaps."""

    def feed(self, datagrams: DatagramBatch, rows: Int64, rebuilt: Sequence[TcpPacket] = ()) -> list[Segment]:
        """Octets that the TCP `rows` (ascending) and the packets `rebuilt` from fragments make available.

        To be called for every batch, with or without rows: the time of any packet may end the wait for a hole.
        """
        packets = _packets(datagrams, rows, self._ignored)
        if rebuilt:
            wanted = [each for each in rebuilt if self._is_wanted(each)]
            packets = sorted([*packets, *wanted], key=lambda each: each.packet)
        out: list[Segment] = []
        self._renewed.clear()
        time = datagrams.packets.time
        seen = 0
        for packet in packets:
            if self._deadlines:
                self._expire(time, seen, packet.packet + 1, out)
            seen = packet.packet + 1
            self._take(packet, out)
        if self._deadlines:
            self._expire(time, seen, len(time), out)
        return out

    def ignore(self, source: Endpoint, destination: Endpoint, realm: int) -> None:
        """Keep nothing of this direction until its next SYN.

        Does nothing where the last `feed` saw another connection begin on the same ports: its octets may be wanted.
        """
        if (source, destination, realm) in self._renewed:
            return
        self._forget((source, destination, realm))
        self._ignored.add(source, destination, realm)

    def flush(self, now: int | None = None) -> list[Segment]:
        """Give up holes that are due at `now` (ns of capture time; all of them where None).

        A replay calls this once, at its end: `feed` gives up holes by itself, at the same packet whatever the batches.
        """
        out: list[Segment] = []
        while self._deadlines and (now is None or self._deadlines[0][0] <= now):
            self._give_up_first(-1, out)
        return out

    def _is_wanted(self, packet: TcpPacket) -> bool:
        """What `select_segments` decides for rows."""
        key = (packet.source, packet.destination, packet.realm)
        if packet.flags & FLAG_SYN:
            self._ignored.discard(*key)
        return key not in self._ignored

    def _take(self, packet: TcpPacket, out: list[Segment]) -> None:
        key = (packet.source, packet.destination, packet.realm)
        direction = self._directions.get(key)
        sequence = packet.sequence
        if packet.flags & FLAG_SYN:
            sequence = (sequence + 1) & 0xFFFFFFFF
            if direction is None or not _is_same_start(direction, sequence):
                direction = self._replace(key, direction, sequence, packet, out)
        elif direction is None:
            if not packet.data and not packet.missing:
                return
            direction = self._replace(key, None, sequence, packet, out)
        start = direction.unwrap(sequence)
        if packet.flags & FLAG_RST:
            if abs(start - direction.next) <= MAX_REPEAT and not direction.ended:
                self._end(key, direction, packet.packet, packet.time, out)
            return
        beyond = direction.ended and start >= direction.next
        if (packet.data or packet.missing) and (direction.next - start > MAX_REPEAT or beyond):
            direction = self._replace(key, direction, sequence, packet, out)
            start = direction.next
        if packet.flags & FLAG_FIN and direction.end is None:
            direction.end = start + len(packet.data) + packet.missing
        self._advance(key, direction, start, packet, out)

    def _replace(
        self, key: Key, old: _Direction | None, sequence: int, packet: TcpPacket, out: list[Segment]
    ) -> _Direction:
        """Begin a direction; one that used the same ports hands on what waited, and ends."""
        if old is not None:
            self._renewed.add(key)
            if not old.ended:
                self._end(key, old, packet.packet, packet.time, out)
        self._directions.pop(key, None)
        if len(self._directions) >= MAX_DIRECTIONS:
            self._forget(next(iter(self._directions)))
        direction = self._directions[key] = _Direction(sequence, syn=packet.flags & FLAG_SYN != 0)
        return direction

    def _advance(self, key: Key, direction: _Direction, start: int, packet: TcpPacket, out: list[Segment]) -> None:
        """Take the data that begins at sequence number `start`: hand it on, hold it, or drop what is known."""
        data = packet.data
        behind = start + len(data) + packet.missing
        known = direction.next - start
        if known > 0:
            self.retransmitted += min(known, len(data))
            data = data[known:]
            start = direction.next
        if data and (start > direction.next or direction.held):
            self._hold(key, direction, start, packet, data, out)
            self._release(key, direction, packet.packet, out)
        elif start == direction.next < behind:
            self._directions[key] = self._directions.pop(key)
            direction.next += len(data)
            if data:
                self._emit(key, direction, packet.packet, packet.time, data, out)
            if not direction.held:
                self._lose(direction, behind)
        self._finish(key, direction, packet.packet, packet.time, out)

    def _hold(
        self, key: Key, direction: _Direction, start: int, packet: TcpPacket, data: bytes, out: list[Segment]
    ) -> None:
        cost = direction.held.cost
        added = direction.held.add(start, data, packet.time)
        self.retransmitted += len(data) - added
        self._held += direction.held.cost - cost
        if not direction.waits:
            self._wait(key, direction)
        if direction.held.cost > MAX_HELD:
            self._give_up(key, direction, packet.packet, out)
        while self._held > MAX_HELD_TOTAL:
            self._give_up_first(packet.packet, out)

    def _wait(self, key: Key, direction: _Direction) -> None:
        """Set the deadline of the hole before what is held, if anything is."""
        direction.waits = 0
        if direction.held:
            direction.waits = direction.held.oldest + MAX_WAIT
            heappush(self._deadlines, (direction.waits, key))

    def _release(self, key: Key, direction: _Direction, packet: int, out: list[Segment]) -> None:
        """Hand on what waited and now follows."""
        held = direction.held
        cost = held.cost
        while (piece := held.first()) is not None and piece.start <= direction.next:
            held.pop()
            data = piece.data[direction.next - piece.start :]
            self.retransmitted += len(piece.data) - len(data)
            if data:
                direction.next += len(data)
                self._emit(key, direction, packet, piece.time, data, out)
        self._held -= cost - held.cost
        if cost != held.cost:
            self._wait(key, direction)

    def _give_up(self, key: Key, direction: _Direction, packet: int, out: list[Segment]) -> None:
        """The hole before what waits will not be filled: report it as lost."""
        piece = direction.held.first()
        if piece is not None:
            self._lose(direction, piece.start)
            self._release(key, direction, packet, out)
            self._finish(key, direction, packet, piece.time, out)

    def _give_up_first(self, packet: int, out: list[Segment]) -> None:
        deadline, key = heappop(self._deadlines)
        direction = self._directions.get(key)
        if direction is not None and direction.waits == deadline:
            self._give_up(key, direction, packet, out)

    def _expire(self, time: Int64, first: int, behind: int, out: list[Segment]) -> None:
        """Give up the holes that are due at one of the packets `first` to `behind` - 1, at that very packet."""
        while self._deadlines:
            due = np.flatnonzero(time[first:behind] >= self._deadlines[0][0])
            if not len(due):
                return
            self._give_up_first(first + int(due[0]), out)

    def _lose(self, direction: _Direction, behind: int) -> None:
        lost = behind - direction.next
        self.lost += lost
        direction.lost += lost
        direction.next = behind

    def _emit(self, key: Key, direction: _Direction, packet: int, time: int, data: bytes, out: list[Segment]) -> None:
        start = not direction.started
        out.append(Segment(packet, time, *key, data, direction.lost, start=start, end=False))
        direction.started = True
        direction.lost = 0

    def _finish(self, key: Key, direction: _Direction, packet: int, time: int, out: list[Segment]) -> None:
        """Report the end once everything before the FIN was handed on."""
        if direction.end is not None and direction.next >= direction.end and not direction.ended:
            self._end(key, direction, packet, time, out)

    def _end(self, key: Key, direction: _Direction, packet: int, time: int, out: list[Segment]) -> None:
        while (piece := direction.held.first()) is not None:
            self._lose(direction, piece.start)
            self._release(key, direction, packet, out)
        direction.ended = True
        if direction.started:
            out.append(Segment(packet, time, *key, b"", direction.lost, start=False, end=True))
            direction.lost = 0

    def _forget(self, key: Key) -> None:
        direction = self._directions.pop(key, None)
        if direction is not None:
            self._held -= direction.held.cost


def _is_same_start(direction: _Direction, sequence: int) -> bool:
    """Whether a SYN before `sequence` is the one of this direction: seen again, or captured after its first octets."""
    ahead = (direction.first - sequence) & 0xFFFFFFFF
    return ahead == 0 or (not direction.syn and ahead <= MAX_LATE_SYN)


def _packets(datagrams: DatagramBatch, rows: Int64, ignored: IgnoredDirections) -> list[TcpPacket]:
    chosen = np.empty((len(rows), 6), np.int64)
    columns = datagrams
    buffer = read_only(columns.packets.buffer)
    count = select_segments(
        buffer,
        rows,
        columns.payload,
        columns.length,
        columns.missing,
        columns.source_high,
        columns.source_low,
        columns.destination_high,
        columns.destination_low,
        columns.source_port,
        columns.destination_port,
        columns.realm,
        ignored.keys,
        ignored.state,
        chosen,
    )
    chosen = chosen[:count]
    rows = chosen[:, 0]
    sources = _endpoints(columns.source_high, columns.source_low, columns.source_port, rows)
    destinations = _endpoints(columns.destination_high, columns.destination_low, columns.destination_port, rows)
    times, realms = columns.packets.time[rows].tolist(), columns.realm[rows].tolist()
    fields = zip(chosen.tolist(), times, sources, destinations, realms, strict=True)
    return [
        TcpPacket(row, time, source, destination, realm, sequence, flags, buffer[at : at + size].tobytes(), lost)
        for (row, sequence, flags, at, size, lost), time, source, destination, realm in fields
    ]


def _endpoints(high: UInt64, low: UInt64, port: UInt16, rows: Int64) -> Iterator[Endpoint]:
    return map(Endpoint, high[rows].tolist(), low[rows].tolist(), port[rows].tolist())


def endpoints(datagrams: DatagramBatch, row: int) -> tuple[Endpoint, Endpoint]:
    """Source and destination of a row."""
    return (
        Endpoint(int(datagrams.source_high[row]), int(datagrams.source_low[row]), int(datagrams.source_port[row])),
        Endpoint(
            int(datagrams.destination_high[row]),
            int(datagrams.destination_low[row]),
            int(datagrams.destination_port[row]),
        ),
    )
