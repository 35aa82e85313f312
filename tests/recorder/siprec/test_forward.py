"""The forwarder over loopback sockets: what a recording server gets of what was on the wire."""

import os
import struct
import sys
import threading
from contextlib import ExitStack
from itertools import pairwise

import pytest

from capture.address import Endpoint
from capture.batch import PacketBatch
from capture.live import SourceCounters
from capture.port_pool import PortsExhausted
from decoders.rtcp import parse_rtcp
from decoders.rtcp_values import ReportBlock
from decoders.rtcp_write import receiver_report
from recorder.model import Side
from recorder.siprec.forward import Capacity
from recorder.siprec.legs import LegId, Source
from tests.forwarding import (
    ALICE,
    BOB,
    DTMF,
    MS,
    PCMA,
    PCMU,
    RELAY,
    START,
    VOICE,
    Bench,
    Got,
    Rtp,
    Server,
    batch_of,
    talk,
)


def numbers(got: list[Got]) -> list[int]:
    """Sequence numbers from the first on."""
    return [(each.sequence - got[0].sequence) & 0xFFFF for each in got]


def stamps(got: list[Got]) -> list[int]:
    """Timestamps from the first on."""
    return [(each.stamp - got[0].stamp) & 0xFFFFFFFF for each in got]


def heard(bench: Bench, server: Server, packets: list[Rtp], batch: int = 5) -> list[Got]:
    """What a server that is connected from the beginning gets of packets."""
    bench.feed(packets[:1])
    bench.place_all(VOICE)
    bench.leg(server, VOICE)
    for begin in range(1, len(packets), batch):
        bench.feed(packets[begin : begin + batch], batch)
        bench.place_all(VOICE)
    bench.pass_time(100)
    return server.got()


def test_media_goes_out_as_it_came_under_numbers_of_its_own():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(50)
        bench.feed(spoken[:5])
        bench.place_all(VOICE)
        leg, local = bench.leg(server, VOICE)
        bench.feed(spoken[5:])
        bench.pass_time(200)
        got = server.got()
        assert [each.payload for each in got] == [each.payload for each in spoken]
        assert {(each.first, each.kind, each.ssrc) for each in got} == {(0x80, 0, local.ssrc)}
        assert numbers(got) == list(range(50))
        assert stamps(got) == [160 * k for k in range(50)]
        report = bench.forwarder.close(leg)
        assert (report.packets, report.octets, report.unsent) == (50, 50 * 160, 0)
        assert (report.first, report.last) == (START, START + 49 * 20 * MS)


def test_it_leaves_from_the_ports_that_the_session_announced():
    with Bench() as bench:
        server = bench.server()
        bench.feed(talk(1))
        bench.place_all(VOICE)
        _, local = bench.leg(server, VOICE)
        bench.servers.clear()
        bench.pass_time(50)
        _, sender = server.rtp_socket.recvfrom(2048)
        assert sender == (local.rtp.host, local.rtp.port)
        assert local.rtp.port % 2 == 0
        assert local.rtcp.port == local.rtp.port + 1


def test_what_was_lost_before_the_tap_stays_a_gap():
    with Bench() as bench:
        spoken = talk(30)
        del spoken[10:13]
        got = heard(bench, bench.server(), spoken)
        assert numbers(got) == [*range(10), *range(13, 30)]
        assert stamps(got) == [160 * k for k in (*range(10), *range(13, 30))]


def test_packets_out_of_order_keep_their_numbers():
    with Bench() as bench:
        spoken = talk(20)
        spoken[7], spoken[9] = spoken[9], spoken[7]
        got = heard(bench, bench.server(), spoken)
        assert numbers(got) == [*range(7), 9, 8, 7, *range(10, 20)]


def test_a_packet_that_was_mirrored_twice_is_sent_once():
    with Bench() as bench:
        twice = [packet for packet in talk(20) for _ in range(2)]
        got = heard(bench, bench.server(), twice)
        assert numbers(got) == list(range(20))


def test_sequence_numbers_and_timestamps_wrap():
    with Bench() as bench:
        got = heard(bench, bench.server(), talk(200, sequence=65500, stamp=2**32 - 3200))
        assert numbers(got) == list(range(200))
        assert stamps(got) == [160 * k for k in range(200)]


