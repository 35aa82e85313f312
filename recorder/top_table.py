"""The table of calls in progress, as lines.

In: `LiveCall`s, a width. Out: a heading and a line for each call; calls sorted and filtered. Where a figure is of each
side, the caller's stands first: 0.0/1.2. Knows no terminal.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.cells import cell_len

from recorder.console import duration, printable
from recorder.document import format_time
from recorder.model import Side
from recorder.naming import user_part
from recorder.policy import Action
from recorder.status import LiveCall, LiveState, LiveStream
from recorder.top_text import Line, Piece, Tone, fitted

LOSS = (1.0, 5.0)
"""Percent from which on it is worth a look, and bad."""
MOS = (3.6, 3.1)
"""Up to which it is: ITU-T G.107, annex B: some users are dissatisfied, many are."""
JITTER = (30.0, 100.0)
"""ms."""
WIDEST = 40
"""Cells of a column where there is room for all."""

_STATE_TONES = {
    LiveState.ACTIVE: Tone.GOOD,
    LiveState.HELD: Tone.WARN,
    LiveState.ENDING: Tone.DIM,
    LiveState.MEDIA_ONLY: Tone.WARN,
}


class Sent(NamedTuple):
    """What one side of a call sends, all its streams together."""

    packets: int
    loss: float | None
    """Percent."""
    jitter_ms: float | None
    mos: float | None


def sent_by(call: LiveCall, side: Side) -> Sent | None:
    """None where nothing came from that side."""
    streams = [stream for stream in call.streams if stream.side is side]
    if not streams:
        return None
    packets, lost = sum(s.packets for s in streams), sum(s.lost for s in streams)
    return Sent(
        packets,
        100 * lost / (packets + lost) if packets + lost else None,
        max((s.jitter_ms for s in streams if s.jitter_ms is not None), default=None),
        min((s.mos for s in streams if s.mos is not None), default=None),
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table."""

    title: str
    width: int
    rank: int
    """The lower, the narrower the terminal that shows it."""
    cell: Callable[[LiveCall], Piece]
    key: Callable[[LiveCall], Any]
    """What to sort by, what needs a look first; None comes last."""
    right: bool = False
    grows: bool = False


class Place(NamedTuple):
    """A column that is shown, and how wide."""

    column: Column
    width: int


def number(uri: str | None) -> str:
    """User part of a URI."""
    return user_part(uri) or "?"


def both(call: LiveCall, told: Callable[[Sent], float | None], digits: int) -> str:
    """A figure of each side: caller/callee, - where there is none; empty where neither has one."""
    sides = [None if sent is None else told(sent) for sent in (sent_by(call, Side.CALLER), sent_by(call, Side.CALLEE))]
    if sides == [None, None]:
        return ""
    return "/".join("-" if value is None else _figure(value, digits) for value in sides)


def worst(call: LiveCall, told: Callable[[Sent], float | None], *, low: bool = False) -> float | None:
    """The figure of the worse side; with `low` the lower is."""
    sides = (sent_by(call, Side.CALLER), sent_by(call, Side.CALLEE))
    values = [value for sent in sides if sent is not None and (value := told(sent)) is not None]
    if not values:
        return None
    return min(values) if low else max(values)


def rate(call: LiveCall) -> float:
    """Packets a second of all its streams."""
    return sum(stream.packets_per_second for stream in call.streams)


def codecs(streams: Iterable[LiveStream]) -> str:
    """Names of the codecs, each once."""
    return ",".join(dict.fromkeys(stream.codec.partition("/")[0] for stream in streams))


