"""What became of every call of `bench.srs_soak`.

In: the calls as the client knows them, the recordings of the store, when the server was killed. Out: for each call a
`Verdict`: recorded and whole; recorded, and its recording says what is missing; refused, and told so; or wrong.
Packets may be missing only where the server was killed, from `UNFLUSHED` s before until the client has noticed. A
recording holds nothing of another call, and what was received of each of its sessions.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from bench.live_check import CUT
from bench.srs_soak_audio import Channel, Sent, compare
from bench.srs_soak_src import RESTARTED, Fault, SoakCall, Take
from recorder.siprec.received import read

CALLER = "sip:+4930"
"""What the URI of every caller of `bench.calls` begins with, before its number."""
UNFLUSHED = 5.0
BACK = 1.0
"""s after the server was back in which a session that it does not know any more goes on."""
UNNOTED = 1.0
"""s before a kill in which a session that was taken may not have been noted yet."""
AFTER_BYE = 0.1
"""s before a BYE whose packets may have been read after it."""
SIDES = ("caller", "callee")
STRANGE = "audio"
"""What is said of audio that does not belong there begins so."""
MOST_TOLD = 8


class Result(StrEnum):
    """What became of a call."""

    WHOLE = "recorded, whole"
    DECLARED = "recorded, says what is missing"
    REFUSED = "refused"
    UNANSWERED = "no answer"
    KILLED = "begun at a kill"
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
    cut: int = 0
    """Packets that lie under others (`bench.srs_soak_audio.Channel`)."""


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
    if not places and all(_just_begun(take, kills) for take in taken):
        return Verdict(call.number, call.fault, Result.KILLED)
    if len(places) != 1:
        return Verdict(call.number, call.fault, Result.WRONG, f"{len(places)} recordings of {_told(call)}")
    document = json.loads((places[0] / "call.json").read_text())
    wrong, missing = list(_sessions(call, taken, places[0], kills)), False
    channels = _channels(call, taken, places[0]) if document["audio"] is not None else []
    for text, excused in _audio(call, taken, channels, kills):
        missing = missing or not text.startswith(STRANGE)
        if not excused:
            wrong.append(text)
    codes = {each["code"] for each in document["warnings"]}
    lacking = _expected(call, taken, missing=missing) - codes
    wrong += [f"does not say {code}" for code in sorted(lacking)]
    if not missing and call.fault is Fault.NONE and len(taken) == 1 and not _touched(taken[0], kills):
        wrong += [f"says {code}, and nothing is missing" for code in sorted(codes)]
    text = f"{'; '.join(wrong)} ({places[0]}: {_told(call)})" if wrong else ""
    result = Result.WRONG if wrong else Result.DECLARED if codes else Result.WHOLE
    return Verdict(call.number, call.fault, result, text, sum(found.cut for found in channels))


def _expected(call: SoakCall, taken: Sequence[Take], *, missing: bool) -> set[str]:
    """Codes of the warnings that must stand in a call's document."""
    codes = {"interrupted"} if missing or (call.fault is Fault.RESTART and len(taken) > 1) else set()
    if call.fault in (Fault.GONE, Fault.NO_BYE) and taken[-1].quiet:
        codes.add("end-not-seen")
    return codes


def _channels(call: SoakCall, taken: Sequence[Take], place: Path) -> list[Channel]:
    """What each side's channel holds."""
    heard = np.asarray(soundfile.read(place / "audio.wav", dtype="int16", always_2d=True)[0], np.int16)
    sent = [[Sent(t.number, side, _kept(call, t), t.packets) for t in taken] for side in SIDES]
    return [compare(heard[:, channel], each) for channel, each in enumerate(sent)]


def _audio(
    call: SoakCall, taken: Sequence[Take], channels: Sequence[Channel], kills: Sequence[Kill]
) -> Iterator[tuple[str, bool]]:
    """What is wrong with the audio of a recording, and whether a kill excuses it."""
    if not channels:
        if any(take.packets for take in taken):
            yield "no audio", all(_touched(take, kills) for take in taken)
        return
    for side, found in zip(SIDES, channels, strict=True):
        for begin, end in found.foreign[:MOST_TOLD]:
            yield (
                f"{STRANGE} of another call or side stands in the {side}'s channel from {begin:.2f} to {end:.2f} s",
                False,
            )
        for take, absent in zip(taken, found.absent, strict=True):
            if len(absent) > CUT * _kept(call, take):
                outside = sum(not _excused(take, packet, kills) for packet in absent)
                first, last = (packet / 50 for packet in (absent[0], absent[-1]))
                text = f"{len(absent)} packets of the {side} from {first:.2f} to {last:.2f} s of take {take.number}"
                yield f"{text} are missing, {outside} of them without a kill", not outside


def _kept(call: SoakCall, take: Take) -> int:
    """Packets of a take that must be in its recording."""
    early = call.fault is Fault.MEDIA_AFTER_BYE and take is call.takes[0]
    return max(take.sent - (round(AFTER_BYE * 50) if early else 0), 0)


def _excused(take: Take, packet: int, kills: Sequence[Kill]) -> bool:
    """Whether a packet was lost to a kill: not on the disk yet, or sent while its session was known to nobody."""
    at = take.begun + packet / 50
    # Where the sender was held up, its packets left later than that.
    slack = max(take.ended - take.begun - take.sent / 50, 0.0)
    for kill in kills:
        until = kill.back + BACK
        if take.outcome == RESTARTED and take.begun < kill.back:
            until = max(until, take.ended)
        if kill.at - UNFLUSHED - slack < at < until:
            return True
    return False


def _sessions(call: SoakCall, taken: Sequence[Take], place: Path, kills: Sequence[Kill]) -> Iterator[str]:
    """Whether what was received of each recording session, and of no other, is kept with the recording."""
    numbers = {each.call_id.partition("-")[0] for each in read(place)}
    for take in taken:
        if str(take.number) not in numbers and not _just_begun(take, kills):
            yield f"take {take.number} is not told of"
    others = numbers - {str(take.number) for take in call.takes}
    if others:
        yield f"sessions of other calls are told of: {', '.join(sorted(others))}"


def _just_begun(take: Take, kills: Sequence[Kill]) -> bool:
    """Whether the server was killed before it can have noted a take."""
    return any(kill.at - UNNOTED < take.begun < kill.at for kill in kills)


def _touched(take: Take, kills: Sequence[Kill]) -> bool:
    """Whether a kill may have cost a take something."""
    until = take.closed or take.begun + take.packets / 50
    return any(take.begun - BACK < kill.back + BACK and until > kill.at - UNFLUSHED for kill in kills)


def _told(call: SoakCall) -> str:
    return f"call {call.number}, {call.fault}: " + ", ".join(
        f"take {take.number} {take.outcome or take.state}" for take in call.takes
    )
