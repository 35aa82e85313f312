"""Timers of the user agent's core: what is to happen when, by a clock that the caller reads.

In: moments in float seconds of any steady clock. Out: calls of what was to happen, in order of their moments. Never
reads a clock itself.
"""

import heapq
import itertools
from collections.abc import Callable
from typing import NamedTuple

Action = Callable[[float], None]
"""What happens when a timer fires; is given the present moment."""

_SLACK = 256
"""Stopped timers that may lie in the heap before it is swept."""


class Intervals(NamedTuple):
    """Base intervals in s (RFC 3261, section 17.1.1.1 and table 4)."""

    t1: float = 0.5
    """Estimate of the round trip."""
    t2: float = 4.0
    """Longest pause between retransmissions."""
    t4: float = 5.0
    """Longest time that a message stays in the network."""

    @property
    def patience(self) -> float:
        """64*T1: how long a transaction waits (timers B, F, H, J, L, M)."""
        return 64 * self.t1


class Timer:
    """One thing that is to happen."""

    __slots__ = ("_timers", "action", "when")

    def __init__(self, timers: "Timers", when: float, action: Action) -> None:
        self._timers = timers
        self.when = when
        self.action: Action | None = action

    def stop(self) -> None:
        """It shall not happen."""
        if self.action is not None:
            self.action = None
            self._timers.forget()


class Timers:
    """All timers of one core."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._stopped = 0

    def start(self, when: float, action: Action) -> Timer:
        """Have `action` called at `when`."""
        timer = Timer(self, when, action)
        heapq.heappush(self._heap, (when, next(self._numbers), timer))
        return timer

    def next_timeout(self) -> float | None:
        """When `run` has something to do next; None: nothing waits."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
            self._stopped -= 1
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Do what is due."""
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is None:
                self._stopped -= 1
            else:
                action(now)

    def forget(self) -> None:
        """A timer of the heap was stopped: sweep when too many lie there."""
        self._stopped += 1
        if self._stopped > _SLACK and self._stopped * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._stopped = 0
