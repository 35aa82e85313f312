"""A recording client of the bench's own: sets recording sessions up and ends them, over UDP, for `bench.srs_load`.

In: where the recording server listens, how many sessions, and an `RtpSender`. Out: INVITEs at an even rate, each with a
session description of two streams and complete metadata (RFC 7866, RFC 7865), media as soon as the answer is there,
BYE when all of it is out. It knows no more SIP than that takes, and shares no code with spanrec's user agent.
"""

import re
import socket
import time
import uuid
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from bench.calls import mix, plan
from bench.rtp_sender import RtpSender

HOST = "127.0.0.1"
T1 = 0.5
GIVE_UP = 32.0
LINGER = 0.1
"""s between a session's last packet and its BYE."""
BOUNDARY = "bench-part"

IDLE, INVITED, TALKING, LEAVING, DONE, FAILED = range(6)


@dataclass(slots=True)
class Exchange:
    """A request that is not answered yet."""

    octets: bytes
    begun: float
    again: float
    wait: float = T1


@dataclass(slots=True)
class Told:
    """What became of the sessions."""

    set_up: int = 0
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    retransmitted: int = 0
    set_up_ms: list[float] = field(default_factory=list)


class RecordingClient:
    """All sessions of a run."""

    def __init__(self, server: tuple[str, int], sessions: int, sender: RtpSender, rate: float) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((HOST, 0))
        self._socket.connect(server)
        self._socket.setblocking(False)
        self._here = "{}:{}".format(*self._socket.getsockname())
        self._target = "{}:{}".format(*server)
        self._sender = sender
        self._gap = 1.0 / rate
        self.state = np.zeros(sessions, np.int8)
        self._exchanges: dict[int, Exchange] = {}
        self._remote: dict[int, tuple[str, str]] = {}
        """Session -> (request URI, To) of its dialog."""
        self._ended_at = np.zeros(sessions)
        self._next = 0
        self._begin = time.monotonic()
        self.told = Told()

    @property
    def over(self) -> bool:
        """Whether every session is done or has failed."""
        return bool((self.state >= DONE).all())

    def turn(self) -> None:
        """Send what is due and take what came."""
        now = time.monotonic()
        while self._next < len(self.state) and self._begin + self._next * self._gap <= now:
            self._ask(self._next, self.invite(self._next), INVITED, now)
            self._next += 1
        self._take(now)
        talking = np.flatnonzero(self.state == TALKING)
        if len(talking):
            done = self._sender.sent.reshape(-1, 2)[talking].min(axis=1) >= self._sender.packets
            for number in talking[done].tolist():
                if not self._ended_at[number]:
                    self._ended_at[number] = now
                elif now >= self._ended_at[number] + LINGER:
                    self._ask(number, self._request(number, "BYE", 2), LEAVING, now)
        for number, exchange in list(self._exchanges.items()):
            if now >= exchange.again:
                self._repeat(number, exchange, now)

    def close(self) -> None:
        self._socket.close()

    def _ask(self, number: int, octets: bytes, state: int, now: float) -> None:
        self.state[number] = state
        self._exchanges[number] = Exchange(octets, now, now + T1)
        self._send(octets)

    def _repeat(self, number: int, exchange: Exchange, now: float) -> None:
        if now - exchange.begun > GIVE_UP:
            self._fail(number, "no answer")
            return
        exchange.wait = min(2 * exchange.wait, 4.0)
        exchange.again = now + exchange.wait
        self.told.retransmitted += 1
        self._send(exchange.octets)

    def _fail(self, number: int, why: str) -> None:
        self.state[number] = FAILED
        self.told.failed[why] += 1
        self._exchanges.pop(number, None)

    def _send(self, octets: bytes) -> None:
        try:
            self._socket.send(octets)
        except OSError:
            self.told.failed["not sent"] += 0  # it is sent again

    def _take(self, now: float) -> None:
        for _ in range(256):
            try:
                octets = self._socket.recv(65535)
            except OSError:
                return
            head, _, body = octets.partition(b"\r\n\r\n")
            lines = head.decode("utf-8", "replace").split("\r\n")
            fields = {name.strip().lower(): text.strip() for name, _, text in (each.partition(":") for each in lines)}
            if lines[0].startswith("SIP/2.0 "):
                self._answered(lines[0].split(" ", 2), fields, body.decode("utf-8", "replace"), now)
            else:
                self._answer(lines[0], lines)

    def _answered(self, status: list[str], fields: dict[str, str], body: str, now: float) -> None:
        number = int(fields.get("call-id", fields.get("i", "0")).partition("-")[0])
        code, method = int(status[1]), fields["cseq"].split()[1]
        exchange = self._exchanges.get(number)
        if code < 200:
            if exchange is not None:
                exchange.again = now + GIVE_UP
            return
        if method == "INVITE":
            self._invited(number, code, fields, body, exchange, now)
        elif method == "BYE" and exchange is not None and self.state[number] == LEAVING:
            del self._exchanges[number]
            if code == 200:
                self.state[number] = DONE
                self.told.done += 1
            else:
                self._fail(number, f"BYE: {code}")

    def _invited(
        self, number: int, code: int, fields: dict[str, str], body: str, exchange: Exchange | None, now: float
    ) -> None:
        to = fields.get("to", fields.get("t", ""))
        if code >= 300:
            branch = f"z9hG4bK{mix(number, 11):08x}1INVITE"
            self._send(self._message(number, f"ACK sip:srs@{self._target} SIP/2.0", "1 ACK", to, branch, "", ""))
            if self.state[number] == INVITED:
                self._fail(number, f"{code}")
            return
        found = re.search(r"<([^>]+)>", fields.get("contact", fields.get("m", "")))
        self._remote[number] = (found[1] if found else f"sip:srs@{self._target}", to)
        self._send(self._request(number, "ACK", 1))
        if exchange is None or self.state[number] != INVITED:
            return
        del self._exchanges[number]
        host = re.search(r"^c=IN IP4 (\S+)", body, re.MULTILINE)
        ports = [int(each) for each in re.findall(r"^m=audio (\d+) ", body, re.MULTILINE)]
        if host is None or len(ports) != 2 or 0 in ports:
            self._fail(number, "answer")
            return
        self.told.set_up += 1
        self.told.set_up_ms.append((now - exchange.begun) * 1000)
        self.state[number] = TALKING
        for side, port in enumerate(ports):
            self._sender.begin(2 * number + side, host[1], port)

    def _answer(self, first: str, lines: list[str]) -> None:
        """200 for whatever the server asks (OPTIONS, re-INVITE is none of a bench's)."""
        method = first.split(" ")[0]
        if method == "ACK":
            return
        kept = [each for each in lines[1:] if each.split(":")[0].lower() in ("via", "from", "to", "call-id", "cseq")]
        code = "200 OK" if method in ("OPTIONS", "BYE", "INFO") else "488 Not Acceptable Here"
        self._send("\r\n".join([f"SIP/2.0 {code}", *kept, "Content-Length: 0", "", ""]).encode())

    def _request(self, number: int, method: str, cseq: int) -> bytes:
        uri, to = self._remote[number]
        branch = f"z9hG4bK{mix(number, 11):08x}{cseq}{method}"
        return self._message(number, f"{method} {uri} SIP/2.0", f"{cseq} {method}", to, branch, "", "")

    def invite(self, number: int) -> bytes:
        """The INVITE of a session."""
        parts = (
            ("application/sdp", "session;handling=required", self._description(number)),
            ("application/rs-metadata+xml", "recording-session", metadata(number)),
        )
        body = "".join(
            f"--{BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Disposition: {use}\r\n\r\n{text}\r\n"
            for kind, use, text in parts
        )
        body += f"--{BOUNDARY}--\r\n"
        uri = f"sip:srs@{self._target}"
        branch = f"z9hG4bK{mix(number, 11):08x}1INVITE"
        extra = f'Require: siprec\r\nContent-Type: multipart/mixed;boundary="{BOUNDARY}"\r\n'
        return self._message(number, f"INVITE {uri} SIP/2.0", "1 INVITE", f"<{uri}>", branch, extra, body)

    def _message(self, number: int, first: str, cseq: str, to: str, branch: str, extra: str, body: str) -> bytes:
        return (
            f"{first}\r\nVia: SIP/2.0/UDP {self._here};branch={branch};rport\r\nMax-Forwards: 70\r\n"
            f"From: <sip:bench@{self._here}>;tag=f{mix(number, 12):08x}\r\nTo: {to}\r\n"
            f"Call-ID: {number}-{mix(number, 13):08x}@bench\r\nCSeq: {cseq}\r\n"
            f"Contact: <sip:bench@{self._here}>;+sip.src\r\n"
            f"Accept: application/sdp, application/rs-metadata-request\r\n"
            f"{extra}Content-Length: {len(body.encode())}\r\n\r\n{body}"
        ).encode()

    def _description(self, number: int) -> str:
        lines = [f"v=0\r\no=bench {number} 1 IN IP4 {HOST}\r\ns=-\r\nc=IN IP4 {HOST}\r\nt=0 0\r\n"]
        for side in (0, 1):
            port = self._sender.source(2 * number + side)[1]
            lines.append(
                f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=rtcp:{port}\r\na=sendonly\r\n"
                f"a=label:{side + 1}\r\n"
            )
        return "".join(lines)


