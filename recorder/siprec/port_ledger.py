"""Which media ports were given to whom they may still be known, in a small file that outlives a kill of the process.

In: ports that are opened and released. Out: for the next run, how long each must be left alone: what comes there until
then is of somebody else's call. A port is noted before anybody is told of it. A disk that refuses costs only that.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from capture.port_pool import REST

FILE = ".ports"
NOTICED = 120.0
"""s after a start until the clients of an earlier run's sessions have noticed that it is gone."""
_ENTRY = 8
"""Octets of a pair of ports: until when it is to be left alone, ns since the epoch, 0 where it is not."""
_IN_USE = (1 << 63) - 1
_PAIRS = 1 << 15


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

    def open(self) -> Mapping[int, float]:
        """Begin; gives the RTP ports of an earlier run that are to be left alone, and for how many s."""
        now, found = self._clock(), dict[int, float]()
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            data = os.pread(self._file, _PAIRS * _ENTRY, 0)
            for at in range(0, len(data) - _ENTRY + 1, _ENTRY):
                until = int.from_bytes(data[at : at + _ENTRY], "little")
                # A clock that was set back keeps nothing for longer than what is in use.
                left = min((until - now) / 1e9, NOTICED)
                if left > 0:
                    found[2 * (at // _ENTRY)] = left
                    self._note(2 * (at // _ENTRY), now + int(left * 1e9))
        except OSError as error:
            self._refused(error)
        return found

    def take(self, port: int) -> None:
        """An RTP port is opened, and somebody will be told of it."""
        self._note(port, _IN_USE)

    def release(self, port: int) -> None:
        """It is used no more; what was sent before may still come for a while."""
        self._note(port, self._clock() + int(REST * 1e9))

    def close(self) -> None:
        """End; what the file says stands."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _note(self, port: int, until: int) -> None:
        if self._file is None:
            return
        try:
            os.pwrite(self._file, until.to_bytes(_ENTRY, "little"), port // 2 * _ENTRY)
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        """Say it once: without the file a kill is the same as before, but for these ports."""
        self.close()
        self._trouble(f"{self._path}: after a kill the ports of calls will not be known: {error.strerror or error}")
