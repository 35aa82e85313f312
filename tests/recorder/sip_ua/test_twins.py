"""Two agents over a network that loses, doubles and delays: in the end both know the same.

What must hold whatever happens: each `invite` and each request has one outcome; a session that one side calls over is
over at the other; by UDP every request of an application is asked at most once; nothing is left in either core.
"""

import asyncio
from random import Random

import pytest

from decoders.sip import SipMessage
from recorder.sip_ua.agent import SipAgent
from recorder.sip_ua.agent_session import AgentSession
from recorder.sip_ua.api import Body, Ended, Incoming, NewSession, RefusedError, Reply, UnreachableError
from recorder.sip_ua.config import AgentConfig
from tests.sip_network import MemoryTransports, Network, Seen, locate, random, run

ADDRESSES = ("10.0.0.1:5060", "10.0.0.2:5060")
CONFIG = AgentConfig(session_expires=120)


def description(owner: int, version: int) -> Body:
    text = f"v=0\r\no=x {owner} {version} IN IP4 10.0.0.{owner}\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
    return Body("application/sdp", text.encode())


class Side:
    """One agent that does things at random."""

    def __init__(self, network: Network, number: int, dice: Random) -> None:
        self.number = number
        self.dice = dice
        self.transports = MemoryTransports(network, ADDRESSES[number])
        self.agent = SipAgent(self.transports, locate, CONFIG, random=random(dice.randint(0, 1 << 30)))
        self.agent.on_invite = self.told
        self.sessions: dict[str, AgentSession] = {}
        self.ended: dict[str, list[Ended]] = {}
        self.asked: list[tuple[str, bytes]] = []
        self.outcomes: list[str] = []
        self.version = 0
        self.suffix = ""

    def told(self, incoming: Incoming) -> None:
        async def decide() -> None:
            await asyncio.sleep(self.dice.choice([0.0, 0.1, 3.0]))
            if incoming.cancelled:
                return
            if self.dice.random() < 0.2:
                incoming.refuse(486)
                return
            incoming.progress(180)
            await asyncio.sleep(self.dice.choice([0.0, 1.0]))
            if not incoming.cancelled:
                self.adopt(incoming.accept(self.describe()))

        self.agent.start(decide())

    def describe(self) -> Body:
        self.version += 1
        return description(self.number + 1, self.version)

    def adopt(self, session: AgentSession) -> AgentSession:
        async def reply(message: SipMessage) -> Reply:
            self.asked.append((message.call_id or "", message.body))
            await asyncio.sleep(self.dice.choice([0.0, 0.0, 0.3]))
            return Reply(200, body=self.describe() if message.sdp() else None)

        session.on_request = reply
        session.on_end = self.ended.setdefault(session.call_id, []).append
        self.sessions[session.call_id] = session
        return session

    async def call(self, patience: float) -> None:
        uri = f"sip:x@{ADDRESSES[1 - self.number]}{self.suffix}"
        new = NewSession(uri, self.describe(), session_expires=120, timeout=20.0)
        try:
            async with asyncio.timeout(patience):
                session = self.adopt(await self.agent.invite(new))
        except (TimeoutError, RefusedError, UnreachableError) as error:
            self.outcomes.append(type(error).__name__)
            return
        self.outcomes.append("session")
        await self.live(session)

    async def live(self, session: AgentSession) -> None:
        for _ in range(self.dice.randint(0, 4)):
            await asyncio.sleep(self.dice.expovariate(1.0))
            try:
                kind = self.dice.choice(["reinvite", "update", "info"])
                if kind == "reinvite":
                    await session.reinvite(self.describe())
                elif kind == "update":
                    await session.request("UPDATE", self.describe())
                else:
                    await session.request("INFO", Body("text/plain", self.describe().data))
            except (RefusedError, UnreachableError) as error:
                self.outcomes.append(type(error).__name__)
        if self.dice.random() < 0.7:
            await session.bye()


async def storms(side: Side, dice: Random, over: asyncio.Event) -> None:
    """Connections break now and then."""
    while not over.is_set():
        await asyncio.sleep(dice.expovariate(0.5))
        side.transports.drop()


def weather(seed: int) -> tuple[Network, list[bool]]:
    dice = Random(seed)
    loss = dice.choice([0.0, 0.1, 0.3, 0.45])
    double = dice.choice([0.0, 0.2])
    jitter = dice.choice([0.0, 0.05, 1.0])
    calm = [False]

    def fate(seen: Seen) -> list[float]:
        if calm[0]:
            return [0.01]
        copies = 0 if dice.random() < loss else 2 if dice.random() < double else 1
        return [0.01 + dice.random() * jitter for _ in range(copies)]

    return Network(fate), calm


@pytest.mark.parametrize("suffix", ["", ";transport=tcp"])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_network_does_both_sides_end_alike(seed: int, suffix: str):
    network, calm = weather(seed)

    async def job() -> None:
        dice = Random(seed)
        sides = [Side(network, number, Random(seed * 2 + number)) for number in (0, 1)]
        over = asyncio.Event()
        storm = asyncio.ensure_future(storms(sides[0], dice, over))
        for side in sides:
            side.suffix = suffix
        calls = [sides[number % 2].call(dice.choice([0.05, 1.0, 100.0])) for number in range(4)]
        await asyncio.gather(*calls)
        # Callees speak too.
        await asyncio.gather(
            *(side.live(session) for side in sides for session in side.sessions.values() if not session.over)
        )
        calm[0] = True
        over.set()
        await storm
        await asyncio.sleep(400)  # refreshes find out who is gone
        for side, other in (sides, sides[::-1]):
            for call_id, session in side.sessions.items():
                there = other.sessions.get(call_id)
                assert session.over == (there is None or there.over), network.ladder()
                assert len(side.ended[call_id]) == session.over
            # What was on a connection that broke is sent again by another, and may have come by both.
            assert suffix or len(side.asked) == len(set(side.asked)), side.asked
        for side in sides:
            await asyncio.gather(*(session.bye() for session in side.sessions.values()))
        await asyncio.sleep(100)
        for side in sides:
            core = side.agent.core
            assert not core.sessions
            assert not core._server
            assert not core._merging
            assert not len(core.sender)
            await side.agent.close()

    run(job())
