"""The receiver and the timeline: RFC 3550's figures, golden values, and placing against plain twins."""

import math
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import _stream_columns as cols
from decoders.rtp import Window
from decoders.sdp import STATIC_FORMATS, PayloadFormat
from decoders.timeline import TICKS, Entries, EntrySpace, FormatTable, Placer, StreamTable, ticks_of
from tests import naive_streams

FORMATS = dict(STATIC_FORMATS) | {101: PayloadFormat(101, "telephone-event", 8000), 77: PayloadFormat(77, "x", 8000)}
KINDS = {0: naive_streams.AUDIO, 8: naive_streams.AUDIO, 101: naive_streams.EVENT, 13: naive_streams.NOISE}
MS = 1_000_000


class Receiving:
    """One stream, fed window by window."""

    def __init__(self):
        self.table, self.formats = StreamTable(4), FormatTable()
        self.row = self.table.allocate(self.formats.row(FORMATS, "audio", slow=False))
        self.left = []

    def window(self, packets, hold=0, now=0):
        """Take packets (ns, sequence, timestamp, type, payload); gives what sounds: (position, kind, payload)."""
        packets = [*self.left, *packets]
        window = Window.empty(max(len(packets), 1), 200_000)
        for i, (time, sequence, stamp, kind, payload) in enumerate(packets):
            octets = struct.pack("!BBHII", 128, kind, sequence, stamp, 7) + payload
            window.time[i], window.sequence[i], window.stamp[i], window.type[i] = time, sequence, stamp, kind
            window.offset[i], window.header[i], window.size[i] = window.octets, 12, len(payload)
            window.whole[i], window.missing[i], window.number[i], window.capture[i] = len(octets), 0, i + 1, 0
            window.arena[window.octets : window.octets + len(octets)] = np.frombuffer(octets, np.uint8)
            window.octets += len(octets)
        window.count = len(packets)
        rows, begins = np.array([self.row], np.int32), np.zeros(1, np.int64)
        order = np.arange(len(packets), dtype=np.int32)
        entries = EntrySpace().lay_out(rows, begins, np.array([len(packets)], np.int64), order, window)
        entries.receive(self.table, self.formats, window, 0, now, hold, 0, 1)
        taken = int(entries.taken[0])
        self.left = packets[taken:]
        return [
            (int(entries.position[e]), int(entries.kind[e]), packets[e][4])
            for e in range(taken)
            if entries.kind[e] != cols.DROPPED
        ]

    def state(self, column):
        return int(self.table.state[self.row, column])

    @property
    def expected(self):
        return self.state(cols.EXPECTED) + self.state(cols.TOP) - self.state(cols.BASE) + 1


def in_step(sequences, kind=0):
    """Packets of 20 ms that arrive in step, with these sequence numbers."""
    return [(k * 20 * MS, s & 0xFFFF, 160 * s & 0xFFFFFFFF, kind, bytes(160)) for k, s in enumerate(sequences)]


def test_sequence_numbers_give_the_golden_values():
    receiving = Receiving()
    receiving.window(in_step([65534, 65535, 65536, 65537, 65539, 65538, 65538, 65542]))
    assert receiving.state(cols.TOP) & 0xFFFF == 6
    assert (receiving.expected, receiving.state(cols.RECEIVED)) == (9, 7)
    # RFC 3550 counts the duplicate as received, which hides a loss; we count it apart.
    assert receiving.state(cols.DUPLICATES) == 1
    received = receiving.state(cols.RECEIVED) + receiving.state(cols.DUPLICATES)
    assert (receiving.expected - received) * 256 // receiving.expected == 28
    assert receiving.state(cols.REORDERED) == 1


def test_interarrival_jitter_gives_the_golden_values():
    arrivals = ((1000, 0), (1160, 160), (1360, 320), (1480, 480), (1640, 640))
    wanted = (0, 0, 2.5, 4.84375, 4.541016)
    for count, jitter in enumerate(wanted, 1):
        receiving = Receiving()
        receiving.window([
            (units * 125_000, k, stamp, 0, bytes(160)) for k, (units, stamp) in enumerate(arrivals[:count])
        ])  # fmt: skip
        assert receiving.table.figures[receiving.row, cols.JITTER] == pytest.approx(jitter, abs=5e-7)


