"""Whether the recordings of a load hold every sample that was sent, and where one does not, why.

In: a store, and how long each call's media was. Out: a `Verdict` for every recording. Whole is a call of which every
packet of both sides was heard and stands in the recording, in order, but for CUT of them: where the sender was late
for a while, the recorder moves whole packets, as for a clock that drifts, so that silence lies between two of them
then, or one is cut by the next.
"""

import json
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.calls import FRAME, expected_samples

CUT = 0.005
"""Of the packets of a direction, at most, that moving others may cut."""
FAR = 1600
"""Samples by which packets may be moved at once."""
LOOK = 100
"""Packets within which one that was moved is found."""
SIDES = ("caller", "callee")

Samples = NDArray[np.int16]


class Move(NamedTuple):
    """Packets from this one on stand elsewhere than those before it."""

    packet: int
    samples: int
    """Later by so many, or earlier where negative."""


@dataclass(frozen=True, slots=True)
class Held:
    """What of a direction stands in its channel."""

    cut: tuple[int, ...]
    """Packets that do not, or not wholly."""
    moves: tuple[Move, ...]
    strange: int
    """Samples that are neither silence nor of a packet in its place and order: nothing excuses one."""

    packets: int
    """That were sent."""

    @property
    def overlapped(self) -> bool:
        """Whether packets were cut by others that were moved before them, and none for another reason."""
        most = sum(-move.samples // FRAME + 2 for move in self.moves if move.samples < 0)
        return bool(self.moves) and len(self.cut) <= most

    @property
    def enough(self) -> bool:
        return self.strange == 0 and len(self.cut) <= CUT * self.packets


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a call."""

    place: Path
    number: int | None
    """None where it is a recording of media without signalling."""
    reasons: tuple[str, ...]
    """Why it is not whole; empty where it is."""
    cut: int = 0
    moves: int = 0

    @property
    def whole(self) -> bool:
        return self.number is not None and not self.reasons


def verdicts(out: Path, seconds: float) -> Iterator[Verdict]:
    """Look at every recording of a store."""
    for path in sorted(out.glob("2*/*/*/*/call.json")):
        yield verdict(path.parent, json.loads(path.read_text()), seconds)


def verdict(place: Path, document: dict[str, Any], seconds: float) -> Verdict:
    """Look at one recording. `seconds` of media were sent in each direction."""
    if document["call_id"] is None:
        return Verdict(place, None, ("has no signalling",))
    number = int(document["call_id"][8:16], 16)
    if document["audio"] is None:
        return Verdict(place, number, ("has no audio",))
    reasons = [f"warning {each['code']}" for each in document["warnings"]]
    streams = document["streams"]
    if len(streams) != 2 or {each["channel"] for each in streams} != {0, 1}:
        reasons.append(f"{len(streams)} streams, not one of each side")
    reasons += [
        f"{each['participant']}: {each['packets']} packets heard, {each['lost']} lost"
        for each in streams
        if each["lost"] or each["packets"] != round(seconds * 50)
    ]
    if reasons:
        return Verdict(place, number, tuple(reasons))  # the audio cannot be whole
    with wave.open(str(place / "audio.wav")) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    cut = moves = 0
    for channel, side in enumerate(SIDES):
        found = held(heard[:, channel], np.asarray(expected_samples(number, side, seconds), np.int16))
        cut, moves = cut + len(found.cut), moves + len(found.moves)
        if not found.enough:
            reasons.append(f"{side}: {described(found)}")
    return Verdict(place, number, tuple(reasons), cut, moves)


def described(found: Held) -> str:
    """What of a direction is not in its place."""
    moved = ", ".join(f"{move.samples / 8:+.1f} ms at {move.packet / 50:.1f} s" for move in found.moves[:8])
    at = ", ".join(f"{packet / 50:.1f}" for packet in found.cut[:8])
    return f"{len(found.cut)} packets cut (s: {at}), moved {moved or 'never'}, {found.strange} strange samples"


def held(heard: Samples, sent: Samples, shift: int | None = None) -> Held:
    """Follow the packets of a direction through its channel; `shift`: where the first one is expected, if not first."""
    packets = sent.reshape(-1, FRAME)
    loud, first = np.flatnonzero(heard), np.flatnonzero(sent)
    if not len(loud) or not len(first):
        return Held(tuple(range(len(packets))), (), 0, len(packets))
    explained = np.zeros(len(heard), np.bool_)
    shift = int(loud[0]) - int(first[0]) if shift is None else shift
    place = 0
    cut: list[int] = []
    moves: list[Move] = []
    strange = 0
    while place < len(packets):
        run = _equal(heard, packets, place, shift)
        begin = place * FRAME + shift
        explained[begin : begin + run * FRAME] = True
        place += run
        if place == len(packets):
            break
        anchor, moved = _anchor(heard, packets, place, shift)
        # What is whole cannot have been cut by what comes after it.
        strange += max(place * FRAME + shift - anchor * FRAME - shift - moved, 0)
        cut += _between(heard, packets, range(place, anchor), (shift, shift + moved), explained)
        if moved:
            moves.append(Move(anchor, moved))
        shift += moved
        place = anchor
    return Held(tuple(cut), tuple(moves), strange + int(np.count_nonzero(heard[~explained])), len(packets))


def _anchor(heard: Samples, packets: Samples, place: int, shift: int) -> tuple[int, int]:
    """The next packet that stands in one place alone, and by how many samples it was moved; LOOK packets on, (_, 0).

    In pauses of speech a packet is like the one before it, and would be found anywhere.
    """
    last = min(place + LOOK, len(packets))
    for at in range(place, last):
        moved = _search(heard, packets[at], at * FRAME + shift)
        if len(moved) == 1:
            return at, moved[0]
    return last, 0


def _between(
    heard: Samples, packets: Samples, stretch: range, shifts: tuple[int, int], explained: NDArray[np.bool_]
) -> list[int]:
    """Find the packets of a stretch in order, each behind the one before; those that are cut. `shifts`: of both ends.

    Of what is cut, the rest stands where it would by the shift of those before or of those behind.
    """
    cut = []
    cursor, end = stretch.start * FRAME + shifts[0], stretch.stop * FRAME + shifts[1]
    found = set(shifts)
    for place in stretch:
        region = heard[max(cursor, 0) : max(end, 0)]
        starts = np.flatnonzero(region[: max(len(region) - FRAME + 1, 0)] == packets[place][0])
        fits = (at for at in starts.tolist() if (region[at : at + FRAME] == packets[place]).all())
        at = next(fits, None)
        if at is None:
            cut.append(place)
        else:
            begin = max(cursor, 0) + at
            explained[begin : begin + FRAME] = True
            found.add(begin - place * FRAME)
            cursor = begin + FRAME
    for place in stretch:
        for shift in found:
            begin = max(place * FRAME + shift, 0)
            there = heard[begin : max(place * FRAME + shift + FRAME, 0)]
            skipped = begin - place * FRAME - shift
            explained[begin : begin + len(there)] |= there == packets[place][skipped : skipped + len(there)]
    return cut


def _equal(heard: Samples, packets: Samples, place: int, shift: int) -> int:
    """How many packets from `place` on stand one behind the other."""
    begin = place * FRAME + shift
    if begin < 0:
        return 0
    there = heard[begin : begin + (len(packets) - place) * FRAME]
    count = len(there) // FRAME
    equal = (there[: count * FRAME].reshape(-1, FRAME) == packets[place : place + count]).all(axis=1)
    return int(np.argmin(equal)) if count and not equal.all() else count


def _search(heard: Samples, packet: Samples, near: int) -> list[int]:
    """By how many samples a packet may stand away from where it was expected: every place within FAR that holds it."""
    low = max(near - FAR, 0)
    window = heard[low : max(near + FAR + FRAME, 0)]
    starts = np.flatnonzero(window[: max(len(window) - FRAME + 1, 0)] == packet[0])
    return [at + low - near for at in starts.tolist() if (window[at : at + FRAME] == packet).all()]
