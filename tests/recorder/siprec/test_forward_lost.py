"""What the forwarder says of packets that no server gets, because whose they are was known too late or nobody came."""

import numpy as np
import pytest

from recorder.siprec import _forward_columns as columns
from recorder.siprec._forward_columns import Capacity
from recorder.siprec._history_kernels import lost_since
from recorder.siprec.forward_values import growing
from recorder.siprec.legs import LegId
from tests.forwarding import MS, START, VOICE, Bench, talk

SMALL = Capacity(256, 64, 64, 40_000, 10_000_000_000, 512)
"""Room for some 210 packets."""
OTHERS = ("192.0.2.77", 7000)


def others(count: int, at: float) -> list:
    """Packets of nobody's that fill the history."""
    return talk(count, at=at, ssrc=0x7777, source=OTHERS)


def test_packets_that_went_before_their_flow_was_claimed_are_counted():
    with Bench(SMALL) as bench:
        server = bench.server()
        spoken = talk(400)
        bench.feed(spoken)
        bench.place_all(VOICE)
        leg, _ = bench.leg(server, VOICE)
        bench.pass_time(1000)
        got = server.got()
        assert 100 < len(got) < 230
        assert [each.payload for each in got] == [each.payload for each in spoken[-len(got) :]]
        assert bench.forwarder.report([leg])[leg].unsent == 400 - len(got)
        assert bench.forwarder.forwarded().unsent == 400 - len(got)


def test_packets_that_went_before_their_leg_was_opened_are_counted():
    with Bench(SMALL) as bench:
        server = bench.server()
        spoken = talk(400)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        bench.feed(spoken[1:])
        leg, _ = bench.leg(server, VOICE)
        bench.pass_time(1000)
        report = bench.forwarder.report([leg])[leg]
        assert report.packets == len(server.raw()) < 230
        assert report.packets + report.unsent == 400


def test_a_call_of_which_nothing_is_left_is_counted_whole():
    with Bench(SMALL) as bench:
        server = bench.server()
        bench.feed(talk(100))
        bench.feed(others(400, at=2000))
        voice, _ = bench.forwarder.take_new_flows()
        bench.forwarder.place(voice, VOICE, {})
        leg, _ = bench.leg(server, VOICE)
        bench.pass_time(500)
        report = bench.forwarder.close(leg)
        assert (report.packets, report.unsent) == (0, 100)
        bench.step()
        assert bench.forwarder.forwarded().unsent == 100


def test_a_leg_that_sends_already_is_told_of_what_its_source_lost():
    with Bench(SMALL) as bench:
        server = bench.server()
        leg, _ = bench.leg(server, VOICE)
        bench.pass_time(100)  # nothing waits: it sends what comes
        bench.feed(talk(400))
        bench.place_all(VOICE)
        bench.pass_time(1000)
        report = bench.forwarder.report([leg])[leg]
        assert report.packets == len(server.raw()) < 230
        assert report.packets + report.unsent == 400


def test_a_flow_that_was_passed_over_and_is_claimed_after_all_has_lost_what_came_meanwhile():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(100)
        bench.feed(spoken[:20])
        (flow,) = bench.forwarder.take_new_flows()
        bench.forwarder.pass_over(flow)
        bench.feed(spoken[20:50])
        bench.forwarder.place(flow, VOICE, {})
        leg, _ = bench.leg(server, VOICE, accepted=None)
        bench.feed(spoken[50:])
        report = bench.forwarder.report([leg])[leg]
        assert report.packets + report.unsent == 100
        assert report.unsent >= 50


def test_a_leg_that_begins_in_the_middle_lacks_only_what_came_since():
    with Bench(SMALL) as bench:
        server = bench.server()
        spoken = talk(600)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        bench.feed(spoken[1:])
        first = START + 300 * 20 * MS
        leg, _ = bench.leg(server, VOICE, since=first)
        bench.pass_time(1000)
        report = bench.forwarder.report([leg])[leg]
        assert report.packets + report.unsent == 300
        recent, _ = bench.leg(server, VOICE, session=2, since=bench.now - 100 * MS)
        bench.pass_time(200)
        assert bench.forwarder.report([recent])[recent].unsent == 0


