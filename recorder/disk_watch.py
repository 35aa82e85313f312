"""What the disk of a live service has to tell: space, writes that it refuses, retention that fails.

In: free space about once a second; sentences about trouble, from any thread. Out: alarms, and whether a recording may
be begun. It deletes nothing.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from recorder.alarms import Alarms
from recorder.status import AlarmCode, StoreSpace


@dataclass(slots=True)
class DiskWatch:
    """Looks at the file system of one store."""

    out: Path
    alarms: Alarms
    low: Callable[[int, int], bool]
    """(free, total) octets -> whether no audio may be begun."""
    scarce: Callable[[int, int], bool]
    """(free, total) octets -> whether somebody should look."""
    full: bool = False
    """No recording may be begun."""
    _troubles: deque[str | None] = field(default_factory=deque)
    _retention: deque[str] = field(default_factory=deque)

    def trouble(self, text: str | None) -> None:
        """The disk refused something; None: all is well again. From any thread."""
        self._troubles.append(text)

    def retention_failed(self, text: str) -> None:
        """What should be deleted could not be. From any thread."""
        self._retention.append(text)

    def look(self, wall: int) -> None:
        """Raise and end alarms. `wall`: time, ns."""
        while self._troubles:
            trouble = self._troubles.popleft()
            if trouble is None:
                self.alarms.set(AlarmCode.DISK_FAILING, None, wall)
            else:
                self.alarms.happened(AlarmCode.DISK_FAILING, trouble, wall, time.monotonic())
        while self._retention:
            self.alarms.happened(AlarmCode.RETENTION_FAILED, self._retention.popleft(), wall, time.monotonic())
        space = self.space()
        self.full = space is not None and self.low(space.free, space.total)
        text = f"{self.out}: too little space left; calls that begin are not recorded."
        self.alarms.set(AlarmCode.DISK_FULL, text if self.full else None, wall)
        scarce = space is not None and not self.full and self.scarce(space.free, space.total)
        text = f"{self.out}: space is getting scarce; keep less, or give it a larger disk."
        self.alarms.set(AlarmCode.DISK_LOW, text if scarce else None, wall)

    def space(self) -> StoreSpace | None:
        """Octets of the file system, None where it does not tell."""
        try:
            status = os.statvfs(self.out)
        except OSError:
            return None
        return StoreSpace(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)
