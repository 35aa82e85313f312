"""Deleting recordings."""

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from recorder.catalogue_upkeep import open_for_upkeep
from recorder.deletion import DIRECTORY, LOG, Deleted, carry_out, complete
from recorder.document import format_time
from recorder.legal_hold import hold
from recorder.retention import Deletion
from recorder.store import StoreError
from tests.calls import AUDIO, SECOND, START, answered_call, fill

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

NOW = START + 100 * 86_400 * SECOND


def planned(out: Path) -> list[Deletion]:
    """All that the catalogue has."""
    with open_for_upkeep(out / "catalogue.sqlite") as catalogue:
        rows = catalogue.execute("SELECT id, call_id, started, directory FROM recordings ORDER BY started").fetchall()
    catalogue.close()
    return [Deletion(*row, octets=5, rule="retention.keep = 90d", reason="was kept long enough") for row in rows]


def delete(out: Path, deletions: list[Deletion], announce: Callable[[Deleted], None] = lambda _: None) -> list[str]:
    """Carry deletions out; gives the notes."""
    notes: list[str] = []
    catalogue = open_for_upkeep(out / "catalogue.sqlite")
    try:
        carry_out(out, catalogue, deletions, NOW, announce, lambda _, sentence: notes.append(sentence))
    finally:
        catalogue.close()
    return notes


