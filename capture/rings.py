"""The rings of a source as one memory, and what was walked of it as rows.

In: how many rings of what shape, and their sockets. Out: `RingRows`, and blocks given back once no row of theirs is
left. It knows nothing of interfaces, time or waiting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from capture._ring_kernels import (
    BASE,
    BLOCK_SIZE,
    BLOCKS,
    CURSOR,
    DAMAGED,
    FIRST_BLOCK,
    FULL,
    LATEST,
    LINK_TYPE,
    OUTGOING,
    RESULTS,
    RING_SLOTS,
    ROWS,
    SMALLEST_FRAME,
    UNSORTED,
    count_off,
    give_back,
    walk_rings,
)
from capture.batch import Bytes, Int32, Int64, UInt16, UInt32
from capture.ring_memory import RingMemory
from capture.ring_socket import RingShape, RingSocket

NEVER = np.iinfo(np.int64).min


@dataclass(slots=True)
class RingRows:
    """Frames by columns of shape (n,), as `PacketBatch` has them, and each one's block."""

    time: Int64
    offset: Int64
    captured: Int32
    wire: Int32
    link_type: Int32
    block: Int32
    """Number among the blocks of all rings."""

    @classmethod
    def room_for(cls, n: int) -> "RingRows":
        """Unset columns of shape (n,)."""
        return cls(
            np.empty(n, np.int64),
            np.empty(n, np.int64),
            np.empty(n, np.int32),
            np.empty(n, np.int32),
            np.empty(n, np.int32),
            np.empty(n, np.int32),
        )

    def __len__(self) -> int:
        return len(self.time)

    def split(self, n: int) -> tuple["RingRows", "RingRows"]:
        """The first `n` rows, and the others."""
        return RingRows(*(each[:n] for each in self._columns())), RingRows(*(each[n:] for each in self._columns()))

    def copy(self, n: int) -> "RingRows":
        """A copy of the first `n` rows."""
        return RingRows(*(each[:n].copy() for each in self._columns()))

    def merged(self, others: "RingRows") -> "RingRows":
        """These and others in time order; both are in order already."""
        if len(self) == 0:
            return others
        both = zip(self._columns(), others._columns(), strict=True)
        return RingRows(*(np.concatenate(pair) for pair in both)).in_order()

    def in_order(self) -> "RingRows":
        """The rows by time; those of one time stay as they are."""
        order = np.argsort(self.time, kind="stable")
        return RingRows(*(each[order] for each in self._columns()))

    def _columns(self) -> list:  # type: ignore[type-arg]  # arrays of two types
        return [self.time, self.offset, self.captured, self.wire, self.link_type, self.block]


class RingView(NamedTuple):
    """What the kernels of `_ring_kernels` take: the rings, and room for the frames of a block of each."""

    octets: Bytes
    halves: UInt16
    words: UInt32
    table: Int64
    remaining: Int32
    result: Int64
    time: Int64
    offset: Int64
    captured: Int32
    wire: Int32
    link_type: Int32
    block: Int32
    tally: Int64
    """Frames and their octets on the wire, to be kept up to date by who walks the rings."""


@dataclass(frozen=True, slots=True)
class RingPlan:
    """What a ring gives."""

    shape: RingShape
    link_type: int
    """A LINKTYPE_ value."""
    outgoing: int
    """One of KEEP_OUTGOING, SKIP_OUTGOING_LOOPBACK, SKIP_OUTGOING."""


