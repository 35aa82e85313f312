"""A recording client by hand, over UDP on loopback: it says what it is told to say, and answers nothing by itself.

In: the server's port. Out: a session that begins, its media, messages of the server as they come.
"""

import socket
import struct
import time

from decoders.sip import SipMessage, parse_message
from tests.srs_lab import line, metadata, multipart, sdp


class HandClient:
    """One session of two lines, from its INVITE on, which is answered when this is made."""

    def __init__(self, port: int, *, acknowledges: bool, number: int = 0) -> None:
        """`number`: of several at one server."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.settimeout(20)
        self._media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._number = number
        self.spoken = 0
        """Packets that were sent to each port."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        told = metadata(session=f"c2Vzc2lvbnNlc3Npb25zZXNzaW9{number}", start=None).replace("2026-09-21T14:13:20Z", now)
        body, kind = multipart(sdp(line(6000, "1"), line(6002, "2"), host="127.0.0.1"), told)
        self.say("INVITE", "<sip:srs@127.0.0.1>", f"Require: siprec\r\nContent-Type: {kind}\r\n", body)
        self.answer = self.get("200")
        description = self.answer.sdp()
        assert description is not None
        self.ports = [media.port for media in description.media]
        if acknowledges:
            self.say("ACK", self.answer.get("to") or "")

    def speak(self, packets: int = 1) -> None:
        """20 ms of sound to both ports, so often, in real time."""
        for _ in range(packets):
            for place, port in enumerate(self.ports):
                ssrc = 10 * self._number + place
                head = struct.pack("!BBHII", 0x80, 0, self.spoken, 160 * self.spoken, ssrc)
                self._media.sendto(head + bytes([0x90]) * 160, ("127.0.0.1", port))
            self.spoken += 1
            time.sleep(0.02)

    def say(self, method: str, to: str, extra: str = "", body: bytes = b"") -> None:
        """A request."""
        here = "{}:{}".format(*self.socket.getsockname())
        head = (
            f"{method} sip:srs@127.0.0.1 SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{method}{self._number};rport\r\n"
            f"From: <sip:src@{here}>;tag=a{self._number}\r\nTo: {to}\r\nCall-ID: {self._number}@hand\r\n"
            f"CSeq: 1 {method}\r\nContact: <sip:src@{here}>;+sip.src\r\nMax-Forwards: 70\r\n"
        )
        self.socket.send(f"{head}{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def get(self, what: str) -> SipMessage:
        """The next message that is `what`: a method or a status; others are passed over."""
        while True:
            message = parse_message(self.socket.recv(65536))
            assert message is not None
            if what in (message.method, str(message.status)):
                return message

    def waits(self, what: str) -> SipMessage | None:
        """Such a message, where one is there already."""
        self.socket.setblocking(False)
        try:
            return self.get(what)
        except BlockingIOError:
            return None
        finally:
            self.socket.settimeout(20)

    def agree(self, request: SipMessage) -> None:
        """200 to a request of the server."""
        named = ("via", "from", "to", "call-id", "cseq")
        lines = [f"{name}: {value}" for name in named for value in request.getlist(name)]
        self.socket.send("\r\n".join(["SIP/2.0 200 OK", *lines, "Content-Length: 0", "", ""]).encode())

    def close(self) -> None:
        """It is gone."""
        self.socket.close()
        self._media.close()
