"""The packets of one call of a live service, in a pcapng file that grows while the call goes on.

In: enhanced packet blocks. Out: a file of whole blocks at any moment, with a section for each run of the recorder that
wrote to it. It is open only while it is written to, so that thousands of calls need no descriptors. What waits to be
written is the caller's to bound, by `flush`.
"""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capture.batch import Int32, Int64, PacketBatch, UInt8
from capture.layers import read_only
from recorder._packet_kernels import BLOCK, lay_out
from recorder.packets import interface_description, section_header
from recorder.tracks import StoreError

_ORIGIN = "live capture"
_HEAD = struct.Struct("<II")
_SMALLEST = 12
_AT_ONCE = 1 << 20


def blocks_of(batch: PacketBatch, rows: Int64, interfaces: Int32, stamps: Int64) -> tuple[UInt8, Int64]:
    """Rows as enhanced packet blocks, one behind the other, and where each begins; at the end, where the last ends.

    `stamps`: wall clock's times of all rows of the batch, ns.
    """
    # Columns are gathered first: so the kernel is compiled once, however a source lays its columns out.
    captured = batch.captured[rows]
    begins = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(BLOCK + (captured.astype(np.int64) + 3 & ~3), out=begins[1:])
    out = np.empty(int(begins[-1]), np.uint8)
    time, wire, each = stamps[rows], batch.wire[rows], np.arange(len(rows), dtype=np.int64)
    lay_out(read_only(batch.buffer), batch.offset[rows], captured, wire, time, each, interfaces, begins[:-1], out)
    return out, begins


@dataclass(slots=True, eq=False)
class PacketFile:
    """A file, and what waits to be written to it."""

    path: Path
    largest: int
    """Octets beyond which nothing more is taken."""
    size: int = 0
    """Octets on the disk, all of whole blocks."""
    full: bool = False
    _pending: bytearray = field(default_factory=bytearray)
    _interfaces: int = 0
    """Described so far in this section."""

    @classmethod
    def begin(cls, path: Path, comment: str, largest: int) -> "PacketFile":
        """Make the file, or begin a new section of one that an earlier run left. Raises StoreError."""
        file = cls(path, largest)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                there = os.fstat(descriptor).st_size
                file.size = _whole(descriptor, there)
                if file.size != there:
                    os.ftruncate(descriptor, file.size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _sentence(path, error) from error
        file.full = file.size >= largest
        file._pending += section_header(comment)
        if not file.size:
            file.flush()
        return file

    def add(self, blocks: bytes | memoryview, links: Sequence[int]) -> int:
        """Take whole blocks, whose interfaces are places in `links` (link types). Gives how many octets wait for them,
        0 where the file has come to its end."""
        if self.full or self.size + len(self._pending) + len(blocks) > self.largest:
            self.full = True
            return 0
        before = len(self._pending)
        while self._interfaces < len(links):
            self._pending += interface_description(links[self._interfaces], _ORIGIN)
            self._interfaces += 1
        self._pending += blocks
        return len(self._pending) - before

    @property
    def waiting(self) -> int:
        """Octets that are not on the disk."""
        return len(self._pending)

    def flush(self) -> None:
        """Write what waits, unless that is a section without a packet. Raises StoreError where the disk refuses; the
        file then ends with its last whole block, and what waited is gone."""
        if self.size and not self._interfaces:
            return
        pending, self._pending = self._pending, bytearray()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                self._write(descriptor, pending)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _sentence(self.path, error) from error

    def _write(self, descriptor: int, pending: bytearray) -> None:
        view = memoryview(pending)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self.size)
            raise
        self.size += len(pending)


def _whole(descriptor: int, size: int) -> int:
    """Octets of a file up to the end of its last whole block: all of it, unless a crash cut the last one off."""
    if size >= _SMALLEST:
        (total,) = struct.unpack("<I", os.pread(descriptor, 4, size - 4))
        if _SMALLEST <= total <= size and total % 4 == 0:
            lead = os.pread(descriptor, _HEAD.size, size - total)
            if _HEAD.unpack(lead)[1] == total:
                return size
    at, begin, part = 0, 0, b""
    while at + _SMALLEST <= size:
        if at + _HEAD.size > begin + len(part):
            begin, part = at, os.pread(descriptor, _AT_ONCE, at)
        _, total = _HEAD.unpack_from(part, at - begin)
        if total < _SMALLEST or total % 4 or at + total > size:
            break
        at += total
    return at


def _sentence(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: packets cannot be kept: {error.strerror or error}")
