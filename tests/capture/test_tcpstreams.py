"""TCP reassembly: whatever happens on the way, the octets of a direction come out once and in order."""

import random
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.packet import Packet

import capture.tcpstreams
from capture.address import Endpoint, parse_endpoint
from capture.batch import KIND_TCP
from capture.layers import decode_layers
from capture.tcpstreams import MAX_WAIT, Segment, TcpPacket, TcpReassembler
from tests.packets import SECOND, batch, tcp

TEXT = bytes(range(256)) * 40
BEGIN = 1000
CLIENT = parse_endpoint("192.0.2.1", 4000)
SERVER = parse_endpoint("198.51.100.2", 5060)
assert CLIENT is not None
assert SERVER is not None


def part(start: int, end: int, *, begin: int = BEGIN, flags: str = "A", **more: object) -> Packet:
    """A frame with TEXT[start:end], whose first octet has sequence number `begin`."""
    return tcp(TEXT[start:end], sequence=begin + start, flags=flags, **more)


def syn(begin: int = BEGIN) -> Packet:
    return tcp(sequence=begin - 1, flags="S")


def feed(
    reassembler: TcpReassembler,
    frames: Iterable[bytes | Packet],
    times: list[int] | None = None,
    snap: int | None = None,
) -> list[Segment]:
    datagrams = decode_layers(batch(list(frames), times=times, snap=snap))
    return reassembler.feed(datagrams, np.flatnonzero(datagrams.kind == KIND_TCP))


def octets(segments: Iterable[Segment]) -> bytes:
    return b"".join(segment.data for segment in segments)


def test_segments_in_order_come_out_at_once():
    segments = feed(TcpReassembler(), [syn(), part(0, 100), part(100, 250)])
    assert [(each.packet, each.data) for each in segments] == [(1, TEXT[:100]), (2, TEXT[100:250])]
    assert [each.start for each in segments] == [True, False]
    assert (segments[0].source, segments[0].destination) == (CLIENT, SERVER)
    assert segments[1].time == SECOND + 2_000_000


def test_a_fin_ends_a_direction_once():
    frames = [syn(), part(0, 100), part(100, 120, flags="FA"), part(100, 120, flags="FA"), part(120, 120, flags="A")]
    segments = feed(TcpReassembler(), frames)
    assert octets(segments) == TEXT[:120]
    assert [each.end for each in segments] == [False, False, True]


def test_a_reset_ends_a_direction_and_one_out_of_nowhere_does_nothing():
    assert [each.end for each in feed(TcpReassembler(), [part(0, 9), part(9, 9, flags="R")])] == [False, True]
    assert feed(TcpReassembler(), [part(0, 0, flags="R"), part(0, 0, flags="RA")]) == []


def test_the_two_directions_are_independent():
    back = {"source": "198.51.100.2", "destination": "192.0.2.1", "sport": 5060, "dport": 4000}
    segments = feed(TcpReassembler(), [part(0, 10), part(500, 520, **back), part(10, 20)])
    assert octets(each for each in segments if each.source == CLIENT) == TEXT[:20]
    assert octets(each for each in segments if each.source == SERVER) == TEXT[500:520]


def test_what_arrives_early_waits_for_the_hole_to_be_filled():
    segments = feed(TcpReassembler(), [syn(), part(0, 10), part(30, 40), part(20, 30), part(10, 20)])
    assert octets(segments) == TEXT[:40]
    assert [each.packet for each in segments] == [1, 4, 4, 4]
    assert not any(each.gap for each in segments)


def test_the_first_copy_of_an_octet_wins():
    other = b"\xee" * 40
    frames = [syn(), part(0, 10), tcp(other[:15], sequence=BEGIN), part(20, 30), tcp(other, sequence=BEGIN + 5)]
    assert octets(feed(TcpReassembler(), frames)) == TEXT[:10] + other[:5] + other[:5] + TEXT[20:30] + other[:15]


def test_retransmissions_and_mirrored_duplicates_vanish():
    frames = [syn(), syn(), part(0, 10), part(0, 10), part(10, 20), part(5, 20), part(0, 20), part(20, 25), syn()]
    reassembler = TcpReassembler()
    assert octets(feed(reassembler, frames)) == TEXT[:25]
    assert reassembler.retransmitted == 10 + 15 + 20


def test_keep_alive_probes_vanish():
    probes = [tcp(b"\x00", sequence=BEGIN + 9), tcp(b"", sequence=BEGIN + 9)]
    assert octets(feed(TcpReassembler(), [syn(), part(0, 10), *probes, part(10, 20)])) == TEXT[:20]


@pytest.mark.parametrize("begin", [0, 1, 0xFFFFFFFF, 0xFFFFFFF0, 0x80000000, 0x7FFFFFF0])
def test_sequence_numbers_wrap(begin: int):
    frames = [syn(begin)] + [part(k, k + 8, begin=begin) for k in (0, 16, 8, 24, 40, 32)]
    assert octets(feed(TcpReassembler(), frames)) == TEXT[:48]


