"""The agent behind Kamailio: whole dialogs through a proxy that stays in them, over UDP, TCP and mutual TLS, and digest
authentication as another program checks it. tshark reads what we sent."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from decoders.sip import SipMessage
from recorder.model import Transport
from recorder.sip_ua.agent import SipAgent
from recorder.sip_ua.agent_session import AgentSession
from recorder.sip_ua.api import (
    Body,
    Credentials,
    Ended,
    EndedBy,
    Incoming,
    NewSession,
    RefusedError,
    Reply,
    UnreachableError,
)
from recorder.sip_ua.tls import TlsFiles
from tests.certificates import address, authority
from tests.sip_proxy import Proxy
from tests.sip_wire import BODY, LONG, Wire, listening

LISTEN = ("udp:127.0.0.1:0", "tcp:127.0.0.1:0", "tls:127.0.0.1:0")

pytestmark = [
    pytest.mark.skipif(shutil.which("kamailio") is None, reason="kamailio is not installed"),
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]


class Bench:
    """A calling agent, the proxy, an agent that is called."""

    def __init__(
        self,
        proxy: Proxy,
        caller: tuple[SipAgent, Wire, dict[Transport, int]],
        callee: tuple[SipAgent, Wire, dict[Transport, int]],
    ) -> None:
        self.proxy = proxy
        self.caller, self.caller_wire, _ = caller
        self.callee, self.callee_wire, self.ports = callee
        self.sessions: list[AgentSession] = []
        self.invites: list[SipMessage] = []
        self.asked: list[str] = []
        self.ended: asyncio.Queue[Ended] = asyncio.Queue()
        self.callee.on_invite = self._told

    async def call(self, way: Transport, there: Transport = Transport.UDP, **changes: Any) -> AgentSession:
        """A session to the callee, which the proxy reaches by `there`, by way of the proxy."""
        new = NewSession(
            f"sip:rec@127.0.0.1:{self.ports[there]};transport={there}",
            **{"body": BODY, "via": self.proxy.uri(way), "contact_params": ["+sip.src"], **changes},
        )
        session = await self.caller.invite(new)
        session.on_request = self.reply
        session.on_end = self.ended.put_nowait
        return session

    async def end(self) -> Ended:
        return await asyncio.wait_for(self.ended.get(), 5)

    async def reply(self, message: SipMessage) -> Reply:
        self.asked.append(message.method or "")
        return Reply(200, body=BODY if message.method == "INVITE" else None)

    def _told(self, incoming: Incoming) -> None:
        self.invites.append(incoming.message)
        session = incoming.accept(BODY, contact_params=["+sip.srs"])
        assert isinstance(session, AgentSession)
        session.on_request = self.reply
        session.on_end = self.ended.put_nowait
        self.sessions.append(session)


@asynccontextmanager
async def bench(directory: Path, algorithm: str) -> AsyncIterator[Bench]:
    made = authority(directory / "tls")
    files = [
        TlsFiles(*made.sign(name, address("127.0.0.1")), made.file, require_client=True)
        for name in ("caller", "proxy", "callee")
    ]
    proxy = Proxy(directory, algorithm, files[1])
    await proxy.start()
    one = await listening(LISTEN, files[0])
    two = await listening(LISTEN, files[2])
    try:
        yield Bench(proxy, one, two)
    finally:
        await one[0].close()
        await two[0].close()
        await proxy.stop()


CHANGES = (
    (Transport.UDP, Transport.TCP),
    (Transport.TCP, Transport.TLS),
    (Transport.TLS, Transport.UDP),
)
"""From one transport to another at the proxy."""


def play(directory: Path, job: Callable[[Bench], Coroutine[Any, Any, None]], algorithm: str = "MD5") -> None:
    """Do something with two agents and a proxy; tshark has the last word."""

    async def run() -> None:
        async with bench(directory, algorithm) as made:
            async with asyncio.timeout(40):
                await job(made)
            assert not made.caller.core.sessions
            assert not made.callee.core.sessions
            assert await made.caller_wire.malformed(directory) == ""
            assert await made.callee_wire.malformed(directory) == ""

    asyncio.run(run())


def test_whole_dialogs_follow_the_route_of_the_proxy(tmp_path: Path):
    """Re-INVITE, UPDATE, INFO both ways and BYE of either side, whatever transports lead to the proxy and on."""

    async def job(made: Bench) -> None:
        for way, there in product((Transport.UDP, Transport.TCP, Transport.TLS), repeat=2):
            # Each way on its own and three that change: who hangs up takes turns.
            if way is there or (way, there) in CHANGES:
                for hangs_up in (0, 1) if way is there else (len(made.invites) % 2,):
                    made.asked.clear()
                    ours = await made.call(way, there)
                    theirs = made.sessions[-1]
                    assert await theirs.acknowledged() is not None
                    for session in (ours, theirs):
                        assert (await session.reinvite(BODY)).sdp() is not None
                        await session.request("UPDATE", Body("text/plain", b"x"))
                        await session.request("INFO", Body("text/plain", b"x"))
                    assert made.asked == ["INVITE", "UPDATE", "INFO"] * 2
                    await (ours, theirs)[hangs_up].bye()
                    assert {(await made.end()).by for _ in range(2)} == {EndedBy.US, EndedBy.PEER}
        # Nothing went past the proxy.
        assert {len(message.vias) for message in made.invites} == {2}
        for wire in (made.caller_wire, made.callee_wire):
            requests = [data for _, data in wire.sent if not data.startswith(b"SIP/2.0")]
            assert all(b"\r\nRoute: " in data for data in requests if b";tag=" in data.partition(b"\r\nTo: ")[2][:120])

    play(tmp_path, job)


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_the_proxy_asks_who_calls_and_takes_our_answers(tmp_path: Path, algorithm: str):
    async def job(made: Bench) -> None:
        for qop in ("none", "auth"):
            caller = f"<sip:guarded-{qop}@example.org>"
            user = Credentials(f"guarded-{qop}", "secret")
            ours = await made.call(Transport.UDP, from_=caller, credentials=user)
            assert (await ours.reinvite(BODY)).sdp() is not None
            await ours.request("INFO", Body("text/plain", b"x"))
            await ours.bye()
            for _ in range(2):
                await made.end()
            for wrong in (None, Credentials(user.user, "wrong"), Credentials(user.user, "secret", "elsewhere")):
                with pytest.raises(RefusedError, match="407"):
                    await made.call(Transport.UDP, from_=caller, credentials=wrong)
        assert len(made.invites) == 2
        assert all(message.get("proxy-authorization") is None for message in made.invites)
        answers = [data for _, data in made.caller_wire.sent if b"\r\nProxy-Authorization: " in data]
        assert all(f"algorithm={algorithm}".encode() in data for data in answers)

    play(tmp_path, job, algorithm)


def test_a_large_invite_leaves_udp_for_tcp(tmp_path: Path):
    async def job(made: Bench) -> None:
        ours = await made.call(Transport.UDP, Transport.TCP, body=LONG)
        assert made.caller_wire.sent_by("INVITE") == [Transport.TCP]
        assert made.invites[0].vias[1].transport.upper() == "TCP"
        await ours.request("INFO", Body("text/plain", b"x"))
        await ours.bye()
        await made.end()

    play(tmp_path, job)


@pytest.mark.parametrize("way", [Transport.TCP, Transport.TLS])
def test_sessions_go_on_when_the_proxy_was_restarted(tmp_path: Path, way: Transport):
    """Its connections are gone; ours is made anew by the next request, whoever sends it."""

    async def job(made: Bench) -> None:
        sessions = [await made.call(way, way), await made.call(way, way)]
        theirs = list(made.sessions)
        for session in theirs:
            assert await session.acknowledged() is not None
        await made.proxy.stop()
        with pytest.raises(UnreachableError):
            await made.call(way, way, timeout=2)
        await made.proxy.start()
        assert (await sessions[0].reinvite(BODY)).sdp() is not None
        assert (await theirs[1].reinvite(BODY)).sdp() is not None
        await theirs[0].bye()
        await sessions[1].bye()
        ended = [await made.end() for _ in range(4)]
        assert sorted(end.by for end in ended) == [EndedBy.PEER] * 2 + [EndedBy.US] * 2

    play(tmp_path, job)


@pytest.mark.parametrize("way", [Transport.UDP, Transport.TLS])
def test_an_invite_is_taken_back_and_refused_through_the_proxy(tmp_path: Path, way: Transport):
    async def job(made: Bench) -> None:
        came: asyncio.Queue[Incoming] = asyncio.Queue()
        made.callee.on_invite = came.put_nowait
        pending = asyncio.ensure_future(made.call(way, way))
        incoming = await asyncio.wait_for(came.get(), 5)
        incoming.progress(180)
        await asyncio.sleep(0.1)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        while not incoming.cancelled:
            await asyncio.sleep(0.02)
        made.callee.on_invite = lambda incoming: incoming.refuse(486, headers=[("Retry-After", "7")])
        with pytest.raises(RefusedError, match="486") as refusal:
            await made.call(way, way)
        assert refusal.value.retry_after == 7

    play(tmp_path, job)


@pytest.mark.parametrize("way", [Transport.UDP, Transport.TLS])
def test_an_offer_of_the_peer_is_answered_in_the_ack_through_the_proxy(tmp_path: Path, way: Transport):
    async def job(made: Bench) -> None:
        ours = await made.call(way, way, body=None, answer=lambda message: BODY)
        ack = await made.sessions[0].acknowledged()
        assert ack is not None
        assert ack.sdp() is not None
        await ours.bye()
        await made.end()

    play(tmp_path, job)


def test_the_proxy_answers_our_ping_over_each_transport(tmp_path: Path):
    async def job(made: Bench) -> None:
        for way in Transport.UDP, Transport.TCP, Transport.TLS:
            response = await made.caller.ping(made.proxy.uri(way))
            assert response is not None
            assert response.status == 200

    play(tmp_path, job)


def test_the_proxy_gets_nothing_without_a_certificate_that_fits(tmp_path: Path):
    """Mutual TLS: a client without a certificate is refused, and so is a proxy whose authority is unknown to us."""

    async def job(made: Bench) -> None:
        stranger = authority(tmp_path / "stranger")
        for files in (TlsFiles(authorities=tmp_path / "tls" / "authority.pem"), TlsFiles(authorities=stranger.file)):
            agent, _, _ = await listening((), files)
            with pytest.raises(UnreachableError):
                await agent.invite(NewSession(made.proxy.uri(Transport.TLS), BODY, timeout=2))
            await agent.close()

    play(tmp_path, job)
