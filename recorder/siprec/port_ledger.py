"""Which media ports were given to whom they may still be known, in a small file that outlives a kill of the process.

In: ports that are opened, named after the call whose media come there, released. Out: for the next run, how long each
must be left alone, for what comes there until then is of somebody else's call; and which calls had been taken. A port
is noted before anybody is told of it, a call before its session is accepted. A disk that refuses costs only that.
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from capture.port_pool import REST

FILE = ".ports"
NOTICED = 120.0
"""s after a start until the clients of an earlier run's sessions have noticed that it is gone."""
_ENTRY = 32
"""Octets of a pair of ports: until when it is to be left alone, ns since the epoch, 0 where it is not; since when it
has had its name; its name."""
_NUMBER = 8
_NAME = 16
_IN_USE = (1 << 63) - 1
_PAIRS = 1 << 15


class Left(NamedTuple):
    """A pair of ports that an earlier run had given out."""

    port: int
    """For RTP."""
    seconds: float
    """To be left alone."""
    since: int = 0
    """When its session was taken, ns since the epoch, where it was in use and named."""
    name: bytes = b""


def name_of(session: str) -> bytes:
    """The name of a call in such a file, by its `session_id`."""
    return hashlib.sha256(session.encode("utf-8", "surrogatepass")).digest()[:_NAME]


class PortLedger:
    """The file of one store; any thread may use it."""

    def __init__(
        self,
        out: Path,
        *,
        clock: Callable[[], int] = time.time_ns,
        trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`out`: the store's directory. `clock`: wall, ns. `trouble` takes sentences about a disk that refuses."""
        self._path = out / FILE
        self._clock = clock
        self._trouble = trouble
        self._file: int | None = None

    def open(self) -> list[Left]:
        """Begin; gives what an earlier run had given out and nobody else may have yet."""
        now, found = self._clock(), list[Left]()
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            data = os.pread(self._file, _PAIRS * _ENTRY, 0)
        except OSError as error:
            self._refused(error)
            return found
        for at in range(0, len(data), _ENTRY):
            left = _read(data[at : at + _ENTRY], at // _ENTRY * 2, now)
            if left is not None:
                found.append(left)
                # A run that ends before that leaves the rest to the next.
                self._write(left.port, now + int(left.seconds * 1e9), 0, b"")
        return found

    def take(self, port: int) -> None:
        """An RTP port is opened, and somebody will be told of it."""
        self._write(port, _IN_USE, 0, b"")

    def name(self, port: int, session: str) -> None:
        """Which call's media come to an open port: its `session_id`."""
        self._write(port, _IN_USE, self._clock(), name_of(session))

    def release(self, port: int) -> None:
        """It is used no more; what was sent before may still come for a while."""
        self._write(port, self._clock() + int(REST * 1e9), 0, b"")

    def relent(self, port: int) -> None:
        """Whose an RTP port was in an earlier run has noticed: it rests from now on, if nobody has got it since."""
        try:
            known = os.pread(self._file, _NUMBER, port // 2 * _ENTRY) if self._file is not None else b""
        except OSError as error:
            self._refused(error)
            return
        if int.from_bytes(known, "little") != _IN_USE:
            self.release(port)

    def close(self) -> None:
        """End; what the file says stands."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, port: int, until: int, since: int, name: bytes) -> None:
        if self._file is None:
            return
        entry = until.to_bytes(_NUMBER, "little") + since.to_bytes(_NUMBER, "little") + name.ljust(_NAME, b"\0")
        try:
            os.pwrite(self._file, entry, port // 2 * _ENTRY)
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        """Say it once: without the file a kill is the same as before, but for these ports."""
        self.close()
        self._trouble(f"{self._path}: after a kill the ports of calls will not be known: {error.strerror or error}")


def _read(entry: bytes, port: int, now: int) -> Left | None:
    """What an entry says, None where it says nothing any more. One that was cut off has no name."""
    until = int.from_bytes(entry[:_NUMBER], "little")
    since, name = int.from_bytes(entry[_NUMBER : 2 * _NUMBER], "little"), entry[2 * _NUMBER :]
    # A clock that was set back keeps nothing for longer than what is in use.
    seconds = min((until - now) / 1e9, NOTICED)
    if len(entry) < _NUMBER or seconds <= 0:
        return None
    named = until == _IN_USE and since and len(name) == _NAME
    return Left(port, seconds, since, name) if named else Left(port, seconds)
