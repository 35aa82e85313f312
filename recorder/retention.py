"""Retention: which recordings are to be deleted, and why.

In: the terms, the catalogue, the ids on legal hold, the time and the room on the disk, all as arguments. Out: a `Plan`,
the oldest recordings first. Reads nothing but the catalogue, by its indexes, never the recordings, so that millions
take no longer than what is deleted. Never plans what is held or younger than `at_least`, and for want of room never
more than is wanted. Deletes nothing: that is `recorder.deletion`.
"""

import heapq
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from recorder.document import format_time
from recorder.retention_rules import Cutoffs, Retention

MOST = 10_000
"""Deletions in one plan: the rest is for the next."""


class Space(NamedTuple):
    """Octets on a disk."""

    free: int
    total: int


class Deletion(NamedTuple):
    """A recording that is to be deleted."""

    id: str
    call_id: str | None
    started: str
    directory: str
    octets: int
    rule: str
    """The setting by which."""
    reason: str
    """A sentence."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be deleted."""

    deletions: Sequence[Deletion] = ()
    shortfalls: Sequence[str] = ()
    """Sentences about terms that cannot be met, for what is left is held or protected."""

    @property
    def octets(self) -> int:
        """What it frees."""
        return sum(deletion.octets for deletion in self.deletions)


def plan(
    retention: Retention,
    catalogue: sqlite3.Connection,
    held: Collection[str],
    now: int,
    space: Space | None = None,
    most: int = MOST,
) -> Plan:
    """What the terms delete at `now`, ns. Sizes must have been measured (`catalogue_upkeep.measure`).

    `held` are ids on legal hold, which are not touched. Without `space`, free space is not looked at.
    """
    planner = _Planner(retention, catalogue, held, now, most)
    planner.by_age()
    for name, terms in sorted(retention.tags.items()):
        if terms.max_size is not None:
            planner.by_size(terms.max_size, f"retention.tags.{name}.max_size", name)
    if retention.terms.max_size is not None:
        planner.by_size(retention.terms.max_size, "retention.max_size")
    if retention.min_free is not None and space is not None:
        planner.by_space(retention.min_free.of(space.total), space)
    chosen = sorted(planner.chosen.values(), key=lambda deletion: (deletion.started, deletion.id))
    return Plan(tuple(chosen), tuple(planner.shortfalls))


class _Row(NamedTuple):
    """A recording in the order of deletion."""

    started: str
    id: str
    call_id: str | None
    directory: str
    octets: int
    tags: str


@dataclass(slots=True)
class _Planner:
    """Chooses deletions, term after term."""

    retention: Retention
    catalogue: sqlite3.Connection
    held: Collection[str]
    now: int
    most: int
    chosen: dict[str, Deletion] = field(default_factory=dict)
    """By id, in order."""
    shortfalls: list[str] = field(default_factory=list)
    _cutoffs: dict[str, Cutoffs] = field(default_factory=dict)
    """By tags as the catalogue writes them."""
    _freed: dict[str, int] = field(default_factory=dict)
    """Octets chosen so far, by tags."""

    def __post_init__(self) -> None:
        for tags in _combinations(self.catalogue):
            self._cutoffs[tags] = self.retention.cutoffs(tags.split(), self.now)
            self._freed[tags] = 0

    def by_age(self) -> None:
        """What was kept long enough."""
        for row in self._oldest({tags: cutoffs.expired for tags, cutoffs in self._cutoffs.items()}):
            rule = self._cutoffs[row.tags].rule
            self._choose(row, rule, "was kept as long as it was to be")
            if len(self.chosen) >= self.most:
                break

    def by_size(self, limit: int, rule: str, tag: str | None = None) -> None:
        """What is too much for the recordings of a tag, or for all."""
        chosen = [tags for tags in self._cutoffs if tag is None or tag in tags.split()]
        sizes: dict[str, int] = dict(self.catalogue.execute(_SIZES)) if chosen else {}
        excess = sum(sizes.get(tags, 0) - self._freed[tags] for tags in chosen) - limit
        reason = f"the recordings took more than {limit:,} octets"
        self._make_room(excess, chosen, f"{rule} = {limit}", reason)

    def by_space(self, wanted: int, space: Space) -> None:
        """What the disk needs free."""
        missing = wanted - space.free - sum(self._freed.values())
        reason = f"the disk had {space.free:,} octets free of {wanted:,}"
        self._make_room(missing, list(self._cutoffs), "retention.min_free", reason)

    def _make_room(self, missing: int, combinations: list[str], rule: str, reason: str) -> None:
        if missing <= 0:
            return
        for row in self._oldest({tags: self._cutoffs[tags].free for tags in combinations}):
            if len(self.chosen) >= self.most:
                return
            if row.octets > 0:
                self._choose(row, rule, reason)
                missing -= row.octets
                if missing <= 0:
                    return
        self.shortfalls.append(f"{rule}: {missing:,} octets too much stay; what is left is held or must be kept longer")

    def _choose(self, row: _Row, rule: str, reason: str) -> None:
        self.chosen[row.id] = Deletion(row.id, row.call_id, row.started, row.directory, row.octets, rule, reason)
        self._freed[row.tags] += row.octets

    def _oldest(self, before: dict[str, int]) -> Iterator[_Row]:
        """Recordings not chosen and not held, by start then id, that started before what holds for their tags."""
        cursors = (
            map(_Row._make, self.catalogue.execute(_OLDEST, (tags, format_time(cutoff))))
            for tags, cutoff in before.items()
            if cutoff > 0
        )
        return (row for row in heapq.merge(*cursors) if row.id not in self.chosen and row.id not in self.held)


def _combinations(catalogue: sqlite3.Connection) -> Iterator[str]:
    """Every combination of tags that occurs, one step into the index for each."""
    (tags,) = catalogue.execute("SELECT min(tags) FROM recordings").fetchone()
    while tags is not None:
        yield tags
        (tags,) = catalogue.execute("SELECT min(tags) FROM recordings WHERE tags > ?", (tags,)).fetchone()


_OLDEST = """
SELECT started, id, call_id, directory, coalesce(octets, 0), tags FROM recordings
WHERE tags = ? AND started < ? ORDER BY started, id
"""
_SIZES = "SELECT tags, coalesce(sum(octets), 0) FROM recordings GROUP BY tags"
