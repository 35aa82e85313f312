"""Recording sessions of ours against servers that accept, refuse, pause, vanish and misbehave."""

import asyncio
import os
import re
import socket
from dataclasses import replace
from itertools import count, pairwise

import pytest

from capture.address import parse_endpoint
from decoders.sdp import Direction
from recorder.model import Side
from recorder.sip_ua.api import Body, EndedBy, UnreachableError
from recorder.siprec import src_farewell, src_health, src_link
from recorder.siprec.control import EventKind, SessionState
from recorder.siprec.legs import LegId, Source
from recorder.siprec.servers import Servers
from recorder.siprec.src_connect import Surroundings
from recorder.siprec.src_decision import Insecure, Instance, OnBye, OnHold, Overrides, Protection, Server
from recorder.siprec.src_session import SrcSession
from tests.siprec_fakes import (
    FORMATS,
    OPUS,
    PCMA,
    SECOND,
    START,
    FakeAgent,
    FakeForwarder,
    FakeServer,
    a_report,
    held,
    message,
    metadata_in,
    over,
    party,
    picture,
    refusal,
    sdp_body_of,
    sdp_in,
    stream,
)

ONE, TWO = "sip:one.example", "sip:two.example"
SNAPSHOT = Body(
    "application/rs-metadata",
    b'<requestsnapshot xmlns="urn:ietf:params:xml:ns:recording:1"/>',
    "recording-session",
)


class Stage:
    """One SRC with servers."""

    def __init__(self, *servers, **instance):
        self.servers = servers or (FakeServer(ONE),)
        self.agent = FakeAgent(*self.servers)
        self.forwarder = FakeForwarder()
        self.events = []
        self.kept, self.doubted, self.spared = [], [], []
        self.now = START + 3 * SECOND
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
            doubted=self.doubted.append,
            spared=self.spared.append,
            octets=os.urandom,
            number=lambda: next(numbers),
        )
        self.instance = Instance(**{"servers": tuple(Server(each.uri) for each in self.servers), **instance})
        self.done = []

    async def local_host(self, server, agent):
        return "127.0.0.1"

    def session(self, *pictures):
        made = SrcSession("s1", self.instance, self.around, self.done.append)
        for each in pictures or (picture(),):
            made.add(each, each.started)
        made.start()
        return made

    async def recording(self, *pictures):
        made = self.session(*pictures)
        await settled(lambda: made.state is SessionState.RECORDING)
        return made

    async def finish(self, session):
        session.abandon()
        await settled(lambda: self.done)
        assert not self.forwarder.open_legs
        await session.wait()

    def kinds(self):
        return [event.kind for event in self.events]


