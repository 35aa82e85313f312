"""Recording servers: which of a list a session goes to, and which of them are there.

In: outcomes of sessions and of OPTIONS pings, with the time of a monotonic clock in seconds. Out: servers in the order
in which they are to be tried, those to be pinged, and changes of health. A server that fails is down: it is tried again
after a while that doubles with each failure, by a ping, or by a session where nothing else is left. It sends nothing.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from recorder.siprec.src_decision import Choice, Server

FAILURES = 2
"""In a row, after which a server is down. One that cannot be reached is down at once."""
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 30.0
LONGEST_RETRY_AFTER = 600.0
IDLE_PING = 30.0
"""s between pings of a server that is up and has no session."""
BUSY_PING = 1.0
"""s between pings of a server that has sessions: a dead one is to be known within seconds."""
FORGOTTEN = 3600.0
"""s after which a server that nobody asked for is forgotten."""


@dataclass(slots=True)
class Health:
    """One server."""

    server: Server
    up: bool = True
    answers_pings: bool = False
    """It has answered one: only then does silence tell anything."""
    failures: int = 0
    """In a row."""
    closed_until: float = 0.0
    """Before this time nothing goes there unless nothing else is left."""
    silent: bool = False
    """It could not be reached: the first answer to a ping opens it again. One that refuses stays closed."""
    next_ping: float = 0.0
    pinging: bool = False
    sessions: int = 0
    asked: float = 0.0
    alive_at: float | None = None
    """When it last showed that it is there."""
    agent: str = ""
    """Name of the user agent whose sessions asked for it last: pings go the same way."""


class Servers:
    """All servers that sessions have asked for. Keyed by URI and outbound proxy."""

    def __init__(
        self,
        clock: Callable[[], float],
        changed: Callable[[Server, bool], None] = lambda server, up: None,
        random: Random | None = None,
    ) -> None:
        """`changed` is told when a server goes down or comes back."""
        self.changed = changed
        self._clock = clock
        self._random = random or Random()
        self._known: dict[tuple[str, str | None], Health] = {}

    def watch(self, servers: Iterable[Server]) -> None:
        """Ping these from now on, before any session asks for them."""
        for server in servers:
            self.health(server)

    def health(self, server: Server) -> Health:
        """What is known of a server."""
        known = self._known.setdefault((server.uri, server.via), Health(server))
        known.asked = self._clock()
        return known

    def is_up(self, server: Server) -> bool:
        """Whether a server is there as far as is known; any thread may ask."""
        known = self._known.get((server.uri, server.via))
        return known is None or known.up

    def is_silent(self, server: Server) -> bool:
        """Whether a server is down because it could not be reached, and not because it refused."""
        known = self._known.get((server.uri, server.via))
        return known is not None and not known.up and known.silent

    def agent_of(self, server: Server) -> str:
        """Name of the user agent that asks a server how it is."""
        known = self._known.get((server.uri, server.via))
        return known.agent if known is not None else ""

    def order(
        self, servers: Sequence[Server], choice: Choice, *, last_resort: bool = False, agent: str = ""
    ) -> list[Server]:
        """Servers to be tried, in order: those that are up, those whose time to be tried again has come, and where
        `last_resort`, the others too. `agent`: who is going to try them."""
        now = self._clock()
        listed = list(servers) if choice is Choice.ORDER else self._by_lot(servers)
        for each in listed:
            self.health(each).agent = agent
        up = [each for each in listed if self.health(each).up]
        due = [each for each in listed if not self.health(each).up and self.health(each).closed_until <= now]
        rest = [each for each in listed if each not in up and each not in due]
        rest.sort(key=lambda each: self.health(each).closed_until)
        return [*up, *due, *(rest if last_resort else ())]

    def succeeded(self, server: Server) -> None:
        """It answered as a server that is there does."""
        known = self.health(server)
        known.failures, known.closed_until = 0, 0.0
        self._open(known)

    def failed(self, server: Server, *, unreachable: bool = False, retry_after: float | None = None) -> None:
        """A session could not be had there, or it is silent. A refusal with Retry-After keeps it closed so long."""
        known = self.health(server)
        now = self._clock()
        if not known.up and now < known.closed_until and retry_after is None:
            return  # one of many sessions that fail at the same time: they are one failure
        known.failures += 1
        if retry_after is not None:
            known.closed_until = max(known.closed_until, now + min(retry_after, LONGEST_RETRY_AFTER))
        if not unreachable and retry_after is None and known.failures < FAILURES:
            return
        backoff = min(FIRST_BACKOFF * 2 ** min(known.failures - 1, 16), LONGEST_BACKOFF)
        known.closed_until = max(known.closed_until, now + backoff)
        known.silent = unreachable
        known.next_ping = now + backoff
        if known.up:
            known.up = False
            self.changed(server, False)

    def due(self) -> list[Server]:
        """Servers to be pinged now; `pinged` is to be told what came of each."""
        now = self._clock()
        for key in [key for key, each in self._known.items() if not each.sessions and now - each.asked > FORGOTTEN]:
            del self._known[key]
        due = [each for each in self._known.values() if not each.pinging and each.next_ping <= now]
        for each in due:
            each.pinging = True
        return [each.server for each in due]

    def pinged(self, server: Server, *, answered: bool) -> None:
        """What came of a ping."""
        known = self._known.get((server.uri, server.via))
        if known is None:
            return
        now = self._clock()
        known.pinging = False
        if answered:
            known.answers_pings = True
            if known.silent or known.up:
                self.succeeded(server)
            elif known.closed_until <= now:
                self._open(known)  # its failures still count, so that the next one closes it for longer
        elif known.answers_pings or not known.up:
            self.failed(server, unreachable=not known.up or known.failures + 1 >= FAILURES)
        if known.up and known.failures and not answered:
            known.next_ping = now  # to be sure of it at once
        elif known.up:
            known.next_ping = now + (BUSY_PING if known.sessions else IDLE_PING)

    def wait(self, server: Server) -> float:
        """s until a server may be tried (again)."""
        return max(0.0, self.health(server).closed_until - self._clock())

    def silent_for(self, server: Server) -> int:
        """ms since a server last showed that it is there."""
        alive = self.health(server).alive_at
        return 0 if alive is None else int((self._clock() - alive) * 1000)

    def hold(self, server: Server, change: int) -> None:
        """A session has begun (+1) or ended (-1) there."""
        known = self.health(server)
        known.sessions = max(0, known.sessions + change)
        if change > 0:
            known.next_ping = min(known.next_ping, self._clock() + BUSY_PING)

    def _open(self, known: Health) -> None:
        known.silent = False
        known.alive_at = self._clock()
        if not known.up:
            known.up = True
            self.changed(known.server, True)

    def _by_lot(self, servers: Sequence[Server]) -> list[Server]:
        """All of them, each place drawn in proportion to the weights of those that are left (RFC 2782 draws so)."""
        left, drawn = list(servers), []
        while left:
            place = self._random.choices(range(len(left)), [max(each.weight, 1) for each in left])[0]
            drawn.append(left.pop(place))
        return drawn


def goes_on(status: int, final: re.Pattern[str] | None) -> bool:
    """Whether a refusal leads to the next server; `final` fits codes that do not."""
    return final is None or final.fullmatch(str(status)) is None