def _figure(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value < 10 else f"{value:.0f}"


def _tone(value: float | None, limits: tuple[float, float]) -> Tone:
    """Of a figure between the limits, or beyond them, in whichever direction they go."""
    if value is None:
        return Tone.PLAIN
    sign = 1 if limits[0] < limits[1] else -1
    if sign * value >= sign * limits[1]:
        return Tone.BAD
    return Tone.WARN if sign * value >= sign * limits[0] else Tone.PLAIN


def _state(call: LiveCall) -> Piece:
    name = call.state.value.partition("-")[0]
    if call.warnings:
        return Piece(f"{name} !", Tone.WARN)
    return Piece(name, _STATE_TONES.get(call.state, Tone.PLAIN))


def _loss(call: LiveCall) -> Piece:
    return Piece(both(call, lambda sent: sent.loss, 1), _tone(worst(call, lambda sent: sent.loss), LOSS))


def _jitter(call: LiveCall) -> Piece:
    return Piece(both(call, lambda sent: sent.jitter_ms, 0), _tone(worst(call, lambda sent: sent.jitter_ms), JITTER))


def _mos(call: LiveCall) -> Piece:
    return Piece(both(call, lambda sent: sent.mos, 1), _tone(worst(call, lambda sent: sent.mos, low=True), MOS))


def _packets(sent: Sent) -> float:
    return sent.packets


def _down(value: float | None) -> float | None:
    return None if value is None else -value


STARTED = Column("started", 8, 8, lambda c: Piece(format_time(c.started)[11:19]), lambda c: c.started)
COLUMNS = (
    STARTED,
    Column("from", 14, 0, lambda c: Piece(number(c.caller)), lambda c: number(c.caller), grows=True),
    Column("to", 14, 1, lambda c: Piece(number(c.callee)), lambda c: number(c.callee), grows=True),
    Column("state", 9, 2, _state, lambda c: list(LiveState).index(c.state)),
    Column("time", 7, 3, lambda c: Piece(duration(c.duration)), lambda c: -c.duration, right=True),
    Column("codec", 6, 6, lambda c: Piece(codecs(c.streams)), lambda c: codecs(c.streams) or None),
    Column("packets", 13, 10, lambda c: Piece(both(c, _packets, 0)), lambda c: _down(worst(c, _packets)), right=True),
    Column("loss %", 7, 4, _loss, lambda c: _down(worst(c, lambda s: s.loss)), right=True),
    Column("jitter", 7, 9, _jitter, lambda c: _down(worst(c, lambda s: s.jitter_ms)), right=True),
    Column("MOS", 7, 5, _mos, lambda c: worst(c, lambda s: s.mos, low=True), right=True),
    Column("pkt/s", 6, 7, lambda c: Piece(f"{rate(c):.0f}" if c.streams else ""), lambda c: -rate(c), right=True),
    Column("policy", 8, 11, lambda c: Piece(c.action.value), lambda c: c.action.value),
    Column("warnings", 14, 12, lambda c: Piece(",".join(c.warnings), Tone.WARN), lambda c: -len(c.warnings)),
    Column("Call-ID", 24, 13, lambda c: Piece(c.call_id or "none"), lambda c: c.call_id, grows=True),
)  # fmt: skip
"""All columns, in their order."""


def places(width: int) -> tuple[Place, ...]:
    """The columns that `width` cells have room for, the most important ones; numbers get what is left."""
    chosen: list[Column] = []
    left = width + 1
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        if column.width + 1 > left:
            break
        chosen.append(column)
        left -= column.width + 1
    growing = [column for column in chosen if column.grows]
    extra = {column.title: min(left // len(growing), WIDEST - column.width) for column in growing}
    return tuple(Place(c, c.width + extra.get(c.title, 0)) for c in COLUMNS if c in chosen)


def fitting(calls: Sequence[LiveCall]) -> tuple[Place, ...]:
    """All columns, as wide as what is in them."""
    return tuple(
        Place(c, min(WIDEST, max([len(c.title), *(cell_len(printable(c.cell(call).text)) for call in calls)])))
        for c in COLUMNS
    )


def heading(shown: Sequence[Place], by: Column | None = None, *, descending: bool = False) -> Line:
    """Titles; the column that is sorted by has an arrow."""
    pieces = []
    for column, width in shown:
        arrow = ("▼" if descending else "▲") if column is by else ""
        title = column.title[: width - len(arrow)] + arrow
        pieces.append(Piece(fitted(title, width, right=column.right) + " ", Tone.STRONG))
    return tuple(pieces)


def line(call: LiveCall, shown: Sequence[Place]) -> Line:
    """A call. What is not recorded is dim."""
    dim = call.action is Action.SKIP
    pieces = []
    for column, width in shown:
        text, tone = column.cell(call)
        pieces.append(Piece(fitted(text, width, right=column.right) + " ", Tone.DIM if dim else tone))
    return tuple(pieces)


def arranged(
    calls: Iterable[LiveCall], wanted: str = "", by: Column = STARTED, *, descending: bool = False
) -> list[LiveCall]:
    """The calls that have `wanted` in one of their texts, in whichever case, sorted by a column."""
    wanted = wanted.casefold()
    found = [call for call in calls if not wanted or wanted in _texts(call)]
    # Equal ones stay in the order of their starts; what has no value is last, either way.
    found.sort(key=lambda call: (call.started, call.id))
    known = [call for call in found if by.key(call) is not None]
    unknown = [call for call in found if by.key(call) is None]
    known.sort(key=by.key, reverse=descending)
    return known + unknown


def _texts(call: LiveCall) -> str:
    ends = (end for stream in call.streams for end in (stream.source, stream.destination, stream.codec))
    names = (call.caller or "", call.callee or "", call.call_id or "", call.id)
    return "\n".join((*names, call.state, call.action, *call.warnings, *ends)).casefold()
