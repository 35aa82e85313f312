"""What a person sees: tables, messages, progress.

In: rows and sentences, whose text may come from the wire. Out: lines on stdout, messages on stderr. No control
character of a name reaches the terminal. What goes to stdout depends on the calls alone, not on time zone or speed.
"""

import sys
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

LONGEST_CELL = 40
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Unicode categories of what would act on the terminal, or show nothing."""

_STATE_COLOUR = {"completed": "32", "refused": "33", "cancelled": "33", "failed": "31", "incomplete": "35"}


def printable(text: str) -> str:
    """`text` with everything that is not seen as itself (controls, bidirectional marks...) written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _UNSEEN else c for c in text)


def note(text: str) -> None:
    """A sentence for the user, on stderr."""
    print(f"spanrec: {printable(text)}", file=sys.stderr, flush=True)


def duration(seconds: float | None) -> str:
    """h:mm:ss or m:ss, rounded down; empty for None."""
    if seconds is None:
        return ""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


class Row(Protocol):
    """A row of the catalogue."""

    def __getitem__(self, column: str, /) -> Any:
        """The value of a column."""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of the table of calls."""

    title: str
    cell: Callable[[Row], str]
    """Text of a row of the catalogue."""
    right: bool = False


def _loss(row: Row) -> str:
    expected = row["packets"] + row["lost"]
    return f"{100 * row['lost'] / expected:.1f}%" if expected else ""


def _streams(row: Row) -> str:
    return f"{row['streams']} {row['codecs'].replace(' ', ',')}" if row["streams"] else "0"


CALLS: tuple[TableColumn, ...] = (
    TableColumn("started (UTC)", lambda row: row["started"][:19].replace("T", " ")),
    TableColumn("from", lambda row: row["caller_number"] or "?"),
    TableColumn("to", lambda row: row["callee_number"] or "?"),
    TableColumn("state", lambda row: row["state"]),
    TableColumn("duration", lambda row: duration(row["duration_s"]), right=True),
    TableColumn("streams", _streams),
    TableColumn("loss", _loss, right=True),
    TableColumn("MOS", lambda row: "" if row["mos"] is None else f"{row['mos']:.2f}", right=True),
    TableColumn("warnings", lambda row: row["warnings"].replace(" ", ",")),
    TableColumn("directory", lambda row: row["directory"]),
)
"""The table of calls: columns over rows of the catalogue."""


def print_table(
    rows: Callable[[], Iterable[Row]], columns: tuple[TableColumn, ...] = CALLS, colour: bool = False
) -> None:
    """Print a table to stdout. `rows` is asked twice, first for the widths, so that no table is too long for memory."""
    widths = [_width(column.title) for column in columns]
    for row in rows():
        widths = [max(width, _width(_cell(c, row))) for width, c in zip(widths, columns, strict=True)]
    heading = _line([column.title for column in columns], widths, columns)
    print(f"\033[1m{heading}\033[0m" if colour else heading)
    for row in rows():
        line = _line([_cell(column, row) for column in columns], widths, columns)
        shade = _STATE_COLOUR.get(row["state"], "") if colour else ""
        print(f"\033[{shade}m{line}\033[0m" if shade else line)


def _cell(column: TableColumn, row: Row) -> str:
    text = printable(column.cell(row))
    # A directory is there to be copied, whole.
    return text if len(text) <= LONGEST_CELL or column.title == "directory" else f"{text[: LONGEST_CELL - 1]}…"


def _line(cells: list[str], widths: list[int], columns: tuple[TableColumn, ...]) -> str:
    return "  ".join(_padded(*cell) for cell in zip(cells, widths, columns, strict=True)).rstrip()


def _padded(text: str, width: int, column: TableColumn) -> str:
    space = " " * (width - _width(text))
    return space + text if column.right else text + space


def _width(text: str) -> int:
    """Columns on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
