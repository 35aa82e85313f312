"""Events told to real web servers."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from capture.errors import SpanrecError
from recorder.siprec import webhooks
from recorder.siprec.control import EventKind, SessionEvent
from recorder.siprec.sip_settings import Webhook
from recorder.siprec.webhooks import Webhooks, signature

NOW = 1_772_356_502_000_000_000
START = SessionEvent(EventKind.START, NOW, session="s1", call_id="a@b")
STOP = SessionEvent(EventKind.STOP, NOW, session="s1")


class Listener:
    """A web server that answers with the statuses given, then 204."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[dict[str, str], bytes]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.got.append((dict(self.headers), body))
                self.send_response(listener.statuses.pop(0) if listener.statuses else 204)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, format, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?key=x"

    def wait(self, count: int) -> None:
        until = time.monotonic() + 10
        while len(self.got) < count and time.monotonic() < until:
            time.sleep(0.01)


@contextmanager
def listening(*statuses: int):
    listener = Listener(*statuses)
    thread = threading.Thread(target=listener.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield listener
    finally:
        listener.server.shutdown()
        listener.server.server_close()
        thread.join()


@contextmanager
def telling(*hooks: Webhook):
    notes: list[str] = []
    told = Webhooks(hooks, notes.append)
    told.start()
    try:
        yield told, notes
    finally:
        told.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(webhooks, "FIRST_WAIT", 0.01)


def test_events_are_posted_as_json_in_order_and_signed(tmp_path):
    key = tmp_path / "key"
    key.write_text("hush\n")
    key.chmod(0o600)
    with listening() as listener, telling(Webhook(listener.url, key)) as (hooks, notes):
        hooks.tell(START)
        hooks.tell(STOP)
        listener.wait(2)
    assert [json.loads(body)["kind"] for _, body in listener.got] == ["start", "stop"]
    headers, body = listener.got[0]
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Spanrec-Signature"] == f"sha256={signature(b'hush', headers['X-Spanrec-Time'], body)}"
    assert notes == []


def test_without_a_secret_there_is_no_signature_and_only_wanted_events_are_told():
    with listening() as listener, telling(Webhook(listener.url, events=frozenset({EventKind.STOP}))) as (hooks, _):
        hooks.tell(START)
        hooks.tell(STOP)
        listener.wait(1)
    assert [json.loads(body)["kind"] for _, body in listener.got] == ["stop"]
    assert "X-Spanrec-Signature" not in listener.got[0][0]


def test_a_server_that_fails_is_asked_again_with_the_same_delivery():
    with listening(503, 429) as listener, telling(Webhook(listener.url)) as (hooks, notes):
        hooks.tell(START)
        listener.wait(3)
    assert len({headers["X-Spanrec-Delivery"] for headers, _ in listener.got}) == 1
    assert len(listener.got) == 3
    assert notes == []


@pytest.mark.parametrize("status", [302, 400, 404])
def test_what_will_never_be_taken_is_not_sent_again_nor_elsewhere(status):
    with listening(status) as listener, telling(Webhook(listener.url)) as (hooks, notes):
        hooks.tell(START)
        hooks.tell(STOP)
        listener.wait(2)
    assert len(listener.got) == 2
    assert len(notes) == 1
    assert f"it answers {status}" in notes[0]
    assert "key=x" not in notes[0]


def test_where_nobody_listens_events_are_given_up_and_nobody_waits(monkeypatch):
    monkeypatch.setattr(webhooks, "BACKLOG", 5)
    monkeypatch.setattr(webhooks, "TRIES", 2)
    with listening() as gone:
        url = gone.url
    with telling(Webhook(url)) as (hooks, notes):
        begin = time.monotonic()
        for _ in range(2000):
            hooks.tell(START)
        assert time.monotonic() - begin < 1
        until = time.monotonic() + 10
        while not any("too many waited" in note for note in notes) and time.monotonic() < until:
            time.sleep(0.01)
    assert any("too many waited" in note for note in notes)
    assert any("refused" in note for note in notes)


def test_the_end_does_not_wait_for_a_server_that_is_away(monkeypatch):
    monkeypatch.setattr(webhooks, "FIRST_WAIT", 60)
    with listening(503) as listener, telling(Webhook(listener.url)) as (hooks, _):
        hooks.tell(START)
        listener.wait(1)
        begin = time.monotonic()
    assert time.monotonic() - begin < 3


def test_a_secret_that_everybody_reads_is_refused(tmp_path):
    key = tmp_path / "key"
    key.write_text("hush")
    key.chmod(0o644)
    with pytest.raises(SpanrecError, match="every user can read"):
        Webhooks([Webhook("http://127.0.0.1/", key)], lambda _: None)
