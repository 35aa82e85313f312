"""Sessions with peers that are made by hand: timers, provisional responses, forks, glare, odd peers."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from weakref import ref

import pytest

from decoders.sip import SipMessage
from recorder.sip_ua.agent import SipAgent
from recorder.sip_ua.agent_session import AgentSession
from recorder.sip_ua.api import Body, Ended, EndedBy, Incoming, NewSession, RefusedError, Reply, UnreachableError
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.session import DialogSession
from tests.sip_network import MemoryTransports, Network, locate, random, run
from tests.sip_peer import RawPeer

US, THEM, OTHER = "10.0.0.1:5060", "10.0.0.2:5060", "10.0.0.3:5060"
SDP = "v=0\r\no=p 1 1 IN IP4 10.0.0.2\r\ns=-\r\nt=0 0\r\nm=audio 4002 RTP/AVP 0\r\n"
OFFER = Body("application/sdp", SDP.encode())
MIXED = Body(
    "multipart/mixed;boundary=b",
    b"--b\r\nContent-Type: application/sdp\r\n\r\n"
    + OFFER.data
    + b"\r\n--b\r\nContent-Type: text/x\r\n\r\nx\r\n--b--\r\n",
)
End = Callable[["Bench", str, AgentSession], Awaitable[None]]
ALLOW = ("Allow", "INVITE, ACK, BYE, CANCEL, UPDATE")


class Bench:
    """One agent and one peer by hand."""

    def __init__(self, config: AgentConfig | None = None) -> None:
        self.network = Network()
        self.agent = SipAgent(
            MemoryTransports(self.network, US), locate, config or AgentConfig(session_expires=None), random=random()
        )
        self.peer = RawPeer(self.network, THEM)
        self.ended: list[Ended] = []
        self.requests: list[SipMessage] = []
        self.delay = 0.0

    def invite(self, **changes: object) -> "asyncio.Task[AgentSession]":
        new = NewSession(**{"uri": f"sip:peer@{THEM}", "body": OFFER, "session_expires": None, **changes})

        async def begin() -> AgentSession:
            return self.adopt(await self.agent.invite(new))

        return asyncio.ensure_future(begin())

    def adopt(self, session: AgentSession) -> AgentSession:
        async def reply(message: SipMessage) -> Reply:
            self.requests.append(message)
            await asyncio.sleep(self.delay)
            return Reply(200, body=OFFER if message.method == "INVITE" or message.sdp() else None)

        session.on_request = reply
        session.on_end = self.ended.append
        return session

    async def session(self, *headers: tuple[str, str], **changes: object) -> tuple[AgentSession, SipMessage]:
        """An established session and its INVITE."""
        task = self.invite(**changes)
        invite = await self.peer.get("INVITE")
        self.peer.answer(invite, 200, ALLOW, *headers, body=OFFER)
        await self.peer.get("ACK")
        return await task, invite


def play(job: Coroutine[Any, Any, None]) -> None:
    run(job)


async def close(bench: Bench) -> None:
    await bench.agent.close()


@pytest.mark.parametrize(("params", "expected"), [("lr", "sip:peer@10.0.0.2:5060"), ("", "sip:10.0.0.3:5060")])
def test_requests_follow_the_route_set_loose_or_strict(params: str, expected: str):
    async def job() -> None:
        bench = Bench()
        proxy = RawPeer(bench.network, OTHER)
        task = bench.invite()
        invite = await bench.peer.get("INVITE")
        semicolon = f";{params}" if params else ""
        routes = f"<sip:far;lr>, <sip:{OTHER}{semicolon}>"
        bench.peer.answer(invite, 200, ("Record-Route", routes))
        ack = await proxy.get("ACK")
        assert ack.request_uri == expected
        there = f"<sip:{OTHER};lr>" if params else "<sip:far;lr>"
        assert ack.getlist("route")[0] == there
        assert len(ack.getlist("route")) == 2
        session = await task
        bye = asyncio.ensure_future(session.bye())
        request = await proxy.get("BYE")
        assert request.getlist("route") == ack.getlist("route")
        assert request.cseq == (2, "BYE")
        proxy.answer(request, 200)
        await bye
        await close(bench)

    play(job())


def test_a_reinvite_of_the_peer_moves_the_remote_target():
    async def job() -> None:
        bench = Bench()
        session, invite = await bench.session()
        moved = RawPeer(bench.network, OTHER)
        bench.peer.within(invite, "INVITE", 7, f"Contact: <sip:moved@{OTHER}>", body=SDP)
        await bench.peer.get("200")
        bench.peer.within(invite, "ACK", 7)
        task = asyncio.ensure_future(session.request("INFO"))
        # Two Contacts were given: the first, the peer's own, counts.
        first = await bench.peer.get("INFO")
        bench.peer.answer(first, 200)
        await task
        bench.peer.within(invite, "UPDATE", 8)
        await bench.peer.get("200")
        assert moved.address == OTHER
        await close(bench)

    play(job())


def test_requests_out_of_order_are_refused_and_equal_numbers_pass():
    async def job() -> None:
        bench = Bench()
        _, invite = await bench.session()
        bench.peer.within(invite, "INFO", 101)
        assert (await bench.peer.get()).status == 200
        bench.peer.within(invite, "INFO", 100)
        assert (await bench.peer.get()).status == 500
        bench.peer.within(invite, "INFO", 101)
        assert (await bench.peer.get()).status == 200
        await close(bench)

    play(job())


def test_a_request_that_comes_twice_is_answered_twice_and_asked_once():
    async def job() -> None:
        bench = Bench()
        _, invite = await bench.session()
        branch = bench.peer.within(invite, "INFO", 1)
        first = await bench.peer.get("200")
        bench.peer.within(invite, "INFO", 1, branch=branch)
        assert repr(first) == repr(await bench.peer.get("200"))
        assert len(bench.requests) == 1
        await close(bench)

    play(job())


def test_methods_of_the_session_that_we_do_not_take():
    async def job() -> None:
        bench = Bench()
        session, invite = await bench.session()
        for number, (method, status) in enumerate(
            [("SUBSCRIBE", 405), ("REFER", 405), ("PRACK", 481), ("OPTIONS", 200)]
        ):
            bench.peer.within(invite, method, number + 1)
            response = await bench.peer.get()
            assert response.status == status
            assert ("UPDATE" in response.getlist("allow")) == (status in (405, 200))
        bench.peer.within(invite, "INFO", 9, "Require: gruu, timer")
        refused = await bench.peer.get("420")
        assert refused.getlist("unsupported") == ["gruu"]
        assert not session.over
        await close(bench)

    play(job())


def test_reliable_provisional_responses_are_acknowledged_in_order():
    async def job() -> None:
        bench = Bench()
        task = bench.invite()
        invite = await bench.peer.get("INVITE")
        assert "100rel" in invite.getlist("supported")
        reliable = ("Require", "100rel")
        bench.peer.answer(invite, 183, reliable, ("RSeq", "5"), body=OFFER)
        prack = await bench.peer.get("PRACK")
        assert prack.get("rack") == "5 1 INVITE"
        assert prack.cseq == (2, "PRACK")
        bench.peer.answer(prack, 200)
        bench.peer.answer(invite, 183, reliable, ("RSeq", "7"))
        bench.peer.answer(invite, 183, reliable, ("RSeq", "5"))
        assert await bench.peer.quiet(1.0, "PRACK")
        bench.peer.answer(invite, 180, reliable, ("RSeq", "6"))
        again = await bench.peer.get("PRACK")
        assert again.get("rack") == "6 1 INVITE"
        bench.peer.answer(again, 200)
        bench.peer.answer(invite, 200)
        assert (await bench.peer.get("ACK")).cseq == (1, "ACK")
        session = await task
        assert session.answer.status == 183  # the answer was in it, and the 2xx has none
        assert session.answer.sdp() is not None
        bye = asyncio.ensure_future(session.bye())
        assert (await bench.peer.get("BYE")).cseq == (4, "BYE")
        await close(bench)
        await bye

    play(job())


def test_an_offer_in_a_reliable_provisional_response_is_answered_in_the_prack():
    async def job() -> None:
        bench = Bench()
        task = bench.invite(body=None, answer=lambda message: OFFER)
        invite = await bench.peer.get("INVITE")
        bench.peer.answer(invite, 183, ("Require", "100rel"), ("RSeq", "1"), body=OFFER)
        prack = await bench.peer.get("PRACK")
        assert prack.body == OFFER.data
        bench.peer.answer(prack, 200)
        bench.peer.answer(invite, 200)
        assert (await bench.peer.get("ACK")).body == b""
        await task
        await close(bench)

    play(job())


def test_every_2xx_of_a_forked_invite_is_acknowledged_and_all_but_the_first_ended():
    async def job() -> None:
        bench = Bench()
        task = bench.invite()
        invite = await bench.peer.get("INVITE")
        for tag in ("one", "two", "one", "two"):
            bench.peer.answer(invite, 200, tag=tag, body=OFFER)
        got = [await bench.peer.get() for _ in range(5)]
        acks = [message.to.tag for message in got if message.method == "ACK" and message.to]
        byes = [message for message in got if message.method == "BYE"]
        assert acks == ["one", "two", "one", "two"]
        assert [bye.to.tag for bye in byes if bye.to] == ["two"]
        bench.peer.answer(byes[0], 200)
        session = await task
        assert not session.over
        assert len(bench.agent.core.sessions) == 1
        await close(bench)

    play(job())


def test_an_offer_of_the_peer_meets_ours_and_is_told_to_wait():
    async def job() -> None:
        bench = Bench()
        session, invite = await bench.session()
        task = asyncio.ensure_future(session.request("UPDATE", OFFER))
        update = await bench.peer.get("UPDATE")
        bench.peer.within(invite, "UPDATE", 1, body=SDP)
        assert (await bench.peer.get()).status == 491
        bench.peer.within(invite, "INVITE", 2, body=SDP)
        assert (await bench.peer.get()).status == 491
        bench.peer.within(invite, "ACK", 2)
        bench.peer.within(invite, "UPDATE", 3)  # no offer, no glare
        assert (await bench.peer.get()).status == 200
        bench.peer.answer(update, 200, body=OFFER)
        await task
        bench.peer.within(invite, "UPDATE", 4, body=SDP)
        assert (await bench.peer.get()).status == 200
        await close(bench)

    play(job())


def test_our_offer_waits_for_the_ack_of_what_we_accepted():
    async def job() -> None:
        bench = Bench()
        bench.delay = 1.0
        session, invite = await bench.session()
        bench.peer.within(invite, "INVITE", 1, body=SDP)
        await bench.peer.get("100")
        task = asyncio.ensure_future(session.reinvite(OFFER))
        bench.peer.within(invite, "UPDATE", 2, body=SDP)
        busy = await bench.peer.get("500")
        assert 0 <= int(busy.get("retry-after") or -1) <= 10
        assert (await bench.peer.get("200")).cseq == (1, "INVITE")
        assert await bench.peer.quiet(2.0, "INVITE")
        bench.peer.within(invite, "ACK", 1)
        ours = await bench.peer.get("INVITE")
        bench.peer.answer(ours, 200, body=OFFER)
        await task
        await close(bench)

    play(job())


@pytest.mark.parametrize("caller", [True, False])
def test_after_a_491_the_owner_of_the_call_id_waits_longer(caller: bool):
    async def job() -> None:
        bench = Bench()
        if caller:
            session, _ = await bench.session()
        else:
            accepted: list[AgentSession] = []
            bench.agent.on_invite = lambda incoming: accepted.append(bench.adopt(incoming.accept(OFFER)))
            bench.peer.ask(US, "INVITE", body=SDP)
            answer = await bench.peer.get("200")
            bench.peer.ask(US, "ACK", to_value=answer.get("to") or "")
            session = accepted[0]
        task = asyncio.ensure_future(session.reinvite(OFFER))
        loop = asyncio.get_running_loop()
        for _ in range(5):
            request = await bench.peer.get("INVITE")
            begun = loop.time()
            bench.peer.answer(request, 491)
            await bench.peer.get("ACK")
            again = await bench.peer.get("INVITE")
            waited = loop.time() - begun - 0.02
            assert (2.1 <= round(waited, 3) <= 4.0) if caller else (0 <= round(waited, 3) <= 2.0)
            bench.peer.answer(again, 491)
            await bench.peer.get("ACK")
        with pytest.raises(RefusedError, match="491"):
            await task
        assert not session.over
        await close(bench)

    play(job())


def test_a_2xx_that_comes_again_is_acknowledged_again_within_a_session_too():
    async def job() -> None:
        bench = Bench()
        session, invite = await bench.session()
        bench.peer.answer(invite, 200, body=OFFER)
        await bench.peer.get("ACK")
        task = asyncio.ensure_future(session.reinvite(MIXED))
        request = await bench.peer.get("INVITE")
        for _ in range(3):
            bench.peer.answer(request, 200, body=OFFER)
            assert (await bench.peer.get()).cseq == (2, "ACK")
        await task
        await close(bench)

    play(job())


def test_a_reinvite_without_an_end_is_cancelled():
    async def job() -> None:
        bench = Bench(AgentConfig(session_expires=None, answer_timeout=10.0))
        session, _ = await bench.session()
        task = asyncio.ensure_future(session.reinvite(OFFER))
        request = await bench.peer.get("INVITE")
        bench.peer.answer(request, 100)
        cancel = await bench.peer.get("CANCEL", 12)
        assert cancel.top_branch == request.top_branch
        bench.peer.answer(cancel, 200)
        bench.peer.answer(request, 487)
        await bench.peer.get("ACK")
        with pytest.raises(RefusedError, match="487"):
            await task
        assert not session.over
        await close(bench)

    play(job())


def test_the_peer_may_cancel_its_reinvite():
    async def job() -> None:
        bench = Bench()
        bench.delay = 5.0
        session, invite = await bench.session()
        branch = bench.peer.within(invite, "INVITE", 1, body=SDP)
        await bench.peer.get("100")
        bench.peer.within(invite, "CANCEL", 1, branch=branch)
        got = [await bench.peer.get(), await bench.peer.get()]
        assert [(message.status, message.cseq) for message in got] == [(200, (1, "CANCEL")), (487, (1, "INVITE"))]
        bench.peer.within(invite, "ACK", 1, branch=branch)
        assert await bench.peer.quiet(10.0, "200")
        assert not session.over
        await close(bench)

    play(job())


def test_a_bye_answers_what_was_still_open():
    async def job() -> None:
        bench = Bench()
        bench.delay = 5.0
        _, invite = await bench.session()
        bench.peer.within(invite, "INVITE", 1, body=SDP)
        await bench.peer.get("100")
        bench.peer.within(invite, "BYE", 2)
        got = {(await bench.peer.get()).status for _ in range(2)}
        assert got == {200, 487}
        assert [ended.by for ended in bench.ended] == [EndedBy.PEER]
        bench.peer.within(invite, "INFO", 3)
        assert (await bench.peer.get("481")).status == 481
        await close(bench)

    play(job())


def test_a_contact_that_leads_nowhere_is_no_harm():
    async def job() -> None:
        bench = Bench()
        task = bench.invite()
        invite = await bench.peer.get("INVITE")
        bench.peer.answer(invite, 200, ("Contact", "<sip:rec@inside.docker.invalid>"), contact=False)
        await bench.peer.get("ACK")
        session = await task
        pending = asyncio.ensure_future(session.request("INFO"))
        request = await bench.peer.get("INFO")
        assert request.request_uri == "sip:rec@inside.docker.invalid"
        bench.peer.answer(request, 200)
        await pending
        await close(bench)

    play(job())


def test_a_sips_uri_gets_a_sips_contact():
    async def job() -> None:
        bench = Bench()
        task = bench.invite(uri=f"sips:peer@{THEM}")
        invite = await bench.peer.get("INVITE")
        assert invite.contact is not None
        assert invite.contact.uri == "sips:spanrec@10.0.0.1:5060"
        assert invite.vias[0].transport == "TLS"
        bench.peer.answer(invite, 480)
        with pytest.raises(RefusedError):
            await task
        await close(bench)

    play(job())


def test_a_request_that_nobody_waits_for_is_not_cancelled_on_the_wire():
    """CANCEL is for INVITE alone (RFC 3261, section 9.1)."""

    async def job() -> None:
        bench = Bench()
        session, _ = await bench.session()
        task = asyncio.ensure_future(session.request("INFO"))
        request = await bench.peer.get("INFO")
        task.cancel()
        await asyncio.sleep(0.1)
        bench.peer.answer(request, 100)
        assert await bench.peer.quiet(40, "CANCEL")
        assert not session.over
        await close(bench)

    play(job())


@pytest.mark.parametrize("crossing", [False, True])
def test_without_an_ack_the_session_ends_and_whoever_leads_it_is_told_when_the_peer_knows(crossing: bool):
    """RFC 3261, section 13.3.1.4; a BYE of the peer that crosses ours is answered 200 and told."""

    async def job() -> None:
        bench = Bench()
        told: list[SipMessage | None] = []
        begun: list[AgentSession] = []

        def take(incoming: Incoming) -> None:
            begun.append(bench.adopt(incoming.accept(OFFER)))
            begun[0].on_parted = told.append

        bench.agent.on_invite = take
        bench.peer.ask(US, "INVITE", 1, f"Contact: <sip:peer@{THEM}>", uri=f"sip:us@{US}", body=SDP)
        accepted = await bench.peer.get("200")
        bye = await bench.peer.get("BYE")
        assert [ended.by for ended in bench.ended] == [EndedBy.TIMER]
        await bench.peer.get("BYE")
        assert (told, begun[0].parted) == ([], False)
        if crossing:
            to = accepted.get("to") or ""
            bench.peer.ask(US, "BYE", 2, uri=f"sip:us@{US}", to_value=to)
            await bench.peer.get("200")
            assert [message.method for message in told if message is not None] == ["BYE"]
        bench.peer.answer(bye, 200)
        await asyncio.sleep(1.0)
        assert begun[0].parted
        assert len(told) == 1
        assert bench.agent.core.sessions == []
        await close(bench)

    play(job())


async def _bye_of_the_peer(bench: Bench, to: str, session: AgentSession) -> None:
    bench.peer.ask(US, "BYE", 9, uri=f"sip:us@{US}", to_value=to)
    await bench.peer.get("200")


async def _bye_of_ours(bench: Bench, to: str, session: AgentSession) -> None:
    asking = asyncio.ensure_future(session.bye())
    bench.peer.answer(await bench.peer.get("BYE"), 200)
    await asking


async def _requests_first(bench: Bench, to: str, session: AgentSession) -> None:
    for method in ("INFO", "INVITE"):
        asking = asyncio.ensure_future(session.request(method, OFFER))
        bench.peer.answer(await bench.peer.get(method), 200, body=OFFER)
        await asking
    await _bye_of_the_peer(bench, to, session)


async def _forgotten_by_the_peer(bench: Bench, to: str, session: AgentSession) -> None:
    async def answer() -> None:
        for method in ("OPTIONS", "BYE"):
            bench.peer.answer(await bench.peer.get(method), 481)

    answering = asyncio.ensure_future(answer())
    with pytest.raises(RefusedError):
        await session.request("OPTIONS")
    await answering


async def _silence(bench: Bench, to: str, session: AgentSession) -> None:
    with pytest.raises(UnreachableError):
        await session.request("OPTIONS")


async def _no_ack(bench: Bench, to: str, session: AgentSession) -> None:
    bench.peer.answer(await bench.peer.get("BYE"), 200)


@pytest.mark.parametrize(
    "end", [_bye_of_the_peer, _bye_of_ours, _requests_first, _forgotten_by_the_peer, _silence, _no_ack]
)
def test_a_session_that_is_over_does_not_wait_in_memory_for_a_search_for_cycles(end: End):
    """There are many, and the search comes late (`recorder.collection`)."""

    async def one(bench: Bench, begun: list[AgentSession]) -> "ref[DialogSession]":
        bench.peer.ask(US, "INVITE", 1, f"Contact: <sip:peer@{THEM}>", uri=f"sip:us@{US}", body=SDP)
        to = (await bench.peer.get("200")).get("to") or ""
        if end is not _no_ack:
            bench.peer.ask(US, "ACK", 1, uri=f"sip:us@{US}", to_value=to)
        await end(bench, to, begun[0])
        return ref(begun.pop().core)

    async def job() -> None:
        bench = Bench(AgentConfig(session_expires=1800))
        begun: list[AgentSession] = []
        bench.agent.on_invite = lambda incoming: begun.append(bench.adopt(incoming.accept(OFFER)))
        core = await one(bench, begun)
        await asyncio.sleep(100)
        assert core() is None
        await close(bench)

    gc.disable()
    try:
        play(job())
    finally:
        gc.enable()
