"""Whose a packet of media is, as it passes: the endpoints of the calls whose packets are kept.

In: what the registry says that these calls announced, the streams that the media engine found otherwise, and the
datagrams of a batch. Out: (row, call) of RTP, of RTCP, and of all else between the same ends (STUN, DTLS). A kernel
chooses rows; the registry is asked once for each flow, and once a second again. Keeps no packets.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from capture.address import Endpoint
from capture.batch import DatagramBatch, Int64, UInt8, UInt64
from capture.tcpstreams import endpoints
from recorder._live_packet_kernels import enter_places, find_places
from recorder.endpoints import EndpointRegistry
from recorder.packet_index import UDP, flow_keys

ASKED_EVERY = 1_000_000_000
"""ns of capture time for which an answer of the registry holds, while its calls are in progress."""
MAX_ANSWERS = 65_536
"""Answers that are remembered."""
LAID_OUT_EVERY = 100_000_000
"""ns of capture time between two times that they are laid out as columns."""
_WORD = (1 << 64) - 1

_K = TypeVar("_K")
Flow = tuple[Endpoint, Endpoint, int]
"""Source, destination, realm."""


def place_of(endpoint: Endpoint) -> int:
    """Hash of an address and port, as `find_places` makes it; never 0."""
    high, low, port = endpoint
    key = (high * 0x9E3779B97F4A7C15) ^ (low * 0xC2B2AE3D27D4EB4F) ^ (port * 0x165667B19E3779F9)
    key &= _WORD
    key = ((key ^ (key >> 32)) * 0xBF58476D1CE4E5B9) & _WORD
    return key ^ (key >> 29) | 1


def table_of(places: Iterable[int], count: int) -> UInt64:
    """The hash set that `find_places` asks."""
    table: UInt64 = np.zeros(max(16, 1 << (2 * count).bit_length()), np.uint64)
    enter_places(np.fromiter(places, np.uint64, count), table)
    return table


class _Answers(NamedTuple):
    """Answers as columns, for flows of at most one call; ascending by key."""

    keys: UInt64
    until: Int64
    calls: Int64
    """-1: nobody's."""

    def look_up(self, keys: UInt64, earliest: int, latest: int) -> tuple[Int64, NDArray[np.bool_]]:
        """The call of each flow, and whether that is known between two capture times."""
        if len(self.keys) == 0:
            return np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.bool_)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        until = self.until[at]
        known = (self.keys[at] == keys) & (until > latest) & (until <= earliest + ASKED_EVERY)
        return np.where(known, self.calls[at], -1), known


@dataclass(slots=True)
class _Claimed:
    """What one call claims."""

    places: dict[int, None] = field(default_factory=dict)
    rtcp: dict[Endpoint, Endpoint] = field(default_factory=dict)
    """Where its RTCP goes -> where the RTP of the same description goes."""
    flows: set[Flow] = field(default_factory=set)
    """Flows that no announcement explains."""
    over: bool = False


