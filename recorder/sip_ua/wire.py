"""What the user agent's core and its transports say to each other: where a message goes, and where one came from.

In: nothing. Out: values and the `Transports` protocol that `recorder.sip_ua.transport` keeps. Messages are octets,
whole and framed (RFC 3261, section 18.3); all of it belongs to one event loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from capture.address import Endpoint
from recorder.model import Transport
from recorder.sip_ua.api import Peer

Failed = Callable[[str], None]
"""Told, with a phrase, that a message could not be sent."""


class Target(NamedTuple):
    """Where a message is to be sent."""

    transport: Transport
    endpoint: Endpoint
    name: str = ""
    """Host name of the URI that led here: what a TLS certificate must show, and its SNI."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection, or a UDP socket of ours: where a message came in, and where its answer goes out."""

    id: int
    """Never used twice by the same transports."""
    transport: Transport
    local: Endpoint
    """Our end; of a socket bound to all addresses, the address that its packets leave from where that is known."""
    remote: Endpoint | None = None
    """Other end of a connection, None for UDP."""

    @property
    def reliable(self) -> bool:
        """Whether it retransmits by itself."""
        return self.transport is not Transport.UDP


class Transports(Protocol):
    """UDP sockets, TCP and TLS connections: those that listen, and those that are opened when there is need."""

    on_message: Callable[[bytes, Flow, Peer], None]
    """Told of every message; keep-alives (CRLF, RFC 5626) are the transports' own business."""
    on_lost: Callable[[Flow, str], None]
    """Told once of every connection that ended, with a phrase that says why."""

    def send(self, data: bytes, target: Target, flow: Flow | None = None, failed: Failed | None = None) -> None:
        """Send one message; never blocks, never raises. With `flow`: over that connection or from that socket, and
        over a new connection to `target` where the connection is gone (RFC 3261, section 18.2.2). Without: over a
        connection to the same target that is open or being opened, else a new one; messages keep their order there.

        `failed` is called once, never before `send` returned, where the message surely did not reach the peer: name
        unknown, connection refused or timed out, TLS not verified, socket error, ICMP unreachable where the system
        says so."""
        ...

    def local(self, target: Target) -> tuple[str, int] | None:
        """Host (IPv6 in brackets) and port for the Via sent-by and the Contact of requests to `target`: where we listen
        for that transport as seen from the target; None where its transport or family is not served. Port 0: we do not
        listen there, the peer must use the connection."""
        ...

    async def close(self) -> None:
        """Close everything; `on_lost` is not called any more."""
        ...
