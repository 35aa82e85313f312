"""The recording server's ends: sockets, limits and files, without an engine behind them."""

import json
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from recorder.sip_ua.api import Peer, Reply
from recorder.sip_ua.listen import parse_listen
from recorder.siprec.admission import Admission, AdmissionRules
from recorder.siprec.sip_settings import Ports
from recorder.siprec.srs_service import SrsService, rate_first
from recorder.siprec.srs_settings import SrsSettings
from tests.live import FileSource, quiet_log, service
from tests.srs_lab import message, peer


@contextmanager
def serving(**said):
    """A server over TCP, and a connection to it."""
    settings = SrsSettings(listen=(parse_listen("tcp:127.0.0.1:0"),), ports=Ports(45000, 45099), **said)
    srs = SrsService(settings)
    try:
        srs.start()
        srs.follower.turn(0)  # as the engine does once it runs
        port = int(srs.listening[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            yield srs, connection
    finally:
        srs.close()


def invite(octets: int = 0, number: int = 1) -> bytes:
    head = (
        f"INVITE sip:srs@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK{number}\r\n"
        f"From: <sip:src@127.0.0.1>;tag=a{number}\r\nTo: <sip:srs@127.0.0.1>\r\nCall-ID: {number}@x\r\n"
        "CSeq: 1 INVITE\r\nContact: <sip:src@127.0.0.1>;+sip.src\r\nMax-Forwards: 70\r\nRequire: siprec\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {octets}\r\n\r\n"
    )
    return head.encode() + b"v" * octets


def final(connection: socket.socket) -> str:
    """Start line of the next final response."""
    received = b""
    while True:
        octets = connection.recv(65536)
        assert octets, "the connection was closed"
        received += octets
        while b"\r\n\r\n" in received:
            head, _, received = received.partition(b"\r\n\r\n")
            if not head.startswith(b"SIP/2.0 1"):
                return head.decode().partition("\r\n")[0]


@pytest.mark.parametrize("largest", [64 << 10, 256 << 10, 4 << 20])
def test_a_body_beyond_the_limit_is_answered_and_not_hung_up_on(largest):
    """What a connection takes follows from the limit, so that 413 can be said."""
    with serving(rules=AdmissionRules(largest_body=largest)) as (srs, connection):
        connection.sendall(invite(largest + 1))
        assert final(connection) == "SIP/2.0 413 Request Entity Too Large"
        connection.sendall(invite(largest, number=2))
        assert final(connection) == "SIP/2.0 488 Not Acceptable Here"
        assert srs.admission.refused["too-large"] == 1


def test_the_rate_comes_before_the_challenge(tmp_path):
    users = tmp_path / "users"
    users.write_text("alice:secret\n")
    users.chmod(0o600)
    rules = AdmissionRules(rate=0.001, burst=2)
    with serving(rules=rules, users_file=users) as (srs, connection):
        for number, wanted in enumerate(("401 Unauthorized", "401 Unauthorized", "503 Too Many Requests")):
            connection.sendall(invite(number=number))
            assert final(connection) == f"SIP/2.0 {wanted}"
        assert srs.admission.refused == {"rate": 1}


def test_an_invite_that_was_challenged_counts_once():
    admission = Admission(AdmissionRules(rate=0.001, burst=1))
    known = peer("192.0.2.7")

    def ask(said, who: Peer) -> Reply | Peer:
        return who

    admit = rate_first(admission, ask, lambda: 0.0)
    assert admit(message("INVITE"), known) is known
    assert admission.judge(known, 0, 0.0) is None
    refused = admit(message("INVITE"), known)
    assert isinstance(refused, Reply)
    assert (refused.status, refused.headers) == (503, [("Retry-After", "5")])


def test_a_certificate_that_cannot_be_renewed_is_an_alarm_of_the_service(tmp_path):
    log, written = quiet_log()
    running = service(tmp_path / "out", log=log, workers=1)
    running.note_certificate("key.pem: may not be read.")
    capture = Path(__file__).resolve().parents[3] / "pcaps" / "refused.pcap"
    running.run([FileSource(capture)], lambda: None, lambda _: None)
    told = [json.loads(line) for line in written.getvalue().splitlines()]
    (alarm,) = [line for line in told if line["event"] == "alarm"]
    assert (alarm["code"], alarm["text"]) == ("certificate", "key.pem: may not be read.")
