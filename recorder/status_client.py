"""Asks a status server.

In: its address, a token where it wants one. Out: `Snapshot`, `LiveCall`, `LadderStep` values; octets for other clients.
Raises StatusError with what the user can do about it, and nothing else, whatever answers there; waits and reads within
bounds.
"""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recorder.status import LadderStep, LiveCall, Snapshot, StatusError
from recorder.status_address import Address
from recorder.status_json import read_call, read_calls, read_ladder, read_snapshot

SECONDS = 5.0
"""For connecting, and for each piece of an answer."""
COMMAND_SECONDS = 15.0
"""For a command, which waits for its effect."""
STREAM_SECONDS = 30.0
"""For a line of an answer without end: the server sends one every ten seconds."""
LONGEST_ANSWER = 64 << 20
LONGEST_LINE = 1 << 20


class Asker:
    """Questions and commands to one server; a connection for each, so that a restarted service is found again."""

    def __init__(self, address: Address, token: str | None = None) -> None:
        self.address = address
        self._headers = {"Host": "localhost"} if isinstance(address, Path) else {}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str) -> bytes:
        """The body of an answer; raises StatusError for any other."""
        found = self.find(path)
        if found is None:
            raise StatusError(f"{self.address}: what answers here does not know {path}: is it spanrec?")
        return found

    def find(self, path: str) -> bytes | None:
        """Likewise; None for 404."""
        status, body = self._exchange("GET", path, None, SECONDS)
        return None if status == 404 else self._good(status, body)

    def post(self, path: str, body: bytes) -> bytes:
        """The answer to a command; its refusal is raised with what the server says of it."""
        return self._good(*self._exchange("POST", path, body, COMMAND_SECONDS))

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of an answer without end, until the server ends it; blank ones tell that it lives."""
        with self._connected(STREAM_SECONDS) as connection:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                self._good(answer.status, answer.read(LONGEST_ANSWER))
            while line := answer.readline(LONGEST_LINE):
                yield line

    def _exchange(self, method: str, path: str, body: bytes | None, seconds: float) -> tuple[int, bytes]:
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        with self._connected(seconds) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(LONGEST_ANSWER)

    @contextmanager
    def _connected(self, seconds: float) -> Iterator[http.client.HTTPConnection]:
        """A connection; what goes wrong with it is a StatusError."""
        if isinstance(self.address, Path):
            connection: http.client.HTTPConnection = _UnixConnection(self.address, seconds)
        else:
            connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=seconds)
        try:
            yield connection
        except OSError as error:
            raise StatusError(f"{self.address}: {_reason(error)}") from error
        except http.client.HTTPException as error:
            raise StatusError(f"{self.address}: what answers here does not speak HTTP: is it spanrec?") from error
        finally:
            connection.close()

    def _good(self, status: int, body: bytes) -> bytes:
        if status == 401:
            raise StatusError(f"{self.address}: wants its token; name its file with --token-file")
        if status != 200:
            raise StatusError(f"{self.address}: {_refusal(body) or f'answers {status}'}")
        return body


class StatusClient:
    """What one server tells of the service."""

    def __init__(self, address: Address, token: str | None = None) -> None:
        self._asker = Asker(address, token)

    @property
    def address(self) -> Address:
        """Where it is asked."""
        return self._asker.address

    def snapshot(self) -> Snapshot:
        """The whole."""
        return read_snapshot(self._asker.get("/status"))

    def calls(self) -> tuple[LiveCall, ...]:
        """Calls in progress."""
        return read_calls(self._asker.get("/calls"))

    def call(self, call: str) -> LiveCall | None:
        """One call by its id, None where it is over."""
        found = self._asker.find(f"/calls/{call}")
        return None if found is None else read_call(found)

    def ladder(self, call: str) -> tuple[LadderStep, ...] | None:
        """Messages of a call, None where it is over."""
        found = self._asker.find(f"/calls/{call}/ladder")
        return None if found is None else read_ladder(found)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path
        self._seconds = seconds

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(str(self._path))


def _reason(error: OSError) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return "no spanrec serves its status here; is the service running?"
        case PermissionError():
            return "belongs to another user; ask as that user, or as root"
        case TimeoutError():
            return "does not answer; the service may be stuck"
        case ConnectionError():
            return "hung up; too many may be asking at once"
    return error.strerror or str(error)


def _refusal(body: bytes) -> str | None:
    try:
        told = json.loads(body)
    except ValueError:
        return None
    error = told.get("error") if isinstance(told, dict) else None
    return error if isinstance(error, str) else None
