import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture import _pcap_kernels as kernels
from capture.damage import DamageLog
from capture.pcap import PcapReader, parse_file_header
from capture.window import Window
from tests import naive_records as naive
from tests.capture_files import START, Packet, packets, pcap, pcap_header, pcap_record


def read_all(data, limit=8192, reader=PcapReader, chunk=None):
    """Packets as (number, time, octets, wire length, link type), and the damage, however the file is cut."""
    log = DamageLog()
    records = reader(0, log)
    given = len(data) if chunk is None else min(chunk, len(data))
    window = Window(np.frombuffer(data[:given], np.uint8), final=given == len(data))
    found = []
    for _ in range(20 * len(data) + 100):
        batch = records.read(window, limit)
        if batch is not None:
            assert len(batch) <= limit
            found += rows(batch)
        elif window.final:
            return found, log.entries, records
        else:
            more = data[given : given + chunk]
            given += len(more)
            window.buffer = np.concatenate((window.buffer[window.position :], np.frombuffer(more, np.uint8)))
            window.buffer.flags.writeable = False
            window.base += window.position
            window.position = 0
            window.final = given == len(data)
    raise AssertionError("the reader does not come to an end")


def rows(batch):
    columns = zip(
        batch.number.tolist(),
        batch.time.tolist(),
        batch.offset.tolist(),
        batch.captured.tolist(),
        batch.wire.tolist(),
        batch.link_type.tolist(),
        strict=True,
    )
    return [(n, t, batch.buffer[o : o + c].tobytes(), w, link) for n, t, o, c, w, link in columns]


def expected(items, link=1, first=1):
    return [(first + i, p.time, p.data, p.length, link) for i, p in enumerate(items)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34])
def test_both_byte_orders_and_all_magics_are_read(order, magic):
    items = [Packet(START + i * 1_234_567_000, bytes([i]) * (40 + i), 100 + i) for i in range(50)]
    if magic == 0xA1B23C4D:
        items.append(Packet(START + 60 * 10**9 + 123, b"to the nanosecond"))
    found, damage, reader = read_all(pcap(items, order, magic, link=113))
    assert found == expected(items, 113)
    assert damage == []
    assert reader.link_types == [113]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8192])
@pytest.mark.parametrize("chunk", [None, 1, 5, 24, 61, 100])
def test_batch_size_and_chunks_change_nothing(limit, chunk):
    items = packets(20)
    found, damage, _ = read_all(pcap(items), limit, chunk=chunk)
    assert found == expected(items)
    assert damage == []


def test_frame_check_sequence_bits_are_no_part_of_the_link_type():
    assert parse_file_header(pcap_header(link=0x24000001)).link_type == 1


def test_a_header_alone_is_an_empty_capture():
    found, damage, reader = read_all(pcap([]))
    assert (found, damage, reader.refusal) == ([], [], "")


def test_wire_length_below_the_captured_one_is_raised_to_it():
    found, _, _ = read_all(pcap([Packet(START, b"x" * 50, 10), Packet(START, b"y" * 50, 2**32 - 1)]))
    assert [row[3] for row in found] == [50, 2**31 - 1]


@pytest.mark.parametrize("cut", range(1, 77))
def test_a_truncated_last_record_costs_only_itself(cut):
    items = packets(5)
    whole = pcap(items)
    found, damage, _ = read_all(whole[:-cut])
    assert found == expected(items[:4])
    assert [(d.offset, d.skipped) for d in damage] == ([(len(whole) - 76, 76 - cut)] if cut < 76 else [])
    assert all("ends inside a packet" in d.text for d in damage)


@pytest.mark.parametrize("limit", [1, 3, 8192])
@pytest.mark.parametrize("chunk", [None, 50, 1000])
@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<IIII", 1_700_000_000, 0, 0x7FFFFFFF, 60),
        b"\xff" * 16,
        bytes(16),
        struct.pack("<IIII", 1_700_000_000, 0, 262145, 60),
    ],
)
def test_a_damaged_record_header_costs_that_record(header, chunk, limit):
    items = packets(9)
    data = bytearray(pcap(items))
    at = 24 + 4 * 76
    data[at : at + 16] = header
    found, damage, _ = read_all(bytes(data), limit, chunk=chunk)
    assert [row[2] for row in found] == [p.data for i, p in enumerate(items) if i != 4]
    assert [(d.offset, d.skipped) for d in damage] == [(at, 76)]
    assert "76 bytes skipped" in damage[0].text


