"""Several captures as one, in time order.

In: feeds, each with the time at which it begins and its packets batch by batch. Out: batches of packets of all. The
order is a total one: by time (where times step back within a feed, the latest so far), then by the feed's rank, then by
the order within the feed; so it depends neither on batch sizes nor on how much of a feed is read at once. A feed is
opened when its first packet is due; where only one is due its batches go through as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from capture._merge_kernels import DRAINED, HORIZON, order_packets
from capture.batch import Bytes, Int64, PacketBatch
from capture.records import BATCH_SPAN

NEVER = np.iinfo(np.int64).max
"""When a feed without packets begins."""
CROWD = 64
"""With more feeds at once than this, files are not kept open."""

_TABLE_SIZE = 1 << 19
"""Times looked at ahead, over all feeds."""
_FEWEST_AHEAD = 32
_MOST_AHEAD = 8192
_FEWEST_OCTETS = 16 << 10


class Feed(Protocol):
    """One capture to be merged."""

    rank: int
    """Its place among the captures, which decides where times are equal."""
    start: int
    """Time of its first packet, ns; `NEVER` where it has none."""

    @property
    def live(self) -> bool:
        """Whether asking for more packets may take a while."""
        ...

    def open(self, crowded: bool) -> None:
        """To be called before the first read; `crowded` where more than `CROWD` are open."""
        ...

    def read(self, limit: int, span: int) -> PacketBatch | None:
        """Next packets, at least one and at most `limit`, over some `span` octets; None when there are no more."""
        ...


@dataclass(slots=True, eq=False)
class _Active:
    """A feed that is open, and the batch of it that is being used up."""

    feed: Feed
    batch: PacketBatch
    keys: Int64
    """Times of the batch, each raised to the latest so far: they never fall."""
    row: int = 0
    """First unused row of the batch."""
    columns: Int64 | None = None
    """The batch's columns as one array, made when the batch is interleaved with others."""

    def table(self) -> Int64:
        """Shape (7, n): offset, time, captured, wire, link type, number, capture."""
        if self.columns is None:
            batch = self.batch
            self.columns = np.array(
                (
                    batch.offset,
                    batch.time,
                    batch.captured,
                    batch.wire,
                    batch.link_type,
                    batch.number,
                    batch.capture,
                ),
                np.int64,
            )
        return self.columns


@dataclass(slots=True, eq=False)
class _Part:
    """Rows of a batch that go into the next merged one."""

    slot: int
    columns: Int64
    buffer: Bytes
    """From the first frame's first octet to the last frame's last."""
    first: int
    """Where that begins in the batch's buffer."""


def merge(feeds: Sequence[Feed], batch_size: int) -> Iterator[PacketBatch]:
    """Packets of all feeds in order, in batches of `batch_size` at most."""
    waiting = sorted(feeds, key=lambda feed: (feed.start, feed.rank), reverse=True)
    actives: list[_Active] = []
    while waiting or actives:
        if not actives:
            actives += _activate(waiting.pop(), 0, batch_size)
        elif len(actives) == 1:
            yield from _pass_through(actives, waiting, batch_size)
        else:
            yield from _Interleaving(actives, waiting, batch_size).batches()


def _activate(feed: Feed, others: int, limit: int, span: int = BATCH_SPAN) -> list[_Active]:
    feed.open(crowded=others >= CROWD)
    batch = feed.read(limit, span)
    return [] if batch is None else [_Active(feed, batch, np.maximum.accumulate(batch.time))]


def _refill(active: _Active, limit: int, span: int) -> bool:
    """Take the feed's next batch; False where there is none."""
    batch = active.feed.read(limit, span)
    if batch is None:
        return False
    latest = active.keys[-1]
    active.batch, active.row, active.columns = batch, 0, None
    active.keys = np.maximum.accumulate(np.maximum(batch.time, latest))
    return True


def _pass_through(actives: list[_Active], waiting: list[Feed], batch_size: int) -> Iterator[PacketBatch]:
    """Batches of the only open feed as they are, until it ends or another one is due."""
    active = actives[0]
    while True:
        end = len(active.keys)
        if waiting:
            other = waiting[-1]
            # At equal times the smaller rank goes first.
            due = other.start + 1 if active.feed.rank < other.rank < NEVER and other.start < NEVER else other.start
            end = int(np.searchsorted(active.keys, due))
        if end > active.row:
            for begin in range(active.row, end, batch_size):
                yield _rows(active.batch, begin, min(begin + batch_size, end))
            active.row = end
        if end < len(active.keys):
            actives += _activate(waiting.pop(), 1, batch_size)
            return
        if not _refill(active, batch_size, BATCH_SPAN):
            actives.clear()
            return


