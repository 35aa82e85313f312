"""Whether every call that was sent is accounted for, and every sample of it.

In: the calls of `bench.faults_service.Load`, the recordings of a store, when the recorder ran. Out: a `Tally`. A call
is right where all of its audio outside of the interruptions that its recording names stands in it, sample for sample;
absent is only what was on the wire while nobody listened.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np

from bench.calls import FRAME, expected_samples
from bench.faults_check import MS, Recording, Samples, Spans, astray, nanoseconds, pieces
from bench.faults_service import Load, Sent
from bench.live_check import held
from bench.signalling import ANSWER_NS
from recorder.endpoints import WAIT

SECOND = 1_000_000_000
UNFLUSHED = 4 * SECOND
"""Before a kill: media that may not be on the disk yet."""
ON_THE_WAY = SECOND // 2
"""Before a kill: messages that may still be in the ring."""
BACK = SECOND // 2
"""After the sockets are open: what a flow that nobody knows needs to be seen."""
CATCHING_UP = 3 * SECOND // 2
"""After a start: what had come in meanwhile is read."""
ENOUGH = 2 * SECOND
"""Media that must make a recording, were no message of its call seen."""


class Up(NamedTuple):
    """A run of the recorder, ns."""

    opened: int
    """Its sockets were open..."""
    recording: int
    """...and were read from now on."""
    killed: int

    def has_read(self, at: int) -> bool:
        """Whether a message that was sent at a time has certainly been read."""
        caught_up = self.killed - self.recording > CATCHING_UP
        return caught_up and self.opened + BACK < at < self.killed - ON_THE_WAY


@dataclass(slots=True)
class Tally:
    """What became of the calls."""

    calls: int = 0
    whole: int = 0
    interrupted: int = 0
    absent: int = 0
    lost: float = 0.0
    """Seconds of media inside of interruptions."""
    longest: float = 0.0
    """Seconds before a kill from which on an interruption had to be declared."""
    astray: float = 0.0
    """Most ms by which audio behind an interruption stands aside from the clock."""
    moved: int = 0
    """Pieces in which the recorder moved packets, for they came late."""
    wrong: list[str] = field(default_factory=list)


def align(load: Load, recordings: Sequence[Recording]) -> list[Sent]:
    """The calls in the time of the recordings: the sender does not say when exactly its first call began."""
    found = {each.document["call_id"]: nanoseconds(each.document["started"]) for each in recordings}
    late = [found[call.call_id] - call.invited for call in load.calls() if call.call_id in found]
    if late:
        # The first message of some calls was missed: most were not.
        load.began += int(min(late) if len(late) < 3 else median(late))
    until = load.stopped or 0
    return [call for call in load.calls() if call.invited < until - SECOND]


def account(calls: Sequence[Sent], hold: float, recordings: Sequence[Recording], ups: Sequence[Up]) -> Tally:
    """Compare. `ups`: the runs of the recorder in order, the last of which was not killed."""
    by_call: dict[str, list[Recording]] = {}
    by_address: dict[str, list[Recording]] = {}
    for each in recordings:
        if each.document["call_id"] is not None:
            by_call.setdefault(each.document["call_id"], []).append(each)
        else:
            for source in {stream["source"] for stream in each.document["streams"]}:
                by_address.setdefault(source, []).append(each)
    tally = Tally(len(calls))
    for call in calls:
        own = by_call.get(call.call_id, [])
        if len(own) > 1:
            tally.wrong.append(f"call {call.number}: {len(own)} recordings")
        unsigned = {each.id: each for source in call.addresses for each in by_address.get(source, ())}
        _one(tally, call, hold, [*own, *unsigned.values()], ups)
    return tally


def _one(tally: Tally, call: Sent, hold: float, recordings: Sequence[Recording], ups: Sequence[Up]) -> None:
    if not recordings:
        if _must_be_known(call, ups):
            tally.wrong.append(f"call {call.number}: is missing")
        tally.absent += 1
        return
    gaps: Spans = [span for each in recordings for span in each.interruptions()]
    kills = [up.killed for up in ups[:-1]]
    for begin, _ in gaps:
        kill = min((at for at in kills if at >= begin), default=None)
        if kill is None:
            tally.wrong.append(f"call {call.number}: an interruption that was none")
        elif begin > call.invited + ON_THE_WAY:
            tally.longest = max(tally.longest, (kill - begin) / 1e9)
            if kill - begin > 5 * SECOND:
                tally.wrong.append(f"call {call.number}: {(kill - begin) / 1e9:.1f} s before the kill were not kept")
    if not any(up.has_read(at) for up in ups for at in (call.invited, call.invited + ANSWER_NS)):
        gaps += _unexplained(call, ups)
    begin, end = call.media
    tally.lost += (end - begin - sum(b - a for a, b in pieces(begin, end, gaps, 0))) / 1e9
    right = _audio(tally, call, hold, recordings, gaps)
    if any(a < end and b > begin for a, b in gaps):
        tally.interrupted += right
    else:
        tally.whole += right


def _unexplained(call: Sent, ups: Sequence[Up]) -> Spans:
    """When nothing of a call was recorded whose offer and answer both came while nobody listened.

    Its media waits for them in memory, and makes a recording of its own after WAIT.
    """
    gaps: Spans = []
    for up, after in pairwise(ups):
        if up.killed - max(up.opened, call.media[0]) < WAIT + UNFLUSHED:
            gaps.append((up.opened, up.killed))
        gaps.append((up.killed - UNFLUSHED, after.opened + BACK))
    return gaps


def _must_be_known(call: Sent, ups: Sequence[Up]) -> bool:
    messages = [call.invited + step * MS for step in (0, 50, 300)] + [call.ended]
    if any(up.has_read(at) for up in ups for at in messages):
        return True
    last = ups[-1]
    return min(call.media[1], last.killed) - max(call.media[0], last.opened + BACK) > ENOUGH


def _audio(tally: Tally, call: Sent, hold: float, recordings: Sequence[Recording], gaps: Spans) -> bool:
    """Whether every piece outside of the gaps stands in one recording, on both channels."""
    audible = [each for each in recordings if each.document["audio"] is not None]
    sounds = [(nanoseconds(each.document["audio"]["started"]), each.samples()) for each in audible]
    right = True
    for channel, side in enumerate(("caller", "callee")):
        sent = np.asarray(expected_samples(call.number, side, hold), np.int16)
        channels = [_channel(each, call.addresses[channel], channel) for each in audible]
        heard = [(at, samples[:, which]) for (at, samples), which in zip(sounds, channels, strict=True)]
        begin, end = (at + channel * 7_300_000 for at in call.media)
        for first, last in pieces(begin, end - 100 * MS, gaps, 150 * MS):
            found = _copies(tally, heard, sent, first, (first - begin) * 8 // MS, (last - first) * 8 // MS)
            if found != 1:
                right = False
                at = f"{(first - begin) / 1e9:.2f} to {(last - begin) / 1e9:.2f} s of the {side}"
                places = ", ".join(str(each.place) for each in recordings)
                tally.wrong.append(f"call {call.number}: {at} stand in {found} recordings: {places}")
    return right


def _channel(recording: Recording, source: str, usual: int) -> int:
    """Where a direction is heard: who was the caller is a guess where no INVITE was seen."""
    told = (each["channel"] for each in recording.document["streams"] if each["source"] == source)
    return next((channel for channel in told if channel is not None), usual)


def _copies(tally: Tally, heard: list[tuple[int, Samples]], sent: Samples, at: int, first: int, count: int) -> int:
    """How many recordings hold the samples sent[first : first + count], which sounded from `at` on."""
    count = min(count, len(sent) - first)
    if count <= 0:
        return 1
    found = 0
    for started, samples in heard:
        shift = astray(samples, sent, (at - started) * 8 // MS, first, count)
        if shift is not None:
            found += 1
            tally.astray = max(tally.astray, abs(shift) / 8)
    if found == 0:
        found = sum(_moved(samples, sent, (at - started) * 8 // MS, first, count) for started, samples in heard)
        tally.moved += found > 0
    return found


def _moved(samples: Samples, sent: Samples, at: int, first: int, count: int) -> bool:
    """Whether the packets of a piece stand in order, but for what moving others cut: the sender was late then."""
    begin, end = -(-first // FRAME) * FRAME, (first + count) // FRAME * FRAME
    return begin < end and held(samples, sent[begin:end], at + begin - first).overlapped
