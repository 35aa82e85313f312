"""Sessions of our SRC with sipp as recording server, over loopback; what went over the wire is read by tshark."""

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recorder.model import Side
from recorder.siprec import src_link
from recorder.siprec.control import SessionState
from recorder.siprec.src_decision import Instance, Server, SrcDecision
from recorder.siprec.src_sessions import SrcSessions
from tests.sip_wire import Sipp, Wire, listening, sipp
from tests.siprec_fakes import SECOND, START, FakeForwarder, held, over, picture
from tests.siprec_peers import until_it_listens
from tests.siprec_scenarios import SNAPSHOT, TRYING, SippServer, receive, scenario, succeed, wait

pytestmark = [
    pytest.mark.skipif(shutil.which("sipp") is None, reason="sipp is not installed"),
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

SERVER = SippServer()
ACCEPT, UPDATED, RENEWED, END = SERVER.accept(), SERVER.updated(), SERVER.renewed(), SERVER.end()


class Bench:
    """Our SRC with a real user agent, and sipps."""

    def __init__(self, agent: Any, wire: Wire, directory: Path, transport: str) -> None:
        self.agent = agent
        self.wire = wire
        self.directory = directory
        self.transport = transport
        self.forwarder = FakeForwarder()
        self.events: list[Any] = []
        self.peers: list[Sipp] = []
        self.now = START + 3 * SECOND
        self.instance = Instance((), spool=False, timeout=1.0)
        self.sessions: SrcSessions | None = None

    async def server(self, steps: list[str], calls: int = 1) -> Sipp:
        """A sipp that takes these steps."""
        number = len(self.peers)
        file = self.directory / f"srs{number}.xml"
        file.write_text(scenario(steps))
        peer = await sipp(self.directory, "-sf", file, "-t", self.transport, "-m", str(calls))
        self.peers.append(peer)
        await until_it_listens(peer, self.transport)
        uri = f"sip:127.0.0.1:{peer.port}" + (";transport=tcp" if self.transport == "t1" else "")
        self.instance = replace(self.instance, servers=(*self.instance.servers, Server(uri)))
        return peer

    def begin(self, call: Any) -> None:
        """Have a call recorded."""

        async def local_host(server: Server, agent: str) -> str:
            return "127.0.0.1"

        self.sessions = SrcSessions(
            {"": self.agent},
            self.forwarder,
            lambda _: SrcDecision(record=True, instances=(self.instance,)),
            local_host=local_host,
            clock=lambda: self.now,
            octets=os.urandom,
        )
        self.sessions.servers.due = list  # type: ignore[method-assign,assignment]  # these scenarios know no OPTIONS
        self.sessions.listen(self.events.append)
        self.sessions.take(call)

    async def until(self, condition: Callable[[], bool], seconds: float = 8.0) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while not condition():
            assert asyncio.get_running_loop().time() < until, self.sessions.infos()
            await asyncio.sleep(0.01)

    async def recording(self) -> None:
        await self.until(lambda: [info.state for info in self.sessions.infos()] == [SessionState.RECORDING])

    def offers(self) -> int:
        """INVITEs, but for what was sent again."""
        numbers = (re.search(rb"CSeq: (\d+) INVITE", data) for _, data in self.wire.sent if data.startswith(b"INVITE"))
        return len({found[1] for found in numbers if found})

    def peer_number(self) -> int:
        """Which of the servers has the session."""
        (info,) = self.sessions.infos()
        return [server.uri for server in self.instance.servers].index(info.peer)

    async def finish(self, call: Any) -> None:
        self.now = START + 9 * SECOND
        self.sessions.take(over(call))
        await self.until(lambda: not self.sessions.sessions)


def play(directory: Path, job: Callable[[Bench], Coroutine[Any, Any, None]], transport: str = "u1") -> None:
    """Do something; then nothing is left, and tshark finds nothing wrong."""

    async def run() -> None:
        agent, wire, _ = await listening()
        bench = Bench(agent, wire, directory, transport)
        try:
            await job(bench)
            for peer in bench.peers:
                await peer.finished()
        finally:
            if bench.sessions is not None:
                await bench.sessions.close(1.0)
            await agent.close()
            for peer in bench.peers:
                if peer.process.returncode is None:
                    peer.process.kill()
                    await peer.process.communicate()
        assert not bench.forwarder.open_legs
        for _, data in wire.sent:
            if re.match(rb"INVITE |UPDATE ", data) or re.search(rb"^SIP/2.0 200(?s:.*)CSeq: \d+ (INVITE|UPDATE)", data):
                assert b";+sip.src" in data
            assert not data.startswith(b"INVITE") or b"\r\nDate: " in data or b";tag=srs" in data
        assert await wire.malformed(directory) == ""

    asyncio.run(run())


@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_a_session_from_invite_to_bye(tmp_path, transport):
    async def job(bench):
        await bench.server([*ACCEPT, *UPDATED, *UPDATED, *END])
        call = picture()
        bench.begin(call)
        await bench.recording()
        assert len(bench.forwarder.sending()) == 2
        bench.sessions.take(held(call, Side.CALLER))
        await asyncio.sleep(1.3)
        await bench.finish(call)

    play(tmp_path, job, transport)


@pytest.mark.parametrize("status", ["403 Forbidden", "420 Bad Extension", "480 Gone", "486 Busy", "503 Unavailable"])
def test_a_refusal_leads_to_the_next_server(tmp_path, status):
    async def job(bench):
        await bench.server(SERVER.refuse(status))
        await bench.server([*ACCEPT, *UPDATED, *END])
        call = picture()
        bench.begin(call)
        await bench.recording()
        assert bench.peer_number() == 1
        await bench.finish(call)

    play(tmp_path, job)


def test_a_server_that_says_nothing_is_left_after_its_time(tmp_path):
    async def job(bench):
        await bench.server([*ACCEPT, *UPDATED, *END])
        silent = Server("sip:127.0.0.1:9")
        bench.instance = replace(bench.instance, servers=(silent, *bench.instance.servers))
        call = picture()
        bench.begin(call)
        await bench.recording()
        assert bench.peer_number() == 1
        await bench.finish(call)

    play(tmp_path, job)


def test_a_server_pauses_and_goes_on_by_re_invite_and_update(tmp_path):
    async def job(bench):
        pause = [SERVER.ask("INVITE", 1, SERVER.description("inactive")), TRYING, succeed(), SERVER.ask("ACK", 1)]
        go_on = [SERVER.ask("UPDATE", 2, SERVER.description()), succeed()]
        await bench.server([*ACCEPT, wait(400), *pause, wait(400), *go_on, *UPDATED, *END])
        call = picture()
        bench.begin(call)
        await bench.recording()
        await bench.until(lambda: len(bench.forwarder.sending()) == 2)
        await bench.until(lambda: len(bench.forwarder.sending()) == 0)
        await bench.until(lambda: len(bench.forwarder.sending()) == 2)
        await bench.finish(call)

    play(tmp_path, job)


def test_a_request_for_a_snapshot_is_answered_and_then_fulfilled(tmp_path):
    async def job(bench):
        asked = [SERVER.ask("UPDATE", 1, SNAPSHOT), succeed()]
        await bench.server([*ACCEPT, wait(200), *asked, *RENEWED, *UPDATED, *END])
        call = picture()
        bench.begin(call)
        await bench.recording()
        await bench.until(lambda: bench.offers() == 2)
        await bench.finish(call)

    play(tmp_path, job)


def test_a_bye_mid_call_leads_to_the_next_server(tmp_path):
    async def job(bench):
        await bench.server([*ACCEPT, wait(200), SERVER.ask("BYE", 1), succeed()])
        await bench.server([*ACCEPT, *UPDATED, *END])
        call = picture()
        bench.begin(call)
        await bench.recording()
        await bench.until(lambda: bench.peer_number() == 1)
        await bench.recording()
        await bench.finish(call)

    play(tmp_path, job)


def test_an_update_that_is_never_answered_is_followed_by_a_re_invite_in_the_same_dialog(tmp_path, monkeypatch):
    monkeypatch.setattr(src_link, "UPDATE_PATIENCE", 0.4)

    async def job(bench):
        await bench.server([*ACCEPT, receive("UPDATE"), *RENEWED, *RENEWED, *END])
        call = picture()
        bench.begin(call)
        await bench.recording()
        bench.sessions.take(held(call, Side.CALLER))
        await bench.until(lambda: bench.offers() == 2)
        await asyncio.sleep(1.2)
        await bench.finish(call)

    play(tmp_path, job)
