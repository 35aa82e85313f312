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


@dataclass(slots=True)
class _Active:
    """A feed that is open, and the batch of it that is being used up."""

    feed: Feed
    batch: PacketBatch
    keys: Int64
    """Times of the batch, each raised to the latest so far: they never fall."""
    row: int = 0
    """First unused row of the batch."""


@dataclass(slots=True)
class _Part:
    """Rows of a batch that go into the next merged one."""

    slot: int
    batch: PacketBatch
    begin: int
    end: int


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
    active.batch, active.row = batch, 0
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
        """`actives` is emptied and, at the end, holds what is left."""
        self._actives: list[_Active | None] = list(actives)
        self._left = actives
        self._waiting = waiting
        self._batch_size = batch_size
        self._slots = np.empty(batch_size, np.int64)
        self._parts: list[_Part] = []
        self._octets = 0
        self._open = len(actives)
        self._allot(4)

    def batches(self) -> Iterator[PacketBatch]:
        """Merged batches."""
        filled = 0
        while self._open > 1:
            horizon = self._waiting[-1] if self._waiting else None
            filled, reason, slot = order_packets(
                self._times,
                self._counts,
                self._cursors,
                self._ranks,
                self._heap,
                horizon.start if horizon else NEVER,
                horizon.rank if horizon else NEVER,
                self._slots,
                filled,
            )
            if reason == HORIZON:
                self._admit(self._waiting.pop())
            elif reason == DRAINED:
                self._take(slot)
                if self._octets < BATCH_SPAN and filled < self._batch_size and not self._may_wait(slot):
                    self._load(slot)
                    continue
                # What is in order goes out before a feed is asked for more, which may take a while.
                yield self._gather(filled)
                filled = 0
                self._load(slot)
            else:
                yield self._gather(filled)
                filled = 0
        if filled:
            yield self._gather(filled)
        self._leave()

    def _may_wait(self, slot: int) -> bool:
        """Whether the next packets of a feed are not there yet."""
        active = self._actives[slot]
        return active is not None and active.feed.live and active.row == len(active.keys)

    def _allot(self, room: int) -> None:
        """Make tables for `room` feeds and put the open ones in."""
        self._width = max(_FEWEST_AHEAD, min(_MOST_AHEAD, _TABLE_SIZE // room))
        self._times = np.empty((room, self._width), np.int64)
        self._counts = np.zeros(room, np.int64)
        self._cursors = np.zeros(room, np.int64)
        self._ranks = np.zeros(room, np.int64)
        self._heap = np.empty(room, np.int64)
        self._actives += [None] * (room - len(self._actives))
        for slot, active in enumerate(self._actives):
            if active is not None:
                self._show(slot, active)

    def _show(self, slot: int, active: _Active) -> None:
        """Put the times of the next rows of a feed's batch in the table."""
        keys = active.keys[active.row : active.row + self._width]
        self._times[slot, : len(keys)] = keys
        self._counts[slot] = len(keys)
        self._cursors[slot] = 0
        self._ranks[slot] = active.feed.rank

    def _take(self, slot: int) -> None:
        """Note the rows of one feed that were put in order since the table was last filled."""
        active = self._actives[slot]
        taken = int(self._cursors[slot])
        if active is None or not taken:
            return
        part = _Part(slot, active.batch, active.row, active.row + taken)
        self._parts.append(part)
        self._octets += _octets(part)[1] - _octets(part)[0]
        active.row += taken
        self._counts[slot] -= taken
        self._cursors[slot] = 0
        self._times[slot, : self._counts[slot]] = active.keys[active.row : active.row + self._counts[slot]]

    def _load(self, slot: int) -> None:
        """Fill a used-up row of the table, from the feed's batch or its next one; without a next one the feed goes."""
        active = self._actives[slot]
        assert active is not None
        limit = min(self._width, self._batch_size)
        span = max(_FEWEST_OCTETS, BATCH_SPAN // self._open)
        if active.row < len(active.keys) or _refill(active, limit, span):
            self._show(slot, active)
            return
        self._actives[slot] = None
        self._counts[slot] = self._cursors[slot] = 0
        self._open -= 1

    def _admit(self, feed: Feed) -> None:
        """Open a feed whose first packet is due."""
        if None not in self._actives:
            for slot in range(len(self._actives)):
                self._take(slot)
            self._allot(2 * len(self._actives))
        limit = min(self._width, self._batch_size)
        span = max(_FEWEST_OCTETS, BATCH_SPAN // (self._open + 1))
        for active in _activate(feed, self._open, limit, span):
            slot = self._actives.index(None)
            self._actives[slot] = active
            self._show(slot, active)
            self._open += 1

    def _gather(self, filled: int) -> PacketBatch:
        """The first `filled` packets in order as one batch over a buffer of their own."""
        for slot in np.flatnonzero(self._cursors).tolist():
            self._take(slot)
        self._parts.sort(key=lambda part: part.slot)
        order = np.empty(filled, np.int64)
        order[np.argsort(self._slots[:filled], kind="stable")] = np.arange(filled)
        batch = _concatenate(self._parts, order)
        self._parts = []
        self._octets = 0
        return batch

    def _leave(self) -> None:
        for slot in range(len(self._actives)):
            self._take(slot)
        self._left[:] = [active for active in self._actives if active is not None]


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


def _octets(part: _Part) -> tuple[int, int]:
    """Where a part's frames are in its buffer, with what stands between them."""
    last = part.end - 1
    return int(part.batch.offset[part.begin]), int(part.batch.offset[last]) + int(part.batch.captured[last])


def _concatenate(parts: list[_Part], order: Int64) -> PacketBatch:
    """Parts as one batch; row i of it is row `order[i]` of the parts one after another."""
    buffers: list[Bytes] = []
    offsets: list[Int64] = []
    at = 0
    for part in parts:
        first, last = _octets(part)
        buffers.append(part.batch.buffer[first:last])
        offsets.append(part.batch.offset[part.begin : part.end] + (at - first))
        at += last - first
    buffer = np.concatenate(buffers)
    buffer.flags.writeable = False
    pieces = [_rows(part.batch, part.begin, part.end) for part in parts]
    return PacketBatch(
        buffer=buffer,
        time=np.concatenate([piece.time for piece in pieces])[order],
        offset=np.concatenate(offsets)[order],
        captured=np.concatenate([piece.captured for piece in pieces])[order],
        wire=np.concatenate([piece.wire for piece in pieces])[order],
        link_type=np.concatenate([piece.link_type for piece in pieces])[order],
        number=np.concatenate([piece.number for piece in pieces])[order],
        capture=np.concatenate([piece.capture for piece in pieces])[order],
    )
