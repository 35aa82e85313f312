"""A directory into which another program rotates captures, as a live source: `tcpdump -G` and `-C`, `dumpcap -b`.

In: a directory. Out: a `LiveSource` of the packets of all captures in it, plain ones also while they are being written,
packed ones once they rest. Files are taken in order of their first packets, each to its end before the next; two
series that are written side by side take turns. What is no capture, begins with a dot, or lies in a folder is passed
over.

How far each file was read goes into a small state file, so that a restart neither repeats nor skips: at most once a
second, after the packets have been ingested (that is, with the next `poll`), or when the owner says `save`. Read files
are left where they are, or deleted once that is saved. Nothing here raises after opening; a directory that goes away
is waited for. The directory is polled: that also serves network file systems, of which inotify knows nothing.
"""

import time
from collections import deque
from pathlib import Path

import numpy as np

from capture.batch import PacketBatch
from capture.live import LiveCaptureError, SourceCounters
from capture.watch_files import WatchedFile, WatchedFiles
from capture.watch_state import Memory, load_state, save_state

BATCH_PACKETS = 8192
INTERVAL = 0.25
"""Seconds between looks at the directory."""
MOST_LOOKING = 10
"""Times that a look lasted, after which there is the next: a directory of very many files takes no more of a core."""
MOST_INTERVAL = 2.0
"""Seconds between looks where that is longer than the interval asked for."""
SAVE_EVERY = 1.0
AHEAD = 8 << 20
"""Octets that a file may grow while it is read before the others have their turn."""
MOST_OPEN = 64
"""Files held open to be followed; beyond, the one that rested longest is opened again when it grows."""
IDLE = 60.0
"""Seconds without growth after which a file is no longer held open."""


class WatchedSource:
    """A `LiveSource` of one directory."""

    stamped_here = False
    ended = False

    def __init__(
        self,
        directory: Path,
        state: Path,
        *,
        delete: bool = False,
        capture: int = 0,
        interval: float = INTERVAL,
        save_every: float | None = SAVE_EVERY,
    ) -> None:
        """Watch `directory`, remembering in the file `state`; `delete` removes files that were read and rotated away.

        With `save_every` None only `save` and `close` write the state: the owner then says when packets are safe.

        Raises:
            LiveCaptureError: there is no such directory, or `state` is something else.
        """
        if not directory.is_dir():
            raise LiveCaptureError(f"{directory}: there is no such directory to watch: make it, or name another")
        self.name = f"files in {directory}"
        self._directory = directory
        self._state = state
        self._delete = delete
        self._capture = capture
        self._interval = interval
        self._save_every = save_every
        self._remembered = load_state(state)
        self._files = WatchedFiles(directory, Memory(self._remembered))
        self._round: deque[WatchedFile] = deque()
        self._given: tuple[WatchedFile, int] | None = None
        """The file of the last batch, and the number of that batch's last frame."""
        self._packets = self._octets = 0
        self._trouble = ""
        self._next_look = self._saved = 0.0
        self._closed = False

    def poll(self, timeout: float) -> PacketBatch | None:
        """The next packets; None where none came within `timeout` seconds. What the last poll gave counts as taken."""
        if self._closed:
            return None
        deadline = time.monotonic() + timeout
        self._confirm()
        while True:
            batch = self._next()
            if batch is not None:
                return self._number(batch)
            now = time.monotonic()
            if self._next_look > deadline:
                time.sleep(max(deadline - now, 0.0))
                return None
            time.sleep(max(self._next_look - now, 0.0))
            self._look()

    def counters(self) -> SourceCounters:
        """Counts since the source was opened."""
        return SourceCounters(
            packets=self._packets,
            octets=self._octets,
            dropped=0,
            frozen=0,
            up=not self._closed and not self._files.lost,
            note="; ".join(["times are those of the capturing machine", *self._notes()]),
        )

    def save(self) -> None:
        """Remember what was taken, and delete what may be deleted. What the last `poll` gave is not taken yet."""
        self._saved = time.monotonic()
        taken = self._files.taken()
        try:
            if taken != self._remembered:
                save_state(self._state, taken)
        except OSError as error:
            self._trouble = f"the state cannot be written to {self._state}: {error.strerror}"
            return
        self._trouble = ""
        self._remembered = taken
        if self._delete:
            self._files.delete_done()

    def close(self) -> None:
        """Remember what was taken and let go of the files. The last batch counts as ingested."""
        if self._closed:
            return
        self._confirm()
        self.save()
        self._closed = True
        self._files.close()

    def _confirm(self) -> None:
        """The packets given last have been ingested."""
        if self._given is not None:
            file, number = self._given
            file.packets = max(file.packets, number)
            self._given = None
        if self._save_every is not None and time.monotonic() - self._saved >= self._save_every:
            self.save()

    def _look(self) -> None:
        """See what is in the directory now; the next round is of the files that have more than was read."""
        begun = time.monotonic()
        self._files.look()
        self._round.extend(self._files.with_more())
        ended = time.monotonic()
        self._next_look = ended + max(self._interval, min(MOST_LOOKING * (ended - begun), MOST_INTERVAL))

    def _next(self) -> PacketBatch | None:
        """The next batch of this round, at the end of which no file has more than when it was looked at."""
        while self._round:
            file = self._round[0]
            batch = self._read(file)
            if batch is not None:
                return batch
            self._round.popleft()
            self._files.rest(file)
            self._files.let_go(MOST_OPEN, IDLE)
        return None

    def _read(self, file: WatchedFile) -> PacketBatch | None:
        """Packets of a file that were not taken before; None where its turn is over."""
        if not file.open(self._capture):
            return None
        while (batch := file.read(BATCH_PACKETS, AHEAD)) is not None:
            last = int(batch.number[-1])
            if last > file.packets:
                self._given = (file, last)
                return _behind(batch, file.packets)
        return None

    def _number(self, batch: PacketBatch) -> PacketBatch:
        """Frames are numbered through all files, for together they are one capture."""
        count = len(batch)
        batch.number = np.arange(self._packets + 1, self._packets + count + 1, dtype=np.int64)
        self._packets += count
        self._octets += int(batch.wire.sum())
        return batch

    def _notes(self) -> list[str]:
        files = self._files
        notes = []
        if files.lost:
            notes.append(f"{self._directory} cannot be read: {files.lost}")
        if files.vanished:
            notes.append(f"files that went away before they were read: {files.vanished}")
        return [*notes, *files.damage, *filter(None, (files.trouble, self._trouble))]


def _behind(batch: PacketBatch, number: int) -> PacketBatch:
    """The rows of a batch behind the frame of this number."""
    begin = int(np.searchsorted(batch.number, number, side="right"))
    if not begin:
        return batch
    return PacketBatch(
        buffer=batch.buffer,
        time=batch.time[begin:],
        offset=batch.offset[begin:],
        captured=batch.captured[begin:],
        wire=batch.wire[begin:],
        link_type=batch.link_type[begin:],
        number=batch.number[begin:],
        capture=batch.capture[begin:],
    )
