"""The recording server whole: user agent, media ports and live service, against an SRC over loopback."""

import asyncio
import socket
import struct
import threading
import time

import pytest

from capture.media_ports import MediaPortOptions, MediaPorts
from decoders.rtcp import parse_rtcp
from recorder.sip_ua.api import Body, NewSession
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.timers import Intervals
from recorder.siprec.admission import Admission, AdmissionRules
from recorder.siprec.loop import SessionLoop
from recorder.siprec.media_reception import MediaReception
from recorder.siprec.received import read
from recorder.siprec.srs_calls import SessionCalls
from recorder.siprec.srs_sessions import RecordingServer
from tests.live import recordings, service
from tests.sip_wire import listening
from tests.srs_by_hand import HandClient
from tests.srs_lab import line, metadata, multipart, sdp


class LiveServer:
    """A service in a thread of its own, and the sessions' loop."""

    def __init__(self, out, config=None):
        self.config = config
        options = MediaPortOptions(low=44000, high=44999, linger=0.05, rest=0.0, pace=0.002)
        self.reception = MediaReception(MediaPorts(options), interval=0.3)
        self.calls = SessionCalls()
        self.service = service(out, followers=(self.calls,))
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.loop = SessionLoop()

    def __enter__(self):
        self.thread.start()
        self.loop.start()
        assert self.ready.wait(60)
        self.agent, self.server, self.port = self.loop.run(self._open()).result(10)
        return self

    def __exit__(self, *_):
        self.loop.run(self._close()).result(10)
        time.sleep(0.2)
        self.service.stopping = True
        self.thread.join(30)
        self.loop.close()

    def _run(self):
        self.service.run([self.reception], self.ready.set, lambda _: None)

    async def _open(self):
        agent, _, ports = await listening(config=self.config)
        server = RecordingServer(agent, self.reception, self.calls, Admission(AdmissionRules()), run=self.loop.run)
        return agent, server, next(iter(ports.values()))

    async def _close(self):
        await self.server.close()
        await self.agent.close()


def rtp(sequence, value, ssrc):
    return struct.pack("!BBHII", 0x80, 0, sequence, sequence * 160, ssrc) + bytes([value]) * 160


async def record(live, seconds):
    """An SRC: a session, 50 packets a second on both lines, the receiver reports that come back."""
    agent, _, _ = await listening()
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
            each.setblocking(False)
        ends = [each.getsockname()[1] for each in sockets]
        lines = [line(ends[2 * n], str(n + 1), f"rtcp:{ends[2 * n + 1]}") for n in (0, 1)]
        start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        said = metadata(start=None).replace("</session>", f"<start-time>{start}</start-time></session>")
        said = said.replace("2026-09-21T14:13:20Z", start)
        body, kind = multipart(sdp(*lines, host="127.0.0.1"), said)
        new = NewSession(
            f"sip:srs@127.0.0.1:{live.port}", Body(kind, body), headers=[("Require", "siprec")],
            contact_params=["+sip.src"],
        )  # fmt: skip
        session = await agent.invite(new)
        answer = session.answer.sdp()
        begun = time.monotonic()
        for number in range(round(seconds * 50)):
            for place in (0, 1):
                target = ("127.0.0.1", answer.media[place].port)
                sockets[2 * place].sendto(rtp(number, 0x90 + place, 7 + place), target)
            await asyncio.sleep(max(begun + number / 50 - time.monotonic(), 0))
        await asyncio.sleep(0.2)
        listed = await asyncio.get_running_loop().run_in_executor(None, live.server.sessions)
        reports = [parse_rtcp(each.recv(2048)) for each in (sockets[1], sockets[3])]
        await session.bye()
        return session, answer, listed, reports
    finally:
        for each in sockets:
            each.close()
        await agent.close()


@pytest.fixture
def live(tmp_path):
    return LiveServer(tmp_path / "out")


def test_a_session_over_the_wire_is_a_recording(live, tmp_path):
    with live:
        session, answer, (info,), reports = asyncio.run(record(live, 2.0))
        assert [(m.direction, m.label) for m in answer.media] == [("recvonly", "1"), ("recvonly", "2")]
        assert "+sip.srs" in session.answer.get("contact")
        assert [leg.packets for leg in info.legs] == [100, 100]
        assert info.caller == "sip:alice@a.example"
        assert [report.receiver_reports[0].blocks[0].ssrc for report in reports] == [7, 8]
    ((document, directory),) = recordings(tmp_path / "out")
    assert (document.state, document.warnings) == ("completed", ())
    assert [(s.participant, s.packets, s.lost) for s in document.streams] == [("caller", 100, 0), ("callee", 100, 0)]
    # A machine that is busy with other things sends later than it says.
    assert 16000 <= document.audio.samples < 24000
    assert [each.what for each in read(directory)] == ["INVITE", "BYE"]


def test_what_is_said_until_the_client_has_seen_our_bye_is_recorded(tmp_path):
    """It never acknowledges our 200, and our BYEs are lost for a while (RFC 3261, section 13.3.1.4)."""
    with LiveServer(tmp_path / "out", AgentConfig(intervals=Intervals(t1=0.03))) as live:
        client = HandClient(live.port, acknowledges=False)
        while client.waits("BYE") is None:
            client.speak()
        lost, before = time.monotonic() + 0.5, client.spoken
        while (bye := client.waits("BYE")) is None or time.monotonic() < lost:
            client.speak()
        client.agree(bye)
        assert live.server.sessions()[0].state == "ended"
        client.close()
    assert client.spoken - before >= 20
    ((document, _),) = recordings(tmp_path / "out")
    assert [stream.packets for stream in document.streams] == [client.spoken] * 2
    assert document.state == "incomplete"
    assert "end-not-seen" in {warning.code for warning in document.warnings}