def test_a_capture_that_joins_late_begins_with_what_it_sees():
    segments = feed(TcpReassembler(), [part(700, 710), part(710, 720)])
    assert octets(segments) == TEXT[700:720]
    assert segments[0].start


def test_a_syn_captured_after_the_first_octets_changes_nothing():
    segments = feed(TcpReassembler(), [part(0, 10), syn(), syn(), part(10, 20)])
    assert octets(segments) == TEXT[:20]
    assert [each.start for each in segments] == [True, False]


def test_a_new_syn_on_the_same_ports_is_a_new_stream():
    again = 77_000_000
    frames = [syn(), part(0, 10), part(30, 40), syn(again), part(0, 7, begin=again)]
    segments = feed(TcpReassembler(), frames)
    assert [(each.data, each.gap, each.start, each.end) for each in segments] == [
        (TEXT[:10], 0, True, False),
        (TEXT[30:40], 20, False, False),
        (b"", 0, False, True),
        (TEXT[:7], 0, True, False),
    ]


def test_a_stream_far_behind_on_the_same_ports_is_a_new_one_even_without_syn():
    segments = feed(TcpReassembler(), [part(0, 10, begin=90_000_000), part(0, 10, begin=5_000_000)])
    assert [each.start for each in segments if each.data] == [True, True]


def test_a_hole_that_stays_is_given_up_after_a_while():
    times = [SECOND, SECOND + 1, SECOND + 2, SECOND + 2 + MAX_WAIT]
    other = tcp(b"x", sport=9)
    reassembler = TcpReassembler()
    segments = feed(reassembler, [part(0, 10), part(15, 20), part(30, 33), other], times)
    mine = [each for each in segments if each.source == CLIENT]
    assert [(each.packet, each.time, each.data, each.gap) for each in mine] == [
        (0, SECOND, TEXT[:10], 0),
        (3, SECOND + 1, TEXT[15:20], 5),
        (3, SECOND + 2, TEXT[30:33], 10),
    ]
    assert reassembler.lost == 15


def test_holes_are_given_up_at_the_same_packet_whatever_the_batches():
    chance = random.Random(5)
    frames, times, now = [], [], SECOND
    for k in chance.sample(range(400), 330):
        frames.append(part(k * 10, k * 10 + 10))
        now += chance.randrange(60_000_000)
        times.append(now)
    whole = [(each.packet, each.data, each.gap) for each in feed(TcpReassembler(), frames, times)]
    for size in (1, 7, 50):
        reassembler = TcpReassembler()
        parts = []
        for at in range(0, len(frames), size):
            segments = feed(reassembler, frames[at : at + size], times[at : at + size])
            parts += [(at + each.packet, each.data, each.gap) for each in segments]
        assert parts == whole


def test_a_hole_is_given_up_when_too_much_waits_behind_it():
    block = bytes(1400)
    frames = [part(0, 10)] + [tcp(block, sequence=BEGIN + 100 + k * 1400) for k in range(250)]
    segments = feed(TcpReassembler(), frames, [SECOND] * 251)
    assert [each.gap for each in segments if each.gap] == [90]
    assert len(octets(segments)) == 10 + 250 * 1400


def test_all_holes_together_hold_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capture.tcpstreams, "MAX_HELD_TOTAL", 20_000)
    reassembler = TcpReassembler()
    frames = []
    for port in range(100):
        frames += [part(0, 10, sport=port), part(20, 1020, sport=port)]
    segments = feed(reassembler, frames)
    assert sum(each.gap for each in segments) > 70 * 10
    segments += reassembler.flush()
    assert len(octets(segments)) == 100 * 1010
    assert reassembler._held == 0


def test_the_number_of_directions_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capture.tcpstreams, "MAX_DIRECTIONS", 50)
    reassembler = TcpReassembler()
    feed(reassembler, [part(0, 10, sport=port) for port in range(200)])
    assert len(reassembler._directions) == 50
    assert feed(reassembler, [part(10, 20, sport=199)])[0].start is False
    assert feed(reassembler, [part(10, 20, sport=3)])[0].start is True


def test_flush_hands_on_what_waits():
    reassembler = TcpReassembler()
    feed(reassembler, [part(0, 10), part(20, 30)])
    assert reassembler.flush(SECOND) == []
    assert [(each.packet, each.data, each.gap) for each in reassembler.flush()] == [(-1, TEXT[20:30], 10)]
    assert reassembler.flush() == []


def test_what_a_snap_length_cut_is_a_gap():
    header = 14 + 20 + 20
    segments = feed(TcpReassembler(), [part(0, 100), part(100, 140), part(140, 160)], snap=header + 40)
    assert [(each.data, each.gap) for each in segments] == [(TEXT[:40], 0), (TEXT[100:140], 60), (TEXT[140:160], 0)]


