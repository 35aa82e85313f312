"""What the client says where there is no answer."""

import os
import socket
import threading
from contextlib import contextmanager

import pytest

from recorder import status_client
from recorder.status import StatusError
from recorder.status_address import RUNTIME, SOCKET, TcpAddress, find_socket, own_socket, parse_address
from recorder.status_client import StatusClient
from tests.live_status import Pretender, identifier, ladder, serving


@contextmanager
def answering(octets: bytes, tmp_path):
    """A server that sends the same to everybody."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            client.recv(4096)
            client.sendall(octets)
            client.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


def test_everything_can_be_asked_for(tmp_path):
    with serving(tmp_path / "s", Pretender(3)) as path:
        client = StatusClient(path)
        assert client.snapshot().in_progress == 3
        assert [call.id for call in client.calls()] == [identifier(index) for index in range(3)]
        assert client.ladder(identifier(1)) == tuple(ladder(1))
        assert (client.call(identifier(9)), client.ladder(identifier(9))) == (None, None)


def test_over_tcp_calls_want_the_token():
    with serving(TcpAddress("127.0.0.1", 0), Pretender(3), "correct-horse-battery") as address:
        assert StatusClient(address).snapshot().in_progress == 3
        with pytest.raises(StatusError, match="--token-file"):
            StatusClient(address).calls()
        assert len(StatusClient(address, "correct-horse-battery").calls()) == 3


def test_no_service_is_told_as_that(tmp_path):
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as gone, socket.socket() as port:
        gone.bind(str(left))
        port.bind(("127.0.0.1", 0))
        for address in (tmp_path / "none", left, TcpAddress(*port.getsockname())):
            with pytest.raises(StatusError, match="is the service running"):
                StatusClient(address).snapshot()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_anothers_service_is_told_as_that(tmp_path):
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    with serving(tmp_path / "s", Pretender(1)) as path:
        os.seteuid(65534)
        try:
            with pytest.raises(StatusError, match="belongs to another user"):
                StatusClient(path).snapshot()
        finally:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"", "hung up"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "understands"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "understands"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "is it spanrec"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "answers 302"),
        (b'HTTP/1.1 503 x\r\n\r\n{"error": "too busy"}', "too busy"),
        (b"HTTP/1.1 503 x\r\n\r\n[1]", "answers 503"),
    ],
)
def test_whatever_answers_there_is_told_in_a_sentence(octets, said, tmp_path):
    with answering(octets, tmp_path) as path, pytest.raises(StatusError, match=said):
        StatusClient(path).snapshot()


def test_who_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(status_client, "SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(StatusError, match="does not answer"):
            StatusClient(tmp_path / "s").snapshot()


def test_addresses_are_literal_unless_one_connects(tmp_path):
    assert parse_address(":9180") == parse_address("localhost:9180") == TcpAddress("127.0.0.1", 9180)
    assert str(parse_address("[::1]:9180")) == "[::1]:9180"
    assert parse_address("./here").name == "here"
    assert parse_address("recorder-1.example:9180", names=True) == TcpAddress("recorder-1.example", 9180)
    for text in ("recorder.example:9180", "9180", "127.0.0.1", "127.0.0.1:99999", "1.2.3:1", "::1", "", ":", ":²"):
        with pytest.raises(StatusError, match="is no address"):
            parse_address(text)
    with pytest.raises(StatusError, match="is no address"):
        parse_address("a\x1b:1", names=True)


def test_the_socket_is_where_the_service_has_it(tmp_path):
    by_hand = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert own_socket({}) == RUNTIME / SOCKET
    assert own_socket(by_hand) == tmp_path / "spanrec" / SOCKET
    assert own_socket({**by_hand, "RUNTIME_DIRECTORY": "/run/a:/run/b"}).as_posix() == "/run/a/status.sock"
    assert find_socket(by_hand) == RUNTIME / SOCKET
    with serving(own_socket(by_hand), Pretender(1)):
        assert find_socket(by_hand) == tmp_path / "spanrec" / SOCKET


def test_recording_sessions_are_looked_for_where_services_have_them(tmp_path, monkeypatch):
    places = (tmp_path / "src", tmp_path / "srs")
    monkeypatch.setattr("recorder.status_address.SESSIONS", places)
    monkeypatch.setattr("recorder.status_address.RUNTIME", tmp_path / "capture")
    assert find_socket({}, sessions=True) == places[0] / SOCKET
    with socket.socket(socket.AF_UNIX) as capture, socket.socket(socket.AF_UNIX) as server:
        for opened, place in ((capture, tmp_path / "capture"), (server, places[1])):
            place.mkdir()
            opened.bind(str(place / SOCKET))
        assert find_socket({}, sessions=True) == places[1] / SOCKET
        assert find_socket({}) == tmp_path / "capture" / SOCKET
