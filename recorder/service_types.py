"""How a live service records, and who follows its calls.

In: nothing. Out: the types that commands give to `recorder.service.CaptureService`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recorder.document import CallDocument
from recorder.engine import Engine
from recorder.live_catalogue import LiveCatalogue
from recorder.model import Call
from recorder.sightings import Observer


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How the service records."""

    out: Path
    form: str = "wav"
    mono: bool = False
    workers: int = 1
    disk_low: Callable[[int, int], bool] = lambda free, total: False
    """(free, total) octets -> whether no audio may be begun."""
    disk_scarce: Callable[[int, int], bool] = lambda free, total: False
    """(free, total) octets -> whether somebody should look."""
    upkeep: Callable[[LiveCatalogue], None] | None = None
    """Deletes what retention says; in the publisher's thread."""
    settings: Path | None = None
    """File that `reload` reads the policy from."""
    wall_clock: Callable[[], int] = time.time_ns
    steady_clock: Callable[[], int] = time.monotonic_ns
    """What capture time is told by; ns."""
    recent_media: bool = False
    """Hold the media of the last seconds in memory: packets that followers want kept later are had from before too."""
    published: Callable[[CallDocument, Path], None] = lambda document, directory: None
    """Told of each recording and its directory, in the publisher's thread."""


class Follower(Observer, Protocol):
    """Who follows calls as they go on: recording sessions towards servers do."""

    def attach(self, engine: Engine, keep_packets: Callable[[Sequence[Call]], None]) -> None:
        """The engine whose calls these are; before any packet. `keep_packets` keeps those of calls from now on."""

    def begun(self, call: Call) -> None:
        """A call begins, and its decision stands."""

    def dropped(self, call: Call) -> None:
        """A call turned out to be part of another, and is no more."""

    def turn(self, now: int) -> None:
        """All that came until capture time `now` (ns) has been heard; called some fifty times a second."""
