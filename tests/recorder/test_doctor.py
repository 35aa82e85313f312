"""The doctor."""

import json

import pytest

from recorder import doctor
from recorder.cli_app import app


def test_every_part_is_told_with_what_it_is_for(capsys):
    with pytest.raises(SystemExit) as ended:
        app(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert lines[0].startswith("spanrec 0.")
    told = "\n".join(lines)
    for part in ("kernels", "audio files", "codecs", "tshark", "srtp", "catalogue", "packet socket"):
        assert part in told
    assert "wav, flac, ogg, mp3" in told
    assert "G.722" in told


def test_findings_are_there_as_json(capsys):
    with pytest.raises(SystemExit):
        app(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert list(told["findings"][0]) == ["part", "present", "detail", "purpose", "needed"]


def test_what_is_missing_is_said_and_what_is_needed_fails(monkeypatch, capsys):
    def broken_part() -> tuple[str, str, bool]:
        raise ImportError("no such library")

    monkeypatch.setattr(doctor, "_PARTS", (("nothing much", False, broken_part),))
    with pytest.raises(SystemExit) as ended:
        app(["doctor"])
    assert ended.value.code == 0
    assert "absent   broken part  ImportError: no such library; nothing much" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "_PARTS", (("everything", True, broken_part),))
    with pytest.raises(SystemExit) as ended:
        app(["doctor"])
    assert ended.value.code == 1
    assert "MISSING" in capsys.readouterr().out


def test_without_tshark_replay_still_works(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda program: None)
    assert doctor._tshark() == ("tshark", "no such program (package tshark)", False)
