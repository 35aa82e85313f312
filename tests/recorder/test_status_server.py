"""The status server, asked by real clients."""

import http.client
import json
import os
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from recorder import status_server
from recorder.status import StatusError
from recorder.status_address import TcpAddress
from recorder.status_server import CONNECTIONS, LONGEST_REQUEST, StatusServer
from tests.live_status import ALARM, Pretender, identifier, ladder, serving

LOOPBACK = TcpAddress("127.0.0.1", 0)
TOKEN = "correct-horse-battery"


@pytest.fixture
def tcp():
    """Address of a server on loopback that has a token."""
    with serving(LOOPBACK, Pretender(5), TOKEN) as address:
        yield address


@pytest.fixture
def unix(tmp_path):
    with serving(tmp_path / "status.sock", Pretender(5)) as path:
        yield path


def get(address: TcpAddress, path: str, method: str = "GET", **headers: str):
    """Status, headers and body."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def exchange(address: TcpAddress | Path, octets: bytes, seconds: float = 20) -> bytes:
    """All that comes back for these octets."""
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        client.connect(str(address) if isinstance(address, Path) else tuple(address))
        client.sendall(octets)
        received = b""
        while piece := client.recv(65536):
            received += piece
    return received


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_pages_tell_what_the_service_tells(tcp):
    assert b"spanrec_calls{" in get(tcp, "/metrics")[2]
    assert json.loads(get(tcp, "/status")[2])["version"] == "0.1.0"
    told = json.loads(get(tcp, "/calls", **bearer(TOKEN))[2])["calls"]
    assert [call["id"] for call in told] == [identifier(index) for index in range(5)]
    one = json.loads(get(tcp, f"/calls/{identifier(3)}", **bearer(TOKEN))[2])
    assert len(one["streams"]) == 2
    assert one["call_id"] == told[3]["call_id"]
    messages = json.loads(get(tcp, f"/calls/{identifier(3)}/ladder", **bearer(TOKEN))[2])["messages"]
    assert [message["line"] for message in messages] == [step.line for step in ladder(3)]


def test_health_is_a_status_and_says_why(tcp):
    status, _, body = get(tcp, "/health")
    assert (status, json.loads(body)["ok"], json.loads(body)["alarms"]) == (200, True, [])
    with serving(LOOPBACK, Pretender(5, (ALARM,))) as address:
        status, _, body = get(address, "/health")
        assert (status, json.loads(body)["alarms"][0]["code"]) == (503, "kernel-drops")
        assert get(address, "/health/live")[0] == get(address, "/health/ready")[0] == 200


def test_head_has_no_body_and_other_methods_are_refused(tcp):
    status, headers, body = get(tcp, "/health", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 100
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "<script>"):
        status, headers, body = get(tcp, "/calls", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert b"script" not in body


@pytest.mark.parametrize(
    "path",
    [
        *("/", "//", "/metrics/", "/../etc/passwd", "/calls/../../etc/passwd", "/calls/%2e%2e%2fetc", "/Health"),
        *("/calls/", "/calls/x", f"/calls/{identifier(0).upper()}", f"/calls/{{{identifier(0)}}}", "//[", "/calls/ü"),
        *(f"/calls/{identifier(99)}", f"/calls/{identifier(99)}/ladder", f"/calls/{identifier(0)}/ladder/more"),
    ],
)
def test_what_is_no_page_is_404(tcp, path):
    answer = exchange(tcp, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert path.encode() not in answer.partition(b"\r\n\r\n")[2]


def test_calls_are_told_only_to_who_has_the_token(tcp):
    for path in ("/calls", f"/calls/{identifier(0)}", f"/calls/{identifier(0)}/ladder", "/calls?x=1", "/calls/x"):
        for headers in ({}, bearer("wrong"), bearer(""), bearer("é" * 20), {"Authorization": f"Basic {TOKEN}"}):
            status, told, body = get(tcp, path, **headers)
            assert (status, told["WWW-Authenticate"]) == (401, "Bearer")
            assert b"example.com" not in body
    with serving(LOOPBACK, Pretender(5)) as without:
        assert get(without, "/calls", **bearer(""))[0] == 401
        assert get(without, "/metrics")[0] == 200


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:9180", "127.0.0.1.attacker.example", "[", ""])
def test_a_page_of_another_name_reads_nothing(tcp, host):
    """DNS rebinding: the browser connects to 127.0.0.1, but names the attacker's host."""
    for path in ("/status", "/calls"):
        status, _, body = get(tcp, path, Host=host)
        assert status == 421
        assert b"eth1" not in body
    assert exchange(tcp, b"GET /status HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")
    assert exchange(tcp, b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize("host", ["localhost", "LocalHost:80", "127.0.0.1:9180", "[::1]:9180", "[0:0::1]"])
def test_names_of_this_machine_are_right(tcp, host):
    assert get(tcp, "/status", Host=host)[0] == 200


def test_beyond_loopback_there_is_nothing_without_a_token():
    everywhere = TcpAddress("0.0.0.0", 0)
    with pytest.raises(StatusError, match="only with a token"):
        StatusServer(Pretender(1).board).listen(everywhere)
    with serving(everywhere, Pretender(1), TOKEN) as address:
        at = TcpAddress("127.0.0.1", address.port)
        for path in ("/metrics", "/health", "/health/live", "/status", "/calls", "/nothing"):
            assert get(at, path, Host="recorder.example")[0] == 401
        assert get(at, "/metrics", Host="recorder.example", **bearer(TOKEN))[0] == 200


def test_the_socket_is_its_owners_and_needs_no_token(unix):
    assert stat.S_IMODE(unix.stat().st_mode) == 0o600
    assert b"example.com" in exchange(unix, b"GET /calls HTTP/1.1\r\nHost: whatever\r\n\r\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_curl_reads_both(unix, tcp):
    for where in (["--unix-socket", str(unix), "http://localhost/health"], [f"http://{tcp}/health"]):
        told = subprocess.run(["curl", "-sS", "--fail", *where], capture_output=True, timeout=20, check=True)
        assert json.loads(told.stdout)["live"]


def test_a_socket_left_by_a_killed_service_is_taken_over(tmp_path):
    path = tmp_path / "status.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with serving(path, Pretender(1)):
        assert exchange(path, b"GET /health/live HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        with pytest.raises(StatusError, match="another spanrec"):
            StatusServer(Pretender(1).board).listen(path)
    assert not path.exists()


def test_what_is_in_the_way_is_kept_and_named(tmp_path):
    path = tmp_path / "status.sock"
    path.write_text("mine")
    with pytest.raises(StatusError, match="is in the way"):
        StatusServer(Pretender(1).board).listen(path)
    assert path.read_text() == "mine"
    with pytest.raises(StatusError, match="cannot serve the status here"):
        StatusServer(Pretender(1).board).listen(tmp_path / "a" / "b" / "status.sock")
    with pytest.raises(StatusError, match="too long"):
        StatusServer(Pretender(1).board).listen(tmp_path / ("x" * 120))


def test_a_port_that_is_taken_is_named(tcp):
    with pytest.raises(StatusError, match=rf"127\.0\.0\.1:{tcp.port}: cannot serve"):
        StatusServer(Pretender(1).board).listen(tcp)


def test_a_request_has_a_longest_length(tcp):
    octets = b"GET /status HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * (LONGEST_REQUEST // 6)
    assert exchange(tcp, octets).startswith(b"HTTP/1.1 431 ")
    assert exchange(tcp, b"G" * LONGEST_REQUEST).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "octets", [b"\r\n\r\n", b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /status\r\n\r\n"]
)
def test_nonsense_ends_the_connection_and_nothing_else(tcp, octets):
    assert b"eth1" not in exchange(tcp, octets)
    assert get(tcp, "/health")[0] == 200


def test_a_client_that_dawdles_is_left_and_too_many_are_turned_away(monkeypatch, unix):
    monkeypatch.setattr(status_server, "DEADLINE", 1.0)
    begin = time.monotonic()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS + 1)]
    for client in clients:
        client.settimeout(20)
        client.connect(str(unix))
    assert clients[-1].recv(10) == b"", "one too many"
    # Octet by octet does not prolong it.
    while time.monotonic() - begin < 0.8:
        clients[0].sendall(b"G")
        time.sleep(0.1)
    assert clients[0].recv(10) == b""
    assert time.monotonic() - begin < 5
    for client in clients:
        client.close()
    assert exchange(unix, b"GET /health/live HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_service_that_fails_to_answer_is_500_and_is_told():
    failures: list[Exception] = []

    class Broken:
        def snapshot(self):
            raise KeyError("secret")

        def age(self):
            return 0.0

    server = StatusServer(Broken(), failures.append)
    try:
        address = server.listen(LOOPBACK)
        server.start()
        status, _, body = get(address, "/status")
    finally:
        server.close()
    assert (status, b"secret" in body, [type(failure) for failure in failures]) == (500, False, [KeyError])


def test_closing_leaves_no_thread_and_no_socket_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    with serving(tmp_path / "status.sock", Pretender(1)) as path:
        exchange(path, b"GET /health HTTP/1.1\r\n\r\n")
    assert len(os.listdir("/proc/self/fd")) == before
