"""Questions to a catalogue.

In: an open catalogue and what is asked. Out: rows, in order of time. Never writes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnClause,
    ColumnElement,
    Connection,
    Float,
    Integer,
    RowMapping,
    Select,
    TableClause,
    Text,
    column,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    table,
)
from sqlalchemy.types import TypeEngine

from recorder import catalogue_tables as tables
from recorder.naming import user_part

_TYPES: dict[str, type[TypeEngine[Any]]] = {"TEXT": Text, "FLOAT": Float, "INTEGER": Integer, "BOOLEAN": Boolean}


def _queried(described: tables.Table) -> TableClause:
    columns: list[ColumnClause[Any]] = [
        column(name, _TYPES[kind.partition(" ")[0]]()) for name, kind in described.columns
    ]
    return table(described.name, *columns)


recordings, traces = _queried(tables.recordings), _queried(tables.traces)
_held = table("held", column("id", Text()))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recordings. All criteria given must hold; None and () hold for all."""

    numbers: tuple[str, ...] = ()
    """Any is the caller's or the callee's number, `*` standing for any run of characters."""
    states: tuple[str, ...] = ()
    since: str | None = None
    """Started at or after, as documents write times."""
    until: str | None = None
    """Started before."""
    shortest: float | None = None
    """Seconds of duration."""
    longest: float | None = None
    tags: tuple[str, ...] = ()
    """Has any of these."""
    held: frozenset[str] | None = None
    """Is one of these, by id: those on legal hold."""


def find(connection: Connection, wanted: Filter) -> Iterator[RowMapping]:
    """Rows of `recordings`, by start, then id. Bounded memory."""
    if wanted.held is not None:
        _enter_held(connection, wanted.held)
    return _stream(connection, select(recordings).where(*_conditions(wanted)).order_by("started", "id"))


def named(connection: Connection, name: str) -> list[RowMapping]:
    """The recordings that `name` means: a Call-ID, an id, or the beginning of one (at least four characters)."""
    return list(
        connection.execute(_by_name(select(recordings), recordings.c.id, recordings.c.call_id, name)).mappings()
    )


def traced(connection: Connection, name: str) -> list[dict[str, Any]]:
    """The decision traces that `name` means, as in `named`, each with `directory` (None where nothing is recorded)."""
    query = select(traces, recordings.c.directory, recordings.c.state).select_from(
        traces.outerjoin(recordings, traces.c.id == recordings.c.id)
    )
    rows = connection.execute(_by_name(query, traces.c.id, traces.c.call_id, name)).mappings()
    return [{**row, **json.loads(row["trace"]), "trace": None} for row in rows]


def _by_name(query: Select[Any], identifier: Any, call_id: Any, name: str) -> Select[Any]:
    meant = [call_id == name, identifier == name.lower()]
    if len(name) >= 4 and all(character in "0123456789abcdef-" for character in name.lower()):
        meant.append(identifier.startswith(name.lower(), autoescape=True))
    return query.where(or_(*meant)).order_by(identifier.table.c.started, identifier)


def _conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    if wanted.numbers:
        yield or_(*(_number(number) for number in wanted.numbers))
    if wanted.states:
        yield recordings.c.state.in_(wanted.states)
    if wanted.since is not None:
        yield recordings.c.started >= wanted.since
    if wanted.until is not None:
        yield recordings.c.started < wanted.until
    if wanted.shortest is not None:
        yield recordings.c.duration_s >= wanted.shortest
    if wanted.longest is not None:
        yield recordings.c.duration_s <= wanted.longest
    if wanted.tags:
        spaced = literal(" ") + recordings.c.tags + literal(" ")
        yield or_(*(spaced.contains(f" {tag} ", autoescape=True) for tag in wanted.tags))
    if wanted.held is not None:
        yield recordings.c.id.in_(select(_held.c.id))


def any_tags(connection: Connection) -> bool:
    """Whether any recording has a tag."""
    return connection.execute(select(recordings.c.id).where(recordings.c.tags > "").limit(1)).first() is not None


def _enter_held(connection: Connection, identifiers: frozenset[str]) -> None:
    """Put ids into a table of this connection alone: they may be more than a statement can name."""
    connection.exec_driver_sql("CREATE TEMPORARY TABLE IF NOT EXISTS held (id TEXT PRIMARY KEY)")
    connection.execute(delete(_held))
    if identifiers:
        connection.execute(insert(_held), [{"id": identifier} for identifier in sorted(identifiers)])


def _number(number: str) -> ColumnElement[bool]:
    """A number, a URI, or a pattern with `*`; letters in either case."""
    wanted = (user_part(number) if ":" in number or "@" in number else number).lower()
    pattern = "".join({"*": "%", "%": "\\%", "_": "\\_", "\\": "\\\\"}.get(c, c) for c in wanted)
    columns = (recordings.c.caller_number, recordings.c.callee_number)
    return or_(*(func.lower(column).like(pattern, escape="\\") for column in columns))


def _stream(connection: Connection, query: Select[Any]) -> Iterator[RowMapping]:
    with connection.execution_options(yield_per=500).execute(query) as result:
        yield from result.mappings()
