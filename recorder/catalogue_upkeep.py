"""Upkeep of a catalogue in place, for retention: sizes are entered, rows of what is gone are removed.

In: the catalogue of a store that this process holds, and the store's files. Out: the same catalogue, by transactions
that a crash undoes whole. Catalogues of older versions become ones of today. Never deletes a file.
"""

import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from recorder.catalogue import CatalogueError, connect, readable, telling, version_of
from recorder.catalogue_tables import ADDED, ORDERED, VERSION
from recorder.store import StoreError, recording_path

BATCH = 500
"""Recordings measured, or rows removed, in one transaction."""
_BLOCK = 512
"""Octets of `st_blocks` (POSIX)."""
_CLUSTER = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def open_for_upkeep(path: Path) -> sqlite3.Connection:
    """The catalogue at `path`, to be changed in place. Raises CatalogueError."""
    require(path)
    version = version_of(path)
    with telling(path, "write"):
        connection = connect(path, "rw")
        connection.execute("PRAGMA busy_timeout = 30000")
        if version < VERSION:
            _bring_up(connection, version)
    return connection


def newest_recording(path: Path) -> int | None:
    """When the newest recording of the catalogue at `path` began, ns; None where there is none."""
    if not path.is_file():
        return None
    with telling(path, "read"), closing(readable(path)) as connection:
        (started,) = connection.execute("SELECT max(started) FROM recordings").fetchone()
    return None if started is None else (datetime.fromisoformat(started) - _EPOCH) // timedelta(microseconds=1) * 1000


def open_to_rehearse(path: Path) -> sqlite3.Connection:
    """The catalogue at `path` as retention needs it, in a copy that may be measured: the file stays as it is."""
    require(path)
    connection = readable(path)
    with telling(path, "read"):
        connection.execute(f"CREATE TEMP TABLE rehearsed AS SELECT {_KEPT}, call_id, directory FROM recordings")
        connection.execute("DROP VIEW IF EXISTS temp.recordings")
        connection.execute("ALTER TABLE temp.rehearsed RENAME TO recordings")
        connection.execute(f"CREATE INDEX temp.rehearsed_kept ON recordings ({_KEPT})")
        connection.execute("CREATE UNIQUE INDEX temp.rehearsed_id ON recordings (id)")
    return connection


def measure(out: Path, catalogue: sqlite3.Connection, most: int = sys.maxsize) -> int:
    """Enter the sizes of recordings that have none yet, of about `most` of them. Returns how many."""
    found = 0
    last = ("", "", "")
    while found < most and (rows := catalogue.execute(_UNMEASURED, (*last, BATCH)).fetchall()):
        last = rows[-1][:3]
        sizes = [(octets_on_disk(out, directory), identifier) for _, _, identifier, directory in rows]
        with transaction(catalogue):
            catalogue.executemany("UPDATE recordings SET octets = ? WHERE id = ? AND octets IS NULL", sizes)
        found += len(rows)
    return found


def octets_on_disk(out: Path, directory: str) -> int:
    """What the files of a recording take on the disk; 0 where it is gone."""
    total = 0
    try:
        with os.scandir(recording_path(out, directory)) as entries:
            for entry in entries:
                total += octets_of(entry)
    except (OSError, StoreError):
        return total
    return total


def octets_of(entry: os.DirEntry[str]) -> int:
    """What a file takes on the disk."""
    status = entry.stat(follow_symlinks=False)
    whole = -(-status.st_size // _CLUSTER) * _CLUSTER
    # Long silence takes no blocks; but what was just written may have none yet on some file systems.
    return min(whole, status.st_blocks * _BLOCK) if status.st_blocks else whole


@contextmanager
def transaction(catalogue: sqlite3.Connection) -> Iterator[None]:
    """All of what is done within, or nothing."""
    catalogue.execute("BEGIN")
    try:
        yield
        catalogue.execute("COMMIT")
    except BaseException:
        if catalogue.in_transaction:
            catalogue.execute("ROLLBACK")
        raise


def has_row(catalogue: sqlite3.Connection, identifier: str, directory: str) -> bool:
    """Whether the catalogue has the recording in this directory."""
    found = catalogue.execute("SELECT 1 FROM recordings WHERE id = ? AND directory = ?", (identifier, directory))
    return found.fetchone() is not None


def remove_rows(catalogue: sqlite3.Connection, rows: Iterable[tuple[str, str]]) -> None:
    """Remove recordings, by id and directory, with their traces. One that stands elsewhere by now stays."""
    chosen = list(rows)
    with transaction(catalogue):
        catalogue.executemany("DELETE FROM recordings WHERE id = ? AND directory = ?", chosen)
        catalogue.executemany(
            "DELETE FROM traces WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM recordings WHERE recordings.id = ?1)",
            [(identifier,) for identifier, _ in chosen],
        )


def remove_traces(catalogue: sqlite3.Connection, before: str, most: int) -> int:
    """Remove about `most` traces of calls that are not recorded and began before a time. Returns how many."""
    removed = 0
    while removed < most:
        with transaction(catalogue):
            count = catalogue.execute(_OLD_TRACES, (before, BATCH)).rowcount
        removed += count
        if count < BATCH:
            break
    return removed


def require(path: Path) -> None:
    """Raises CatalogueError where there is no catalogue at `path`."""
    if not path.is_file():
        raise CatalogueError(f"{path}: there is no catalogue; give the directory that recordings stand in")


def _bring_up(connection: sqlite3.Connection, version: int) -> None:
    """Make the tables those of today."""
    with transaction(connection):
        for table in ORDERED:
            for name, kind in table.columns:
                if ADDED.get((table.name, name), (1,))[0] > version:
                    connection.execute(f"ALTER TABLE {table.name} ADD COLUMN {name} {kind}")
            for index, of in table.indexes:
                connection.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {table.name} ({of})")
        connection.execute(f"PRAGMA user_version = {VERSION}")


_KEPT = "tags, started, id, octets"
_UNMEASURED = """
SELECT tags, started, id, directory FROM recordings
WHERE (tags, started, id) > (?, ?, ?) AND octets IS NULL ORDER BY tags, started, id LIMIT ?
"""
_OLD_TRACES = """
DELETE FROM traces WHERE id IN (SELECT id FROM traces WHERE recorded = 0 AND started < ? ORDER BY started LIMIT ?)
"""