def identifier(number: int, salt: int) -> str:
    """A UUID in base64, as RFC 7865 writes them."""
    words = [mix(number, salt + 16 * k) for k in range(4)]
    whole = words[0] << 96 | words[1] << 64 | words[2] << 32 | words[3]
    whole = words[0] << 96 | words[1] << 64 | words[2] << 32 | words[3]
    return b64encode(uuid.UUID(int=whole, version=4).bytes).decode()


def metadata(number: int) -> str:
    """A complete recording element of a call of two."""
    call = plan(number)
    session, one, two, first, second = (identifier(number, 100 + k) for k in range(5))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    people = "".join(
        f'<participant participant_id="{who}"><nameID aor="{uri}"/></participant>'
        for who, uri in ((one, call.caller_uri), (two, call.callee_uri))
    )
    streams = "".join(
        f'<stream stream_id="{which}" session_id="{session}"><label>{label}</label></stream>'
        for which, label in ((first, 1), (second, 2))
    )
    present = "".join(
        f'<participantsessionassoc participant_id="{who}" session_id="{session}"><associate-time>{now}</associate-time>'
        f"</participantsessionassoc>"
        for who in (one, two)
    )
    media = "".join(
        f'<participantstreamassoc participant_id="{who}"><send>{sends}</send><recv>{hears}</recv>'
        f"</participantstreamassoc>"
        for who, sends, hears in ((one, first, second), (two, second, first))
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\r\n<recording xmlns="urn:ietf:params:xml:ns:recording:1">'
        f'<datamode>complete</datamode><session session_id="{session}"><start-time>{now}</start-time></session>'
        f"{people}{streams}"
        f'<sessionrecordingassoc session_id="{session}"><associate-time>{now}</associate-time></sessionrecordingassoc>'
        f"{present}{media}</recording>"
    )