def test_a_leg_lives_longer_than_its_sequence_numbers():
    with Bench() as bench:
        server = bench.server()
        spoken = [Rtp(k, k, 8 * k, b"\x55" * 8) for k in range(140_000)]
        bench.feed(spoken[:10], batch=10)
        bench.place_all(VOICE)
        bench.leg(server, VOICE)
        bench.pass_time(100)
        got = []
        for begin in range(10, len(spoken), 1000):
            bench.feed(spoken[begin : begin + 1000], batch=1000)
            got += server.got()
        bench.pass_time(2000)
        got += server.got()
        assert numbers(got) == [k & 0xFFFF for k in range(len(spoken))]


def test_a_new_ssrc_between_the_same_ends_goes_on_at_once():
    with Bench() as bench:
        first, second = talk(10), talk(10, at=200, ssrc=0x2222, sequence=40_000, stamp=77)
        got = heard(bench, bench.server(), [*first, *second])
        assert [each.payload for each in got] == [each.payload for each in first + second]
        assert numbers(got) == list(range(20))
        assert stamps(got) == [160 * k for k in range(20)]
        assert len({each.ssrc for each in got}) == 1


def test_a_sender_that_begins_anew_goes_on_by_time():
    with Bench() as bench:
        got = heard(bench, bench.server(), [*talk(10), *talk(10, at=200, sequence=50_000, stamp=123)])
        assert numbers(got) == list(range(20))
        assert stamps(got) == [160 * k for k in range(20)]


def test_of_two_hops_with_the_same_media_one_is_sent():
    with Bench() as bench:
        near = talk(50, destination=RELAY)
        far = [each._replace(at=each.at + 2, source=RELAY, destination=BOB) for each in near]
        got = heard(bench, bench.server(), sorted(near + far), batch=10)
        assert numbers(got) == list(range(50))


@pytest.mark.parametrize("rewritten", [False, True])
def test_another_hop_takes_over_without_a_repeated_or_a_lost_packet(rewritten: bool):
    with Bench() as bench:
        near = talk(50, destination=RELAY)
        far = [each._replace(at=each.at + 2, source=RELAY, destination=BOB) for each in near]
        if rewritten:
            far = [each._replace(ssrc=7, sequence=each.sequence + 9000, stamp=each.stamp + 4_000_000) for each in far]
        # The near hop is no longer seen after half a second.
        got = heard(bench, bench.server(), sorted(near[:25] + far), batch=10)
        assert [each.payload for each in got] == [each.payload for each in near]
        assert numbers(got) == list(range(50))
        assert all(abs(stamp - 160 * k) <= 32 for k, stamp in enumerate(stamps(got)))


def test_media_that_goes_on_from_elsewhere_is_not_lost_while_it_is_decided():
    with Bench() as bench:
        announcement = talk(20, source=RELAY, destination=BOB, ssrc=5)
        answered = talk(40, at=400, ssrc=6, sequence=9, stamp=9)
        got = heard(bench, bench.server(), [*announcement, *answered], batch=10)
        assert [each.payload for each in got] == [each.payload for each in announcement + answered]
        assert numbers(got) == list(range(60))


def test_what_waits_goes_out_first_and_in_order():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(250)
        leg = LegId(VOICE, 1)
        bench.feed(spoken[:100])
        bench.place_all(VOICE)
        bench.forwarder.open(leg, "127.0.0.1", START + 200 * MS)
        bench.feed(spoken[100:200])
        bench.forwarder.connect(leg, server.remote())
        bench.feed(spoken[200:205], batch=1)
        assert len(server.raw()) <= 5 * 16  # paced, not all at once
        bench.feed(spoken[205:], batch=1)
        report = bench.forwarder.report([leg])[leg]
        assert (report.packets, report.unsent, report.first) == (240, 0, START + 200 * MS)


def test_order_of_what_waits_and_what_comes():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(250)
        bench.feed(spoken[:100])
        bench.place_all(VOICE)
        bench.leg(server, VOICE)
        bench.feed(spoken[100:], batch=1)
        got = server.got()
        assert [each.payload for each in got] == [each.payload for each in spoken]
        assert numbers(got) == list(range(250))


