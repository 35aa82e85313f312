"""Looking into a store."""

import json
import subprocess
import tarfile

import pytest

from recorder.cli_app import app
from tests.calls import answered_call, fill

CALLS = [answered_call(0), answered_call(1, "Bob\x1b[31m", "333"), answered_call(2)]


@pytest.fixture
def store(tmp_path):
    out = tmp_path / "out"
    fill(out, CALLS, [answered_call(3, call_id="left-out")])
    return out


@pytest.fixture
def calls(store, capsys):
    """Runs `spanrec calls`; gives status and stdout."""

    def run(*arguments: str):
        with pytest.raises(SystemExit) as ended:
            app(["calls", *arguments, "-o", str(store)])
        return ended.value.code, capsys.readouterr().out

    return run


def test_list_tells_what_the_filters_leave(calls):
    status, out = calls("list")
    assert (status, len(out.splitlines())) == (0, 4)
    assert len(calls("list", "--number", "222")[1].splitlines()) == 3
    assert len(calls("list", "--from", "2026-03-01T09:15:03", "--to", "2026-03-01T09:15:04")[1].splitlines()) == 2
    assert len(calls("list", "--state", "refused", "--state", "failed")[1].splitlines()) == 1
    assert len(calls("list", "--min-duration", "12", "--max-duration", "13")[1].splitlines()) == 4


def test_list_gives_documents_as_json(calls, store):
    told = json.loads(calls("list", "--json", "--number", "333")[1])
    assert [call["callee"]["uri"] for call in told["calls"]] == ["sip:333@example.com"]
    assert json.loads(calls("list", "--json", "--number", "none")[1]) == {"calls": []}


def test_show_tells_all_of_a_call(calls):
    status, out = calls("show", str(CALLS[0].id)[:8])
    assert status == 0
    for part in (
        *("completed (200 OK), ended by the caller", '"Zoë" sip:+4930111@example.com at 192.0.2.1:5060', "talk 0:10"),
        *("490 of 500 packets, jitter 1.2 ms, MOS 4.20", "5 (caller)", "hold       by the callee", "10.000 s"),
        *("office.pcap, frames 1 to 90", "one-way: the callee sent nothing"),
    ):
        assert part in out
    assert json.loads(calls("show", "call-1@example.com", "--json")[1])["calls"][0]["call_id"] == "call-1@example.com"


def test_no_name_reaches_the_terminal_raw(calls):
    for command in (("list",), ("show", "call-1@example.com"), ("explain", "call-1@example.com")):
        assert "\x1b" not in calls(*command)[1]


def test_explain_tells_of_calls_recorded_and_not(calls):
    assert "recorded (completed) in 2026/03/01/091502" in calls("explain", "call-0@example.com")[1]
    status, out = calls("explain", "left-out")
    assert (status, out.splitlines()[0]) == (0, "Call-ID left-out: not recorded")
    assert "invite-seen: INVITE 192.0.2.1 to 192.0.2.2" in out
    assert "no RTP was claimed for it" in out
    assert json.loads(calls("explain", "left-out", "--json")[1])["traces"][0]["directory"] is None


@pytest.mark.parametrize(
    ("command", "name", "says"),
    [
        ("show", "nobody", "no recording has this"),
        ("show", "left-out", "was seen, but not recorded"),
        ("explain", "nobody", "no call with this Call-ID or id was seen"),
    ],
)
def test_what_is_not_there_is_said(store, command, name, says):
    from capture.errors import SpanrecError

    with pytest.raises(SpanrecError, match=says):
        app(["calls", command, name, "-o", str(store)])


def test_a_recording_removed_by_hand_is_said(store):
    from capture.errors import SpanrecError

    next(store.rglob("call.json")).unlink()
    with pytest.raises(SpanrecError, match="but it is gone"):
        app(["calls", "list", "--json", "-o", str(store)])


def test_an_exported_directory_is_checked_by_sha256sum(calls, tmp_path):
    status, out = calls("export", "--destination", str(tmp_path / "copy"))
    assert (status, out.split(",")[0]) == (0, "3 recordings")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "copy", check=True, timeout=60)
    assert len(list((tmp_path / "copy").rglob("audio.wav"))) == 3


@pytest.mark.parametrize("name", ["calls.tar", "calls.tar.gz", "calls.tgz"])
def test_an_exported_tar_is_the_same_every_time(calls, tmp_path, name):
    for copy in ("a", "b"):
        (tmp_path / copy).mkdir()
        status, _ = calls("export", str(CALLS[0].id), "call-1@example.com", "-d", str(tmp_path / copy / name))
        assert status == 0
        assert [path.name for path in (tmp_path / copy).iterdir()] == [name]
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with tarfile.open(tmp_path / "a" / name) as archive:
        assert len(archive.getnames()) == 7
        assert archive.getnames()[-1] == "SHA256SUMS"


def test_an_altered_recording_is_exported_and_named(calls, store, tmp_path, capsys):
    (next(store.rglob("audio.wav"))).write_bytes(b"other")
    with pytest.raises(SystemExit) as ended:
        app(["calls", "export", "-d", str(tmp_path / "copy"), "-o", str(store)])
    assert ended.value.code == 3
    assert "is not the file that its call.json describes" in capsys.readouterr().err


def test_an_export_overwrites_nothing(store, tmp_path):
    from capture.errors import SpanrecError

    (tmp_path / "copy").mkdir()
    with pytest.raises(SpanrecError, match="exists already"):
        app(["calls", "export", "-d", str(tmp_path / "copy"), "-o", str(store)])
