"""A recording server on the table: its session layer and the real engine, with an SRC, a user agent and ports of paper.

`SrsLab` holds them together: messages go in as bytes, RTP as batches of raw IP packets at scripted times, recordings
come out as files. Time stands still but for `lab.after`.
"""

import asyncio
import itertools
import os
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from capture.address import Endpoint, parse_endpoint
from capture.batch import PacketBatch
from capture.media_ports import MediaPort, PortsExhausted
from decoders.sdp import SessionDescription, parse_sdp
from decoders.sip import SipMessage, parse_message
from recorder.document import CallDocument, parse
from recorder.engine import Engine, prepare
from recorder.live_calls import LiveCalls
from recorder.live_catalogue import LiveCatalogue
from recorder.live_publish import LivePublisher
from recorder.model import Call, Transport
from recorder.policy import Decision
from recorder.recovery import restore
from recorder.sip_ua.api import Body, Ended, EndedBy, Header, NewSession, Peer, RefusedError, Reply
from recorder.siprec.admission import Admission, AdmissionRules
from recorder.siprec.port_monitor import PortState
from recorder.siprec.receiver_reports import PortTerms
from recorder.siprec.srs_calls import SessionCalls
from recorder.siprec.srs_sessions import RecordingServer, ServerSettings
from recorder.store import RecordingStore

SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
SRS = "192.0.2.9"
SRC = "192.0.2.20"
NOTHING = PortState(0, None, None, None, None, 0, 0, 0, 0, None, None, None, 0, 0, 0, None, 0)


