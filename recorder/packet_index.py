"""Which packets belong to which call, noted while the engine runs, for a second reading of the captures.

In: messages and finished calls, as an observer of the engine. Out: `Index`: a log of messages in packet order, and
claims of calls on flows, by time. Both are kept in files; what stays in memory is some hundred octets for each call.

A message is found again by capture and frame number, a flow by a key (a 64-bit hash of its endpoints and realm). RTP
flows are claimed with the opposite direction and with the ports of RTCP, from a little before their first packet (STUN,
DTLS) to a little after their last. A WebSocket is claimed from its beginning, as its messages cannot be read without;
a TLS connection is claimed whole up to the end of the call, for its keys are no use otherwise. Plain TCP is left to the
second reading, which sees what segments each message came in.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import IO, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from capture.address import Endpoint
from capture.batch import Int32, Int64, UInt16, UInt32, UInt64
from recorder.messages import Message
from recorder.model import Call, Transport
from recorder.sightings import FlowSighting

BEFORE = 5_000_000_000
"""ns before its first packet that a flow may be claimed."""
AFTER = 1_000_000_000
"""ns after its last packet."""
LATE = 32_000_000_000
"""ns after a call's end that its messages may still come (timer B, RFC 3261)."""
MAX_CONNECTIONS = 20_000
"""Connections whose beginning is remembered; the one unused for longest goes first."""

UDP, TCP = 17, 6

MESSAGE = np.dtype([("capture", "<i4"), ("number", "<i8"), ("call", "<u8"), ("direction", "<u8")])
"""A row of the log; `direction` is the key of the TCP direction that carried the message, 0 for all else."""
CLAIM = np.dtype([("key", "<u8"), ("begin", "<i8"), ("end", "<i8"), ("first", "<i8"), ("last", "<i8"), ("slot", "<i4")])
"""A row of the claims: a call claims the packets of a flow from `begin` to `end` (ns, inclusive); those from `first` to
`last` are its own beyond doubt."""

_K = TypeVar("_K")
_V = TypeVar("_V")
_Connection = tuple[Endpoint, Endpoint, int]


def flow_keys(
    protocol: int,
    source: tuple[UInt64, UInt64, UInt16],
    destination: tuple[UInt64, UInt64, UInt16],
    realm: UInt32,
) -> UInt64:
    """Keys of rows of endpoints (address high, address low, port), all of shape (n,); never 0."""
    key: UInt64 = np.full(len(realm), protocol, np.uint64)
    columns: tuple[NDArray[np.unsignedinteger], ...] = (*source, *destination, realm)
    for column in columns:
        key = key ^ column.astype(np.uint64)
        key = key * np.uint64(0x9E3779B97F4A7C15)
        key = key ^ (key >> np.uint64(29))
        key = key * np.uint64(0xBF58476D1CE4E5B9)
        key = key ^ (key >> np.uint64(32))
    return key | np.uint64(1)


def flow_key(protocol: int, source: Endpoint, destination: Endpoint, realm: int) -> int:
    """Key of one flow."""
    ends = [
        (np.array([e.high], np.uint64), np.array([e.low], np.uint64), np.array([e.port], np.uint16))
        for e in (source, destination)
    ]
    return int(flow_keys(protocol, ends[0], ends[1], np.array([realm], np.uint32))[0])


