"""Events of recording sessions for whoever reads them as they happen.

In: events, in the sessions' thread, which never waits here. Out: to each reader, in its own thread, lines of JSON; a
blank line every `BEAT` s says that nothing happened, and that the connection lives. Bounded: a reader that falls
`BACKLOG` events behind is left, and gets no more.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from recorder.siprec.control import Listener, SessionEvent
from recorder.siprec.session_json import event_json

BACKLOG = 1000
BEAT = 10.0
READERS = 8
"""At once."""


class EventFeed:
    """The readers. `listen` is that of `SessionControl`; it is called with the first reader."""

    def __init__(self, listen: Callable[[Listener], Callable[[], None]]) -> None:
        self._listen = listen
        self._lock = threading.Lock()
        self._readers: list[Reader] = []
        self._stop: Callable[[], None] | None = None

    def reader(self) -> "Reader | None":
        """A new reader, which gets what happens from now on; None where there are too many."""
        with self._lock:
            if len(self._readers) >= READERS:
                return None
            reader = Reader(self._leave)
            self._readers.append(reader)
            if self._stop is None:
                self._stop = self._listen(self._tell)
            return reader

    def close(self) -> None:
        """All readers come to their end."""
        with self._lock:
            readers, self._readers = self._readers, []
            stop, self._stop = self._stop, None
        if stop is not None:
            stop()
        for reader in readers:
            reader.end()

    def _tell(self, event: SessionEvent) -> None:
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            reader.put(event)

    def _leave(self, reader: "Reader") -> None:
        with self._lock:
            if reader in self._readers:
                self._readers.remove(reader)


class Reader:
    """One reader: iterate for its lines, then `close`."""

    def __init__(self, leave: Callable[["Reader"], None]) -> None:
        self._leave = leave
        self._waiting: queue.Queue[SessionEvent | None] = queue.Queue(BACKLOG)
        self._over = False

    def put(self, event: SessionEvent) -> None:
        """Something happened."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._leave(self)
            self._over = True

    def end(self) -> None:
        """There is no more."""
        self._over = True
        with suppress(queue.Full):  # then it has something to wake up for, and sees that it is over
            self._waiting.put_nowait(None)

    def close(self) -> None:
        """It reads no more."""
        self._leave(self)

    def __iter__(self) -> Iterator[bytes]:
        """Lines, with their line feeds, until it is over."""
        yield b"\n"
        while not self._over:
            try:
                event = self._waiting.get(timeout=BEAT)
            except queue.Empty:
                yield b"\n"
                continue
            if event is not None:
                yield event_json(event) + b"\n"
