"""The status server: `status_pages` over HTTP, on a unix socket and on TCP.

In: GET requests. Out: what the pages answer. It serves beside a capture that must not wait, so it can take little:
threads, octets of a request and seconds of a connection are bounded, and nothing that a client sends goes further than
a comparison. The standard library's server does: only GET is served, to a few readers, and a framework would come with
an event loop, routes and parsers that none of them needs.

Who may ask what:

- The unix socket is for its owner (mode 0600); who can open it may ask everything.
- TCP tells metrics, health and status to everybody who reaches it, calls (who talks to whom) only to those with the
  token. Beyond the loopback interface it is not opened without a token, and then tells nothing without it.
- On loopback, a request must be addressed to loopback (Host header), so that no web page in a browser on this machine
  can read the answers under a name of its own (DNS rebinding).
"""

import hmac
import io
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit

from recorder.status import StatusError, StatusProvider
from recorder.status_address import Address, TcpAddress
from recorder.status_pages import Pages, Reply, personal, refusal

CONNECTIONS = 16
"""At once, on each socket; more are closed."""
DEADLINE = 10.0
"""s for a connection as a whole: for its request, and again for the answer."""
LONGEST_REQUEST = 16_384
"""Octets of request line and headers."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask one socket."""

    token: str | None = None
    always: bool = False
    """The token is needed for everything, not only for what is personal."""
    hosts: frozenset[str] | None = None
    """Names that a request may be addressed to; None: any."""
    everybody: bool = False
    """The socket itself keeps others out."""


class StatusServer:
    """Serves from threads of its own between `start` and `close`."""

    def __init__(self, provider: StatusProvider, failed: Callable[[Exception], None] = lambda _: None) -> None:
        """`failed` is told, in the thread of the request, what a provider raises that is no StatusError."""
        self._pages = Pages(provider)
        self._failed = failed
        self._servers: list[_Server] = []
        self._unix: list[Path] = []

    def listen(self, address: Address, token: str | None = None) -> Address:
        """Open a socket; gives its address (port 0 has been chosen then). Raises StatusError where it cannot."""
        try:
            if isinstance(address, Path):
                _clear(address)
                self._servers.append(_UnixServer(str(address), self._handler(Access(everybody=True))))
                self._unix.append(address)
                return address
            server = _TcpServer(address, self._handler(_tcp_access(address, token)))
            self._servers.append(server)
            return TcpAddress(address.host, server.server_port)
        except OSError as error:
            raise StatusError(f"{address}: cannot serve the status here: {error.strerror or error}") from error

    def _handler(self, access: Access) -> Callable[..., "_Handler"]:
        return partial(_Handler, self._pages, access, self._failed)

    def start(self) -> None:
        """Answer from now on."""
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.5,), name="spanrec-status", daemon=True).start()
            server.serving = True

    def close(self) -> None:
        """Close the sockets; answers on their way may be cut."""
        for server in self._servers:
            if server.serving:
                server.shutdown()
            server.server_close()
        for path in self._unix:
            path.unlink(missing_ok=True)
        self._servers, self._unix = [], []


class _Server(ThreadingMixIn, HTTPServer):
    """A bounded number of threads; no name look-ups."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS
    serving = False

    def __init__(self, address: Any, handler: Any) -> None:
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away or sent nonsense is nobody's concern."""


class _TcpServer(_Server):
    def __init__(self, address: TcpAddress, handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        super().__init__((address.host, address.port), handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class _UnixServer(_Server):
    address_family = socket.AF_UNIX
    allow_reuse_address = False

    def server_bind(self) -> None:
        # Nobody can connect before it listens, and by then it is the owner's alone.
        TCPServer.server_bind(self)
        os.chmod(self.server_address, 0o600)  # type: ignore[arg-type]
        self.server_name, self.server_port = "localhost", 0


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"

    def __init__(self, pages: Pages, access: Access, failed: Callable[[Exception], None], *connection: Any) -> None:
        self._pages = pages
        self._access = access
        self._failed = failed
        super().__init__(*connection)

    def setup(self) -> None:
        super().setup()
        self._octets = _Bounded(self.connection)
        self.rfile = io.BufferedReader(self._octets)
        self.close_connection = True

    def version_string(self) -> str:
        return "spanrec"

    def do_GET(self) -> None:
        """Answer."""
        self._send(self._answer())

    do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> Reply:
        access = self._access
        if self._octets.cut:
            return refusal(431, f"a request has at most {LONGEST_REQUEST} octets")
        if access.hosts is not None and _host(self.headers.get_all("Host", [])) not in access.hosts:
            return refusal(421, "the Host header names another machine; ask for localhost or 127.0.0.1")
        if not access.everybody and (access.always or personal(self.path)) and not self._knows_token():
            return refusal(401, "this is told on the unix socket, or to who has the token (Authorization: Bearer ...)")
        try:
            return self._pages.answer(self.path, self.headers.get("Accept", ""))
        except Exception as error:  # what a provider gets wrong must not end in a silent connection
            self._failed(error)
            return refusal(500, "spanrec failed to answer this; its log may tell why")

    def _knows_token(self) -> bool:
        scheme, _, told = self.headers.get("Authorization", "").partition(" ")
        wanted = self._access.token
        same = hmac.compare_digest(told.strip().encode("latin-1", "replace"), (wanted or "").encode())
        return wanted is not None and same and scheme.lower() == "bearer"

    def _send(self, reply: Reply) -> None:
        self.connection.settimeout(DEADLINE)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        if reply.status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if reply.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses: JSON here, and nothing of the request in it."""
        status = 405 if code == 501 else int(code)
        self._send(refusal(status, "only GET is served" if status == 405 else "this is no request that is understood"))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a scrape every few seconds is no news."""


class _Bounded(io.RawIOBase):
    """What a client sends, up to LONGEST_REQUEST octets and DEADLINE seconds, however slowly it sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + DEADLINE
        self._left = LONGEST_REQUEST

    @property
    def cut(self) -> bool:
        """There was more than it took."""
        return self._left <= 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.cut:
            return 0
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self._connection.settimeout(seconds)
        with memoryview(buffer) as view:
            count = self._connection.recv_into(view[: self._left])
        self._left -= count
        return count


def _tcp_access(address: TcpAddress, token: str | None) -> Access:
    if not address.loopback:
        if token is None:
            raise StatusError(f"{address}: beyond this machine the status is served only with a token; name its file")
        return Access(token, always=True)
    hosts = {"localhost", "127.0.0.1", "::1", address.host}
    return Access(token, hosts=frozenset(hosts))


def _host(values: list[str]) -> str:
    """The host of the Host header, without port and brackets; empty where there is not one such header."""
    if len(values) != 1:
        return ""
    try:
        host = urlsplit(f"//{values[0]}").hostname or ""
    except ValueError:
        return ""
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower()


def _clear(path: Path) -> None:
    """Remove the socket that a service left which was killed. Raises StatusError where one lives behind it."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise StatusError(f"{path}: is in the way of the status socket and is no socket; remove it")
    except FileNotFoundError:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise StatusError(f"{path}: another spanrec serves its status here; give this one a socket of its own")
