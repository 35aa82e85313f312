"""The timeline: where on the call's clock each received packet sounds, and what the receiver saw of each stream.

A stream is anchored by the capture time of its first packet and then follows its RTP timestamps. Its delay (arrival
less position) is watched: the least delay of the first moments is the baseline; when the least delay of a later block
leaves it by more than 10 ms for long enough, the block and all that follows is moved by the difference, whole packets
at a time. That corrects clock skew, timestamp jumps and sender restarts with one rule and leaves jitter, bursts after
a stall and reordering alone. Statistics are RFC 3550's (appendix A.1, A.3 and section 6.4.1).

Positions are ticks of 1 / TICKS s since the engine's epoch. Pure: works on columns, never on files or clocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capture.batch import Int32, Int64, UInt8, UInt16, UInt32
from decoders import _placing_kernels as placing_kernels
from decoders import _receiver_kernels as receiver_kernels
from decoders import _stream_columns as cols
from decoders._stream_columns import TICKS
from decoders.rtp import Window
from decoders.sdp import PayloadFormat

__all__ = ["TICKS", "Entries", "EntrySpace", "FormatTable", "Placer", "StreamTable", "ticks_of"]

_KINDS = {
    "PCMU": cols.KIND_ULAW,
    "PCMA": cols.KIND_ALAW,
    "TELEPHONE-EVENT": cols.KIND_EVENT,
    "CN": cols.KIND_NOISE,
    "RED": cols.KIND_REDUNDANT,
}


_MOST_MAPS = 1024


def ticks_of(nanoseconds: int) -> int:
    """Timeline ticks of a duration in ns."""
    return nanoseconds * (TICKS // 1000) // 1_000_000


class FormatTable:
    """What each payload type means to each stream, as rows that the kernels read.

    Streams with equal maps share a row, so that the table stays as small as the variety on the wire.
    """

    def __init__(self) -> None:
        self.kinds: UInt8 = np.zeros((16, 128), np.uint8)
        self.clocks: Int32 = np.full((16, 128), 8000, np.int32)
        self._rows: dict[tuple[tuple[int, str, int, int, bool], ...], int] = {}
        self._maps: dict[frozenset[tuple[int, PayloadFormat]], dict[int, PayloadFormat]] = {}
        self._rows_of: dict[tuple[int, str, bool], tuple[Mapping[int, PayloadFormat], int]] = {}
        """(identity of a map, media, slow) -> that map and its row: most streams have one that was asked for before."""

    def shared(self, formats: dict[int, PayloadFormat]) -> dict[int, PayloadFormat]:
        """One map, not to be changed, for all streams with equal ones: ten thousand calls need no room for each."""
        if len(self._maps) >= _MOST_MAPS:
            self._maps.clear()
        return self._maps.setdefault(frozenset(formats.items()), formats)

    def row(self, formats: Mapping[int, PayloadFormat], media: str, slow: bool) -> int:
        """Row for these formats. `slow`: no payload can be read from the window as it is (encrypted media)."""
        known = self._rows_of.get((id(formats), media, slow))
        if known is not None and known[0] is formats:
            return known[1]
        if len(self._rows_of) >= _MOST_MAPS:
            self._rows_of.clear()
        row = self._row(formats, media, slow)
        self._rows_of[id(formats), media, slow] = formats, row
        return row

    def _row(self, formats: Mapping[int, PayloadFormat], media: str, slow: bool) -> int:
        key = (
            *sorted((f.payload_type, f.encoding.upper(), f.clock_rate, f.channels, slow) for f in formats.values()),
            (-1, media, 0, 0, slow),
        )
        found = self._rows.get(key)
        if found is not None:
            return found
        row = len(self._rows)
        if row == len(self.kinds):
            self.kinds = np.vstack([self.kinds, np.zeros_like(self.kinds)])
            self.clocks = np.vstack([self.clocks, np.full_like(self.clocks, 8000)])
        for f in formats.values():
            if 0 <= f.payload_type < 128 and f.clock_rate > 0:
                kind = _KINDS.get(f.encoding.upper(), cols.KIND_CODEC)
                if media != "audio":
                    kind = cols.KIND_OTHER
                elif kind in (cols.KIND_ULAW, cols.KIND_ALAW) and (slow or f.channels > 1):
                    kind = cols.KIND_CODEC
                self.kinds[row, f.payload_type] = kind
                self.clocks[row, f.payload_type] = f.clock_rate
        self._rows[key] = row
        return row


class StreamTable:
    """Receiver state of all streams at one time, one row each; see the column names in `_stream_columns`."""

    def __init__(self, capacity: int = 1024) -> None:
        self.state: Int64 = np.zeros((capacity, cols.STATE), np.int64)
        self.figures: NDArray[np.float64] = np.zeros((capacity, cols.STATISTICS), np.float64)
        self._free = list(range(capacity - 1, -1, -1))

    def allocate(self, formats_row: int, primary: int = -1) -> int:
        """A fresh row. `primary`: the row of the stream that this one is another sighting of."""
        if not self._free:
            n = len(self.state)
            # Rows that are never used take no memory: they are zeros nobody has looked at.
            state, figures = np.zeros((2 * n, cols.STATE), np.int64), np.zeros((2 * n, cols.STATISTICS), np.float64)
            state[:n], figures[:n] = self.state, self.figures
            self.state, self.figures = state, figures
            self._free = list(range(2 * n - 1, n - 1, -1))
        s = self._free.pop()
        self.state[s] = 0
        self.figures[s] = 0
        self.state[s, cols.FORMATS] = formats_row
        self.state[s, cols.PRIMARY] = primary
        self.state[s, cols.BAD] = -1
        return s

    def release(self, s: int) -> None:
        """Give a row back."""
        self._free.append(s)


@dataclass(slots=True)
class Entries:
    """The packets of one window laid out by stream: order[bounds[x]:bounds[x + 1]] are of streams[x]."""

    streams: Int32
    bounds: Int64
    order: Int32
    """Index of each entry in the window; the next columns are the window's in this order."""
    time: Int64
    stamp: UInt32
    sequence: UInt16
    type: UInt8
    source: Int64
    """Of the payload's first octet in the window's arena."""
    size: Int32
    missing: Int32
    """Octets of it that a snap length cut off."""
    taken: Int64
    """How many entries of each stream are settled."""
    uts: Int64
    """Unwrapped RTP timestamp of each entry."""
    position: Int64
    """Ticks since the epoch at which the entry's first sample sounds."""
    delay: Int64
    kind: UInt8
    """KIND_ of each settled entry, DROPPED for duplicates and strays."""

    def receive(
        self, table: StreamTable, formats: FormatTable, window: Window, epoch: int, now: int, hold: int,
        first: int, last: int,
    ) -> None:  # fmt: skip
        """Run the receiver for streams[first:last]. Distinct ranges may run in parallel threads."""
        receiver_kernels.receive(
            table.state, table.figures, self.streams[first:last], self.bounds[first : last + 1],
            self.taken[first:last], self.order, self.time, self.stamp, self.sequence, self.type, self.size,
            self.missing, window.packets, formats.kinds, formats.clocks, epoch, now, hold, self.uts,
            self.position, self.delay, self.kind,
        )  # fmt: skip


