"""SIP over TCP and TLS: one connection of ours, whoever opened it.

In: messages to send. Out: messages that came, and once, why the connection is over. A connection is closed that cannot
be framed, that begins a message and does not end it, that takes nothing of what it is sent, that is idle for long, or
whose peer vanished from the network.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from capture.address import Endpoint, parse_endpoint
from recorder.model import Transport
from recorder.sip_ua.api import Peer
from recorder.sip_ua.framing import MAX_BODY, Framer, FramingError
from recorder.sip_ua.tls import names_fit, names_of
from recorder.sip_ua.wire import Failed, Flow

MOST_UNSENT = 4 << 20
"""Octets that wait for a peer."""
MOST_WAITING = 1024
"""Messages that wait for a connection to be made."""
WHOLE = 30.0
"""s within which a message that has begun must be whole."""
UNACKNOWLEDGED = 10.0
"""s for which a peer's host may leave what it was sent unacknowledged. Without it the system tries for a quarter of an
hour, ever less often, and a host that comes back meanwhile is not noticed."""
_QUIET = 60
"""s after which a silent peer's host is asked whether it is there."""
_PONG = b"\r\n"
_AT_ONCE = 64 << 10
"""Octets that are taken from a connection at once."""


@dataclass(frozen=True, slots=True)
class ConnectionUser:
    """Who is told what a connection does."""

    opened: Callable[["Connection"], None]
    message: Callable[[bytes, Flow, Peer], None]
    lost: Callable[["Connection", str], None]
    largest_body: int = MAX_BODY
    """Octets; a connection with a larger one is ended."""
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_AT_ONCE)))
    """Where octets of all connections come first, for a moment each."""


class Connection(asyncio.BufferedProtocol):
    """A connection that is being made, is there, or is over."""

    def __init__(self, number: int, transport: Transport, user: ConnectionUser, name: str = "") -> None:
        """`name`: host that a server's certificate must be of; empty for connections that come in."""
        self.number = number
        self.kind = transport
        self.flow: Flow | None = None
        self.last = asyncio.get_running_loop().time()
        """When something last went either way."""
        self.over = False
        self.gone = asyncio.Event()
        """The system has nothing of it any more, or never had."""
        self.gone.set()
        self._user = user
        self._name = name
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None
        self._framer = Framer(user.largest_body)
        self._waiting: list[tuple[bytes, Failed | None]] = []
        self._deadline: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def send(self, data: bytes, failed: Failed | None = None) -> None:
        """Send a message, as soon as the connection is there."""
        if self.over:
            self._fail(failed, "connection closed")
        elif self._transport is None:
            if len(self._waiting) >= MOST_WAITING:
                self._fail(failed, "too much waits for the connection")
            else:
                self._waiting.append((data, failed))
        elif self._transport.get_write_buffer_size() + len(data) > MOST_UNSENT:
            self._fail(failed, "the peer takes nothing")
            self.end("the peer takes nothing")
        else:
            self.last = self._loop.time()
            self._transport.write(data)

    def end(self, why: str) -> None:
        """Close it, whatever waits."""
        if self.over:
            return
        self.over = True
        if self._deadline is not None:
            self._deadline.cancel()
        waiting, self._waiting = self._waiting, []
        for _, failed in waiting:
            self._fail(failed, why)
        if self._transport is not None:
            self._transport.abort()
        self._user.lost(self, why)

    def retire(self) -> None:
        """Send what waits, then close; nobody is told. With TLS the peer has to agree: see `gone`, `abort`."""
        self.over = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close it now."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, TLS agreed."""
        assert isinstance(transport, asyncio.Transport)
        if self.over:
            transport.abort()
            return
        self._transport = transport
        self.gone.clear()
        _watch(transport)
        local = _endpoint(transport.get_extra_info("sockname"))
        remote = _endpoint(transport.get_extra_info("peername"))
        if local is None or remote is None:
            self.end("the peer is gone")
            return
        secured = transport.get_extra_info("ssl_object")
        names = names_of(secured.getpeercert()) if isinstance(secured, ssl.SSLObject) else ()
        if self._name and secured is not None and not names_fit(names, self._name):
            shown = ", ".join(names[:4]) or "no name"
            self.end(f"the certificate is not of {self._name} but of {shown}")
            return
        self.flow = Flow(self.number, self.kind, local, remote)
        self._peer = Peer(remote, self.kind, names)
        waiting, self._waiting = self._waiting, []
        self._user.opened(self)
        for data, failed in waiting:
            self.send(data, failed)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where octets are to come."""
        return self._user.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Octets have come there."""
        if self.over or self.flow is None or self._peer is None:
            return
        self.last = self._loop.time()
        try:
            messages = self._framer.feed(self._user.buffer[:nbytes])
        except FramingError as error:
            self.end(f"what came is no SIP: {error}")
            return
        for message in messages:
            self._user.message(message, self.flow, self._peer)
        pings, self._framer.pings = self._framer.pings, 0
        if pings and not self.over:
            self.send(_PONG * pings)
        if messages or not self._framer.waiting:
            self._settle()
        if self._framer.waiting and self._deadline is None and not self.over:
            why = f"no whole message within {WHOLE:g} s"
            self._deadline = self._loop.call_later(WHOLE, partial(self.end, why))

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self.gone.set()
        self.end(_phrase(error) if error is not None else "closed by the peer")

    def _settle(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _fail(self, failed: Failed | None, why: str) -> None:
        if failed is not None:
            self._loop.call_soon(failed, why)


def _phrase(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _watch(transport: asyncio.Transport) -> None:
    """Have the system notice that the peer's host is gone."""
    opened = transport.get_extra_info("socket")
    with suppress(OSError):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED * 1000))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(UNACKNOWLEDGED / 2))


def _endpoint(name: object) -> Endpoint | None:
    return parse_endpoint(str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None
