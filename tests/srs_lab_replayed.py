"""OpenSIPS' own recording sessions, said again by sipp to a running server, beside a replay of the same capture.

In: a session of a capture (`siprec_capture`), the recording that our server made of it, the replay's of the call. Out:
what is wrong: other parties or state, a packet that was sent and is not in the recording to the sample, a packet of the
call that the replay has and we have not though it was sent, bodies that were not kept as they were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from pcaps.make.sources import decode
from recorder.document import CallDocument
from recorder.siprec.received import read
from tests.same_recording import instant
from tests.siprec_capture import Recorded

FRAME = 160
FAR = 800
"""Samples by which a packet may stand elsewhere than in the capture: 100 ms."""
HOLD_MS = 100.0
"""By which the length of a hold may differ."""
LAWS = {0: "PCMU", 8: "PCMA"}
Samples = NDArray[np.int16]
Made = tuple[CallDocument, Path]


@dataclass(frozen=True, slots=True)
class Alike:
    """A recording beside a replay."""

    sent: str
    """Packets that were sent, and are in it to the sample."""
    replay: str
    """20 ms of the replay that sound, and stand in it too."""
    shifts: str
    faults: tuple[str, ...]


def compare(session: Recorded, ours: Made, theirs: Made, *, exact: bool = True) -> Alike:
    """Hold our recording of a session against the replay of its call; `exact`: its samples and the lengths of holds
    too, which a busy machine spoils."""
    mine, other = ours[0], theirs[0]
    wrong = [
        f"{side} {getattr(mine, side)}, replay {getattr(other, side)}"
        for side in ("caller", "callee")
        if _who(mine, side) != _who(other, side)
    ]
    if mine.state != other.state and session.packets and "a=sendonly" in _last_offer(session) and _answered(other):
        wrong.append(f"state {mine.state}, replay {other.state}")
    streams = [{(s.participant, s.ssrc, s.codec) for s in each.streams} for each in (mine, other)]
    if not streams[0] <= streams[1] or (_answered(other) and streams[0] != streams[1]):
        wrong.append(f"streams {sorted(streams[0])}, replay {sorted(streams[1])}")
    wrong += _holds(
        mine, other, HOLD_MS if exact else float("inf"), paused="paused" in {each.code for each in mine.warnings}
    )
    kept = [each.body for each in read(ours[1]) if each.body]
    bodies = [each.message.body for each in session.said if each.message.body]
    if kept != bodies:
        wrong.append("bodies were not kept as they were sent")
    equal, total, shifts = _sent(session, ours)
    if equal != total and exact:
        wrong.append(f"{total - equal} packets that were sent are not in it")
    found, pieces = _of_replay(ours[1], theirs[1])
    packets = sum(each.packets for each in other.streams)
    if pieces - found > packets - len(session.packets):
        wrong.append(
            f"{pieces - found} pieces of the replay are missing, {packets - len(session.packets)} were not sent"
        )
    told = f"{min(shifts)} to {max(shifts)}" if shifts else ""
    return Alike(f"{equal} of {total}", f"{found} of {pieces}", told, tuple(wrong))


def _who(document: CallDocument, side: str) -> tuple[str | None, str | None]:
    party = getattr(document, side)
    return party.uri, party.name


def _answered(document: CallDocument) -> bool:
    return document.answered is not None


def _last_offer(session: Recorded) -> str:
    offers = [each.octets.decode("latin-1") for each in session.said if each.message.sdp() is not None]
    return offers[-1]


def _holds(mine: CallDocument, other: CallDocument, most_ms: float, *, paused: bool) -> Iterator[str]:
    """A pause of the recording is none."""
    if len(mine.holds) != len(other.holds):
        yield f"{len(mine.holds)} holds, replay {len(other.holds)}"
        return
    for ours, theirs in zip(mine.holds, other.holds, strict=True):
        lengths = [(instant(each.to) - instant(each.from_)) * 1000 for each in (ours, theirs)]
        if ours.by != theirs.by or abs(lengths[0] - lengths[1]) > most_ms:
            yield f"hold by {ours.by} of {lengths[0]:.0f} ms, replay by {theirs.by} of {lengths[1]:.0f} ms"
    if paused and mine.holds:
        yield "a pause was taken for a hold"


def _sent(session: Recorded, ours: Made) -> tuple[int, int, set[int]]:
    """(packets that stand in the recording, those that sound, by how many samples they are shifted)."""
    document, place = ours
    channels = {stream.ssrc: stream.channel for stream in document.streams}
    samples = _samples(place)
    equal = total = 0
    shifts = set()
    shift: dict[str, int] = {}
    start = min((each.at for each in session.packets), default=0.0)
    for packet in session.packets:
        ssrc = f"0x{int.from_bytes(packet.data[8:12], 'big'):08x}"
        law = LAWS.get(packet.data[1] & 0x7F)
        piece = decode(law, np.frombuffer(packet.data[12:], np.uint8)) if law else np.zeros(0, np.int16)
        if not piece.any():
            continue
        total += 1
        channel = channels.get(ssrc)
        if channel is None or samples is None:
            continue
        near = round((packet.at - start) * 8000)
        at = find(samples[:, channel], piece, near + shift.get(ssrc, 0))
        if at is not None:
            equal += 1
            shift[ssrc] = _bounded(at - near)
            shifts.add(at - near)
    return equal, total, shifts


def _of_replay(ours: Path, theirs: Path) -> tuple[int, int]:
    """(20 ms of the replay that stand in ours, those that sound)."""
    heard, wanted = _samples(ours), _samples(theirs)
    if heard is None or wanted is None:
        return 0, 0 if wanted is None else len(wanted)
    found = total = 0
    for channel in range(wanted.shape[1]):
        shift = 0
        loud = np.flatnonzero(wanted[:, channel])
        begins = range(int(loud[0]), int(loud[-1]) + 1, FRAME) if len(loud) else ()
        for begin in begins:
            piece = wanted[begin : min(begin + FRAME, int(loud[-1]) + 1), channel]
            if not piece.any():
                continue
            total += 1
            at = find(heard[:, channel], piece, begin + shift)
            if at is not None:
                found += 1
                shift = _bounded(at - begin)
    return found, total


def _bounded(shift: int) -> int:
    """A quiet piece stands in many places: the search must not walk away with one of them."""
    return max(min(shift, FAR), -FAR)


def find(channel: Samples, piece: Samples, near: int) -> int | None:
    """Where a piece stands, as near as can be; None where it does not stand within FAR."""
    low = max(near - FAR, 0)
    window = channel[low : max(near + FAR + len(piece), 0)]
    if len(window) < len(piece):
        return None
    same = (np.lib.stride_tricks.sliding_window_view(window, len(piece)) == piece).all(axis=1)
    places = np.flatnonzero(same)
    return int(places[np.argmin(np.abs(places + low - near))]) + low if len(places) else None


def _samples(place: Path) -> "NDArray[Any] | None":
    path = place / "audio.wav"
    return soundfile.read(path, dtype="int16", always_2d=True)[0] if path.exists() else None


def by_call(found: Sequence[Made]) -> dict[str | None, Made]:
    """Recordings by Call-ID: OpenSIPS writes the call's as sipSessionID."""
    return {each[0].call_id: each for each in found}
