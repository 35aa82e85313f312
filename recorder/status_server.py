"""The status server: `status_pages` over HTTP, on a unix socket and on TCP, and where there are any, commands.

In: GET requests, and POST of commands with JSON. Out: what the pages answer. It serves beside a capture that must not
wait, so it can take little: threads, octets of a request and seconds of a connection are bounded, and nothing that a
client sends goes further than a comparison, but for commands, which are for who may ask everything. The standard
library's server does: a few clients ask, and a framework would come with an event loop, routes and parsers that none of
them needs.

Who may ask what:

- The unix socket is for its owner (mode 0600); who can open it may ask everything.
- TCP tells metrics, health and status to everybody who reaches it, calls (who talks to whom) only to those with the
  token, and takes commands only from them. Beyond the loopback interface it is not opened without a token, and then
  tells nothing without it.
- On loopback, a request must be addressed to loopback (Host header), so that no web page in a browser on this machine
  can read the answers under a name of its own (DNS rebinding).
"""

import io
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Protocol

from recorder.siprec.figures import Figures
from recorder.status import StatusError, StatusProvider
from recorder.status_access import Access, access_over_tcp, host_of
from recorder.status_address import Address, TcpAddress
from recorder.status_pages import JSON, Pages, Reply, commanding, personal, refusal

CONNECTIONS = 16
"""At once, on each socket; more are closed."""
DEADLINE = 10.0
"""s for a connection as a whole: for its request, and again for the answer."""
LONGEST_REQUEST = 16_384
"""Octets of request line and headers."""
LONGEST_BODY = 65_536
"""Octets of a command."""
SLOW = 2.0
"""s that a reader of a stream may take for a piece; a slower one is left."""


class Lines(Protocol):
    """An answer that goes on."""

    def __iter__(self) -> Iterator[bytes]:
        """Its pieces."""
        ...

    def close(self) -> None:
        """Nobody reads any more."""
        ...


class Commands(Protocol):
    """What answers below `/v1`: see `siprec.control_pages`."""

    def answer(self, method: str, target: str, body: bytes) -> "Reply | tuple[str, Lines]":
        """A reply, or the content type and the lines of a stream."""
        ...

    def figures(self) -> Figures:
        """For metrics."""
        ...

    def close(self) -> None:
        """End the streams."""
        ...


class StatusServer:
    """Serves from threads of its own between `start` and `close`."""

    def __init__(
        self,
        provider: StatusProvider,
        failed: Callable[[Exception], None] = lambda _: None,
        commands: Commands | None = None,
    ) -> None:
        """`failed` is told, in the thread of the request, what a provider raises that is no StatusError."""
        self._pages = Pages(provider, None if commands is None else commands.figures)
        self._commands = commands
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
            server = _TcpServer(address, self._handler(access_over_tcp(address, token)))
            self._servers.append(server)
            return TcpAddress(address.host, server.server_port)
        except OSError as error:
            raise StatusError(f"{address}: cannot serve the status here: {error.strerror or error}") from error

    def _handler(self, access: Access) -> Callable[..., "_Handler"]:
        return partial(_Handler, self._pages, self._commands, access, self._failed)

    def start(self) -> None:
        """Answer from now on."""
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.5,), name="spanrec-status", daemon=True).start()
            server.serving = True

    def close(self) -> None:
        """Close the sockets; answers on their way may be cut."""
        if self._commands is not None:
            self._commands.close()
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


_Answer = Reply | tuple[str, Lines]
_NOT_SERVED = refusal(405, "only GET is served here, and POST to commands")


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"

    def __init__(
        self,
        pages: Pages,
        commands: Commands | None,
        access: Access,
        failed: Callable[[Exception], None],
        *connection: Any,
    ) -> None:
        self._pages = pages
        self._commands = commands
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
        self._send(self._refused() or self._answer(self._page))

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """Carry out a command."""
        commands = self._commands if commanding(self.path) else None
        self._send(_NOT_SERVED if commands is None else self._refused() or self._answer(self._command))

    def _refused(self) -> Reply | None:
        """Why this client is not answered, None where it is."""
        access = self._access
        if self._octets.cut:
            return refusal(431, f"a request has at most {LONGEST_REQUEST} octets")
        if access.hosts is not None and host_of(self.headers.get_all("Host", [])) not in access.hosts:
            return refusal(421, "the Host header names another machine; ask for localhost or 127.0.0.1")
        guarded = access.always or personal(self.path)
        if guarded and not access.everybody and not access.knows_token(self.headers.get("Authorization", "")):
            return refusal(401, "this is told on the unix socket, or to who has the token (Authorization: Bearer ...)")
        return None

    def _answer(self, page: Callable[[], _Answer]) -> _Answer:
        try:
            return page()
        except Exception as error:  # what a provider gets wrong must not end in a silent connection
            self._failed(error)
            return refusal(500, "spanrec failed to answer this; its log may tell why")

    def _page(self) -> _Answer:
        if self._commands is not None and commanding(self.path):
            # To who asks for the head of a stream, there is nothing to be told.
            return self._commands.answer("GET", self.path, b"") if self.command == "GET" else _NOT_SERVED
        return self._pages.answer(self.path, self.headers.get("Accept", ""))

    def _command(self) -> _Answer:
        # No form of a page in a browser can send this type without being asked first.
        if self.headers.get_content_type() != JSON:
            return refusal(415, f"a command has the Content-Type {JSON}")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or self.headers.get("Transfer-Encoding") is not None:
            return refusal(411, "a command says its Content-Length")
        if len(length) > 9 or int(length) > LONGEST_BODY:
            return refusal(413, f"a command has at most {LONGEST_BODY} octets")
        self._octets.allow(int(length))
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return refusal(400, "the body is shorter than its Content-Length")
        assert self._commands is not None
        return self._commands.answer("POST", self.path, body)

    def _send(self, answer: _Answer) -> None:
        if not isinstance(answer, Reply):
            self._stream(*answer)
            return
        reply = answer
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
            self.send_header("Allow", "GET, POST" if self._commands and commanding(self.path) else "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def _stream(self, content_type: str, lines: Lines) -> None:
        """Send as it comes, until either side has enough."""
        try:
            self.connection.settimeout(SLOW)
            # What the kernel holds for a reader that does not read is little.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST_BODY)
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Cache-Control", "no-store")
            self.send_header("Connection", "close")
            self.end_headers()
            for line in lines:
                self.wfile.write(line)
        finally:
            lines.close()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses: JSON here, and nothing of the request in it."""
        refused = _NOT_SERVED if code == 501 else refusal(int(code), "this is no request that is understood")
        self._send(refused)

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

    def allow(self, octets: int) -> None:
        """Take so many more."""
        self._left += octets

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
