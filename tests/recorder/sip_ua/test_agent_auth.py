"""Digest authentication between agents, and with peers that challenge whatever comes."""

import asyncio

import pytest

from decoders.sip import SipMessage
from recorder.sip_ua.agent import SipAgent
from recorder.sip_ua.agent_session import AgentSession
from recorder.sip_ua.api import Body, Credentials, Incoming, NewSession, RefusedError
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.digest import Challenger, parse_pairs
from tests.sip_network import MemoryTransports, Network, locate, random, run
from tests.sip_peer import RawPeer

US, THEM = "10.0.0.1:5060", "10.0.0.2:5060"
BODY = Body("application/sdp", b"v=0\r\no=p 1 1 IN IP4 10.0.0.2\r\ns=-\r\nt=0 0\r\nm=audio 4002 RTP/AVP 0\r\n")
ALICE = Credentials("alice", "secret")
CONFIG = AgentConfig(session_expires=None)
NONCES = iter(range(1000))


def challenge(name: str = "WWW-Authenticate", realm: str = "there", more: str = "") -> tuple[str, str]:
    return name, f'Digest realm="{realm}", nonce="n{next(NONCES)}", qop="auth", algorithm=SHA-256{more}'


def agent(network: Network, address: str = US, **options: object) -> SipAgent:
    return SipAgent(MemoryTransports(network, address), locate, CONFIG, random=random(), **options)


def new(**changes: object) -> NewSession:
    return NewSession(f"sip:rec@{THEM}", BODY, **{"session_expires": None, "credentials": ALICE, **changes})


def test_an_agent_asks_who_calls_and_takes_whom_it_knows():
    network = Network()

    async def job() -> None:
        us = agent(network)
        clock = asyncio.get_running_loop().time
        them = agent(network, THEM, admit=Challenger({"alice": "secret"}.get, clock))
        came: list[Incoming] = []
        sessions: list[AgentSession] = []

        def told(incoming: Incoming) -> None:
            came.append(incoming)
            sessions.append(incoming.accept(BODY))

        them.on_invite = told
        session = await us.invite(new())
        assert came[0].peer.user == "alice"
        assert session.answer.status == 200
        for credentials in (None, Credentials("alice", "wrong"), Credentials("bob", "secret")):
            with pytest.raises(RefusedError, match="401"):
                await us.invite(new(credentials=credentials))
        assert len(came) == 1
        await us.close()
        await them.close()

    run(job())
    invites = [seen.message for seen in network.seen if seen.message.method == "INVITE"]
    assert [invite.cseq for invite in invites[:2]] == [(1, "INVITE"), (2, "INVITE")]
    assert invites[0].call_id == invites[1].call_id
    assert len(invites) == 2 + 1 + 2 + 2


def test_two_proxies_and_the_server_may_challenge_one_invite():
    network = Network()

    async def job() -> None:
        us, peer = agent(network), RawPeer(network, THEM)
        task = asyncio.ensure_future(us.invite(new()))
        first = await peer.get("INVITE")
        peer.answer(first, 407, challenge("Proxy-Authenticate", "outer"))
        second = await peer.get("INVITE")
        assert parse_pairs(second.get("proxy-authorization") or "")["realm"] == "outer"
        peer.answer(second, 401, challenge())
        third = await peer.get("INVITE")
        assert third.get("proxy-authorization")
        assert parse_pairs(third.get("authorization") or "")["username"] == "alice"
        peer.answer(third, 200, body=BODY)
        ack = await peer.get("ACK")
        while ack.cseq != (3, "ACK"):  # those of the refusals come first
            ack = await peer.get("ACK")
        assert ack.get("authorization") == third.get("authorization")
        await task
        await us.close()

    run(job())


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO", "BYE"])
def test_requests_within_a_session_are_challenged_too(method: str):
    network = Network()

    async def job() -> None:
        us, peer = agent(network), RawPeer(network, THEM)
        task = asyncio.ensure_future(us.invite(new()))
        peer.answer(await peer.get("INVITE"), 200, body=BODY)
        session = await task
        asked = {
            "INVITE": lambda: session.reinvite(BODY),
            "BYE": session.bye,
        }.get(method, lambda: session.request(method, BODY))
        pending = asyncio.ensure_future(asked())
        first = await peer.get(method)
        peer.answer(first, 401, challenge())
        second = await peer.get(method)
        assert parse_pairs(second.get("authorization") or "")["uri"] == second.request_uri
        assert second.cseq == (first.cseq[0] + 1 if first.cseq else 0, method)
        peer.answer(second, 401, challenge(more=", stale=true"))
        third = await peer.get(method)
        peer.answer(third, 200, body=BODY)
        await pending
        assert session.over == (method == "BYE")
        await us.close()

    run(job())


def test_a_challenge_to_what_was_answered_is_a_refusal_and_the_session_goes_on():
    network = Network()

    async def job() -> None:
        us, peer = agent(network), RawPeer(network, THEM)
        task = asyncio.ensure_future(us.invite(new()))
        peer.answer(await peer.get("INVITE"), 200, body=BODY)
        session = await task
        pending = asyncio.ensure_future(session.request("INFO", BODY))
        for _ in range(2):
            peer.answer(await peer.get("INFO"), 401, challenge())
        with pytest.raises(RefusedError, match="401"):
            await pending
        assert not session.over
        await us.close()

    run(job())


def test_glare_after_a_challenge_is_challenged_anew():
    network = Network()

    async def job() -> None:
        us, peer = agent(network), RawPeer(network, THEM)
        task = asyncio.ensure_future(us.invite(new()))
        peer.answer(await peer.get("INVITE"), 200, body=BODY)
        session = await task
        pending = asyncio.ensure_future(session.reinvite(BODY))
        peer.answer(await peer.get("INVITE"), 401, challenge())
        peer.answer(await peer.get("INVITE"), 491)
        plain = await peer.get("INVITE")
        assert plain.get("authorization") is None
        peer.answer(plain, 401, challenge())
        again = await peer.get("INVITE")
        assert again.get("authorization") is not None
        peer.answer(again, 200, body=BODY)
        await pending
        await us.close()

    run(job())


def test_prack_and_options_are_challenged():
    network = Network()

    async def job() -> None:
        us, peer = agent(network), RawPeer(network, THEM)
        pinged = asyncio.ensure_future(us.ping(f"sip:{THEM}", ALICE))
        peer.answer(await peer.get("OPTIONS"), 401, challenge())
        again = await peer.get("OPTIONS")
        assert again.get("authorization")
        peer.answer(again, 200)
        response = await pinged
        assert isinstance(response, SipMessage)
        assert response.status == 200
        task = asyncio.ensure_future(us.invite(new()))
        invite = await peer.get("INVITE")
        peer.answer(invite, 180, ("Require", "100rel"), ("RSeq", "1"))
        peer.answer(await peer.get("PRACK"), 407, challenge("Proxy-Authenticate"))
        prack = await peer.get("PRACK")
        assert prack.get("proxy-authorization")
        assert prack.get("rack") == "1 1 INVITE"
        peer.answer(prack, 200)
        peer.answer(invite, 200, body=BODY)
        await task
        await us.close()

    run(job())
