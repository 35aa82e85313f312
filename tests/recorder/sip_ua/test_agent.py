"""Two agents talk over a network in memory."""

import asyncio
import gc
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from decoders.sip import SipMessage
from recorder.model import Transport
from recorder.sip_ua.agent import SipAgent
from recorder.sip_ua.agent_session import AgentSession
from recorder.sip_ua.api import (
    Body,
    Ended,
    EndedBy,
    Incoming,
    NewSession,
    RefusedError,
    Reply,
    UnreachableError,
)
from recorder.sip_ua.client_transaction import InviteClient, PlainClient
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.invite import Attempt
from recorder.sip_ua.sender import Outgoing
from tests.sip_network import MemoryTransports, Network, Seen, locate, random, run

ALICE, BOB, CAROL = "10.0.0.1:5060", "10.0.0.2:5060", "10.0.0.3:5060"
OFFER = Body("application/sdp", b"v=0\r\no=a 1 1 IN IP4 10.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n")
ANSWER = Body("application/sdp", b"v=0\r\no=b 1 1 IN IP4 10.0.0.2\r\ns=-\r\nt=0 0\r\nm=audio 4002 RTP/AVP 0\r\n")
MORE = Body("application/sdp", b"v=0\r\no=a 1 2 IN IP4 10.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n")
NOTE = Body("text/plain", b"hello")
PLAIN = AgentConfig(session_expires=None)


@dataclass
class Side:
    """One agent and what became of it."""

    agent: SipAgent
    transports: MemoryTransports
    sessions: list[AgentSession] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    requests: list[SipMessage] = field(default_factory=list)
    reply: Callable[[SipMessage], Awaitable[Reply]] | None = None

    def adopt(self, session: AgentSession) -> AgentSession:
        async def answer(message: SipMessage) -> Reply:
            self.requests.append(message)
            if self.reply is not None:
                return await self.reply(message)
            return Reply(200, body=ANSWER if message.method == "INVITE" or message.sdp() else None)

        session.on_request = answer
        session.on_end = self.ended.append
        self.sessions.append(session)
        return session

    def accept_all(self) -> None:
        def told(incoming: Incoming) -> None:
            accepted = incoming.accept(ANSWER)
            assert isinstance(accepted, AgentSession)
            self.adopt(accepted)

        self.agent.on_invite = told


def side(network: Network, address: str, config: AgentConfig = PLAIN, **options: object) -> Side:
    transports = MemoryTransports(network, address)
    agent = SipAgent(
        transports,
        locate,
        replace(config, contact_user=f"host{address.partition(':')[0][-1]}"),
        random=random(len(network.hosts)),
        date=lambda: "Thu, 01 Jan 2026 00:00:00 GMT",
        **options,
    )
    return Side(agent, transports)


def new(**changes: object) -> NewSession:
    plain = NewSession(f"sip:rec@{BOB}", OFFER, session_expires=None)
    return replace(plain, **changes)


async def connected(network: Network, config: AgentConfig = PLAIN, **changes: object) -> tuple[Side, Side]:
    """Alice's session with Bob, acknowledged."""
    alice, bob = side(network, ALICE, config), side(network, BOB, config)
    bob.accept_all()
    alice.adopt(await alice.agent.invite(new(**changes)))
    assert await bob.sessions[0].acknowledged() is not None
    return alice, bob


async def both_closed(*sides: Side) -> None:
    for one in sides:
        await one.agent.close()
        assert not one.agent.core.sessions