def test_what_is_too_old_when_the_answer_comes_is_counted():
    with Bench(Capacity(256, 64, 64, 1 << 20, 1_000_000_000, 512)) as bench:
        server = bench.server()
        leg = LegId(VOICE, 1)
        spoken = talk(200)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        bench.forwarder.open(leg, "127.0.0.1", 0)
        bench.feed(spoken[1:])
        bench.forwarder.connect(leg, server.remote())
        bench.pass_time(500)
        report = bench.forwarder.report([leg])[leg]
        assert report.packets + report.unsent == 200
        assert report.packets == len(server.raw()) == 50


def test_a_full_history_gives_up_the_oldest():
    with Bench(Capacity(256, 64, 64, 40_000, 10_000_000_000, 512)) as bench:
        server = bench.server()
        spoken = talk(400)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        leg = LegId(VOICE, 1)
        bench.forwarder.open(leg, "127.0.0.1", 0)
        bench.feed(spoken[1:])
        bench.forwarder.connect(leg, server.remote())
        bench.pass_time(500)
        got = server.got()
        assert 200 < len(got) < 230
        assert [each.payload for each in got] == [each.payload for each in spoken[-len(got) :]]
        assert bench.forwarder.report([leg])[leg].unsent == 400 - len(got)


def test_several_servers_get_the_same_media_under_names_of_their_own():
    with Bench() as bench:
        servers = [bench.server() for _ in range(3)]
        spoken = talk(40)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        locals_ = [bench.leg(server, VOICE, session)[1] for session, server in enumerate(servers)]
        bench.feed(spoken[1:])
        bench.pass_time(50)
        heard_by = [server.got() for server in servers]
        for got in heard_by:
            assert [each.payload for each in got] == [each.payload for each in spoken]
        assert [got[0].ssrc for got in heard_by] == [local.ssrc for local in locals_]
        assert len({got[0].stamp for got in heard_by}) == 3
        assert len({local.cname for local in locals_}) == 3


def test_a_pause_leaves_a_gap_in_time_and_none_in_sequence():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(90)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        leg, _ = bench.leg(server, VOICE)
        bench.feed(spoken[1:30])
        bench.forwarder.pause(leg)
        bench.feed(spoken[30:60])
        bench.forwarder.resume(leg)
        bench.feed(spoken[60:])
        got = server.got()
        assert [each.payload for each in got] == [each.payload for each in spoken[:30] + spoken[60:]]
        assert numbers(got) == list(range(60))
        assert stamps(got) == [160 * k for k in (*range(30), *range(60, 90))]
        assert bench.forwarder.report([leg])[leg].unsent == 0


def test_a_pause_before_the_answer_forgets_what_waits():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(60)
        leg = LegId(VOICE, 1)
        bench.feed(spoken[:10])
        bench.place_all(VOICE)
        bench.forwarder.open(leg, "127.0.0.1", 0)
        bench.forwarder.pause(leg)
        bench.feed(spoken[10:20])
        bench.forwarder.resume(leg)
        bench.feed(spoken[20:30])
        bench.forwarder.connect(leg, server.remote())
        bench.feed(spoken[30:])
        bench.pass_time(100)
        got = server.got()
        # The batch that comes with the command is heard under the state before it or after it.
        assert [each.payload for each in got] == [each.payload for each in spoken[60 - len(got) :]]
        assert 35 <= len(got) <= 45


def test_an_answer_that_wants_no_media_gets_none_until_it_changes():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(60)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        leg, _ = bench.leg(server, VOICE, sending=False)
        bench.feed(spoken[1:30])
        assert server.got() == []
        bench.forwarder.connect(leg, server.remote())
        bench.feed(spoken[30:])
        assert [each.payload for each in server.got()] == [each.payload for each in spoken[30:]]


def test_a_new_answer_moves_the_media_at_once():
    with Bench() as bench:
        before, after = bench.server(), bench.server()
        spoken = talk(40)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        leg, _ = bench.leg(before, VOICE)
        bench.feed(spoken[1:20])
        bench.forwarder.connect(leg, after.remote())
        bench.feed(spoken[20:])
        got = before.got() + after.got()
        assert [each.payload for each in got] == [each.payload for each in spoken]
        assert numbers(got) == list(range(40))


