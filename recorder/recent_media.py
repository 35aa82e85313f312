"""Media of the last seconds, in memory, for calls whose packets turn out to be wanted after they have passed.

In: every batch, when it has been ingested. Out: the packets of chosen calls, with their capture times. Bounded in size
and in time, the oldest second goes first. It holds all UDP that is not SIP, for who wants it is known only when it has
passed. One thread uses it.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.batch import KIND_UDP, DatagramBatch, Int32, Int64, PacketBatch, UInt8
from decoders.demux import SIP, SIP_IGNORED
from recorder.engine import Prepared
from recorder.live_claims import LiveClaims
from recorder.packet_file import blocks_of

MAX_OCTETS = 96 << 20
MAX_AGE = 10_000_000_000
"""ns: as long as a server that died may have kept what it had not written, and its end may have gone unnoticed."""
_SECOND = 1_000_000_000
_ROW = 128
"""Octets of a packet's columns, rounded up."""


class Block(NamedTuple):
    """A packet as a block of pcapng."""

    time: int
    """Capture time, ns."""
    octets: memoryview


@dataclass(frozen=True, slots=True)
class _Piece:
    """Packets of a batch, or of a second: columns without their frames, and the same packets as blocks."""

    datagrams: DatagramBatch
    kinds: UInt8
    octets: UInt8
    begins: Int64
    """Of each block in `octets`, and at the end where the last ends."""

    @property
    def size(self) -> int:
        """Octets in memory."""
        return len(self.octets) + _ROW * len(self.kinds)


class RecentMedia:
    """The media of the last seconds."""

    def __init__(self, max_octets: int = MAX_OCTETS, max_age: int = MAX_AGE) -> None:
        self._most = max_octets
        self._max_age = max_age
        self._seconds: deque[_Piece] = deque()
        self._pieces: list[_Piece] = []
        """Of the second in progress, which began at..."""
        self._began = 0
        self._octets = 0

    def add(self, batch: Prepared, rows: Int64, interfaces: Int32, stamps: Int64) -> None:
        """Hold `rows` of a batch, `media_rows`; `interfaces` are those of the rows, `stamps` the times of all rows of
        the batch that their blocks get, ns."""
        if len(rows) == 0:
            return
        datagrams, kinds, _ = batch
        octets, begins = blocks_of(datagrams.packets, rows, interfaces, stamps)
        first = int(datagrams.packets.time[rows[0]])
        if self._pieces and not 0 <= first - self._began < _SECOND:
            self._seconds.append(_joined(self._pieces))
            self._pieces = []
        if not self._pieces:
            self._began = first
        columns = _columns([datagrams], lambda column: column[0][rows])
        self._pieces.append(_Piece(columns, kinds[rows], octets, begins))
        self._octets += self._pieces[-1].size
        while self._seconds and (self._octets > self._most or self._is_old(self._seconds[0], first)):
            self._octets -= self._seconds.popleft().size
        if self._octets > self._most:
            self._pieces, self._octets = [], 0

    def of(self, claims: LiveClaims, calls: Collection[int]) -> dict[int, list[Block]]:
        """The packets of calls (by `Call.index`), whose claims `claims` has, each in order of capture."""
        if len(self._pieces) > 1:
            self._pieces = [_joined(self._pieces)]
        found: dict[int, list[Block]] = {call: [] for call in calls}
        for piece in (*self._seconds, *self._pieces):
            for call, block in _taken(piece, claims, calls):
                found[call].append(block)
        return found

    def _is_old(self, piece: _Piece, now: int) -> bool:
        return bool(now - int(piece.datagrams.packets.time[-1]) > self._max_age)


def media_rows(batch: Prepared) -> Int64:
    """Rows of UDP that are not SIP."""
    kinds = batch.kinds
    rows: Int64 = np.flatnonzero((batch.datagrams.kind == KIND_UDP) & (kinds != SIP) & (kinds != SIP_IGNORED))
    return rows


def _taken(piece: _Piece, claims: LiveClaims, calls: Collection[int]) -> Iterator[tuple[int, Block]]:
    rows, owners = claims.rows(piece.datagrams, piece.kinds, calls)
    order = np.argsort(rows, kind="stable")
    rows, owners = rows[order], owners[order]
    view, times = piece.octets.data, piece.datagrams.packets.time[rows].tolist()
    begins, ends = piece.begins[rows].tolist(), piece.begins[rows + 1].tolist()
    for call, time, begin, end in zip(owners.tolist(), times, begins, ends, strict=True):
        yield call, Block(time, view[begin:end])


def _joined(pieces: list[_Piece]) -> _Piece:
    """Pieces as one."""
    sizes = np.concatenate([np.diff(piece.begins) for piece in pieces])
    begins = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=begins[1:])
    return _Piece(
        _columns([piece.datagrams for piece in pieces], np.concatenate),
        np.concatenate([piece.kinds for piece in pieces]),
        np.concatenate([piece.octets for piece in pieces]),
        begins,
    )


def _columns(batches: list[DatagramBatch], made: Callable[[list[NDArray[Any]]], NDArray[Any]]) -> DatagramBatch:
    """A batch whose columns are made of those of others. It has no buffer, for that is the source's."""
    packets = [each.packets for each in batches]
    inner = {each.name: made([getattr(one, each.name) for one in packets]) for each in fields(PacketBatch)[1:]}
    outer = {each.name: made([getattr(one, each.name) for one in batches]) for each in fields(DatagramBatch)[1:]}
    return DatagramBatch(PacketBatch(np.zeros(0, np.uint8), **inner), **outer)
