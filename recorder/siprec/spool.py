"""Calls that no recording server could be had for: kept on disk until one can.

In: a directory with a call's packets, and what is known of the call. Out: the calls that wait, oldest first; deliveries
by a callable that somebody else gives, a few at once. A call stands in a directory of its own that appears by one
rename, so that a crash at any moment leaves it whole or not at all, and a restart finds what waits. Bounded by size and
age: the oldest go first, and that is told. `put`, `drop` and the list may be used by several threads; deliveries run in
one asyncio loop.
"""

import asyncio
import gc
import os
import shutil
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from capture.errors import SpanrecError
from recorder.siprec.control import EventKind, SessionEvent
from recorder.siprec.spool_entry import SpooledCall, from_json, to_json

PACKETS = "packets.pcapng"
FILE = "spooled.json"
PARTIAL = ".partial"
AT_ONCE = 8
"""Deliveries in progress at a time, where settings say nothing else."""
FIRST_WAIT = 5.0
"""s after a delivery that found no server; doubled with each."""
LONGEST_WAIT = 300.0
HELD_BACK = 2.0
"""s for which a delivery waits where calls in progress wait for its server."""
BETWEEN_LOOKS = 60.0
"""s between two looks for what deliveries left; each holds Python up for some tenths of a second."""
MOST_LISTED = 100_000
"""Calls that are looked at when a spool is opened."""


class SpoolError(SpanrecError):
    """A spool cannot be used or written."""


class Outcome(StrEnum):
    """What came of a delivery."""

    DELIVERED = "delivered"
    LATER = "later"
    """No server could be had: it is tried again."""
    NEVER = "never"
    """It cannot be delivered at all: its packets cannot be read, or a server refuses it for good."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A call that waits."""

    directory: Path
    call: SpooledCall
    octets: int

    @property
    def packets(self) -> Path:
        """Its capture."""
        return self.directory / PACKETS


