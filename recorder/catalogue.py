"""The catalogue of a store: OUT/catalogue.sqlite, an index of its recordings and of every decision trace.

In: documents and traces of one run, in any order. Out: a database that is a function of what was put into the store
and of nothing else: the same recordings give the same octets, whatever the runs, the workers or the order. The old
database stays as it is until the new one takes its place by a rename. Rows wait on disk, not in memory.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from capture.errors import SpanrecError
from recorder.catalogue_tables import ORDERED, VERSION, Table, recording_row, recordings, selected, trace_row, traces
from recorder.document import CallDocument
from recorder.model import Call, StreamReport

if TYPE_CHECKING:
    from sqlalchemy import Connection

FILE = "catalogue.sqlite"
BATCH = 500
"""Rows of a table that wait in memory."""

_WRITTEN_BY = 96
"""Offset in the file's header of the version of the library that wrote it (SQLite file format, section 1.3)."""
_ANY_VERSION = (3_000_000).to_bytes(4, "big")


class CatalogueError(SpanrecError):
    """The catalogue cannot be read or written."""


class Catalogue:
    """Adds the recordings of a run to the catalogue at `path`; `scratch` is a directory on the same file system.

    Leaves `path` alone until `finish`. Raises CatalogueError at once where what stands there cannot be used, so that
    no long run ends so. Not for several threads at once.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._fresh = scratch / f"fresh-{FILE}"
        self._staged = scratch / f"staged-{FILE}"
        self._rows: dict[Table, list[dict[str, Any]]] = {table: [] for table in ORDERED}
        if path.exists():
            readable(path).close()
        self._connection: sqlite3.Connection | None = create(self._staged, indexed=False)

    def __enter__(self) -> "Catalogue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def add_recording(self, document: CallDocument, directory: str) -> None:
        """Index the recording in `directory`, relative to OUT. One of the same id is replaced."""
        self._add(recordings, recording_row(document, directory))

    def add_trace(self, call: Call, streams: Sequence[StreamReport], recorded: bool) -> None:
        """Keep why a call was recorded as it was, or not at all. The call must have its `id`."""
        self._add(traces, trace_row(call, streams, recorded))

    def finish(self) -> list[str]:
        """Put the rows in place. Returns the directories of recordings that this run has superseded elsewhere."""
        if self._connection is None:
            return []
        for table in ORDERED:
            self._flush(table)
        self.abandon()
        with telling(self.path, "write"):
            superseded = self._merge()
            _forget_version(self._fresh)
            self._fresh.replace(self.path)
            self._staged.unlink()
        return superseded

    def abandon(self) -> None:
        """Let go of the rows; nothing happens after `finish`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _add(self, table: Table, row: dict[str, Any]) -> None:
        rows = self._rows[table]
        rows.append(row)
        if len(rows) >= BATCH:
            self._flush(table)

    def _flush(self, table: Table) -> None:
        rows = self._rows[table]
        if rows and self._connection is not None:
            with telling(self.path, "write"):
                self._connection.execute("BEGIN")
                put_rows(self._connection, table, rows)
                self._connection.execute("COMMIT")
        rows.clear()

    def _merge(self) -> list[str]:
        """Write the new database: what was staged, and what stood there and has not been replaced, in order of time.

        The order in which rows come decides the pages of a B-tree, so it must not depend on who came first.
        """
        superseded: list[str] = []
        version = version_of(self.path) if self.path.exists() else VERSION
        with closing(create(self._fresh)) as connection:
            sql = connection.execute
            sql("ATTACH DATABASE ? AS staged", (str(self._staged),))
            if self.path.exists():
                sql("ATTACH DATABASE ? AS old", (str(self.path),))
                superseded = [row[0] for row in sql(_SUPERSEDED)]
            sql("BEGIN")
            for table in ORDERED:
                columns = ", ".join(table.names)
                source = f"SELECT {columns} FROM staged.{table.name}"
                if self.path.exists():
                    kept = f"WHERE id NOT IN (SELECT id FROM staged.{table.name})"
                    source = f"{source} UNION ALL SELECT {selected(table, version)} FROM old.{table.name} {kept}"
                sql(f"INSERT INTO main.{table.name} ({columns}) SELECT * FROM ({source}) ORDER BY started, id")
            sql("COMMIT")
        return superseded


_SUPERSEDED = """
SELECT old.recordings.directory FROM old.recordings JOIN staged.recordings USING (id)
WHERE old.recordings.directory NOT IN (SELECT directory FROM staged.recordings) ORDER BY 1
"""


def open_catalogue(path: Path) -> "Connection":
    """The catalogue at `path`, to be queried. Raises CatalogueError where there is none or it is not to be read."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    if not path.is_file():
        raise CatalogueError(f"{path}: there is no catalogue; give the directory that a replay has written to")
    readable(path).close()
    # SQLAlchemy takes long to import, which is for questions only: what writes goes without it.
    engine = create_engine("sqlite://", creator=lambda: readable(path), poolclass=NullPool)
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def readable(path: Path) -> sqlite3.Connection:
    """The catalogue at `path`, read-only, its version checked. One of an older version shows the tables of today."""
    version = version_of(path)
    with telling(path, "read"):
        connection = connect(path, "ro")
        for table in ORDERED if version < VERSION else ():
            # A temporary view comes before the table of its name, and leaves the file as it is.
            columns = selected(table, version)
            connection.execute(f"CREATE TEMP VIEW {table.name} AS SELECT {columns} FROM main.{table.name}")
    return connection


def version_of(path: Path) -> int:
    """Version of the tables of the catalogue at `path`. Raises CatalogueError where it is none that can be read."""
    with telling(path, "read"), closing(connect(path, "ro")) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not 1 <= version <= VERSION:
        age = "a newer spanrec wrote it; update" if version > VERSION else "it is not of spanrec; move it away"
        raise CatalogueError(f"{path}: cannot read this catalogue: {age}")
    return int(version)


def create(path: Path, indexed: bool = True) -> sqlite3.Connection:
    """A new database with empty tables; where not `indexed`, rows are found by their `id` only.

    A crash loses it, so it needs neither a journal nor flushing.
    """
    with telling(path, "write"):
        connection = connect(path, "rwc")
        for setting in ("page_size = 4096", "journal_mode = OFF", "synchronous = OFF", f"user_version = {VERSION}"):
            connection.execute(f"PRAGMA {setting}")
        connection.execute("BEGIN")
        for table in ORDERED:
            for statement in table.definition()[: None if indexed else 1]:
                connection.execute(statement)
        connection.execute("COMMIT")
    return connection


def put_rows(connection: sqlite3.Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows, which all have the same columns, in the place of those of the same `id`."""
    names, places = ", ".join(rows[0]), ", ".join("?" * len(rows[0]))
    connection.executemany(
        f"INSERT OR REPLACE INTO {table.name} ({names}) VALUES ({places})", [tuple(row.values()) for row in rows]
    )


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection on which transactions are said explicitly: the driver's own guesses would vary with its version."""
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _forget_version(path: Path) -> None:
    """Overwrite the library's version, which SQLite only keeps for the curious: it differs between machines."""
    with path.open("r+b") as file:
        file.seek(_WRITTEN_BY)
        file.write(_ANY_VERSION)


@contextmanager
def telling(path: Path, doing: str) -> Iterator[None]:
    """Turn errors of the database into a sentence that names the file."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise CatalogueError(f"{path}: cannot {doing} the catalogue: {error}") from error
