"""Commands to recording sessions, over real sockets."""

import http.client
import json
import socket
import time
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from recorder import status_server
from recorder.siprec import event_feed
from recorder.siprec.control import EventKind, SessionEvent, SessionState
from recorder.siprec.control_pages import ControlPages
from recorder.siprec.figures import MediaCounts
from recorder.siprec.session_json import read_sessions
from recorder.status_address import TcpAddress
from recorder.status_server import LONGEST_BODY
from tests.live_status import Pretender, serving
from tests.pretended_sessions import CALL, CALL_ID, NOW, PretendedSessions

TOKEN = "correct-horse-battery"
LOOPBACK = TcpAddress("127.0.0.1", 0)
JSON = {"Content-Type": "application/json"}


@contextmanager
def served(control, address=LOOPBACK, drain=None):
    pages = ControlPages(control, drain)
    with serving(address, Pretender(1), TOKEN, pages) as at:
        yield at


def ask(address, method, path, body=None, token=TOKEN, **headers):
    """Status and JSON."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    said = {
        "Authorization": f"Bearer {token}",
        **JSON,
        **{key.replace("_", "-"): text for key, text in headers.items()},
    }
    connection.request(method, path, body, {key: text for key, text in said.items() if text})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content else None


@pytest.fixture
def control():
    return PretendedSessions()


@pytest.fixture
def at(control):
    with served(control, drain=control.drain) as address:
        yield address


def test_sessions_are_listed_and_found_by_each_of_their_names(at):
    status, told = ask(at, "GET", "/v1/sessions")
    assert (status, [each["id"] for each in told["sessions"]]) == (200, ["s1", "s2"])
    assert told["sessions"][0]["since"] == "2026-03-01T09:15:02.000000Z"
    assert told["sessions"][0]["callee"] == "sip:bob\ufffd@example.com"
    for name in ("s1", "rs-1@spanrec", CALL, CALL_ID):
        status, told = ask(at, "GET", f"/v1/sessions/{quote(name, safe='')}")
        assert (status, [each["id"] for each in told["sessions"]]) == (200, ["s1"]), name
    assert ask(at, "GET", "/v1/sessions/none")[0] == 404


def test_what_is_told_can_be_read_back(control, at):
    connection = http.client.HTTPConnection(at.host, at.port, timeout=20)
    connection.request("GET", "/v1/sessions", headers={"Authorization": f"Bearer {TOKEN}"})
    first, second = read_sessions(connection.getresponse().read())
    connection.close()
    assert (first.legs, first.attempts, first.since) == (*_facts(control.sessions()[0]),)
    assert second.state is SessionState.RECORDING


def _facts(session):
    return session.legs, session.attempts, session.since


def test_commands_reach_the_sessions_that_are_meant(control, at):
    encoded = quote(CALL_ID, safe="")
    assert ask(at, "POST", f"/v1/sessions/{encoded}/pause", "{}") == (200, {"sessions": ["s1"]})
    assert control.sessions()[0].state is SessionState.PAUSED
    assert ask(at, "POST", "/v1/sessions/s1/resume", "{}") == (200, {"sessions": ["s1"]})
    assert ask(at, "POST", "/v1/sessions/s2/stop", "") == (200, {"sessions": ["s2"]})
    body = json.dumps({"servers": "sip:rec2", "options": {"group": "x"}})
    assert ask(at, "POST", f"/v1/calls/{encoded}/start", body) == (200, {"sessions": ["s3"]})
    message = json.dumps({"method": "INFO", "content_type": "text/plain", "body": "mark ü"})
    assert ask(at, "POST", "/v1/sessions/s1/request", message) == (200, {"answer": "200 OK"})
    assert ask(at, "POST", "/v1/drain", "{}") == (200, {"text": "2 sessions go on; none begins"})
    assert control.drained
    assert control.asked == [
        ("pause", CALL_ID),
        ("resume", "s1"),
        ("stop", "s2"),
        ("start", CALL_ID, "sip:rec2", "group=x"),
        ("request", "s1", "INFO", "text/plain", "mark ü"),
    ]


def test_what_cannot_be_done_is_409_with_the_sentence(at):
    assert ask(at, "POST", "/v1/sessions/none/stop", "{}") == (409, {"error": "no recording session fits none"})
    assert ask(at, "POST", "/v1/calls/none/start", "{}")[0] == 409


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/sessions/s1/stop", "[]", 400),
        ("/v1/sessions/s1/stop", "{", 400),
        ("/v1/sessions/s1/stop", "[" * 20000, 400),
        ("/v1/sessions/s1/stop", '{"which": "s2"}', 400),
        ("/v1/calls/x/start", '{"servers": ["sip:a"]}', 400),
        ("/v1/calls/x/start", '{"options": {"a": 1}}', 400),
        ("/v1/calls/x/start", '{"server": "sip:a"}', 400),
        ("/v1/sessions/s1/request", '{"method": "BYE"}', 400),
        ("/v1/sessions/s1/request", '{"method": "INFO", "body": "x"}', 400),
        ("/v1/sessions/s1/request", '{"method": "INFO", "body": "x", "content_type": "a/b\\r\\nX: y"}', 400),
        ("/v1/sessions/s1", "{}", 404),
        ("/v1/sessions/s1/delete", "{}", 404),
        ("/v1/sessions//stop", "{}", 404),
        ("/v1/sessions/%ff/stop", "{}", 404),
        (f"/v1/sessions/{'s' * 300}/stop", "{}", 404),
        ("/v1/", "{}", 404),
        ("/calls", "{}", 405),
    ],
)
def test_what_is_no_command_changes_nothing(control, at, path, body, status):
    assert ask(at, "POST", path, body)[0] == status
    assert control.asked == []


def test_a_command_is_json_of_a_known_length(control, at):
    path = "/v1/sessions/s1/stop"
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert ask(at, "POST", path, "{}", Content_Type=kind)[0] == 415
    assert ask(at, "POST", path, " " * (LONGEST_BODY + 1))[0] == 413
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Content-Type: application/json\r\n"
    for rest, status in (
        ("\r\n", 411),
        ("Content-Length: -1\r\n\r\n", 411),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 411),
        (f"Content-Length: {'9' * 4000}\r\n\r\n", 413),
        ("Content-Length: 9\r\n\r\n{}", 400),
    ):
        with socket.create_connection(at, timeout=20) as client:
            client.sendall(f"{head}{rest}".encode())
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100).startswith(f"HTTP/1.1 {status} ".encode()), rest
    assert control.asked == []
    assert ask(at, "POST", path, "{}" + " " * (LONGEST_BODY - 2))[0] == 200


def test_commands_are_for_who_has_the_token_and_for_no_page_of_another_name(control, at):
    for token in ("", "wrong", TOKEN[:-1]):
        assert ask(at, "POST", "/v1/sessions/s1/stop", "{}", token)[0] == 401
        assert ask(at, "GET", "/v1/sessions", token=token)[0] == 401
        assert ask(at, "GET", "/v1/events", token=token)[0] == 401
    assert ask(at, "POST", "/v1/sessions/s1/stop", "{}", Host="attacker.example")[0] == 421
    assert control.asked == []
    with serving(LOOPBACK, Pretender(1), None, ControlPages(control)) as without:
        assert ask(without, "GET", "/v1/sessions")[0] == 401


def test_the_owner_of_the_socket_needs_no_token(control, tmp_path):
    with served(control, tmp_path / "s"), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(tmp_path / "s"))
        client.sendall(b"GET /v1/sessions HTTP/1.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_without_commands_there_are_none():
    with serving(LOOPBACK, Pretender(1), TOKEN) as at:
        assert ask(at, "GET", "/v1/sessions")[0] == 404
        assert ask(at, "POST", "/v1/sessions/s1/stop", "{}")[0] == 405
    with served(PretendedSessions()) as at:
        assert ask(at, "POST", "/v1/drain", "{}")[0] == 404


@contextmanager
def reading(at):
    """A connection that reads events, past the head and the first line."""
    with socket.create_connection(at, timeout=20) as client:
        head = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        client.sendall(head.encode())
        file = client.makefile("rb")
        assert file.readline().startswith(b"HTTP/1.1 200 ")
        while file.readline() not in (b"\r\n", b""):
            pass
        assert file.readline() == b"\n"
        try:
            yield client, file
        finally:
            file.close()


def test_events_come_as_they_happen_to_all_who_read(control, at):
    with reading(at) as (_, first), reading(at) as (_, second):
        ask(at, "POST", "/v1/sessions/s1/pause", "{}")
        for file in (first, second):
            told = json.loads(file.readline())
            assert (told["kind"], told["session"], told["at"]) == ("pause", "s1", "2026-03-01T09:15:03.000000Z")
    assert control.listeners == 2, "the figures listen too"


def test_a_reader_that_does_not_read_is_left_and_holds_nobody_up(control, at, monkeypatch):
    monkeypatch.setattr(status_server, "SLOW", 0.2)
    with reading(at) as (client, file):
        event = SessionEvent(EventKind.FAILURE, NOW, text="x" * 2000)
        begin = time.monotonic()
        for _ in range(3 * event_feed.BACKLOG):
            control.tell(event)
        assert time.monotonic() - begin < 2
        time.sleep(0.5)
        client.settimeout(20)
        lines = 0
        while file.readline():
            lines += 1
        assert lines < 3 * event_feed.BACKLOG


def test_there_are_only_so_many_readers(at, monkeypatch):
    monkeypatch.setattr(event_feed, "READERS", 2)
    with reading(at), reading(at):
        assert ask(at, "GET", "/v1/events")[0] == 503


def test_streams_end_with_the_server(control):
    with served(control) as at:
        client = socket.create_connection(at, timeout=20)
        client.sendall(f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    with client:
        while client.recv(1000):
            pass
    assert control.listeners == 0


def test_figures_of_sessions_are_metrics(control):
    pages = ControlPages(control, media=lambda: MediaCounts(5000, 7))
    with serving(LOOPBACK, Pretender(1), TOKEN, pages) as at:
        control.tell(SessionEvent(EventKind.FAILOVER, NOW))
        control.tell(SessionEvent(EventKind.SERVER_DOWN, NOW, peer="sip:rec1"))
        connection = http.client.HTTPConnection(at.host, at.port, timeout=20)
        connection.request("GET", "/metrics")
        told = connection.getresponse().read().decode()
        connection.close()
    for line in (
        'spanrec_recording_sessions{role="src",state="recording"} 2.0',
        'spanrec_recording_sessions{role="src",state="spooling"} 0.0',
        'spanrec_session_events_total{kind="failover"} 1.0',
        'spanrec_recording_server_up{server="sip:rec1"} 0.0',
        "spanrec_forwarded_packets_total 5000.0",
        "spanrec_unsent_packets_total 7.0",
    ):
        assert line in told, line