def test_payload_types_are_those_of_the_answer():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(12)
        for place, kind in ((4, 8), (5, 101), (6, 101 | 0x80), (7, 96)):
            spoken[place] = spoken[place]._replace(kind=kind)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        leg, _ = bench.leg(server, VOICE, accepted={PCMU: 77, DTMF: 96})
        bench.feed(spoken[1:])
        bench.pass_time(50)
        got = server.got()
        assert [each.kind for each in got] == [77] * 4 + [96, 96 | 0x80] + [77] * 4
        # What is not accepted leaves no hole that would be heard as loss.
        assert numbers(got) == list(range(10))
        assert bench.forwarder.report([leg])[leg].unsent == 2


def test_formats_that_come_to_be_known_later_are_sent():
    with Bench() as bench:
        server = bench.server()
        spoken = [each._replace(kind=97) for each in talk(20)]
        bench.feed(spoken[:10])
        (flow,) = bench.forwarder.take_new_flows()
        bench.forwarder.place(flow, VOICE, {0: PCMU})
        bench.leg(server, VOICE)
        bench.pass_time(50)
        assert server.got() == []
        bench.forwarder.place(flow, VOICE, {97: PCMA})
        bench.feed(spoken[10:])
        assert [each.kind for each in server.got()] == [8] * 10


def change_of_codec(bench: Bench) -> tuple[Server, LegId, list[Rtp]]:
    """A leg whose server takes PCMU, and then twenty packets of PCMA among those of PCMU, announced as they come."""
    server = bench.server()
    spoken = [packet._replace(kind=8 if 30 <= place < 50 else 0) for place, packet in enumerate(talk(80))]
    bench.feed(spoken[:10])
    (flow,) = bench.forwarder.take_new_flows()
    bench.forwarder.place(flow, VOICE, {0: PCMU})
    leg, _ = bench.leg(server, VOICE, accepted={PCMU: 0})
    bench.feed(spoken[10:30])
    bench.pass_time(20)
    bench.forwarder.place(flow, VOICE, {0: PCMU, 8: PCMA})
    return server, leg, spoken


def test_a_codec_that_is_new_waits_for_the_answer_and_nothing_of_it_is_lost():
    with Bench() as bench:
        server, leg, spoken = change_of_codec(bench)
        bench.feed(spoken[30:60])
        assert len(server.got()) == 30
        bench.forwarder.connect(leg, server.remote({PCMU: 0, PCMA: 98}))
        bench.feed(spoken[60:])
        bench.pass_time(200)
        got = server.got()
        assert [each.payload for each in got] == [each.payload for each in spoken[30:]]
        assert [each.kind for each in got] == [98] * 20 + [0] * 30
        assert numbers(got) == list(range(50))
        assert bench.forwarder.report([leg])[leg].unsent == 0


def test_a_codec_that_came_up_after_the_offer_waits_for_the_next_one_and_nothing_of_it_is_lost():
    with Bench() as bench:
        server = bench.server()
        spoken = [packet._replace(kind=8 if place >= 20 else 0) for place, packet in enumerate(talk(60))]
        bench.feed(spoken[:10])
        bench.place_all(VOICE, {0: PCMU, 8: PCMA})
        leg = LegId(VOICE, 1)
        bench.forwarder.open(leg, "127.0.0.1", 0)
        bench.forwarder.connect(leg, server.remote({PCMU: 0}, offered=frozenset({PCMU})))
        bench.feed(spoken[10:30])
        bench.pass_time(100)
        assert [each.payload for each in server.got()] == [each.payload for each in spoken[:20]]
        bench.forwarder.connect(leg, server.remote({PCMU: 0, PCMA: 98}, offered=frozenset({PCMU, PCMA})))
        bench.feed(spoken[30:])
        bench.pass_time(200)
        got = server.got()
        assert [(each.kind, each.payload) for each in got] == [(98, each.payload) for each in spoken[20:]]
        assert bench.forwarder.report([leg])[leg].unsent == 0


def test_a_codec_that_will_not_be_offered_is_waited_for_by_nobody():
    with Bench() as bench:
        server = bench.server()
        spoken = [packet._replace(kind=8 if 20 <= place < 30 else 0) for place, packet in enumerate(talk(60))]
        bench.feed(spoken[:10])
        bench.place_all(VOICE, {0: PCMU, 8: PCMA})
        leg = LegId(VOICE, 1)
        bench.forwarder.open(leg, "127.0.0.1", 0)
        bench.forwarder.connect(leg, server.remote({PCMU: 0}))
        bench.feed(spoken[10:])
        bench.pass_time(100)
        assert [each.payload for each in server.got()] == [each.payload for each in spoken[:20] + spoken[30:]]
        assert bench.forwarder.report([leg])[leg].unsent == 10


