"""The directory in which recordings stand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recorder.identifiers import call_uuid
from recorder.store import PARTIAL, RecordingStore, StoreError, recording_path
from tests.calls import START, answered_call, document


def put(store: RecordingStore, call, extra: str = "") -> str:
    told = document(call)
    work = store.begin(call.id)
    (work / "call.json").write_bytes(told.to_bytes())
    if extra:
        (work / extra).write_text(extra)
    return store.publish(told)


def files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_a_recording_appears_whole_and_nothing_else_stays(tmp_path):
    out = tmp_path / "new" / "out"
    call = answered_call()
    with RecordingStore(out) as store:
        work = store.begin(call.id)
        assert work == store.begin(call.id)
        assert not list(out.glob("2*"))
        directory = put(store, call)
    assert directory == f"2026/03/01/091502_+4930111_222_{call.id.hex[:8]}"
    assert files(out) == [f"{directory}/call.json"]


def test_the_same_call_again_replaces_its_recording(tmp_path):
    call = answered_call()
    for extra in ("old.txt", ""):
        with RecordingStore(tmp_path) as store:
            directory = put(store, call, extra)
    assert files(tmp_path) == [f"{directory}/call.json"]


def test_two_calls_with_one_name_both_stand(tmp_path, monkeypatch):
    first, second = answered_call(), answered_call()
    second.id = first.id.__class__(int=first.id.int ^ 1)
    for _ in range(2):
        with RecordingStore(tmp_path) as store:
            short, long = put(store, first), put(store, second)
        assert long == short.replace(short[-8:], second.id.hex)
        assert len(files(tmp_path)) == 2


def test_what_is_not_a_recording_of_the_call_is_not_replaced(tmp_path):
    call = answered_call()
    with RecordingStore(tmp_path) as store:
        directory = put(store, call)
    for name in (directory, directory.replace(call.id.hex[:8], call.id.hex)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "call.json").write_text("mine")
    with RecordingStore(tmp_path) as store, pytest.raises(StoreError, match="stands there already"):
        put(store, call)


def test_what_an_interrupted_run_left_is_removed_and_said(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from recorder.store import RecordingStore\n"
        "from recorder.identifiers import call_uuid\n"
        "store = RecordingStore(Path(sys.argv[1])); work = store.begin(call_uuid(1, 1))\n"
        "(work / 'audio.wav').write_bytes(b'RIFF'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    assert files(tmp_path / PARTIAL)
    with RecordingStore(tmp_path) as store:
        assert store.notes == ["removed 1 unfinished recordings that an interrupted run had left"]
        assert [path.name for path in store.partial.iterdir()] == ["spanrec.lock"]
    assert not list(tmp_path.iterdir())


def test_two_runs_do_not_write_to_one_store_at_once(tmp_path):
    with RecordingStore(tmp_path), pytest.raises(StoreError, match="another spanrec"):
        RecordingStore(tmp_path)
    RecordingStore(tmp_path).close()


def test_a_partial_directory_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / PARTIAL).mkdir()
    (tmp_path / PARTIAL / "thesis.txt").write_text("x")
    with pytest.raises(StoreError, match="is not of spanrec"):
        RecordingStore(tmp_path)
    assert (tmp_path / PARTIAL / "thesis.txt").exists()


def test_a_partial_directory_that_leads_elsewhere_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / PARTIAL).symlink_to(elsewhere)
    with pytest.raises(StoreError, match="is not of spanrec"):
        RecordingStore(out)


def test_an_output_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match=r"out: cannot make the output directory: File exists"):
        RecordingStore(tmp_path / "out")


def test_a_full_disk_is_said_with_the_path(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    call = answered_call()
    with RecordingStore(tmp_path) as store:
        store.begin(call.id)
        monkeypatch.setattr(os, "rename", full)
        with pytest.raises(StoreError, match=r"091502_.*: cannot write: No space left on device"):
            store.publish(document(call))


def test_a_call_not_wanted_leaves_nothing(tmp_path):
    with RecordingStore(tmp_path) as store:
        work = store.begin(call_uuid(START, 1))
        store.discard(work)
        assert not work.exists()
        store.discard(tmp_path)
        assert tmp_path.exists()


def test_a_superseded_recording_is_removed_with_the_days_it_leaves_empty(tmp_path):
    with RecordingStore(tmp_path) as store:
        directory = put(store, answered_call())
        store.remove(directory)
        assert not (tmp_path / "2026").exists()
        (tmp_path / "2026/03").mkdir(parents=True)
        store.remove("2026/03")
        assert (tmp_path / "2026/03").exists()


@pytest.mark.parametrize("directory", ["../x", "/etc", "a/../../b", "", "a//b", ".", "a/./b", "a\\b", "a\0"])
def test_no_directory_leaves_the_store(tmp_path, directory):
    with pytest.raises(StoreError, match="no directory of a recording"):
        recording_path(tmp_path, directory)
