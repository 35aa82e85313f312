"""How a recording session of ours stays at its server, and what is said when it has left one for another.

In: links, reports of their legs, whether the server answers pings. Out: why a server is lost, whether it is to be asked
within the dialog, whether the session may go elsewhere, the event of a move that is complete. It sends nothing.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recorder.sip_ua.api import Ended, EndedBy
from recorder.siprec.control import EventKind
from recorder.siprec.legs import LegId, LegReport
from recorder.siprec.servers import Servers
from recorder.siprec.src_connect import Connector
from recorder.siprec.src_health import MediaHealth
from recorder.siprec.src_link import Link
from recorder.siprec.src_media import SrcMedia
from recorder.siprec.src_move import Move

SHORT = 10.0
"""s below which a dialog that the server ended was a short one."""
MOST_SHORT = 5
"""Of them in a row, after which nothing more is tried."""
NO_PONG = "it answers no OPTIONS"
_MILLISECOND = 1_000_000
_WHY = {EndedBy.PEER: "it said BYE", EndedBy.TIMER: "its session timer ran out"}


@dataclass(frozen=True, slots=True)
class Finding:
    """How a server does."""

    lost: str = ""
    """Why it is not there any more; empty where it may be."""
    ask: bool = False
    """It is to be asked within the dialog: it may have been started again, and know nothing of this."""


Tell = Callable[[EventKind, str, Mapping[str, str | int | float | None]], None]


@dataclass(slots=True, eq=False)
class Stay:
    """Of one session, at one server after the other."""

    clock: Callable[[], int]
    """Capture time, ns."""
    servers: Servers
    media: SrcMedia
    connector: Connector
    tell: Tell
    short: int = 0
    """Dialogs in a row that a server ended soon."""
    _health: MediaHealth = field(init=False)
    _since: float = 0.0
    _doubted: bool = False
    """The server answered no pings, but its RTCP was fresh."""
    _move: Move | None = None

    def __post_init__(self) -> None:
        self._health = MediaHealth(self.clock)

    def begin(self) -> bool:
        """At a server; says whether the session was at another one before."""
        self._since = asyncio.get_running_loop().time()
        self._doubted = False
        self._health.begin()
        if self._move is None:
            return False
        self._move.at = self._since
        return True

    @property
    def seconds(self) -> float:
        """For how long it has been there."""
        return asyncio.get_running_loop().time() - self._since

    @property
    def uneasy(self) -> bool:
        """Whether there is something to be settled soon: a move, a server that is doubted or does not listen."""
        return self._move is not None or self._doubted or self._health.doubted

    @property
    def pause(self) -> float:
        """s to wait before the next server is tried: it grows where servers take the session and end it at once."""
        return 2.0 ** (self.short - 1) if self.short > 1 else 0.0

    def look(self, link: Link, reports: Mapping[LegId, LegReport]) -> Finding:
        """Look whether the server still takes media; twice a second while `uneasy`."""
        if self._move is not None and self._move.at:
            self._tell_move(reports)
        why = self._health.look(self.media.offer.lines, reports)
        if why:
            return Finding(why)
        if self._doubted and not self._health.fresh(self.media.reports()):
            self._doubted = False
            return Finding(NO_PONG) if self.servers.is_silent(link.server) else Finding(ask=True)
        return Finding(ask=self._health.silent)

    def unreachable(self, link: Link) -> str:
        """Its server was found to be down. Why it is lost: unless its RTCP is fresh, it is dead. What is fresh now may
        be its last."""
        if not self.servers.is_silent(link.server):
            return ""
        self._doubted = self._health.fresh(self.media.reports())
        return "" if self._doubted else NO_PONG

    def leave(self, link: Link, ended: Ended) -> bool:
        """The dialog has ended, and the session is to go elsewhere; False where it was tried too often."""
        self.short = self.short + 1 if self.seconds < SHORT and ended.by is EndedBy.PEER else 0
        if self.short > MOST_SHORT:
            return False
        old = {leg.source: report for leg, report in self.media.reports().items()}
        self._move = Move(link.server.uri, why_ended(ended), old)
        self.connector.left = link.server.uri
        self.connector.moving_since = self._alive_until(ended, link)
        return True

    def close(self) -> None:
        """The session is over: what is not told by now is told as it is."""
        if self._move is not None and self._move.at:
            self._tell_move(self.media.reports(), late=True)

    def _alive_until(self, ended: Ended, link: Link) -> int:
        """Capture time until which a server that was left is known to have been there."""
        now = self.clock()
        if ended.by is EndedBy.PEER:
            return now
        heard = self._health.heard(self.media.reports())
        silent = self.servers.silent_for(link.server) * _MILLISECOND
        return max(now - silent, heard or 0)

    def _tell_move(self, reports: Mapping[LegId, LegReport], *, late: bool = False) -> None:
        """What lies between the last packet to one server and the first to the next, once that is known."""
        move = self._move
        assert move is not None
        new = {leg.source: report for leg, report in reports.items()}
        if late or move.settled(new, asyncio.get_running_loop().time()):
            self._move = None
            self.tell(EventKind.FAILOVER, move.why, move.details(new))


def why_ended(ended: Ended) -> str:
    """A phrase: how a dialog ended."""
    return ended.text or _WHY.get(ended.by, "it was lost")
