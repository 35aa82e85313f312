"""Upkeep of a catalogue in place."""

import sqlite3

import pytest

from recorder import catalogue_upkeep
from recorder.catalogue import FILE, CatalogueError, open_catalogue
from recorder.catalogue_query import Filter, find
from recorder.catalogue_upkeep import (
    measure,
    newest_recording,
    octets_on_disk,
    open_for_upkeep,
    open_to_rehearse,
    remove_rows,
    remove_traces,
)
from recorder.document import format_time
from tests.calls import SECOND, START, answered_call, as_version_1, fill

NAMES = "SELECT name FROM sqlite_master"


@pytest.fixture
def out(tmp_path):
    fill(tmp_path, [answered_call(index) for index in range(5)], [answered_call(index) for index in range(5, 9)])
    return tmp_path


@pytest.fixture
def catalogue(out):
    connection = open_for_upkeep(out / FILE)
    yield connection
    connection.close()


def test_a_catalogue_of_the_first_version_becomes_one_of_today(out):
    as_version_1(out / FILE)
    upkept = open_for_upkeep(out / FILE)
    assert measure(out, upkept) == 5
    upkept.close()
    with open_catalogue(out / FILE) as catalogue:
        rows = list(find(catalogue, Filter()))
    assert [row["tags"] for row in rows] == [""] * 5
    assert all(row["octets"] > 0 for row in rows)
    with sqlite3.connect(out / FILE) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        upgraded = {
            row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        }
    connection.close()
    fill(out / "new", [answered_call()])
    with sqlite3.connect(out / "new" / FILE) as connection:
        assert upgraded == {
            row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        }
    connection.close()


def test_sizes_are_entered_once_and_piece_by_piece(out, catalogue, monkeypatch):
    monkeypatch.setattr(catalogue_upkeep, "BATCH", 2)
    assert measure(out, catalogue, 3) == 4
    assert measure(out, catalogue) == 1
    assert measure(out, catalogue) == 0
    for directory, octets in catalogue.execute("SELECT directory, octets FROM recordings"):
        assert octets == octets_on_disk(out, directory) > 0


def test_a_size_is_what_the_disk_gives_for_it(tmp_path):
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "a").write_bytes(b"x" * 10_000)
    with (tmp_path / "day" / "silence").open("wb") as file:
        file.truncate(1 << 30)
        file.write(b"x" * 4096)
    assert 10_000 <= octets_on_disk(tmp_path, "day") < 1 << 20
    assert octets_on_disk(tmp_path, "none") == octets_on_disk(tmp_path, "../x") == 0


def test_rows_go_with_their_traces_unless_they_stand_elsewhere(catalogue):
    rows = catalogue.execute("SELECT id, directory FROM recordings ORDER BY started").fetchall()
    remove_rows(catalogue, [rows[0], (rows[1][0], "elsewhere")])
    left = {row[0] for row in rows[1:]}
    assert {row[0] for row in catalogue.execute("SELECT id FROM recordings")} == left
    assert {row[0] for row in catalogue.execute("SELECT id FROM traces WHERE recorded = 1")} == left


def test_old_traces_of_calls_that_were_not_recorded_go(catalogue, monkeypatch):
    monkeypatch.setattr(catalogue_upkeep, "BATCH", 1)
    assert remove_traces(catalogue, format_time(START + 7 * SECOND), 1) == 1
    assert remove_traces(catalogue, format_time(START + 7 * SECOND), 10) == 1
    assert catalogue.execute("SELECT count(*) FROM traces").fetchone() == (7,)


def test_a_rehearsal_leaves_the_catalogue_as_it_is(out):
    for version in (2, 1):
        if version == 1:
            as_version_1(out / FILE)
        before = (out / FILE).read_bytes()
        rehearsed = open_to_rehearse(out / FILE)
        assert measure(out, rehearsed) == 5
        assert rehearsed.execute("SELECT min(octets) FROM recordings").fetchone()[0] > 0
        rehearsed.close()
        assert (out / FILE).read_bytes() == before


def test_the_newest_recording_is_known_by_its_start(out, tmp_path):
    assert newest_recording(out / FILE) == (START + 4 * SECOND) // 1000 * 1000
    assert newest_recording(tmp_path / "none") is None
    fill(tmp_path / "empty", [])
    assert newest_recording(tmp_path / "empty" / FILE) is None


def test_what_is_no_catalogue_is_said(tmp_path):
    for opened in (open_for_upkeep, open_to_rehearse):
        with pytest.raises(CatalogueError, match="there is no catalogue"):
            opened(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(CatalogueError, match="file is not a database"):
        open_for_upkeep(tmp_path / FILE)
