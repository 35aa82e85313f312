"""Figures of recording sessions, for metrics.

In: what a `SessionControl` tells, events since the start, counts of media. Out: `Figures`, a value. Any thread may ask;
sessions are counted at most once in `FRESH` s, for listing them takes their loop's time.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recorder.siprec.control import EventKind, Role, SessionControl, SessionEvent, SessionState

FRESH = 5.0
MOST_SERVERS = 64
"""That have a figure of their own: those of the settings, in practice."""


@dataclass(frozen=True, slots=True)
class MediaCounts:
    """RTP packets since the start."""

    forwarded: int
    unsent: int
    """That could not be sent on, of calls whose sessions had begun."""
    dropped: int = 0
    """That the system dropped before the forwarder had them, of all traffic."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures."""

    sessions: Mapping[tuple[Role, SessionState], int] = field(default_factory=dict)
    """In progress."""
    events: Mapping[EventKind, int] = field(default_factory=dict)
    """Since the start."""
    servers: Mapping[str, bool] = field(default_factory=dict)
    """Recording servers that went up or down since the start: whether they are up."""
    media: MediaCounts | None = None


class SessionFigures:
    """Keeps count."""

    def __init__(self, control: SessionControl, media: Callable[[], MediaCounts] | None = None) -> None:
        """From now on; `media` counts what is sent on, where anything is."""
        self._control = control
        self._media = media
        self._lock = threading.Lock()
        self._events: Counter[EventKind] = Counter()
        self._servers: dict[str, bool] = {}
        self._sessions: Counter[tuple[Role, SessionState]] = Counter()
        self._counted = -FRESH
        self._stop = control.listen(self._hear)

    def close(self) -> None:
        """Count no more."""
        self._stop()

    def read(self) -> Figures:
        """The figures now. Raises SpanrecError where the sessions do not answer."""
        now = time.monotonic()
        if now - self._counted >= FRESH:
            over = (SessionState.ENDED, SessionState.FAILED)
            counted = Counter((each.role, each.state) for each in self._control.sessions() if each.state not in over)
            with self._lock:
                self._counted, self._sessions = now, counted
        with self._lock:
            media = self._media() if self._media is not None else None
            return Figures(dict(self._sessions), dict(self._events), dict(self._servers), media)

    def _hear(self, event: SessionEvent) -> None:
        """In the sessions' thread."""
        with self._lock:
            self._events[event.kind] += 1
            if event.kind in (EventKind.SERVER_UP, EventKind.SERVER_DOWN) and (
                event.peer in self._servers or len(self._servers) < MOST_SERVERS
            ):
                self._servers[event.peer] = event.kind is EventKind.SERVER_UP
