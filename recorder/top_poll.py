"""Asks the service again and again, for a program that shows what it says.

In: a `StatusClient`, what is being looked at. Out: `View`s or the sentence of what went wrong, handed to a function, in
a thread of its own that never keeps a process from ending. One question at a time, so that a service that is slow is
not asked more.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from recorder.status import LadderStep, LiveCall, Snapshot, StatusError
from recorder.status_client import StatusClient


class Look(NamedTuple):
    """A call that is looked at."""

    id: str
    call: LiveCall | None
    """None: it is over."""
    steps: tuple[LadderStep, ...]


class View(NamedTuple):
    """What there was to see at one moment."""

    snapshot: Snapshot
    calls: tuple[LiveCall, ...] | None
    """None while one call is looked at."""
    look: Look | None


class Poller:
    """Asks every `interval` s between `start` and `stop`. All else may be called at any time."""

    def __init__(
        self, client: StatusClient, interval: float, show: Callable[[View], object], fail: Callable[[str], object]
    ) -> None:
        """`show` and `fail` are called in the poller's thread."""
        self._client = client
        self._interval = interval
        self._show = show
        self._fail = fail
        self._looked_at: str | None = None
        self._stopped = False
        self._wake = threading.Event()

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, name="spanrec-poll", daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped = True
        self._wake.set()

    def look_at(self, call: str | None) -> None:
        """Ask for one call from now on; None: for all."""
        self._looked_at = call
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
                view = self._ask(self._looked_at)
            except StatusError as error:
                if not self._stopped:
                    self._fail(str(error))
            else:
                if not self._stopped:
                    self._show(view)
            self._wake.wait(self._interval)

    def _ask(self, call: str | None) -> View:
        snapshot = self._client.snapshot()
        if call is None:
            return View(snapshot, self._client.calls(), None)
        return View(snapshot, None, Look(call, self._client.call(call), self._client.ladder(call) or ()))
