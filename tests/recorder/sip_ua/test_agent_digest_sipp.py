"""Digest authentication as sipp understands it: its challenges to us, and ours to it."""

import asyncio
import shutil
from pathlib import Path

import pytest

from recorder.model import Transport
from recorder.sip_ua.api import Credentials, Incoming, NewSession, RefusedError
from recorder.sip_ua.digest import Challenger
from tests.sip_wire import BODY, listening, sipp

SCENARIOS = Path(__file__).parent / "sipp"
SRC = Credentials("src", "secret")

pytestmark = [
    pytest.mark.skipif(shutil.which("sipp") is None, reason="sipp is not installed"),
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]


@pytest.mark.parametrize(
    ("challenge", "password", "status"),
    [
        ('realm="there", nonce="n0", algorithm=MD5', "secret", 200),
        ('realm="there", nonce="n0"', "secret", 200),
        ('realm="there", nonce="n0", qop="auth", opaque="o", algorithm=MD5', "secret", 200),
        ('realm="there", nonce="n0", qop="auth-int", algorithm=MD5', "secret", 200),
        ('realm="there", nonce="n0", qop="auth,auth-int", algorithm=MD5', "wrong", 403),
    ],
)
def test_sipp_asks_who_calls_and_checks_our_answer(tmp_path: Path, challenge: str, password: str, status: int):
    async def run() -> None:
        agent, wire, _ = await listening()
        server = await sipp(tmp_path, "-sf", SCENARIOS / "challenge.xml", "-m", "1", "-key", "challenge", challenge)
        new = NewSession(f"sip:rec@127.0.0.1:{server.port}", BODY, credentials=Credentials("src", password))
        try:
            session = await agent.invite(new)
            await session.bye()
            answered = session.answer.status
        except RefusedError as refusal:
            answered = refusal.status
        finally:
            await server.finished()
            await agent.close()
        assert answered == status
        assert await wire.malformed(tmp_path) == ""

    asyncio.run(run())


@pytest.mark.parametrize(("password", "comes_in"), [("secret", True), ("wrong", False)])
def test_we_ask_sipp_who_it_is(tmp_path: Path, password: str, comes_in: bool):
    """It looks at the first challenge, and knows MD5."""

    async def run() -> None:
        clock = asyncio.get_running_loop().time
        challenger = Challenger({SRC.user: SRC.password}.get, clock, algorithms=["MD5"])
        agent, wire, ports = await listening(admit=challenger)
        users: list[str | None] = []

        def told(incoming: Incoming) -> None:
            users.append(incoming.peer.user)
            incoming.accept(BODY)

        agent.on_invite = told
        client = await sipp(
            tmp_path, "-sf", SCENARIOS / "challenged.xml", f"127.0.0.1:{ports[Transport.UDP]}",
            "-m", "1", "-au", SRC.user, "-ap", password,
        )  # fmt: skip
        try:
            await client.finished()
        finally:
            await agent.close()
        assert users == (["src"] if comes_in else [])
        assert await wire.malformed(tmp_path) == ""

    asyncio.run(run())
