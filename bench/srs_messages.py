"""SIP messages of the bench's recording clients: INVITE with two streams and complete metadata, and what follows it.

In: a client's address, the server's, an `RtpSender` whose sources are named in session descriptions. Out: octets (RFC
3261, RFC 7866, RFC 7865). A dialog is known by its number: its Call-ID begins with it, and its streams are those of the
number. It knows no more SIP than that takes, and shares no code with spanrec's user agent.
"""

import time
import uuid
from base64 import b64encode
from typing import NamedTuple

from bench.calls import mix, plan
from bench.rtp_sender import RtpSender

HOST = "127.0.0.1"
BOUNDARY = "bench-part"


class Answer(NamedTuple):
    """A response or request as it came in."""

    first: list[str]
    """Three words of the first line."""
    lines: list[str]
    fields: dict[str, str]
    """By lower-case name; of several of one name the last."""
    body: str

    @property
    def number(self) -> int:
        """Of its dialog; -1 where it is none of ours."""
        number = self.fields.get("call-id", self.fields.get("i", "")).partition("-")[0]
        return int(number) if number.isdecimal() else -1


def read(octets: bytes) -> Answer:
    """A message of the server."""
    head, _, body = octets.partition(b"\r\n\r\n")
    lines = head.decode("utf-8", "replace").split("\r\n")
    fields = {name.strip().lower(): text.strip() for name, _, text in (each.partition(":") for each in lines)}
    return Answer(lines[0].split(" ", 2), lines, fields, body.decode("utf-8", "replace"))


class Messages:
    """Writes the messages of one client."""

    def __init__(self, here: str, target: str, sender: RtpSender) -> None:
        """Both addresses as HOST:PORT."""
        self.here = here
        self.target = target
        self._sender = sender

    def invite(self, number: int, call: int | None = None, since: float | None = None) -> bytes:
        """The INVITE of a dialog that carries a call; that of its own number where none is given. `since`: when the
        call began, s since the epoch; now, if not told."""
        parts = (
            ("application/sdp", "session;handling=required", self.description(number)),
            ("application/rs-metadata+xml", "recording-session", metadata(number if call is None else call, since)),
        )
        body = "".join(
            f"--{BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Disposition: {use}\r\n\r\n{text}\r\n"
            for kind, use, text in parts
        )
        body += f"--{BOUNDARY}--\r\n"
        uri = f"sip:srs@{self.target}"
        extra = f'Require: siprec\r\nContent-Type: multipart/mixed;boundary="{BOUNDARY}"\r\n'
        return self.message(number, f"INVITE {uri} SIP/2.0", "1 INVITE", f"<{uri}>", extra, body)

    def request(
        self, number: int, method: str, cseq: int, remote: tuple[str, str], *, described: bool = False
    ) -> bytes:
        """A request within a dialog; `remote` is its target and its To. `described`: with the session description."""
        uri, to = remote
        body = self.description(number) if described else ""
        extra = "Content-Type: application/sdp\r\n" if described else ""
        return self.message(number, f"{method} {uri} SIP/2.0", f"{cseq} {method}", to, extra, body)

    def refused(self, number: int, to: str) -> bytes:
        """The ACK of an INVITE that was refused: of the same transaction (RFC 3261, section 17.1.1.3)."""
        uri = f"sip:srs@{self.target}"
        return self.message(number, f"ACK {uri} SIP/2.0", "1 ACK", to, "", "", branch="1INVITE")

    def response(self, status: str, request: Answer) -> bytes:
        """The response to a request of the server's."""
        kept = [
            each for each in request.lines[1:] if each.split(":")[0].lower() in ("via", "from", "to", "call-id", "cseq")
        ]
        return "\r\n".join([f"SIP/2.0 {status}", *kept, "Content-Length: 0", "", ""]).encode()

    def message(
        self, number: int, first: str, cseq: str, to: str, extra: str, body: str, branch: str | None = None
    ) -> bytes:
        """A request of ours."""
        branch = f"z9hG4bK{mix(number, 11):08x}{branch or cseq.replace(' ', '')}"
        return (
            f"{first}\r\nVia: SIP/2.0/UDP {self.here};branch={branch};rport\r\nMax-Forwards: 70\r\n"
            f"From: <sip:bench@{self.here}>;tag=f{mix(number, 12):08x}\r\nTo: {to}\r\n"
            f"Call-ID: {number}-{mix(number, 13):08x}@bench\r\nCSeq: {cseq}\r\n"
            f"Contact: <sip:bench@{self.here}>;+sip.src\r\n"
            f"Accept: application/sdp, application/rs-metadata-request\r\n"
            f"{extra}Content-Length: {len(body.encode())}\r\n\r\n{body}"
        ).encode()

    def description(self, number: int) -> str:
        """Two streams that are only sent."""
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
    return b64encode(uuid.UUID(int=whole, version=4).bytes).decode()


def metadata(number: int, since: float | None = None) -> str:
    """A complete recording element of a call of two, which began at `since`, s since the epoch, or now."""
    call = plan(number)
    session, one, two, first, second = (identifier(number, 100 + k) for k in range(5))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
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