def test_a_codec_that_nobody_answers_for_is_left_out_after_some_seconds():
    with Bench() as bench:
        server, leg, spoken = change_of_codec(bench)
        bench.feed(spoken[30:])
        assert len(server.got()) == 30
        bench.pass_time(4000)
        got = server.got()
        assert [each.payload for each in got] == [each.payload for each in spoken[50:]]
        assert numbers(got) == list(range(30))
        assert bench.forwarder.report([leg])[leg].unsent == 20


def test_a_pause_ends_the_wait_for_an_answer_about_a_codec():
    with Bench() as bench:
        server, leg, spoken = change_of_codec(bench)
        bench.feed(spoken[30:55])
        bench.forwarder.pause(leg)
        bench.feed(spoken[55:60])
        bench.forwarder.resume(leg)
        bench.feed(spoken[60:])
        bench.pass_time(4000)
        assert [each.payload for each in server.got()] == [each.payload for each in [*spoken[:30], *spoken[60:]]]


def test_a_leg_for_which_there_is_no_room_is_refused_with_a_sentence():
    with Bench(Capacity(flows=16, sources=16, legs=4, history=1 << 16, rows=16)) as bench:
        legs = [LegId(VOICE, session) for session in range(4)]
        for leg in legs[:3]:
            bench.forwarder.open(leg, "127.0.0.1", 0)
        with pytest.raises(PortsExhausted, match="3 streams"):
            bench.forwarder.open(legs[3], "127.0.0.1", 0)
        assert bench.forwarder.forwarded().no_room == 1
        bench.forwarder.move(legs[0], "127.0.0.1", 0, LegId(VOICE, 9))  # there is room for a moment
        bench.forwarder.close(legs[1])
        bench.forwarder.open(legs[3], "127.0.0.1", 0)
        bench.step()
        assert bench.forwarder.forwarded().no_room == 1


def test_streams_for_which_there_is_no_room_are_counted():
    with Bench(Capacity(flows=16, sources=1, legs=4, history=1 << 16, rows=16)) as bench:
        bench.feed([*talk(2), *talk(2, at=40, ssrc=0x2222)])
        for place, flow in enumerate(bench.forwarder.take_new_flows()):
            bench.forwarder.place(flow, Source(place, Side.CALLER, 0), {0: PCMU})
        bench.step()
        assert bench.forwarder.forwarded().no_room == 1


def test_padding_extensions_and_contributing_sources_stay_behind():
    with Bench() as bench:
        plain = talk(4)
        extension = struct.pack("!HHI", 0xBEDE, 1, 0x10AB0000)
        sent = [
            plain[0],
            plain[1]._replace(first=0xB0, extra=extension, payload=plain[1].payload + b"\0\0\0\4"),
            plain[2]._replace(first=0x82, extra=struct.pack("!II", 1, 2)),
            plain[3]._replace(first=0xA0, payload=plain[3].payload + bytes(15) + b"\x10"),
        ]
        got = heard(bench, bench.server(), sent)
        assert [each.payload for each in got] == [each.payload for each in plain]
        assert {each.first for each in got} == {0x80}


def test_packets_that_a_snap_length_cut_are_not_sent():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(30)
        bench.feed(spoken[:10])
        bench.place_all(VOICE)
        leg, _ = bench.leg(server, VOICE)
        bench.feed(spoken[10:20], snap=96)
        bench.feed(spoken[20:])
        bench.pass_time(50)
        assert numbers(server.got()) == [*range(10), *range(20, 30)]
        assert bench.forwarder.report([leg])[leg].unsent == 10
        assert bench.forwarder.forwarded().cut == 10


def test_one_flow_may_be_of_two_calls():
    with Bench() as bench:
        other = Source(2, Side.CALLEE, 0)
        servers = bench.server(), bench.server()
        spoken = talk(30)
        bench.feed(spoken[:5])
        (flow,) = bench.forwarder.take_new_flows()
        bench.forwarder.place(flow, VOICE, {0: PCMU})
        bench.forwarder.place(flow, other, {0: PCMU})
        bench.leg(servers[0], VOICE)
        bench.feed(spoken[5:])
        bench.leg(servers[1], other)
        bench.pass_time(200)
        for server in servers:
            assert numbers(server.got()) == list(range(30))