class LiveClaims:
    """The claims of all calls whose packets are kept, by `Call.index`."""

    def __init__(self, registry: EndpointRegistry) -> None:
        self._registry = registry
        self._calls: dict[int, _Claimed] = {}
        self._places: dict[int, int] = {}
        """Hash of a place -> how many calls claim it."""
        self._rtcp: dict[Endpoint, set[int]] = {}
        self._flows: dict[Flow, set[int]] = {}
        self._table: UInt64 | None = None
        self._answers: dict[int, tuple[int, tuple[int, ...]]] = {}
        """Key of a flow -> until when that is known, ns, and whose it is."""
        self._columns = _columns_of({})
        self._laid_out = 0
        """When that was, capture time, ns."""

    def announce(self, call: int, *, over: bool) -> None:
        """A call is new, or its signalling went on: read what it announces. `over`: it has ended."""
        claimed = self._calls.setdefault(call, _Claimed())
        claimed.over = over
        for announcement in self._registry.announced(call):
            where, rtcp = announcement.where, announcement.endpoint.rtcp
            self._place(claimed, where)
            if rtcp is not None and announcement.rank == 1:
                rtcp = where._replace(port=rtcp.port)
            if rtcp is not None and rtcp not in claimed.rtcp:
                self._place(claimed, rtcp)
                claimed.rtcp[rtcp] = where
                self._rtcp.setdefault(rtcp, set()).add(call)

    def claim_flow(self, call: int, source: Endpoint, destination: Endpoint, realm: int) -> None:
        """A flow is the call's by other signs than an announcement: both directions, and the RTCP of both."""
        claimed = self._calls.get(call)
        if claimed is None or (source, destination, realm) in claimed.flows:
            return
        for one, other in ((source, destination), (_next(source), _next(destination))):
            self._place(claimed, one)
            self._place(claimed, other)
            for flow in ((one, other, realm), (other, one, realm)):
                claimed.flows.add(flow)
                self._flows.setdefault(flow, set()).add(call)

    def forget(self, call: int) -> None:
        """A call claims nothing any more."""
        claimed = self._calls.pop(call, None)
        if claimed is None:
            return
        for place in claimed.places:
            self._places[place] -= 1
            if not self._places[place]:
                del self._places[place]
        _leave(self._rtcp, claimed.rtcp, call)
        _leave(self._flows, claimed.flows, call)
        self._table = None
        self._columns.until[self._columns.calls == call] = 0
        if not self._calls:
            self._answers.clear()
            self._columns = _columns_of({})

    def rows(self, datagrams: DatagramBatch, kinds: UInt8, only: Collection[int] | None = None) -> tuple[Int64, Int64]:
        """(row, call) of the media of all calls, or of some alone; ordered by neither."""
        table = self._asked(only)
        if table is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        rows = np.empty(len(datagrams), np.int64)
        count = find_places(
            datagrams.kind,
            kinds,
            datagrams.source_high,
            datagrams.source_low,
            datagrams.source_port,
            datagrams.destination_high,
            datagrams.destination_low,
            datagrams.destination_port,
            table,
            rows,
        )
        return self._owned(datagrams, rows[:count], only)

    def owners(self, source: Endpoint, destination: Endpoint, realm: int, at: int) -> tuple[int, ...]:
        """The calls that a flow at capture time `at` is of."""
        claims = self._registry.claims(source, destination, realm, at)
        if claims:
            return tuple(claim.by.call for claim in claims if claim.by.call in self._calls)
        found = []
        for call in sorted(self._rtcp.get(destination, set()) | self._rtcp.get(source, set())):
            rtcp = self._calls[call].rtcp
            media = rtcp.get(source, source), rtcp.get(destination, destination)
            if any(claim.by.call == call for claim in self._registry.claims(*media, realm, at)):
                found.append(call)
        return tuple(found) or tuple(sorted(self._flows.get((source, destination, realm), ())))

    def _asked(self, only: Collection[int] | None) -> UInt64 | None:
        if only is not None:
            places = {place for call in only if call in self._calls for place in self._calls[call].places}
            return table_of(places, len(places)) if places else None
        if self._table is None and self._places:
            self._table = table_of(self._places, len(self._places))
        return self._table

    def _owned(self, datagrams: DatagramBatch, rows: Int64, only: Collection[int] | None) -> tuple[Int64, Int64]:
        """Ask once for each flow whose it is."""
        source = datagrams.source_high[rows], datagrams.source_low[rows], datagrams.source_port[rows]
        destination = (
            datagrams.destination_high[rows],
            datagrams.destination_low[rows],
            datagrams.destination_port[rows],
        )
        keys, first, of = np.unique(
            flow_keys(UDP, source, destination, datagrams.realm[rows]), return_index=True, return_inverse=True
        )
        found_rows, found_calls = [rows[:0]], [rows[:0]]
        owner, known = self._known(datagrams, keys, rows, only)
        for place in np.flatnonzero(~known).tolist():
            calls = self._answer(datagrams, int(keys[place]), int(rows[first[place]]))
            if only is not None:
                calls = tuple(call for call in calls if call in only)
            if calls:
                owner[place] = calls[0]
            for call in calls[1:]:
                more = rows[of == place]
                found_rows.append(more)
                found_calls.append(np.full(len(more), call, np.int64))
        owners = owner[of]
        found_rows.append(rows[owners >= 0])
        found_calls.append(owners[owners >= 0])
        return np.concatenate(found_rows), np.concatenate(found_calls)

    def _known(
        self, datagrams: DatagramBatch, keys: UInt64, rows: Int64, only: Collection[int] | None
    ) -> tuple[Int64, NDArray[np.bool_]]:
        """Whose flows are, as far as that was asked before."""
        if only is not None or len(rows) == 0:
            return np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.bool_)
        times = datagrams.packets.time[rows]
        earliest, latest = int(times.min()), int(times.max())
        if not 0 <= latest - self._laid_out < LAID_OUT_EVERY:
            self._laid_out = latest
            self._columns = _columns_of({k: a for k, a in self._answers.items() if self._calls.keys() >= {*a[1]}})
        return self._columns.look_up(keys, earliest, latest)

    def _answer(self, datagrams: DatagramBatch, key: int, row: int) -> tuple[int, ...]:
        at = int(datagrams.packets.time[row])
        until, calls = self._answers.get(key, (0, ()))
        if at < until <= at + ASKED_EVERY and all(call in self._calls for call in calls):
            return calls
        calls = self.owners(*endpoints(datagrams, row), int(datagrams.realm[row]), at)
        # Ports of a call that is over may be another's at any moment.
        if not any(self._calls[call].over for call in calls):
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[key] = (at + ASKED_EVERY, calls)
        return calls

    def _place(self, claimed: _Claimed, endpoint: Endpoint) -> None:
        place = place_of(endpoint)
        if place not in claimed.places:
            claimed.places[place] = None
            self._places[place] = self._places.get(place, 0) + 1
            self._table = None


def _columns_of(answers: Mapping[int, tuple[int, tuple[int, ...]]]) -> _Answers:
    of_one = sorted((key, until, *calls, -1) for key, (until, calls) in answers.items() if len(calls) < 2)
    return _Answers(
        np.array([each[0] for each in of_one], np.uint64),
        np.array([each[1] for each in of_one], np.int64),
        np.array([each[2] for each in of_one], np.int64),
    )


def _leave(known: dict[_K, set[int]], keys: Iterable[_K], call: int) -> None:
    for key in keys:
        known[key].discard(call)
        if not known[key]:
            del known[key]


def _next(endpoint: Endpoint) -> Endpoint:
    return endpoint._replace(port=min(endpoint.port + 1, 0xFFFF))