def stamp(seconds: float, zone: str = "Z") -> str:
    """dateTime of a moment after START, whole seconds."""
    return datetime.fromtimestamp((START + round(seconds * SECOND)) // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S") + zone


class PaperPorts:
    """A `Reception` that opens nothing."""

    def __init__(self, pairs: int = 1000) -> None:
        self.pairs = pairs
        self.open_ports: list[MediaPort] = []
        self.muted: set[int] = set()
        self.names: dict[int, str] = {}
        self.terms: dict[int, PortTerms] = {}
        self.states: dict[int, PortState] = {}
        self._numbers = itertools.count()

    def open(self, host: str) -> MediaPort:
        if len(self.open_ports) >= self.pairs:
            raise PortsExhausted("none is left")
        number = next(self._numbers)
        ends = [parse_endpoint(host, 40000 + 2 * (number % 10_000) + each) for each in (0, 1)]
        assert ends[0]
        assert ends[1]
        port = MediaPort(ends[0], ends[1], 2 * number, number)
        self.open_ports.append(port)
        return port

    def agree(self, port: MediaPort, terms: PortTerms) -> None:
        self.terms[port.rtp.port] = terms

    def state(self, port: MediaPort) -> PortState:
        return self.states.get(port.rtp.port, NOTHING)

    def note_call(self, port: MediaPort, session: str) -> None:
        self.names[port.rtp.port] = session

    def mute(self, port: MediaPort, *, muted: bool) -> None:
        (self.muted.add if muted else self.muted.discard)(port.rtp.port)

    def release(self, port: MediaPort) -> None:
        self.open_ports.remove(port)


async def _unheard(message: SipMessage) -> Reply:
    return Reply(500)


@dataclass
class PaperSession:
    """A dialog whose other side is the test."""

    call_id: str
    peer: Peer
    answer: SipMessage
    allows: frozenset[str]
    local_uri: str = f"sip:srs@{SRS}"
    remote_uri: str = f"sip:src@{SRC}"
    local_address: str = SRS
    on_request: Callable[[SipMessage], Awaitable[Reply]] = _unheard
    on_end: Callable[[Ended], None] = lambda ended: None
    on_parted: Callable[[SipMessage | None], None] = lambda bye: None
    over: bool = False
    parted: bool = True
    """What we end unasked, its other side knows at once."""
    sent: list[tuple[str, Body | None]] = field(default_factory=list)
    """Requests that were sent to it."""
    answers: list[SipMessage | Exception] = field(default_factory=list)
    """What it answers, in order; then 200 without a body."""
    ack: SipMessage | None = None

    async def reinvite(self, body: Body | None, headers: Sequence[Header] = (), answer: Any = None) -> SipMessage:
        return await self.request("INVITE", body, headers)

    async def request(self, method: str, body: Body | None = None, headers: Sequence[Header] = ()) -> SipMessage:
        self.sent.append((method, body))
        found = self.answers.pop(0) if self.answers else response(200)
        if isinstance(found, Exception):
            raise found
        return found

    async def bye(self, body: Body | None = None, headers: Sequence[Header] = ()) -> None:
        self.sent.append(("BYE", body))
        self.end(EndedBy.US)

    async def acknowledged(self) -> SipMessage | None:
        return self.ack or message("ACK", self.call_id)

    def end(self, by: EndedBy, message: SipMessage | None = None) -> None:
        self.over = True
        self.on_end(Ended(by, message))


@dataclass
class PaperInvite:
    """An INVITE that comes in."""

    message: SipMessage
    peer: Peer
    local_address: str = SRS
    cancelled: bool = False
    refused: tuple[int, str, list[Header]] | None = None
    session: PaperSession | None = None
    body: Body | None = None
    headers: Sequence[Header] = ()
    contact_params: Sequence[str] = ()

    def progress(self, status: int, reason: str = "") -> None:
        pass

    def accept(
        self, body: Body, headers: Sequence[Header] = (), contact_params: Sequence[str] = (), local_uri: str = ""
    ) -> PaperSession:
        allows = frozenset(self.message.getlist("allow"))
        self.body, self.headers, self.contact_params = body, headers, contact_params
        self.session = PaperSession(self.message.call_id or "", self.peer, self.message, allows)
        return self.session

    def refuse(self, status: int, reason: str = "", headers: Sequence[Header] = ()) -> None:
        self.refused = (status, reason, list(headers))

    @property
    def answer(self) -> SessionDescription:
        """The description that it was answered with."""
        assert self.body is not None, self.refused
        found = parse_sdp(self.body.data)
        assert found is not None
        return found


class PaperAgent:
    """A user agent that sends nothing."""

    def __init__(self) -> None:
        self.on_invite: Callable[[Any], None] = lambda incoming: None
        self.invites: list[NewSession] = []
        self.next: SipMessage | Exception | None = None
        """2xx of the SRC that is invited next."""
        self.acknowledged: Body | None = None

    async def invite(self, new: NewSession) -> PaperSession:
        self.invites.append(new)
        if isinstance(self.next, Exception):
            raise self.next
        assert self.next is not None
        assert new.answer is not None
        self.acknowledged = new.answer(self.next)
        session = PaperSession(self.next.call_id or "", peer(), self.next, frozenset())
        if self.acknowledged is None:
            session.over = True
            raise RefusedError(488, "Not Acceptable Here", None)
        return session


def peer(host: str = SRC, port: int = 5060, **known: Any) -> Peer:
    """An SRC."""
    address = parse_endpoint(host, port)
    assert address is not None
    return Peer(address, Transport.UDP, **known)


_CSEQ = itertools.count(1)


def message(
    method: str,
    call_id: str = "rs-1@src",
    body: bytes = b"",
    content_type: str = "",
    headers: Sequence[str] = (),
    *,
    contact: str = f"<sip:src@{SRC}>;+sip.src",
    require: str = "siprec",
    allow: str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE",
) -> SipMessage:
    """A request of an SRC."""
    lines = [
        f"{method} sip:srs@{SRS} SIP/2.0",
        f"Via: SIP/2.0/UDP {SRC}:5060;branch=z9hG4bK{next(_CSEQ)}",
        f"From: <sip:src@{SRC}>;tag=a",
        f"To: <sip:srs@{SRS}>",
        f"Call-ID: {call_id}",
        f"CSeq: {next(_CSEQ)} {method}",
        *([f"Contact: {contact}"] if contact else []),
        *([f"Require: {require}"] if require else []),
        *([f"Allow: {allow}"] if allow else []),
        *([f"Content-Type: {content_type}"] if content_type else []),
        *headers,
        f"Content-Length: {len(body)}",
    ]
    found = parse_message("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    assert found is not None
    return found


def response(
    status: int, body: bytes = b"", content_type: str = "application/sdp", contact: str = f"<sip:src@{SRC}>;+sip.src"
) -> SipMessage:
    """A response of an SRC."""
    kind = f"Content-Type: {content_type}\r\n" if body else ""
    head = f"SIP/2.0 {status} X\r\nCall-ID: rs-9@srs\r\nCSeq: 1 INVITE\r\nContact: {contact}\r\n{kind}"
    found = parse_message(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert found is not None
    return found


def line(
    port: int, label: str | None = None, *attributes: str, formats: str = "0 101", profile: str = "RTP/AVP"
) -> str:
    """A media description of an offer, `sendonly` unless said otherwise."""
    directed = any(each in ("sendonly", "sendrecv", "recvonly", "inactive", "") for each in attributes)
    more = [each for each in attributes if each]
    if "101" in formats.split():
        more += ["rtpmap:101 telephone-event/8000", "fmtp:101 0-15"]
    lines = [f"m=audio {port} {profile} {formats}", *(f"a={each}" for each in more)]
    if not directed:
        lines.append("a=sendonly")
    if label is not None:
        lines.append(f"a=label:{label}")
    return "\r\n".join(lines) + "\r\n"


def sdp(*lines: str, host: str = SRC, version: int = 1) -> bytes:
    """A description with media descriptions."""
    head = f"v=0\r\no=src 1 {version} IN IP4 {SRC}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    return (head + "".join(lines)).encode()


def multipart(description: bytes, metadata: bytes | str, boundary: str = "b1") -> tuple[bytes, str]:
    """Body and Content-Type of both."""
    data = metadata.encode() if isinstance(metadata, str) else metadata
    parts = [
        f"--{boundary}\r\nContent-Type: application/sdp\r\n\r\n".encode() + description,
        f"--{boundary}\r\nContent-Type: application/rs-metadata+xml\r\n"
        f"Content-Disposition: recording-session\r\n\r\n".encode()
        + data,
        f"--{boundary}--\r\n".encode(),
    ]
    return b"\r\n".join(parts), f'multipart/mixed; boundary="{boundary}"'


ALICE, BOB, CAROL = "YWxpY2VhbGljZWFsaWNlYQ==", "Ym9iYm9iYm9iYm9iYm9iYg==", "Y2Fyb2xjYXJvbGNhcm9sYw=="
CALL, GROUP = "Y2FsbGNhbGxjYWxsY2FsbA==", "Z3JvdXBncm91cGdyb3VwZw=="
S1, S2, S3 = "c3RyZWFtMXN0cmVhbTFzdA==", "c3RyZWFtMnN0cmVhbTJzdA==", "c3RyZWFtM3N0cmVhbTNzdA=="
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<recording xmlns="urn:ietf:params:xml:ns:recording:1">'


def metadata(
    *,
    session: str = CALL,
    start: float | None = 0.0,
    stop: float | None = None,
    labels: tuple[str, ...] = ("1", "2"),
    mode: str = "complete",
    more: str = "",
    associations: str | None = None,
) -> str:
    """A snapshot of a call between Alice and Bob, each on a stream of its own."""
    times = "" if start is None else f"<start-time>{stamp(start)}</start-time>"
    times += "" if stop is None else f"<stop-time>{stamp(stop)}</stop-time>"
    streams = "".join(
        f'<stream stream_id="{stream}" session_id="{session}"><label>{label}</label></stream>'
        for stream, label in zip((S1, S2), labels, strict=False)
    )
    flows = (
        f'<participantstreamassoc participant_id="{ALICE}"><send>{S1}</send><recv>{S2}</recv></participantstreamassoc>'
        f'<participantstreamassoc participant_id="{BOB}"><send>{S2}</send><recv>{S1}</recv></participantstreamassoc>'
    )
    return (
        f'{HEAD}<datamode>{mode}</datamode><group group_id="{GROUP}"/><session session_id="{session}">'
        f"<group-ref>{GROUP}</group-ref>{times}</session>"
        f'<participant participant_id="{ALICE}"><nameID aor="sip:alice@a.example"><name>Alice</name></nameID>'
        f'</participant><participant participant_id="{BOB}"><nameID aor="sip:bob@b.example"><name>Bob</name></nameID>'
        f"</participant>{streams}"
        f'<participantsessionassoc participant_id="{ALICE}" session_id="{session}"><associate-time>{stamp(0)}'
        f'</associate-time></participantsessionassoc><participantsessionassoc participant_id="{BOB}" '
        f'session_id="{session}"><associate-time>{stamp(0)}</associate-time></participantsessionassoc>'
        f"{flows if associations is None else associations}{more}</recording>"
    )


def partial(inner: str) -> str:
    """A partial document."""
    return f"{HEAD}<datamode>partial</datamode>{inner}</recording>"


@dataclass(frozen=True)
class Recording:
    """What was written of one call."""

    document: CallDocument
    directory: Path

    def samples(self) -> np.ndarray:
        """Of the audio, shape (n, channels)."""
        return soundfile.read(self.directory / "audio.wav", dtype="int16", always_2d=True)[0]

    @property
    def codes(self) -> list[str]:
        """Of its warnings."""
        return [warning.code for warning in self.document.warnings]


class SrsLab:
    """All of it."""

    def __init__(
        self,
        out: Path,
        *,
        settings: ServerSettings | None = None,
        rules: AdmissionRules | None = None,
        pairs: int = 1000,
        full: Callable[[], str | None] = lambda: None,
        keep: bool = True,
        now: int = START,
        correction: int = 0,
        taken_before: Mapping[bytes, int] | None = None,
    ) -> None:
        """`now`: when it begins, where an earlier one was killed with calls in progress. `correction`: what is added to
        wall-clock times to have capture times, ns. `taken_before`: see `SessionCalls.taken_before`."""
        self.correction = correction
        self.now = START
        self.store = RecordingStore(out)
        self.working = out / ".live"
        again = self.working.exists()
        self.working.mkdir(exist_ok=True)
        self.agent, self.ports = PaperAgent(), PaperPorts(pairs)
        self.calls = SessionCalls(keep=keep, correction=lambda: correction)
        self.live = LiveCalls(self.working, lambda facts: Decision())
        catalogue = LiveCatalogue(out, out / "catalogue.sqlite")
        self.publisher = LivePublisher(self.store, catalogue, self.working)
        self.engine = Engine(
            directory_of=self.live.directory_of,
            sink=self._over,
            observers=(self.live, self.calls),
            identify=self.live.identify,
            begun=self.live.begun,
            listening=self.live.listening,
            dropped=self.live.drop,
            headed=True,
        )
        self.calls.attach(self.engine)
        self.calls.taken_before(taken_before or {})
        if again:
            self.now = now
            restore(self.engine, self.live, self.working, now, self.calls.take_up)
        self.server = RecordingServer(
            self.agent, self.ports, self.calls, Admission(rules or AdmissionRules(), full), settings,
            clock=lambda: self.now - correction,
        )  # fmt: skip
        self._rtp: list[tuple[int, bytes]] = []
        self._number = 0

    # What happens

    def invite(self, request: SipMessage, who: Peer | None = None) -> PaperInvite:
        """An INVITE outside a dialog comes in."""
        incoming = PaperInvite(request, who or peer())
        self.agent.on_invite(incoming)
        self.turn()
        return incoming

    def record(
        self, description: bytes | None = None, said: str | bytes | None = None, call_id: str = "rs-1@src", **how: Any
    ) -> PaperInvite:
        """The usual INVITE comes in: two lines, Alice on the first and Bob on the second, with metadata."""
        offer = description if description is not None else sdp(line(6000, "1"), line(6002, "2"))
        body, kind = multipart(offer, said if said is not None else metadata())
        return self.invite(message("INVITE", call_id, body, kind, **how))

    async def within(self, incoming: PaperInvite, request: SipMessage) -> Reply:
        """A request within a dialog comes in."""
        assert incoming.session is not None
        reply = await incoming.session.on_request(request)
        self.turn()
        return reply

    async def again(
        self, incoming: PaperInvite, description: bytes | None, said: str | None = None, method: str = "INVITE"
    ) -> Reply:
        """A re-INVITE or UPDATE comes in."""
        call_id = incoming.message.call_id or ""
        if description is not None and said is not None:
            body, kind = multipart(description, said)
        elif description is not None:
            body, kind = description, "application/sdp"
        else:
            body, kind = (said or "").encode(), "application/rs-metadata+xml" if said else ""
        return await self.within(incoming, message(method, call_id, body, kind))

    def bye(self, incoming: PaperInvite, said: str | None = None) -> None:
        """The SRC ends a session."""
        assert incoming.session is not None
        kind = "application/rs-metadata+xml" if said else ""
        incoming.session.end(EndedBy.PEER, message("BYE", incoming.session.call_id, (said or "").encode(), kind))
        self.turn()

    def lose(self, incoming: PaperInvite) -> None:
        """The SRC is gone."""
        assert incoming.session is not None
        incoming.session.end(EndedBy.TRANSPORT)
        self.turn()

    def after(self, seconds: float) -> None:
        """Time passes, in steps of two seconds at most."""
        until = self.now + round(seconds * SECOND)
        while self.now < until:
            self.now = min(self.now + 2 * SECOND, until)
            self.turn()

    def turn(self) -> None:
        """What the service does some fifty times a second."""
        due = sorted(each for each in self._rtp if each[0] <= self.now)
        self._rtp = [each for each in self._rtp if each[0] > self.now]
        if due:
            self.engine.ingest(prepare(raw_batch(due, self._number)))
            self._number += len(due)
        self.engine.tick(self.now)
        self.calls.turn(self.now)

    # Media

    def speak(
        self,
        incoming: PaperInvite,
        place: int,
        seconds: float,
        *,
        value: int = 0x90,
        ssrc: int = 0,
        payload_type: int = 0,
        sequence: int = 100,
        begin: float = 0.0,
        source: str = SRC,
        port: int = 0,
        protect: Callable[[bytes], bytes] = lambda packet: packet,
    ) -> None:
        """Have a stream sent to a line from `begin` s from now on: 20 ms of one µ-law value a packet."""
        target = incoming.answer.media[place]
        destination = parse_endpoint(target.address, target.port)
        sender = parse_endpoint(source, port or 30000 + place)
        assert destination
        assert sender
        for number in range(round(seconds * 50)):
            at = self.now + round((begin + number / 50) * SECOND)
            head = struct.pack(
                ">BBHII", 0x80, payload_type, (sequence + number) & 0xFFFF, 160 * (sequence + number), ssrc or 7 + place
            )
            self._rtp.append((at, raw_udp(sender, destination, protect(head + bytes([value]) * 160))))

    def send(self, incoming: PaperInvite, place: int, octets: bytes, source: str = SRC, port: int = 0) -> None:
        """Send one datagram to a line."""
        target = incoming.answer.media[place]
        destination = parse_endpoint(target.address, target.port)
        sender = parse_endpoint(source, port or 30000 + place)
        assert destination
        assert sender
        self._rtp.append((self.now, raw_udp(sender, destination, octets)))

    def kill(self) -> None:
        """The process is killed; its last checkpoints were just written."""
        self.turn()
        assert self.engine.media is not None
        for media in self.engine.media.calls.values():
            self.live.save(media, self.engine.media.table, self.now)
            for track in media.tracks:
                self.engine.media._shards[0].pool.close(track)
        self.publisher.catalogue.close()
        os.close(self.store._lock)

    # What comes out

    def finish(self) -> list[Recording]:
        """Everything ends; the recordings, in order of start."""
        self.turn()
        self.engine.finish()
        self.publisher.start()
        assert self.publisher.close() == 0
        self.publisher.catalogue.close()
        self.store.close()
        found = [Recording(parse(path.read_bytes()), path.parent) for path in self.store.out.glob("*/*/*/*/call.json")]
        return sorted(found, key=lambda each: (each.document.started, each.document.id))

    def _over(self, finished: Any) -> None:
        ended = self.live.end(finished, self.engine.tracker.group_identifier(finished.call))
        if ended is not None:
            self.publisher.take(ended, self.correction)

    @property
    def active(self) -> list[Call]:
        """Calls in progress."""
        return list(self.engine.tracker.calls_active.values())


def run(lab: SrsLab, script: Callable[[SrsLab], Awaitable[None]]) -> list[Recording]:
    """Play a script, then end everything."""
    asyncio.run(script(lab))  # type: ignore[arg-type]
    return lab.finish()


def raw_udp(source: Endpoint, destination: Endpoint, payload: bytes) -> bytes:
    """An IPv4 packet."""
    size = 28 + len(payload)
    head = struct.pack(
        ">BBHHHBBHII", 0x45, 0, size, 0, 0, 64, 17, 0, source.low & 0xFFFFFFFF, destination.low & 0xFFFFFFFF
    )
    return head + struct.pack(">HHHH", source.port, destination.port, size - 20, 0) + payload


def raw_batch(packets: Sequence[tuple[int, bytes]], first: int) -> PacketBatch:
    """(time, packet) in columns."""
    sizes = np.array([len(packet) for _, packet in packets], np.int32)
    ends = np.cumsum(sizes, dtype=np.int64)
    return PacketBatch(
        buffer=np.frombuffer(b"".join(packet for _, packet in packets), np.uint8),
        time=np.array([time for time, _ in packets], np.int64),
        offset=ends - sizes,
        captured=sizes,
        wire=sizes,
        link_type=np.full(len(packets), 101, np.int32),
        number=np.arange(first + 1, first + 1 + len(packets), dtype=np.int64),
        capture=np.zeros(len(packets), np.int32),
    )
