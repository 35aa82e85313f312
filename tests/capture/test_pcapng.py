import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from capture import _pcapng_kernels as kernels
from capture._pcap_kernels import FOUND, MORE, NOTHING, UNKNOWN
from capture.pcapng import PcapngReader
from tests import naive_records as naive
from tests.capture.test_pcap import expected, mutate, mutations, read_all
from tests.capture_files import (
    START,
    Packet,
    block,
    enhanced,
    interface,
    obsolete,
    option,
    packets,
    pcapng,
    section,
    simple,
)

OTHER_BLOCKS = [
    block(4, b"\1\0\10\0\xc0\0\2\1host" + bytes(8)),
    block(5, bytes(12)),
    block(10, b"TLSK" + struct.pack("<I", 8) + b"key log\n"),
    block(0xBAD, struct.pack("<I", 32473) + b"custom"),
    block(0x40000BAD, bytes(8)),
    block(0x0A0B0C0D, b"nobody knows"),
]


def read(data, limit=8192, chunk=None):
    return read_all(data, limit, PcapngReader, chunk)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order):
    items = [Packet(START + i * 1000, bytes([i]) * i, i + 5) for i in range(1, 20)]
    found, damage, reader = read(pcapng(items, order))
    assert found == expected(items)
    assert (damage, reader.link_types) == ([], [1])


@pytest.mark.parametrize("limit", [1, 2, 8192])
@pytest.mark.parametrize("chunk", [None, 1, 17, 200])
def test_sections_may_differ_in_byte_order_and_interfaces(limit, chunk):
    a, b, c = packets(3), packets(3, first=3), packets(2, first=6)
    data = (
        section("<")
        + interface(1)
        + b"".join(enhanced(p) for p in a)
        + section(">")
        + interface(113, order=">")
        + interface(276, order=">")
        + b"".join(enhanced(p, 1, ">") for p in b)
        + b"".join(enhanced(p, 0, ">") for p in c)
    )
    found, damage, reader = read(data, limit, chunk)
    assert found == expected(a, 1) + expected(b, 276, 4) + expected(c, 113, 7)
    assert (damage, reader.link_types) == ([], [1, 113, 276])


@pytest.mark.parametrize("limit", [1, 3, 8192])
@pytest.mark.parametrize("chunk", [None, 1, 33])
def test_other_blocks_are_passed_over(limit, chunk):
    items = packets(len(OTHER_BLOCKS))
    data = section() + interface() + b"".join(b + enhanced(p) for b, p in zip(OTHER_BLOCKS, items, strict=True))
    found, damage, _ = read(data + OTHER_BLOCKS[0], limit, chunk)
    assert found == expected(items)
    assert damage == []


