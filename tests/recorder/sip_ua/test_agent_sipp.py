"""The agent and sipp, which has its own idea of RFC 3261, over loopback; what went over the wire is read by tshark."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from decoders.sip import SipMessage
from recorder.model import Transport
from recorder.sip_ua.agent import SipAgent
from recorder.sip_ua.api import Body, Ended, EndedBy, Incoming, NewSession, Reply
from tests.sip_wire import BODY, LONG, Wire, listening, sipp

SCENARIOS = Path(__file__).parent / "sipp"

pytestmark = [
    pytest.mark.skipif(shutil.which("sipp") is None, reason="sipp is not installed"),
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]


class Bench:
    """The agent, what became of its sessions, and a copy of what it said."""

    def __init__(self, agent: SipAgent, wire: Wire, ports: dict[Transport, int]) -> None:
        self.agent = agent
        self.wire = wire
        self.ports = ports
        self.ended: list[Ended] = []
        self.asked: list[str] = []
        agent.on_invite = self.told

    def told(self, incoming: Incoming) -> None:
        session = incoming.accept(BODY, contact_params=["+sip.srs"])
        session.on_request = self.reply
        session.on_end = self.ended.append

    async def reply(self, message: SipMessage) -> Reply:
        self.asked.append(message.method or "")
        return Reply(200, body=BODY if message.method == "INVITE" else None)


def play(directory: Path, job: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    """Do something with an agent at loopback; tshark has the last word."""

    async def run() -> None:
        bench = Bench(*await listening())
        try:
            await job(bench)
            assert not bench.agent.core.sessions
        finally:
            await bench.agent.close()
        assert await bench.wire.malformed(directory) == ""

    asyncio.run(run())


@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_sipp_calls_us(tmp_path: Path, transport: str):
    async def job(bench: Bench) -> None:
        port = bench.ports[Transport.UDP if transport == "u1" else Transport.TCP]
        client = await sipp(
            tmp_path, "-sf", SCENARIOS / "uac.xml", f"127.0.0.1:{port}", "-t", transport, "-m", "10", "-r", "50"
        )
        await client.finished()
        assert [end.by for end in bench.ended] == [EndedBy.PEER] * 10
        assert sorted(bench.asked) == ["INFO"] * 10 + ["INVITE"] * 10

    play(tmp_path, job)


def test_sipp_calls_us_and_loses_a_tenth_of_the_messages(tmp_path: Path):
    async def job(bench: Bench) -> None:
        target = f"127.0.0.1:{bench.ports[Transport.UDP]}"
        scenario = SCENARIOS / "uac.xml"
        client = await sipp(tmp_path, "-sf", scenario, target, "-m", "10", "-r", "50", "-lost", "10")
        await client.finished()
        assert [end.by for end in bench.ended] == [EndedBy.PEER] * 10

    play(tmp_path, job)


@pytest.mark.parametrize(("transport", "body"), [("u1", BODY), ("t1", BODY), ("u1", LONG)])
def test_we_call_sipp(tmp_path: Path, transport: str, body: Body):
    """The long body leaves UDP for TCP, which that sipp has not, and comes back."""

    async def job(bench: Bench) -> None:
        server = await sipp(tmp_path, "-sf", SCENARIOS / "uas.xml", "-t", transport, "-m", "5")
        suffix = ";transport=tcp" if transport == "t1" else ""

        async def call() -> Ended:
            new = NewSession(f"sip:rec@127.0.0.1:{server.port}{suffix}", body, contact_params=["+sip.src"])
            session = await bench.agent.invite(new)
            over: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
            session.on_end = over.set_result
            assert session.answer.status == 200
            await session.request("UPDATE", Body("text/plain", b"x"))
            assert (await session.reinvite(body)).sdp() is not None
            return await over

        ended = await asyncio.gather(*(call() for _ in range(5)))
        assert {end.by for end in ended} == {EndedBy.PEER}
        await server.finished()

    play(tmp_path, job)


def test_we_call_sipp_and_it_loses_a_tenth_of_the_messages(tmp_path: Path):
    async def job(bench: Bench) -> None:
        server = await sipp(tmp_path, "-sn", "uas", "-m", "5", "-lost", "10")

        async def call() -> None:
            session = await bench.agent.invite(NewSession(f"sip:rec@127.0.0.1:{server.port}", BODY, timeout=30))
            await session.bye()

        await asyncio.gather(*(call() for _ in range(5)))
        await server.finished()

    play(tmp_path, job)