def test_a_session_begins_and_the_caller_ends_it():
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network)
        session = alice.sessions[0]
        assert session.answer.body == ANSWER.data
        assert session.call_id == bob.sessions[0].call_id
        assert bob.sessions[0].remote_uri == "sip:host1@10.0.0.1"
        assert session.local_address == "10.0.0.1"
        assert "UPDATE" in session.allows
        await session.bye(NOTE)
        assert session.over
        assert bob.sessions[0].over
        assert [ended.by for ended in alice.ended] == [EndedBy.US]
        assert [ended.by for ended in bob.ended] == [EndedBy.PEER]
        assert bob.ended[0].message is not None
        assert bob.ended[0].message.body == b"hello"
        await both_closed(alice, bob)

    run(job())
    assert network.starts() == ["INVITE", "200", "ACK", "BYE", "200"]


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
def test_requests_that_are_over_leave_nothing_for_the_collector_of_cycles(transport):
    network = Network()
    kinds = (Attempt, Outgoing, InviteClient, PlainClient)

    def left() -> int:
        return sum(isinstance(each, kinds) for each in gc.get_objects())

    async def job() -> None:
        gc.collect()
        gc.disable()
        before = left()
        way = ";transport=tcp" if transport is Transport.TCP else ""
        alice, bob = await connected(network, uri=f"sip:rec@{BOB}{way}")
        await alice.sessions[0].reinvite(MORE)
        await alice.sessions[0].request("OPTIONS")
        assert left() > before
        await alice.sessions[0].bye()
        await asyncio.sleep(40.0)  # longer than any transaction waits for more responses
        alice.sessions.clear()
        assert left() == before
        await both_closed(alice, bob)

    try:
        run(job())
    finally:
        gc.enable()


def test_the_callee_ends_it_too():
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network)
        await bob.sessions[0].bye()
        assert [ended.by for ended in alice.ended] == [EndedBy.PEER]
        await both_closed(alice, bob)

    run(job())
    assert network.starts()[-2:] == ["BYE", "200"]


def test_all_works_over_tcp_on_one_connection_however_the_contact_reads():
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network, uri=f"sip:rec@{BOB};transport=tcp")
        await bob.sessions[0].request("INFO", NOTE)
        await alice.sessions[0].reinvite(MORE)
        await bob.sessions[0].bye()
        assert len(alice.transports.connections) == 1
        await both_closed(alice, bob)

    run(job())
    assert {seen.transport for seen in network.seen} == {Transport.TCP}
    assert network.starts() == [
        "INVITE",
        "200",
        "ACK",
        "INFO",
        "200",
        *["INVITE", "100", "200", "ACK"],
        "BYE",
        "200",
    ]


def test_what_gets_lost_is_sent_again():
    """Of each message the first two copies are lost."""
    copies: dict[bytes, int] = {}

    def lossy(seen: Seen) -> tuple[float, ...]:
        copies[seen.data] = copies.get(seen.data, 0) + 1
        return () if copies[seen.data] <= 2 else (0.01,)

    network = Network(lossy)

    async def job() -> None:
        alice, bob = await connected(network, timeout=30.0)
        await alice.sessions[0].reinvite(MORE)
        await bob.sessions[0].request("INFO", NOTE)
        assert len(bob.requests) == 1
        assert len(alice.requests) == 1
        await alice.sessions[0].bye()
        assert bob.sessions[0].over
        await both_closed(alice, bob)

    run(job())


def test_a_refusal_says_what_the_peer_said():
    network = Network()

    async def job() -> None:
        alice, bob = side(network, ALICE), side(network, BOB)
        bob.agent.on_invite = lambda incoming: incoming.refuse(480, "Not now", [("Retry-After", "7")])
        with pytest.raises(RefusedError, match="480 Not now") as refused:
            await alice.agent.invite(new())
        assert refused.value.retry_after == 7
        await both_closed(alice, bob)

    run(job())
    assert network.starts() == ["INVITE", "480", "ACK"]


def test_nobody_there_is_said_after_the_timeout():
    network = Network()

    async def job() -> float:
        alice = side(network, ALICE)
        begun = alice.agent.now()
        with pytest.raises(UnreachableError, match=r"10\.0\.0\.2:5060/udp: no response within 5 s"):
            await alice.agent.invite(new())
        took = alice.agent.now() - begun
        await both_closed(alice)
        return took

    assert run(job()) == pytest.approx(5.0)


def test_the_next_target_is_tried_where_one_is_silent_refuses_connections_or_is_busy():
    network = Network()
    dave = "10.0.0.4:5060"

    async def four(uri: str) -> list:
        targets = [await locate(f"sip:{BOB}"), await locate(f"sip:{BOB};transport=tcp"), await locate(f"sip:{CAROL}")]
        return [target for found in [*targets, await locate(f"sip:{dave}")] for target in found]

    async def job() -> None:
        alice, carol, last = side(network, ALICE), side(network, CAROL), side(network, dave)
        alice.agent._locate = four
        carol.agent.on_invite = lambda incoming: incoming.refuse(503)
        last.accept_all()
        session = await alice.agent.invite(new(timeout=2.0))
        assert str(session.peer.address) == dave
        branches = {seen.message.top_branch for seen in network.seen if seen.message.method == "INVITE"}
        assert len(branches) == 4
        await session.bye()
        await both_closed(alice, carol, last)

    run(job())


