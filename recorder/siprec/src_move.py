"""What lies between a recording server that was left and the next one, stated for each direction of the calls.

In: reports of the legs at both. Out: details of an event. No message, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from recorder.siprec.legs import LegReport, Source

SETTLED = 3.0
"""s after which a move is told of, whether media went out at the new server or not."""
Reports = Mapping[Source, LegReport]


@dataclass(slots=True)
class Move:
    """From one server to another."""

    before: str
    """URI of the server that was left."""
    why: str
    old: Reports
    at: float = 0.0
    """When the next one answered, s; 0: none has yet."""

    def settled(self, new: Reports, now: float) -> bool:
        """Whether all directions have begun again, or have had their time."""
        begun = all(source in new and new[source].first is not None for source in self.old)
        return begun or now - self.at >= SETTLED

    def details(self, new: Reports) -> dict[str, str | int | float | None]:
        """Of each direction: last packet to the old server, first to the new (capture time, ns), ms between them, and
        packets that were too old to be sent. What was sent twice to be sure makes a gap of 0."""
        found: dict[str, str | int | float | None] = {"from": self.before}
        for source, report in self.old.items():
            now = new.get(source)
            first = now.first if now is not None else None
            name = f"{source.call} {source.side} {source.media_index}"
            found[f"{name} last"] = report.last
            found[f"{name} first"] = first
            found[f"{name} gap ms"] = (
                None if report.last is None or first is None else max(0, first - report.last) / 1e6
            )
            found[f"{name} lost"] = now.unsent if now is not None else None
        return found