class Spool:
    """A directory of calls that wait."""

    def __init__(
        self,
        directory: Path,
        *,
        most_octets: int,
        most_age: int,
        clock: Callable[[], int],
        tell: Callable[[SessionEvent], None] = lambda event: None,
    ) -> None:
        """`most_age` and `clock` in ns, UTC. Raises SpoolError where the directory cannot be used."""
        self.directory = directory
        self._most_octets = most_octets
        self._most_age = most_age
        self._clock = clock
        self._tell = tell
        self._lock = threading.Lock()
        self._busy: set[Path] = set()
        self._entries: dict[Path, Entry] = {}
        self.arrived: Callable[[], None] = lambda: None
        """Called, in the thread of `put`, when there is something new."""
        try:
            (directory / PARTIAL).mkdir(parents=True, exist_ok=True)
            self._clear_partial()
            self._entries = self._read()
        except OSError as error:
            raise SpoolError(f"{directory}: calls cannot be kept there: {error.strerror or error}") from error
        self.trim()

    @property
    def entries(self) -> list[Entry]:
        """What waits, oldest call first."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: (entry.call.picture.started, entry.directory))

    @property
    def octets(self) -> int:
        """All of them together."""
        with self._lock:
            return sum(entry.octets for entry in self._entries.values())

    def work(self, call: SpooledCall) -> Path:
        """A fresh directory for a call's packets, from which `put` takes it. Raises SpoolError."""
        work = self.directory / PARTIAL / _name(call)
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
        except OSError as error:
            raise SpoolError(f"{work}: a call cannot be kept: {error.strerror or error}") from error
        return work

    def put(self, call: SpooledCall, work: Path) -> Entry:
        """Keep a call whose packets are in `work`, on this file system. Raises SpoolError, and then keeps nothing."""
        name = self.directory / _name(call)
        try:
            with open(work / FILE, "wb") as file:
                file.write(to_json(call))
                file.flush()
                os.fsync(file.fileno())
            with open(work / PACKETS, "rb") as packets:
                os.fsync(packets.fileno())
            if name.exists():  # the same call, kept again: it has more packets now
                shutil.rmtree(name)
            os.rename(work, name)
            _sync(self.directory)
            entry = Entry(name, call, _size(name))
        except OSError as error:
            raise SpoolError(f"{name}: a call cannot be kept: {error.strerror or error}") from error
        with self._lock:
            self._entries[name] = entry
        self._say(EventKind.SPOOLED, entry, "kept until a recording server can be had")
        self.trim()
        self.arrived()
        return entry

    def drop(self, entry: Entry) -> None:
        """It waits no longer."""
        with self._lock:
            self._entries.pop(entry.directory, None)
        aside = self.directory / PARTIAL / entry.directory.name
        with suppress(OSError):
            # Away by one rename first: what is half deleted is never delivered.
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(entry.directory, aside)
        shutil.rmtree(aside, ignore_errors=True)

    def trim(self) -> None:
        """Drop what is too old or too much, oldest first; what is being delivered stays."""
        limit = self._clock() - self._most_age
        left = self.octets
        for entry in self.entries:
            old = entry.call.kept < limit
            if (not old and left <= self._most_octets) or entry.directory in self._busy:
                continue
            left -= entry.octets
            why = "it waited too long" if old else "there is no more room"
            self._say(EventKind.FAILURE, entry, f"given up, never delivered: {why}")
            self.drop(entry)

    def hold(self, entry: Entry) -> None:
        """It is being delivered, until `release`."""
        self._busy.add(entry.directory)

    def release(self, entry: Entry) -> None:
        """It is being delivered no more."""
        self._busy.discard(entry.directory)

    def told(self, entry: Entry, outcome: Outcome) -> None:
        """What came of a delivery: done with, but for LATER."""
        if outcome is Outcome.DELIVERED:
            self._say(EventKind.DELIVERED, entry, "delivered late")
        elif outcome is Outcome.NEVER:
            self._say(EventKind.FAILURE, entry, "given up: it cannot be delivered")
        if outcome is not Outcome.LATER:
            self.drop(entry)

    def failed(self, entry: Entry, error: Exception) -> None:
        """A delivery broke off, by what nobody foresaw."""
        self._say(EventKind.FAILURE, entry, f"its delivery broke off: {type(error).__name__}: {error}")

    def _say(self, kind: EventKind, entry: Entry, text: str) -> None:
        picture = entry.call.picture
        self._tell(
            SessionEvent(
                kind,
                self._clock(),
                call=str(picture.id),
                call_id=picture.call_id or "",
                text=text,
                details={"octets": entry.octets, "started": picture.started, "kept": entry.call.kept},
            )
        )

    def _clear_partial(self) -> None:
        for left in (self.directory / PARTIAL).iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def _read(self) -> dict[Path, Entry]:
        found: dict[Path, Entry] = {}
        for directory in sorted(self.directory.iterdir())[:MOST_LISTED]:
            try:
                call = from_json((directory / FILE).read_bytes())
                if (directory / PACKETS).exists():
                    found[directory] = Entry(directory, call, _size(directory))
            except (OSError, ValueError):
                continue  # not ours, or of another version: left where it is
        return found


