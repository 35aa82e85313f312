"""Audio in the making: interleaved 16-bit frames of one rate in a file that grows, patched where late packets land.

A call of one rate has one track, whose file becomes its audio as it is. Media of another rate, or that sounds at the
same time on the same channel, gets a track of its own, and `mixdown` joins them. Files are opened through a bounded
pool, so that ten thousand calls at once need no more descriptors than a few hundred.
"""

import os
import resource
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capture.errors import SpanrecError
from decoders.timeline import TICKS
from recorder.wav import FRAME, HEADER, wav_header

LONGEST_SILENCE = 7 * 86_400
"""Seconds that may lie between a track's samples and the next ones. Calls on hold are shorter than a week; where it is
more, the capture's clock was set, and no disk would hold the time between."""
STATED_EVERY = 4
"""Seconds of samples between two headers of a file in the making."""
RESERVED = 224
"""Descriptors left to everything but tracks."""


def files_allowed(pools: int) -> int:
    """How many files each of `pools` pools may hold open under the limit of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, (min(soft, 1 << 16) - RESERVED) // pools)


class StoreError(SpanrecError):
    """What was recorded cannot be written."""


class FilePool:
    """A bounded number of open files; the one not used for longest is closed first."""

    def __init__(
        self, limit: int = 256, *, headed: bool = False, failed: Callable[["Track", StoreError], None] | None = None
    ) -> None:
        """`headed`: files have a header that states all but the last seconds; else room is kept for one.

        `failed` is told of a track that cannot be written and so gets nothing more; without it, that is an error.
        """
        self._open: OrderedDict[Track, int] = OrderedDict()
        self.limit = limit
        self.headed = headed
        self.failed = failed

    def descriptor(self, track: "Track") -> int:
        """An open descriptor of the track's file, which is made if it is not there."""
        fd = self._open.get(track)
        if fd is not None:
            self._open.move_to_end(track)
            return fd
        if len(self._open) >= self.limit:
            os.close(self._open.popitem(last=False)[1])
        try:
            fd = os.open(track.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreError(f"{track.path}: cannot be written: {error.strerror}") from error
        self._open[track] = fd
        return fd

    def close(self, track: "Track") -> None:
        """Close the track's file if it is open."""
        fd = self._open.pop(track, None)
        if fd is not None:
            os.close(fd)

    def close_all(self) -> None:
        """Close everything."""
        while self._open:
            os.close(self._open.popitem()[1])


@dataclass(slots=True, eq=False)
class Track:
    """Interleaved stereo frames of one rate; sample 0 is `zero` ticks after the epoch."""

    path: Path
    rate: int
    zero: int
    layer: int = 0
    """0 plays first on its channels; media that overlaps it goes to the next layers."""
    frames: int = 0
    channels_used: set[int] = field(default_factory=set)
    beyond: int = 0
    """Frames left out because they lie more than LONGEST_SILENCE behind the others."""
    stated: int = 0
    """Frames that its header tells of, where it has one already."""
    failed: bool = False
    """It could not be written: what it has stands, nothing more is added."""

    @property
    def step(self) -> int:
        """Ticks in a sample."""
        return TICKS // self.rate

    def sample_at(self, ticks: int) -> int:
        """Sample that sounds at a tick, to the nearest."""
        return (ticks - self.zero + self.step // 2) // self.step

    def read(self, pool: FilePool, first: int, count: int, into: NDArray[np.int16]) -> None:
        """Frames first..first + count, which the track must have, into a flat array of 2 * count samples."""
        view = into.data.cast("B")[: FRAME * count]
        got = os.preadv(pool.descriptor(self), [view], HEADER + FRAME * first)
        if got < FRAME * count:
            view[got:] = bytes(FRAME * count - got)

    def write(self, pool: FilePool, first: int, frames: NDArray[np.int16]) -> None:
        """Write a flat array of interleaved samples from frame `first` on; what was jumped over is silence."""
        fd = self.begin(pool, first, len(frames) // 2)
        if fd < 0:
            return
        view, at = frames.data.cast("B"), HEADER + FRAME * first
        try:
            while len(view):
                done = os.pwrite(fd, view, at)
                view, at = view[done:], at + done
        except OSError as error:
            # A full disk may have taken half a frame.
            self.frames = max(self.frames, (at - HEADER) // FRAME)
            with suppress(OSError):
                os.ftruncate(fd, HEADER + FRAME * self.frames)
            self._fail(pool, error)
        else:
            self.end(pool, fd, first, len(frames) // 2)

    def begin(self, pool: FilePool, first: int, count: int) -> int:
        """A descriptor for whoever is about to write `count` frames from frame `first` on and says so with `end`.

        -1 where they must not be written. It is open until `pool.limit` other tracks are.
        """
        if first - self.frames > LONGEST_SILENCE * self.rate:
            self.beyond += count
            return -1
        if self.failed:
            return -1
        try:
            fd = pool.descriptor(self)
            if pool.headed and not self.stated:
                # Before the samples: a kill between the two leaves a file that can be played.
                self._state(fd, max(self.frames, first + count))
        except (OSError, StoreError) as error:
            self._fail(pool, error)
            return -1
        return fd

    def end(self, pool: FilePool, fd: int, first: int, count: int) -> None:
        """The frames that `begin` was told of have been written."""
        self.frames = max(self.frames, first + count)
        if pool.headed and self.frames - self.stated >= STATED_EVERY * self.rate:
            try:
                self._state(fd, self.frames)
            except OSError as error:
                self._fail(pool, error)

    def _state(self, fd: int, frames: int) -> None:
        os.pwrite(fd, wav_header(self.rate, FRAME // 2, FRAME * frames), 0)
        self.stated = frames

    def _fail(self, pool: FilePool, error: OSError | StoreError) -> None:
        """Tell whoever wants to know of an error, or raise it."""
        failure = error if isinstance(error, StoreError) else self._error(error)
        if pool.failed is None:
            raise failure from error
        self.failed = True
        pool.failed(self, failure)

    def _error(self, error: OSError) -> StoreError:
        return StoreError(f"{self.path}: cannot be written: {error.strerror}")

    def write_channel(self, pool: FilePool, channel: int, first: int, samples: NDArray[np.int16]) -> None:
        """Write one channel's samples from sample `first` on and leave the other channel as it is."""
        if first < 0:
            samples, first = samples[-first:], 0
        if len(samples) == 0:
            return
        frames = np.zeros(2 * len(samples), np.int16)
        kept = min(max(self.frames - first, 0), len(samples))
        if kept:
            self.read(pool, first, kept, frames)
        frames[channel::2] = samples
        self.write(pool, first, frames)
        self.channels_used.add(channel)

    def prepend(self, pool: FilePool, frames: int) -> None:
        """Move everything later by `frames` frames of silence, block by block from the end."""
        block = 1 << 16
        done = self.frames
        while done > 0:
            first = max(done - block, 0)
            moved = np.empty(2 * (done - first), np.int16)
            self.read(pool, first, done - first, moved)
            self.write(pool, first + frames, moved)
            done = first
        for first in range(0, min(frames, self.frames), block):
            self.write(pool, first, np.zeros(2 * min(block, frames - first), np.int16))

    def swap_channels(self, pool: FilePool) -> None:
        """Left becomes right: the media's speakers were learnt late."""
        block = 1 << 16
        for first in range(0, self.frames, block):
            frames = np.empty(2 * min(block, self.frames - first), np.int16)
            self.read(pool, first, len(frames) // 2, frames)
            self.write(pool, first, np.ascontiguousarray(frames.reshape(-1, 2)[:, ::-1]).reshape(-1))
        self.channels_used = {1 - channel for channel in self.channels_used}
