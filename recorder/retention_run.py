"""Retention at work: look at catalogue and disk, plan, delete.

In: a store that this process holds, the terms in force, the time. Out: less in the store. `RetentionRun` is what the
service calls once a minute, in the thread that owns the catalogue: each call does a bounded piece of work. Room for
deleting is kept in reserve, for on a full disk not even a deletion could be written down.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection, Error

from recorder.catalogue import FILE, CatalogueError
from recorder.catalogue_upkeep import measure, remove_traces
from recorder.deletion import Deleted, carry_out, complete
from recorder.document import format_time
from recorder.legal_hold import holds
from recorder.retention import Deletion, Plan, Space, plan
from recorder.retention_rules import Retention

RESERVE = ".reserve"
RESERVED = 4 << 20
"""Octets of the file that makes way when the disk is full."""
MOST_DELETED = 500
"""Recordings that one call deletes, so that others soon get at the catalogue."""
MOST_MEASURED = 5_000
MOST_TRACES = 5_000


def space_of(path: Path) -> Space:
    """Room on the file system of `path`, as this user may use it."""
    status = os.statvfs(path)
    return Space(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)


@dataclass(slots=True)
class RetentionRun:
    """Deletes what the terms in force say, piece by piece."""

    out: Path
    retention: Callable[[], Retention]
    """The terms in force."""
    clock: Callable[[], int]
    """Now, ns since the epoch: for a service, `CautiousClock.read`."""
    announce: Callable[[Deleted], None]
    """Told of each recording that was deleted."""
    note: Callable[[str], None]
    """Takes sentences about what cannot be done."""
    _said: frozenset[str] = frozenset()
    _measured: bool = False
    _left: set[str] = field(default_factory=set)
    """Ids of what is not as the catalogue says: said once, and not planned again."""

    def __call__(self, catalogue: Connection) -> int:
        """Do a piece of work. Returns how many recordings were deleted. Raises SpanrecError, OSError."""
        try:
            return self._work(catalogue)
        except Error as error:
            raise CatalogueError(f"{self.out / FILE}: cannot write the catalogue: {error}") from error

    def _work(self, catalogue: Connection) -> int:
        self._make_way()
        retention, now = self.retention(), self.clock()
        complete(self.out, catalogue, self.announce)
        if retention == Retention():
            self._said = frozenset()
            return 0
        # The live catalogue enters sizes itself: once all have one, none need be looked for.
        self._measured = self._measured or measure(self.out, catalogue, MOST_MEASURED) == 0
        spared = {*holds(self.out), *self._left}
        planned = plan(retention, catalogue, spared, now, space_of(self.out), MOST_DELETED)
        self._say(planned)
        deleted = carry_out(self.out, catalogue, planned.deletions, now, self.announce, self._leave)
        expired = retention.cutoffs((), now).expired
        if expired > 0:
            remove_traces(catalogue, format_time(expired), MOST_TRACES)
        self._keep_reserve()
        return deleted

    def _say(self, planned: Plan) -> None:
        """Say what cannot be met, once as long as it stays so."""
        shortfalls = frozenset(shortfall.partition(":")[0] for shortfall in planned.shortfalls)
        for shortfall in planned.shortfalls:
            if shortfall.partition(":")[0] not in self._said:
                self.note(shortfall)
        self._said = shortfalls

    def _leave(self, deletion: Deletion, sentence: str) -> None:
        self._left.add(deletion.id)
        self.note(sentence)

    def _make_way(self) -> None:
        """On a full disk, give up the reserve."""
        if space_of(self.out).free < RESERVED:
            (self.out / RESERVE).unlink(missing_ok=True)

    def _keep_reserve(self) -> None:
        """Have the reserve where there is room for it."""
        path = self.out / RESERVE
        if path.exists() or space_of(self.out).free < 4 * RESERVED:
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, RESERVED)
        finally:
            os.close(descriptor)
