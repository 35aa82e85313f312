"""All sessions of an SRC: which calls have which, persistent ones, those that servers ask for, and commands."""

import asyncio
import gc
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from capture.address import parse_endpoint
from capture.port_pool import PortsExhausted
from recorder.model import Side, Transport
from recorder.sip_ua.api import EndedBy, Peer, UnreachableError
from recorder.siprec import (
    servers,
    src_connect,
    src_farewell,
    src_keeping,
    src_link,
    src_move,
    src_session,
    src_sessions,
)
from recorder.siprec.control import ControlError, EventKind, SessionControl, SessionState
from recorder.siprec.src_control import SrcControl
from recorder.siprec.src_decision import NOT_RECORDED, Instance, Server, SrcDecision
from recorder.siprec.src_session import SrcSession
from recorder.siprec.src_sessions import CALM, SrcOptions, SrcSessions
from tests.siprec_fakes import (
    SECOND,
    START,
    FakeAgent,
    FakeForwarder,
    FakeServer,
    FakeSession,
    a_report,
    message,
    metadata_in,
    over,
    party,
    picture,
    sdp_body_of,
    sdp_in,
    stream,
)

ONE, TWO = "sip:one.example", "sip:two.example"
LOCAL = {"": "127.0.0.1", "inside": "127.0.0.2"}
"""Our address, by user agent."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(src_link, "SPACING", 0.02)
    monkeypatch.setattr(src_farewell, "FINAL", 0.5)


class Src:
    """An SRC and its servers."""

    def __init__(self, *servers, decision=None, options=None, **instance):
        self.servers = servers or (FakeServer(ONE),)
        self.agent = FakeAgent(*self.servers)
        self.forwarder = FakeForwarder()
        self.instance = Instance(**{"servers": tuple(Server(each.uri) for each in self.servers), **instance})
        self.decision = decision or SrcDecision(record=True, instances=(self.instance,))
        self.kept, self.doubted, self.spared = [], [], []
        self.events = []
        self.now = START + 3 * SECOND
        self.sessions = SrcSessions(
            {"": self.agent, "inside": FakeAgent(*self.servers)},
            self.forwarder,
            lambda call: self.decision,
            local_host=self.local_host,
            options=options,
            keep=self.kept.append,
            doubted=self.doubted.append,
            spared=self.spared.append,
            clock=lambda: self.now,
            octets=os.urandom,
        )
        self.sessions.listen(self.events.append)

    async def local_host(self, server, agent):
        return LOCAL[agent]

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        await self.sessions.close(2.0)
        assert not self.forwarder.open_legs
        assert not self.sessions.sessions

    def states(self):
        return [each.state for each in self.sessions.sessions.values()]

    def kinds(self):
        return [event.kind for event in self.events]


async def settled(condition, seconds=3.0):
    until = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < until, "it did not come"
        await asyncio.sleep(0.002)


def test_each_call_has_a_session_of_its_own_from_its_first_streams_to_its_end():
    async def run():
        async with Src() as src:
            calls = [picture(number) for number in range(1, 4)]
            src.sessions.take(replace(calls[0], streams=()))
            await asyncio.sleep(0.01)
            assert not src.sessions.sessions
            with ThreadPoolExecutor(1) as pool:
                for call in calls:
                    pool.submit(src.sessions.post, call).result()
            await settled(lambda: src.states() == [SessionState.RECORDING] * 3)
            infos = src.sessions.infos()
            assert [info.call_ids for info in infos] == [(call.call_id,) for call in calls]
            assert infos[0].caller == "sip:alice@example.com"
            assert [leg.label for leg in infos[0].legs] == ["1", "2"]
            assert infos[0].legs[0].codec == "PCMU/8000"
            for call in calls:
                src.sessions.take(over(call))
            await settled(lambda: not src.sessions.sessions)
            assert [info.state for info in src.sessions.infos()] == [SessionState.ENDED] * 3
            assert not src.sessions.calls

    asyncio.run(run())


def test_a_call_that_is_not_to_be_recorded_has_none():
    async def run():
        async with Src(decision=NOT_RECORDED) as src:
            src.sessions.take(picture())
            await asyncio.sleep(0.01)
            assert not src.sessions.sessions
            assert src.servers[0].received == []

    asyncio.run(run())


def test_several_instances_are_independent_recordings_of_one_call():
    async def run():
        one, two = Instance((Server(ONE),), name="a"), Instance((Server(TWO),), name="b")
        decision = SrcDecision(record=True, instances=(one, two))
        async with Src(FakeServer(ONE), FakeServer(TWO), decision=decision) as src:
            src.sessions.take(picture())
            await settled(lambda: src.states() == [SessionState.RECORDING] * 2)
            assert [server.methods() for server in src.servers] == [["INVITE"], ["INVITE"]]
            assert len(src.forwarder.sending()) == 4
            src.servers[0].sessions[0].server.alive = False

    asyncio.run(run())


def test_a_rule_pauses_and_resumes_and_an_operators_pause_outlasts_it():
    async def run():
        async with Src() as src:
            call = picture()
            src.sessions.take(call)
            await settled(lambda: src.states() == [SessionState.RECORDING])
            session = next(iter(src.sessions.sessions.values()))
            src.decision = replace(src.decision, paused=True)
            src.sessions.take(replace(call, tags=("card",)))
            assert src.states() == [SessionState.PAUSED]
            session.set_paused(paused=True)
            src.decision = replace(src.decision, paused=False)
            src.sessions.take(call)
            assert src.states() == [SessionState.PAUSED]
            session.set_paused(paused=False)
            assert src.states() == [SessionState.RECORDING]
            assert src.kinds() == [EventKind.START, EventKind.PAUSE, EventKind.RESUME]

    asyncio.run(run())


def test_a_call_whose_keys_nobody_knows_is_told_of_once():
    async def run():
        async with Src() as src:
            call = picture(streams=tuple(stream(side, encrypted=True) for side in Side))
            src.sessions.take(call)
            src.sessions.take(replace(call, tags=("x",)))
            assert src.kinds() == [EventKind.FAILURE]
            src.sessions.take(picture())
            await settled(lambda: src.states() == [SessionState.RECORDING])

    asyncio.run(run())


def test_a_persistent_session_takes_calls_one_after_another_and_reuses_their_places():
    async def run():
        async with Src(persistent=True) as src:
            server = src.servers[0]
            calls = [picture(number) for number in range(1, 5)]
            for call in calls[:2]:
                src.sessions.take(call)
            await settled(lambda: src.states() == [SessionState.RECORDING])
            await settled(lambda: len(src.forwarder.sending()) == 4)
            src.sessions.take(over(calls[0]))
            await settled(lambda: len(src.forwarder.open_legs) == 2)
            await settled(lambda: b"<stop-time>" in metadata_in(server.received[-1][1]))
            ended = server.received[-1][1]
            assert [media.port > 0 for media in ended.sdp().media] == [False, False, True, True]
            src.sessions.take(calls[2])
            await settled(lambda: len(src.forwarder.sending()) == 4)
            again = server.last("INVITE")
            assert len(again.sdp().media) == 4
            assert b"<datamode>partial</datamode>" in metadata_in(again)
            assert metadata_in(again).count(b"<session ") == 1
            labels = [media.label for media in again.sdp().media]
            assert labels == ["1", "2", "3", "4"]
            for call in calls[1:3]:
                src.sessions.take(over(call))
            await settled(lambda: not src.forwarder.open_legs)
            assert src.states() == [SessionState.RECORDING], "it stays"
            src.sessions.take(calls[3])
            await settled(lambda: len(src.forwarder.sending()) == 2)
            assert server.methods().count("BYE") == 0
            session = next(iter(src.sessions.sessions.values()))
            assert [call.picture.index for call in session.calls] == [4]
            assert len(session.link.said) == 11, "nothing is remembered of calls that are over"

    asyncio.run(run())


def test_a_persistent_session_that_is_full_is_followed_by_another():
    async def run():
        async with Src(persistent=True) as src:
            for number in range(1, 10):
                src.sessions.take(picture(number))
            await settled(lambda: len(src.forwarder.sending()) == 18)
            assert [len(session.calls) for session in src.sessions.sessions.values()] == [8, 1]

    asyncio.run(run())


def test_a_persistent_session_moves_with_all_its_calls():
    async def run():
        async with Src(FakeServer(ONE), FakeServer(TWO), persistent=True) as src:
            for number in range(1, 4):
                src.sessions.take(picture(number))
            await settled(lambda: len(src.forwarder.sending()) == 6)
            session = next(iter(src.sessions.sessions.values()))
            session.lose("dead")
            await settled(lambda: session.telling.peer == TWO and len(src.forwarder.sending()) == 6)
            assert metadata_in(src.servers[1].received[0][1]).count(b"<session ") == 3

    asyncio.run(run())


def test_two_hundred_calls_are_at_the_second_server_within_five_seconds_after_the_first_died(monkeypatch):
    """With looks and pings five times as often."""
    monkeypatch.setattr(src_sessions, "LOOK", 0.2)
    monkeypatch.setattr(servers, "BUSY_PING", 0.2)
    monkeypatch.setattr(src_move, "SETTLED", 0.5)

    async def run():
        async with Src(FakeServer(ONE), FakeServer(TWO)) as src:
            for number in range(1, 201):
                src.sessions.take(picture(number))
            await settled(lambda: src.states().count(SessionState.RECORDING) == 200)
            await asyncio.sleep(0.6)  # it has answered a ping by now
            src.servers[0].alive = False
            died = asyncio.get_running_loop().time()
            await settled(lambda: {info.peer for info in src.sessions.infos()} == {TWO}, 10)
            await settled(lambda: src.states().count(SessionState.RECORDING) == 200)
            assert asyncio.get_running_loop().time() - died < 3
            assert EventKind.SERVER_DOWN in src.kinds()
            await settled(lambda: src.kinds().count(EventKind.FAILOVER) == 200, 6)

    asyncio.run(run())


def test_a_call_is_in_doubt_while_no_server_answers_and_spared_when_one_had_it(monkeypatch):
    monkeypatch.setattr(src_keeping, "PATIENCE", 0.0)

    async def run():
        async with Src() as src:
            answers = asyncio.Event()
            invite = src.agent.invite

            async def slow(new):
                await answers.wait()
                return await invite(new)

            src.agent.invite = slow
            src.sessions.take(picture(1))
            src.sessions.look()
            assert [each.index for each in src.doubted] == [1]
            assert src.sessions.waited_for() == {ONE}
            answers.set()
            await settled(lambda: src.states() == [SessionState.RECORDING])
            assert not src.sessions.waited_for()
            src.sessions.take(over(picture(1)))
            await settled(lambda: not src.sessions.sessions)
            assert [each.index for each in src.spared] == [1]
            assert not src.kept

    asyncio.run(run())


def test_each_call_of_a_persistent_session_is_kept_while_no_server_is_there():
    async def run():
        async with Src(FakeServer(ONE, alive=False), persistent=True) as src:
            calls = [picture(number) for number in range(1, 4)]
            for call in calls[:2]:
                src.sessions.take(call)
            await settled(lambda: src.states() == [SessionState.SPOOLING])
            src.sessions.take(calls[2])
            kept = [event.call for event in src.events if event.kind is EventKind.SPOOLED]
            assert kept == [str(call.id) for call in calls]

    asyncio.run(run())


def test_a_call_without_ports_in_a_persistent_session_is_told_of_and_takes_no_room(monkeypatch):
    async def run():
        async with Src(persistent=True) as src:
            src.sessions.take(picture(1))
            await settled(lambda: src.states() == [SessionState.RECORDING])

            def none(*_):
                raise PortsExhausted("no ports are left")

            with monkeypatch.context() as patched:
                patched.setattr(src.forwarder, "open", none)
                src.sessions.take(picture(2))
            assert "no ports are left" in src.events[-1].text
            for number in range(3, 10):
                src.sessions.take(picture(number))
            await settled(lambda: [len(each.calls) for each in src.sessions.sessions.values()] == [8])

    asyncio.run(run())


@pytest.mark.parametrize("over_first", [False, True])
def test_a_call_without_ports_is_tried_again_and_kept_where_it_ends_before_there_are_any(monkeypatch, over_first):
    monkeypatch.setattr(src_connect, "PORTS_PATIENCE", 0.02)

    async def run():
        async with Src() as src:

            def none(*_):
                raise PortsExhausted("no ports are left")

            with monkeypatch.context() as patched:
                patched.setattr(src.forwarder, "open", none)
                src.sessions.take(picture(1))
                await settled(lambda: src.states() == [SessionState.SPOOLING])
                assert src.events[-1].kind is EventKind.SPOOLED
                assert "no ports are left" in src.events[-1].text
                if over_first:
                    src.sessions.take(over(picture(1)))
                    await settled(lambda: not src.sessions.sessions)
            if not over_first:
                await settled(lambda: src.states() == [SessionState.RECORDING])
                src.sessions.take(over(picture(1)))
                await settled(lambda: not src.sessions.sessions)
            assert [kept.picture.index for kept in src.kept] == [1]

    asyncio.run(run())


def test_a_move_that_finds_no_ports_leaves_no_leg_open_and_is_made_later(monkeypatch):
    monkeypatch.setattr(src_connect, "PORTS_PATIENCE", 0.02)

    async def run():
        one, two = FakeServer(ONE), FakeServer(TWO)
        async with Src(one, two) as src:
            src.sessions.take(picture(1))
            await settled(lambda: src.states() == [SessionState.RECORDING])
            move, asked = src.forwarder.move, []

            def once(leg, host, since, to):
                asked.append(leg)
                if len(asked) == 2:
                    raise PortsExhausted("no ports are left")
                return move(leg, host, since, to)

            monkeypatch.setattr(src.forwarder, "move", once)
            one.sessions[0].end(EndedBy.TRANSPORT)
            await settled(lambda: two.sessions and src.states() == [SessionState.RECORDING])
            assert len(asked) == 2
            assert len(src.forwarder.open_legs) == 2
            assert len(src.forwarder.sending()) == 2

    asyncio.run(run())


def test_each_session_is_looked_at_in_its_turn_and_what_is_doubted_every_time(monkeypatch):
    async def run():
        async with Src() as src:
            src.sessions._watch.cancel()
            for number in range(1, 9):
                src.sessions.take(picture(number))
            await settled(lambda: src.states() == [SessionState.RECORDING] * 8)
            looked: Counter[str] = Counter()
            look = SrcSession.look

            def counted(session, reports):
                looked[session.id] += 1
                look(session, reports)

            monkeypatch.setattr(SrcSession, "look", counted)
            for _ in range(CALM):
                src.sessions.look()
            assert set(looked.values()) == {1}
            assert len(looked) == 8
            for leg in src.forwarder.open_legs:
                if leg.source.call == 1:
                    src.forwarder.reports[leg] = a_report(packets=9, unreachable=True)
            for _ in range(CALM):
                src.sessions.look()
            src.sessions.look()
            src.sessions.look()
            assert looked["r1"] >= 3
            assert max(count for name, count in looked.items() if name != "r1") <= 3

    asyncio.run(run())


def test_a_session_that_breaks_off_is_told_of():
    async def run():
        broken = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context["exception"]))
        async with Src(agent="of other settings") as src:
            src.sessions.take(picture())
            await settled(lambda: not src.sessions.sessions)
            assert [event.text for event in src.events if event.kind is EventKind.FAILURE] == ["broke off: KeyError"]
        gc.collect()
        await asyncio.sleep(0)
        assert [type(each) for each in broken] == [KeyError]

    asyncio.run(run())


def test_calls_wait_for_a_server_and_are_kept_where_they_end_before_it_returns():
    async def run():
        async with Src(FakeServer(ONE, alive=False)) as src:
            first, second = picture(1), picture(2)
            src.sessions.take(first)
            src.sessions.take(second)
            await settled(lambda: src.states() == [SessionState.SPOOLING] * 2)
            src.sessions.take(over(first))
            await settled(lambda: len(src.kept) == 1)
            assert src.kept[0].picture.id == first.id
            assert src.kept[0].since == first.started
            src.servers[0].alive = True
            await settled(lambda: src.states() == [SessionState.RECORDING], 5)
            assert EventKind.SERVER_UP in src.kinds()

    asyncio.run(run())


class FakeIncoming:
    """An INVITE of a server."""

    def __init__(self, target="sip:*@src", *, contact="<sip:srs@b>;+sip.srs", require="siprec", user="srs", body=None):
        headers = [("Contact", contact)] + ([("Require", require)] if require else [])
        self.message = message(f"INVITE {target} SIP/2.0", body, headers)
        self.peer = Peer(parse_endpoint("198.51.100.1", 5060), Transport.UDP, user=user)
        self.local_address = "127.0.0.1"
        self.cancelled = False
        self.refused = None
        self.sent = None
        self.session = None

    def progress(self, status, reason=""):
        pass

    def accept(self, body, headers=(), contact_params=(), local_uri=""):
        if self.cancelled:
            raise UnreachableError("taken back")
        self.sent = message("SIP/2.0 200 OK", body, [("Contact", f"<sip:a>;{';'.join(contact_params)}")])
        self.session = FakeSession(FakeServer("sip:srs@b"), self.message, None)
        return self.session

    def refuse(self, status, reason="", headers=()):
        self.refused = status


def asked(**changes):
    return Src(decision=NOT_RECORDED, options=SrcOptions(invited=Instance(()), **changes))


def answer(count):
    lines = "".join(f"m=audio {7000 + 2 * n} RTP/AVP 0\r\na=recvonly\r\n" for n in range(count))
    return message("ACK sip:a SIP/2.0", sdp_body_of(f"c=IN IP4 203.0.113.9\r\n{lines}"))


@pytest.mark.parametrize(
    ("contact", "require", "user", "accepted"),
    [
        ("<sip:srs@b>;+sip.srs", "siprec", "srs", True),
        ("<sip:srs@b>;+sip.srs", "", "srs", False),
        ("<sip:srs@b>", "siprec", "srs", False),
        ("<sip:srs@b>", "", "srs", False),
        ("<sip:srs@b>;+sip.srs", "siprec", None, False),
    ],
)
def test_an_invite_is_a_servers_only_with_both_marks_and_only_if_it_was_authenticated(contact, require, user, accepted):
    async def run():
        async with asked() as src:
            src.sessions.take(picture())
            incoming = FakeIncoming(contact=contact, require=require, user=user)
            src.agent.on_invite(incoming)
            assert (incoming.refused is None) is accepted
            if not accepted:
                assert incoming.refused == 403
                return
            assert ";+sip.src" in incoming.sent.get("contact")
            assert b"complete" in metadata_in(incoming.sent)
            assert sdp_in(incoming.sent).count(b"a=sendonly") == 2
            assert not src.forwarder.sending(), "nothing before the answer"
            incoming.session.ack.set_result(answer(2))
            await settled(lambda: len(src.forwarder.sending()) == 2)

    asyncio.run(run())


def test_a_server_gets_the_calls_of_the_number_it_asks_for_and_later_ones_too():
    async def run():
        async with asked() as src:
            mine = picture(1)
            other = picture(2, parties=(party(Side.CALLER, uuid4(), "carol"), party(Side.CALLEE, uuid4())))
            for call in (mine, other):
                src.sessions.take(call)
            incoming = FakeIncoming("sip:alice@src")
            src.agent.on_invite(incoming)
            assert metadata_in(incoming.sent).count(b"<session ") == 1
            incoming.session.ack.set_result(answer(2))
            await settled(lambda: len(src.forwarder.sending()) == 2)
            src.sessions.take(picture(3))
            await settled(lambda: len(src.forwarder.sending()) == 4)
            for call in (mine, replace(mine, index=3)):
                src.sessions.take(over(call))
            await settled(lambda: not src.forwarder.open_legs)
            assert src.states() == [SessionState.RECORDING]
            incoming.session.server.sessions[0].end("peer")
            await settled(lambda: not src.sessions.sessions)

    asyncio.run(run())


def test_a_server_that_asks_for_more_calls_than_a_session_has_room_for_gets_as_many_as_fit():
    async def run():
        async with asked() as src:
            for number in range(1, 11):
                src.sessions.take(picture(number))
            incoming = FakeIncoming("sip:alice@src")
            src.agent.on_invite(incoming)
            assert sdp_in(incoming.sent).count(b"a=sendonly") == len(src.forwarder.open_legs) == 16
            assert [len(session.calls) for session in src.sessions.sessions.values()] == [8]

    asyncio.run(run())


def test_calls_that_a_server_asks_for_and_that_find_no_room_are_told_of_and_come_when_others_have_ended():
    async def run():
        async with asked() as src:
            for number in range(1, 11):
                src.sessions.take(picture(number))
            incoming = FakeIncoming("sip:alice@src")
            src.agent.on_invite(incoming)
            told = [event.call_id for event in src.events if event.kind is EventKind.FAILURE]
            assert told == ["call-9@192.0.2.10", "call-10@192.0.2.10"]
            incoming.session.ack.set_result(answer(16))
            await settled(lambda: len(src.forwarder.sending()) == 16)
            src.sessions.take(over(picture(1)))
            (session,) = src.sessions.sessions.values()
            await settled(lambda: len(src.forwarder.sending()) == 16 and session.call(9) is not None)
            assert session.call(10) is None
            assert len([event for event in src.events if event.kind is EventKind.FAILURE]) == 2

    asyncio.run(run())


def test_a_call_that_is_over_when_it_is_first_told_of_is_named_as_not_recorded():
    async def run():
        async with Src(FakeServer(ONE)) as src:
            src.sessions.take(over(picture(1)))
            src.sessions.take(over(picture(2, answered=None)))
            assert [(event.kind, event.call_id) for event in src.events] == [(EventKind.FAILURE, "call-1@192.0.2.10")]

    asyncio.run(run())


def test_pings_and_media_leave_by_the_sockets_that_the_sessions_of_a_server_leave_by():
    async def run():
        async with Src(FakeServer(ONE), agent="inside") as src:
            inside = src.sessions.around.agents["inside"]
            src.sessions.take(picture())
            await settled(lambda: src.states() == [SessionState.RECORDING])
            assert {str(leg.rtp).partition(":")[0] for leg in src.forwarder.open_legs.values()} == {LOCAL["inside"]}
            await settled(lambda: inside.pings[ONE] > 0)
            assert src.agent.pings[ONE] == 0

    asyncio.run(run())


def test_a_server_may_ask_before_there_is_any_call():
    async def run():
        async with asked() as src:
            incoming = FakeIncoming()
            src.agent.on_invite(incoming)
            assert incoming.sent.sdp().media == ()
            incoming.session.ack.set_result(answer(0))
            await settled(lambda: src.states() == [SessionState.RECORDING])
            src.sessions.take(picture())
            await settled(lambda: len(src.forwarder.sending()) == 2)

    asyncio.run(run())


def test_what_cannot_be_answered_leaves_nothing_behind():
    async def run():
        async with asked() as src:
            src.sessions.take(picture())
            taken_back = FakeIncoming()
            taken_back.cancelled = True
            src.agent.on_invite(taken_back)
            assert not src.sessions.sessions
            offering = FakeIncoming(body=sdp_body_of("m=audio 7000 RTP/AVP 0\r\n"))
            src.agent.on_invite(offering)
            assert offering.refused == 488
            unacknowledged = FakeIncoming()
            src.agent.on_invite(unacknowledged)
            unacknowledged.session.ack.set_result(None)
            await settled(lambda: not src.sessions.sessions)
            assert not src.forwarder.open_legs

    asyncio.run(run())


def test_commands_come_from_other_threads():
    async def run():
        async with Src(FakeServer(ONE), FakeServer(TWO), decision=NOT_RECORDED) as src:
            loop = asyncio.get_running_loop()
            control: SessionControl = SrcControl(
                src.sessions,
                lambda work: asyncio.run_coroutine_threadsafe(work, loop),
                lambda text: [Server(each) for each in text.split(",") if each],
                src.instance,
            )
            call = picture()
            src.sessions.take(call)

            async def do(command, *arguments):
                return await loop.run_in_executor(None, command, *arguments)

            (session,) = await do(control.start, call.call_id, "", {"caller-name": "Desk"})
            await settled(lambda: src.states() == [SessionState.RECORDING])
            assert b"Desk" in metadata_in(src.servers[0].last("INVITE"))
            with pytest.raises(ControlError, match="recorded already"):
                await do(control.start, call.call_id)
            (second,) = await do(control.start, str(call.id), TWO)
            await settled(lambda: src.states() == [SessionState.RECORDING] * 2)
            assert await do(control.pause, session) == [session]
            assert await do(control.resume, call.call_id) == [session, second]
            assert (await do(control.request, session, "INFO", "text/plain", b"x")).startswith("200")
            assert src.servers[0].last("INFO").body == b"x"
            assert [info.id for info in await do(control.sessions)] == [session, second]
            for command, arguments, wrong in (
                (control.start, ("nobody",), "no call"),
                (control.start, (call.call_id, "", {"x": "y"}), "no option"),
                (control.start, (call.call_id, "", {"group": "y"}), "no UUID"),
                (control.start, (call.call_id, "", {"to": "a\r\nb"}), "line break"),
                (control.stop, ("nobody",), "no recording session"),
                (control.request, (session, "BYE", "", b""), "cannot be sent"),
                (control.request, (call.call_id, "INFO", "", b""), "goes to one"),
            ):
                with pytest.raises(ControlError, match=wrong):
                    await do(command, *arguments)
            await do(control.stop, call.call_id)
            await settled(lambda: not src.sessions.sessions)
            assert b"<stop-time>" not in metadata_in(src.servers[0].last("BYE")), "the call goes on"
            assert src.servers[0].last("UPDATE").get("content-disposition") == "recording-session"

    asyncio.run(run())


def test_stopping_one_call_of_a_persistent_session_leaves_the_others():
    async def run():
        async with Src(persistent=True) as src:
            loop = asyncio.get_running_loop()
            control = SrcControl(
                src.sessions, lambda work: asyncio.run_coroutine_threadsafe(work, loop), lambda _: [], src.instance
            )
            calls = [picture(1), picture(2)]
            for call in calls:
                src.sessions.take(call)
            await settled(lambda: len(src.forwarder.sending()) == 4)
            await loop.run_in_executor(None, control.pause, calls[0].call_id)
            assert len(src.forwarder.sending()) == 2
            await loop.run_in_executor(None, control.stop, calls[0].call_id)
            await settled(lambda: len(src.forwarder.open_legs) == 2)
            assert src.states() == [SessionState.RECORDING]

    asyncio.run(run())


def test_sessions_leave_nothing_behind(monkeypatch):
    """What grows with each shows after some hundreds; SPANREC_MANY_SESSIONS has more of them."""
    many = int(os.environ.get("SPANREC_MANY_SESSIONS", "400"))
    monkeypatch.setattr(src_session, "RECENT", -1)  # nothing waits to be sent

    async def run():
        async with Src() as src:
            src.agent.keep_invites = False
            server = src.servers[0]
            for number in range(many):
                call = picture(number)
                src.sessions.take(call)
                await asyncio.sleep(0)
                src.sessions.take(over(call))
                while src.sessions.sessions:
                    await asyncio.sleep(0)
                for memory in (server.received, server.sessions, src.forwarder.said, src.events, src.sessions._ended):
                    memory.clear()
                if number == many // 2:
                    gc.collect()
                    before = len(gc.get_objects()), resident()
            gc.collect()
            assert len(gc.get_objects()) - before[0] < 1000
            assert resident() - before[1] < 4 << 20
            assert len(asyncio.all_tasks()) <= 3

    asyncio.run(run())


def resident():
    """Octets of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