def call_key(call_id: str) -> int:
    """Key of a Call-ID."""
    return int.from_bytes(blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class KeptCall:
    """A call whose packets are kept; its slot is its place among them."""

    id: UUID
    call_id: str | None
    key: int
    started: int
    until: int
    """Until when its messages may come, ns."""


@dataclass(slots=True)
class Index:
    """An observer of the engine that notes what belongs to which call."""

    directory: Path
    calls: list[KeptCall] = field(default_factory=list)
    _log: IO[bytes] | None = None
    _claims: IO[bytes] | None = None
    _finished: tuple[int, Sequence[FlowSighting]] = (-1, ())
    _begun: "OrderedDict[_Connection, int]" = field(default_factory=OrderedDict)
    """Connection of a WebSocket or of TLS -> time of its first message."""
    _connections: "OrderedDict[int, dict[_Connection, Transport]]" = field(default_factory=OrderedDict)
    """Key of a Call-ID -> such connections that carried its messages."""
    _directions: dict[_Connection, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._log = (self.directory / "packet-messages").open("w+b")
        self._claims = (self.directory / "packet-claims").open("w+b")

    def heard(self, message: Message) -> None:
        """Note where a message is."""
        seen, call_id = message.seen, message.parsed.call_id
        assert self._log is not None
        key = call_key(call_id) if call_id else 0
        connection = (seen.source, seen.destination, seen.realm)
        direction = self._direction(connection) if seen.transport is Transport.TCP else 0
        self._log.write(np.array([(seen.capture, seen.packet, key, direction)], MESSAGE).tobytes())
        if seen.transport in (Transport.WS, Transport.TLS):
            _remember(self._begun, connection, self._begun.get(connection, seen.time))
            known = self._connections.get(key, {})
            known[connection] = seen.transport
            _remember(self._connections, key, known)

    def finished(self, call: Call, flows: Sequence[FlowSighting]) -> None:
        """Hold the flows of a call until it is told whether it will be recorded."""
        self._finished = (call.index, flows)

    def keep(self, call: Call) -> None:
        """The call that has just finished will be recorded: claim its flows."""
        index, flows = self._finished
        self._finished = (-1, ())
        assert call.id is not None
        assert self._claims is not None
        key = call_key(call.call_id) if call.call_id else 0
        slot = len(self.calls)
        self.calls.append(KeptCall(call.id, call.call_id, key, call.started, call.last_seen + LATE))
        claims = list(_media_claims(flows if index == call.index else ()))
        claims += self._connection_claims(call, key)
        rows = [(*claim, slot) for claim in _joined(claims)]
        self._claims.write(np.array(rows, CLAIM).tobytes())

    def messages(self) -> NDArray[np.void]:
        """The log."""
        return _load(self._log, MESSAGE)

    def claims(self) -> "Claims":
        """The claims, ready for use."""
        return Claims.of(_load(self._claims, CLAIM))

    def close(self) -> None:
        """Remove the files."""
        for file in (self._log, self._claims):
            if file is not None and not file.closed:
                file.close()
                Path(file.name).unlink(missing_ok=True)

    def _direction(self, connection: _Connection) -> int:
        key = self._directions.get(connection)
        if key is None:
            if len(self._directions) >= MAX_CONNECTIONS:
                self._directions.clear()
            key = self._directions[connection] = flow_key(TCP, *connection)
        return key

    def _connection_claims(self, call: Call, key: int) -> Iterable["_Claim"]:
        """Claims on the connections that cannot be read in part."""
        for (source, destination, realm), transport in self._connections.pop(key, {}).items():
            begun = self._begun.get((source, destination, realm), call.started)
            end = call.last_seen + AFTER
            spans = [(begun - BEFORE, begun), (call.started, end)] if transport is Transport.WS else [(0, end)]
            for one, other in ((source, destination), (destination, source)):
                way = flow_key(TCP, one, other, realm)
                yield from (_Claim(way, begin, until, begin, until) for begin, until in spans)


@dataclass(slots=True)
class Claims:
    """Claims sorted by key and beginning."""

    keys: UInt64
    """Distinct keys, ascending."""
    starts: Int64
    """Claims of keys[i] are starts[i] to starts[i + 1]."""
    begin: Int64
    end: Int64
    furthest: Int64
    """Latest end among the claims of the same key up to each."""
    slot: Int32

    @classmethod
    def of(cls, rows: NDArray[np.void]) -> "Claims":
        """Sort claims; the margins of two calls that follow each other on one flow give way to their own packets."""
        rows = rows[np.lexsort((rows["slot"], rows["first"], rows["key"]))]
        begin, end = rows["begin"].copy(), rows["end"].copy()
        following = (rows["key"][1:] == rows["key"][:-1]) & (rows["last"][:-1] < rows["first"][1:])
        end[:-1] = np.where(following, np.minimum(end[:-1], rows["first"][1:] - 1), end[:-1])
        begin[1:] = np.where(following, np.maximum(begin[1:], rows["last"][:-1] + 1), begin[1:])
        order = np.lexsort((begin, rows["key"]))
        keys, starts = np.unique(rows["key"], return_index=True)
        furthest = end[order]
        bounds = np.append(starts, len(rows)).astype(np.int64)
        for first, behind in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if behind - first > 1:
                np.maximum.accumulate(furthest[first:behind], out=furthest[first:behind])
        return cls(keys, bounds, begin[order], end[order], furthest, rows["slot"][order].copy())

    def find(self, keys: UInt64, times: Int64) -> tuple[Int64, Int32]:
        """(row, slot) of every claim that holds for rows of keys and times, ordered by row and slot."""
        if len(self.keys) == 0 or len(keys) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int32)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        rows = np.flatnonzero(self.keys[place] == keys)
        found_rows, found_slots = [rows[:0]], [self.slot[:0]]
        times, first = times[rows], self.starts[place[rows]]
        at = self._begun(first, self.starts[place[rows] + 1], times) - 1
        while len(rows):
            open_ = (at >= first) & (self.furthest[np.maximum(at, 0)] >= times)
            rows, times, first, at = rows[open_], times[open_], first[open_], at[open_]
            holds = self.end[at] >= times
            found_rows.append(rows[holds])
            found_slots.append(self.slot[at[holds]])
            at = at - 1
        row, slot = np.concatenate(found_rows), np.concatenate(found_slots)
        order = np.lexsort((slot, row))
        return row[order], slot[order]

    def _begun(self, low: Int64, high: Int64, times: Int64) -> Int64:
        """Behind the last claim in [low, high) that begins at or before each time: a binary search of all at once."""
        low, high = low.copy(), high.copy()
        while (searching := low < high).any():
            middle = (low + high) // 2
            begun = searching & (self.begin[np.minimum(middle, len(self.begin) - 1)] <= times)
            low = np.where(begun, middle + 1, low)
            high = np.where(searching & ~begun, middle, high)
        return low


@dataclass(frozen=True, slots=True)
class _Claim:
    key: int
    begin: int
    end: int
    first: int
    last: int


def _media_claims(flows: Iterable[FlowSighting]) -> Iterable[_Claim]:
    """Claims of a call on its RTP, on the opposite directions, and on the RTCP of both."""
    for flow in flows:
        begin = min(flow.first, max(flow.since, flow.first - BEFORE))
        ways = [(flow.source, flow.destination), (_next(flow.source), _next(flow.destination))]
        ways += [flow.rtcp] if flow.rtcp is not None else []
        for source, destination in ways:
            for one, other in ((source, destination), (destination, source)):
                key = flow_key(UDP, one, other, flow.realm)
                yield _Claim(key, begin, flow.last + AFTER, flow.first, flow.last)


def _next(endpoint: Endpoint) -> Endpoint:
    return endpoint._replace(port=min(endpoint.port + 1, 0xFFFF))


def _joined(claims: Iterable[_Claim]) -> Iterable[tuple[int, int, int, int, int]]:
    """Claims of one call; those on one flow that overlap become one."""
    last: _Claim | None = None
    for claim in sorted(claims, key=lambda c: (c.key, c.begin, c.end)):
        if last is not None and last.key == claim.key and claim.begin <= last.end:
            end, first, until = max(last.end, claim.end), min(last.first, claim.first), max(last.last, claim.last)
            last = _Claim(last.key, last.begin, end, first, until)
            continue
        if last is not None:
            yield last.key, last.begin, last.end, last.first, last.last
        last = claim
    if last is not None:
        yield last.key, last.begin, last.end, last.first, last.last


def _remember(known: "OrderedDict[_K, _V]", key: _K, value: _V) -> None:
    """Enter or renew; what was unused for longest gives way."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > MAX_CONNECTIONS:
        known.popitem(last=False)


def _load(file: IO[bytes] | None, kind: np.dtype[np.void]) -> NDArray[np.void]:
    """All rows of a file, mapped."""
    assert file is not None
    file.flush()
    size = file.tell()
    if size == 0:
        return np.zeros(0, kind)
    return np.memmap(file.name, kind, "r", shape=(size // kind.itemsize,))
