"""The files of a watched directory: which there are, in which order, and how far each was read.

In: a directory, and what was taken of it before. Out: `WatchedFile`s with more to read, oldest packets first. A file is
known by its inode and how it begins, so that it may be renamed, replaced, cut off and written anew, or packed. Nothing
here raises.
"""

import os
import re
import stat
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from capture.batch import PacketBatch
from capture.followed import FollowedFile, first_time
from capture.spool import is_packed_file
from capture.watch_state import HEAD, Memory, Taken, fingerprint, unpacked_fingerprint

SETTLED = 2.0
"""Seconds without growth after which a file that another follows is finished."""
MOST_FILES = 100_000
MOST_GONE = 1000
"""Files that went away and are remembered, so that one that comes back is not taken twice."""
LOOKING = 0.5
"""Seconds that one look at the directory may take; the rest of many new files waits for the next."""
_PACKED_NAMES = (".gz", ".zst")
_ROTATING = re.compile(r"(?<![A-Za-z0-9])\d+|(?<=\dT)\d+|\d+$")
"""Numbers that rotation puts into names: not those of eth1 and eth2, whose files are two series."""

Key = tuple[int, int]
"""Device and inode."""


@dataclass(slots=True)
class WatchedFile:
    """One file and what was read of it."""

    path: Path
    size: int
    modified: int
    changed: float
    """When it last grew, by a clock that only goes forward."""
    packed: bool
    head: str
    head_octets: int
    packets: int = 0
    """Number of the last frame that was ingested."""
    read_to: int = 0
    """Size that it had when nothing more was to be read."""
    done: bool = False
    started: int | None = None
    """Time of its first packet, ns; None while it has none."""
    looked_at: tuple[int, int] = (-1, -1)
    """Size and time of change when the first packet was looked for."""
    superseded: bool = False
    """A later file of the same series is there."""
    reader: FollowedFile | None = None
    twin: "WatchedFile | Taken | None" = None
    """The plain file whose packed form this may be."""

    @property
    def series(self) -> str:
        """What the names of files that one writer rotates have in common."""
        return _ROTATING.sub("", _plain_name(self.path.name))

    @property
    def order(self) -> tuple[int, str]:
        """Where it stands among the others."""
        return self.started or 0, self.path.name

    def is_settled(self, now: float) -> bool:
        """Whether nothing has been written for a while."""
        return now - self.changed > SETTLED

    def has_more(self, now: float) -> bool:
        """Whether it is to have a turn: there are octets to read, or its end is to be told."""
        if self.started is None or self.done:
            return False
        if self.read_to != self.size:
            return not self.packed or self.is_settled(now)
        return self.superseded and self.is_settled(now)

    def read(self, limit: int, ahead: int) -> PacketBatch | None:
        """Next packets; None where there are none, or more than `ahead` octets have come since it was looked at."""
        assert self.reader is not None
        if self.reader.taken >= self.size + ahead:
            return None
        batch = self.reader.read(limit)
        if batch is None:
            self.read_to = self.reader.taken if self.reader.file.readable else self.size
        return batch

    def open(self, capture: int) -> bool:
        """Open it, if it is not; whether that worked."""
        if self.reader is None:
            try:
                self.reader = FollowedFile(self.path, capture, packed=self.packed)
            except OSError:
                return False
            if self.twin is not None and unpacked_fingerprint(self.path, self.twin.head_octets) == self.twin.head:
                self.packets = max(self.packets, self.twin.packets)
        return True

    def rest(self, now: float) -> list[str]:
        """Nothing more is there at present: finish the file if its writer has moved on; what was damaged then."""
        if self.reader is None or self.read_to != self.size:
            return []
        if not self.packed and not (self.superseded and self.is_settled(now)):
            return []
        self.reader.end()
        self.reader.read(1)
        damage = [each.text for each in self.reader.file.damage]
        self.close()
        self.done = True
        return damage

    def close(self) -> None:
        """Hold it open no longer."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def as_taken(self, inode: int) -> Taken:
        """What is to be remembered of it. Packets that were read and not ingested are not taken."""
        return Taken(self.path.name, inode, self.head, self.head_octets, self.packets, self.read_to, self.done)


@dataclass(slots=True)
class WatchedFiles:
    """All files of the directory."""

    directory: Path
    gone: Memory
    """What was taken of files that are not there, or were not looked at yet."""
    lost: str = ""
    """Why the directory cannot be read."""
    vanished: int = 0
    """Files that went away before all of them was read."""
    damage: deque[str] = field(default_factory=lambda: deque(maxlen=3))
    """The latest."""
    trouble: str = ""
    """Why a file could not be deleted."""
    _files: dict[Key, WatchedFile] = field(default_factory=dict)
    _complete: bool = False
    """Whether all files were looked at, so that their order is known."""

    def look(self) -> None:
        """See which files there are now, and how large they are."""
        now, until = time.monotonic(), time.monotonic() + LOOKING
        try:
            with os.scandir(self.directory) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")][:MOST_FILES]
        except OSError as error:
            self.lost = error.strerror or "it went away"
            return
        self.lost = ""
        seen = {key for name in sorted(names) if (key := self._see(self.directory / name, now)) is not None}
        for key in [key for key in self._files if key not in seen]:
            self._miss(key)
        self._complete = True
        for file in self._files.values():
            if file.started is None and file.looked_at != (file.size, file.modified):
                if time.monotonic() > until:
                    self._complete = False
                    break
                file.looked_at = (file.size, file.modified)
                file.started = first_time(file.path)
        self._find_superseded()

    def with_more(self) -> list[WatchedFile]:
        """Files that have something to read, oldest first; none before all were looked at."""
        now = time.monotonic()
        found = [file for file in self._files.values() if file.has_more(now)] if self._complete else []
        return sorted(found, key=lambda file: file.order)

    def taken(self) -> list[Taken]:
        """What is to be remembered."""
        return [*self.gone, *(file.as_taken(key[1]) for key, file in self._files.items())]

    def rest(self, file: WatchedFile) -> None:
        """A file's turn is over."""
        name = file.path.name.encode("unicode_escape").decode()
        self.damage.extend(f"{name}: {text}" for text in file.rest(time.monotonic()))

    def let_go(self, most: int, idle: float) -> None:
        """Hold open no more than `most` files, and none that has not grown for `idle` seconds."""
        held = sorted(
            (file for file in self._files.values() if file.reader is not None and file.read_to == file.size),
            key=lambda file: file.changed,
        )
        late = time.monotonic() - idle
        for place, file in enumerate(held):
            if file.changed < late or place < len(held) - most:
                file.close()

    def delete_done(self) -> None:
        """Delete what was read to its end, unless it has changed since."""
        for key, file in list(self._files.items()):
            if not file.done:
                continue
            try:
                status = file.path.stat()
                if (status.st_dev, status.st_ino, status.st_size) == (*key, file.size):
                    file.path.unlink()
                    self._forget(key)
            except OSError as error:
                self.trouble = f"{file.path}: it was read and cannot be deleted: {error.strerror}"

    def close(self) -> None:
        """Hold nothing open."""
        for file in self._files.values():
            file.close()

    def _see(self, path: Path, now: float) -> Key | None:
        """Bring what is known of a file up to date; None where it is no regular file."""
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return None
            key = (status.st_dev, status.st_ino)
            file = self._files.get(key)
            if file is not None and (file.size, file.modified) != (status.st_size, status.st_mtime_ns):
                if self._is_another(file, path, status.st_size):
                    self._forget(key)
                    file = None
                else:
                    self._grow(file, path, status, now)
            if file is None:
                file = self._files[key] = self._adopt(path, status, now)
        except OSError:
            return None
        file.path = path
        return key

    def _is_another(self, file: WatchedFile, path: Path, size: int) -> bool:
        """Whether the same inode holds another capture than before."""
        return size < max(file.read_to, file.head_octets) or not _begins_so(path, file.head, file.head_octets)

    def _grow(self, file: WatchedFile, path: Path, status: os.stat_result, now: float) -> None:
        if file.head_octets < HEAD:
            file.head, file.head_octets = fingerprint(path)
        file.size, file.modified, file.changed = status.st_size, status.st_mtime_ns, now
        file.packed = is_packed_file(path)
        file.done = False

    def _adopt(self, path: Path, status: os.stat_result, now: float) -> WatchedFile:
        """A file that was not here at the last look."""
        head, head_octets = fingerprint(path)
        age = max(time.time() - status.st_mtime, 0.0)
        file = WatchedFile(
            path=path,
            size=status.st_size,
            modified=status.st_mtime_ns,
            changed=now - age,
            packed=is_packed_file(path),
            head=head,
            head_octets=head_octets,
        )
        known = self.gone.take(path, status.st_ino, status.st_size)
        if known is not None:
            file.packets, file.read_to = known.packets, known.octets
            file.done = known.done and file.read_to == file.size
        if (plain := _plain_name(path.name)) != path.name:
            file.twin = self._named(plain)
        return file

    def _named(self, name: str) -> "WatchedFile | Taken | None":
        there = (file for file in self._files.values() if file.path.name == name)
        return next(there, None) or self.gone.named(name)

    def _miss(self, key: Key) -> None:
        """A file is not there any more; what is open can still be read."""
        file = self._files[key]
        if file.reader is None or file.read_to == file.size:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        """Keep nothing of a file but how far it was read."""
        file = self._files[key]
        if file.started is not None and file.read_to != file.size:
            self.vanished += 1
        file.close()
        del self._files[key]
        self.gone.add(file.as_taken(key[1]), MOST_GONE)

    def _find_superseded(self) -> None:
        latest: dict[str, WatchedFile] = {}
        for file in sorted(self._files.values(), key=lambda file: file.order):
            file.superseded = False
            if file.started is None:
                continue
            before = latest.get(file.series)
            if before is not None:
                before.superseded = True
            latest[file.series] = file


def _plain_name(name: str) -> str:
    """A name without the ending that tells how it is packed."""
    for ending in _PACKED_NAMES:
        name = name.removesuffix(ending)
    return name


def _begins_so(path: Path, head: str, octets: int) -> bool:
    return fingerprint(path, octets) == (head, octets)
