"""How long recordings are kept, as the settings say: `[retention]` and `[retention.tags.NAME]`.

In: the table of a settings file. Out: `Retention`, a value, and the terms that hold for a recording by its tags. Raises
SettingsError that names file and key. Deletes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from recorder.amounts import Age, Amount, parse_age, parse_amount
from recorder.settings import SettingsError
from recorder.tags import tag

FOREVER = "forever"
_TERMS = ("keep", "at_least", "max_size")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a table says of its recordings."""

    keep: Age | None = None
    """What is older is deleted."""
    forever: bool = False
    """Age alone deletes nothing."""
    at_least: Age | None = None
    """What is younger is not deleted, whatever the disk has left."""
    max_size: int | None = None
    """Octets that they may take together; the oldest are deleted first."""


class Cutoffs(NamedTuple):
    """What holds for recordings of certain tags at an instant."""

    expired: int
    """What started before, ns, is deleted for its age; 0 for none."""
    free: int
    """What started before may be deleted for want of room."""
    rule: str
    """By which setting the age deletes."""


@dataclass(frozen=True, slots=True)
class Retention:
    """All terms. Without any, nothing is deleted."""

    terms: Terms = Terms()
    min_free: Amount | None = None
    """Of the disk; the oldest are deleted until there is so much."""
    tags: Mapping[str, Terms] = field(default_factory=dict)

    def cutoffs(self, tags: Collection[str], now: int) -> Cutoffs:
        """What holds for recordings with `tags` at `now`, ns.

        Tags that say how long to keep replace the general `keep`; where several do, the longest counts. The longest of
        all `at_least` counts, over every `keep` too.
        """
        named = [(f"retention.tags.{name}", self.tags[name]) for name in sorted(tags) if name in self.tags]
        keeping = [each for each in named if each[1].keep or each[1].forever] or [("retention", self.terms)]
        expired, rule = min((_expired(terms, now), f"{where}.keep = {terms.keep}") for where, terms in keeping)
        least = [terms.at_least for _, terms in (*named, ("", self.terms)) if terms.at_least]
        free = min((age.before(now) for age in least), default=_END_OF_TIME)
        return Cutoffs(min(expired, free), free, rule)


def load_retention(settings: Mapping[str, Any], path: Path) -> Retention:
    """The retention of the settings read from `path`."""
    table = settings.get("retention", {})
    terms = _terms(path, "retention", table, (*_TERMS, "min_free", "tags"))
    named = table.get("tags", {})
    if not isinstance(named, dict):
        raise SettingsError(f"{path}: retention.tags: must hold tables: write [retention.tags.sales]")
    tags = {}
    for name, each in named.items():
        where = f"retention.tags.{name}"
        _parsed(path, where, "tag", tag, name)
        tags[name] = _terms(path, where, each, _TERMS)
    min_free = table.get("min_free")
    return Retention(
        terms, None if min_free is None else _parsed(path, "retention", "min_free", parse_amount, min_free), tags
    )


def _terms(path: Path, where: str, table: object, known: tuple[str, ...]) -> Terms:
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: {where}: must be a table")
    for key in table:
        if key not in known:
            raise SettingsError(f"{path}: {where}: unknown setting {key!r}; known are {', '.join(sorted(known))}")
    keep, at_least, max_size = (table.get(key) for key in _TERMS)
    forever = keep == FOREVER
    terms = Terms(
        keep=None if keep is None or forever else _parsed(path, where, "keep", parse_age, keep),
        forever=forever,
        at_least=None if at_least is None else _parsed(path, where, "at_least", parse_age, at_least),
        max_size=None if max_size is None else _parsed(path, where, "max_size", _octets, max_size),
    )
    if terms.keep and terms.at_least and terms.keep.before(_SOME_DAY) > terms.at_least.before(_SOME_DAY):
        raise SettingsError(f"{path}: {where}: at_least {terms.at_least} is longer than keep {terms.keep}")
    return terms


def _octets(value: object) -> int:
    return parse_amount(value, share=False).octets


def _parsed(path: Path, where: str, key: str, parse: Any, value: object) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise SettingsError(f"{path}: {where}: {key}: {error}") from error


def _expired(terms: Terms, now: int) -> int:
    return 0 if terms.keep is None else terms.keep.before(now)


_END_OF_TIME = (1 << 63) - 1
"""ns: before it lies all, even what was recorded before the clock was set back."""
_SOME_DAY = 4_000_000_000_000_000_000
"""An instant, ns, far enough from 1970 to compare any sensible ages at."""