class _Interleaving:
    """Two or more feeds at once, until one or none is left."""

    def __init__(self, actives: list[_Active], waiting: list[Feed], batch_size: int) -> None:
        """`actives` holds at the end what is left."""
        self._actives: list[_Active | None] = list(actives)
        self._left = actives
        self._waiting = waiting
        self._batch_size = batch_size
        self._slots = np.empty(batch_size, np.int64)
        self._parts: list[_Part] = []
        self._octets = 0
        self._open = len(actives)
        self._size = -1
        self._allot(4)

    def batches(self) -> Iterator[PacketBatch]:
        """Merged batches."""
        filled = 0
        while self._open > 1:
            horizon = self._waiting[-1] if self._waiting else None
            filled, reason, self._size = order_packets(
                self._times,
                self._counts,
                self._cursors,
                self._ranks,
                self._heap,
                self._size,
                horizon.start if horizon else NEVER,
                horizon.rank if horizon else NEVER,
                self._slots,
                filled,
            )
            if reason == HORIZON:
                self._admit(self._waiting.pop())
                continue
            slot = int(self._heap[0])
            if reason == DRAINED:
                self._take(slot)
            if filled == self._batch_size or self._octets >= BATCH_SPAN or self._may_wait(slot):
                # What is in order goes out before a feed is asked for more, which may take a while.
                yield self._gather(filled)
                filled = 0
            if reason == DRAINED:
                self._load(slot)
        if filled:
            yield self._gather(filled)
        self._left[:] = [active for active in self._actives if active is not None]
        for slot, active in enumerate(self._actives):
            if active is not None:
                active.row += int(self._cursors[slot])

    def _may_wait(self, slot: int) -> bool:
        """Whether a feed's next packets are not there yet, and nobody knows when they will be."""
        active = self._actives[slot]
        shown_all = active is not None and active.row + self._counts[slot] == len(active.keys)
        return active is not None and active.feed.live and shown_all

    def _allot(self, room: int) -> None:
        """Make tables for `room` feeds and put the open ones in."""
        self._width = max(_FEWEST_AHEAD, min(_MOST_AHEAD, _TABLE_SIZE // room))
        self._times = np.empty((room, self._width), np.int64)
        self._counts = np.zeros(room, np.int64)
        self._cursors = np.zeros(room, np.int64)
        self._taken = np.zeros(room, np.int64)
        self._ranks = np.zeros(room, np.int64)
        self._heap = np.zeros(room, np.int64)
        self._size = -1
        self._actives += [None] * (room - len(self._actives))
        self._free = [slot for slot, active in enumerate(self._actives) if active is None]
        for slot, active in enumerate(self._actives):
            if active is not None:
                self._show(slot, active)

    def _show(self, slot: int, active: _Active) -> None:
        """Put the times of a batch's next rows in the table."""
        keys = active.keys[active.row : active.row + self._width]
        self._times[slot, : len(keys)] = keys
        self._counts[slot] = len(keys)
        self._cursors[slot] = self._taken[slot] = 0
        self._ranks[slot] = active.feed.rank

    def _take(self, slot: int) -> None:
        """Note for the next batch which rows of a feed were put in order."""
        active = self._actives[slot]
        assert active is not None
        begin, end = int(self._taken[slot]), int(self._cursors[slot])
        self._taken[slot] = end
        columns = active.table()[:, active.row + begin : active.row + end]
        first, last = int(columns[0, 0]), int(columns[0, -1]) + int(columns[2, -1])
        self._parts.append(_Part(slot, columns, active.batch.buffer[first:last], first))
        self._octets += last - first

    def _load(self, slot: int) -> None:
        """Fill a used-up row of the table, from the feed's batch or its next one; without a next one the feed goes."""
        active = self._actives[slot]
        assert active is not None
        active.row += int(self._counts[slot])
        limit, span = self._ration(self._open)
        if active.row < len(active.keys) or _refill(active, limit, span):
            self._show(slot, active)
            return
        self._actives[slot] = None
        self._free.append(slot)
        self._counts[slot] = self._cursors[slot] = self._taken[slot] = 0
        self._open -= 1

    def _admit(self, feed: Feed) -> None:
        """Open a feed whose first packet is due."""
        limit, span = self._ration(self._open + 1)
        for active in _activate(feed, self._open, limit, span):
            if not self._free:
                self._take_all()
                for slot, other in enumerate(self._actives):
                    if other is not None:
                        other.row += int(self._cursors[slot])
                self._allot(2 * len(self._actives))
            slot = self._free.pop()
            self._actives[slot] = active
            self._show(slot, active)
            self._open += 1
            self._size = -1

    def _ration(self, feeds: int) -> tuple[int, int]:
        """Packets and octets that one of so many feeds may be asked for at once."""
        return min(self._width, self._batch_size), max(_FEWEST_OCTETS, BATCH_SPAN // feeds)

    def _take_all(self) -> None:
        for slot in np.flatnonzero(self._cursors > self._taken).tolist():
            self._take(slot)

    def _gather(self, filled: int) -> PacketBatch:
        """The first `filled` packets in order as one batch over a buffer of their own."""
        self._take_all()
        self._parts.sort(key=lambda part: part.slot)
        order = np.empty(filled, np.int64)
        order[np.argsort(self._slots[:filled], kind="stable")] = np.arange(filled)
        batch = _concatenate(self._parts, order)
        self._parts = []
        self._octets = 0
        return batch


def _rows(batch: PacketBatch, begin: int, end: int) -> PacketBatch:
    """Part of a batch, over the same buffer."""
    if begin == 0 and end == len(batch):
        return batch
    rows = slice(begin, end)
    return PacketBatch(
        buffer=batch.buffer,
        time=batch.time[rows],
        offset=batch.offset[rows],
        captured=batch.captured[rows],
        wire=batch.wire[rows],
        link_type=batch.link_type[rows],
        number=batch.number[rows],
        capture=batch.capture[rows],
    )


def _concatenate(parts: list[_Part], order: Int64) -> PacketBatch:
    """Parts as one batch; row i of it is row `order[i]` of the parts one after another."""
    buffer = np.concatenate([part.buffer for part in parts])
    buffer.flags.writeable = False
    columns = np.concatenate([part.columns for part in parts], axis=1)
    begins = np.cumsum([0, *(len(part.buffer) for part in parts[:-1])])
    moves = begins - np.array([part.first for part in parts], np.int64)
    columns[0] += np.repeat(moves, [part.columns.shape[1] for part in parts])
    offset, time, captured, wire, link_type, number, capture = columns[:, order]
    return PacketBatch(
        buffer=buffer,
        time=time,
        offset=offset,
        captured=captured.astype(np.int32),
        wire=wire.astype(np.int32),
        link_type=link_type.astype(np.int32),
        number=number,
        capture=capture.astype(np.int32),
    )
