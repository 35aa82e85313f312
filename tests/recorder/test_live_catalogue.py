"""Rows of calls that are over reach the catalogue together, or not at all."""

import sqlite3
from contextlib import closing

import pytest

from recorder.catalogue import CatalogueError
from recorder.catalogue_tables import trace_row
from recorder.live_catalogue import LiveCatalogue
from tests.calls import answered_call, document, stream


@pytest.fixture
def catalogue(tmp_path):
    opened = LiveCatalogue(tmp_path, tmp_path / "catalogue.sqlite")
    yield opened
    opened.close()


def add(catalogue, *numbers):
    for number in numbers:
        call = answered_call(number)
        catalogue.add_recording(document(call), f"day/{number}", octets=4096 * number)
        catalogue.add_trace(trace_row(call, (stream(),), recorded=True))


def stands(catalogue):
    with closing(sqlite3.connect(catalogue.path)) as other:
        rows = other.execute("SELECT octets FROM recordings ORDER BY octets").fetchall()
        (traces,) = other.execute("SELECT count(*) FROM traces").fetchone()
    assert len(rows) == traces
    return [octets // 4096 for (octets,) in rows]


def test_rows_are_there_for_others_once_they_are_committed(catalogue):
    add(catalogue, 1, 2)
    assert stands(catalogue) == []
    catalogue.commit()
    assert stands(catalogue) == [1, 2]
    add(catalogue, 2, 3)
    catalogue.commit()
    catalogue.commit()
    assert stands(catalogue) == [1, 2, 3], "a call that is published again takes its own place"


def test_what_was_undone_is_never_written(catalogue):
    add(catalogue, 1)
    catalogue.undo()
    add(catalogue, 2)
    catalogue.commit()
    assert stands(catalogue) == [2]


def test_a_catalogue_that_cannot_be_written_has_none_of_the_rows_and_takes_them_the_next_time(catalogue):
    catalogue.connection.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(catalogue.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        add(catalogue, 1, 2)
        with pytest.raises(CatalogueError, match="cannot write"):
            catalogue.commit()
        other.execute("ROLLBACK")
    assert stands(catalogue) == []
    assert not catalogue.connection.in_transaction
    catalogue.commit()
    assert stands(catalogue) == [1, 2]


def test_a_recording_whose_size_nobody_knows_is_measured(catalogue, tmp_path):
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "audio.wav").write_bytes(b"x" * 5000)
    catalogue.add_recording(document(), "day")
    catalogue.add_trace(trace_row(answered_call(), (), recorded=True))
    catalogue.commit()
    assert stands(catalogue) == [2]
