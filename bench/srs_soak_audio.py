"""The audio of a recording of `bench.srs_soak`, held against what was sent of its call.

In: the samples of a channel, the takes whose packets belong there. Out: packets that do not stand in it, and stretches
that are of none of them: audio of another call, of the other side, or of nobody. A packet that the recorder cut to half
because others were moved is known by what is left of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.calls import FRAME, expected_samples

LOUD = 500
"""Amplitude from which on a packet must be found, and from which on samples must be somebody's."""
PIECE = FRAME // 4
"""Samples by which it is told whose a stretch is."""

Samples = NDArray[np.int16]


class Sent(NamedTuple):
    """What one take sent to one channel."""

    number: int
    """Of the take, whose streams have the audio of the call of that number."""
    side: str
    packets: int
    """That must be there."""
    most: int
    """That may be there: it went on to send, and the server may have heard that or not."""


@dataclass(slots=True)
class Channel:
    """What a channel was found to hold."""

    absent: list[list[int]] = field(default_factory=list)
    """Of each take, packets that are not there."""
    foreign: list[tuple[float, float]] = field(default_factory=list)
    """From and to, s of the recording: loud, and of none of the takes."""


def compare(heard: Samples, sent: Sequence[Sent]) -> Channel:
    """Look for what was sent in a channel, and for what was not."""
    found, explained, places = Channel(), np.zeros(len(heard), bool), _Places(heard)
    everything = [np.asarray(expected_samples(e.number, e.side, max(e.most, 1) / 50), np.int16) for e in sent]
    for each, samples in zip(sent, everything, strict=True):
        absent = _look_for(places, heard, samples.reshape(-1, FRAME)[: each.most], explained)
        found.absent.append([packet for packet in absent if packet < each.packets])
    octets = [samples[: each.most * FRAME].tobytes() for each, samples in zip(sent, everything, strict=True)]
    strange: list[int] = []
    for begin in _pieces(heard, explained):
        piece = heard[begin : begin + PIECE].tobytes()
        if not any(_holds(whole, piece) for whole in octets):
            strange.append(begin)
    found.foreign = _stretches(strange)
    return found


def _look_for(places: "_Places", heard: Samples, sent: Samples, explained: NDArray[np.bool_]) -> list[int]:
    """Loud packets that do not stand in a channel; those that do are marked."""
    packets = len(sent)
    loud = (np.abs(sent.astype(np.int32)).max(axis=1) > LOUD).tolist() if packets else []
    absent: list[int] = []
    place, cursor = 0, 0
    while place < packets:
        at = places.find(sent[place], cursor) if loud[place] else None
        if at is None:
            # What is silence is found with what stands before it, or needs not be found.
            absent += [place] if loud[place] else []
            place += 1
            continue
        there = heard[at : at + (packets - place) * FRAME]
        count = len(there) // FRAME
        equal = (there[: count * FRAME].reshape(-1, FRAME) == sent[place : place + count]).all(axis=1)
        run = count if equal.all() else int(np.argmin(equal))
        explained[at : at + run * FRAME] = True
        place, cursor = place + run, at + run * FRAME
    return absent


class _Places:
    """Where packets stand in a channel, by their first four samples: many that are sought are not there."""

    def __init__(self, heard: Samples) -> None:
        self._heard = heard
        keys = _keys(heard)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, packet: Samples, cursor: int) -> int | None:
        """Where a packet stands next, from `cursor` on."""
        key = _keys(packet)[0]
        begin, end = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        starts = (int(at) for at in self._order[begin:end] if at >= cursor)
        return next((at for at in starts if np.array_equal(self._heard[at : at + FRAME], packet)), None)


def _keys(samples: Samples) -> NDArray[np.int64]:
    """Each four samples in a row as one number; none where there are fewer."""
    wide = samples.astype(np.int64)
    if len(wide) < 4:
        return wide[:0]
    return wide[:-3] << 48 ^ wide[1:-2] << 32 ^ wide[2:-1] << 16 ^ wide[3:]


def _pieces(heard: Samples, explained: NDArray[np.bool_]) -> list[int]:
    """Where pieces begin that are loud and of no packet that was found."""
    whole = len(heard) // PIECE
    free = ~explained[: whole * PIECE].reshape(whole, PIECE).any(axis=1)
    loud = np.abs(heard[: whole * PIECE].astype(np.int32)).reshape(whole, PIECE).max(axis=1) > LOUD
    return [int(place) * PIECE for place in np.flatnonzero(free & loud)]


def _holds(whole: bytes, piece: bytes) -> bool:
    """Whether samples stand in others."""
    at = whole.find(piece)
    while at >= 0 and at % 2:
        at = whole.find(piece, at + 1)
    return at >= 0


def _stretches(pieces: Sequence[int]) -> list[tuple[float, float]]:
    """Pieces that touch, as one, s; a single one may be half silence and half the rest of a packet."""
    runs: list[tuple[int, int]] = []
    for begin in pieces:
        if runs and begin == runs[-1][1]:
            runs[-1] = (runs[-1][0], begin + PIECE)
        else:
            runs.append((begin, begin + PIECE))
    return [(begin / 8000, end / 8000) for begin, end in runs if end - begin > PIECE]
