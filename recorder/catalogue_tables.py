"""The tables of the catalogue, and a document as a row of them.

In: call documents, decision traces. Out: rows, and the SQL that makes the tables. They use nothing that only SQLite
has; times are text in RFC 3339 with microseconds and Z, which sorts as time does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring as quoted
from typing import Any

from recorder.document import CallDocument, clean, format_time
from recorder.model import Call, StreamReport
from recorder.naming import user_part

VERSION = 2
"""Of the tables, in the catalogue's `user_version`. Every older one can be read."""


@dataclass(frozen=True)
class Table:
    """A table whose rows are told apart by their `id`."""

    name: str
    columns: tuple[tuple[str, str], ...]
    """(name, SQL type with its constraint)."""
    indexes: tuple[tuple[str, str], ...]
    """(name, columns)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(name for name, _ in self.columns)

    def definition(self) -> list[str]:
        """Statements that make the table and its indexes."""
        columns = ", \n\t".join(f"{name} {kind}" for name, kind in self.columns)
        table = f"CREATE TABLE {self.name} (\n\t{columns}, \n\tPRIMARY KEY (id)\n)"
        return [table, *(f"CREATE INDEX {index} ON {self.name} ({of})" for index, of in sorted(self.indexes))]


recordings = Table(
    "recordings",
    (
        ("id", "TEXT NOT NULL"),
        ("call_id", "TEXT"),
        ("group_id", "TEXT NOT NULL"),
        ("directory", "TEXT NOT NULL"),
        ("caller", "TEXT"),
        ("caller_name", "TEXT"),
        ("caller_number", "TEXT NOT NULL"),
        ("callee", "TEXT"),
        ("callee_name", "TEXT"),
        ("callee_number", "TEXT NOT NULL"),
        ("started", "TEXT NOT NULL"),
        ("answered", "TEXT"),
        ("ended", "TEXT NOT NULL"),
        ("duration_s", "FLOAT NOT NULL"),
        ("talk_s", "FLOAT"),
        ("state", "TEXT NOT NULL"),
        ("sip_status", "INTEGER"),
        ("audio", "TEXT"),
        ("streams", "INTEGER NOT NULL"),
        ("codecs", "TEXT NOT NULL"),
        ("packets", "INTEGER NOT NULL"),
        ("lost", "INTEGER NOT NULL"),
        ("mos", "FLOAT"),
        ("warnings", "TEXT NOT NULL"),
        ("tags", "TEXT NOT NULL DEFAULT ''"),
        ("octets", "INTEGER"),
    ),
    (
        ("recordings_started", "started, id"),
        ("recordings_call_id", "call_id"),
        ("recordings_group", "group_id"),
        ("recordings_caller", "caller_number"),
        ("recordings_callee", "callee_number"),
        ("recordings_kept", "tags, started, id, octets"),
    ),
)
"""One row a recording. `mos` is the worst stream's, `codecs`, `warnings` (their codes) and `tags` are separated by
spaces. `octets` is what it takes on disk, null until retention has measured it."""

traces = Table(
    "traces",
    (
        ("id", "TEXT NOT NULL"),
        ("call_id", "TEXT"),
        ("started", "TEXT NOT NULL"),
        ("recorded", "BOOLEAN NOT NULL"),
        ("trace", "TEXT NOT NULL"),
    ),
    (("traces_call_id", "call_id"), ("traces_unrecorded", "recorded, started")),
)
"""One row a Call-ID seen, recorded or not: why it was recorded as it was, as JSON."""

ORDERED = (recordings, traces)

ADDED: dict[tuple[str, str], tuple[int, str]] = {
    ("recordings", "tags"): (2, "''"),
    ("recordings", "octets"): (2, "NULL"),
}
"""(table, column) -> version that brought the column, and what stands for it in older catalogues."""


def selected(table: Table, version: int) -> str:
    """The columns of `table`, in order, as an SQL select list over a catalogue of `version`."""
    columns = []
    for name in table.names:
        since, instead = ADDED.get((table.name, name), (1, name))
        columns.append(name if version >= since else f"{instead} AS {name}")
    return ", ".join(columns)


def recording_row(document: CallDocument, directory: str) -> dict[str, Any]:
    """The row of a recording that stands in `directory`, relative to OUT."""
    streams, caller, callee = document.streams, document.caller, document.callee
    return {
        "id": document.id,
        "call_id": document.call_id,
        "group_id": document.group_id,
        "directory": directory,
        "caller": caller.uri,
        "caller_name": caller.name,
        "caller_number": user_part(caller.uri),
        "callee": callee.uri,
        "callee_name": callee.name,
        "callee_number": user_part(callee.uri),
        "started": document.started,
        "answered": document.answered,
        "ended": document.ended,
        "duration_s": document.duration_s,
        "talk_s": document.talk_s,
        "state": document.state,
        "sip_status": document.sip_status,
        "audio": document.audio.file if document.audio else None,
        "streams": len(streams),
        "codecs": " ".join(sorted({stream.codec for stream in streams})),
        "packets": sum([stream.packets for stream in streams]),
        "lost": sum([stream.lost for stream in streams]),
        "mos": min([stream.mos for stream in streams if stream.mos is not None], default=None),
        "warnings": " ".join(sorted({warning.code for warning in document.warnings})),
        "tags": " ".join(sorted(set(document.tags))),
        "octets": None,
    }


def trace_row(call: Call, streams: Sequence[StreamReport], recorded: bool) -> dict[str, Any]:
    """The row of what was decided about a call: events in order, then how each stream was claimed."""
    events = [
        f'{{"at":"{format_time(at)}","packet":{packet},"code":"{code}","text":{quoted(clean(text))}}}'
        for at, packet, code, text in call.trace
    ]
    claims = [_claim(stream) for stream in streams]
    return {
        "id": str(call.id),
        "call_id": None if call.call_id is None else clean(call.call_id),
        "started": format_time(call.started),
        "recorded": recorded,
        "trace": f'{{"events":[{",".join(events)}],"streams":[{",".join(claims)}]}}',
    }


def _claim(stream: StreamReport) -> str:
    """How a stream was claimed, as JSON."""
    participant = "null" if stream.side is None else f'"{stream.side.value}"'
    return (
        f'{{"media":{quoted(clean(stream.media))},"participant":{participant},"ssrc":"0x{stream.ssrc:08x}",'
        f'"source":"{stream.source}","destination":"{stream.destination}","codec":{quoted(clean(stream.codec))},'
        f'"packets":{stream.packets},"rule":{quoted(stream.rule)}}}'
    )