@pytest.mark.parametrize("limit", [1, 4, 5, 8192])
@pytest.mark.parametrize("chunk", [None, 50, 1000])
def test_a_length_that_reaches_into_later_packets_costs_only_its_own(limit, chunk):
    items = packets(30)
    data = bytearray(pcap(items))
    at = 24 + 4 * 76
    data[at + 8 : at + 12] = struct.pack("<I", 1000)
    found, damage, _ = read_all(bytes(data), limit, chunk=chunk)
    assert [row[2] for row in found] == [p.data for i, p in enumerate(items) if i != 4]
    assert [(d.offset, d.skipped) for d in damage] == [(at, 76)]


@pytest.mark.parametrize("limit", [1, 4, 5, 8192])
def test_octets_lost_from_the_middle_cost_the_records_they_belonged_to(limit):
    items = packets(30)
    whole = pcap(items)
    at = 24 + 10 * 76
    found, damage, _ = read_all(whole[: at + 30] + whole[at + 3 * 76 + 20 :], limit)
    assert [row[2] for row in found if row[2] in {p.data for p in items}] == [p.data for p in items[:10] + items[14:]]
    assert len(damage) == 1


def test_zeros_in_the_middle_are_no_packets():
    items = packets(40)
    data = bytearray(pcap(items))
    at = 24 + 10 * 76
    data[at : at + 760] = bytes(760)
    found, damage, _ = read_all(bytes(data))
    assert [row[2] for row in found] == [p.data for p in items[:10] + items[20:]]
    assert [(d.offset, d.skipped) for d in damage] == [(at, 760)]


def test_every_second_header_damaged_leaves_the_others():
    items = packets(20)
    data = bytearray(pcap(items))
    for i in range(1, 20, 2):
        data[24 + i * 76 : 24 + i * 76 + 16] = b"\xfe" * 16
    found, damage, _ = read_all(bytes(data))
    assert [row[2] for row in found] == [p.data for p in items[::2]]
    assert [(d.offset, d.skipped) for d in damage] == [(24 + i * 76, 76) for i in range(1, 20, 2)]


@pytest.mark.parametrize("limit", [1, 2, 3, 8192])
@pytest.mark.parametrize("bad", [1, 5, 18])
def test_a_time_far_from_its_neighbours_costs_that_packet_and_keeps_the_numbers(bad, limit):
    items = packets(20)
    items[bad] = Packet(START + 2**24 * 10**9, items[bad].data)
    found, damage, _ = read_all(pcap(items), limit)
    assert found == [row for row in expected(items) if row[0] != bad + 1]
    assert [(d.offset, d.skipped) for d in damage] == [(24 + bad * 76, 76)]


@pytest.mark.parametrize("limit", [1, 2, 8192])
def test_a_clock_that_is_set_is_no_damage(limit):
    items = packets(10, start=10**9) + packets(10)
    found, damage, _ = read_all(pcap(items), limit)
    assert found == expected(items)
    assert damage == []


def test_a_packet_from_long_before_the_rest_is_kept():
    items = [Packet(5 * 10**9, b"before the clock was set"), *packets(5)]
    assert read_all(pcap(items))[0] == expected(items)


def test_packets_larger_than_libpcaps_limit_need_a_snaplen_that_allows_them():
    large = [Packet(START + i, b"l" * 300_000) for i in range(3)]
    assert len(read_all(pcap(large, snaplen=400_000))[0]) == 3
    assert len(read_all(pcap(large, snaplen=262_144))[0]) == 0


def test_empty_packets_are_packets():
    items = [*packets(3), Packet(START + 10**9, b"", 1500), Packet(START + 10**9, b""), *packets(2)]
    found, damage, _ = read_all(pcap(items))
    assert found == expected(items)
    assert damage == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (pcap_header()[:20], "ends inside the pcap header"),
        (pcap_header(link=0x0555E64F), "link type 0x0555e64f"),
        (pcap_header(">") + b"".join(pcap_record(p) for p in packets(9)), "no plausible packet record"),
    ],
)
def test_what_is_no_pcap_is_refused(data, why):
    found, _, reader = read_all(data)
    assert found == []
    assert why in reader.refusal


