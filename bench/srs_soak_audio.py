"""The audio of a recording of `bench.srs_soak`, held against what was sent of its call.

In: the samples of a channel, the takes whose packets belong there. Out: packets that do not stand in it, and stretches
that are of none of them: audio of another call, of the other side, or of nobody. A packet that the recorder cut to half
because others were moved is known by what is left of it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.calls import FRAME, expected_samples

LOUD = 500
"""Amplitude from which on a packet must be found, and from which on samples must be somebody's."""
PIECE = FRAME // 4
"""Samples by which it is told whose a stretch is."""

MULTIPLIER = 0x9E3779B97F4A7C15
"""Odd, with its bits in no order."""

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


class _Link(NamedTuple):
    """A packet that was found, and the one that was found before it."""

    packet: int
    at: int
    before: "_Link | None"


@dataclass(slots=True)
class Channel:
    """What a channel was found to hold."""

    absent: list[list[int]] = field(default_factory=list)
    """Of each take, packets that are not there."""
    cut: int = 0
    """Packets beside them that others lie over, which the recorder moved to an earlier time: the sender was late before
    them, and no longer."""
    foreign: list[tuple[float, float]] = field(default_factory=list)
    """From and to, s of the recording: loud, and of none of the takes."""


def compare(heard: Samples, sent: Sequence[Sent]) -> Channel:
    """Look for what was sent in a channel, take after take, and for what was not."""
    explained = np.zeros(len(heard), bool)
    everything = [np.asarray(expected_samples(e.number, e.side, max(e.most, 1) / 50), np.int16) for e in sent]
    everything = [samples[: each.most * FRAME] for each, samples in zip(sent, everything, strict=True)]
    packets = np.concatenate([np.empty(0, np.int16), *everything]).reshape(-1, FRAME)
    loud = _loud(packets)
    take = np.repeat(np.arange(len(sent)), [each.most for each in sent])
    needed = np.concatenate([np.empty(0, bool), *(np.arange(each.most) < each.packets for each in sent)]) & loud
    places = _chain(_candidates(heard, packets, loud, needed, take))
    for at in places.values():
        explained[at : at + FRAME] = True
    covered = _covered(places, loud)
    found, before = Channel(cut=len(covered)), 0
    for each in sent:
        sought = (place for place in range(each.packets) if loud[before + place])
        found.absent.append([p for p in sought if before + p not in places and before + p not in covered])
        before += each.most
    octets = [samples.tobytes() for samples in everything]
    strange: list[int] = []
    for begin in _pieces(heard, explained):
        piece = heard[begin : begin + PIECE].tobytes()
        if not any(_holds(whole, piece) for whole in octets):
            strange.append(begin)
    found.foreign = _stretches(strange)
    return found


def _candidates(
    heard: Samples,
    packets: Samples,
    loud: NDArray[np.bool_],
    needed: NDArray[np.bool_],
    take: NDArray[np.int64],
) -> Iterator[tuple[int, list[int]]]:
    """Each loud packet with the places where it stands: speech of a minute has some that are alike.

    `take`: whose each packet is. Where there is one, and all of it that is needed stands at one distance, these
    places are all that count.
    """
    hashes, sought = _hashes(heard), np.flatnonzero(loud)
    order = np.argsort(hashes, kind="stable")
    sought_hashes = _hashes(packets.reshape(-1))[sought * FRAME]
    begin, end = (np.searchsorted(hashes[order], sought_hashes, side) for side in ("left", "right"))
    packet = np.repeat(sought, end - begin)
    at = np.concatenate([np.empty(0, np.int64), *(order[low:high] for low, high in zip(begin, end, strict=True))])
    shift, whose, kept = at - packet * FRAME, take[packet], np.ones(len(at), bool)
    for each in np.unique(whose) if take.max(initial=0) == 0 else ():  # what one says may stand in another, too
        shifts, counts = np.unique(shift[whose == each], return_counts=True)
        elsewhere = shift != shifts[np.argmax(counts)]
        if np.count_nonzero(needed[packet[(whose == each) & ~elsewhere]]) == np.count_nonzero(needed[take == each]):
            kept[(whose == each) & elsewhere] = False
    packet, at = packet[kept], at[kept]
    for places in np.split(np.arange(len(at)), np.flatnonzero(np.diff(packet)) + 1):
        if len(places):
            yield int(packet[places[0]]), at[places].tolist()


def _hashes(samples: Samples) -> NDArray[np.uint64]:
    """A number for each FRAME samples in a row; none where there are fewer. (Modulo 2**64, where odd numbers have an
    inverse.)"""
    wide = len(samples)
    powers = np.full(wide, MULTIPLIER, np.uint64).cumprod(dtype=np.uint64)
    inverse = np.full(wide, pow(MULTIPLIER, -1, 1 << 64), np.uint64).cumprod(dtype=np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), (samples.astype(np.int64).astype(np.uint64) * powers).cumsum()])
    return np.asarray((sums[FRAME:] - sums[:-FRAME]) * inverse[: max(wide - FRAME + 1, 0)], np.uint64)


def _chain(candidates: Iterable[tuple[int, list[int]]]) -> dict[int, int]:
    """Packet -> its place, for as many packets as can be that stand one behind the other in the order in which they
    were sent.

    Each packet by itself, from where the one before it was found, will not do: where one was cut, the search would go
    to another like it far behind, and miss all between.
    """
    ends: list[int] = []  # of the chains of one packet, two and so on: the earliest places where one may go on
    last: list[_Link] = []
    for packet, places in candidates:
        longer = [(bisect_right(ends, at), at) for at in places]
        links = [(length, _Link(packet, at, last[length - 1] if length else None)) for length, at in longer]
        for length, link in links:
            if length == len(ends):
                ends.append(link.at + FRAME)
                last.append(link)
            elif link.at + FRAME < ends[length]:
                ends[length], last[length] = link.at + FRAME, link
    found: dict[int, int] = {}
    link = last[-1] if last else None
    while link is not None:
        found[link.packet] = link.at
        link = link.before
    return found


def _covered(places: dict[int, int], loud: NDArray[np.bool_]) -> set[int]:
    """Packets that lie under those behind them: no more than there is no room for."""
    covered: set[int] = set()
    found = sorted(places)
    for left, right in pairwise(found):
        under = [packet for packet in range(left + 1, right) if loud[packet]]
        short = (right - left) * FRAME - (places[right] - places[left])
        if short > 0 and len(under) <= short // FRAME + 2:
            covered |= set(under)
    return covered


def _loud(packets: Samples) -> NDArray[np.bool_]:
    """Whether a packet is; what is silence need not be found."""
    return np.asarray(np.abs(packets.astype(np.int32)).max(axis=1, initial=0) > LOUD)


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
