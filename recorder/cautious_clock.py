"""The time to delete by: a clock that is set wrong must not make recordings look old.

In: readings of the wall clock and of a clock that nobody sets. Out: the time that retention goes by. A wall clock that
runs ahead of the other is believed only after a day, in which somebody may see the alarm and set it right; until then
time goes on from what was believed before. Waiting deletes late, never early.
"""

from collections.abc import Callable

JUMP = 3_600_000_000_000
"""ns that the wall clock may be ahead."""
DOUBT = 86_400_000_000_000
"""ns for which it is not believed."""
IDLE = 30 * 86_400_000_000_000
"""ns after the newest recording at which a service may well be started."""


class CautiousClock:
    """Remembers when it last believed the wall clock. All times in ns."""

    def __init__(self, newest: int | None, note: Callable[[str], None]) -> None:
        """`newest` is when the newest recording began, None where there is none; `note` takes sentences."""
        self._believed: tuple[int, int] | None = None
        self._newest = newest
        self._note = note
        self._doubted: int | None = None
        """Steady time since when the wall clock is ahead."""

    def read(self, wall: int, steady: int) -> int:
        """The time to delete by."""
        if self._believed is None:
            self._believed = (wall if self._newest is None else min(wall, self._newest + IDLE), steady)
        expected = self._believed[0] + steady - self._believed[1]
        if wall <= expected + JUMP:
            self._doubted = None
        elif self._doubted is None:
            self._doubted = steady
            self._note("the clock is far ahead of what was expected; for a day nothing is deleted because of that")
        if self._doubted is not None and steady - self._doubted < DOUBT:
            return expected
        self._doubted = None
        self._believed = (wall, steady)
        return wall