def test_a_redirection_is_followed_by_q_and_a_loop_is_not():
    network = Network()

    async def job() -> None:
        alice, bob, carol = side(network, ALICE), side(network, BOB), side(network, CAROL)
        contacts = f"<sip:nobody@10.0.0.9:5060>;q=0.2, <sip:x@{CAROL}>;q=0.9, <sip:rec@{BOB}>"
        bob.agent.on_invite = lambda incoming: incoming.refuse(302, headers=[("Contact", contacts)])
        carol.accept_all()
        session = await alice.agent.invite(new())
        assert str(session.peer.address) == CAROL
        carol.agent.on_invite = lambda incoming: incoming.refuse(302, headers=[("Contact", f"<sip:rec@{BOB}>")])
        with pytest.raises((RefusedError, UnreachableError)):
            await alice.agent.invite(new())
        await both_closed(alice, bob, carol)

    run(job())


def test_cancelling_the_task_cancels_the_invite_once_it_was_heard():
    network = Network()

    async def job() -> None:
        alice, bob = side(network, ALICE), side(network, BOB)
        waiting: list[Incoming] = []
        bob.agent.on_invite = waiting.append
        task = asyncio.ensure_future(alice.agent.invite(new()))
        await asyncio.sleep(0.5)
        waiting[0].progress(180)
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.sleep(0.5)
        assert waiting[0].cancelled
        with pytest.raises(UnreachableError):
            waiting[0].accept(ANSWER)
        await both_closed(alice, bob)

    run(job())
    assert network.starts() == ["INVITE", "100", "180", "CANCEL", "200", "487", "ACK"]


def test_a_cancel_waits_for_a_provisional_response_and_a_2xx_that_crosses_it_is_ended():
    network = Network()

    async def job() -> None:
        alice, bob = side(network, ALICE), side(network, BOB)
        bob.accept_all()
        task = asyncio.ensure_future(alice.agent.invite(new()))
        await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.sleep(5)
        assert bob.sessions[0].over
        assert bob.ended[0].by is EndedBy.PEER
        await both_closed(alice, bob)

    run(job())
    starts = network.starts()
    assert starts[:2] == ["INVITE", "200"]
    assert "ACK" in starts
    assert "BYE" in starts


def test_glare_sorts_itself_out():
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network)
        answers = await asyncio.gather(alice.sessions[0].reinvite(MORE), bob.sessions[0].reinvite(ANSWER))
        assert [answer.status for answer in answers] == [200, 200]
        assert network.starts().count("491") >= 1
        await both_closed(alice, bob)

    run(job())


def test_reinvites_go_one_at_a_time():
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network)
        first = len(network.seen)
        await asyncio.gather(*(alice.sessions[0].reinvite(MORE) for _ in range(3)))
        assert network.starts()[first:] == ["INVITE", "100", "200", "ACK"] * 3
        await both_closed(alice, bob)

    run(job())


def test_a_reinvite_while_another_is_being_answered_is_told_to_come_again():
    """A second INVITE of the same side is its mistake: it is made by hand here."""
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network)

        async def slowly(message: SipMessage) -> Reply:
            await asyncio.sleep(2.0)
            return Reply(200, body=ANSWER)

        bob.reply = slowly
        core = alice.sessions[0].core
        task = asyncio.ensure_future(alice.sessions[0].reinvite(MORE))
        await asyncio.sleep(0.1)
        core._asks._current = None
        second = asyncio.ensure_future(alice.sessions[0].reinvite(MORE))
        await asyncio.sleep(0.1)
        refused = network.seen[-2].message
        assert refused.status == 500
        assert 0 <= int(refused.get("retry-after") or -1) <= 10
        second.cancel()
        task.cancel()
        await both_closed(alice, bob)

    run(job())


