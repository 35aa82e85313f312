"""Holding, releasing and expiring recordings."""

import json
import os
from pathlib import Path

import pytest

from capture.errors import SpanrecError
from recorder.cli_app import app
from recorder.deletion import LOG
from recorder.legal_hold import holds
from recorder.store import RecordingStore
from tests.calls import answered_call, as_version_1, fill

CALLS = [answered_call(index) for index in range(3)]
IDS = [str(call.id) for call in CALLS]
CALLS[1].tags = ("sales", "vip")


@pytest.fixture
def store(tmp_path, monkeypatch):
    out = tmp_path / "out"
    fill(out, CALLS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPANREC_CONFIG", raising=False)
    return out


@pytest.fixture
def calls(store, capsys):
    """Runs `spanrec calls`; gives stdout and stderr."""

    def run(*arguments: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) as ended:
            app(["calls", *arguments, "-o", str(store)])
        assert ended.value.code in (0, None)
        told = capsys.readouterr()
        return told.out, told.err

    return run


def retain(text: str) -> None:
    Path("spanrec.toml").write_text(f"[retention]\n{text}\n")


def standing(store: Path) -> set[str]:
    return {json.loads(path.read_text())["id"] for path in store.rglob("call.json")}


def test_a_held_recording_is_shown_as_such(calls, store):
    assert "held" not in calls("list")[0]
    out, _ = calls("hold", IDS[0][:8], "call-2@example.com", "--reason", "lawsuit\x1b[31m", "--by", "Zoë")
    assert out == "2 put on hold, 0 held already\n"
    assert holds(store)[IDS[0]].reason == "lawsuit\x1b[31m"
    table = calls("list")[0].splitlines()
    assert [line.split()[-2] == "held" for line in table] == [True, True, False, True]
    assert len(calls("list", "--held")[0].splitlines()) == 3
    shown = calls("show", IDS[0])[0]
    assert "by Zoë: lawsuit\\x1b[31m" in shown
    assert json.loads(calls("show", IDS[0], "--json")[0])["holds"][0]["by"] == "Zoë"
    assert json.loads(calls("show", IDS[1], "--json")[0]).keys() == {"calls"}


def test_a_released_recording_is_held_no_more(calls, store):
    calls("hold", IDS[0], "--reason", "lawsuit")
    assert calls("hold", IDS[0], IDS[0], "--reason", "lawsuit")[0] == "0 put on hold, 1 held already\n"
    assert calls("release", *IDS)[0] == "1 released, 2 not on hold\n"
    assert holds(store) == {}
    assert len(calls("list", "--held")[0].splitlines()) == 1


def test_holds_outlive_the_catalogue(calls, store):
    calls("hold", IDS[0], "--reason", "lawsuit")
    (store / "catalogue.sqlite").unlink()
    fill(store, CALLS)
    assert len(calls("list", "--held")[0].splitlines()) == 2


def test_tags_are_listed_and_chosen_by(calls, store, tmp_path):
    assert "sales vip" in calls("list")[0]
    assert len(calls("list", "--tag", "vip")[0].splitlines()) == 2
    assert len(calls("list", "--tag", "vi")[0].splitlines()) == 1
    assert len(calls("list", "--tag", "%")[0].splitlines()) == 1
    assert "tags       sales vip" in calls("show", IDS[1])[0]
    calls("export", "--tag", "sales", "-d", str(tmp_path / "copy"))
    assert standing(tmp_path / "copy") == {IDS[1]}


def test_a_hold_needs_a_reason_and_a_recording(calls, store):
    with pytest.raises(SystemExit) as ended:
        app(["calls", "hold", IDS[0], "--reason", " ", "-o", str(store)])
    assert ended.value.code == 2
    with pytest.raises(SpanrecError, match="no recording has this"):
        app(["calls", "hold", "nobody", "--reason", "x", "-o", str(store)])
    assert holds(store) == {}


def test_a_hold_that_comes_too_late_is_said(calls, store):
    for path in list(store.rglob("call.json")):
        path.parent.rename(store / f"gone-{path.parent.name}")
    with pytest.raises(SpanrecError, match="was deleted a moment before"):
        app(["calls", "hold", IDS[0], "--reason", "x", "-o", str(store)])


def test_a_rehearsal_tells_and_changes_nothing(calls, store):
    retain('keep = "1d"\n[retention.tags.sales]\nkeep = "forever"')
    calls("hold", IDS[0], "--reason", "lawsuit")
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    out, _ = calls("expire", "--dry-run")
    assert IDS[2] in out
    assert "retention.keep = 1d: was kept as long as it was to be" in out
    assert out.splitlines()[-1].startswith("1 recordings, ")
    told = json.loads(calls("expire", "--dry-run", "--json")[0])
    assert [each["id"] for each in told["deletions"]] == [IDS[2]]
    assert told["deletions"][0]["octets"] > 0
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("version", [1, 2])
def test_expire_deletes_what_the_rehearsal_told(calls, store, version):
    if version == 1:
        as_version_1(store / "catalogue.sqlite")
    retain('max_size = "12KB"\nmin_free = "0%"')
    told = json.loads(calls("expire", "--dry-run", "--json")[0])["deletions"]
    out, err = calls("expire", "--json")
    assert json.loads(out)["deletions"] == told
    assert err == ""
    assert standing(store) == set(IDS) - {each["id"] for each in told}
    assert {json.loads(line)["id"] for line in (store / LOG).read_text().splitlines()} == {each["id"] for each in told}
    assert told
    assert calls("expire")[0] == "0 recordings, 0 octets deleted\n"


def test_what_cannot_be_met_is_said_once(calls, store):
    retain('at_least = "90y"\nmax_size = "1KB"')
    for more in ((), ("--dry-run",)):
        out, err = calls("expire", *more)
        assert out.startswith("0 recordings")
        assert err.count("what is left is held or must be kept longer") == 1


def test_while_another_records_nothing_is_deleted(calls, store):
    retain('keep = "1d"')
    with RecordingStore(store), pytest.raises(SpanrecError, match="another spanrec is writing to it"):
        app(["calls", "expire", "-o", str(store)])
    assert standing(store) == set(IDS)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a store to another")
def test_root_leaves_nothing_in_the_store_of_another_that_is_in_its_way(calls, store):
    retain('keep = "1d"')
    os.chown(store, 65534, 65534)
    calls("hold", IDS[0], "--reason", "lawsuit")
    assert (store / "holds.jsonl").stat().st_uid == 65534
    with pytest.raises(SpanrecError, match=r"belongs to nobody; delete as that user: sudo -u nobody"):
        app(["calls", "expire", "-o", str(store)])
    assert standing(store) == set(IDS)


def test_without_terms_or_a_store_expire_says_so(store, tmp_path):
    with pytest.raises(SpanrecError, match=r"spanrec\.toml: has no \[retention\]"):
        app(["calls", "expire", "-o", str(store)])
    retain('keep = "1d"')
    for more in ([], ["--dry-run"]):
        with pytest.raises(SpanrecError, match="there is no catalogue"):
            app(["calls", "expire", "-o", str(tmp_path / "none"), *more])
    assert not (tmp_path / "none").exists()