async def settled(condition, seconds=3.0):
    until = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < until, "it did not come"
        await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Updates follow each other twenty times as fast."""
    monkeypatch.setattr(src_link, "SPACING", 0.05)
    monkeypatch.setattr(src_link, "SNAPSHOT_SPACING", 0.02)
    monkeypatch.setattr(src_link, "UPDATE_PATIENCE", 0.1)
    monkeypatch.setattr(src_farewell, "FINAL", 0.5)


def test_a_call_is_recorded_from_invite_to_bye():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        call = picture()
        session = await stage.recording(call)
        invite = server.last("INVITE")
        assert invite.requires("siprec")
        assert ";+sip.src" in invite.get("contact")
        assert "application/rs-metadata+xml" in invite.get("accept")
        assert b"a=sendonly" in sdp_in(invite)
        assert b"<datamode>complete</datamode>" in metadata_in(invite)
        assert len(stage.forwarder.sending()) == 2
        stage.now = START + 9 * SECOND
        session.take(over(call), paused=False)
        await settled(lambda: stage.done)
        assert server.methods() == ["INVITE", "UPDATE", "BYE"]
        assert b"<stop-time>" in metadata_in(server.last("UPDATE"))
        assert metadata_in(server.last("BYE")) == metadata_in(server.last("UPDATE"))
        assert not stage.forwarder.open_legs
        assert stage.kinds() == [EventKind.START, EventKind.STOP]

    asyncio.run(run())


def test_every_request_of_the_session_has_its_marks():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        call = picture()
        session = await stage.recording(call)
        session.set_paused(paused=True)
        await settled(lambda: server.methods() == ["INVITE", "INVITE"])
        session.take(over(call), paused=False)
        await settled(lambda: stage.done)
        assert {method for method, *_ in server.received} == {"INVITE", "UPDATE", "BYE"}
        assert all(sent.requires("siprec") for _, sent, _ in server.received)
        assert stage.agent.invites[0].contact_params == ("+sip.src",)

    asyncio.run(run())


def test_media_go_out_by_position_under_the_servers_numbers_and_to_its_address():
    async def run():
        server = FakeServer(
            ONE,
            answers=lambda offer: sdp_body_of(
                "c=IN IP4 203.0.113.9\r\n"
                "m=audio 7000 RTP/AVP 18 0 96\r\na=rtpmap:18 G729/8000\r\na=rtpmap:96 telephone-event/8000\r\n"
                "a=label:9\r\na=recvonly\r\n"
                "m=audio 7002 RTP/AVP 0\r\na=label:9\r\na=rtcp:7009 IN IP4 203.0.113.10\r\n"
            ),
        )
        stage = Stage(server)
        session = await stage.recording()
        remotes = {leg.source.side: remote for leg, remote in stage.forwarder.remotes.items()}
        caller, callee = remotes[Side.CALLER], remotes[Side.CALLEE]
        assert str(caller.rtp) == "203.0.113.9:7000"
        assert str(caller.rtcp) == "203.0.113.9:7001"
        assert {known.encoding: number for known, number in caller.payload_types.items()} == {
            "PCMU": 0,
            "telephone-event": 96,
        }
        assert str(callee.rtcp) == "203.0.113.10:7009"
        assert [known.encoding for known in callee.payload_types] == ["PCMU"]
        await stage.finish(session)

    asyncio.run(run())


def test_a_stream_that_is_refused_costs_only_itself_and_is_offered_with_port_0_from_then_on():
    async def run():
        def refuse_second(description):
            media = (description.media[0], description.media[1]._replace(port=0))
            return replace(description, media=media)

        server = FakeServer(ONE, change=refuse_second)
        stage = Stage(server)
        call = picture()
        session = await stage.recording(call)
        assert {leg.source.side for leg in stage.forwarder.sending()} == {Side.CALLER}
        session.take(replace(call, streams=(stream(Side.CALLER, formats={8: PCMA}), call.streams[1])), paused=False)
        await settled(lambda: server.methods() == ["INVITE", "INVITE"])
        second = server.last("INVITE").sdp()
        assert [media.port > 0 for media in second.media] == [True, False]
        assert session.state is SessionState.RECORDING
        await stage.finish(session)

    asyncio.run(run())


def test_a_server_that_takes_no_media_at_all_is_left():
    async def run():
        first = FakeServer(ONE, change=lambda d: replace(d, media=tuple(m._replace(port=0) for m in d.media)))
        stage = Stage(first, FakeServer(TWO))
        session = await stage.recording()
        assert session.telling.peer == TWO
        assert first.methods() == ["INVITE", "BYE"]
        await stage.finish(session)

    asyncio.run(run())


def test_an_answer_with_codecs_that_the_call_does_not_have_is_never_sent_to():
    async def run():
        def other(description):
            media = [
                each._replace(formats={18: replace(PCMA, payload_type=18, encoding="G729")})
                for each in description.media
            ]
            return replace(description, media=tuple(media))

        stage = Stage(FakeServer(ONE, change=other), FakeServer(TWO))
        session = await stage.recording()
        assert session.telling.peer == TWO
        assert any("codecs" in each for each in session.connector.attempts)
        await stage.finish(session)

    asyncio.run(run())


def test_a_server_that_is_not_ready_gets_media_once_it_offers_recvonly():
    async def run():
        def inactive(description):
            return replace(
                description, media=tuple(m._replace(direction=Direction.INACTIVE) for m in description.media)
            )

        server = FakeServer(ONE, change=inactive)
        stage = Stage(server)
        session = await stage.recording()
        assert not stage.forwarder.sending()
        lines = "".join(f"m=audio {7000 + 2 * n} RTP/AVP 0\r\na=label:{n + 1}\r\na=recvonly\r\n" for n in range(2))
        reply = await server.sessions[0].ask("INVITE", sdp_body_of(f"c=IN IP4 203.0.113.9\r\n{lines}"))
        assert reply.status == 200
        answer = message("SIP/2.0 200 OK", reply.body).sdp()
        assert [media.direction for media in answer.media] == [Direction.SENDONLY] * 2
        assert len(stage.forwarder.sending()) == 2
        await stage.finish(session)

    asyncio.run(run())


def test_a_server_pauses_moves_and_refuses_streams_but_can_add_none():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        session = await stage.recording()
        before = server.last("INVITE").sdp().origin
        body = sdp_body_of(
            "c=IN IP4 203.0.113.9\r\n"
            "m=audio 7000 RTP/AVP 0\r\na=inactive\r\n"
            "m=audio 0 RTP/AVP 0\r\n"
            "m=audio 7004 RTP/AVP 0\r\na=recvonly\r\n"
        )
        reply = await server.sessions[0].ask("UPDATE", body)
        answer = message("SIP/2.0 200 OK", reply.body).sdp()
        assert [media.port > 0 for media in answer.media] == [True, False, False]
        assert answer.media[0].direction is Direction.INACTIVE
        assert (answer.origin.session_id, answer.origin.version) == (before.session_id, before.version + 1)
        assert not stage.forwarder.sending()
        await asyncio.sleep(0.15)
        assert server.methods() == ["INVITE"], "a pause of the server is not contradicted"
        await stage.finish(session)

    asyncio.run(run())


def test_a_server_without_an_offer_of_its_own_gets_ours_and_answers_in_the_ack():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        session = await stage.recording()
        reply = await server.sessions[0].ask("INVITE")
        sent = message("SIP/2.0 200 OK", reply.body)
        assert sent.sdp().media[0].direction is Direction.SENDONLY
        assert b"complete" in metadata_in(sent)
        server.sessions[0].ack.set_result(
            message(
                "ACK sip:a SIP/2.0",
                sdp_body_of(
                    "c=IN IP4 203.0.113.9\r\nm=audio 7000 RTP/AVP 0\r\na=recvonly\r\n"
                    "m=audio 7002 RTP/AVP 0\r\na=recvonly\r\n"
                ),
            )
        )
        await settled(
            lambda: {str(r.rtp) for r in stage.forwarder.remotes.values()} == {"203.0.113.9:7000", "203.0.113.9:7002"}
        )
        await stage.finish(session)

    asyncio.run(run())


@pytest.mark.parametrize("method", ["UPDATE", "INFO", "INVITE"])
def test_a_request_for_a_snapshot_is_answered_200_and_then_a_complete_one_follows(method):
    async def run():
        stage = Stage()
        server = stage.servers[0]
        call = picture()
        session = await stage.recording(call)
        session.take(held(call, Side.CALLER), paused=False)
        await settled(lambda: "UPDATE" in server.methods())
        first = asyncio.get_running_loop().time()
        reply = await server.sessions[0].ask(method, SNAPSHOT)
        assert reply.status == 200
        await server.sessions[0].ask(method, SNAPSHOT)
        if method == "INVITE":
            assert b"complete" in metadata_in(message("SIP/2.0 200 OK", reply.body))
        await settled(lambda: server.methods().count("INVITE") == 2)
        assert asyncio.get_running_loop().time() - first < 1
        again = server.last("INVITE")
        assert b"<datamode>complete</datamode>" in metadata_in(again)
        labels = {label.encode() for label in re.findall(r"<label>(\w+)", metadata_in(again).decode())}
        assert labels == {b"1", b"2"} == set(re.findall(rb"a=label:(\w+)", sdp_in(again)))
        await stage.finish(session)

    asyncio.run(run())


def test_updates_are_coalesced_the_first_at_once():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        call = picture()
        session = await stage.recording(call)
        begun = asyncio.get_running_loop().time()
        for number in range(100):
            session.take(held(call, Side.CALLER) if number % 2 else call, paused=False)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.15)
        times = [at for method, _, at in server.received if method == "UPDATE"]
        assert 2 <= len(times) <= 2 + (asyncio.get_running_loop().time() - begun) / src_link.SPACING
        assert times[0] - begun < 0.04, "the first goes out at once"
        assert all(later - earlier > 0.03 for earlier, later in pairwise(times))
        assert metadata_in(server.last("UPDATE")).count(b"<send>") == 1, "the last state is told"
        await stage.finish(session)

    asyncio.run(run())


def test_hold_and_resume_are_told_and_the_stream_stays_or_pauses_as_the_policy_has_it():
    async def run(policy):
        stage = Stage(on_hold=policy)
        server = stage.servers[0]
        call = picture()
        session = await stage.recording(call)
        session.take(held(call, Side.CALLER), paused=False)
        await settled(lambda: len(server.received) == 2)
        document = metadata_in(server.received[1][1])
        assert b"<datamode>partial</datamode>" in document
        assert document.count(b"<participantstreamassoc") == 2
        sending = len(stage.forwarder.sending())
        method = server.methods()[1]
        if method == "INVITE":
            assert sdp_in(server.last("INVITE")).count(b"a=inactive") == 2
        session.take(call, paused=False)
        await settled(lambda: len(server.received) == 3)
        await settled(lambda: len(stage.forwarder.sending()) == 2)
        await stage.finish(session)
        return method, sending

    assert asyncio.run(run(OnHold.SEND)) == ("UPDATE", 2)
    assert asyncio.run(run(OnHold.PAUSE)) == ("INVITE", 0)


def test_a_pause_stops_media_at_once_and_a_resume_waits_for_the_answer():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        session = await stage.recording()
        session.set_paused(paused=True)
        assert not stage.forwarder.sending()
        assert session.state is SessionState.PAUSED
        await settled(lambda: server.methods() == ["INVITE", "INVITE"])
        assert sdp_in(server.last("INVITE")).count(b"a=inactive") == 2
        session.set_paused(paused=False)
        assert not stage.forwarder.sending()
        await settled(lambda: len(stage.forwarder.sending()) == 2)
        assert sdp_in(server.last("INVITE")).count(b"a=sendonly") == 2
        assert stage.kinds() == [EventKind.START, EventKind.PAUSE, EventKind.RESUME]
        await stage.finish(session)

    asyncio.run(run())


def test_a_pause_and_resume_within_one_interval_leave_media_going():
    async def run():
        stage = Stage()
        session = await stage.recording()
        session.set_paused(paused=True)
        session.set_paused(paused=False)
        await settled(lambda: len(stage.forwarder.sending()) == 2)
        await stage.finish(session)

    asyncio.run(run())


def test_what_answers_recvonly_to_inactive_gets_nothing():
    async def run():
        def eager(description):
            return replace(
                description, media=tuple(m._replace(direction=Direction.RECVONLY) for m in description.media)
            )

        server = FakeServer(ONE, change=eager)
        stage = Stage(server)
        session = await stage.recording()
        session.set_paused(paused=True)
        await settled(lambda: server.methods() == ["INVITE", "INVITE"])
        await asyncio.sleep(0.05)
        assert not stage.forwarder.sending()
        await stage.finish(session)

    asyncio.run(run())


def test_a_codec_that_the_call_changes_to_is_offered_before_it_is_sent():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        call = picture()
        session = await stage.recording(call)
        changed = replace(call, streams=(stream(Side.CALLER, formats={111: OPUS}), stream(Side.CALLEE)))
        session.take(changed, paused=False)
        await settled(lambda: server.methods() == ["INVITE", "INVITE"])
        offer = server.last("INVITE").sdp()
        assert offer.media[0].formats[111].rtpmap == "opus/48000/2"
        assert list(offer.media[0].formats) == [111, *FORMATS], "packets of these may be on their way"
        await settled(lambda: any(OPUS in remote.payload_types for remote in stage.forwarder.remotes.values()))
        await stage.finish(session)

    asyncio.run(run())


def test_an_answer_is_about_the_offer_that_it_answers_whatever_changed_meanwhile():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        call = picture()
        session = stage.session(call)
        await settled(lambda: server.received)
        changed = replace(call, streams=tuple(stream(side, formats={8: PCMA}) for side in Side))
        session.take(changed, paused=False)
        await settled(lambda: server.methods() == ["INVITE", "INVITE"])
        await settled(lambda: all(PCMA in remote.payload_types for remote in stage.forwarder.remotes.values()))
        assert len(stage.forwarder.sending()) == 2
        await stage.finish(session)

    asyncio.run(run())


def test_a_stream_that_comes_while_an_answer_is_awaited_is_offered_next():
    async def run():
        stage = Stage(media=("audio", "video"))
        server = stage.servers[0]
        call = picture()
        session = stage.session(call)
        await settled(lambda: server.received)
        video = tuple(
            stream(side, 1, {96: replace(OPUS, payload_type=96, encoding="VP8")}, media="video") for side in Side
        )
        session.take(replace(call, streams=(*call.streams, *video)), paused=False)
        await settled(lambda: len(stage.forwarder.sending()) == 4)
        assert len(server.last("INVITE").sdp().media) == 4
        assert b"<label>4</label>" in metadata_in(server.last("INVITE"))
        await stage.finish(session)

    asyncio.run(run())


def test_a_payload_type_never_changes_its_meaning():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        call = picture(streams=(stream(Side.CALLER, formats={96: replace(OPUS, payload_type=96)}), stream(Side.CALLEE)))
        session = await stage.recording(call)
        other = replace(PCMA, payload_type=96, encoding="AMR")
        session.take(replace(call, streams=(stream(Side.CALLER, formats={96: other}), call.streams[1])), paused=False)
        await settled(lambda: server.methods() == ["INVITE", "INVITE"])
        formats = server.last("INVITE").sdp().media[0].formats
        assert [each.encoding for each in formats.values()] == ["AMR", "opus"]
        assert formats[96].encoding == "opus"
        await stage.finish(session)

    asyncio.run(run())


def test_versions_rise_by_one_with_each_change_and_the_same_version_is_the_same_text():
    async def run():
        server = FakeServer(ONE, allow="INVITE, ACK, BYE")
        stage = Stage(server)
        call = picture()
        session = await stage.recording(call)
        session.take(held(call, Side.CALLER), paused=False)
        await settled(lambda: len(server.received) == 2)
        session.set_paused(paused=True)
        await settled(lambda: len(server.received) == 3)
        offers = [sdp_in(each) for method, each, _ in server.received if method == "INVITE"]
        assert offers[0] == offers[1]
        versions = [int(re.search(rb"o=\S+ \d+ (\d+)", each)[1]) for each in offers]
        assert versions[2] == versions[1] + 1
        await stage.finish(session)

    asyncio.run(run())


def test_a_server_without_update_gets_all_metadata_by_re_invite():
    async def run():
        server = FakeServer(ONE, allow="INVITE, ACK, BYE")
        stage = Stage(server)
        call = picture()
        session = await stage.recording(call)
        session.take(over(call), paused=False)
        await settled(lambda: stage.done)
        assert server.methods() == ["INVITE", "INVITE", "BYE"]
        assert b"<stop-time>" in metadata_in(server.last("INVITE"))

    asyncio.run(run())


@pytest.mark.parametrize("change", [{"update_silent": True}, {"update_refusal": refusal(405)}])
def test_a_server_that_lists_update_and_does_not_take_it_gets_re_invites(change):
    async def run():
        server = FakeServer(ONE, **change)
        stage = Stage(server)
        call = picture()
        session = await stage.recording(call)
        session.take(held(call, Side.CALLER), paused=False)
        await settled(lambda: server.methods() == ["INVITE", "UPDATE", "INVITE"])
        session.take(call, paused=False)
        await settled(lambda: server.methods() == ["INVITE", "UPDATE", "INVITE", "INVITE"])
        await stage.finish(session)

    asyncio.run(run())


def test_a_refused_update_is_followed_by_a_complete_snapshot():
    async def run():
        server = FakeServer(ONE, reinvite_refusals=[refusal(500)])
        stage = Stage(server)
        call = picture()
        session = await stage.recording(call)
        session.take(replace(call, streams=(stream(Side.CALLER, formats={8: PCMA}), call.streams[1])), paused=False)
        await settled(lambda: server.methods() == ["INVITE", "INVITE", "INVITE"])
        assert b"complete" in metadata_in(server.last("INVITE"))
        assert server.last("INVITE").sdp().media[0].formats[8] == PCMA
        await stage.finish(session)

    asyncio.run(run())


@pytest.mark.parametrize(
    "failure", [refusal(503), refusal(486), refusal(420, headers=[("Unsupported", "siprec")]), UnreachableError("no")]
)
def test_a_server_that_fails_is_followed_by_the_next_with_the_same_legs(failure):
    async def run():
        stage = Stage(FakeServer(ONE, refusals=[failure]), FakeServer(TWO))
        session = await stage.recording()
        assert session.telling.peer == TWO
        assert len(session.connector.attempts) == 2
        assert sum(each[0] == "open" for each in stage.forwarder.said) == 2
        await stage.finish(session)

    asyncio.run(run())


def test_codes_that_end_it_are_followed_by_no_other_server():
    async def run():
        stage = Stage(FakeServer(ONE, refusals=[refusal(403)]), FakeServer(TWO), final=re.compile("4.."))
        stage.session()
        await settled(lambda: stage.done)
        assert stage.servers[1].received == []
        assert stage.done[0].state is SessionState.FAILED
        assert stage.kinds() == [EventKind.FAILURE]
        assert stage.kept == []

    asyncio.run(run())


def test_what_is_not_acceptable_is_offered_again_with_less():
    async def run():
        server = FakeServer(ONE, refusals=[refusal(488)])
        stage = Stage(server)
        session = await stage.recording(
            picture(streams=tuple(stream(side, formats={111: OPUS, **FORMATS}) for side in Side))
        )
        first, second = (each.sdp() for _, each, _ in server.received)
        assert len(first.media[0].formats) == 4
        assert [each.encoding for each in second.media[0].formats.values()] == ["opus"]
        await stage.finish(session)

    asyncio.run(run())


def test_a_488_that_says_what_it_takes_is_heeded():
    async def run():
        server = FakeServer(ONE, refusals=[refusal(488, sdp_body_of("m=audio 0 RTP/AVP 0\r\n"))])
        stage = Stage(server)
        session = await stage.recording(
            picture(streams=tuple(stream(side, formats={111: OPUS, **FORMATS}) for side in Side))
        )
        assert [each.encoding for each in server.last("INVITE").sdp().media[0].formats.values()] == ["PCMU"]
        await stage.finish(session)

    asyncio.run(run())


def test_a_server_that_takes_no_multipart_is_sent_the_description_alone():
    async def run():
        server = FakeServer(ONE, refusals=[refusal(415)])
        stage = Stage(server)
        call = picture()
        session = await stage.recording(call)
        assert server.last("INVITE").content_type == "application/sdp"
        session.take(over(call), paused=False)
        await settled(lambda: stage.done)
        assert server.methods() == ["INVITE", "INVITE", "BYE"]

    asyncio.run(run())


def test_when_a_server_vanishes_the_call_goes_on_at_the_next_under_the_same_identifiers():
    async def run():
        stage = Stage(FakeServer(ONE), FakeServer(TWO))
        first, second = stage.servers
        call = picture()
        session = await stage.recording(call)
        for leg in stage.forwarder.open_legs:
            stage.forwarder.reports[leg] = a_report(packets=100, last=START + 5 * SECOND, heard_from=START + 4 * SECOND)
        stage.now = START + 6 * SECOND
        first.alive = False
        session.lose("it answers no OPTIONS")
        await settled(lambda: session.telling.peer == TWO and session.state is SessionState.RECORDING)
        before, after = metadata_in(first.received[0][1]).decode(), metadata_in(second.received[0][1]).decode()
        for name in ("session_id", "participant_id", "group_id", "stream_id"):
            assert set(re.findall(rf'{name}="(.*?)"', before)) == set(re.findall(rf'{name}="(.*?)"', after))
        associated = r"<sessionrecordingassoc.*?<associate-time>(.*?)<"
        assert re.search(associated, before, re.DOTALL)[1] < re.search(associated, after, re.DOTALL)[1]
        start = r"<start-time>(.*?)<"
        assert re.search(start, before)[1] == re.search(start, after)[1]
        moves = [each for each in stage.forwarder.said if each[0] == "move"]
        assert len(moves) == 2
        for leg in stage.forwarder.open_legs:
            stage.forwarder.reports[leg] = a_report(packets=1, first=START + 5 * SECOND + 40_000_000, unsent=0)
        session.look(stage.forwarder.report(list(stage.forwarder.open_legs)))
        failover = next(event for event in stage.events if event.kind is EventKind.FAILOVER)
        assert failover.details["from"] == ONE
        assert failover.details["1 caller 0 last"] == START + 5 * SECOND
        assert failover.details["1 caller 0 gap ms"] == 40
        assert failover.details["1 callee 0 lost"] == 0
        assert "no OPTIONS" in failover.text
        await stage.finish(session)
        assert stage.events[-1].kind is EventKind.STOP
        assert stage.events[-1].details["packets"] == 2 * 100 + 2 * 1

    asyncio.run(run())


def test_a_bye_of_the_server_mid_call_leads_to_the_next_or_ends_it():
    async def run(policy):
        stage = Stage(FakeServer(ONE), FakeServer(TWO), on_bye=policy)
        session = await stage.recording()
        stage.servers[0].sessions[0].end(EndedBy.PEER)
        if policy is OnBye.NEXT:
            await settled(lambda: session.telling.peer == TWO and session.state is SessionState.RECORDING)
            await stage.finish(session)
        else:
            await settled(lambda: stage.done)
            assert stage.servers[1].received == []

    asyncio.run(run(OnBye.NEXT))
    asyncio.run(run(OnBye.END))


@pytest.mark.parametrize("spool", [True, False])
def test_a_server_that_ends_every_session_at_once_is_not_asked_for_ever(monkeypatch, spool):
    async def none(self, seconds):
        pauses.append(seconds)

    pauses = []
    monkeypatch.setattr(SrcSession, "_pause", none)

    async def run():
        server = FakeServer(ONE)
        stage = Stage(server, spool=spool)
        stage.session()
        while not stage.done:
            for dialog in server.sessions:
                dialog.end(EndedBy.PEER)
            await asyncio.sleep(0)
        assert server.methods() == ["INVITE"] * 6
        assert pauses == [2, 4, 8, 16]
        assert len(stage.kept) == spool

    asyncio.run(run())


def test_ports_where_nobody_listens_are_left_after_some_looks():
    async def run():
        stage = Stage(FakeServer(ONE), FakeServer(TWO))
        session = await stage.recording()
        for leg in stage.forwarder.open_legs:
            stage.forwarder.reports[leg] = a_report(packets=9, unreachable=True)
        for _ in range(src_health.LOOKS):
            session.look(stage.forwarder.report(list(stage.forwarder.open_legs)))
        await settled(lambda: session.telling.peer == TWO)
        await settled(lambda: "BYE" in stage.servers[0].methods())
        await stage.finish(session)

    asyncio.run(run())


def test_missing_receiver_reports_have_the_server_asked_and_only_silence_ends_it():
    async def run():
        stage = Stage(FakeServer(ONE), FakeServer(TWO))
        session = await stage.recording()
        for leg in stage.forwarder.open_legs:
            stage.forwarder.reports[leg] = a_report(packets=9, heard_from=stage.now)
        stage.now += 31 * SECOND
        reports = stage.forwarder.report(list(stage.forwarder.open_legs))
        session.look(reports)
        await settled(lambda: "OPTIONS" in stage.servers[0].methods())
        assert session.telling.peer == ONE
        stage.servers[0].alive = False
        stage.now += 31 * SECOND
        session.look(reports)
        await settled(lambda: session.telling.peer == TWO)
        await stage.finish(session)

    asyncio.run(run())


def test_a_silent_server_is_left_once_its_last_receiver_report_is_old_and_one_that_refuses_is_not():
    async def run():
        stage = Stage(FakeServer(ONE), FakeServer(TWO))
        session = await stage.recording()
        servers, server = stage.around.servers, session.link.server
        servers.failed(server, retry_after=5.0)
        session.server_down()
        assert session.link.ended is None, "it only takes no new sessions"
        servers.succeeded(server)
        for leg in stage.forwarder.open_legs:
            stage.forwarder.reports[leg] = a_report(packets=9, heard_from=stage.now)
        stage.servers[0].alive = False
        servers.failed(server, unreachable=True)
        session.server_down()
        others = {LegId(Source(9, Side.CALLER, 0), 9): a_report(packets=9, heard_from=stage.now + 4 * SECOND)}
        session.look(stage.forwarder.report(list(stage.forwarder.open_legs)) | others)
        assert session.link.ended is None, "its media may be received all the same"
        stage.now += 4 * SECOND
        session.look(stage.forwarder.report(list(stage.forwarder.open_legs)) | others)
        await settled(lambda: session.telling.peer == TWO)
        await stage.finish(session)

    asyncio.run(run())


def test_without_any_server_the_call_is_kept_until_one_returns_and_told_so():
    async def run():
        server = FakeServer(ONE, alive=False)
        stage = Stage(server)
        call = picture()
        session = stage.session(call)
        await settled(lambda: session.state is SessionState.SPOOLING)
        assert stage.kinds() == [EventKind.SPOOLED]
        server.alive = True
        await settled(lambda: session.state is SessionState.RECORDING)
        session.take(over(call), paused=False)
        await settled(lambda: stage.done)
        assert [call.picture.index for call, _ in stage.kept] == [1], "not all of it was delivered"

    asyncio.run(run())


def test_a_call_that_ends_while_no_server_is_there_is_kept():
    async def run():
        stage = Stage(FakeServer(ONE, alive=False))
        call = picture()
        session = stage.session(call)
        await settled(lambda: session.state is SessionState.SPOOLING)
        session.take(over(call), paused=False)
        await settled(lambda: stage.done)
        assert len(stage.kept) == 1
        assert not stage.forwarder.open_legs

    asyncio.run(run())


def test_without_a_spool_it_fails():
    async def run():
        stage = Stage(FakeServer(ONE, alive=False), spool=False)
        stage.session()
        await settled(lambda: stage.done)
        assert stage.kinds() == [EventKind.FAILURE]
        assert stage.kept == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("server", "insecure", "outcome"),
    [
        (Server(ONE), Insecure.REFUSE, "clear"),
        (Server(ONE), Insecure.WARN, ""),
        (Server(ONE, protection=Protection.SAVP), Insecure.WARN, "keys"),
        (Server(ONE, protection=Protection.SAVP, keys_in_clear=True), Insecure.REFUSE, ""),
        (Server(ONE + ";transport=tls", protection=Protection.SAME), Insecure.REFUSE, ""),
    ],
)
def test_an_encrypted_call_goes_only_where_it_stays_so(server, insecure, outcome):
    async def run():
        stage = Stage(FakeServer(server.uri), servers=(server,), insecure=insecure, spool=False)
        call = picture(streams=tuple(stream(side, encrypted=True, keyed=True) for side in Side))
        session = stage.session(call)
        await settled(lambda: stage.done or session.state is SessionState.RECORDING)
        if outcome:
            assert outcome in session.connector.attempts[-1]
            assert stage.servers[0].received == []
            return
        offer = stage.servers[0].last("INVITE").sdp()
        assert offer.media[0].encrypted is (server.protection is not Protection.AVP)
        if insecure is Insecure.WARN:
            assert "clear" in session.note
        await stage.finish(session)

    asyncio.run(run())


def test_keys_are_our_own_one_for_each_stream_and_the_servers_choice_is_taken():
    async def run():
        server = Server(ONE + ";transport=tls", protection=Protection.SAVP)
        fake = FakeServer(server.uri)

        def second_suite(description):
            media = [
                each._replace(crypto=(replace(offered.crypto[1], key=bytes(30)),))
                for each, offered in zip(description.media, fake.last("INVITE").sdp().media, strict=True)
            ]
            return replace(description, media=tuple(media))

        fake.change = second_suite
        stage = Stage(fake, servers=(server,))
        session = await stage.recording()
        offer = fake.last("INVITE").sdp()
        keys = [key.key for media in offer.media for key in media.crypto]
        assert len(set(keys)) == 4
        for leg, remote in stage.forwarder.remotes.items():
            media = offer.media[0 if leg.source.side is Side.CALLER else 1]
            assert remote.encrypt == media.crypto[1]
            assert remote.decrypt[0].key == bytes(30)
        await stage.finish(session)

    asyncio.run(run())


def test_an_answer_without_a_key_or_in_the_clear_gets_no_media():
    async def run(change):
        server = Server(ONE + ";transport=tls", protection=Protection.SAVP)
        fake = FakeServer(server.uri, change=change)
        stage = Stage(fake, servers=(server,), spool=False)
        stage.session()
        await settled(lambda: stage.done)
        assert not any(each[0] == "connect" for each in stage.forwarder.said)

    asyncio.run(run(lambda d: replace(d, media=tuple(m._replace(crypto=()) for m in d.media))))
    asyncio.run(run(lambda d: replace(d, media=tuple(m._replace(protocol="RTP/AVP", crypto=()) for m in d.media))))


def test_a_transfer_within_the_call_brings_a_new_participant_into_the_same_session():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        call = picture()
        session = await stage.recording(call)
        carol = replace(party(Side.CALLEE, call.id, "carol"), joined=START + 5 * SECOND)
        session.take(replace(call, parties=(call.parties[0], carol)), paused=False)
        await settled(lambda: "UPDATE" in server.methods())
        document = metadata_in(server.last("UPDATE")).decode()
        assert "carol" in document
        assert document.count("<participantsessionassoc") == 2
        assert document.count("<disassociate-time>") == 2, "Bob leaves the call and its streams"
        await stage.finish(session)

    asyncio.run(run())


def test_what_is_said_in_place_of_what_was_heard():
    async def run():
        overrides = Overrides(
            caller_name="Desk 7",
            callee_aor="sip:customer@example.com",
            group_extension='<t:team xmlns:t="urn:example:team">north</t:team>',
            from_="<sip:recorder@example.com>",
            to="<sip:archive@example.com>",
        )
        stage = Stage(overrides=overrides, headers=(("X-Site", "7"),))
        session = await stage.recording()
        new = stage.agent.invites[0]
        assert (new.from_, new.to) == ("<sip:recorder@example.com>", "<sip:archive@example.com>")
        assert ("X-Site", "7") in new.headers
        document = metadata_in(stage.servers[0].last("INVITE")).decode()
        assert "Desk 7" in document
        assert "bob" not in document
        assert 'xmlns:t="urn:example:team">north' in document
        await stage.finish(session)

    asyncio.run(run())


def test_requests_of_other_kinds_are_answered_and_change_nothing():
    async def run():
        stage = Stage()
        dialog_of = stage.servers[0].sessions
        session = await stage.recording()
        assert (await dialog_of[0].ask("INFO", Body("application/dtmf-relay", b"Signal=1"))).status == 415
        assert (await dialog_of[0].ask("UPDATE")).status == 200
        assert (await dialog_of[0].ask("UPDATE", sdp_body_of("m=audio 1 RTP/AVP 0\r\n"))).status == 488
        assert len(stage.forwarder.sending()) == 2
        await stage.finish(session)

    asyncio.run(run())


def test_a_flood_of_requests_for_snapshots_costs_a_few():
    async def run():
        stage = Stage()
        server = stage.servers[0]
        session = await stage.recording()
        for _ in range(500):
            await server.sessions[0].ask("UPDATE", SNAPSHOT)
            if _ % 50 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert server.methods().count("INVITE") < 20
        await stage.finish(session)

    asyncio.run(run())


def test_stopping_while_it_connects_takes_the_invite_back():
    async def run():
        stage = Stage()

        async def never(new):
            await asyncio.sleep(3600)

        stage.agent.invite = never
        session = stage.session()
        await asyncio.sleep(0.01)
        session.stop()
        await settled(lambda: stage.done)
        assert not stage.forwarder.open_legs
        assert EventKind.START not in stage.kinds()

    asyncio.run(run())


def resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


@pytest.mark.skipif(not resolves("localhost"), reason="nothing here tells where localhost is: there is no /etc/hosts")
def test_a_host_name_in_an_answer_is_looked_up():
    async def run():
        server = FakeServer(
            ONE,
            answers=lambda offer: sdp_body_of(
                "c=IN IP4 localhost\r\nm=audio 7000 RTP/AVP 0\r\na=recvonly\r\nm=audio 0 RTP/AVP 0\r\n"
            ),
        )
        stage = Stage(server)
        session = await stage.recording()
        remote = next(iter(stage.forwarder.remotes.values()))
        assert remote.rtp in (parse_endpoint("127.0.0.1", 7000), parse_endpoint("::1", 7000))
        await stage.finish(session)

    asyncio.run(run())
