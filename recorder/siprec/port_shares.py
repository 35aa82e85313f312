"""Media ports shared out among clients: none of them has more than its share of what there is.

In: who opens and releases pairs of ports. Out: yes, or `ShareSpent`. A pair counts until it may be given again, a while
after it was released: an offer of many lines that is ended at once uses up ports as one that stays does. It reads the
clock that it is given, opens nothing, and is bounded by the ports that are out. One thread uses it.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from capture.errors import SpanrecError
from capture.port_pool import REST
from recorder.siprec.quiet_ports import QUIET

if TYPE_CHECKING:
    from capture.media_ports import MediaPort


class ShareSpent(SpanrecError):  # noqa: N818  # the event's own name
    """A client has as many ports as it may have."""


class Ports(Protocol):
    """Where pairs come from."""

    def open(self, host: str) -> "MediaPort":
        """A pair at an address of ours. Raises SpanrecError where none is left."""
        ...

    def release(self, port: "MediaPort") -> None:
        """A pair that is used no more."""
        ...


class PortShares:
    """How many pairs each client has."""

    def __init__(self, most: int, *, rest: float = QUIET + REST, clock: Callable[[], float] = time.monotonic) -> None:
        """`most` pairs of one client. `rest`: s that a pair counts after it was released. `clock`: monotonic, s."""
        self.most = most
        self._rest = rest
        self._clock = clock
        self._used: dict[str, int] = {}
        self._resting: deque[tuple[float, str]] = deque()

    def used(self, client: str) -> int:
        """Pairs that count as a client's now."""
        self._wake()
        return self._used.get(client, 0)

    def allow(self, client: str, pairs: int) -> None:
        """Raises ShareSpent where a client may not have so many pairs more."""
        if self.used(client) + pairs > self.most:
            raise ShareSpent(f"{client} may have {self.most} streams at once, and would have more")

    def take(self, client: str) -> None:
        """One more pair for a client. Raises ShareSpent."""
        self.allow(client, 1)
        self._used[client] = self._used.get(client, 0) + 1

    def rest(self, client: str) -> None:
        """A client released a pair."""
        self._resting.append((self._clock() + self._rest, client))

    def give_back(self, client: str) -> None:
        """A pair that was never opened counts no more."""
        left = self._used.get(client, 0) - 1
        if left > 0:
            self._used[client] = left
        else:
            self._used.pop(client, None)

    def _wake(self) -> None:
        now = self._clock()
        while self._resting and self._resting[0][0] <= now:
            self.give_back(self._resting.popleft()[1])


class SharedPorts:
    """`Ports` as one client has them."""

    def __init__(self, ports: Ports, shares: PortShares, client: str) -> None:
        self._ports = ports
        self._shares = shares
        self._client = client

    def allow(self, pairs: int) -> None:
        """Raises ShareSpent where so many pairs more are too many: none of them is to be opened then."""
        self._shares.allow(self._client, pairs)

    def open(self, host: str) -> "MediaPort":
        """A pair of the client's share. Raises ShareSpent, and what `ports` raises."""
        self._shares.take(self._client)
        try:
            return self._ports.open(host)
        except BaseException:
            self._shares.give_back(self._client)
            raise

    def release(self, port: "MediaPort") -> None:
        """A pair that is used no more."""
        self._ports.release(port)
        self._shares.rest(self._client)