_ENTRY_COLUMNS = {
    "order": np.int32, "time": np.int64, "stamp": np.uint32, "sequence": np.uint16, "type": np.uint8,
    "source": np.int64, "size": np.int32, "missing": np.int32,
    "uts": np.int64, "position": np.int64, "delay": np.int64, "kind": np.uint8,
}  # fmt: skip


class EntrySpace:
    """Memory for one window's entries after the other: what is new to a process costs a fault for each page."""

    def __init__(self) -> None:
        self._room = 0
        self._columns: dict[str, NDArray[Any]] = {}

    def lay_out(self, streams: Int32, begins: Int64, counts: Int64, by_flow: Int32, window: Window) -> Entries:
        """Entries for streams that have by_flow[begins[x]:begins[x] + counts[x]]. They hold until the next call."""
        bounds = np.zeros(len(streams) + 1, np.int64)
        np.cumsum(counts, out=bounds[1:])
        n = int(bounds[-1])
        if n > self._room:
            self._room = n + n // 4
            self._columns = {name: np.empty(self._room, kind) for name, kind in _ENTRY_COLUMNS.items()}
        columns = {name: column[:n] for name, column in self._columns.items()}
        if not columns:
            columns = {name: np.empty(0, kind) for name, kind in _ENTRY_COLUMNS.items()}
        entries = Entries(streams=streams, bounds=bounds, taken=np.zeros(len(streams), np.int64), **columns)
        entries.kind[:] = cols.DROPPED
        placing_kernels.gather(
            begins, bounds, by_flow, window.packets, entries.order, entries.time, entries.stamp,
            entries.sequence, entries.type, entries.source, entries.size, entries.missing,
        )  # fmt: skip
        return entries


class Placer:
    """Scratch space for decoding G.711 into interleaved frames; one for each thread."""

    def __init__(self) -> None:
        self.out: NDArray[np.int16] = np.empty(0, np.int16)
        self.left: NDArray[np.int16] = np.empty(0, np.int16)
        self.right: NDArray[np.int16] = np.empty(0, np.int16)

    def reserve(self, jobs: Int64) -> None:
        """Give every job (a row of the JOB_ columns) its place in `out`."""
        frames = jobs[:, cols.JOB_FRAMES]
        ends = np.cumsum(frames)
        jobs[:, cols.JOB_OUT] = ends - frames
        self.make_room(int(ends[-1]), int(frames.max()))

    def make_room(self, frames: int, longest: int) -> None:
        """Have room for so many frames in `out`, and for jobs of up to `longest` frames."""
        if len(self.out) < 2 * frames:
            self.out = np.empty(2 * frames, np.int16)
        if len(self.left) < longest:
            self.left = np.empty(longest, np.int16)
            self.right = np.empty(longest, np.int16)

    def place(self, jobs: Int64, channels: Int32, entries: Entries, window: Window) -> None:
        """Decode the jobs' entries into `out`, where the kept frames must already be."""
        placing_kernels.place(
            jobs, channels, entries.bounds, entries.taken, entries.kind, entries.position, entries.source,
            entries.size, window.arena, self.left, self.right, self.out,
        )  # fmt: skip
