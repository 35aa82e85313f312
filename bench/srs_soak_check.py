"""What became of every call of `bench.srs_soak`.

In: the calls as the client knows them, the recordings of the store, when the server was killed. Out: for each call a
`Verdict`: recorded and whole; recorded, and its recording says what is missing; refused, and told so; or wrong.
Packets may be missing only where the server was killed, from `UNFLUSHED` s before until it was back.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from bench.calls import FRAME, expected_samples
from bench.live_check import CUT
from bench.srs_soak_src import Fault, SoakCall, Take

CALLER = "sip:+4930"
"""What the URI of every caller of `bench.calls` begins with, before its number."""
UNFLUSHED = 5.0
BACK = 1.0
"""s after the server was back in which a session that it does not know any more goes on."""
LOUD = 500
"""Amplitude from which on a packet must be found."""
AFTER_BYE = 0.1
"""s before a BYE whose packets may have been read after it."""

Samples = NDArray[np.int16]


class Result(StrEnum):
    """What became of a call."""

    WHOLE = "recorded, whole"
    DECLARED = "recorded, says what is missing"
    REFUSED = "refused"
    UNANSWERED = "no answer"
    WRONG = "wrong"


class Kill(NamedTuple):
    """The server was killed, s since the epoch."""

    at: float
    back: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one call."""

    number: int
    fault: Fault
    result: Result
    text: str = ""
    """Why it is wrong."""


def recordings(out: Path) -> dict[int, list[Path]]:
    """Call number -> directories of its recordings; -1: of none of ours."""
    found: dict[int, list[Path]] = {}
    for path in sorted(out.glob("[12]*/*/*/*/call.json")):
        uri = (json.loads(path.read_text())["caller"] or {}).get("uri") or ""
        number = int(uri[len(CALLER) :].partition("@")[0]) if uri.startswith(CALLER) else -1
        found.setdefault(number, []).append(path.parent)
    return found


def judge(call: SoakCall, places: Sequence[Path], kills: Sequence[Kill]) -> Verdict:
    """Look at one call."""
    taken = [take for take in call.takes if take.answered]
    if not taken:
        outcome = call.takes[-1].outcome
        result = Result.REFUSED if outcome.isdecimal() else Result.UNANSWERED
        if places and not kills:
            return Verdict(call.number, call.fault, Result.WRONG, f"{outcome}, and {len(places)} recordings")
        return Verdict(call.number, call.fault, result)
    if len(places) != 1:
        return Verdict(call.number, call.fault, Result.WRONG, f"{len(places)} recordings of {_told(call)}")
    document = json.loads((places[0] / "call.json").read_text())
    wrong, missing = [], False
    for text, excused in _missing(call, taken, document, places[0], kills):
        missing = True
        if not excused:
            wrong.append(text)
    codes = {each["code"] for each in document["warnings"]}
    lacking = _expected(call, taken, missing=missing) - codes
    wrong += [f"does not say {code}" for code in sorted(lacking)]
    if not missing and call.fault is Fault.NONE and len(taken) == 1 and not _touched(taken[0], kills):
        wrong += [f"says {code}, and nothing is missing" for code in sorted(codes)]
    if wrong:
        return Verdict(call.number, call.fault, Result.WRONG, f"{'; '.join(wrong)} ({places[0]}: {_told(call)})")
    return Verdict(call.number, call.fault, Result.DECLARED if codes else Result.WHOLE)


def _expected(call: SoakCall, taken: Sequence[Take], *, missing: bool) -> set[str]:
    """Codes of the warnings that must stand in a call's document."""
    codes = {"interrupted"} if missing or (call.fault is Fault.RESTART and len(taken) > 1) else set()
    if call.fault in (Fault.GONE, Fault.NO_BYE) and taken[-1].quiet:
        codes.add("end-not-seen")
    return codes


def _missing(
    call: SoakCall, taken: Sequence[Take], document: dict[str, Any], place: Path, kills: Sequence[Kill]
) -> Iterator[tuple[str, bool]]:
    """What is not in a recording, and whether a kill excuses it."""
    if document["audio"] is None:
        if any(take.packets for take in taken):
            yield "no audio", all(_touched(take, kills) for take in taken)
        return
    heard = np.asarray(soundfile.read(place / "audio.wav", dtype="int16", always_2d=True)[0], np.int16)
    for take in taken:
        for channel, side in enumerate(("caller", "callee")):
            early = call.fault is Fault.MEDIA_AFTER_BYE and take is call.takes[0]
            sent = take.sent - (round(AFTER_BYE * 50) if early else 0)
            absent = _absent(heard[:, channel], take.number, side, sent)
            times = [take.begun + packet / 50 for packet in absent]
            outside = [at for at in times if not any(kill.at - UNFLUSHED < at < kill.back + BACK for kill in kills)]
            if len(absent) > CUT * sent:
                first, last = (packet / 50 for packet in (absent[0], absent[-1]))
                text = f"{len(absent)} packets of the {side} from {first:.2f} to {last:.2f} s of take {take.number}"
                yield f"{text} are missing, {len(outside)} of them without a kill", not outside


def _absent(heard: Samples, number: int, side: str, packets: int) -> list[int]:
    """Packets of a take that do not stand in its channel."""
    if packets <= 0:
        return []
    sent = np.asarray(expected_samples(number, side, packets / 50), np.int16).reshape(-1, FRAME)
    loud = (np.abs(sent).max(axis=1) > LOUD).tolist()
    absent, place, cursor = [], 0, 0
    while place < packets:
        at = _find(heard, sent[place], cursor) if loud[place] else None
        if at is None:
            # What is silence is found with what stands before it, or needs not be found.
            absent += [place] if loud[place] else []
            place += 1
            continue
        there = heard[at : at + (packets - place) * FRAME]
        count = len(there) // FRAME
        equal = (there[: count * FRAME].reshape(-1, FRAME) == sent[place : place + count]).all(axis=1)
        run = count if equal.all() else int(np.argmin(equal))
        place, cursor = place + run, at + run * FRAME
    return absent


def _find(heard: Samples, packet: Samples, cursor: int) -> int | None:
    """Where a packet stands next."""
    starts = cursor + np.flatnonzero(heard[cursor : max(len(heard) - FRAME + 1, 0)] == packet[0])
    return next((at for at in starts.tolist() if (heard[at : at + FRAME] == packet).all()), None)


def _touched(take: Take, kills: Sequence[Kill]) -> bool:
    """Whether a kill may have cost a take something."""
    until = take.ended or take.begun + take.packets / 50
    return any(take.begun - BACK < kill.back + BACK and until > kill.at - UNFLUSHED for kill in kills)


def _told(call: SoakCall) -> str:
    return f"call {call.number}, {call.fault}: " + ", ".join(
        f"take {take.number} {take.outcome or take.state}" for take in call.takes
    )