def test_another_server_gets_what_the_first_one_may_not_have_kept():
    with Bench() as bench:
        first, second = bench.server(), bench.server()
        spoken = talk(300)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        leg, local = bench.leg(first, VOICE)
        bench.feed(spoken[1:200])
        to = LegId(VOICE, 2)
        moved = bench.forwarder.move(leg, "127.0.0.1", START + 100 * 20 * MS, to)
        assert moved.ssrc != local.ssrc
        bench.forwarder.connect(to, second.remote())
        bench.feed(spoken[200:])
        bench.pass_time(500)
        assert len(first.got()) == 200
        got = second.got()
        assert [each.payload for each in got] == [each.payload for each in spoken[100:]]
        assert numbers(got) == list(range(200))
        assert bench.forwarder.close(leg).packets == 200


def test_another_server_gets_what_the_first_one_never_got():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(100)
        leg, to = LegId(VOICE, 1), LegId(VOICE, 2)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        bench.forwarder.open(leg, "127.0.0.1", START + 40 * MS)
        bench.feed(spoken[1:60])
        bench.forwarder.move(leg, "127.0.0.1", bench.now, to)
        bench.forwarder.connect(to, server.remote())
        bench.feed(spoken[60:])
        bench.pass_time(100)
        assert [each.payload for each in server.got()] == [each.payload for each in spoken[2:]]


def test_a_source_that_is_asked_for_late_is_heard_from_the_beginning():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(60)
        bench.feed(spoken[:40])  # nobody knows yet whose it is
        bench.place_all(VOICE)
        bench.feed(spoken[40:])
        bench.leg(server, VOICE)
        bench.pass_time(200)
        assert [each.payload for each in server.got()] == [each.payload for each in spoken]


def test_flows_of_nobody_are_not_kept():
    with Bench() as bench:
        bench.feed(talk(10))
        (flow,) = bench.forwarder.take_new_flows()
        assert (str(flow.source), str(flow.destination), flow.ssrc) == ("192.0.2.1:4000", "192.0.2.2:6000", 0x1111)
        bench.forwarder.pass_over(flow)
        bench.feed(talk(10, at=200, sequence=110, stamp=6600))
        bench.forwarder.place(flow, VOICE, {0: PCMU})
        server = bench.server()
        spoken = talk(10, at=400, sequence=120, stamp=8200)
        bench.feed(spoken)
        bench.leg(server, VOICE)
        bench.pass_time(100)
        assert [each.payload for each in server.got()] == [each.payload for each in spoken]


def test_flows_that_fall_silent_are_forgotten_and_found_again():
    with Bench() as bench:
        server = bench.server()
        bench.feed(talk(10))
        bench.place_all(VOICE)
        bench.leg(server, VOICE)
        bench.pass_time(45_000, step=500)
        assert bench.forwarder.take_gone_flows() == [0]
        assert bench.forwarder.forwarded().flows == 0
        again = talk(10, at=46_000, sequence=110, stamp=5000 + 8 * 46_000)
        bench.feed(again)
        assert len(bench.forwarder.take_new_flows()) == 1


def test_what_is_no_rtp_is_no_flow():
    with Bench() as bench:
        spoken = talk(4)
        junk = [
            spoken[0]._replace(first=0x40),
            spoken[1]._replace(kind=200),
            spoken[2]._replace(first=0x8F, payload=b"short"),
            spoken[3]._replace(destination=("192.0.2.9", 53)),
        ]
        bench.feed(junk)
        assert bench.forwarder.take_new_flows() == []


def test_a_server_that_is_not_there_is_said_to_be_unreachable():
    with Bench() as bench:
        with ExitStack() as opened:
            remote = Server(opened).remote()
        spoken = talk(20)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        leg = LegId(VOICE, 1)
        bench.forwarder.open(leg, "127.0.0.1", 0)
        bench.forwarder.connect(leg, remote)
        bench.feed(spoken[1:])
        assert bench.forwarder.report([leg])[leg].unreachable
        server = bench.server()
        bench.forwarder.connect(leg, server.remote())
        bench.feed(talk(10, at=400, sequence=120, stamp=8200))
        assert not bench.forwarder.report([leg])[leg].unreachable
        assert len(server.got()) == 10


