"""What the readers of both capture formats share: their contract, the columns they fill, the check of times.

A reader takes a `Window`, moves its position and gives batches. To tell a sound record it may look at the one behind
it, which is read again for the next batch; so a batch's content never depends on where batches begin.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from capture._pcap_kernels import UNKNOWN, keep_plausible_times
from capture.batch import Int32, Int64, PacketBatch
from capture.damage import DamageLog
from capture.window import Window

BATCH_SPAN = 16 << 20
"""Octets of a capture that one batch may span, so that large packets do not make large batches."""

STRAY = "the packet's time is far from those before and after it"


class RecordReader(Protocol):
    """Turns the octets of one capture into batches."""

    link_types: list[int]
    """Of the interfaces met so far, each once."""
    refusal: str
    """Why this is no capture; empty where it is one."""

    def read(self, window: Window, limit: int, span: int = BATCH_SPAN) -> PacketBatch | None:
        """Next packets, at most `limit`; None where the window must be extended first, or is final and exhausted.

        An empty batch only says that some `span` octets without packets were passed.
        """
        ...


@dataclass(slots=True)
class Columns:
    """Room for `n` records; `start` is where a record or block begins, which is before its frame's `offset`."""

    time: Int64
    start: Int64
    offset: Int64
    captured: Int32
    wire: Int32
    link_type: Int32

    @classmethod
    def room_for(cls, n: int) -> "Columns":
        """Unset columns of shape (n,)."""
        return cls(
            np.empty(n, np.int64),
            np.empty(n, np.int64),
            np.empty(n, np.int64),
            np.empty(n, np.int32),
            np.empty(n, np.int32),
            np.empty(n, np.int32),
        )


@dataclass(slots=True)
class Numbering:
    """Counts a capture's packets and knows the time of the last one: what goes on from batch to batch."""

    index: int
    log: DamageLog
    packets: int = 0
    """Frame number of the last packet, as Wireshark counts."""
    last: int = UNKNOWN

    def batch(self, window: Window, columns: Columns, count: int, walked: int, jumped: bool) -> PacketBatch:
        """The first `count` of `walked` records as a batch, without those whose time is astray.

        `jumped` says whether times need the look at all.
        """
        number = np.arange(self.packets + 1, self.packets + count + 1, dtype=np.int64)
        self.packets += count
        rows: slice | Int64 = slice(count)
        if jumped:
            keep = np.ones(count, np.bool_)
            self.last = int(keep_plausible_times(columns.time[:walked], count, self.last, keep))
            if not keep.all():
                self._note_strays(window, columns, np.flatnonzero(~keep))
                rows = np.flatnonzero(keep)
                number = number[rows]
        elif count:
            self.last = int(columns.time[count - 1])
        return PacketBatch(
            buffer=window.buffer,
            time=columns.time[rows],
            offset=columns.offset[rows],
            captured=columns.captured[rows],
            wire=columns.wire[rows],
            link_type=columns.link_type[rows],
            number=number,
            capture=np.full(len(number), self.index, np.int32),
        )

    def nothing(self, window: Window) -> PacketBatch:
        """An empty batch."""
        return self.batch(window, Columns.room_for(0), 0, 0, False)

    def _note_strays(self, window: Window, columns: Columns, rows: Int64) -> None:
        for row in rows.tolist():
            start = int(columns.start[row])
            length = int(columns.offset[row]) + int(columns.captured[row]) - start
            self.log.note(window.base + start, length, STRAY)
