"""`spanrec ctl`, asking a pretended service."""

import json
import threading
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from recorder.cli_app import app
from recorder.siprec.control import EventKind, SessionEvent, SessionState
from recorder.siprec.control_client import ControlClient
from recorder.siprec.control_pages import ControlPages
from recorder.status import StatusError
from recorder.status_address import TcpAddress
from tests.live_status import Pretender, serving
from tests.pretended_sessions import CALL, CALL_ID, NOW, PretendedSessions, session

TOKEN = "correct-horse-battery"


@pytest.fixture
def control():
    return PretendedSessions()


@pytest.fixture
def at(control, tmp_path):
    with serving(tmp_path / "s", Pretender(1), None, ControlPages(control, control.drain)) as path:
        yield path


def run(at, *arguments: str, text: str | None = None) -> str:
    result = CliRunner().invoke(app, ["ctl", *arguments, "--url", str(at)], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_sessions_are_a_line_each(at):
    head, first, second = run(at, "sessions").splitlines()
    assert head.startswith("SESSION\tSTATE")
    assert first.split("\t")[:4] == ["s1", "recording", "09:15:02", "sip:+49301111@example.com"]
    assert second.startswith("s2\t")


def test_json_is_what_the_service_told(at):
    told = json.loads(run(at, "sessions", "--json"))["sessions"]
    assert [each["id"] for each in told] == ["s1", "s2"]
    assert told[0]["legs"][0]["codec"] == "PCMA/8000"


def test_all_is_told_of_one(at):
    told = run(at, "show", CALL_ID)
    assert "leg 1: caller, PCMA/8000, 127.0.0.1:35002 > 192.0.2.9:40000, 500 packets, 0 lost" in told
    assert "tried" in told
    with pytest.raises(StatusError, match="no recording session has this"):
        run(at, "show", "none")


def test_commands_are_carried_out(control, at):
    assert run(at, "pause", CALL_ID) == "s1 paused\n"
    assert control.sessions()[0].state is SessionState.PAUSED
    assert run(at, "resume", "s1") == "s1 resumed\n"
    assert run(at, "stop", "s1", "--json") == '{"sessions": ["s1"]}\n'
    assert run(at, "start", CALL, "--srs", "sip:a, sip:b", "--set", "group=x=y", "--set", "from=sip:z") == "s3 begun\n"
    assert control.asked[-1] == ("start", CALL, "sip:a, sip:b", "from=sip:z", "group=x=y")
    assert run(at, "request", "s1", "info", "--content-type", "text/plain", "--body", "-", text="mark") == "200 OK\n"
    assert control.asked[-1] == ("request", "s1", "INFO", "text/plain", "mark")
    assert run(at, "drain") == "2 sessions go on; none begins\n"


def test_what_cannot_be_done_is_told_in_a_sentence(at):
    with pytest.raises(StatusError, match="no recording session fits none"):
        run(at, "stop", "none")
    with pytest.raises(StatusError, match="a session takes INFO"):
        run(at, "request", "s1", "BYE")


def test_what_the_wire_brought_does_nothing_to_a_terminal(tmp_path):
    control = PretendedSessions(replace(session(), caller="sip:\x1b[31mx@example.com", note="a\nb"))
    with serving(tmp_path / "s", Pretender(1), None, ControlPages(control)) as at:
        for command in (["sessions"], ["show", "s1"]):
            told = run(at, *command)
            assert "\x1b" not in told
            assert "a\nb" not in told


def test_events_are_told_as_they_happen(control, tmp_path):
    with serving(tmp_path / "s", Pretender(1), None, ControlPages(control)) as at:
        told: list[SessionEvent] = []
        reading = threading.Thread(target=lambda: told.extend(ControlClient(at).events()))
        reading.start()
        until = time.monotonic() + 10
        while control.listeners < 2 and time.monotonic() < until:
            time.sleep(0.01)
        event = SessionEvent(
            EventKind.FAILOVER, NOW, session="s1", peer="sip:b", text="a is gone", details={"tries": 2}
        )
        control.tell(event)
        while not told and time.monotonic() < until:
            time.sleep(0.01)
    reading.join(10)
    assert told == [event]


def test_over_tcp_there_is_a_token(control, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with serving(TcpAddress("127.0.0.1", 0), Pretender(1), TOKEN, ControlPages(control)) as at:
        assert run(f"http://{at}/", "sessions", "--token-file", str(token)).count("\n") == 3
        with pytest.raises(StatusError, match="--token-file"):
            run(at, "sessions")


def test_a_service_without_sessions_is_told_as_that(tmp_path):
    with serving(tmp_path / "s", Pretender(1)) as at, pytest.raises(StatusError, match="does not know /v1/sessions"):
        run(at, "sessions")
