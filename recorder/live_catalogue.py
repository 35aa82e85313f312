"""The catalogue of a store that recordings are added to one by one, as calls end.

In: documents and traces of calls that are over. Out: rows, in transactions that a crash undoes whole. Others may read
the catalogue meanwhile. `recorder/catalogue.py` writes the catalogue of a replay, which is a function of its content.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from recorder.catalogue import create, telling
from recorder.catalogue_tables import Table, recording_row, recordings, trace_row, traces
from recorder.catalogue_upkeep import octets_on_disk, open_for_upkeep
from recorder.document import CallDocument
from recorder.model import Call, StreamReport


class LiveCatalogue:
    """Adds rows; nothing is there for others before `commit`. Not for several threads at once."""

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
        self._begun = False

    def add_recording(self, document: CallDocument, directory: str) -> None:
        """Index the recording in `directory`, relative to OUT."""
        row = recording_row(document, directory)
        row["octets"] = octets_on_disk(self._out, directory)
        self._put(recordings, row)

    def add_trace(self, call: Call, streams: Sequence[StreamReport], recorded: bool) -> None:
        """Keep why a call was recorded as it was, or not at all."""
        self.add_trace_row(trace_row(call, streams, recorded))

    def add_trace_row(self, row: dict[str, object]) -> None:
        """The same, as its row."""
        self._put(traces, row)

    def commit(self) -> None:
        """Make what was added last."""
        if self._begun:
            with telling(self.path, "write"):
                self.connection.execute("COMMIT")
            self._begun = False

    def undo(self) -> None:
        """Forget what was added since the last commit."""
        if self._begun:
            self._begun = False
            if self.connection.in_transaction:
                with telling(self.path, "write"):
                    self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of it; what was not committed is not there."""
        self.connection.close()

    def _put(self, table: Table, row: dict[str, object]) -> None:
        with telling(self.path, "write"):
            if not self._begun:
                self.connection.execute("BEGIN IMMEDIATE")
                self._begun = True
            columns, places = ", ".join(row), ", ".join(f":{name}" for name in row)
            self.connection.execute(f"INSERT OR REPLACE INTO {table.name} ({columns}) VALUES ({places})", row)