class Rings:
    """All rings of a source; they read as empty until they are placed."""

    def __init__(self, plans: Sequence[RingPlan], most_rows: int) -> None:
        """`most_rows`: that a walk may give. Compiles the kernels, so that no frame has to wait for it."""
        self._memory = RingMemory(sum(plan.shape.size for plan in plans))
        self._words = self._memory.octets.view(np.uint32)
        self._halves = self._memory.octets.view(np.uint16)
        self.buffer: Bytes = self._memory.octets.view()
        """All rings, read-only."""
        self.buffer.flags.writeable = False
        self._table: Int64 = np.zeros((len(plans), RING_SLOTS), np.int64)
        base = first = 0
        for row, plan in zip(self._table, plans, strict=True):
            shape = plan.shape
            row[[BASE, BLOCK_SIZE, BLOCKS, FIRST_BLOCK, LINK_TYPE, OUTGOING, LATEST]] = (
                base, shape.block_size, shape.blocks, first, plan.link_type, plan.outgoing, NEVER,
            )  # fmt: skip
            base += shape.size
            first += shape.blocks
        self._remaining: Int32 = np.full(first, -1, np.int32)
        """Rows that are left of each block; -1 where it is the kernel's."""
        self._result: Int64 = np.zeros(RESULTS, np.int64)
        self._scratch = RingRows.room_for(most_rows)
        self.tally: Int64 = np.zeros(2, np.int64)
        """What was walked by others, see `RingView`."""
        self.damaged = 0
        """Blocks in which something did not fit."""
        self.walk(most_rows)
        self.count_off(RingRows.room_for(0))
        self.give_back()

    @property
    def full(self) -> bool:
        """Whether more was ready than the last walk had room for."""
        return bool(self._result[FULL])

    @property
    def horizon(self) -> int:
        """Time (ns) that every ring has given a frame of, or of later; `NEVER` where one has given none yet."""
        return int(self._table[:, LATEST].min())

    def place(self, ring: int, of: RingSocket) -> None:
        """Put a socket's ring where ring number `ring` is, from its first block on."""
        self.remove(ring)
        self._memory.place(of.fileno(), int(self._table[ring, BASE]), self._size(ring))

    def remove(self, ring: int) -> None:
        """Let go of a ring; it reads as empty, and what is held of it as zeros."""
        self._memory.withdraw(int(self._table[ring, BASE]), self._size(ring))
        self._table[ring, CURSOR] = 0
        self._remaining[self._blocks(ring)] = -1

    def is_out(self, ring: int) -> bool:
        """Whether a block of this ring has not been given back."""
        return bool((self._remaining[self._blocks(ring)] >= 0).any())

    def walk(self, room: int) -> RingRows:
        """Rows of the blocks that are ready, in time order, at most `room`."""
        scratch = self._scratch
        walk_rings(
            self._memory.octets, self._halves, self._words, self._table,
            scratch.time[:room], scratch.offset, scratch.captured, scratch.wire, scratch.link_type, scratch.block,
            self._remaining, self._result,
        )  # fmt: skip
        self.damaged += int(self._result[DAMAGED])
        rows = scratch.copy(int(self._result[ROWS]))
        return rows.in_order() if self._result[UNSORTED] else rows

    def count_off(self, rows: RingRows) -> None:
        """These rows are handed over: blocks of which no row is left go back the next time."""
        count_off(rows.block, self._remaining)

    def give_back(self) -> None:
        """Give blocks of which no row is left to the kernel."""
        give_back(self._words, self._table, self._remaining)

    def view(self) -> RingView:
        """For a kernel that walks the rings in place of `walk`, `count_off` and `give_back`."""
        room = int((self._table[:, BLOCK_SIZE] // SMALLEST_FRAME).sum())
        some = RingRows.room_for(room)
        return RingView(
            self._memory.octets, self._halves, self._words, self._table, self._remaining, self._result,
            some.time, some.offset, some.captured, some.wire, some.link_type, some.block, self.tally,
        )  # fmt: skip

    def close(self) -> None:
        """Let go of all rings. Batches that are still held read as zeros."""
        for ring in range(len(self._table)):
            self.remove(ring)

    def _size(self, ring: int) -> int:
        return int(self._table[ring, BLOCK_SIZE] * self._table[ring, BLOCKS])

    def _blocks(self, ring: int) -> slice:
        first = int(self._table[ring, FIRST_BLOCK])
        return slice(first, first + int(self._table[ring, BLOCKS]))
