"""`spanrec calls`: what a store holds.

In: a store and what is asked of it. Out: tables and documents on stdout, copies of recordings. Never changes the store;
the commands that do stand in `cli_retention`.
"""

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from capture.errors import SpanrecError
from recorder.cli_replay import DAMAGED, parse_time

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from recorder.catalogue_query import Filter
    from recorder.console import TableColumn

calls = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look into a store: list, show, export, explain. Keep its recordings: hold, release, expire.",
)

Store = Annotated[
    Path,
    typer.Option(
        "-o", "--store", metavar="OUT", envvar="SPANREC_OUT", help="Directory of the recordings.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Number = Annotated[
    list[str] | None, typer.Option(metavar="NUMBER", help="From or to this number; * stands for any characters.")
]
Since = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Started at or after: 2026-03-01T09:15, UTC.")
]
Until = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Started before.")]
States = Annotated[
    list[str] | None, typer.Option("--state", metavar="STATE", help="In this state: completed, cancelled, refused...")
]
Shortest = Annotated[
    float | None, typer.Option("--min-duration", metavar="SECONDS", help="At least this many seconds.")
]
Longest = Annotated[float | None, typer.Option("--max-duration", metavar="SECONDS", help="At most this many seconds.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="Tagged so by the recording policy.")]
Held = Annotated[bool, typer.Option("--held", help="On legal hold.")]


@calls.command("list")
def list_command(
    out: Store,
    number: Number = None,
    since: Since = None,
    until: Until = None,
    state: States = None,
    shortest: Shortest = None,
    longest: Longest = None,
    tag: Tags = None,
    held: Held = False,
    as_json: AsJson = False,
) -> None:
    """List recordings, oldest first."""
    from recorder.catalogue_query import find
    from recorder.console import print_table
    from recorder.legal_hold import holds
    from recorder.reporting import write_documents

    wanted = filters(number, since, until, state, shortest, longest, tag, holds(out) if held else None)
    with opened(out) as catalogue:
        if as_json:
            write_documents(_documents(out, find(catalogue, wanted)), {})
        else:
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
            print_table(lambda: find(catalogue, wanted), _columns(out, catalogue), colour)


@calls.command("show")
def show_command(
    name: Annotated[str, typer.Argument(metavar="ID", help="Call-ID, id, or the beginning of an id.")],
    out: Store,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of a call."""
    from recorder.call_text import describe_call, describe_hold
    from recorder.document import parse
    from recorder.legal_hold import holds
    from recorder.reporting import write_documents

    with opened(out) as catalogue:
        rows = named_rows(catalogue, name)
    standing = holds(out)
    held = [standing[row["id"]] for row in rows if row["id"] in standing]
    if as_json:
        write_documents(_documents(out, rows), {"holds": [asdict(hold) for hold in held]} if held else {})
        return
    for row, path in zip(rows, _documents(out, rows), strict=True):
        for line in describe_call(parse(path.read_bytes()), row["directory"]):
            print(line)
        if row["id"] in standing:
            print(describe_hold(standing[row["id"]]))


@calls.command("export")
def export_command(
    out: Store,
    destination: Annotated[
        Path,
        typer.Option("-d", "--destination", metavar="PATH", help="New directory, .tar or .tar.gz.", show_default=False),
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Call-IDs or ids; all that the filters leave if none.")
    ] = None,
    number: Number = None,
    since: Since = None,
    until: Until = None,
    state: States = None,
    shortest: Shortest = None,
    longest: Longest = None,
    tag: Tags = None,
    held: Held = False,
) -> None:
    """Copy recordings with their SHA-256 digests, which `sha256sum -c SHA256SUMS` checks."""
    from recorder.catalogue_query import find
    from recorder.console import note
    from recorder.export import export
    from recorder.legal_hold import holds

    with opened(out) as catalogue:
        rows = (
            [row for name in names for row in named_rows(catalogue, name)]
            if names
            else find(
                catalogue,
                filters(number, since, until, state, shortest, longest, tag, holds(out) if held else None),
            )
        )
        report = export(out, (row["directory"] for row in rows), destination)
    for sentence in report.altered:
        note(sentence)
    print(f"{report.recordings} recordings, {report.files} files, {report.octets:,} octets")
    if report.altered:
        raise typer.Exit(DAMAGED)


@calls.command("explain")
def explain_command(
    name: Annotated[str, typer.Argument(metavar="ID", help="Call-ID, id, or the beginning of an id.")],
    out: Store,
    as_json: AsJson = False,
) -> None:
    """Tell why a call was recorded as it was, or why it was not."""
    from recorder.call_text import explain_call
    from recorder.catalogue_query import traced

    with opened(out) as catalogue:
        traces = traced(catalogue, name)
    if not traces:
        raise SpanrecError(f"{name}: no call with this Call-ID or id was seen in the captures of this store")
    if as_json:
        print(json.dumps({"traces": traces}, ensure_ascii=False, indent=2))
        return
    for trace in traces:
        for line in explain_call(trace):
            print(line)


@contextmanager
def opened(out: Path) -> Iterator["Connection"]:
    """The catalogue of a store, closed afterwards."""
    from recorder.catalogue import FILE, open_catalogue

    connection = open_catalogue(out / FILE)
    try:
        yield connection
    finally:
        connection.close()


def filters(
    numbers: Sequence[str] | None,
    since: str | None,
    until: str | None,
    states: Sequence[str] | None,
    shortest: float | None,
    longest: float | None,
    tags: Sequence[str] | None = None,
    held: Collection[str] | None = None,
) -> "Filter":
    """Criteria as given, checked."""
    from recorder.catalogue_query import Filter
    from recorder.document import State, format_time

    for state in states or ():
        if state not in get_args(State):
            raise typer.BadParameter(f"{state!r} is none of {', '.join(get_args(State))}", param_hint="--state")
    return Filter(
        numbers=tuple(numbers or ()),
        states=tuple(states or ()),
        since=None if since is None else format_time(parse_time(since, "--from")),
        until=None if until is None else format_time(parse_time(until, "--to")),
        shortest=shortest,
        longest=longest,
        tags=tuple(tags or ()),
        held=None if held is None else frozenset(held),
    )


def named_rows(catalogue: "Connection", name: str) -> Sequence[Mapping[Any, Any]]:
    """The recordings that `name` means. Raises SpanrecError where there is none."""
    from recorder.catalogue_query import named, traced

    rows = named(catalogue, name)
    if rows:
        return rows
    if traced(catalogue, name):
        raise SpanrecError(f"{name}: was seen, but not recorded; `spanrec calls explain` tells why")
    raise SpanrecError(f"{name}: no recording has this Call-ID or id")


def _columns(out: Path, catalogue: "Connection") -> "tuple[TableColumn, ...]":
    """Columns of the table; those of tags and holds only in a store that has any."""
    from recorder.catalogue_query import any_tags
    from recorder.console import CALLS, TableColumn
    from recorder.legal_hold import holds

    standing = holds(out)
    more = [TableColumn("tags", lambda row: row["tags"])] if any_tags(catalogue) else []
    if standing:
        more.append(TableColumn("held", lambda row: "held" if row["id"] in standing else ""))
    return (*CALLS[:-1], *more, CALLS[-1])


def _documents(out: Path, rows: Iterator[Any] | Sequence[Any]) -> Iterator[Path]:
    """The call.json of each row. Raises SpanrecError where it is gone: the store was changed by hand."""
    from recorder.store import recording_path

    for row in rows:
        path = recording_path(out, row["directory"]) / "call.json"
        if not path.is_file():
            raise SpanrecError(f"{path}: the catalogue has this recording, but it is gone; replay its capture again")
        yield path
