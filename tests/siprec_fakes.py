"""A user agent, a forwarder and recording servers without a network, for tests of recording sessions.

In: what each server does with what it is sent. Out: what it was sent, as SIP messages that were parsed; what the
forwarder was asked, in order.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count
from uuid import UUID, uuid4

from capture.address import parse_endpoint
from decoders.sdp import Direction, PayloadFormat
from decoders.sip import SipMessage, parse_message
from recorder.model import CallState, Side, Transport
from recorder.sip_ua.api import Body, Ended, EndedBy, NewSession, Peer, RefusedError, Reply, UnreachableError
from recorder.siprec.legs import LegReport, LocalMedia
from recorder.siprec.mime_write import sdp_body
from recorder.siprec.picture import CallPicture, PartyPicture, Phase, StreamPicture
from recorder.siprec.sdp_write import write_sdp

SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
PCMU = PayloadFormat(0, "PCMU", 8000)
PCMA = PayloadFormat(8, "PCMA", 8000)
EVENTS = PayloadFormat(101, "telephone-event", 8000, fmtp="0-15")
NOISE = PayloadFormat(13, "CN", 8000)
OPUS = PayloadFormat(111, "opus", 48000, 2, "useinbandfec=1")
FORMATS = {0: PCMU, 101: EVENTS, 13: NOISE}
NAMES = {"alice": 1, "bob": 2, "carol": 3}


def message(start: str, body: Body | None = None, headers=()) -> SipMessage:
    """A parsed SIP message."""
    lines = [start, "Via: SIP/2.0/UDP a;branch=z9hG4bK1", "From: <sip:a@a>;tag=1", "To: <sip:b@b>;tag=2"]
    lines += ["Call-ID: x", f"CSeq: 1 {start.split()[0] if not start.startswith('SIP') else 'INVITE'}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Type: {body.content_type}")
        if body.disposition:
            lines.append(f"Content-Disposition: {body.disposition}")
    data = body.data if body is not None else b""
    lines += [f"Content-Length: {len(data)}", "", ""]
    parsed = parse_message("\r\n".join(lines).encode() + data)
    assert parsed is not None
    return parsed


def party(side: Side, call: UUID, name: str = "") -> PartyPicture:
    user = name or ("alice" if side is Side.CALLER else "bob")
    number = UUID(int=call.int ^ NAMES[user])
    address = parse_endpoint("192.0.2.10" if side is Side.CALLER else "192.0.2.20", 5060)
    joined = START if side is Side.CALLER else START + 2 * SECOND
    return PartyPicture(side, number, ((f"sip:{user}@example.com", user.title()),), address, joined)


def stream(side: Side, index: int = 0, formats=None, **changes) -> StreamPicture:
    made = StreamPicture(side, index, "audio", formats or FORMATS, sending=True, encrypted=False, keyed=False, ptime=20)
    return replace(made, **changes)


def picture(index: int = 1, call: UUID | None = None, **changes) -> CallPicture:
    """An answered call of Alice and Bob."""
    call = call or uuid4()
    made = CallPicture(
        index=index,
        id=call,
        group=call,
        call_id=f"call-{index}@192.0.2.10",
        phase=Phase.ANSWERED,
        started=START,
        answered=START + 2 * SECOND,
        ended=None,
        state=CallState.ACTIVE,
        parties=(party(Side.CALLER, call), party(Side.CALLEE, call)),
        streams=(stream(Side.CALLER), stream(Side.CALLEE)),
        session_ids=("ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2",),
    )
    return replace(made, **changes)


def over(call: CallPicture, at: int = START + 9 * SECOND) -> CallPicture:
    return replace(call, phase=Phase.OVER, ended=at, state=CallState.COMPLETED, reasons=(("Q.850", 16, "bye"),))


def held(call: CallPicture, by: Side) -> CallPicture:
    """`by` holds: it may send, the other one may not."""
    streams = tuple(replace(each, sending=each.side is by) for each in call.streams)
    return replace(call, held_by=frozenset({by}), streams=streams)


class FakeForwarder:
    """Opens, and remembers."""

    def __init__(self) -> None:
        self.open_legs: dict = {}
        self.said: list = []
        self.reports: dict = {}
        self._ports = count(40000, 2)
        self._ssrc = count(1)
        self.remotes: dict = {}
        self.paused: set = set()

    def open(self, leg, local_host, since):
        port = 40000 + (next(self._ports) - 40000) % 20000
        local = LocalMedia(
            parse_endpoint(local_host, port), parse_endpoint(local_host, port + 1), next(self._ssrc), "c"
        )
        assert leg not in self.open_legs
        self.open_legs[leg] = local
        self.said.append(("open", leg, since))
        return local

    def connect(self, leg, remote):
        assert leg in self.open_legs
        self.remotes[leg] = remote
        self.said.append(("connect", leg, remote))

    def pause(self, leg):
        self.paused.add(leg)
        self.said.append(("pause", leg))

    def resume(self, leg):
        self.paused.discard(leg)
        self.said.append(("resume", leg))

    def close(self, leg):
        self.open_legs.pop(leg)
        self.said.append(("close", leg))
        self.remotes.pop(leg, None)
        self.paused.discard(leg)
        return self.reports.pop(leg, None) or a_report()

    def report(self, legs):
        return {leg: self.reports.get(leg) or a_report() for leg in legs if leg in self.open_legs}

    def move(self, leg, local_host, since, to):
        self.said.append(("move", leg, to, since))
        self.close(leg)
        return self.open(to, local_host, since)

    def sending(self):
        """Legs that send: connected, agreed, not paused."""
        return {leg for leg, remote in self.remotes.items() if remote.sending and leg not in self.paused}


def a_report(**changes) -> LegReport:
    made = LegReport(0, 0, 0, None, None, None, None, None, None, False)
    return replace(made, **changes)


@dataclass
class FakeServer:
    """A recording server. `answer` and `on_*` may be replaced."""

    uri: str
    allow: str = "INVITE, ACK, BYE, UPDATE, OPTIONS"
    refusals: list = field(default_factory=list)
    """Exceptions for the next INVITEs; None: accepted."""
    always: Exception | None = None
    alive: bool = True
    received: list = field(default_factory=list)
    """(method, message, time)."""
    sessions: list = field(default_factory=list)
    change: object = None
    """Changes the answer: a function of a SessionDescription."""
    answers: object = None
    """Makes the body of a 2xx of an offer."""
    update_refusal: Exception | None = None
    update_silent: bool = False
    reinvite_refusals: list = field(default_factory=list)
    port: int = 30000

    def answer(self, offer: SipMessage) -> Body:
        description = offer.sdp()
        assert description is not None
        media = tuple(
            each._replace(
                port=each.port and self.port + 2 * each.index,
                rtcp_port=None,
                address="198.51.100.1",
                direction=Direction.RECVONLY if each.direction is Direction.SENDONLY else Direction.INACTIVE,
                crypto=tuple(replace(key, key=bytes(len(key.key))) for key in each.crypto[:1]),
            )
            for each in description.media
        )
        answered = replace(description, media=media, address="198.51.100.1")
        if self.change is not None:
            answered = self.change(answered)
        return sdp_body(write_sdp(answered))

    def body(self, offer: SipMessage) -> Body:
        return self.answers(offer) if self.answers is not None else self.answer(offer)

    def methods(self) -> list:
        return [method for method, *_ in self.received]

    def last(self, method: str) -> SipMessage:
        return next(each for name, each, _ in reversed(self.received) if name == method)


def ok(body: Body | None = None, headers=()) -> SipMessage:
    return message("SIP/2.0 200 OK", body, headers)


def refusal(status: int, body: Body | None = None, headers=()) -> RefusedError:
    return RefusedError(status, "No", message(f"SIP/2.0 {status} No", body, headers))


class FakeSession:
    """A dialog with a FakeServer."""

    _numbers = count(1)

    def __init__(self, server: FakeServer, answer: SipMessage, new: NewSession | None) -> None:
        self.server = server
        self.call_id = f"rs-{next(self._numbers)}"
        self.peer = Peer(parse_endpoint("198.51.100.1", 5060), Transport.UDP)
        self.local_uri, self.remote_uri = "sip:src@a", server.uri
        self.answer = answer
        self.new = new
        self.allows = frozenset(filter(None, (each.strip() for each in server.allow.split(","))))
        self.local_address = "127.0.0.1"
        self.on_request = None
        self.on_end = lambda ended: None
        self.over = False
        self.ack: asyncio.Future = asyncio.get_running_loop().create_future()
        server.sessions.append(self)

    def _note(self, method, body, headers):
        self.server.received.append((method, message(f"{method} {self.server.uri} SIP/2.0", body, headers), now()))
        return self.server.received[-1][1]

    async def reinvite(self, body, headers=(), answer=None):
        await asyncio.sleep(0)
        if self.over:
            raise UnreachableError("over")
        sent = self._note("INVITE", body, headers)
        if not self.server.alive:
            self.end(EndedBy.TRANSPORT)
            raise UnreachableError("no answer")
        if self.server.reinvite_refusals:
            raise self.server.reinvite_refusals.pop(0)
        return ok(self.server.body(sent))

    async def request(self, method, body=None, headers=()):
        await asyncio.sleep(0)
        if self.over:
            raise UnreachableError("over")
        self._note(method, body, headers)
        if not self.server.alive:
            self.end(EndedBy.TRANSPORT)
            raise UnreachableError("no answer")
        if method == "UPDATE" and self.server.update_silent:
            await asyncio.sleep(3600)
        if method == "UPDATE" and self.server.update_refusal:
            raise self.server.update_refusal
        return ok()

    async def bye(self, body=None, headers=()):
        self._note("BYE", body, headers)
        self.end(EndedBy.US)

    async def acknowledged(self):
        return await self.ack

    def end(self, by: EndedBy, text: str = "") -> None:
        """It is over."""
        if not self.over:
            self.over = True
            self.on_end(Ended(by, text=text))

    async def ask(self, method: str, body: Body | None = None, headers=()) -> Reply:
        """A request of the server."""
        return await self.on_request(message(f"{method} sip:src@a SIP/2.0", body, headers))


def now() -> float:
    return asyncio.get_running_loop().time()


class FakeAgent:
    """Sends to FakeServers."""

    def __init__(self, *servers: FakeServer) -> None:
        self.servers = {server.uri: server for server in servers}
        self.on_invite = None
        self.invites: list[NewSession] = []
        self.pings: Counter = Counter()
        self.keep_invites = True

    async def invite(self, new: NewSession):
        if self.keep_invites:
            self.invites.append(new)
        server = self.servers[new.uri]
        headers = [*new.headers, ("Contact", "<sip:src@a>;" + ";".join(new.contact_params))]
        sent = message(f"INVITE {new.uri} SIP/2.0", new.body, headers)
        server.received.append(("INVITE", sent, now()))
        await asyncio.sleep(0)
        if not server.alive:
            raise UnreachableError(f"{new.uri}: nobody answers")
        failure = server.refusals.pop(0) if server.refusals else server.always
        if failure is not None:
            raise failure
        return FakeSession(server, ok(server.body(sent), [("Allow", server.allow)]), new)

    async def ping(self, uri, credentials=None, timeout=5.0):
        self.pings[uri] += 1
        await asyncio.sleep(0)
        return ok() if self.servers[uri].alive else None

    async def close(self, patience=2.0):
        pass


def metadata_in(sent: SipMessage) -> bytes:
    """The metadata document of a message."""
    return next(part.data for part in sent.parts() if part.content_type.startswith("application/rs-metadata"))


def sdp_in(sent: SipMessage) -> bytes:
    """Its session description."""
    return next(part.data for part in sent.parts() if part.content_type == "application/sdp")


def sdp_body_of(lines: str) -> Body:
    """A session description with these lines after its head."""
    return sdp_body(f"v=0\r\no=srs 1 1 IN IP4 203.0.113.9\r\ns=-\r\nt=0 0\r\n{lines}".encode())
