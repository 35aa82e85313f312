"""Octets of a capture file as windows: mapped where it lies plain on a disk, else read in chunks and unpacked.

In: a path, or standard input. Out: `Window`s over the uncompressed octets, SHA-256 of the octets as given. Compression
is told by content, never by name. Memory stays bounded for any size and any ratio of compression; what is wrong with
the stream is told in `trouble`, and what was unpacked before it stands. Only opening raises (`OSError`).

A mapped file that another program shortens while it is read kills the process, as any mapping does.
"""

import contextlib
import hashlib
import mmap
import os
import stat
from collections import deque
from pathlib import Path
from typing import Protocol

import numpy as np

from capture.octets import RawOctets, is_packed, unpacker
from capture.window import Window

CHUNK = 4 << 20
"""Octets that a stream's window is extended by."""
SMALL_CHUNK = 16 << 10
"""The same where thousands of files are open at once, or only the first packet is wanted."""

_RELEASE_STEP = 4 << 20
_LIVE_BATCHES = 14
"""Batches that may still be in use besides the newest (one being ingested, the others prepared ahead)."""
_PAGE = mmap.ALLOCATIONGRANULARITY


class Input(Protocol):
    """A capture's octets, window by window."""

    window: Window

    @property
    def trouble(self) -> str:
        """Why the stream ended early; empty where it did not."""
        ...

    @property
    def taken(self) -> int:
        """Octets of the file as given that were read so far."""
        ...

    @property
    def total(self) -> int | None:
        """Octets of the file as given; None for what cannot be measured before it ends."""
        ...

    def extend(self) -> None:
        """Drop what lies before the window's position and add what comes next; sets `final` at the end."""
        ...

    def advance(self) -> None:
        """To be called after each batch: lets go of what lies behind."""
        ...

    def finish(self) -> str | None:
        """Close; digest (hex) of the whole file as given, or None where none was asked for."""
        ...


class MappedInput:
    """A plain regular file of at least one octet: one window over all of it."""

    def __init__(self, descriptor: int, size: int, hashed: bool) -> None:
        self._map = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        self.window = Window(np.frombuffer(self._map, np.uint8))
        self._hash = hashlib.sha256() if hashed else None
        self._hashed = 0
        self._released = 0
        self._behind: deque[int] = deque()

    @property
    def taken(self) -> int:
        """Octets read so far."""
        return self.window.position

    @property
    def trouble(self) -> str:
        """A mapped file ends where it ends."""
        return ""

    @property
    def total(self) -> int:
        """Octets of the file."""
        return self.window.end

    def extend(self) -> None:
        """There is nothing to add."""

    def advance(self) -> None:
        """Digest the coming batch's octets, which warms them for the walk, and drop pages that no batch needs."""
        position = self.window.position
        span = position - (self._behind[-1] if self._behind else 0)
        self._digest(position + span)
        self._behind.append(position)
        if len(self._behind) > _LIVE_BATCHES + 1:
            self._release(self._behind.popleft(), _RELEASE_STEP)

    def finish(self) -> str | None:
        """Digest what was not read; the map goes with the last batch that refers to it."""
        while self._hash and self._hashed < self.window.end:
            self._digest(self._hashed + _RELEASE_STEP)
            self._release(self._hashed, _RELEASE_STEP)
        return self._hash.hexdigest() if self._hash else None

    def _digest(self, until: int) -> None:
        until = min(until, self.window.end)
        if self._hash and until > self._hashed:
            self._hash.update(self.window.buffer[self._hashed : until].data)
            self._hashed = until

    def _release(self, until: int, least: int) -> None:
        """Dropped pages come back from the page cache if somebody still looks: this costs time, never content."""
        until -= until % _PAGE
        if until - self._released >= least:
            self._map.madvise(mmap.MADV_DONTNEED, self._released, until - self._released)
            self._released = until


class StreamInput:
    """Anything that is read once, from its beginning: what is packed, pipes, one file among thousands."""

    def __init__(self, raw: RawOctets, chunk: int) -> None:
        self._raw = raw
        self._chunk = chunk
        self._octets = unpacker(raw)
        self.window = Window(np.frombuffer(b"", np.uint8), final=False, live=raw.live)

    @property
    def trouble(self) -> str:
        """Why the stream ended early."""
        return self._octets.trouble

    @property
    def taken(self) -> int:
        """Octets of the file as given that were read so far."""
        return self._raw.taken

    @property
    def total(self) -> int | None:
        """Octets of the file as given, None for a pipe."""
        return self._raw.total

    def extend(self) -> None:
        """The next chunk, or from a pipe what there is; batches keep the buffer they came with."""
        window = self.window
        pieces = [window.buffer[window.position :].tobytes()]
        room = self._chunk
        while room > 0:
            piece = self._octets.read(room)
            if not piece:
                window.final = True
                break
            pieces.append(piece)
            room -= len(piece)
            if not self._raw.ready():
                break
        window.base += window.position
        window.position = 0
        window.buffer = np.frombuffer(b"".join(pieces), np.uint8)

    def advance(self) -> None:
        """Chunks go with the last batch that refers to them."""

    def finish(self) -> str | None:
        """Close; digest of all octets, those that were not needed included."""
        return self._raw.close()


def open_input(path: Path | None, *, hashed: bool, mapped: bool = True, chunk: int = CHUNK) -> Input:
    """Open a file, or standard input for None.

    Not `mapped` means that many files are read at once: this one is then closed between reads.

    Raises:
        OSError: it cannot be opened.
    """
    if path is None:
        return StreamInput(RawOctets(0, None, hashed, hold_open=True), chunk)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        regular = stat.S_ISREG(status.st_mode)
        if mapped and regular and status.st_size and not is_packed(os.pread(descriptor, 4, 0)):
            with contextlib.suppress(OSError):  # some file systems map nothing: read it as a stream
                return MappedInput(descriptor, status.st_size, hashed)
        stream = StreamInput(RawOctets(descriptor, path if regular else None, hashed, mapped), chunk)
        descriptor = -1
        return stream
    finally:
        if descriptor >= 0:
            os.close(descriptor)
