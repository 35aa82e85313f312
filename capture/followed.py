"""A capture file that another program is still writing.

In: a path. Out: its packets as they come to stand there, whole ones only. It says when nothing more is there yet, and
what is left over is damage only once it is told that nothing more will come. Only opening raises (`OSError`).
"""

import os
from pathlib import Path

import numpy as np

from capture.batch import PacketBatch
from capture.reader import CaptureFile, FileReader
from capture.streams import CHUNK, SMALL_CHUNK, open_input
from capture.window import Window


class GrowingInput:
    """The octets of a file that grows, as far as they are there: an `Input` of `capture.streams`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.window = Window(np.frombuffer(b"", np.uint8), final=False, live=True)
        self.ending = False
        """Whether the end of what is there is the end of the file."""
        self.trouble = ""
        self.taken = 0

    @property
    def total(self) -> int | None:
        """Nobody knows."""
        return None

    def extend(self) -> None:
        """What has come since, a chunk at most; batches keep the buffer they came with."""
        window = self.window
        try:
            octets = os.pread(self._descriptor, CHUNK, self.taken)
        except OSError as error:
            self.trouble = f"reading failed: {error.strerror}"
            window.final = True
            return
        if not octets:
            window.final = self.ending
            return
        self.taken += len(octets)
        rest = window.buffer[window.position :].tobytes()
        window.base += window.position
        window.position = 0
        window.buffer = np.frombuffer(rest + octets, np.uint8)

    def advance(self) -> None:
        """Chunks go with the last batch that refers to them."""

    def finish(self) -> str | None:
        """Close the file."""
        os.close(self._descriptor)
        return None


class FollowedFile:
    """A reader of one file from its first packet on; `packed` files do not grow and are read through."""

    def __init__(self, path: Path, capture: int, *, packed: bool = False) -> None:
        """Open it. Raises OSError where that fails."""
        self.file = CaptureFile(capture, path.name)
        self._growing: GrowingInput | None = None
        if packed:
            whole = open_input(path, hashed=False)
            self._reader = FileReader(self.file, path, hashed=False, source=whole)
        else:
            self._growing = GrowingInput(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            self._reader = FileReader(self.file, path, hashed=False, source=self._growing)

    @property
    def taken(self) -> int:
        """Octets of the file that were read."""
        return self._reader.taken

    def read(self, limit: int) -> PacketBatch | None:
        """Next packets, at most `limit`; None where there are none at present."""
        return self._reader.read(limit)

    def end(self) -> None:
        """Nothing more will be written: what `read` finds next is the last, and what is no packet then is damage."""
        if self._growing is not None:
            self._growing.ending = True

    def close(self) -> None:
        """Let go of the file wherever reading stands."""
        self._reader.close()


def first_time(path: Path) -> int | None:
    """Time of a capture's first packet, ns since the epoch; None where it has none yet, or is no capture."""
    glance = FileReader(CaptureFile(0, path.name), path, hashed=False, peeking=True)
    glance.open(crowded=True)  # never mapped: rotation may cut the file off under our eyes
    first = glance.read(1, SMALL_CHUNK)
    glance.close()
    return None if first is None else int(first.time[0])
