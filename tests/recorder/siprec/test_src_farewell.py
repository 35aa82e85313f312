"""The end of a recording session at a server that is there to hear it, and at one that has gone meanwhile."""

import asyncio

import pytest

from recorder.siprec import src_farewell
from recorder.siprec.control import EventKind, SessionState
from recorder.siprec.src_decision import Instance, Server, SrcDecision
from recorder.siprec.src_sessions import SrcOptions, SrcSessions
from tests.siprec_fakes import START, FakeAgent, FakeForwarder, FakeServer, metadata_in, over, picture

ONE = "sip:one.example"


async def settled(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def ended(server, *, late=False, before=lambda: None):
    """(Events, calls that were not delivered) of a call at a server; `before` is called as the call is about to end."""
    events, kept = [], []

    async def local_host(*_):
        return "127.0.0.1"

    decision = SrcDecision(record=True, instances=(Instance((Server(ONE),)),))
    sessions = SrcSessions(
        {"": FakeAgent(server)},
        FakeForwarder(),
        lambda call: decision,
        local_host=local_host,
        options=SrcOptions(late=late),
        keep=kept.append,
        clock=lambda: START,
    )
    sessions.listen(events.append)
    sessions.take(picture())
    await settled(lambda: [each.state for each in sessions.sessions.values()] == [SessionState.RECORDING])
    before()
    sessions.take(over(picture()))
    await settled(lambda: not sessions.sessions)
    await sessions.close()
    return events, kept


def test_what_the_last_update_says_stands_in_the_bye_too():
    server = FakeServer(ONE)
    events, kept = asyncio.run(ended(server))
    assert [server.methods()[0], server.methods()[-1]] == ["INVITE", "BYE"]
    assert metadata_in(server.last("BYE")) == metadata_in(server.received[-2][1])
    assert b"<stop-time>" in metadata_in(server.last("BYE"))
    assert [each.kind for each in events] == [EventKind.START, EventKind.STOP]
    assert kept == []


@pytest.mark.parametrize("late", [False, True])
def test_a_server_that_was_gone_at_the_end_is_told_of_and_a_late_call_is_sent_once_more(late):
    server = FakeServer(ONE)

    def gone():
        server.alive = False

    events, kept = asyncio.run(ended(server, late=late, before=gone))
    told = [each.text for each in events if each.kind is EventKind.FAILURE]
    assert ["gone at the end" in text for text in told] == ([] if late else [True])
    assert [each.picture.index for each in kept] == ([1] if late else [])


def test_a_server_that_answers_no_update_but_the_bye_was_there(monkeypatch):
    monkeypatch.setattr(src_farewell, "FINAL", 0.05)
    events, kept = asyncio.run(ended(FakeServer(ONE, update_silent=True)))
    assert [each.kind for each in events] == [EventKind.START, EventKind.STOP]
    assert kept == []
