"""The obvious history of a forwarder: twin of its kernels, packet objects in lists, and a reader of the real tables."""

from collections import defaultdict, deque
from dataclasses import dataclass, field

from recorder.siprec import _forward_columns as columns
from recorder.siprec._forward_columns import Tables
from recorder.siprec._history_kernels import head_of, row_of

HEADER = 12


@dataclass
class Kept:
    """A packet."""

    entry: int
    chain: int
    """A flow, or -1 - source."""
    time: int
    octets: bytes
    number: int
    """Of its source's packets, from 1 on; 0 for a flow's."""
    at: int = 0
    """Where its room begins in the arena."""


@dataclass
class Chain:
    """What is left of a flow's or a source's packets, and what is not."""

    there: deque[Kept] = field(default_factory=deque)
    lost: int = 0
    lost_at: int = 0
    taken: int = 0

    def lose(self) -> None:
        self.lost_at = self.there.popleft().time
        self.lost += 1


class NaiveHistory:
    """A ring of `room` octets and `rows` packets, each of which its chain holds for `keep` ns."""

    def __init__(self, room: int, rows: int, keep: int) -> None:
        self.room, self.rows, self.keep_ns = room, rows, keep
        self.chains: dict[int, Chain] = defaultdict(Chain)
        self.all: deque[Kept] = deque()
        """Whose octets are there still, also where their chain holds them no more."""
        self._end = self._count = 0

    def keep(self, chain: int, octets: bytes, time: int) -> Kept:
        held = self.chains[chain]
        held.taken += chain < 0
        kept = Kept(self._count, chain, time, octets, held.taken)
        self._count += 1
        kept.at = self._make_room((HEADER + len(octets) + 7) // 8 * 8)
        while held.there and held.there[0].time < time - self.keep_ns:
            held.lose()
        held.there.append(kept)
        self.all.append(kept)
        return kept

    def _make_room(self, need: int) -> int:
        if self._end + need > self.room:
            while self.all and self.all[0].at >= self._end:
                self._give_up()
            self._end = 0
        begin, self._end = self._end, self._end + need
        while self.all and (len(self.all) == self.rows or begin <= self.all[0].at < self._end):
            self._give_up()
        return begin

    def _give_up(self) -> None:
        gone = self.all.popleft()
        there = self.chains[gone.chain].there
        if there and there[0] is gone:
            self.chains[gone.chain].lose()


def held_by(tables: Tables, chain: int) -> list[tuple[int, int, bytes, int]]:
    """(entry, time, octets, number) of what a chain of the tables holds."""
    found, entry = [], head_of(tables, chain)
    while entry >= 0:
        row = tables.entries[row_of(tables, entry)]
        at, size = int(row[columns.AT]), int(row[columns.SIZE])
        number = int(row[columns.ENTRY_NUMBER]) if chain < 0 else 0
        found.append((int(entry), int(row[columns.TIME]), tables.arena[at : at + size].tobytes(), number))
        entry = row[columns.NEXT_ENTRY]
    return found