class Delivery:
    """Delivers what waits, oldest first, several at once. `deliver` raises nothing but SpanrecError."""

    def __init__(
        self,
        spool: Spool,
        deliver: Callable[[Entry], Awaitable[Outcome]],
        at_once: int = AT_ONCE,
        waited_for: Callable[[], frozenset[str]] = frozenset,
        overloaded: Callable[[], bool] = lambda: False,
    ) -> None:
        """`waited_for`: URIs of servers for which calls in progress wait. They go first: where the machine or a server
        has more to do than it can, deliveries would only add to it. So none begins either while we are `overloaded`."""
        self._spool = spool
        self._overloaded = overloaded
        self._waited_for = waited_for
        self._held_back = False
        self._deliver = deliver
        self._at_once = at_once
        self._running: dict[asyncio.Task[None], Entry] = {}
        self._passed: set[Path | tuple[str, ...]] = set()
        """Servers that could not be had, and entries whose delivery broke off: not tried again before `_again_at`."""
        self._wait = FIRST_WAIT
        self._again_at = 0.0
        self._left = False
        """Whether deliveries have ended since the last look for what they left, which was at..."""
        self._looked = float("-inf")
        self._wake = asyncio.Event()
        loop = asyncio.get_running_loop()

        def arrived() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        spool.arrived = arrived

    def retry(self) -> None:
        """A server is back: try at once."""
        self._wait = FIRST_WAIT
        self._passed.clear()
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                self._begin()
                seconds = max(0.0, self._again_at - loop.time()) if self._passed else LONGEST_WAIT
                seconds = min(seconds, HELD_BACK) if self._held_back else seconds
                await self._something(min(seconds, BETWEEN_LOOKS) if self._left else seconds)
                await self._let_go()
                if self._passed and loop.time() >= self._again_at:
                    self._passed.clear()
                    self._wait = min(self._wait * 2, LONGEST_WAIT)
                await asyncio.to_thread(self._spool.trim)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self) -> None:
        """Begin as many deliveries as may be in progress. A call does not wait for the servers of another."""
        busy = {entry.directory for entry in self._running.values()}
        first = self._waited_for()
        self._held_back = self._overloaded() and bool(self._spool.entries)
        if self._held_back:
            return
        for entry in self._spool.entries:
            if len(self._running) >= self._at_once:
                return
            if entry.directory in busy or {entry.directory, _servers(entry)} & self._passed:
                continue
            if not first.isdisjoint(_servers(entry)):
                self._held_back = True
                continue
            self._spool.hold(entry)
            self._running[asyncio.get_running_loop().create_task(self._one(entry))] = entry

    async def _something(self, seconds: float) -> None:
        """Until a delivery is over, a call has arrived or a server is back, for at most some seconds."""
        woken = asyncio.get_running_loop().create_task(self._wake.wait())
        try:
            await asyncio.wait([woken, *self._running], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        for task in [task for task in self._running if task.done()]:
            self._spool.release(self._running.pop(task))
            self._left = True

    async def _let_go(self) -> None:
        """Have the memory of deliveries that are over given back: an engine, a forwarder and sessions each, which refer
        to each other. They are some MB in few values, so that Python would not look for them before hundreds were left.
        """
        now = asyncio.get_running_loop().time()
        if self._left and now >= self._looked + BETWEEN_LOOKS:
            self._left, self._looked = False, now
            await asyncio.to_thread(gc.collect)

    def _pass(self, what: "Path | tuple[str, ...]") -> None:
        """Try it no more for a while."""
        if not self._passed:
            self._again_at = asyncio.get_running_loop().time() + self._wait
        self._passed.add(what)

    async def _one(self, entry: Entry) -> None:
        """Deliver one, and note what came of it."""
        try:
            outcome = await self._deliver(entry)
        except SpanrecError:
            outcome = Outcome.NEVER
        except Exception as error:  # what nobody foresaw must not end all deliveries
            self._spool.failed(entry, error)
            self._pass(entry.directory)
            return
        if outcome is Outcome.LATER:
            self._pass(_servers(entry))
        else:
            self._wait = FIRST_WAIT
        await asyncio.to_thread(self._spool.told, entry, outcome)


def _servers(entry: Entry) -> tuple[str, ...]:
    return tuple(server.uri for server in entry.call.instance.servers)


def _name(call: SpooledCall) -> str:
    """Oldest first in the order of names; two recordings of one call have two."""
    instance = sha256(call.instance.name.encode()).hexdigest()[:8]
    return f"{call.picture.started:020d}-{call.picture.id.hex}-{instance}"


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


def _sync(directory: Path) -> None:
    """Have a rename outlive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
