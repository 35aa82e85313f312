"""Asks a status server.

In: its address, a token where it wants one. Out: `Snapshot`, `LiveCall`, `LadderStep` values. Raises StatusError with
what the user can do about it, and nothing else, whatever answers there; waits and reads within bounds.
"""

import http.client
import json
import socket
from pathlib import Path

from recorder.status import LadderStep, LiveCall, Snapshot, StatusError
from recorder.status_address import Address
from recorder.status_json import read_call, read_calls, read_ladder, read_snapshot

SECONDS = 5.0
"""For connecting, and for each piece of an answer."""
LONGEST_ANSWER = 64 << 20


class StatusClient:
    """One server; a connection for each question, so that a restarted service is found again."""

    def __init__(self, address: Address, token: str | None = None) -> None:
        self.address = address
        self._headers = {"Host": "localhost"} if isinstance(address, Path) else {}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def snapshot(self) -> Snapshot:
        """The whole."""
        return read_snapshot(self._get("/status"))

    def calls(self) -> tuple[LiveCall, ...]:
        """Calls in progress."""
        return read_calls(self._get("/calls"))

    def call(self, call: str) -> LiveCall | None:
        """One call by its id, None where it is over."""
        found = self._find(f"/calls/{call}")
        return None if found is None else read_call(found)

    def ladder(self, call: str) -> tuple[LadderStep, ...] | None:
        """Messages of a call, None where it is over."""
        found = self._find(f"/calls/{call}/ladder")
        return None if found is None else read_ladder(found)

    def _get(self, path: str) -> bytes:
        found = self._find(path)
        if found is None:
            raise StatusError(f"{self.address}: what answers here does not know {path}: is it spanrec?")
        return found

    def _find(self, path: str) -> bytes | None:
        """The body of an answer, None for 404."""
        connection = self._connection()
        try:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            body = answer.read(LONGEST_ANSWER)
        except OSError as error:
            raise StatusError(f"{self.address}: {_reason(error)}") from error
        except http.client.HTTPException as error:
            raise StatusError(f"{self.address}: what answers here does not speak HTTP: is it spanrec?") from error
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status == 401:
            raise StatusError(f"{self.address}: wants its token; name its file with --token-file")
        if answer.status != 200:
            raise StatusError(f"{self.address}: {_refusal(body) or f'answers {answer.status}'}")
        return body

    def _connection(self) -> http.client.HTTPConnection:
        if isinstance(self.address, Path):
            return _UnixConnection(self.address)
        return http.client.HTTPConnection(self.address.host, self.address.port, timeout=SECONDS)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
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
