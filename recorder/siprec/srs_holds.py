"""Holds of a call that an SRC sends, and pauses of its recording: told by metadata, or only by directions of lines.

In: what a session says of who receives, and which lines send. Out: the holds of the `Call`, and the periods for which
nothing was recorded. RFC 8068, section 3.2.2: the held party loses its `send`, the holder its `recv`. Some SRCs only
make the held party's line inactive; where all lines are, the recording is paused (RFC 7866, section 7.1.1.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from recorder.model import Call, Hold, Side
from recorder.siprec.srs_cast import Cast
from recorder.siprec.srs_view import Communication
from recorder.trace import note

MOST_PERIODS = 64
"""Holds, pauses or gaps of a call."""

Period = tuple[int, int]
"""From and to, ns."""


def add_period(periods: list[Period], begin: int, end: int) -> None:
    """Keep a period that is one."""
    if end > begin and len(periods) < MOST_PERIODS:
        periods.append((begin, end))


@dataclass(slots=True)
class Holds:
    """Who holds whom in one call, and whether its recording is paused."""

    call: Call
    pauses: list[Period] = field(default_factory=list)
    _receiving: set[Side] = field(default_factory=set)
    """Sides that have been seen to receive."""
    _holding: dict[Side, int] = field(default_factory=dict)
    """Side that holds -> place of its hold in the call's."""
    _sounding: bool = False
    """Media was on once."""
    _paused: int | None = None

    def judge(
        self, session: Communication, cast: Cast, lines: Sequence[tuple[Side, bool]], at: int, *, by_us: bool
    ) -> None:
        """Take in what holds at `at`: the metadata, (who speaks, whether it is sent) of each audio line, and whether we
        paused the recording ourselves."""
        on = {side for side, sending in lines if sending}
        off = {side for side, _ in lines} - on
        told = self._told(session, cast)
        holders = set(told)
        if on and off:
            # Only the held party's line goes inactive; who holds is the other one.
            holders |= {side.other for side in off}
        paused = by_us or (bool(lines) and not on and self._sounding and not told and session.stop is None)
        self._sounding = self._sounding or bool(on)
        if session.facts.holds:
            self.call.holds = list(session.facts.holds)
        elif self._sounding and not paused and session.stop is None:
            # Who leaves a session that is over receives nothing any more, and holds nobody.
            self._note(holders, at)
        if paused and self._paused is None:
            self._paused = at
            note(self.call, at, 0, "paused", "the recording is paused")
        elif not paused and self._paused is not None:
            self._end_pause(at)
            note(self.call, at, 0, "resumed", "the recording goes on")

    def close(self, at: int) -> None:
        """The call is over: what lasted did so to its end."""
        self._end_pause(at)
        self.call.holds = [
            hold if hold.end is not None else hold._replace(end=max(at, hold.begin)) for hold in self.call.holds
        ]

    def _end_pause(self, at: int) -> None:
        if self._paused is not None:
            add_period(self.pauses, self._paused, at)
            self._paused = None

    def _told(self, session: Communication, cast: Cast) -> set[Side]:
        """Sides that the metadata no longer have receive what the other sends."""
        now = cast.receiving(session)
        holders = self._receiving - now
        self._receiving |= now
        # Without streams they tell nothing of it.
        return holders if session.flows else set()

    def _note(self, holders: set[Side], at: int) -> None:
        holds = self.call.holds
        for side in Side:
            if side in holders and side not in self._holding and len(holds) < MOST_PERIODS:
                self._holding[side] = len(holds)
                holds.append(Hold(at, None, side))
                note(self.call, at, 0, "held", f"the {side} puts the call on hold")
            elif side not in holders and side in self._holding:
                place = self._holding.pop(side)
                holds[place] = holds[place]._replace(end=max(at, holds[place].begin))
                note(self.call, at, 0, "resumed", f"the {side} takes the call back from hold")
