"""What a replay tells while it runs and when it is done.

In: the calls of the `Reporter` protocol. Out: a progress bar and messages on stderr, then the table of calls or one
JSON object on stdout. The calls wait in a temporary database on disk, so that their number does not show in memory.
"""

import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from recorder.catalogue_tables import recording_row, recordings
from recorder.console import Row, note, print_table
from recorder.document import CallDocument, format_time
from recorder.model import CaptureReport
from recorder.replay_types import ReplayCounts, ReplaySummary
from recorder.store import recording_path

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

TOGETHER = 500
"""Rows that are stored as one."""


class ConsoleReporter:
    """The `Reporter` of the command line. With `live`, shows a progress bar on stderr while it is entered."""

    def __init__(self, live: bool) -> None:
        self._live = live
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        # An unnamed database is a temporary file, and memory only as far as its cache goes.
        self._calls = sqlite3.connect("", isolation_level=None)
        self._calls.row_factory = sqlite3.Row
        self._calls.execute("PRAGMA journal_mode = OFF")
        columns = ", ".join(recordings.names)
        self._calls.execute(f"CREATE TABLE calls ({columns}, PRIMARY KEY (started, id)) WITHOUT ROWID")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "ConsoleReporter":
        if self._live:
            self._bar = _progress_bar()
            self._task = self._bar.add_task("replay", total=None, packets=0, calls=0)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def progress(self, packets: int, calls: int, bytes_done: int, bytes_total: int | None) -> None:
        """Move the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=bytes_done, total=bytes_total, packets=packets, calls=calls)

    def call_done(self, document: CallDocument, directory: str) -> None:
        """Keep a line of the table."""
        self._rows.append(recording_row(document, directory))
        if len(self._rows) >= TOGETHER:
            self._store()

    def _store(self) -> None:
        """Put the rows that wait into the database."""
        places = ", ".join(f":{name}" for name in recordings.names)
        self._calls.execute("BEGIN")
        self._calls.executemany(f"INSERT OR REPLACE INTO calls VALUES ({places})", self._rows)
        self._calls.execute("COMMIT")
        self._rows.clear()

    def warning(self, text: str) -> None:
        """Say a sentence, above the bar where there is one."""
        note(text)

    def rows(self) -> Iterator[Row]:
        """Rows of the calls of this run, in order of start, then id."""
        self._store()
        yield from self._calls.execute("SELECT * FROM calls ORDER BY started, id")

    def print_calls(self, summary: ReplaySummary, colour: bool) -> None:
        """The table of calls and a line of totals, on stdout."""
        if summary.counts.calls:
            print_table(self.rows, colour=colour)
            print()
        print(_totals(summary))

    def print_json(self, summary: ReplaySummary, out: Path) -> None:
        """One JSON object on stdout: the documents as they stand in the store, the captures, the counts."""
        directories = (row["directory"] for row in self.rows())
        tail = {"captures": [_capture(capture) for capture in summary.captures], "summary": asdict(summary.counts)}
        write_documents((recording_path(out, directory) / "call.json" for directory in directories), tail)


def write_documents(paths: Iterable[Path], tail: Mapping[str, Any]) -> None:
    """Write {"calls": [the files' contents], ...tail} to stdout, one document in memory at a time."""
    sys.stdout.write('{"calls": [')
    separator = "\n"
    for path in paths:
        sys.stdout.write(separator + path.read_text(encoding="utf-8").rstrip())
        separator = ",\n"
    sys.stdout.write("\n]")
    for key, value in tail.items():
        sys.stdout.write(f",\n{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, indent=2)}")
    sys.stdout.write("\n}\n")


def _totals(summary: ReplaySummary) -> str:
    """One line that says what was found and what was left out."""
    counts: ReplayCounts = summary.counts
    captures = len(summary.captures)
    found = f"{_many(counts.calls, 'call')}, {_many(counts.streams, 'stream')}"
    parts = [f"{found} in {_many(counts.packets, 'packet')} of {_many(captures, 'capture')}"]
    if counts.not_selected:
        parts.append(f"{_many(counts.not_selected, 'call')} not selected")
    if counts.recording_sessions:
        parts.append(f"{_many(counts.recording_sessions, 'recording session')} of others")
    if counts.rtp_unclaimed:
        parts.append(f"{_many(counts.rtp_unclaimed, 'RTP packet')} of no call")
    return "; ".join(parts)


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _capture(capture: CaptureReport) -> dict[str, Any]:
    """A capture as `--json` tells it."""
    told = asdict(capture)
    for key in ("started", "ended"):
        told[key] = None if told[key] is None else format_time(told[key])
    return told


def _progress_bar() -> "Progress":
    """Share of the octets read, packets, calls, packets a second."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        """Packets, calls and rate."""

        def render(self, task: Task) -> Text:
            packets, calls = task.fields["packets"], task.fields["calls"]
            rate = packets / task.elapsed if task.elapsed else 0
            return Text(f"{packets:,} packets  {calls:,} calls  {rate:,.0f} packets/s")

    columns = (BarColumn(20), TaskProgressColumn(), Rate(table_column=Column(no_wrap=True)), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
