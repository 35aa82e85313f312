"""Disjoint pieces of an octet string that arrive in any order; the first copy of an octet wins.

In: pieces with their offset. Out: the pieces in order of offset. Serves IP fragments and TCP segments alike. It never
merges or copies more than a trimmed piece, and leaves limits to its owner, who reads `size` and `cost`.
"""

from bisect import bisect_right
from typing import NamedTuple

PIECE_COST = 128
"""Octets that a piece costs beyond its data, so that many tiny pieces do not slip through a limit."""


class Piece(NamedTuple):
    """Octets at an offset, and when they were captured (ns)."""

    start: int
    data: bytes
    time: int

    @property
    def end(self) -> int:
        """Offset behind the last octet."""
        return self.start + len(self.data)


class Pieces:
    """A sorted set of pieces, no two of which overlap."""

    __slots__ = ("_pieces", "_starts", "size")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._pieces: list[Piece] = []
        self.size = 0
        """Octets held."""

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def cost(self) -> int:
        """What the pieces weigh in memory, about."""
        return self.size + PIECE_COST * len(self._starts)

    @property
    def end(self) -> int:
        """Offset behind the last octet held, 0 where there is none."""
        return self._pieces[-1].end if self._pieces else 0

    @property
    def oldest(self) -> int:
        """Capture time of the piece that waits longest; there must be one."""
        return min(piece.time for piece in self._pieces)

    def add(self, start: int, data: bytes, time: int) -> int:
        """Keep of `data` what is not here yet; tells how many octets that was."""
        added = 0
        end = start + len(data)
        index = bisect_right(self._starts, start)
        at = max(start, self._pieces[index - 1].end) if index else start
        while at < end:
            limit = self._starts[index] if index < len(self._starts) else end
            until = min(limit, end)
            if at < until:
                part = data if at == start and until == end else data[at - start : until - start]
                self._starts.insert(index, at)
                self._pieces.insert(index, Piece(at, part, time))
                added += len(part)
                index += 1
            if index >= len(self._starts):
                break
            at = max(until, self._pieces[index].end)
            index += 1
        self.size += added
        return added

    def first(self) -> Piece | None:
        """The piece with the lowest offset."""
        return self._pieces[0] if self._pieces else None

    def pop(self) -> Piece:
        """Take the piece with the lowest offset; there must be one."""
        piece = self._pieces.pop(0)
        del self._starts[0]
        self.size -= len(piece.data)
        return piece

    def joined(self) -> bytes:
        """All octets in order, holes closed up: whole only where `size` says so."""
        return b"".join(piece.data for piece in self._pieces)