def log(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def rows(out: Path, table: str = "recordings") -> set[str]:
    with sqlite3.connect(out / "catalogue.sqlite") as catalogue:
        found = {row[0] for row in catalogue.execute(f"SELECT id FROM {table}")}
    catalogue.close()
    return found


def standing(out: Path) -> set[str]:
    """Ids of the recordings that anybody would find."""
    return {json.loads(path.read_text())["id"] for path in out.glob("[0-9]*/*/*/*/call.json")}


@pytest.fixture
def out(tmp_path):
    fill(tmp_path, [answered_call(index) for index in range(5)])
    return tmp_path


def test_a_deleted_recording_is_gone_from_disk_and_catalogue_and_logged(out):
    first, *others = planned(out)
    told: list[Deleted] = []
    assert delete(out, [first], told.append) == []
    assert standing(out) == rows(out) == rows(out, "traces") == {each.id for each in others}
    assert not (out / first.directory).exists()
    assert not (out / DIRECTORY).exists()
    (line,) = log(out)
    assert line == {
        "at": format_time(NOW),
        "id": first.id,
        "call_id": "call-0@example.com",
        "started": first.started,
        "rule": "retention.keep = 90d",
        "reason": "was kept long enough",
        "octets": 5,
        "audio_sha256": sha256(AUDIO).hexdigest(),
        "found": True,
    }
    assert [each.id for each in told] == [first.id]


def test_the_log_tells_no_names_and_numbers(out):
    delete(out, planned(out))
    text = (out / LOG).read_text()
    assert "4930111" not in text
    assert "Zo" not in text


def test_days_that_are_left_empty_go_unless_they_are_young(out):
    delete(out, planned(out)[:4])
    assert list(out.glob("2026/*/*"))
    delete(out, planned(out))
    assert not (out / "2026").exists()
    fill(out, [answered_call()])
    catalogue = open_for_upkeep(out / "catalogue.sqlite")
    carry_out(out, catalogue, planned(out), START + 86_400 * SECOND)
    catalogue.close()
    assert list(out.glob("2026/*/*"))


def test_what_was_held_after_the_plan_stays(out):
    deletions = planned(out)
    hold(out, [deletions[1].id], at=format_time(NOW), by="me", reason="lawsuit")
    delete(out, deletions)
    assert standing(out) == rows(out) == {deletions[1].id}
    assert len(log(out)) == 4


def test_what_somebody_removed_by_hand_is_logged_as_such_and_leaves_the_catalogue(out):
    first = planned(out)[0]
    for path in (out / first.directory).iterdir():
        path.unlink()
    (out / first.directory).rmdir()
    delete(out, [first])
    (line,) = log(out)
    assert (line["found"], line["audio_sha256"]) == (False, None)
    assert first.id not in rows(out)


def test_what_is_not_the_recording_of_the_catalogue_is_left_and_said(out):
    first, second = planned(out)[:2]
    (out / first.directory / "call.json").write_text("{}")
    (out / second.directory / "call.json").write_text((out / planned(out)[2].directory / "call.json").read_text())
    notes = delete(out, [first, second])
    assert len(notes) == 2
    assert "is not the recording that the catalogue says" in notes[0]
    assert (out / first.directory / "audio.wav").exists()
    assert len(rows(out)) == 5


def test_no_row_of_a_catalogue_leads_out_of_the_store(out):
    with sqlite3.connect(out / "catalogue.sqlite") as catalogue:
        catalogue.execute("UPDATE recordings SET directory = '../elsewhere'")
    catalogue.close()
    notes = delete(out, planned(out))
    assert len(notes) == 5
    assert "is no directory of a recording; it is not deleted" in notes[0]
    assert len(standing(out)) == len(rows(out)) == 5


def test_no_id_of_a_catalogue_leads_anywhere(out):
    with sqlite3.connect(out / "catalogue.sqlite") as catalogue:
        catalogue.execute("UPDATE recordings SET id = '../../' || id")
    catalogue.close()
    assert len(delete(out, planned(out))) == 5
    assert len(standing(out)) == 5


def test_what_cannot_be_read_after_a_crash_still_stands(out):
    deletions = planned(out)
    assert killed_at(out, deletions[:1], lambda event, name: event == "os.rename" and "intent" not in name)
    (out / deletions[0].directory / "call.json").write_bytes(b"damaged")
    delete(out, [])
    assert deletions[0].id in rows(out)
    assert not (out / LOG).exists()


def test_many_go_in_batches(out, monkeypatch):
    monkeypatch.setattr("recorder.deletion.BATCH", 2)
    told: list[Deleted] = []
    delete(out, planned(out), told.append)
    assert standing(out) == rows(out) == set()
    assert [line["id"] for line in log(out)] == [each.id for each in told]
    assert len(told) == 5


def test_a_plan_that_was_carried_out_before_does_nothing(out):
    deletions = planned(out)
    delete(out, deletions[:2])
    delete(out, deletions[:3])
    assert len(log(out)) == 3


def test_a_recording_made_anew_after_a_crash_stays(out):
    deletions = planned(out)
    killed_at(out, deletions[:1], lambda _, name: name.endswith(LOG))
    assert deletions[0].id not in standing(out)
    fill(out, [answered_call(0)])
    delete(out, [])
    assert deletions[0].id in standing(out)
    assert deletions[0].id in rows(out)
    assert len(log(out)) == 1


def test_a_damaged_intent_is_said(out):
    (out / DIRECTORY).mkdir()
    (out / DIRECTORY / "intent.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match=r"intent\.jsonl: is damaged"):
        delete(out, [])


@pytest.mark.parametrize("torn", [b'{"at": "20', b""])
def test_a_line_of_the_log_that_was_cut_short_is_written_again(out, torn):
    deletions = planned(out)
    delete(out, deletions[:1])
    before = (out / LOG).read_bytes()
    killed_at(out, deletions[1:3], lambda _, name: name.endswith(LOG))
    with (out / LOG).open("ab") as file:
        file.write(torn)
    delete(out, [])
    after = (out / LOG).read_bytes()
    assert after.startswith(before)
    whole = [json.loads(line)["id"] for line in after.splitlines() if line not in (torn, b"")]
    assert whole == [deletion.id for deletion in deletions[:3]]


# Kills


def killed_at(out: Path, deletions: list[Deletion], when: Callable[[str, str], bool]) -> bool:
    """Carry deletions out in a child that dies, without any clearing up, before the first step that `when` names.

    Steps are what Python asks of the system: each file that is opened, renamed or removed, each statement of SQL.
    Returns whether it died.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _die_when(when)
            catalogue = open_for_upkeep(out / "catalogue.sqlite")
            catalogue.set_trace_callback(lambda statement: sys.audit("sql", statement))
            carry_out(out, catalogue, deletions, NOW)
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(ended)
    assert status in (0, 137), "the child failed"
    return status == 137


def _die_when(when: Callable[[str, str], bool]) -> None:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _STEPS and when(event, str(arguments[0]) if arguments else ""):
            os._exit(137)

    sys.addaudithook(hook)


_STEPS = {
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "shutil.rmtree",
    "sqlite3.connect",
    "sql",
    "fcntl.flock",
}


def killed_before_step(out: Path, deletions: list[Deletion], step: int) -> bool:
    seen = 0

    def when(_: str, __: str) -> bool:
        nonlocal seen
        seen += 1
        return seen > step

    return killed_at(out, deletions, when)


def test_whatever_step_a_kill_comes_before_the_next_run_completes_it(tmp_path):
    step, died = 0, True
    phases = set()
    while died:
        out = tmp_path / str(step)
        out.mkdir()
        fill(out, [answered_call(index) for index in range(3)])
        everything = {each.id for each in planned(out)}
        deletions = planned(out)[:2]
        died = killed_before_step(out, deletions, step)
        # Whoever looks now sees whole recordings only.
        for directory in out.glob("[0-9]*/*/*/*"):
            assert {path.name for path in directory.iterdir()} == {"audio.wav", "metadata.xml", "call.json"}
        phases.add((len(standing(out)), len(rows(out)), len(log(out)) if (out / LOG).exists() else 0))
        delete(out, deletions)
        left = everything - {each.id for each in deletions}
        assert standing(out) == rows(out) == rows(out, "traces") == left, f"killed before step {step}"
        assert sorted(str(line["id"]) for line in log(out)) == sorted(each.id for each in deletions)
        assert all(line["found"] for line in log(out))
        assert not (out / DIRECTORY).exists()
        step += 1
    # The kills came before, between and after all that matters.
    assert phases >= {(3, 3, 0), (2, 3, 0), (1, 3, 0), (1, 3, 2), (1, 1, 2)}
    assert step > 30


def test_a_run_that_is_killed_again_and_again_comes_to_its_end(tmp_path):
    fill(tmp_path, [answered_call(index) for index in range(4)])
    everything = planned(tmp_path)
    step = 5
    while killed_before_step(tmp_path, planned(tmp_path), step):
        step += 3
    delete(tmp_path, [])
    assert standing(tmp_path) == rows(tmp_path) == set()
    assert sorted(str(line["id"]) for line in log(tmp_path)) == sorted(each.id for each in everything)


def test_what_is_held_between_a_kill_and_the_next_run_stays_where_it_still_stood(out):
    deletions = planned(out)
    renamed = []

    def second_rename(event: str, name: str) -> bool:
        if event == "os.rename" and "intent" not in name:
            renamed.append(name)
        return len(renamed) == 2

    assert killed_at(out, deletions[:3], second_rename)
    hold(out, [each.id for each in deletions], at=format_time(NOW), by="me", reason="lawsuit")
    catalogue = open_for_upkeep(out / "catalogue.sqlite")
    assert complete(out, catalogue) == 1
    catalogue.close()
    assert standing(out) == rows(out) == {each.id for each in deletions[1:]}
