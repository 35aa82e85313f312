"""Recording sessions that begin, change, break off and come again in any order: every one is accounted for."""

import asyncio
from random import Random

import pytest
from lxml import etree

from recorder.siprec.admission import MOST_SOURCES, Admission, AdmissionRules
from tests.srs_lab import ALICE, BOB, SrsLab, line, metadata, peer, sdp

BOTH = (line(6000, "1"), line(6002, "2"))


class Chance:
    """SRCs that do anything at any time."""

    def __init__(self, lab, seed):
        self.lab, self.random = lab, Random(seed)
        self.running, self.call_ids, self.calls = {}, [], 0

    async def step(self):
        steps = [self.invite] * 3 + [self.again, self.bye, self.lose, self.stop, self.pause, self.rest, self.rest]
        await self.random.choice(steps)()
        assert self.lab.server.count == len(self.running) == self.lab.server.admission.sessions
        assert len(self.lab.ports.open_ports) <= 3 * len(self.running)

    def said(self, call):
        key = f"call-{call:019d}"
        return metadata(session=key, start=None).replace(ALICE, f"a-{key}").replace(BOB, f"b-{key}")

    async def invite(self):
        call_id = f"rs-{len(self.call_ids)}@src"
        if self.running and self.random.random() < 0.4:
            call = self.random.choice([call for _, call in self.running.values()])
        else:
            self.calls += 1
            call = self.calls
        session = self.lab.record(sdp(*BOTH), self.said(call), call_id)
        self.running[call_id] = (session, call)
        self.call_ids.append(call_id)
        if self.random.random() < 0.5:
            self.lab.speak(session, self.random.randrange(2), 2.0, ssrc=self.random.getrandbits(32))

    def pick(self):
        return self.random.choice(list(self.running)) if self.running else None

    async def again(self):
        if (call_id := self.pick()) is not None:
            session, call = self.running[call_id]
            attributes = [self.random.choice(["sendonly", "inactive"]) for _ in range(2)]
            lines = [line(self.random.choice([0, 6000 + 2 * n]), str(n + 1), attributes[n]) for n in range(2)]
            reply = await self.lab.again(session, sdp(*lines), self.said(call))
            assert reply.status == 200

    async def bye(self):
        if (call_id := self.pick()) is not None:
            self.lab.bye(self.running.pop(call_id)[0])

    async def lose(self):
        if (call_id := self.pick()) is not None:
            self.lab.lose(self.running.pop(call_id)[0])

    async def stop(self):
        if (call_id := self.pick()) is not None:
            self.running.pop(call_id)
            await self.lab.server._each(call_id, lambda session: session.stop())
            self.lab.turn()

    async def pause(self):
        if (call_id := self.pick()) is not None:
            await self.lab.server._pause(call_id, paused=self.random.random() < 0.5)
            self.lab.turn()

    async def rest(self):
        self.lab.after(self.random.choice([0.1, 1, 4, 30]))


@pytest.mark.parametrize("seed", range(3))
def test_every_session_is_told_in_exactly_one_recording_and_nothing_is_left(tmp_path, seed):
    lab = SrsLab(tmp_path / "out")
    chance = Chance(lab, seed)

    async def script():
        for _ in range(60):
            await chance.step()
        while chance.running:
            await chance.bye()
        lab.after(70)

    asyncio.run(script())
    assert lab.active == []
    assert lab.ports.open_ports == []
    assert lab.server.count == lab.server.admission.sessions == 0
    assert not lab.calls._sessions
    assert not lab.calls._kept._files
    recordings = lab.finish()
    told = [
        each.get("call-id")
        for recording in recordings
        for each in etree.parse(str(recording.directory / "metadata.xml")).iterfind(".//{*}recorded-by")
    ]
    assert sorted(told) == sorted(chance.call_ids)
    assert len(recordings) >= chance.calls
    assert not list(lab.working.iterdir())


def test_addresses_that_come_and_go_are_forgotten_and_those_with_sessions_are_not():
    admission = Admission(AdmissionRules())
    busy = peer("192.0.2.1")
    assert admission.judge(busy, 0, 0.0) is None
    admission.begin(busy)
    for number in range(MOST_SOURCES + 100):
        assert admission.judge(peer(f"10.0.{number >> 8}.{number & 255}"), 0, float(number)) is None
    assert len(admission._sources) == MOST_SOURCES
    assert admission._sources["192.0.2.1"].sessions == admission.sessions == 1
    admission.end(busy)
    assert admission.sessions == 0


def test_a_picture_that_nobody_foresaw_costs_the_others_nothing(tmp_path):
    lab = SrsLab(tmp_path / "out")
    failures = []
    lab.calls._failed = failures.append

    async def script():
        session = lab.record()
        lab.calls.submit(None)
        lab.turn()
        lab.speak(session, 0, 1)
        lab.after(1)
        lab.bye(session)

    asyncio.run(script())
    (recording,) = lab.finish()
    assert len(failures) == 1
    assert recording.document.state == "completed"
