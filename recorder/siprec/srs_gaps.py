"""Time for which nothing of a call was recorded although an SRC wanted it: between two of its recording sessions.

In: the flows of a call that is over, with the recording session that carried each; periods. Out: further periods, and
the warning that names them. An SRC that is started again begins a new session while its old one, of which it knows
nothing, still stands here: only the media tell when it fell silent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capture.address import Endpoint
from recorder.document import format_time
from recorder.model import Call, RecordingSession, Side
from recorder.sightings import FlowSighting
from recorder.siprec.srs_holds import Period
from recorder.trace import warn

CODE = "interrupted"
HOLE = 400_000_000
"""ns without media before another session takes over, from which on something is missing."""
ENOUGH = 50
"""Packets of one side of a recording session after which some of the other one should have come."""
MOST_NAMED = 8


@dataclass(slots=True)
class _Heard:
    """What a recording session carried."""

    told: RecordingSession
    first: int
    last: int


def unheard(flows: Sequence[FlowSighting], carried_by: Mapping[Endpoint, RecordingSession]) -> list[Period]:
    """When no media came before a session took over from one that was not over. `carried_by`: by where media went."""
    heard: dict[int, _Heard] = {}
    for flow in flows:
        told = carried_by.get(flow.destination)
        if told is None or not flow.packets:
            continue
        known = heard.setdefault(id(told), _Heard(told, flow.first, flow.last))
        known.first, known.last = min(known.first, flow.first), max(known.last, flow.last)
    found: list[Period] = []
    before: _Heard | None = None
    for each in sorted(heard.values(), key=lambda each: each.first):
        if before is not None and each.first - before.last > HOLE:
            ended = before.told.ended
            if ended is None or ended > each.told.started:
                found.append((before.last, each.first))
        if before is None or each.last > before.last:
            before = each
    return found


def say_silent(
    call: Call,
    flows: Sequence[FlowSighting],
    carried_by: Mapping[Endpoint, RecordingSession],
    speakers: Mapping[Endpoint, Side],
) -> None:
    """Warn of a side that one of several recording sessions of a call was to carry and did not, while the other side
    was heard there; where there is one session only, `one-way` says it. `speakers`: whose audio was to come where."""
    packets: dict[Endpoint, int] = {}
    for flow in flows:
        packets[flow.destination] = packets.get(flow.destination, 0) + flow.packets
    sides: dict[int, tuple[RecordingSession, dict[Side, int]]] = {}
    for end, side in speakers.items():
        told = carried_by[end]
        _, heard = sides.setdefault(id(told), (told, {}))
        heard[side] = heard.get(side, 0) + packets.get(end, 0)
    for told, heard in sides.values() if len(call.recorded_by) > 1 else ():
        if max(heard.values()) >= ENOUGH:
            period = (told.started, told.ended or call.ended or call.last_seen)
            for side in (side for side, count in heard.items() if not count):
                say_missing(call, f"No audio of the {side} came", [period])


def say_missing(call: Call, what: str, periods: Sequence[Period]) -> None:
    """Warn that nothing was recorded in some periods, beside what is said of others already."""
    if not periods:
        return
    text = f"{what} {times(periods)}: what was said then is missing."
    for place, known in enumerate(call.warnings):
        if known.code == CODE:
            call.warnings[place] = known._replace(text=f"{known.text} {text}")
            return
    warn(call, CODE, text)


def times(periods: Sequence[Period]) -> str:
    """Periods in words; the first of many."""
    named = (f"from {format_time(begin)} to {format_time(end)}" for begin, end in periods[:MOST_NAMED])
    return "; ".join(named)
