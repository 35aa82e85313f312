"""Pairs of UDP ports for media: an even one for RTP, the odd one above it for RTCP (RFC 3550, section 11).

In: a range of ports. Out: numbers of even ports, each in one hand at a time. Which is next cannot be foretold
(RFC 6056, section 3.3), and one that was given back rests before it is given again, so that late packets of one call
do not reach another. It opens no socket, and may be used by several threads.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from random import SystemRandom

from capture.errors import SpanrecError

LOW_PORT = 40000
HIGH_PORT = 49999
REST = 10.0
"""Seconds that a pair rests."""


class PortsExhausted(SpanrecError):  # noqa: N818  # the event's own name
    """No pair of ports is left, or the system gives none."""


class PortPool:
    """The pairs of one range."""

    def __init__(
        self,
        low: int = LOW_PORT,
        high: int = HIGH_PORT,
        *,
        rest: float = REST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ports `low` to `high`, both included. Raises ValueError where no pair lies in there."""
        even = list(range(low + low % 2, high, 2))
        if not even or not 1024 <= low <= high <= 0xFFFF:
            raise ValueError(f"ports {low}-{high} hold no pair: give two numbers from 1024 to 65535, lower one first")
        self.low = even[0]
        self.pairs = len(even)
        self._text = f"{low}-{high}"
        self._rest = rest
        self._clock = clock
        self._lock = threading.Lock()
        SystemRandom().shuffle(even)
        self._free = deque(even)
        self._resting: deque[tuple[float, int]] = deque()
        self._taken: set[int] = set()
        self._avoided: list[tuple[float, int]] = []
        """(until when it is not given, port), a heap."""

    def __len__(self) -> int:
        """Pairs that could be had now."""
        with self._lock:
            self._wake()
            return len(self._free)

    def take(self) -> int:
        """An even port. Raises PortsExhausted."""
        with self._lock:
            self._wake()
            if not self._free:
                left = len(self._avoided)
                why = f" but {left} to which others may still send for a while" if left else ""
                raise PortsExhausted(
                    f"all {self.pairs} pairs of the media ports {self._text} are in use{why}: give a larger range"
                )
            port = self._free.popleft()
            self._taken.add(port)
            return port

    def give_back(self, port: int) -> None:
        """It is used no more; what is not out is passed over."""
        with self._lock:
            if port in self._taken:
                self._taken.discard(port)
                self._resting.append((self._clock() + self._rest, port))

    def avoid(self, ports: Iterable[int], seconds: float) -> None:
        """Give none of these even ports for some seconds; those that are out or not given now, or none of the range,
        are passed over."""
        with self._lock:
            self._wake()
            avoided, until = set(ports), self._clock() + seconds
            for port in avoided.intersection(self._free):
                heapq.heappush(self._avoided, (until, port))
            self._free = deque(port for port in self._free if port not in avoided)

    def relent(self, ports: Iterable[int], seconds: float) -> None:
        """Ports that are avoided are so for some seconds more at most: who sent there has noticed."""
        with self._lock:
            noticed, most = set(ports), self._clock() + seconds
            self._avoided = [(min(until, most) if port in noticed else until, port) for until, port in self._avoided]
            heapq.heapify(self._avoided)

    def _wake(self) -> None:
        now = self._clock()
        while self._avoided and self._avoided[0][0] <= now:
            self._free.append(heapq.heappop(self._avoided)[1])
        while self._resting and self._resting[0][0] <= now:
            self._free.append(self._resting.popleft()[1])
