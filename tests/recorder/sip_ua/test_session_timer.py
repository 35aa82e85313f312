"""Session timers (RFC 4028): what is agreed, and what happens when nobody refreshes."""

import asyncio

import pytest

from recorder.sip_ua.agent import SipAgent
from recorder.sip_ua.agent_session import AgentSession
from recorder.sip_ua.api import Body, Ended, EndedBy, NewSession, RefusedError, Reply
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.session_timer import (
    SessionTimer,
    agree_as_client,
    agree_as_server,
    min_se,
    session_expires,
    too_small,
)
from tests.sip_messages import parsed, request, response
from tests.sip_network import MemoryTransports, Network, locate, random, run
from tests.sip_peer import RawPeer

US, THEM = "10.0.0.1:5060", "10.0.0.2:5060"
SDP = "v=0\r\no=p 1 1 IN IP4 10.0.0.2\r\ns=-\r\nt=0 0\r\nm=audio 4002 RTP/AVP 0\r\n"
OFFER = Body("application/sdp", SDP.encode())
MIXED = Body(
    "multipart/mixed;boundary=b",
    b"--b\r\nContent-Type: application/sdp\r\n\r\n"
    + OFFER.data
    + b"\r\n--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--\r\n",
)
UPDATE = ("Allow", "INVITE, ACK, BYE, UPDATE")


def asking(*headers: tuple[str, str]):
    return parsed(request("INVITE", headers=headers).encode("SIP/2.0/UDP a;branch=z9hG4bKx"))


TIMER = ("Supported", "timer")


@pytest.mark.parametrize(
    ("headers", "wanted", "agreed"),
    [
        ([], 1800, None),
        ([TIMER], 1800, SessionTimer(1800, ours=False)),
        ([TIMER], None, None),
        ([TIMER, ("Session-Expires", "600")], 1800, SessionTimer(600, ours=False)),
        ([TIMER, ("Session-Expires", "3600")], 1800, SessionTimer(1800, ours=False)),
        ([TIMER, ("Session-Expires", "3600"), ("Min-SE", "2400")], 1800, SessionTimer(2400, ours=False)),
        ([TIMER, ("Session-Expires", "600;refresher=uas")], 1800, SessionTimer(600, ours=True)),
        ([TIMER, ("x", "600 ; refresher=UAC")], 1800, SessionTimer(600, ours=False)),
        ([("Session-Expires", "600")], 1800, SessionTimer(600, ours=True)),
        ([("Session-Expires", "600")], None, SessionTimer(600, ours=True)),
        ([TIMER, ("Session-Expires", "soon")], 1800, SessionTimer(1800, ours=False)),
    ],
)
def test_what_we_answer(headers: list[tuple[str, str]], wanted: int | None, agreed: SessionTimer | None):
    assert agree_as_server(asking(*headers), wanted) == agreed


def test_what_a_2xx_means():
    assert agree_as_client(response(200)) is None
    assert agree_as_client(response(200, "INVITE", "Session-Expires: 120")) == SessionTimer(120, ours=True)
    assert agree_as_client(response(200, "INVITE", "Session-Expires: 120;refresher=uas")) == SessionTimer(120, False)
    assert agree_as_client(response(200, "INVITE", "Session-Expires: 1")) == SessionTimer(10, ours=True)
    assert session_expires(response(200, "INVITE", "x: 0;refresher=uac")) is None
    assert min_se(response(422, "INVITE", "Min-SE: 200;x")) == 200
    assert min_se(response(422)) == 90


def test_intervals_too_small_are_refused_only_where_the_peer_understands():
    assert too_small(asking(TIMER, ("Session-Expires", "60")), 90)
    assert not too_small(asking(("Session-Expires", "60")), 90)
    assert not too_small(asking(TIMER, ("Session-Expires", "90")), 90)


def test_the_deadlines():
    assert SessionTimer(1800, ours=True).refresh_after == 900
    assert SessionTimer(1800, ours=True).end_after == 1768
    assert SessionTimer(90, ours=True).end_after == 60
    assert SessionTimer(90, ours=True).header(request=True) == "90;refresher=uac"
    assert SessionTimer(90, ours=True).header(request=False) == "90;refresher=uas"
    assert SessionTimer(90, ours=False).header(request=True) == "90;refresher=uas"


class Bench:
    def __init__(self, **config: object) -> None:
        self.network = Network()
        self.agent = SipAgent(MemoryTransports(self.network, US), locate, AgentConfig(**config), random=random())
        self.peer = RawPeer(self.network, THEM)
        self.ended: list[Ended] = []

    def adopt(self, session: AgentSession) -> AgentSession:
        async def reply(message: object) -> Reply:
            return Reply(200)

        session.on_request = reply
        session.on_end = self.ended.append
        return session

    async def called(self, *headers: tuple[str, str], body: Body = OFFER) -> AgentSession:
        """A session that we began, with these header fields in the 2xx."""

        async def begin() -> AgentSession:
            return self.adopt(await self.agent.invite(NewSession(f"sip:p@{THEM}", body, session_expires=200)))

        task = asyncio.ensure_future(begin())
        invite = await self.peer.get("INVITE")
        assert invite.get("session-expires") == "200"
        assert "timer" in invite.getlist("supported")
        self.peer.answer(invite, 200, *headers, body=OFFER)
        await self.peer.get("ACK")
        return await task


