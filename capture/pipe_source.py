"""A capture that comes down a pipe, as a live source: `ssh probe tcpdump -U -w - | spanrec capture -`.

In: pcap or pcapng, plain or packed, from standard input or a named pipe. Out: a `LiveSource`. Reading waits in a thread
of its own, because a packed stream may hold back what it has read; a few batches are read ahead, then the pipe is left
to fill and the writer to wait. That the stream ends, breaks or is no capture is told in the note: the source is then
down and gives nothing more. Times are those of the machine that captures.
"""

import os
import threading
import time
from collections import deque
from pathlib import Path

from capture.batch import PacketBatch
from capture.live import SourceCounters
from capture.reader import STANDARD_INPUT, CaptureFile, FileReader

BATCH_PACKETS = 8192
AHEAD = 3
"""Batches that are read before the first of them is asked for."""
_CLOSE_PATIENCE = 0.5
"""Seconds that closing waits for the thread, which may be stuck in a read that only its writer can end."""


class PipeSource:
    """A `LiveSource` of one stream, from its beginning to its end."""

    stamped_here = False

    def __init__(self, path: Path | None = None, *, capture: int = 0, batch_packets: int = BATCH_PACKETS) -> None:
        """Read standard input, or the named pipe at `path`; `capture` is the source's index in its batches."""
        self.name = STANDARD_INPUT if path is None else str(path)
        self._path = path
        self._limit = batch_packets
        self._file = CaptureFile(capture, self.name)
        self._reader = FileReader(self._file, path, hashed=False)
        self._ahead: deque[PacketBatch] = deque()
        self._change = threading.Condition()
        self._ended = self._closed = False
        self._broken = ""
        self._packets = self._octets = 0
        self._thread = threading.Thread(target=self._read, name=f"reading {self.name}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the stream is over and all of it has been given."""
        with self._change:
            return self._ended and not self._ahead

    def poll(self, timeout: float) -> PacketBatch | None:
        """The next packets; None where none came within `timeout` seconds, or will come any more."""
        if self._closed:
            return None
        if self.ended:
            time.sleep(timeout)  # so that whoever polls in a loop does not spin
            return None
        with self._change:
            self._change.wait_for(lambda: self._ahead or self._ended or self._closed, timeout)
            if not self._ahead:
                return None
            batch = self._ahead.popleft()
            self._change.notify_all()
        self._packets += len(batch)
        self._octets += int(batch.wire.sum())
        return batch

    def counters(self) -> SourceCounters:
        """Counts since the stream began."""
        return SourceCounters(
            packets=self._packets,
            octets=self._octets,
            dropped=0,
            frozen=0,
            up=not self._ended and not self._closed,
            note=self._note(),
        )

    def close(self) -> None:
        """Stop reading; standard input itself stays open."""
        with self._change:
            self._closed = True
            self._ahead.clear()
            self._change.notify_all()
        if self._path is not None:
            self._wake()
        self._thread.join(_CLOSE_PATIENCE)

    def _read(self) -> None:
        """The thread: batches until the stream ends or nobody wants more."""
        try:
            self._reader.open()
            while self._has_room():
                batch = self._reader.read(self._limit)
                if batch is None:
                    break
                with self._change:
                    self._ahead.append(batch)
                    self._change.notify_all()
        except Exception as error:  # a reader that fails must not look like one that waits
            self._broken = f"reading failed: {error}"
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _has_room(self) -> bool:
        with self._change:
            self._change.wait_for(lambda: self._closed or len(self._ahead) < AHEAD)
            return not self._closed

    def _wake(self) -> None:
        """End a wait for the first writer of a named pipe, by being one."""
        assert self._path is not None
        try:
            os.close(os.open(self._path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return

    def _note(self) -> str:
        damage = [each.text for each in self._file.damage[-1:]]
        if self._closed or not self._ended:
            state = ["times are those of the capturing machine"]
        elif self._file.readable:
            state = [f"the stream has ended after {self._file.packets} packets"]
        else:
            state = ["the stream has ended"]
        return "; ".join([*state, *damage, *([self._broken] if self._broken else [])])
