"""A server that is told to stop ends in bounded time and well, whatever its peers do, with every recording finished."""

import socket
import struct
import time
from contextlib import closing

from decoders.sip import parse_message
from recorder.siprec.sip_settings import Ports
from tests.srs_lab import line, metadata, multipart, sdp
from tests.srs_running import running

DRAIN, FAREWELL, REST = 1.0, 4.0, 20.0
"""s: what the settings give, what peers have to answer, and all else on a machine that is busy."""


class MuteClient:
    """It begins a session over UDP and sends media; to what the server asks it never says a word."""

    def __init__(self, port: int, *, acknowledges: bool, number: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.settimeout(20)
        self.number = number
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        told = metadata(session=f"c2Vzc2lvbnNlc3Npb25zZXNzaW9{number}", start=None).replace("2026-09-21T14:13:20Z", now)
        body, kind = multipart(sdp(line(6000, "1"), line(6002, "2"), host="127.0.0.1"), told)
        self._say("INVITE", "<sip:srs@127.0.0.1>", f"Require: siprec\r\nContent-Type: {kind}\r\n", body)
        answer = self._final()
        description = answer.sdp()
        assert description is not None
        self.ports = [media.port for media in description.media]
        if acknowledges:
            self._say("ACK", answer.get("to") or "", "", b"")

    def speak(self, packets: int) -> None:
        """20 ms of sound to both ports, so often, as fast as goes."""
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as media:
            for sequence in range(packets):
                for place, port in enumerate(self.ports):
                    head = struct.pack("!BBHII", 0x80, 0, sequence, 160 * sequence, 10 * self.number + place)
                    media.sendto(head + bytes([0x90]) * 160, ("127.0.0.1", port))
                time.sleep(0.02)

    def close(self) -> None:
        self.socket.close()

    def _say(self, method: str, to: str, extra: str, body: bytes) -> None:
        here = "{}:{}".format(*self.socket.getsockname())
        head = (
            f"{method} sip:srs@127.0.0.1 SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{method}{self.number};rport\r\n"
            f"From: <sip:src@{here}>;tag=a{self.number}\r\nTo: {to}\r\nCall-ID: {self.number}@mute\r\n"
            f"CSeq: 1 {method}\r\nContact: <sip:src@{here}>;+sip.src\r\nMax-Forwards: 70\r\n"
        )
        self.socket.send(f"{head}{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def _final(self):
        while True:
            message = parse_message(self.socket.recv(65536))
            assert message is not None
            if (message.status or 0) >= 200:
                assert message.status == 200, message.reason
                return message


def test_peers_that_never_answer_a_bye_cost_neither_recordings_nor_time(tmp_path):
    """One of them did not even acknowledge our 200, which a BYE waits for (RFC 3261, section 15)."""
    with running(tmp_path, Ports(46100, 46199), f"drain = {DRAIN:.0f}") as server:
        clients = [MuteClient(server.ports["udp"], acknowledges=number != 2, number=number) for number in range(3)]
        for client in clients:
            client.speak(50)
        told = time.monotonic()
    took = time.monotonic() - told
    for client in clients:
        client.close()
    assert took < DRAIN + FAREWELL + REST
    assert server.messages("srs-failed") == []
    found = server.recordings()
    assert len(found) == 3
    for document, _ in found:
        assert document.state == "incomplete"
        assert "stopped" in {warning.code for warning in document.warnings}
        assert [stream.packets for stream in document.streams] == [50, 50]
    assert list((server.out / ".live").iterdir()) == []
