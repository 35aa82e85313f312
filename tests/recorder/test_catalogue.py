"""The catalogue."""

import random
import sqlite3
from pathlib import Path

import pytest

from recorder.catalogue import FILE, Catalogue, CatalogueError, open_catalogue
from recorder.catalogue_query import Filter, find, named, traced
from tests.calls import answered_call, as_version_1, document, fill, stream


def put(out: Path, calls, directory: str = "day/{}") -> list[str]:
    scratch = out / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with Catalogue(out / FILE, scratch) as catalogue:
        for call in calls:
            catalogue.add_recording(document(call), directory.format(call.index))
            catalogue.add_trace(call, (stream(),), recorded=True)
        superseded = catalogue.finish()
    assert not list(scratch.iterdir())
    return superseded


def directories(out: Path, wanted: Filter) -> list[str]:
    with open_catalogue(out / FILE) as catalogue:
        return [row["directory"] for row in find(catalogue, wanted)]


def test_the_octets_do_not_depend_on_order_or_number_of_runs(tmp_path):
    calls = [answered_call(index) for index in range(1200)]
    put(tmp_path / "once", calls)
    random.Random(1).shuffle(calls)
    put(tmp_path / "shuffled", calls)
    put(tmp_path / "twice", calls[:700])
    put(tmp_path / "twice", calls[500:])
    put(tmp_path / "twice", calls[:10])
    expected = (tmp_path / "once" / FILE).read_bytes()
    assert (tmp_path / "shuffled" / FILE).read_bytes() == expected
    assert (tmp_path / "twice" / FILE).read_bytes() == expected


def test_sqlite_finds_nothing_wrong_with_it(tmp_path):
    put(tmp_path, [answered_call(index) for index in range(20)])
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*), sum(lost), min(mos) FROM recordings").fetchone() == (20, 400, 4.2)
    connection.close()


def test_the_same_call_elsewhere_is_superseded(tmp_path):
    call = answered_call()
    assert put(tmp_path, [call]) == []
    assert put(tmp_path, [call]) == []
    assert put(tmp_path, [call], "moved/{}") == ["day/0"]
    assert directories(tmp_path, Filter()) == ["moved/0"]


def test_an_abandoned_run_leaves_the_catalogue_as_it_was(tmp_path):
    put(tmp_path, [answered_call()])
    before = (tmp_path / FILE).read_bytes()
    with Catalogue(tmp_path / FILE, tmp_path / "scratch") as catalogue:
        catalogue.add_recording(document(answered_call(5)), "x")
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), [0, 1, 2, 3]),
        (Filter(numbers=("+4930111",)), [0, 2]),
        (Filter(numbers=("sip:BOB@elsewhere",)), [1]),
        (Filter(numbers=("22*", "bo?")), [0, 2, 3]),
        (Filter(numbers=("50%",)), [3]),
        (Filter(numbers=("5_%",)), []),
        (Filter(states=("completed",)), [0, 1, 2, 3]),
        (Filter(states=("refused", "failed")), []),
        (Filter(since="2026-03-01T09:15:03.123456Z"), [1, 2, 3]),
        (Filter(until="2026-03-01T09:15:03.123456Z"), [0]),
        (Filter(shortest=12.5, longest=12.5), [0, 1, 2, 3]),
        (Filter(shortest=12.6), []),
        (Filter(numbers=("222",), since="2026-03-01T09:15:03Z"), [2, 3]),
    ],
)
def test_filters_find_what_they_say(tmp_path, wanted, found):
    calls = [answered_call(0), answered_call(1, "Bob", "333"), answered_call(2), answered_call(3, "50%", "222")]
    put(tmp_path, calls)
    assert directories(tmp_path, wanted) == [f"day/{index}" for index in found]


def test_a_call_is_found_by_call_id_id_and_the_beginning_of_it(tmp_path):
    calls = [answered_call(index, call_id=f"{index}%_\\") for index in range(5)]
    put(tmp_path, calls)
    with open_catalogue(tmp_path / FILE) as catalogue:
        for name in ("3%_\\", str(calls[3].id), str(calls[3].id).upper(), str(calls[3].id)[:8]):
            assert [row["directory"] for row in named(catalogue, name)] == ["day/3"]
        for name in ("", "%", str(calls[3].id)[:3], "3%__"):
            assert not named(catalogue, name)


def test_traces_tell_of_calls_recorded_and_not(tmp_path):
    fill(tmp_path, [answered_call(0)], [answered_call(1)])
    with open_catalogue(tmp_path / FILE) as catalogue:
        (recorded,) = traced(catalogue, "call-0@example.com")
        (left_out,) = traced(catalogue, "call-1@example.com")
    assert recorded["directory"] is not None
    assert recorded["events"][0]["code"] == "invite-seen"
    assert recorded["streams"][0]["rule"] == "destination"
    assert (left_out["directory"], left_out["streams"]) == (None, [])


def test_text_from_the_wire_cannot_break_it(tmp_path):
    call = answered_call(call_id="a'; DROP TABLE recordings; --\x00\udce9")
    put(tmp_path, [call])
    with open_catalogue(tmp_path / FILE) as catalogue:
        assert named(catalogue, "a'; DROP TABLE recordings; --\x00\ufffd")


def test_what_is_no_catalogue_is_said_before_anything_is_done(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(CatalogueError, match=r"catalogue\.sqlite: cannot read the catalogue: file is not a database"):
        Catalogue(tmp_path / FILE, tmp_path)
    with pytest.raises(CatalogueError, match="there is no catalogue"):
        open_catalogue(tmp_path / "other.sqlite")


@pytest.mark.parametrize(("version", "says"), [(0, "not of spanrec"), (99, "newer spanrec")])
def test_a_database_of_another_kind_is_left_alone(tmp_path, version, says):
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(CatalogueError, match=says):
        Catalogue(tmp_path / FILE, tmp_path)


def test_a_catalogue_of_the_first_version_is_read_as_it_stands(tmp_path):
    fill(tmp_path, [answered_call(0), answered_call(1)])
    as_version_1(tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes()
    with open_catalogue(tmp_path / FILE) as catalogue:
        rows = list(find(catalogue, Filter(numbers=("222",))))
        assert [(row["caller_number"], row["tags"], row["octets"]) for row in rows] == [("+4930111", "", None)] * 2
        assert traced(catalogue, "call-1@example.com")[0]["state"] == "completed"
    assert (tmp_path / FILE).read_bytes() == before


def test_what_a_catalogue_of_the_first_version_had_goes_into_the_next(tmp_path):
    calls = [answered_call(index) for index in range(50)]
    put(tmp_path / "old", calls[:30])
    as_version_1(tmp_path / "old" / FILE)
    put(tmp_path / "old", calls[20:])
    put(tmp_path / "new", calls)
    assert (tmp_path / "old" / FILE).read_bytes() == (tmp_path / "new" / FILE).read_bytes()
