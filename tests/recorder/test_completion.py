"""What a kill leaves between documents and catalogue is published by the next run."""

import json
import sqlite3
from contextlib import closing

import pytest

from recorder.catalogue_tables import trace_row
from recorder.catalogue_upkeep import octets_on_disk
from recorder.completion import clear_away, complete, mark_whole, unmark
from recorder.live_catalogue import LiveCatalogue
from recorder.store import RecordingStore
from tests.calls import answered_call, document, stream

BESIDE = ("journal", "siprec.journal", "checkpoint", "checkpoint.new", "audio.joined")


@pytest.fixture
def working(tmp_path):
    place = tmp_path / "out" / ".live"
    place.mkdir(parents=True)
    return place


def a_recording(working, call):
    """Its directory as it is when its documents are whole."""
    work = working / call.id.hex
    work.mkdir()
    (work / "call.json").write_bytes(document(call).to_bytes())
    (work / "audio.wav").write_bytes(b"x" * 10_000)
    for name in BESIDE:
        (work / name).write_bytes(b"beside it")
    for name in ("tracks", "tracks.new"):
        (work / name).mkdir()
        (work / name / "track-1.pcm").write_bytes(b"a part of the audio")
    return work


def test_what_is_not_of_the_recording_goes_and_the_rest_is_measured(working):
    work = a_recording(working, answered_call())
    octets = clear_away(work)
    assert sorted(path.name for path in work.iterdir()) == ["audio.wav", "call.json"]
    assert octets == octets_on_disk(working, work.name) > 10_000
    assert clear_away(work) == octets, "nothing is left to remove"


@pytest.mark.parametrize("renamed", [False, True])
def test_what_is_marked_is_published_by_the_next_run_and_stands_in_the_catalogue(working, renamed):
    call, out = answered_call(), working.parent
    work = a_recording(working, call)
    mark_whole(work, document(call).to_bytes(), trace_row(call, (stream(),), recorded=True))
    assert sorted(path.name for path in working.iterdir()) == [call.id.hex, f"{call.id.hex}.whole"]
    with RecordingStore(out) as store, closing(LiveCatalogue(out, out / "catalogue.sqlite")) as catalogue:
        if renamed:
            clear_away(work)
            store.publish(document(call), work)
        (directory,) = complete(working, store, catalogue)
    assert sorted(path.name for path in (out / directory).iterdir()) == ["audio.wav", "call.json"]
    assert not list(working.iterdir())
    with closing(sqlite3.connect(out / "catalogue.sqlite")) as catalogue:
        assert catalogue.execute("SELECT id, caller_name, directory FROM recordings").fetchall() == [
            (str(call.id), "Zoë", directory)
        ]
        ((trace,),) = catalogue.execute("SELECT trace FROM traces").fetchall()
    assert json.loads(trace)["events"][0]["code"] == "invite-seen"


def test_a_mark_in_the_escapes_of_older_releases_is_read_too(working):
    call, out = answered_call(), working.parent
    work = a_recording(working, call)
    row = trace_row(call, (stream(),), recorded=True)
    old = json.dumps({"document": document(call).to_bytes().decode(), "trace": row})
    assert "\\u00eb" in old
    work.with_suffix(".whole").write_text(old)
    with RecordingStore(out) as store, closing(LiveCatalogue(out, out / "catalogue.sqlite")) as catalogue:
        assert len(complete(working, store, catalogue)) == 1


def test_a_mark_goes_once(working):
    work = a_recording(working, answered_call())
    mark_whole(work, b"{}", {})
    unmark(work)
    unmark(work)
    assert [path.name for path in working.iterdir()] == [work.name]
