"""Whether a recording server still takes the media that it is sent: what the system and its RTCP say.

In: reports of a session's legs, capture time. Out: a phrase when it does not, and whether it should be asked.
"""

from collections.abc import Callable, Iterable, Mapping

from recorder.siprec.legs import LegId, LegReport
from recorder.siprec.src_offer import Line

LOOKS = 4
"""In a row, at which nobody listened at any of its ports."""
SILENCE = 30_000_000_000
"""ns without RTCP from a server that sent some before, after which it is asked whether it is there."""
FRESH = 3_000_000_000


class MediaHealth:
    """Of one session at one server."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """At another server."""
        self._unreachable = 0
        self._asked = 0
        self.silent = False
        """It should be asked whether it is there."""

    def look(self, lines: Iterable[Line], reports: Mapping[LegId, LegReport]) -> str:
        """Look, once in two seconds and twice a second while `doubted`; why the server is not there any more, empty
        where it may be."""
        live = [
            reports[line.leg]
            for line in lines
            if line.leg is not None and line.leg in reports and line.remote is not None and not line.muted
        ]
        self._unreachable = self._unreachable + 1 if live and all(each.unreachable for each in live) else 0
        if self._unreachable >= LOOKS:
            return "nobody listens at its media ports"
        heard = max((each.heard_from for each in live if each.heard_from is not None), default=None)
        now = self._clock()
        self.silent = heard is not None and now - max(heard, self._asked) > SILENCE
        if self.silent:
            self._asked = now
        return ""

    @property
    def doubted(self) -> bool:
        """Nobody listened at the last look."""
        return self._unreachable > 0

    def heard(self, reports: Mapping[LegId, LegReport]) -> int | None:
        """Capture time of its last RTCP."""
        return max((each.heard_from for each in reports.values() if each.heard_from is not None), default=None)

    def fresh(self, reports: Mapping[LegId, LegReport]) -> bool:
        """Whether RTCP has come just now."""
        heard = self.heard(reports)
        return heard is not None and self._clock() - heard <= FRESH
