"""Whether two recordings of the same packets are the same, though the packets came at other times.

In: a live recording and a replay's. Out: how far each channel's pieces are shifted, and a sentence for each
difference that shifted arrivals do not explain. Identifiers and captures are of each run's own; instants count from
the call's start, and may differ by `TOLERANCE_MS`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from recorder.document import CallDocument
from tests.live import comparable

TOLERANCE_MS = 20.0
"""By which instants and durations may differ: what a busy machine delays a frame by."""
MOST_SHIFT_MS = 20.0
"""How far the pieces of a channel are looked for."""
QUIET_MS = 40.0
"""Zeros of this length end a piece."""
ARRIVAL = {"jitter_ms", "late"}
"""Fields that tell nothing but when packets came."""
OWN = {"sha256", "started", "samples"}
"""Of the audio: these follow from the shifts."""

Samples = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How two recordings compare."""

    shifts: tuple[tuple[int, ...], ...]
    """Of each channel: by how many samples its pieces stand later in the live recording, each figure once."""
    unequal: int
    """Samples of pieces that are equal at no shift."""
    instants_ms: float
    """Largest difference of an instant or a duration."""
    jitter_ms: float
    """Largest difference of a jitter."""
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not self.unequal and not self.differences


def compare(live: tuple[CallDocument, Path], replayed: tuple[CallDocument, Path]) -> Likeness:
    """Compare two recordings: (document, directory) of each."""
    ours, theirs = comparable(live[0]), comparable(replayed[0])
    told: list[str] = []
    instants = [0.0]
    jitters = [0.0]
    starts = (instant(live[0].started), instant(replayed[0].started))
    for place, one, other in walk("", ours, theirs):
        name = place.rpartition(".")[2]
        within_audio = place.startswith(".audio.") and name in OWN
        if within_audio:
            continue
        if any(f".{each}" in place for each in ARRIVAL):
            if one is not None and other is not None:
                jitters.append(abs(one - other))
        elif name.endswith("_s") and one is not None and other is not None:
            instants.append(abs(one - other) * 1000)
        elif name == "mos" and one is not None and other is not None:
            if abs(one - other) > 0.1:
                told.append(f"{place[1:]}: {one}, replay {other}")
        elif is_instant(one) and is_instant(other):
            difference = (instant(one) - starts[0]) - (instant(other) - starts[1])
            instants.append(abs(difference) * 1000)
        elif one != other:
            told.append(f"{place[1:]}: {one}, replay {other}")
    if max(instants) > TOLERANCE_MS:
        told.append(f"instants differ by up to {max(instants):.1f} ms")
    files = sorted({path.name for _, where in (live, replayed) for path in where.iterdir()})
    told += [
        f"{name} is in one only" for name in files if (live[1] / name).exists() != (replayed[1] / name).exists()
    ]  # fmt: skip
    shifts: tuple[tuple[int, ...], ...] = ()
    unequal = 0
    if live[0].audio is not None and replayed[0].audio is not None:
        shifts, unequal = compare_audio(live[1] / "audio.wav", replayed[1] / "audio.wav")
    return Likeness(shifts, unequal, max(instants), max(jitters), tuple(told))


def walk(place: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each leaf of two documents with its place; lists of unequal length are a leaf."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            yield from walk(f"{place}.{name}", one.get(name), other.get(name))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from walk(f"{place}[{index}]", *pair)
    else:
        yield place, one, other


def is_instant(value: object) -> bool:
    return isinstance(value, str) and value.endswith("Z") and value[4:5] == "-" and value[10:11] == "T"


def instant(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def compare_audio(live: Path, replayed: Path) -> tuple[tuple[tuple[int, ...], ...], int]:
    """(shifts of each channel, samples that are equal at no shift)."""
    ours, rate = soundfile.read(live, dtype="int16", always_2d=True)
    theirs, other_rate = soundfile.read(replayed, dtype="int16", always_2d=True)
    if rate != other_rate or ours.shape[1] != theirs.shape[1]:
        return (), max(len(ours), len(theirs))
    shifts, unequal = [], 0
    for channel in range(ours.shape[1]):
        found, wrong = shifts_of(ours[:, channel], theirs[:, channel], rate)
        shifts.append(found)
        unequal += wrong
    return tuple(shifts), unequal


def shifts_of(ours: Samples, theirs: Samples, rate: int) -> tuple[tuple[int, ...], int]:
    """By how much each piece of `theirs` is shifted in `ours`, and how many samples are not to be found.

    Samples of `ours` that are in no piece count too: nothing was added.
    """
    most = round(MOST_SHIFT_MS * rate / 1000)
    nearest = sorted(range(-most, most + 1), key=abs)
    found: list[int] = []
    unequal = 0
    explained = np.zeros(len(ours), bool)
    for first, end in pieces(theirs, round(QUIET_MS * rate / 1000)):
        piece = theirs[first:end]
        for shift in [*reversed(found), *nearest]:
            if first + shift >= 0 and np.array_equal(ours[first + shift : end + shift], piece):
                found.append(shift)
                explained[first + shift : end + shift] = True
                break
        else:
            unequal += end - first
    return tuple(sorted(set(found))), unequal + int(np.count_nonzero(ours[~explained]))


def pieces(samples: Samples, quiet: int) -> list[tuple[int, int]]:
    """[first, end) of each run of sound; `quiet` zeros in a row lie between two."""
    loud = np.flatnonzero(samples)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > quiet)
    firsts = loud[np.concatenate([[0], breaks + 1])]
    ends = loud[np.concatenate([breaks, [len(loud) - 1]])] + 1
    return list(zip(firsts.tolist(), ends.tolist(), strict=True))