def test_reports_go_out_at_random_intervals_with_the_true_clock():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(3000)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        _, local = bench.leg(server, VOICE)
        times, found = [], []
        for packet in spoken[1:]:
            bench.feed([packet])
            for each in server.raw(rtcp=True):
                times.append(bench.now)
                found.append(parse_rtcp(each))
        rtp = server.got()
        assert not any(compound.notes for compound in found)
        gaps = [(after - before) / 1e9 for before, after in pairwise(times)]
        assert 1.0 < (times[0] - START) / 1e9 < 3.1
        assert all(2.0 <= gap <= 6.2 for gap in gaps)
        assert len(set(gaps)) > 8
        for when, compound in zip(times, found, strict=True):
            (report,) = compound.sender_reports
            assert report.unix_ns is not None
            assert abs(report.unix_ns - when) < MS
            # On the line on which its packets are: the first one was captured at START.
            ticks = (report.rtp_timestamp - rtp[0].stamp) & 0xFFFFFFFF
            assert abs(ticks - (when - START) * 8 // MS) <= 8
            assert report.ssrc == local.ssrc
            assert [chunk.cname for chunk in compound.descriptions] == [local.cname]
        assert found[-1].sender_reports[0].packets >= 2600
        assert found[-1].sender_reports[0].octets == found[-1].sender_reports[0].packets * 160


def test_what_legs_sent_can_be_asked_for_when_the_forwarder_has_ended():
    with Bench() as bench:
        server = bench.server()
        bench.feed(talk(20))
        bench.place_all(VOICE)
        leg, _ = bench.leg(server, VOICE)
        bench.pass_time(200)
        sent = len(server.got())
        bench.forwarder.shut()
        assert bench.forwarder.close(leg).packets == sent > 0


def test_a_leg_without_media_keeps_its_way_open():
    with Bench() as bench:
        server = bench.server()
        bench.leg(server, VOICE, sending=False)
        bench.pass_time(30_000)
        found = [parse_rtcp(each) for each in server.raw(rtcp=True)]
        assert len(found) >= 4
        assert all(compound.receiver_reports and compound.descriptions for compound in found)


def test_the_servers_reports_are_told():
    with Bench() as bench:
        server = bench.server()
        bench.feed(talk(10))
        bench.place_all(VOICE)
        leg, local = bench.leg(server, VOICE)
        bench.pass_time(50)
        block = ReportBlock(local.ssrc, 64, 25, 70_000, 80, 0, 0)
        server.rtcp_socket.sendto(receiver_report(99, [block]), (local.rtcp.host, local.rtcp.port))
        bench.pass_time(300)
        report = bench.forwarder.report([leg])[leg]
        assert (report.fraction_lost, report.cumulative_lost, report.jitter_ms) == (0.25, 25, 10.0)
        assert report.heard_from is not None
        assert bench.now - report.heard_from < 300 * MS


def test_rtcp_is_multiplexed_where_the_answer_says_so():
    with Bench() as bench:
        server = bench.server()
        server.rtcp = server.rtp
        bench.feed(talk(10))
        bench.place_all(VOICE)
        leg, local = bench.leg(server, VOICE)
        bench.pass_time(4000)
        found = [each for each in server.raw() if 192 <= each[1] <= 223]
        assert {parse_rtcp(each).sender_reports[0].ssrc for each in found} == {local.ssrc}
        block = ReportBlock(local.ssrc, 128, 25, 70_000, 80, 0, 0)
        server.rtp_socket.sendto(receiver_report(99, [block]), (local.rtp.host, local.rtp.port))
        bench.pass_time(300)
        assert bench.forwarder.report([leg])[leg].fraction_lost == 0.5


def test_the_end_is_said():
    with Bench() as bench:
        server = bench.server()
        bench.feed(talk(10))
        bench.place_all(VOICE)
        leg, local = bench.leg(server, VOICE)
        bench.pass_time(100)
        bench.forwarder.close(leg)
        bench.pass_time(10)
        (compound,) = (parse_rtcp(each) for each in server.raw(rtcp=True))
        assert [each.ssrcs for each in compound.byes] == [(local.ssrc,)]
        assert compound.sender_reports[0].packets == 10
        bench.feed(talk(10, at=300, sequence=110, stamp=9000))
        assert len(server.got()) == 10


def test_ports_run_out_and_come_back():
    with Bench(low_port=35900, high_port=35903) as bench:
        legs = [LegId(VOICE, session) for session in range(3)]
        bench.forwarder.open(legs[0], "127.0.0.1", 0)
        bench.forwarder.open(legs[1], "127.0.0.1", 0)
        with pytest.raises(PortsExhausted, match="35900-35903"):
            bench.forwarder.open(legs[2], "127.0.0.1", 0)
        bench.forwarder.close(legs[0])
        bench.pass_time(5)


def test_an_address_that_is_not_ours_is_refused():
    with Bench() as bench, pytest.raises(PortsExhausted, match=r"192\.0\.2\.77"):
        bench.forwarder.open(LegId(VOICE, 1), "192.0.2.77", 0)


def test_ten_thousand_legs_leave_nothing_behind():
    with Bench() as bench:
        server = bench.server()
        bench.feed(talk(5))
        bench.place_all(VOICE)
        bench.forwarder._pool._rest = 0.0
        before = None
        for number in range(10_000):
            leg, _ = bench.leg(server, VOICE, number)
            bench.forwarder.close(leg)
            bench.pass_time(1)
            if number == 1000:
                before = len(os.listdir("/proc/self/fd")), _resident()
        assert before is not None
        assert len(os.listdir("/proc/self/fd")) == before[0]
        assert _resident() - before[1] < 4 << 20
        assert bench.forwarder.forwarded().legs == 0


def _resident() -> int:
    """Octets of memory in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ends_are_told_apart_from_ports():
    with Bench() as bench:
        bench.feed([*talk(2), *talk(2, at=40, source=BOB, destination=ALICE)])
        found = bench.forwarder.take_new_flows()
        assert [(each.source.port, each.destination.port) for each in found] == [(4000, 6000), (6000, 4000)]


def test_a_server_that_cannot_be_reached_at_all_is_said_to_be_unreachable():
    with Bench() as bench:
        server = bench.server()
        server.rtp = server.rtcp = Endpoint(0x2001_0DB8 << 32, 1, 6000)  # from an IPv4 address
        bench.feed(talk(5))
        bench.place_all(VOICE)
        leg, _ = bench.leg(server, VOICE)
        bench.feed(talk(5, at=100, sequence=105, stamp=5800))
        report = bench.forwarder.report([leg])[leg]
        assert report.unreachable
        assert (report.packets, report.unsent) == (0, 10)


class Given:
    """A live source that gives batches as fast as they are taken, as a capture at its own pace does."""

    name = "given"
    stamped_here = False

    def __init__(self, packets: list[Rtp]) -> None:
        self._packets = packets

    @property
    def ended(self) -> bool:
        return not self._packets

    def poll(self, timeout: float) -> PacketBatch | None:
        some, self._packets = self._packets[:10], self._packets[10:]
        return batch_of(some)

    def counters(self) -> SourceCounters:
        return SourceCounters(0, 0, 0, 0, True, None)

    def close(self) -> None:
        self._packets = []


def test_a_thread_forwards_until_its_source_has_ended_and_says_so():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(200)
        bench.feed(spoken[:10])
        bench.place_all(VOICE)
        _, local = bench.leg(server, VOICE)
        bench.pass_time(100)
        interval = sys.getswitchinterval()
        thread = threading.Thread(target=bench.forwarder.run, args=(Given(spoken[10:]),))
        thread.start()
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert [each.payload for each in server.got()] == [each.payload for each in spoken]
        (compound,) = (parse_rtcp(each) for each in server.raw(rtcp=True))
        assert [each.ssrcs for each in compound.byes] == [(local.ssrc,)]
        # By the capture's clock, not by ours.
        assert abs((compound.sender_reports[0].unix_ns or 0) - START - 199 * 20 * MS) < 1000 * MS
        assert sys.getswitchinterval() == interval
        with pytest.raises(PortsExhausted, match="no more"):
            bench.forwarder.open(LegId(VOICE, 2), "127.0.0.1", 0)