def test_what_waits_when_a_leg_is_closed_is_counted_where_it_had_a_server():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(150)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        leg, unconnected = LegId(VOICE, 1), LegId(VOICE, 2)
        bench.forwarder.open(leg, "127.0.0.1", 0)
        bench.forwarder.open(unconnected, "127.0.0.1", 0)
        bench.feed(spoken[1:])
        bench.forwarder.connect(leg, server.remote())
        bench.step()
        bench.pass_time(20)
        report = bench.forwarder.close(leg)
        assert 0 < report.packets < 100
        assert report.packets + report.unsent == 150
        assert bench.forwarder.close(unconnected).unsent == 0
        bench.step()
        assert bench.forwarder.forwarded().unsent == report.unsent


def test_a_leg_that_moves_takes_what_waits_with_it():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(100)
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        old, new = LegId(VOICE, 1), LegId(VOICE, 2)
        bench.forwarder.open(old, "127.0.0.1", 0)
        bench.feed(spoken[1:])
        bench.forwarder.move(old, "127.0.0.1", bench.now, new)
        bench.forwarder.connect(new, server.remote())
        bench.pass_time(500)
        report = bench.forwarder.report([new])[new]
        assert (report.packets, report.unsent) == (100, 0)
        assert bench.forwarder.forwarded().unsent == 0


@pytest.mark.parametrize("late", ["claimed late", "opened late"])
def test_the_history_grows_before_it_gives_up_what_may_be_needed(late):
    capacity = Capacity(256, 64, 64, 40_000, 10_000_000_000, 512, most_history=160_000)
    with Bench(capacity) as bench:
        server = bench.server()
        spoken = talk(450)
        if late == "opened late":
            bench.feed(spoken[:1])
            bench.place_all(VOICE)
            bench.feed(spoken[1:])
        else:
            bench.feed(spoken)
            bench.place_all(VOICE)
        leg, _ = bench.leg(server, VOICE)
        bench.pass_time(1000)
        got = server.got()
        assert bench.forwarder.report([leg])[leg].unsent == 0
        assert [each.payload for each in got] == [each.payload for each in spoken]


def test_the_history_does_not_grow_for_what_is_too_old_anyway():
    capacity = Capacity(256, 64, 64, 40_000, 2_000_000_000, 512, most_history=160_000)
    with Bench(capacity) as bench:
        bench.feed(talk(800))
        assert bench.forwarder._tables.counts[columns.ROOM] == 40_000


def test_packets_that_are_small_find_room_too():
    capacity = Capacity(256, 64, 64, 40_000, 10_000_000_000, 512, most_history=160_000)
    with Bench(capacity) as bench:
        server = bench.server()
        spoken = [each._replace(payload=each.payload[:10]) for each in talk(450)]
        bench.feed(spoken)
        bench.place_all(VOICE)
        leg, _ = bench.leg(server, VOICE)
        bench.pass_time(1000)
        assert len(server.got()) == 450
        assert bench.forwarder.report([leg])[leg].unsent == 0


def test_growth_leaves_every_entry_where_its_number_finds_it():
    rng = np.random.default_rng(7)
    tables = columns.make_tables(
        Capacity(16, 16, 16, 4096, 10**9, 16, most_history=16384), np.zeros(64, np.uint8)
    )  # fmt: skip
    rows = int(tables.counts[columns.ROWS])
    for _ in range(2):
        newest = int(rng.integers(3 * rows, 9 * rows))
        for number in range(newest - rows, newest):
            tables.entries[number & (rows - 1), columns.ENTRY_NUMBER] = number
        columns.touch_growth(tables)
        columns.grow(tables)
        rows *= 2
        assert int(tables.counts[columns.ROWS]) == rows
        for number in range(newest - rows // 2, newest):
            assert tables.entries[number & (rows - 1), columns.ENTRY_NUMBER] == number
    assert not columns.may_grow(tables)
    assert int(tables.counts[columns.ROOM]) + columns.SCRATCH == len(tables.arena)


def test_lost_packets_are_spread_evenly_in_time():
    rng = np.random.default_rng(11)
    for _ in range(500):
        count, step = int(rng.integers(1, 400)), int(rng.integers(1, 40)) * MS
        first = START + int(rng.integers(0, 10**9))
        times = [first + k * step for k in range(count)]
        since = first + int(rng.integers(-5, count + 5)) * step
        expected = sum(time >= since for time in times)
        assert lost_since(count, first, times[-1], since) == expected
    assert lost_since(0, START, START, 0) == 0


def test_the_history_begins_small_and_ends_at_what_is_asked_for():
    for most in (32_000_000, 64_000_000, 100_000_000, 256_000_000, 8_000_000_000):
        capacity = growing(most)
        doubled = capacity.history
        while doubled * 2 <= capacity.most_history:
            doubled *= 2
        assert capacity.history <= 64_000_000
        assert most - 256 <= doubled <= most
