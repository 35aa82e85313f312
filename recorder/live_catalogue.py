"""The catalogue of a store that recordings are added to one by one, as calls end.

In: documents and traces of calls that are over. Out: rows, in transactions that a crash undoes whole. Others may read
the catalogue meanwhile. `recorder/catalogue.py` writes the catalogue of a replay, which is a function of its content.
"""

import sqlite3
from pathlib import Path
from typing import Any

from recorder.catalogue import create, put_rows, telling
from recorder.catalogue_tables import Table, recording_row, recordings, traces
from recorder.catalogue_upkeep import octets_on_disk, open_for_upkeep, transaction
from recorder.document import CallDocument


class LiveCatalogue:
    """Adds rows, which wait in memory until `commit`. Not for several threads at once."""

    def __init__(self, out: Path, path: Path) -> None:
        """The catalogue at `path` of the store `out`, made where there is none. Raises CatalogueError."""
        self.path = path
        self._out = out
        if not path.exists():
            fresh = path.with_name(f".fresh-{path.name}")
            fresh.unlink(missing_ok=True)
            create(fresh).close()
            fresh.rename(path)
        self.connection: sqlite3.Connection = open_for_upkeep(path)
        self._rows: dict[Table, list[dict[str, Any]]] = {recordings: [], traces: []}

    def add_recording(self, document: CallDocument, directory: str, octets: int | None = None) -> None:
        """Index the recording in `directory`, relative to OUT. `octets`: its size on disk, None to measure it."""
        row = recording_row(document, directory)
        row["octets"] = octets_on_disk(self._out, directory) if octets is None else octets
        self._rows[recordings].append(row)

    def add_trace(self, row: dict[str, Any]) -> None:
        """Keep why a call was recorded as it was, or not at all. `row`: as `catalogue_tables.trace_row` makes it."""
        self._rows[traces].append(row)

    def commit(self) -> None:
        """Make what was added last: all of it, or where CatalogueError is raised, nothing."""
        added = [(table, rows) for table, rows in self._rows.items() if rows]
        if added:
            with telling(self.path, "write"), transaction(self.connection):
                for table, rows in added:
                    put_rows(self.connection, table, rows)
            self.undo()

    def undo(self) -> None:
        """Forget what was added and is not committed."""
        for rows in self._rows.values():
            rows.clear()

    def close(self) -> None:
        """Let go of it; what was not committed is not there."""
        self.connection.close()
