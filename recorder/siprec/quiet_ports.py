"""Ports that are used no more and to which media may still come: they are closed when they have fallen silent.

In: pairs that are released, when something last came to each. Out: pairs whose media are to be heard no more, and pairs
that may be closed. A client that goes on to send after its BYE is then not heard in the call that gets its ports next.
Bounded in time: who sends for ever keeps a pair for `MOST` only. It reads no clock; times are ns, wall clock.
"""

from collections.abc import Callable
from typing import NamedTuple

from capture.media_ports import MediaPort

SECOND = 1_000_000_000
LINGER = SECOND // 4
"""For which what comes is still of the call: it was sent before the end."""
QUIET = 2.0
"""s without a packet after which a pair is silent."""
MOST = 120 * SECOND
LOOK = SECOND // 4
"""Between two looks."""


class Change(NamedTuple):
    """What is to be done now."""

    mute: list[MediaPort]
    close: list[MediaPort]


_NOTHING = Change([], [])


class QuietPorts:
    """Pairs that are released and not closed yet."""

    def __init__(self, quiet: float = QUIET) -> None:
        """`quiet`: s; 0: pairs are closed at the next look."""
        self._quiet = round(quiet * SECOND)
        self._released: dict[tuple[int, int], tuple[int, MediaPort]] = {}
        """By place and opening: since when, and the pair."""
        self._heard: set[tuple[int, int]] = set()
        """Those that are not muted yet."""
        self._next = 0

    @property
    def left(self) -> list[MediaPort]:
        """Pairs that are not closed yet."""
        return [port for _, port in self._released.values()]

    def add(self, port: MediaPort, now: int) -> bool:
        """A pair is released; False where it was before."""
        key = (port.place, port.opening)
        if key in self._released:
            return False
        self._released[key] = (now, port)
        self._heard.add(key)
        return True

    def look(self, now: int, last: Callable[[MediaPort], int], *, behind: bool = False) -> Change:
        """What is due. `last`: when a packet of media last came to a pair, 0 for never. `behind`: some that came before
        are not read yet, and may be of calls that are over: none is muted."""
        if not self._released or 0 <= now - self._next < LOOK:
            return _NOTHING
        self._next = now
        change = Change([], [])
        for key, (since, port) in list(self._released.items()):
            if now - since >= MOST or now - max(since, last(port)) >= self._quiet or now < since:
                change.close.append(port)
                del self._released[key]
                self._heard.discard(key)
            elif key in self._heard and now - since >= LINGER and not behind:
                change.mute.append(port)
                self._heard.discard(key)
        return change
