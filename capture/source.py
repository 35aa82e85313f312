"""Capture files, directories and standard input as one capture in time order.

In: paths as a user gives them. Out: `PacketBatch`es over all of them and one `CaptureFile` each. What is damaged or no
capture is told there; nothing raises. Every batch stays valid as long as it is referred to, and its buffer is
read-only.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from capture.batch import PacketBatch
from capture.damage import Damage
from capture.linktypes import link_type_name
from capture.merge import NEVER, merge
from capture.pcap import is_pcap
from capture.pcapng import is_pcapng
from capture.reader import STANDARD_INPUT, CaptureFile, FileReader
from capture.streams import SMALL_CHUNK, open_input

__all__ = ["CaptureFile", "CaptureSource", "Damage", "link_type_name"]

_SUFFIXES = (".pcap", ".pcapng", ".cap", ".ntar")
_GLANCE = 256
"""Packets of a pipe that are read to learn when it begins."""
_PACKED_SUFFIXES = (".gz", ".zst")


class CaptureSource:
    """An iterable of batches in time order over all captures; to be iterated once.

    A file named twice, whichever way, is read once. Directories give the captures in and below them, sorted by path:
    regular files whose content is a capture's, or whose name says so.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        batch_size: int = 8192,
        hash_files: bool = True,
        standard_input: Path | None = None,
    ) -> None:
        """`standard_input`: the file that standard input was spooled to, where it has been."""
        self._batch_size = batch_size
        self._hash_files = hash_files
        given = list(_expand(paths))
        self.files = [CaptureFile(index, _name(path)) for index, path in enumerate(given)]
        self.paths = [standard_input if path is None else path for path in given]
        """Of each of `files`; None for standard input."""
        self._sizes = [_size(path) for path in self.paths]
        self._meter = _Meter()

    @property
    def progress(self) -> tuple[int, int | None]:
        """Octets read so far, and octets in all (None where a pipe is among the captures)."""
        sizes = [size for size in self._sizes if size is not None]
        total = sum(sizes) if len(sizes) == len(self._sizes) else None
        return self._meter.taken(), total

    def __iter__(self) -> Iterator[PacketBatch]:
        feeds = [
            _FileFeed(FileReader(file, path, hashed=self._hash_files), path, self._meter)
            for file, path in zip(self.files, self.paths, strict=True)
        ]
        if len(feeds) > 1:
            for feed in feeds:
                feed.find_start()
        return merge(feeds, self._batch_size)


class _Meter:
    """Counts the octets that were read, over files that are open and files that are done with."""

    def __init__(self) -> None:
        self._reading: dict[int, FileReader] = {}
        self._finished = 0

    def begin(self, reader: FileReader) -> None:
        self._reading[reader.file.index] = reader

    def end(self, reader: FileReader) -> None:
        self._reading.pop(reader.file.index, None)
        self._finished += reader.taken

    def taken(self) -> int:
        # A copy, because the batches may be fetched by another thread than the one that asks.
        return self._finished + sum(reader.taken for reader in list(self._reading.values()))


class _FileFeed:
    """A capture file as `capture.merge` takes it."""

    def __init__(self, reader: FileReader, path: Path | None, meter: _Meter) -> None:
        self.rank = reader.file.index
        self.start = 0
        self._reader = reader
        self._path = path
        self._meter = meter
        self._opened = False
        self._first: PacketBatch | None = None

    @property
    def live(self) -> bool:
        """Packets come from a pipe."""
        return self._reader.live

    def find_start(self) -> None:
        """Look at the first packet for its time, and leave the file closed where it can be opened again."""
        if self._path is not None and _is_regular(self._path):
            glance = FileReader(CaptureFile(self.rank, ""), self._path, hashed=False, peeking=True)
            glance.open()
            first = glance.read(1, SMALL_CHUNK)
            glance.close()
        else:
            self.open(crowded=False)
            first = self._first = self._reader.read(_GLANCE)
        self.start = NEVER if first is None else int(first.time[0])

    def open(self, crowded: bool) -> None:
        """Open the file, if it is not."""
        if not self._opened:
            self._opened = True
            self._reader.open(crowded)
            self._meter.begin(self._reader)

    def read(self, limit: int, span: int) -> PacketBatch | None:
        """Next packets."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        batch = self._reader.read(limit, span)
        if batch is None:
            self._meter.end(self._reader)
        return batch


def _expand(paths: Sequence[str | Path]) -> Iterator[Path | None]:
    """Files in the order given, directories unfolded, each file once; None for standard input."""
    seen: set[tuple[int, int] | str] = set()
    for path in paths:
        for file in _unfold(path):
            identity = _identity(file)
            if identity not in seen:
                seen.add(identity)
                yield file


def _unfold(path: str | Path) -> list[Path | None]:
    if str(path) == STANDARD_INPUT:
        return [None]
    path = Path(path)
    if not path.is_dir():
        return [path]
    found: list[Path | None] = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        found += [file for name in names if _is_capture(file := Path(folder, name))]
    return sorted(found, key=str)


def _is_capture(path: Path) -> bool:
    """Whether a file in a directory is a capture by its content, or means to be one by its name."""
    if not _is_regular(path):
        return False
    name = path.name.lower()
    for suffix in _PACKED_SUFFIXES:
        name = name.removesuffix(suffix)
    if name.endswith(_SUFFIXES):
        return True
    try:
        source = open_input(path, hashed=False, mapped=False, chunk=SMALL_CHUNK)
    except OSError:
        return False
    source.extend()
    head = source.window.buffer[:4].tobytes()
    source.finish()
    return is_pcap(head) or is_pcapng(head)


def _identity(path: Path | None) -> tuple[int, int] | str:
    if path is None:
        return STANDARD_INPUT
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return status.st_dev, status.st_ino


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _size(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _name(path: Path | None) -> str:
    return STANDARD_INPUT if path is None else path.name