def test_we_refresh_by_update_where_the_peer_allows_it():
    async def job() -> None:
        bench = Bench()
        session = await bench.called(UPDATE, ("Session-Expires", "200;refresher=uac"))
        loop = asyncio.get_running_loop()
        for _ in range(3):
            begun = loop.time()
            update = await bench.peer.get("UPDATE", 150)
            assert loop.time() - begun == pytest.approx(100, abs=0.1)
            assert update.get("session-expires") == "200;refresher=uac"
            assert update.body == b""
            bench.peer.answer(update, 200, ("Session-Expires", "200;refresher=uac"))
        assert not session.over
        await bench.agent.close()

    run(job())


def test_else_we_refresh_by_reinvite_with_the_description_as_it_was():
    async def job() -> None:
        bench = Bench()
        await bench.called(("Session-Expires", "200"), body=MIXED)
        for _ in range(2):
            invite = await bench.peer.get("INVITE", 150)
            assert invite.content_type == "application/sdp"
            assert invite.body == OFFER.data
            bench.peer.answer(invite, 200, ("Session-Expires", "200;refresher=uac"), body=OFFER)
            await bench.peer.get("ACK")
        await bench.agent.close()

    run(job())


def test_a_refresh_that_is_refused_is_tried_again_and_the_session_then_ends():
    async def job() -> None:
        bench = Bench()
        await bench.called(UPDATE, ("Session-Expires", "200;refresher=uac"))
        for _ in range(2):
            bench.peer.answer(await bench.peer.get("UPDATE", 150), 500)
        bench.peer.answer(await bench.peer.get("BYE", 150), 200)
        assert bench.ended[0].by is EndedBy.TIMER
        await bench.agent.close()

    run(job())


def test_a_session_that_the_peer_does_not_refresh_ends_with_a_bye():
    async def job() -> None:
        bench = Bench()
        session = await bench.called(UPDATE, ("Session-Expires", "200;refresher=uas"))
        begun = asyncio.get_running_loop().time()
        bye = await bench.peer.get("BYE", 200)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(168, abs=0.1)
        assert bye.reason_headers[0][1] == 408
        bench.peer.answer(bye, 200)
        assert bench.ended[0].by is EndedBy.TIMER
        assert session.over
        await bench.agent.close()

    run(job())


def test_a_refresh_of_the_peer_starts_the_timer_anew():
    async def job() -> None:
        bench = Bench()
        accepted: list[AgentSession] = []
        bench.agent.on_invite = lambda incoming: accepted.append(bench.adopt(incoming.accept(OFFER)))
        bench.peer.ask(US, "INVITE", 1, "Supported: timer", "Session-Expires: 300;refresher=uac", body=SDP)
        answer = await bench.peer.get("200")
        assert answer.get("session-expires") == "300;refresher=uac"
        assert answer.requires("timer")
        to = answer.get("to") or ""
        bench.peer.ask(US, "ACK", 1, to_value=to)
        for number in range(2, 6):
            await asyncio.sleep(250)
            bench.peer.ask(US, "UPDATE", number, "Supported: timer", "Session-Expires: 300", to_value=to)
            assert (await bench.peer.get("200")).get("session-expires") == "300;refresher=uac"
        assert not accepted[0].over
        await asyncio.sleep(280)
        assert accepted[0].over
        assert bench.ended[0].by is EndedBy.TIMER
        await bench.agent.close()

    run(job())


def test_a_422_is_mended_once_with_the_interval_that_it_asks_for():
    async def job() -> None:
        bench = Bench()
        task = asyncio.ensure_future(bench.agent.invite(NewSession(f"sip:p@{THEM}", OFFER, session_expires=200)))
        first = await bench.peer.get("INVITE")
        bench.peer.answer(first, 422, ("Min-SE", "500"))
        second = await bench.peer.get("INVITE")
        assert second.get("session-expires") == "500"
        assert second.get("min-se") == "500"
        assert second.cseq == (2, "INVITE")
        assert second.call_id == first.call_id
        bench.peer.answer(second, 422, ("Min-SE", "500"))
        with pytest.raises(RefusedError, match="422"):
            await task
        await bench.agent.close()

    run(job())


def test_we_answer_422_to_an_interval_that_is_too_small():
    async def job() -> None:
        bench = Bench(min_se=120)
        bench.agent.on_invite = lambda incoming: bench.adopt(incoming.accept(OFFER))
        bench.peer.ask(US, "INVITE", 1, "Supported: timer", "Session-Expires: 100", body=SDP)
        assert (await bench.peer.get("422")).get("min-se") == "120"
        await bench.agent.close()

    run(job())


def test_a_peer_without_session_timers_is_asked_whether_it_lives():
    async def job() -> None:
        bench = Bench(session_expires=600)
        session = await bench.called()
        for _ in range(2):
            options = await bench.peer.get("OPTIONS", 400)
            bench.peer.answer(options, 405)
        assert not session.over
        bench.peer.answer(await bench.peer.get("OPTIONS", 400), 481)
        bench.peer.answer(await bench.peer.get("BYE"), 481)
        assert bench.ended[0].by is EndedBy.TRANSPORT
        await bench.agent.close()

    run(job())