@st.composite
def arrivals(draw):
    """Packets of a source: mostly in step, with all that a network and a sender may do to them."""
    sequence, stamp, time = draw(st.integers(0, 65535)), draw(st.integers(0, 2**32 - 1)), 0
    packets = []
    for _ in range(draw(st.integers(1, 60))):
        what = draw(st.integers(0, 12))
        step = 1
        if what == 1:
            step = draw(st.sampled_from([2, 3, 99, 2999, 3000, 32768, 65436, 65437, 65535]))
            sequence += step
            stamp += 160 * step
        elif what == 2:
            stamp += draw(st.sampled_from([-160, 8000, -8000, 2**31, 2**31 - 160, 90_000]))
            sequence += 1
        elif what == 3 and packets:
            _, sequence, stamp, _, _ = draw(st.sampled_from(packets[-20:]))
        else:
            sequence, stamp = sequence + 1, stamp + 160
        sequence, stamp = sequence & 0xFFFF, stamp & 0xFFFFFFFF
        time += draw(st.sampled_from([0, 20 * MS, 20 * MS, 20 * MS, 19 * MS, 61 * MS, 1500 * MS]))
        kind = draw(st.sampled_from([0, 0, 0, 0, 0, 8, 101, 13]))
        packets.append((time, sequence, stamp, kind, bytes(160)))
    return packets


@settings(max_examples=200, deadline=None)
@given(arrivals(), st.lists(st.integers(0, 60), max_size=3))
def test_statistics_agree_with_the_plain_twin_wherever_windows_end(packets, cuts):
    receiving = Receiving()
    edges = [0, *sorted(min(cut, len(packets)) for cut in cuts), len(packets)]
    for a, b in pairwise(edges):
        receiving.window(packets[a:b], hold=1, now=2**62)
    receiving.window([])
    assert receiving.left == []
    twin = naive_streams.Receiver()
    twin.hear([(time, sequence, stamp, KINDS[kind]) for time, sequence, stamp, kind, _ in packets])
    found = [
        receiving.expected,
        *(receiving.state(c) for c in (cols.RECEIVED, cols.DUPLICATES, cols.REORDERED, cols.EPOCHS, cols.GAPS)),
    ]
    assert found == [twin.expected, twin.received, twin.duplicates, twin.reordered, twin.epochs, twin.gaps]


