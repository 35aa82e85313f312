"""Capture time of a live service: the kernel's stamps on a clock that nobody sets.

In: the wall clock and the monotonic clock, now and then. Out: what to add to the kernel's stamps so that the steps of a
clock that was set are taken out of them, and what to add to a call's times when it is written, so that they are the
wall clock's. A recording has no hour of silence where the machine's clock was set, no call ends early for it, and the
documents of every call that ends later are by the new clock. Pure: both clocks are arguments.
"""

from dataclasses import dataclass, replace

import numpy as np

from capture.batch import Int64
from recorder.model import AudioReport, Call, StreamReport

STEP = 500_000_000
"""ns by which wall and monotonic clock may drift apart between two looks before it counts as a step."""
ON_THE_WAY = 10_000_000_000
"""ns after a step for which packets may still come that were stamped before it."""


@dataclass(slots=True)
class CaptureClock:
    """Looks at the clocks before any stamp is used."""

    offset: int
    """Wall clock less monotonic clock, ns, as last seen."""
    correction: int = 0
    """ns that are added to the kernel's stamps."""
    steps: int = 0
    last_step: int = 0
    """ns by which the clock was set last."""
    stepped_at: int | None = None
    """When the last step was seen, monotonic, ns."""

    @classmethod
    def begin(cls, wall: int, monotonic: int) -> "CaptureClock":
        """A clock that agrees with the wall clock."""
        return cls(wall - monotonic)

    def look(self, wall: int, monotonic: int) -> bool:
        """Compare the clocks; True where the wall clock was set since the last look."""
        moved = wall - monotonic - self.offset
        self.offset = wall - monotonic
        if abs(moved) <= STEP:
            return False
        self.correction -= moved
        self.steps += 1
        self.last_step, self.stepped_at = moved, monotonic
        return True

    @property
    def base(self) -> int:
        """Capture time less monotonic clock, ns: steps leave it as it is."""
        return self.offset + self.correction

    def go_on(self, base: int) -> None:
        """Count capture time as an earlier process on this machine did; where that is the wall clock's, it stays so."""
        correction = base - self.offset
        self.correction = correction if abs(correction) > STEP else 0

    def now(self, monotonic: int) -> int:
        """Capture time, whatever has happened to the wall clock since the last look."""
        return monotonic + self.base

    def capture_times(self, stamps: Int64, monotonic: int) -> Int64:
        """Capture times of packets that came before the last look; around a step, each by the clock it was made by."""
        times = stamps + self.correction if self.correction else stamps
        if self.stepped_at is None or monotonic - self.stepped_at > ON_THE_WAY:
            return times
        now, before = self.now(monotonic), times + self.last_step
        return np.where(np.abs(before - now) < np.abs(times - now), before, times)


def by_wall_clock(
    call: Call, streams: list[StreamReport], audio: AudioReport | None, correction: int
) -> tuple[list[StreamReport], AudioReport | None]:
    """Put a call that is over on the wall clock: `correction` was added to its times. The call itself is changed."""
    if correction == 0:
        return streams, audio
    call.started -= correction
    call.last_seen -= correction
    call.ringing, call.answered, call.ended = (
        None if at is None else at - correction for at in (call.ringing, call.answered, call.ended)
    )
    for party in (call.caller, call.callee, *call.others):
        party.joined, party.left = (None if at is None else at - correction for at in (party.joined, party.left))
    for session in call.recorded_by if call.received else ():
        session.started -= correction
        session.ended = None if session.ended is None else session.ended - correction
    call.digits = [digit._replace(at=digit.at - correction) for digit in call.digits]
    call.holds = [
        hold._replace(begin=hold.begin - correction, end=None if hold.end is None else hold.end - correction)
        for hold in call.holds
    ]
    call.trace = [event._replace(time=event.time - correction) for event in call.trace]
    streams = [replace(s, started=s.started - correction, ended=s.ended - correction) for s in streams]
    return streams, None if audio is None else replace(audio, started=audio.started - correction)