places = st.floats(0, 1, exclude_max=True)
mutations = st.lists(st.tuples(places, st.integers(0, 40), st.binary(max_size=40)), max_size=6)


def mutate(data, changes):
    """Replace octets at places (given as parts of the whole) by others, not always as many."""
    data = bytearray(data)
    for place, gone, octets in changes:
        at = int(place * len(data))
        data[at : at + (gone if gone % 3 else len(octets))] = octets
    return bytes(data)


@settings(max_examples=200, deadline=None)
@given(mutations, st.integers(1, 12), st.sampled_from([None, 1, 40, 333]), st.booleans())
def test_damaged_files_never_raise_and_are_read_alike_however_they_are_cut(changes, limit, chunk, big):
    data = mutate(pcap(packets(12, 30), ">" if big else "<"), changes)
    found, damage, reader = read_all(data)
    again, damage_again, _ = read_all(data, limit, chunk=chunk)
    assert (again, damage_again) == (found, damage)
    if not reader.refusal:
        assert sum(16 + len(row[2]) for row in found) + sum(d.skipped for d in damage) == len(data) - 24


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.integers(1, 5))
def test_octets_of_any_kind_never_raise(tail, limit):
    read_all(pcap_header() + tail, limit)
    read_all(pcap(packets(3)) + tail + pcap(packets(3))[24:], limit)


headers = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.builds(
        lambda t, f, c, w: struct.pack("<IIII", t, f, c, w),
        st.sampled_from([0, 1, 1_700_000_000, 1_700_000_001, 2**32 - 1]),
        st.sampled_from([0, 999_999, 1_000_000, 2**32 - 1]),
        st.integers(0, 40),
        st.integers(0, 50),
    ),
)
chains = st.lists(st.tuples(headers, st.binary(max_size=40)), max_size=8).map(
    lambda parts: b"".join(head + body for head, body in parts)
)
formats = st.tuples(st.booleans(), st.sampled_from([16, 24]), st.sampled_from([1, 1000]), st.integers(0, 64))
times = st.sampled_from([kernels.UNKNOWN, 0, START, START + kernels.PLAUSIBLE_GAP + 1])


@settings(max_examples=300, deadline=None)
@given(chains, formats, times, st.integers(1, 6), st.integers(0, 120))
def test_walk_agrees_with_its_naive_twin(data, form, previous, room, stop):
    big, header, scale, limit = form
    columns = [np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int32), np.empty(room, np.int32)]
    buffer = np.frombuffer(data, np.uint8)
    count, position, reason, jumped = kernels.walk_pcap(
        buffer, 0, len(data), stop, big, header, scale, limit, previous, *columns
    )
    want, want_position, want_reason = naive.walk_pcap(data, 0, stop, big, header, scale, limit, previous, room)
    assert list(zip(*(column[:count].tolist() for column in columns), strict=True)) == want
    assert (position, ("full", "short", "implausible")[reason]) == (want_position, want_reason)
    chained = [previous, *(row[0] for row in want)]
    assert jumped == any(naive.far(b, a) for a, b in pairwise(chained))


@settings(max_examples=300, deadline=None)
@given(chains, formats, times, st.booleans(), st.booleans(), st.integers(0, 20), st.integers(0, 300))
def test_search_agrees_with_its_naive_twin(data, form, near, final, lone, position, stop):
    big, header, scale, limit = form
    stop = min(stop, len(data))
    buffer = np.frombuffer(data, np.uint8)
    place, state = kernels.find_pcap(buffer, position, stop, len(data), final, big, header, scale, limit, near, lone)
    verdict = {kernels.FOUND: True, kernels.MORE: None, kernels.NOTHING: False}[state]
    assert (place, verdict) == naive.find_pcap(data, position, stop, final, big, header, scale, limit, near, lone)


@given(st.lists(st.integers(-2, 2), max_size=10), st.integers(0, 10), st.booleans())
def test_check_of_times_agrees_with_its_naive_twin(quarters, count, begun):
    values = [q * (kernels.PLAUSIBLE_GAP + 1) for q in quarters]
    count = min(count, len(values))
    keep = np.ones(count, np.bool_)
    previous = 0 if begun else kernels.UNKNOWN
    last = kernels.keep_plausible_times(np.array(values, np.int64), count, previous, keep)
    assert (keep.tolist(), last) == naive.keep_plausible_times(values, count, previous)