def test_the_peer_makes_the_offer_where_we_make_none():
    network = Network()
    offers: list[bytes] = []

    def answer(message: SipMessage) -> Body:
        offers.append(message.body)
        return ANSWER

    async def job() -> None:
        alice, bob = side(network, ALICE), side(network, BOB)
        accepted: list[AgentSession] = []
        bob.agent.on_invite = lambda incoming: accepted.append(bob.adopt(incoming.accept(OFFER)))
        alice.adopt(await alice.agent.invite(new(body=None, answer=answer)))
        ack = await accepted[0].acknowledged()
        assert offers == [OFFER.data]
        assert ack is not None
        assert ack.body == ANSWER.data
        bob.reply = None
        with_offer = await alice.sessions[0].reinvite(None, answer=answer)
        assert with_offer.body == ANSWER.data
        again = await accepted[0].acknowledged()
        assert again is not None
        assert again is not ack
        assert again.body == ANSWER.data
        await both_closed(alice, bob)

    run(job())


def test_an_offer_that_cannot_be_answered_ends_the_session():
    network = Network()

    async def job() -> None:
        alice, bob = side(network, ALICE), side(network, BOB)
        bob.accept_all()
        with pytest.raises(RefusedError, match="488"):
            await alice.agent.invite(new(body=None))
        await asyncio.sleep(1)
        assert bob.sessions[0].over
        await both_closed(alice, bob)

    run(job())


def test_no_ack_ends_the_session_after_64_t1():
    network = Network(lambda seen: () if seen.message.method == "ACK" else (0.01,))

    async def job() -> None:
        alice, bob = side(network, ALICE), side(network, BOB)
        bob.accept_all()
        alice.adopt(await alice.agent.invite(new()))
        begun = bob.agent.now()
        assert await bob.sessions[0].acknowledged() is None
        assert bob.agent.now() - begun == pytest.approx(32, abs=0.1)
        assert bob.ended[0].by is EndedBy.TIMER
        await asyncio.sleep(1)
        assert alice.ended[0].by is EndedBy.PEER
        await both_closed(alice, bob)

    run(job())
    answered = [seen.at for seen in network.seen if seen.message.status == 200 and "INVITE" in str(seen.message.cseq)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(answered)]
    assert gaps[:6] == pytest.approx([0.5, 1, 2, 4, 4, 4])


def test_a_bye_does_not_overtake_the_ack():
    late = {"ACK": 3.0}
    network = Network(lambda seen: (late.get(seen.message.method or "", 0.01),))

    async def job() -> None:
        alice, bob = side(network, ALICE), side(network, BOB)
        bob.accept_all()
        alice.adopt(await alice.agent.invite(new()))
        await bob.sessions[0].bye()
        assert alice.sessions[0].over
        await both_closed(alice, bob)

    run(job())
    byes = [seen for seen in network.seen if seen.message.method == "BYE"]
    acks = [seen for seen in network.seen if seen.message.method == "ACK"]
    assert len(byes) == 1
    assert byes[0].at >= acks[0].at + 3.0


def test_silence_within_the_session_ends_it():
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network)
        bob.transports.vanish()
        with pytest.raises(UnreachableError, match="INFO: no response"):
            await alice.sessions[0].request("INFO", NOTE)
        assert alice.ended[0].by is EndedBy.TRANSPORT
        with pytest.raises(UnreachableError, match="over"):
            await alice.sessions[0].reinvite(MORE)
        await both_closed(alice)

    run(job())


def test_a_peer_that_forgot_the_session_ends_it_but_other_refusals_do_not():
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network)

        async def refuse(message: SipMessage) -> Reply:
            return Reply(488)

        bob.reply = refuse
        with pytest.raises(RefusedError, match="488"):
            await alice.sessions[0].reinvite(MORE)
        assert not alice.sessions[0].over
        bob.agent.core._sessions.clear()
        with pytest.raises(RefusedError, match="481"):
            await alice.sessions[0].reinvite(MORE)
        assert alice.ended[0].by is EndedBy.TRANSPORT
        await both_closed(alice, bob)

    run(job())


