"""A live source that stamps packets as the kernel does, and clocks that tests set; time passes when it is polled."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from capture.batch import PacketBatch
from capture.live import SourceCounters
from capture.source import CaptureSource

BOOT = 5_000_000_000
WALL = 1_800_000_000_000_000_000
"""What the two clocks show first, ns."""
AFTERWARDS = 12_000_000_000
"""ns for which the wire is silent when all has been sent: calls are over by then."""


class Clocks:
    """A clock that nobody sets, and a wall clock that is set while packets come."""

    def __init__(self, steps: dict[int, int]) -> None:
        """`steps`: ns after the start -> by how much the clock is set then."""
        self.elapsed = 0
        self._steps = steps

    def steady(self) -> int:
        return BOOT + self.elapsed

    def wall_at(self, elapsed: int) -> int:
        return WALL + elapsed + sum(step for at, step in self._steps.items() if at <= elapsed)

    def wall(self) -> int:
        return self.wall_at(self.elapsed)


class Killed(BaseException):
    """As SIGKILL: nothing is finished."""


class StampedHere:
    """A source that gives a capture's packets as time passes, stamped by the wall clock as the kernel does."""

    stamped_here = True
    name = "rx0"

    def __init__(self, path: Path, clocks: Clocks, *, since: int = 0, killed: int | None = None) -> None:
        """`since`: ns after its first packet, before which nobody listened; at `killed` the recorder is no more."""
        (self._batch,) = CaptureSource([path], batch_size=1 << 16, hash_files=False)
        self._clocks = clocks
        self._come = self._batch.time - self._batch.time[0]
        self._given = int((self._come < since).sum())
        self._killed = killed
        self.ended = False

    def poll(self, timeout: float) -> PacketBatch | None:
        clocks, begin = self._clocks, self._given
        if self._killed is not None and clocks.elapsed > self._killed:
            raise Killed
        clocks.elapsed += round(timeout * 1e9)
        self._given = int((self._come <= clocks.elapsed).sum())
        self.ended = clocks.elapsed > int(self._come[-1]) + AFTERWARDS
        if self._given == begin:
            return None
        rows = slice(begin, self._given)
        columns = {
            name: getattr(self._batch, name)[rows]
            for name in ("offset", "captured", "wire", "link_type", "number", "capture")
        }
        columns["time"] = np.array([clocks.wall_at(come) for come in self._come[rows].tolist()], np.int64)
        return replace(self._batch, **columns)

    def counters(self) -> SourceCounters:
        return SourceCounters(self._given, 0, 0, 0, not self.ended, None)

    def close(self) -> None:
        self.ended = True