@settings(max_examples=100, deadline=None)
@given(arrivals())
def test_jitter_agrees_with_the_plain_twin_where_timestamps_are_sound(packets):
    sound = [(time, k, 160 * k, kind, payload) for k, (time, _, _, kind, payload) in enumerate(packets)]
    receiving = Receiving()
    receiving.window(sound)
    twin = naive_streams.Receiver()
    twin.hear([(time, sequence, stamp, KINDS[kind]) for time, sequence, stamp, kind, _ in sound])
    figures = receiving.table.figures[receiving.row]
    assert math.isclose(figures[cols.JITTER], twin.jitter, abs_tol=1e-9)
    assert int(figures[cols.JITTER_COUNT]) == len(twin.jitters)
    assert math.isclose(figures[cols.JITTER_SUM], sum(twin.jitters) / 8, rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(figures[cols.JITTER_MAX], max(twin.jitters, default=0.0) / 8, rel_tol=1e-9, abs_tol=1e-9)


@settings(max_examples=150, deadline=None)
@given(arrivals(), st.lists(st.integers(0, 60), max_size=3))
def test_no_arrival_makes_the_timeline_place_a_packet_far_from_its_capture_time(packets, cuts):
    receiving = Receiving()
    edges = [0, *sorted(min(cut, len(packets)) for cut in cuts), len(packets)]
    last = packets[-1][0]
    for a, b in pairwise(edges):
        for position, _, _ in receiving.window(packets[a:b], hold=1, now=2**62):
            assert -10 * TICKS <= position <= ticks_of(last) + 10 * TICKS


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.permutations(range(12)))
def test_packets_that_the_network_reorders_keep_their_places_across_every_wrap(sequence, stamp, order):
    receiving = Receiving()
    steady = [(k * 20 * MS, (sequence + k) & 0xFFFF, (stamp + 160 * k) & 0xFFFFFFFF, 0, bytes([k])) for k in range(20)]
    late = [(400 * MS + i * MS, *steady[4 + k][1:]) for i, k in enumerate(order)]
    heard = receiving.window(sorted([*steady[:4], *late, *steady[16:]], key=lambda p: p[0]))
    assert sorted((p, payload[0]) for p, _, payload in heard) == [(k * TICKS // 50, k) for k in range(20)]


@pytest.mark.parametrize("cut", range(1, 30, 4))
@pytest.mark.parametrize("pause", [1, 5])
@pytest.mark.parametrize("ahead", [280, -280])
def test_speech_goes_on_where_it_arrives_wherever_the_window_ends(cut, pause, ahead):
    """After a pause the timestamps are 280 ms off the clock; the window ends some packets after that."""
    receiving = Receiving()
    before = in_step(range(50))
    jump = 160 * (50 * pause + 50) + 8 * ahead
    after = [
        ((50 + 50 * pause + k) * 20 * MS, 50 + k, jump + 160 * k, 0, bytes([k])) for k in range(60)
    ]  # fmt: skip
    windows = [before + after[:cut], after[cut:]] if pause == 1 else [before, after[:cut], after[cut:]]
    heard = []
    for window in windows:
        heard += receiving.window(window, hold=1, now=window[-1][0] + 1)
    heard += receiving.window([])
    places = [(position, payload[0]) for position, _, payload in heard if len(payload) == 1]
    assert places == [((50 + 50 * pause + k) * TICKS // 50, k) for k in range(60)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_placing_agrees_with_the_plain_twin(data):
    step = data.draw(st.sampled_from([TICKS // 8000, TICKS // 16000]))
    zero, low, frames = (
        data.draw(st.integers(-(2**40), 2**40)),
        data.draw(st.integers(0, 5000)),
        data.draw(st.integers(1, 300)),
    )
    kept = data.draw(st.integers(0, frames))
    shape = [data.draw(st.integers(0, 4)) for _ in range(3)]
    laws = {"PCMU": cols.KIND_ULAW, "PCMA": cols.KIND_ALAW, None: cols.DROPPED}
    channels = [data.draw(st.integers(-1, 1)) for _ in shape]
    octets, entries = b"", []
    columns = {"kind": [], "position": [], "source": [], "size": []}
    for channel, count in zip(channels, shape, strict=True):
        for _ in range(count):
            payload = data.draw(st.binary(max_size=50))
            position = zero + (low + data.draw(st.integers(-60, 360))) * step + data.draw(st.integers(-step, step))
            law = data.draw(st.sampled_from(list(laws)))
            columns["kind"].append(laws[law])
            columns["position"].append(position)
            columns["source"].append(len(octets))
            columns["size"].append(len(payload))
            octets += payload
            entries.append((channel, law, position, payload))
    before = np.zeros((frames, 2), np.int16)
    before[:kept] = np.arange(2 * kept).reshape(kept, 2) - 300
    bounds = np.cumsum([0, *shape]).astype(np.int64)
    none = np.empty(0, np.int32)
    laid = Entries(
        streams=none, bounds=bounds, order=none, time=none, stamp=none, sequence=none, type=none,
        source=np.array(columns["source"], np.int64), size=np.array(columns["size"], np.int32), missing=none,
        taken=np.array(shape, np.int64), uts=none, position=np.array(columns["position"], np.int64), delay=none,
        kind=np.array(columns["kind"], np.uint8),
    )  # fmt: skip
    window = Window.empty(1, 1)
    window.arena = np.frombuffer(octets + bytes(1), np.uint8).copy()
    jobs = np.zeros((1, cols.JOB), np.int64)
    jobs[0, cols.JOB_LAST], jobs[0, cols.JOB_LOW], jobs[0, cols.JOB_FRAMES] = 3, low, frames
    jobs[0, cols.JOB_KEPT], jobs[0, cols.JOB_ZERO], jobs[0, cols.JOB_STEP] = kept, zero, step
    placer = Placer()
    placer.reserve(jobs)
    placer.out[: 2 * frames] = 99
    placer.out[: 2 * kept] = before[:kept].reshape(-1)
    placer.place(jobs, np.array(channels, np.int32), laid, window)
    wanted = naive_streams.place(before, entries, zero, step, low)
    np.testing.assert_array_equal(placer.out[: 2 * frames].reshape(-1, 2), wanted)
