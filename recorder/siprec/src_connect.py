"""Finding a server for a recording session of ours: one after another, until one takes it.

In: the servers of an instance, their health, how secure the calls are. Out: an established `Link`, or none, and a
phrase for each server that was tried. Legs are ready before an INVITE goes out, and stay for the next server
where one fails.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from capture.port_pool import PortsExhausted
from recorder.sip_ua.api import Agent, RefusedError, Session, UnreachableError
from recorder.siprec.control import SessionEvent
from recorder.siprec.legs import Forwarder
from recorder.siprec.servers import Servers, goes_on
from recorder.siprec.src_decision import Insecure, Instance, Server
from recorder.siprec.src_link import Link, nothing
from recorder.siprec.src_media import RecordedCall, SrcMedia
from recorder.siprec.src_security import leaks_keys, sends_srtp, why_unsafe

PORTS_PATIENCE = 2.0
"""s until it is tried again, where all ports for media were in use."""
MOST_ATTEMPTS = 16
"""Attempts that are remembered."""
_UNWELL = frozenset({408, 480, 486})
"""Refusals below 500 that tell of the server, and not of the session."""


Noted = Callable[[Session, str, str], Callable[[], None]]
"""Told of a dialog, the URI of its server and the name of its agent; gives what is to be called when it has ended."""


def unnoted(session: Session, server: str, agent: str) -> Callable[[], None]:
    """Nothing is written down."""
    return lambda: None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What sessions work with."""

    agents: Mapping[str, Agent]
    """By name; the usual one has the empty name."""
    forwarder: Forwarder
    servers: Servers
    clock: Callable[[], int]
    """Capture time now, ns UTC."""
    local_host: Callable[[Server, str], Awaitable[str]]
    """Our address on the way of an agent to a server. Raises OSError where there is none."""
    tell: Callable[[SessionEvent], None]
    keep: Callable[[RecordedCall, Instance], None]
    """Told of a call that was not delivered, or not all of it, when it is over."""
    doubted: Callable[[RecordedCall], None]
    """Told of a call that may have to be kept; `keep` or `spared` follows when it is over."""
    spared: Callable[[RecordedCall], None]
    octets: Callable[[int], bytes]
    """So many random ones."""
    number: Callable[[], int]
    """The next running number."""
    noted: Noted = unnoted


@dataclass(slots=True, eq=False)
class Connector:
    """Connects one session. `changed` is handed to its links."""

    instance: Instance
    around: Surroundings
    media: SrcMedia
    calls: list[RecordedCall]
    changed: Callable[[], None]
    attempts: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_ATTEMPTS))
    ended_by: str = ""
    """The refusal after which no other server is tried; empty: none such."""
    warning: str = ""
    left: str = ""
    """URI of the server that was left last: it is tried after the others."""
    _no_ports: str = ""
    """Why there were no ports for media when it was last tried."""
    moving_since: int | None = None
    """Legs are still those towards the server that was left; what was sent since then is to be sent again."""

    async def connect(self) -> Link | None:
        """A dialog with the first server that takes the session; None where there is none for now, or no port is."""
        around, instance = self.around, self.instance
        self._no_ports = ""
        order = around.servers.order(
            instance.servers, instance.choice, last_resort=not instance.spool, agent=instance.agent
        )
        order.sort(key=lambda server: server.uri == self.left)
        for server in order:
            why = self.why_not(server)
            if why:
                self.note(server, why)
                continue
            link = self.link(server)
            try:
                await self._prepare(server)
                await link.establish()
            except RefusedError as refusal:
                self.note(server, str(refusal))
                if refusal.status >= 500 or refusal.status in _UNWELL or refusal.retry_after is not None:
                    around.servers.failed(server, retry_after=refusal.retry_after)
                if not goes_on(refusal.status, instance.final):
                    self.ended_by = f"{server.uri}: {refusal}"
                    return None
            except PortsExhausted as error:
                self.note(server, str(error))
                self._no_ports = str(error)
                return None
            except (UnreachableError, OSError) as error:
                self.note(server, str(error))
                around.servers.failed(server, unreachable=True)
            else:
                around.servers.succeeded(server)
                self.note(server, "recording")
                return link
        return None

    def link(self, server: Server) -> Link:
        """A dialog that has not begun."""
        agent = self.around.agents[self.instance.agent]
        noted = partial(self._noted, server.uri)
        around = self.around
        return Link(agent, server, self.instance, self.media, around.clock, self.changed, self.calls, noted)

    def _noted(self, server: str, session: Session) -> Callable[[], None]:
        return self.around.noted(session, server, self.instance.agent)

    def let_go(self) -> None:
        """The session is over: no cycle of references is left."""
        self.changed = nothing

    def why_not(self, server: Server, *further: RecordedCall) -> str:
        """Why a server must not have these calls (RFC 7866, section 12); empty where it may."""
        encrypted = any(call.encrypted for call in (*self.calls, *further))
        why = why_unsafe(server, encrypted=encrypted)
        if why and self.instance.insecure is Insecure.WARN and not leaks_keys(server, encrypted=encrypted):
            self.warning = f"recorded all the same: {why}"
            return ""
        return why

    @property
    def trouble(self) -> str:
        """Why there was no server, a phrase."""
        return self._no_ports or "no recording server can be had"

    def until_retry(self) -> float:
        """s until any server may be tried again."""
        if self._no_ports:
            return PORTS_PATIENCE
        return max(0.2, min((self.around.servers.wait(server) for server in self.instance.servers), default=10.0))

    def note(self, server: Server, outcome: str) -> None:
        """Remember what became of an attempt."""
        self.attempts.append(f"{server.uri}: {outcome}"[:200])

    async def _prepare(self, server: Server) -> None:
        """Have legs ready for a server."""
        around = self.around
        host = self.instance.media_host or await around.local_host(server, self.instance.agent)

        def secure(encrypted: bool) -> bool:
            return sends_srtp(server, encrypted=encrypted)

        if self.moving_since is not None:
            since, self.moving_since = self.moving_since, None
            self.media.move(around.number(), host, since, secure=secure)
        else:
            self.media.begin(host, secure=secure)
