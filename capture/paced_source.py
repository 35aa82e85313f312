"""Captures as a live source: what they hold, spaced in time as it was captured, or faster.

In: captures, and a `Pace` that all sources of one run share. Out: a `LiveSource` whose packets come when their capture
time has come by the pace. Their times are those of the capture. Several sources over the same captures give the same
packets at the same time.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from capture.batch import PacketBatch
from capture.live import SourceCounters
from capture.source import CaptureSource

BATCH_PACKETS = 2048
STEP = 0.005
"""s between two batches, where nothing else is said: what falls due meanwhile comes together."""


class Pace:
    """The clock of a run: capture time against this machine's monotonic clock."""

    def __init__(self, speed: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`speed`: seconds of capture time in a second."""
        if not speed > 0:
            raise ValueError(f"speed must be greater than 0, not {speed}")
        self.speed = speed
        self._clock = clock
        self._lock = threading.Lock()
        self._start: tuple[int, float] | None = None

    def begin(self, first: int, lead: float = 0.0) -> None:
        """Capture time is `first` (ns) in `lead` seconds, unless the run has begun already."""
        with self._lock:
            if self._start is None:
                self._start = first, self._clock() + lead

    def now(self) -> int | None:
        """Capture time by now, ns; None before the run has begun."""
        start = self._start
        return None if start is None else start[0] + int((self._clock() - start[1]) * self.speed * 1e9)


class PacedSource:
    """A `LiveSource` over captures."""

    stamped_here = False

    def __init__(self, paths: Sequence[str | Path], pace: Pace, *, lead: float = 0.0, step: float = STEP) -> None:
        """`lead`: s before the first packet, where this source is the first to be polled. `step`: s between two
        batches."""
        self._source = CaptureSource(paths, batch_size=BATCH_PACKETS, hash_files=False)
        self.name = ", ".join(file.name for file in self._source.files)
        self._batches: Iterator[PacketBatch] = iter(self._source)
        self._pace = pace
        self._lead = lead
        self._step = step
        self._batch: PacketBatch | None = None
        self._place = 0
        self._ended = False
        self._packets = self._octets = 0

    @property
    def ended(self) -> bool:
        """Whether all has been given."""
        return self._ended

    def poll(self, timeout: float) -> PacketBatch | None:
        """What has fallen due, waiting at most `timeout` s for it; None where that is nothing."""
        deadline = time.monotonic() + timeout
        while not self._ended and self._has_packets():
            batch = self._batch
            assert batch is not None
            self._pace.begin(int(batch.time[self._place]), self._lead)
            now = self._pace.now()
            assert now is not None
            due = self._place + int(np.searchsorted(batch.time[self._place :], now, side="right"))
            if due > self._place:
                return self._give(due)
            wait = (int(batch.time[self._place]) - now) / 1e9 / self._pace.speed
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(max(wait, self._step), left))
        return None

    def counters(self) -> SourceCounters:
        """Counts so far."""
        damage = [each.text for file in self._source.files for each in file.damage[-1:]]
        note = "; ".join(["times are those of the capture", *damage])
        return SourceCounters(self._packets, self._octets, 0, 0, not self._ended, note)

    def close(self) -> None:
        """Give nothing more."""
        self._ended = True
        self._batch = None

    def _has_packets(self) -> bool:
        if self._batch is None:
            self._batch = next(self._batches, None)
            self._place = 0
            if self._batch is not None:
                # Clocks of captures may step back; what falls due must not.
                self._batch = replace(self._batch, time=np.maximum.accumulate(self._batch.time))
        self._ended = self._batch is None
        return not self._ended

    def _give(self, due: int) -> PacketBatch:
        assert self._batch is not None
        rows = slice(self._place, due)
        columns = {each.name: getattr(self._batch, each.name) for each in fields(self._batch)}
        given = PacketBatch(**{name: column if name == "buffer" else column[rows] for name, column in columns.items()})
        self._place = due
        if due == len(self._batch):
            self._batch = None
        self._packets += len(given)
        self._octets += int(given.wire.sum())
        return given
