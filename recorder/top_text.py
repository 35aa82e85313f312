"""Lines of `spanrec top`: text in pieces, each with a tone that says what its colour should.

In: texts, which may come from the wire. Out: `Line`s of exact width in cells. Nothing in them acts on a terminal.
"""

from enum import StrEnum
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from recorder.console import printable


class Tone(StrEnum):
    """What a piece says by its colour."""

    PLAIN = "plain"
    DIM = "dim"
    STRONG = "strong"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


class Piece(NamedTuple):
    """Text of one tone."""

    text: str
    tone: Tone = Tone.PLAIN


Line = tuple[Piece, ...]


def plain(line: Line) -> str:
    """The text alone."""
    return "".join(piece.text for piece in line).rstrip()


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """`text`, printable, in exactly `width` cells; … stands for what is cut off."""
    text = printable(text)
    cells = cell_len(text)
    if cells > width:
        return set_cell_size(set_cell_size(text, max(0, width - 1)).rstrip() + "…", width)
    space = " " * (width - cells)
    return space + text if right else text + space


def length(line: Line) -> int:
    """Cells of a line."""
    return sum(cell_len(printable(piece.text)) for piece in line)


def spread(left: Line, right: Line, width: int) -> Line:
    """Two texts at the ends of a line; the right one is left out where there is no room for both."""
    room = width - length(left) - length(right)
    return cropped((*left, Piece(" " * room), *right) if room > 1 else left, width)


def cropped(line: Line, width: int) -> Line:
    """The pieces of a line that `width` cells have room for."""
    pieces: list[Piece] = []
    for text, tone in line:
        text = printable(text)
        cells = cell_len(text)
        pieces.append(Piece(text if cells <= width else fitted(text, width), tone))
        width -= cells
        if width <= 0:
            break
    return tuple(pieces)
