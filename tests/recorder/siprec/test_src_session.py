"""Recording sessions of ours against servers that accept, refuse, pause, vanish and misbehave."""

import asyncio
import os
from dataclasses import replace
from itertools import count

from recorder.siprec.control import EventKind, SessionState
from recorder.siprec.servers import Servers
from recorder.siprec.src_connect import Surroundings
from recorder.siprec.src_decision import Instance, Server
from recorder.siprec.src_session import SrcSession
from tests.siprec_fakes import START, FakeAgent, FakeForwarder, FakeServer, metadata_in, over, picture, sdp_in

ONE, TWO = "sip:one.example", "sip:two.example"


class Stage:
    """One SRC with servers."""

    def __init__(self, *servers, instance=None, clock=None):
        self.servers = servers or (FakeServer(ONE),)
        self.agent = FakeAgent(*self.servers)
        self.forwarder = FakeForwarder()
        self.events = []
        self.kept = []
        self.now = START + 3_000_000_000
        numbers = count(1)
        self.health = Servers(lambda: asyncio.get_running_loop().time())
        self.around = Surroundings(
            agents={"": self.agent},
            forwarder=self.forwarder,
            servers=self.health,
            clock=lambda: self.now,
            local_host=self.local_host,
            tell=self.events.append,
            keep=lambda call, instance: self.kept.append((call, instance)),
            octets=os.urandom,
            number=lambda: next(numbers),
        )
        self.instance = instance or Instance(tuple(Server(each.uri) for each in self.servers))
        self.done = []

    async def local_host(self, server):
        return "127.0.0.1"

    def session(self, *pictures, **changes):
        made = SrcSession("s1", replace(self.instance, **changes), self.around, self.done.append)
        for each in pictures or (picture(),):
            made.add(each, each.started)
        made.start()
        return made

    def kinds(self):
        return [event.kind for event in self.events]


async def settled(condition, seconds=3.0):
    until = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < until, "it did not come"
        await asyncio.sleep(0.005)


def test_a_call_is_recorded_from_invite_to_bye():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        call = picture()
        session = stage.session(call)
        await settled(lambda: session.state is SessionState.RECORDING)
        invite = server.last("INVITE")
        assert invite.requires("siprec")
        assert ";+sip.src" in invite.get("contact")
        assert b"a=sendonly" in sdp_in(invite)
        assert b"<datamode>complete</datamode>" in metadata_in(invite)
        assert len(stage.forwarder.sending()) == 2
        session.take(over(call), paused=False)
        await settled(lambda: stage.done)
        assert server.methods() == ["INVITE", "UPDATE", "BYE"]
        assert b"<stop-time>" in metadata_in(server.last("UPDATE"))
        assert metadata_in(server.last("BYE")) == metadata_in(server.last("UPDATE"))
        assert not stage.forwarder.open_legs
        assert stage.kinds() == [EventKind.START, EventKind.STOP]

    asyncio.run(run())
