"""Alarms of the live service: what is wrong now, since when.

In: conditions as they are found, times from the monotonic clock. Out: the alarms in force, and what was raised or is
over since the last look, for the log. An alarm of an event stands for LASTING after its last one. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from recorder.status import Alarm, AlarmCode

LASTING = 60.0
"""s for which an alarm of a moment (drops, a clock that was set) stands."""


@dataclass(slots=True)
class Alarms:
    """Told by the loop, and by the publisher's thread through `set`."""

    say: Callable[[Alarm, bool], None]
    """An alarm begins (True) or is over (False)."""
    _standing: dict[AlarmCode, Alarm] = field(default_factory=dict)
    _until: dict[AlarmCode, float] = field(default_factory=dict)

    def set(self, code: AlarmCode, text: str | None, wall: int) -> None:
        """A condition holds, with a sentence about it, or does not (None). `wall`: time, ns."""
        before = self._standing.get(code)
        if text is None:
            if before is not None:
                del self._standing[code]
                self.say(before, False)
            return
        alarm = Alarm(code, wall if before is None else before.since, text)
        self._standing[code] = alarm
        if before is None:
            self.say(alarm, True)

    def happened(self, code: AlarmCode, text: str, wall: int, now: float) -> None:
        """Something has happened that stays worth a look for a while. `now`: monotonic, s."""
        self.set(code, text, wall)
        self._until[code] = now + LASTING

    def expire(self, wall: int, now: float) -> None:
        """End the alarms of events that are long past."""
        for code, until in list(self._until.items()):
            if now >= until:
                del self._until[code]
                self.set(code, None, wall)

    def standing(self) -> tuple[Alarm, ...]:
        """Alarms in force, the oldest first."""
        return tuple(sorted(self._standing.values(), key=lambda alarm: (alarm.since, alarm.code)))
