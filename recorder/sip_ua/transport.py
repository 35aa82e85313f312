"""The user agent's transports: UDP, TCP and TLS in one asyncio loop (`recorder.sip_ua.wire.Transports`).

In: where to listen, TLS files, messages. Out: messages of peers. Where nothing listens for a transport, a UDP socket of
its own is opened for the address that leads to a peer, and connections are only opened, never taken. Nothing here
blocks, and nothing that a peer does raises.
"""

import asyncio
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from capture.address import Endpoint, parse_endpoint
from recorder.model import Transport
from recorder.sip_ua.api import Peer
from recorder.sip_ua.connections import Connection, ConnectionUser
from recorder.sip_ua.datagrams import DatagramSocket
from recorder.sip_ua.framing import MAX_BODY
from recorder.sip_ua.listen import Listen, ListenError
from recorder.sip_ua.tls import TlsContexts, TlsError, TlsFiles
from recorder.sip_ua.tls_door import DoorUser, TlsDoor
from recorder.sip_ua.wire import Failed, Flow, Target

_UNSPECIFIED = ("0.0.0.0", "::")
_MOST_ROUTES = 1024
_SWEEP = 30.0
_FAREWELL = 1.0
"""s that peers have to agree that a connection is closed (TLS)."""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How peers are reached, and where they reach us. Times in s."""

    listen: Sequence[Listen] = ()
    tls: TlsFiles = field(default_factory=TlsFiles)
    source: str = ""
    """Address that UDP leaves from where nothing listens; empty: the one that leads to the peer."""
    connect_timeout: float = 5.0
    idle: float = 3900.0
    """A connection without traffic for so long is closed; more than two session timers of the usual length."""
    most_connections: int = 4096
    """That came in, those that are still shaking hands too."""
    contexts: TlsContexts | None = None
    """Of `tls`, read already; None: read when the transports are opened."""
    trouble: Callable[[str | None], None] = lambda text: None
    """Told at each look at the certificate why it cannot be renewed, None where it can."""
    largest_body: int = MAX_BODY
    """Octets of the body of a message on a connection; one with more ends the connection."""


class SipTransports:
    """Open from `open_transports` to `close`."""

    def __init__(self, options: TransportOptions) -> None:
        self.on_message: Callable[[bytes, Flow, Peer], None] = lambda data, flow, peer: None
        self.on_lost: Callable[[Flow, str], None] = lambda flow, why: None
        self.listening: list[Listen] = []
        """With the ports that were given for 0."""
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._numbers = 0
        self._sockets: dict[int, DatagramSocket] = {}
        self._own: dict[str, int] = {}
        """Address of ours -> the socket that was opened for it."""
        self._connections: dict[int, Connection] = {}
        self._by_target: dict[Target, Connection] = {}
        self._servers: list[asyncio.Server] = []
        self._doors: list[TlsDoor] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes: OrderedDict[Endpoint, str | None] = OrderedDict()
        self._contexts = options.contexts
        self._closed = False
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)
        self._user = ConnectionUser(self._opened, self._message, self._lost, options.largest_body)

    async def open(self) -> None:
        """Begin to listen. Raises ListenError, TlsError."""
        wanted = self._options.listen
        secured = any(each.transport is Transport.TLS for each in wanted)
        if self._contexts is None:
            self._contexts = TlsContexts(self._options.tls, listening=secured)
        for each in wanted:
            try:
                self.listening.append(await self._listen(each))
            except OSError as error:
                raise ListenError(f"{each}: cannot be listened at: {error.strerror or error}") from error
        self.renew()

    def renew(self) -> None:
        """Show a certificate of ours that was renewed on disk from now on; done twice a minute. One that cannot be
        used, or whose key is not there yet, changes nothing until it can, and that is told."""
        if self._contexts is not None:
            self._options.trouble(self._contexts.renew())

    # What the user agent asks

    def send(self, data: bytes, target: Target, flow: Flow | None = None, failed: Failed | None = None) -> None:
        """See `Transports`."""
        if self._closed:
            return
        if target.transport is Transport.UDP:
            opened = self._sockets.get(flow.id) if flow is not None else None
            opened = opened or self._socket_for(target)
            if opened is not None:
                opened.send(data, target.endpoint, failed)
            elif failed is not None:
                self._loop.call_soon(failed, "no socket leads there")
            return
        connection = self._connections.get(flow.id) if flow is not None else None
        if connection is None or connection.over:
            connection = self._connection_to(target)
        connection.send(data, failed)

    def local(self, target: Target) -> tuple[str, int] | None:
        """See `Transports`."""
        if target.transport is Transport.UDP:
            opened = self._socket_for(target)
            if opened is None:
                return None
            host = opened.local.host
            host = (self._route(target.endpoint) or host) if host in _UNSPECIFIED else host
            return _shown(host), opened.local.port
        host = self._route(target.endpoint) or ""
        if not host or target.transport not in (Transport.TCP, Transport.TLS):
            return None
        ports = [
            each.endpoint.port
            for each in self.listening
            if each.transport is target.transport and each.endpoint.host in (host, "0.0.0.0", "::")
        ]
        return _shown(host), ports[0] if ports else 0

    async def close(self) -> None:
        """See `Transports`."""
        self._closed = True
        self._sweeper.cancel()
        for server in self._servers:
            server.close()
        await asyncio.gather(*(door.close() for door in self._doors))
        retired = list(self._connections.values())
        for connection in retired:
            connection.retire()
        for opened in self._sockets.values():
            opened.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(server.wait_closed() for server in self._servers), return_exceptions=True)
        await _gone(retired)
        for connection in retired:
            connection.abort()
        await _gone(retired)
        await asyncio.sleep(0)  # those that were ended just now say so
        self._connections.clear()
        self._by_target.clear()

    # UDP

    def _socket_for(self, target: Target) -> DatagramSocket | None:
        """The listening socket that leads to a target, or one of its own."""
        route = self._route(target.endpoint)
        ipv6 = ":" in target.endpoint.host
        listening = [each for each in self._sockets.values() if each.ipv6 == ipv6 and each.local.host not in self._own]
        for suitable in ((route,), _UNSPECIFIED):
            for each in listening:
                if each.local.host in suitable:
                    return each
        if listening and self._options.source == "":
            return listening[0]
        return self._own_socket(self._options.source or route or "")

    def _own_socket(self, host: str) -> DatagramSocket | None:
        number = self._own.get(host)
        if number is not None:
            return self._sockets[number]
        endpoint = parse_endpoint(host, 0)
        if endpoint is None:
            return None
        try:
            number = self._bind(endpoint)
        except OSError:
            return None
        self._own[host] = number
        return self._sockets[number]

    def _bind(self, endpoint: Endpoint) -> int:
        number = self._number()
        opened = DatagramSocket(endpoint, partial(self._datagram, number))
        self._sockets[number] = opened
        return number

    def _datagram(self, number: int, data: bytes, source: Endpoint) -> None:
        opened = self._sockets.get(number)
        if opened is None or self._closed:
            return
        local = opened.local
        if local.host in _UNSPECIFIED:
            local = parse_endpoint(self._route(source) or local.host, local.port) or local
        self.on_message(data, Flow(number, Transport.UDP, local), Peer(source, Transport.UDP))

    # Connections

    async def _listen(self, wanted: Listen) -> Listen:
        host, port = wanted.endpoint.host, wanted.endpoint.port
        if wanted.transport is Transport.UDP:
            return Listen(Transport.UDP, self._sockets[self._bind(wanted.endpoint)].local)
        if wanted.transport is Transport.TLS:
            assert self._contexts is not None
            assert self._contexts.server is not None
            user = DoorUser(self._full, partial(self._accept, Transport.TLS))
            door = TlsDoor(wanted.endpoint, self._contexts.server, self._options.connect_timeout, user)
            self._doors.append(door)
            return Listen(Transport.TLS, parse_endpoint(*door.bound) or wanted.endpoint)
        server = await self._loop.create_server(partial(self._accept, wanted.transport), host, port)
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return Listen(wanted.transport, parse_endpoint(bound[0], bound[1]) or wanted.endpoint)

    def _full(self) -> bool:
        """Whether no connection may come in: those that have not agreed on TLS yet count too."""
        agreeing = sum(door.handshakes for door in self._doors)
        return len(self._connections) + agreeing >= self._options.most_connections

    def _accept(self, transport: Transport) -> Connection:
        connection = Connection(self._number(), transport, self._user)
        if self._closed or (transport is not Transport.TLS and self._full()):
            connection.over = True  # it is closed as soon as it is made
        return connection

    def _connection_to(self, target: Target) -> Connection:
        key = target if target.transport is Transport.TLS else target._replace(name="")
        known = self._by_target.get(key)
        if known is not None and not known.over:
            return known
        name = (target.name or target.endpoint.host) if target.transport is Transport.TLS else ""
        connection = Connection(self._number(), target.transport, self._user, name)
        self._connections[connection.number] = self._by_target[key] = connection
        task = self._loop.create_task(self._connect(connection, target, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return connection

    async def _connect(self, connection: Connection, target: Target, name: str) -> None:
        secure = target.transport is Transport.TLS
        source = (self._options.source, 0) if self._options.source else None
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                await self._loop.create_connection(
                    lambda: connection,
                    target.endpoint.host,
                    target.endpoint.port,
                    ssl=self._client_context() if secure else None,
                    server_hostname=name.strip("[]") if secure else None,
                    local_addr=source,
                )
        except TimeoutError:
            connection.end(f"no connection within {self._options.connect_timeout:g} s")
        except ssl.SSLCertVerificationError as error:
            connection.end(f"the certificate is not to be trusted: {error.verify_message}")
        except ssl.SSLError as error:
            connection.end(f"TLS failed: {error.reason or error}")
        except OSError as error:
            connection.end(os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error))
        except (ValueError, TlsError) as error:
            connection.end(str(error))

    def _client_context(self) -> ssl.SSLContext:
        assert self._contexts is not None, "the transports are not open"
        return self._contexts.client()

    def _opened(self, connection: Connection) -> None:
        self._connections[connection.number] = connection

    def _message(self, data: bytes, flow: Flow, peer: Peer) -> None:
        if not self._closed:
            self.on_message(data, flow, peer)

    def _lost(self, connection: Connection, why: str) -> None:
        self._connections.pop(connection.number, None)
        for target in [target for target, known in self._by_target.items() if known is connection]:
            del self._by_target[target]
        if connection.flow is not None and not self._closed:
            self.on_lost(connection.flow, why)

    def _sweep(self) -> None:
        """Close what nobody uses, forget what may have changed."""
        oldest = self._loop.time() - self._options.idle
        for connection in [each for each in self._connections.values() if each.last < oldest]:
            connection.end("idle")
        self._routes.clear()
        self.renew()
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _route(self, to: Endpoint) -> str | None:
        """Address of ours that packets to a peer leave from; nothing is sent to learn it."""
        key = to._replace(port=1)
        if key not in self._routes:
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.popitem(last=False)
            self._routes[key] = _find_route(to)
        return self._routes[key]


async def _gone(connections: Sequence[Connection]) -> None:
    """Until all are gone, for a while at most."""
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(each.gone.wait() for each in connections)), _FAREWELL)


def _find_route(to: Endpoint) -> str | None:
    family = socket.AF_INET6 if ":" in to.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((to.host, to.port or 5060))
        except OSError:
            return None
        return str(probe.getsockname()[0]).partition("%")[0]


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def open_transports(options: TransportOptions | None = None) -> SipTransports:
    """Transports that listen. Raises ListenError, TlsError."""
    opened = SipTransports(options or TransportOptions())
    try:
        await opened.open()
    except BaseException:
        await opened.close()
        raise
    return opened