@pytest.mark.parametrize(
    ("resolution", "ticks", "offset", "time"),
    [
        (None, START // 1000, None, START),
        (6, START // 1000, 3600, START + 3600 * 10**9),
        (9, START + 1, None, START + 1),
        (9, 1, -5, 1 - 5 * 10**9),
        (3, START // 10**6, None, START),
        (0, START // 10**9, 0, START),
        (10, START * 10 + 9, None, START),
        (0x80 | 10, (START // 10**9 << 10) + 512, None, START + 500_000_000),
        (0x80 | 32, (START // 10**9 << 32) + (1 << 30), None, START + 250_000_000),
        (0x80, START // 10**9, None, START),
    ],
)
def test_times_follow_resolution_and_offset(resolution, ticks, offset, time):
    data = section() + interface(resolution=resolution, offset=offset) + enhanced(Packet(0, b"x"), ticks=ticks)
    assert read(data)[0][0][1] == time


def test_each_interface_has_its_own_resolution():
    data = section() + interface(1, resolution=9) + interface(113, resolution=3)
    data += enhanced(Packet(0, b"a"), 1, ticks=START // 10**6) + enhanced(Packet(0, b"b"), 0, ticks=START + 7)
    assert [(row[1], row[4]) for row in read(data)[0]] == [(START, 113), (START + 7, 1)]


def test_simple_packets_take_the_time_before_and_the_snapshot_length():
    data = section() + interface(snaplen=20) + enhanced(Packet(START, b"first")) + simple(b"s" * 20, 500)
    found, damage, _ = read(data + simple(b"short", 5))
    assert found[1:] == [(2, START, b"s" * 20, 500, 1), (3, START, b"short", 5, 1)]
    assert damage == []


def test_simple_packets_alone_have_the_time_zero():
    assert read(section() + interface() + simple(b"abcdef", 6))[0] == [(1, 0, b"abcdef", 6, 1)]


@pytest.mark.parametrize("order", ["<", ">"])
def test_obsolete_packets_are_read(order):
    items = packets(3)
    data = section(order) + interface(order=order) + interface(113, order=order)
    found, damage, _ = read(data + b"".join(obsolete(p, 1, order) for p in items))
    assert found == expected(items, 113)
    assert damage == []


def test_options_behind_a_packet_are_no_part_of_it():
    packet = packets(1)[0]
    ticks = packet.time // 1000
    head = struct.pack("<5I", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.length)
    data = section() + interface() + block(6, head + packet.data + option(1, b"a comment") + bytes(4))
    assert read(data)[0] == expected([packet])


def test_an_interface_whose_options_are_broken_still_counts():
    body = struct.pack("<HHI", 113, 0, 0) + struct.pack("<HH", 9, 60000) + b"\x09"
    found, damage, _ = read(section() + block(1, body) + enhanced(packets(1)[0]))
    assert found == expected(packets(1), 113)
    assert damage == []


@pytest.mark.parametrize("limit", [1, 4, 8192])
@pytest.mark.parametrize("chunk", [None, 40, 500])
@pytest.mark.parametrize(("at", "octets"), [(4, b"\xff\xff\xff\xff"), (4, bytes(4)), (4, b"\x40\0\0\0"), (92, b"\1")])
def test_a_bad_block_length_costs_that_block(at, octets, chunk, limit):
    items = packets(9)
    head = len(section() + interface())
    size = len(enhanced(items[0]))
    data = bytearray(pcapng(items))
    place = head + 4 * size + (at if at < size else size - 4)
    data[place : place + len(octets)] = octets
    found, damage, _ = read(bytes(data), limit, chunk)
    assert [row[2] for row in found] == [p.data for i, p in enumerate(items) if i != 4]
    assert [(d.offset, d.skipped) for d in damage] == [(head + 4 * size, size)]


def test_a_packet_that_does_not_fit_its_block_costs_only_itself():
    good = packets(2)
    bad = bytearray(enhanced(good[0]))
    bad[20:24] = struct.pack("<I", 1000)
    head = section() + interface() + enhanced(good[0])
    found, damage, _ = read(head + bytes(bad) + enhanced(good[1]))
    assert [row[2] for row in found] == [p.data for p in good]
    assert [(d.offset, d.skipped) for d in damage] == [(len(head), len(bad))]


def test_packets_of_an_interface_never_described_are_one_place_of_damage():
    stray = b"".join(enhanced(p, 7) for p in packets(50))
    found, damage, _ = read(section() + interface() + stray + enhanced(packets(1)[0]))
    assert len(found) == 1
    assert [(d.offset, d.skipped) for d in damage] == [(len(section() + interface()), len(stray))]


@pytest.mark.parametrize("cut", [1, 4, 50, 91])
def test_a_truncated_last_block_costs_only_itself(cut):
    items = packets(5)
    found, damage, _ = read(pcapng(items)[:-cut])
    assert found == expected(items[:4])
    assert [d.skipped for d in damage] == [92 - cut]
    assert "ends inside a block" in damage[0].text


def test_a_section_header_lost_to_damage_is_found_by_the_next_one():
    items = packets(3)
    data = pcapng(items) + b"garbage" + pcapng(items, ">")
    found, damage, _ = read(data)
    assert found == expected(items) + expected(items, first=4)
    assert [(d.offset, d.skipped) for d in damage] == [(len(pcapng(items)), 7)]


@pytest.mark.parametrize("limit", [1, 2, 8192])
def test_a_time_far_from_its_neighbours_costs_that_packet(limit):
    items = packets(8)
    items[3] = Packet(START * 2, b"stray")
    found, damage, _ = read(pcapng(items), limit)
    assert found == [row for row in expected(items) if row[0] != 4]
    assert len(damage) == 1


@pytest.mark.parametrize(
    "data", [section()[:20], section()[:8] + bytes(20), section()[:-1], section()[:-4] + b"\1\2\3\4"]
)
def test_a_file_without_a_sound_section_header_is_refused(data):
    found, damage, reader = read(data)
    assert (found, damage) == ([], [])
    assert reader.refusal


def test_sections_without_packets_are_an_empty_capture():
    found, damage, reader = read(section() + section(">") + interface(order=">"))
    assert (found, damage, reader.refusal, reader.link_types) == ([], [], "", [1])


@settings(max_examples=150, deadline=None)
@given(mutations, st.integers(1, 12), st.sampled_from([None, 7, 64, 333]), st.sampled_from("<>"))
def test_damaged_files_never_raise_and_are_read_alike_however_they_are_cut(changes, limit, chunk, order):
    items = packets(10, 30)
    middle = b"".join(OTHER_BLOCKS[:3]) if order == "<" else b""
    data = mutate(pcapng(items[:5], order) + middle + pcapng(items[5:], order), changes)
    found, damage, _ = read(data)
    again, damage_again, _ = read(data, limit, chunk)
    assert (again, damage_again) == (found, damage)
    assert sum(len(row[2]) for row in found) + sum(d.skipped for d in damage) <= len(data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 5))
def test_octets_of_any_kind_never_raise(tail, limit):
    read(section() + tail, limit)
    read(pcapng(packets(3)) + tail + pcapng(packets(3)), limit)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 127), st.booleans())
@example(2**64 - 1, 33, True)
@example(2**64 - 1, 63, True)
@example(2**64 - 1, 64, True)
@example(2**63 - 1, 9, False)
def test_time_stamps_are_exact(ticks, exponent, binary):
    got = kernels.to_nanoseconds(np.uint64(ticks), exponent, int(binary))
    want = naive.nanoseconds(ticks, exponent, binary)
    assert got == want or (want > 2**62 - 2 * 10**9 and got == 2**62)


sound_blocks = st.one_of(
    st.sampled_from(OTHER_BLOCKS),
    st.builds(
        lambda data, which, wire, old: (obsolete if old else enhanced)(Packet(START, data, wire), which),
        st.binary(max_size=20),
        st.integers(0, 2),
        st.integers(0, 2**32 - 1),
        st.booleans(),
    ),
    st.builds(simple, st.binary(max_size=20), st.integers(0, 2**32 - 1)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(sound_blocks, max_size=8), mutations, st.integers(0, 2))
def test_walk_agrees_with_its_naive_twin(parts, changes, interfaces):
    data = mutate(b"".join(parts), changes)
    table = np.array([[1, 113], [6, 10], [0, 1], [0, -(10**9)], [0, 8]], np.int64)
    room = 16
    columns = [np.empty(room, dtype) for dtype in (np.int64, np.int64, np.int64, np.int32, np.int32, np.int32)]
    count = kernels.walk_pcapng(
        np.frombuffer(data, np.uint8), 0, len(data), 1 << 30, False, interfaces, *table, UNKNOWN, *columns
    )[0]
    described = [tuple(column) for column in table.T.tolist()][:interfaces]
    time, _, offset, captured, wire, link = (column[:count].tolist() for column in columns)
    assert list(zip(time, offset, captured, wire, link, strict=True)) == naive.pcapng_packets(data, 0, False, described)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=30),
    st.lists(st.one_of(sound_blocks, st.sampled_from([section(), section(">")])), max_size=5),
    mutations,
    st.booleans(),
    st.booleans(),
)
def test_search_agrees_with_its_naive_twin(garbage, parts, changes, final, big):
    data = garbage + mutate(b"".join(parts), changes)
    place, state = kernels.find_pcapng(np.frombuffer(data, np.uint8), 0, len(data), len(data), final, big, 2)
    verdict = {FOUND: True, MORE: None, NOTHING: False}[state]
    assert (place, verdict) == naive.find_pcapng(data, 0, len(data), final, big, 2)
