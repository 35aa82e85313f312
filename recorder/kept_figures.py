"""What the receiver has counted of all streams in progress, kept for the case of a crash in one file of columns.

In: the stream table of a running engine, every few seconds. Out: a small file that is always whole; and from it,
after a crash, reports of streams with the numbers of its time. A checkpoint says which rows a report is made of and
when their first packets came: a row that has been given to another stream since is known by that. Writing takes one
call for all streams, so that it can be done often.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.batch import Int64
from decoders import _stream_columns as cols
from recorder.model import StreamReport
from recorder.reports import Receivers, numbers_of

FILE = "figures"
MOST_ROWS = 1 << 20
"""A row beyond this is none: the file is damaged."""
_ROW = np.dtype([("row", np.int64), ("state", np.int64, (cols.STATE,)), ("figures", np.float64, (cols.STATISTICS,))])


class Part(NamedTuple):
    """A row of the stream table, as long as one stream has it."""

    row: int
    first_time: int
    """Capture time of the stream's first packet, ns."""


@dataclass(frozen=True, slots=True)
class KeptFigures:
    """A stream table as it was read back (`reports.Receivers`)."""

    state: Int64
    figures: NDArray[np.float64]

    def revise(self, report: StreamReport, parts: Sequence[Part]) -> StreamReport:
        """The report with the numbers of this table, where its rows are still the same streams' and tell more."""
        rows = [part.row for part in parts if self._first_time(part.row) == part.first_time]
        if not rows or len(rows) < len(parts):
            return report
        numbers = numbers_of(rows, self, report.codec.partition("/")[0], report.media)
        return replace(report, **numbers._asdict()) if numbers.packets > report.packets else report

    def _first_time(self, row: int) -> int | None:
        return int(self.state[row, cols.FIRST_TIME]) if 0 <= row < len(self.state) else None


def keep(directory: Path, table: Receivers) -> None:
    """Write the figures of all streams into `directory`, in the place of those before. Raises OSError."""
    rows = np.flatnonzero(table.state[:, cols.STARTED])
    packed = np.empty(len(rows), _ROW)
    packed["row"], packed["state"], packed["figures"] = rows, table.state[rows], table.figures[rows]
    path, fresh = directory / FILE, directory / f"{FILE}.new"
    with fresh.open("wb") as file:
        file.write(packed.data)
    os.replace(fresh, path)


def read(directory: Path) -> KeptFigures:
    """What was kept in `directory`: an empty table where there is nothing that can be read."""
    try:
        packed = np.fromfile(directory / FILE, _ROW)
    except OSError:
        packed = np.empty(0, _ROW)
    packed = packed[(packed["row"] >= 0) & (packed["row"] < MOST_ROWS)]
    height = int(packed["row"].max()) + 1 if len(packed) else 0
    state, figures = np.zeros((height, cols.STATE), np.int64), np.zeros((height, cols.STATISTICS), np.float64)
    state[packed["row"]], figures[packed["row"]] = packed["state"], packed["figures"]
    return KeptFigures(state, figures)