def test_large_requests_leave_udp_for_tcp_and_come_back_where_there_is_none():
    large = Body("application/sdp", OFFER.data + b"a=x:" + b"y" * 1500 + b"\r\n")

    async def job(served: tuple[Transport, ...]) -> list[Seen]:
        network = Network()
        alice = side(network, ALICE)
        bob = side(network, BOB)
        bob.transports.vanish()
        bob.transports.served = served
        bob.transports.open()
        bob.accept_all()
        alice.adopt(await alice.agent.invite(new(body=large)))
        assert await bob.sessions[0].acknowledged() is not None
        await alice.sessions[0].reinvite(large)
        await both_closed(alice, bob)
        return [seen for seen in network.seen if seen.message.method == "INVITE"]

    by_tcp = run(job((Transport.UDP, Transport.TCP)))
    assert [seen.transport for seen in by_tcp] == [Transport.TCP, Transport.TCP]
    assert by_tcp[0].message.vias[0].transport == "TCP"
    without = run(job((Transport.UDP,)))
    assert [(seen.transport, seen.lost) for seen in without] == [
        (Transport.TCP, True),
        (Transport.UDP, False),
        (Transport.UDP, False),
    ]


def test_ping_tells_who_is_there():
    network = Network()

    async def job() -> None:
        alice, bob = side(network, ALICE), side(network, BOB)
        response = await alice.agent.ping(f"sip:{BOB}")
        assert response is not None
        assert response.status == 200
        assert "application/rs-metadata+xml" in response.getlist("accept")
        assert "INVITE" in response.getlist("allow")
        assert {"siprec", "timer"} <= set(response.getlist("supported"))
        assert await alice.agent.ping(f"sip:{CAROL}", timeout=3.0) is None
        assert await alice.agent.ping("sip:name.invalid") is None
        await both_closed(alice, bob)

    run(job())


def test_a_header_with_a_line_break_is_refused_before_anything_is_sent():
    network = Network()

    async def job() -> None:
        alice = side(network, ALICE)
        with pytest.raises(ValueError, match="line break"):
            await alice.agent.invite(new(headers=[("X-Evil", "a\r\nVia: b")]))
        assert network.seen == []
        await asyncio.sleep(60)
        alice, bob = await connected(network)
        session = alice.sessions[0]
        for ask in (session.reinvite(MORE, [("X", "a\nb")]), session.bye(headers=[("X:", "a")])):
            with pytest.raises(ValueError, match=r"line break|header name"):
                await ask
        assert (await session.reinvite(MORE)).status == 200
        await both_closed(alice, bob)

    run(job())


def test_a_connection_that_breaks_is_made_anew_and_the_session_goes_on():
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network, uri=f"sip:rec@{BOB};transport=tcp")
        alice.transports.drop()
        await alice.sessions[0].reinvite(MORE)
        alice.transports.drop()
        await bob.sessions[0].request("INFO", NOTE)
        pending = asyncio.ensure_future(alice.sessions[0].request("INFO", NOTE))
        await asyncio.sleep(0.001)
        alice.transports.drop()  # with the request on its way
        await pending
        assert not alice.sessions[0].over
        await both_closed(alice, bob)

    run(job())


def test_a_server_that_goes_while_an_invite_waits_gives_way_to_the_next():
    network = Network()

    async def both(uri: str) -> list:
        return [*await locate(f"sip:{BOB};transport=tcp"), *await locate(f"sip:{CAROL};transport=tcp")]

    async def job() -> None:
        alice, bob, carol = side(network, ALICE), side(network, BOB), side(network, CAROL)
        alice.agent._locate = both
        bob.agent.on_invite = lambda incoming: None
        carol.accept_all()
        begun = alice.agent.now()
        pending = asyncio.ensure_future(alice.agent.invite(new()))
        await asyncio.sleep(1.0)
        bob.transports.vanish()
        bob.transports.drop()
        session = await pending
        assert str(session.peer.address) == CAROL
        assert alice.agent.now() - begun < 1.2
        await both_closed(alice, carol)
        await bob.agent.close()

    run(job())


def test_an_agent_that_closes_takes_back_what_it_asked_and_ends_what_it_has():
    network = Network()

    async def job() -> None:
        alice, bob = await connected(network)
        waiting: list[Incoming] = []
        bob.agent.on_invite = waiting.append
        pending = asyncio.ensure_future(alice.agent.invite(new()))
        await asyncio.sleep(0.5)
        closing = asyncio.ensure_future(alice.agent.close())
        with pytest.raises(UnreachableError, match="closed"):
            await pending
        await closing
        assert waiting[0].cancelled
        assert bob.sessions[0].over
        assert [ended.by for ended in alice.ended] == [EndedBy.US]
        with pytest.raises(UnreachableError, match="closed"):
            await alice.agent.invite(new())
        await alice.sessions[0].bye()
        await bob.agent.close()

    run(job())
