"""The SIP ladder of a call as text: a box for each host, an arrow for each message.

In: `LadderStep`s in the order in which they were seen, a width. Out: lines, in which nothing from the wire can act on a
terminal. Time and the time since the message before stand on the left; a repeated message has a broken arrow.

                         ┌─────────────┐     ┌─────────────┐
                         │ 192.0.2.10  │     │ 192.0.2.20  │
                         │    :5060    │     │    :5060    │
                         └──────┬──────┘     └──────┬──────┘
    09:15:02.000                │── INVITE (SDP) ──>│
    09:15:02.087   +0.087       │<── 180 Ringing ───│
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, get_character_cell_size, set_cell_size

from recorder.console import printable
from recorder.document import format_time
from recorder.status import LadderStep

LEFT = 23
"""Cells of the two times and a gap."""
NARROWEST = 19
"""Cells from host to host: a box with an IPv4 address."""
_SDP = " (SDP)"


@dataclass(frozen=True, slots=True)
class Ladder:
    """A drawing. Where there are many hosts it is wider than was asked for."""

    heading: tuple[str, ...]
    """The boxes."""
    rows: tuple[str, ...]
    """A line for each step."""
    width: int


def draw(steps: Sequence[LadderStep], width: int) -> Ladder:
    """Draw a ladder that fills `width` cells."""
    hosts = list(dict.fromkeys(host for step in steps for host in (step.source, step.destination)))
    if not hosts:
        return Ladder((), (), width)
    apart = max(NARROWEST, (width - LEFT) // len(hosts))
    lines = {host: LEFT + apart * index + apart // 2 for index, host in enumerate(hosts)}
    total = LEFT + apart * len(hosts)
    rows = []
    before: int | None = None
    for step in steps:
        rows.append(_row(step, before, lines, total))
        before = step.time
    return Ladder(_boxes(lines, apart, total), tuple(rows), total)


def _boxes(lines: dict[str, int], apart: int, total: int) -> tuple[str, ...]:
    heading = [_Cells(total) for _ in range(4)]
    for host, middle in lines.items():
        address, _, port = printable(host).rpartition(":")
        texts = (_shortened(address, apart - 5), f":{port}"[: apart - 5])
        inner = max(cell_len(text) for text in texts) + 2
        left = middle - (inner + 2) // 2
        heading[0].put(left, f"┌{'─' * inner}┐")
        for line, text in zip(heading[1:3], texts, strict=True):
            before = (inner - cell_len(text)) // 2
            line.put(left, f"│{' ' * before}{text}{' ' * (inner - before - cell_len(text))}│")
        heading[3].put(left, f"└{'─' * inner}┘")
        heading[3].put(middle, "┬")
    return tuple(str(line) for line in heading)


def _row(step: LadderStep, before: int | None, lines: dict[str, int], total: int) -> str:
    row = _Cells(total)
    row.put(0, format_time(step.time)[11:23])
    if before is not None:
        row.put(13, f"{_delta(step.time - before):>8}")
    for middle in lines.values():
        row.put(middle, "│")
    begin, end = lines[step.source], lines[step.destination]
    shaft = "╌" if step.retransmission else "─"
    if begin == end:
        row.put(begin + 1, f"<{shaft} {_label(step, total - begin - 5)}")
        return str(row)
    first, last = min(begin, end) + 1, max(begin, end) - 1
    for cell in range(first, last + 1):
        row.put(cell, "┼" if cell in lines.values() else shaft)
    row.put(*((last, ">") if begin < end else (first, "<")))
    label = f" {_label(step, last - first - 4)} "
    row.put(first + (last - first + 1 - cell_len(label)) // 2, label)
    return str(row)


def _label(step: LadderStep, room: int) -> str:
    """Method or status, and that there is SDP, in `room` cells at most."""
    mark = _SDP if step.has_sdp else ""
    text = printable(step.line)
    if cell_len(text) + len(mark) > room:
        text = set_cell_size(text, max(0, room - len(mark) - 1)).rstrip() + "…"
    return text + mark


def _delta(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else "+"
    seconds, milliseconds = divmod(abs(nanoseconds) // 1_000_000, 1000)
    if seconds < 1000:
        return f"{sign}{seconds}.{milliseconds:03}"
    minutes, second = divmod(seconds, 60)
    return f"{sign}{minutes // 60}:{minutes % 60:02}:{second:02}"


def _shortened(address: str, room: int) -> str:
    """The beginning and end of an address that is too long."""
    if cell_len(address) <= room:
        return address
    return f"{address[: room // 2]}…{address[len(address) - (room - 1 - room // 2) :]}"


class _Cells:
    """A line of a terminal that is written at any place."""

    def __init__(self, width: int) -> None:
        self._cells = [" "] * width

    def put(self, place: int, text: str) -> None:
        """Write `text` from cell `place` on; what does not fit is cut off."""
        for character in text:
            size = get_character_cell_size(character)
            if place + size > len(self._cells):
                return
            if size == 0:
                self._cells[place - 1] += character
                continue
            self._cells[place : place + size] = [character, *[""] * (size - 1)]
            place += size

    def __str__(self) -> str:
        return "".join(self._cells).rstrip()
