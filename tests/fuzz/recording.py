"""Fuzz target: recording sessions that SRCs send us, from the body of an INVITE to calls of the engine."""

import asyncio
import tempfile
from functools import cache
from itertools import count
from pathlib import Path
from uuid import uuid4

from recorder.engine import Engine
from recorder.model import CallState
from recorder.sip_ua.api import EndedBy
from recorder.siprec.admission import Admission, AdmissionRules
from recorder.siprec.srs_answer import MAX_LINES
from recorder.siprec.srs_calls import GRACE, SessionCalls
from recorder.siprec.srs_sessions import RecordingServer
from tests.fuzz import seeds
from tests.fuzz.mutate import mutate_text
from tests.fuzz.packets import SCRATCH
from tests.fuzz.target import Target
from tests.srs_lab import SECOND, START, PaperAgent, PaperInvite, PaperPorts, line, message, metadata, multipart, peer
from tests.srs_lab import sdp as description

_NUMBERS = count()


class _Server:
    """One server for all inputs: what it keeps of one must not grow."""

    def __init__(self) -> None:
        self.now = START
        self.agent, self.ports, self.calls = PaperAgent(), PaperPorts(100), SessionCalls(keep=False)
        self.ended: list[CallState] = []
        self.directory = Path()
        """Of the calls of one input."""
        self.engine = Engine(
            directory_of=lambda _: self.directory,
            sink=lambda finished: self.ended.append(finished.call.state),
            observers=(self.calls,),
            identify=lambda _: uuid4(),
        )
        self.calls.attach(self.engine)
        rules = AdmissionRules(rate=1e9, burst=1 << 30)
        self.server = RecordingServer(self.agent, self.ports, self.calls, Admission(rules), clock=lambda: self.now)

    async def play(self, bodies: list[bytes]) -> None:
        """A session whose messages have these bodies: an INVITE, others within it, a BYE."""
        call_id = f"fuzz-{next(_NUMBERS)}@src"
        first = bodies[0] if bodies else b""
        incoming = PaperInvite(message("INVITE", call_id, first, _kind(first)), peer())
        self.agent.on_invite(incoming)
        self.turn()
        session = incoming.session
        for number, body in enumerate(bodies[1:12] if session is not None else ()):
            assert session is not None
            method = ("INVITE", "UPDATE", "INFO")[(len(body) + number) % 3]
            self.now += SECOND
            reply = await session.on_request(message(method, call_id, body, _kind(body)))
            assert 200 <= reply.status < 700
            self.turn()
            assert len(self.ports.open_ports) <= MAX_LINES
        if session is not None:
            last = bodies[-1]
            ended = message("BYE", call_id, last, _kind(last))
            session.end(EndedBy.PEER, ended)
        self.now += 2 * GRACE
        self.turn()
        await asyncio.sleep(0)

    def turn(self) -> None:
        self.calls.turn(self.now)
        self.engine.tick(self.now)


@cache
def _server() -> _Server:
    return _Server()


def _kind(body: bytes) -> str:
    """The type that its content asks for."""
    kinds = ("application/rs-metadata+xml", "application/sdp", 'multipart/mixed; boundary="b1"', "multipart/mixed")
    if body.startswith(b"--b1"):
        return kinds[2]
    return "" if not body else kinds[1] if body[:1] == b"v" else kinds[sum(body[:8]) % 4]


def run_recording_session(data: bytes) -> None:
    """Bodies, divided by NUL NUL, in one session after the other."""
    server = _server()
    # One for each input: libFuzzer ends the process without a chance to tidy up.
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="spanrec-fuzz-") as directory:
        server.directory = Path(directory)
        asyncio.run(server.play(data.split(b"\0\0")))
    assert server.ports.open_ports == []
    assert not server.engine.tracker.calls_active
    assert server.server.count == 0
    assert not server.calls._calls
    assert not server.calls._views
    assert not server.calls._over
    assert len(server.server._over) <= 1000


def sessions() -> list[bytes]:
    """Sessions as SRCs hold them."""
    offer = description(line(6000, "1"), line(6002, "2"))
    whole, _ = multipart(offer, metadata())
    held, _ = multipart(description(line(6000, "1"), line(6002, "2", "inactive")), metadata(mode="partial"))
    more, _ = multipart(description(line(6000, "1"), line(0, "2"), line(6004, "3")), metadata(labels=("1", "3")))
    return [
        b"\0\0".join([whole, held, more, metadata(stop=5).encode()]),
        b"\0\0".join([offer, metadata().encode(), b"", held]),
        b"\0\0".join([seeds.MULTIPART, whole, seeds.RS_METADATA]),
        b"\0\0".join([seeds.SDP, offer, whole]),
    ]


TARGETS = {"recording-session": Target(run_recording_session, sessions, mutate_text, 32_768, short=60)}