def test_an_ignored_direction_stays_silent_until_its_next_syn():
    reassembler = TcpReassembler()
    feed(reassembler, [part(0, 10), part(20, 30)])
    reassembler.ignore(CLIENT, SERVER, 0)
    assert reassembler._held == 0
    assert feed(reassembler, [part(k, k + 10) for k in range(10, 500, 10)]) == []
    assert feed(reassembler, [part(500, 500, flags="FA")]) == []
    segments = feed(reassembler, [syn(123), part(0, 10, begin=123)])
    assert octets(segments) == TEXT[:10]


def test_ignoring_a_connection_spares_the_next_one_on_its_ports():
    reassembler = TcpReassembler()
    feed(reassembler, [syn(), part(0, 10), syn(123), part(0, 10, begin=123)])
    reassembler.ignore(CLIENT, SERVER, 0)
    assert octets(feed(reassembler, [part(10, 20, begin=123)])) == TEXT[10:20]
    reassembler.ignore(CLIENT, SERVER, 0)
    assert feed(reassembler, [part(20, 30, begin=123)]) == []


def test_ignoring_one_direction_leaves_all_others():
    reassembler = TcpReassembler()
    for port in range(6000):
        reassembler.ignore(Endpoint(0, 1, port), Endpoint(0, 2, 80), 0)
    assert (Endpoint(0, 1, 5999), Endpoint(0, 2, 80), 0) in reassembler._ignored
    assert (Endpoint(0, 1, 0), Endpoint(0, 2, 80), 0) in reassembler._ignored
    assert (Endpoint(0, 1, 0), Endpoint(0, 2, 80), 1) not in reassembler._ignored
    assert octets(feed(reassembler, [part(0, 10)])) == TEXT[:10]


def test_the_set_of_ignored_directions_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("capture.ignored.MAX_CAPACITY", 1 << 12)
    ignored = TcpReassembler()._ignored
    for port in range(10_000):
        ignored.add(Endpoint(0, 1, port), Endpoint(0, 2, 80), 0)
        ignored.discard(Endpoint(0, 1, max(0, port - 3)), Endpoint(0, 2, 80), 0)
    assert len(ignored.state) <= 1 << 12
    assert (Endpoint(0, 1, 9999), Endpoint(0, 2, 80), 0) in ignored
    assert (Endpoint(0, 1, 9996), Endpoint(0, 2, 80), 0) not in ignored


def test_segments_rebuilt_from_fragments_take_their_place_among_the_others():
    datagrams = decode_layers(batch([syn(), part(0, 10), b"", part(20, 30)]))
    rebuilt = TcpPacket(2, SECOND, CLIENT, SERVER, 0, BEGIN + 10, 0x10, TEXT[10:20], 0)
    segments = TcpReassembler().feed(datagrams, np.array([0, 1, 3]), [rebuilt])
    assert [(each.packet, each.data) for each in segments] == [(1, TEXT[:10]), (2, TEXT[10:20]), (3, TEXT[20:30])]


def test_a_damaged_header_is_no_segment():
    frame = bytearray(bytes(part(0, 10)))
    for offset in (0x00, 0x40, 0xF0):
        frame[14 + 20 + 12] = offset
        assert feed(TcpReassembler(), [bytes(frame)]) == []


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 0xFFFFFFFF))
def test_any_order_with_repeats_and_overlaps_gives_the_stream(data: st.DataObject, begin: int):
    cuts = sorted({0, 600, *data.draw(st.lists(st.integers(1, 599), max_size=12))})
    pieces = list(pairwise(cuts))
    extra = data.draw(st.lists(st.tuples(st.integers(0, 599), st.integers(1, 80)), max_size=6))
    pieces += [(at, min(600, at + size)) for at, size in extra]
    order = data.draw(st.permutations(pieces))
    frames = [syn(begin), *(part(a, b, begin=begin) for a, b in order), part(600, 600, begin=begin, flags="FA")]
    reassembler = TcpReassembler()
    segments = feed(reassembler, frames)
    assert octets(segments) == TEXT[:600]
    assert not any(each.gap for each in segments)
    assert [each.end for each in segments].count(True) == 1
    assert reassembler._held == 0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFFFFFF) | st.integers(0, 3000),
            st.sampled_from(["", "S", "A", "FA", "R", "SF", "SR", "FR"]),
            st.integers(0, 2000),
            st.integers(0, 10 * SECOND),
        ),
        max_size=30,
    )
)
def test_nonsense_never_raises_and_never_leaks(steps: list[tuple[int, str, int, int]]):
    reassembler = TcpReassembler()
    frames = [tcp(TEXT[:size], sequence=sequence, flags=flags) for sequence, flags, size, _ in steps]
    segments = feed(reassembler, frames, [time for _, _, _, time in steps]) + reassembler.flush()
    assert len(octets(segments)) <= sum(size for _, _, size, _ in steps)
    assert all(each.gap >= 0 for each in segments)
    assert reassembler._held == 0
