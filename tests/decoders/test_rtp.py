"""Staging of RTP by flow, against a plain twin."""

import struct
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.batch import KIND_UDP, DatagramBatch, PacketBatch
from decoders._demux_kernels import RTP
from decoders.rtp import IGNORED, STOP_END, STOP_FULL, STOP_TIME, FlowTable, Stager, Window
from tests import naive_streams

REASONS = {STOP_END: "end", STOP_TIME: "time", STOP_FULL: "full"}
FLOWS, PACKETS, OCTETS = 6, 24, 900


def datagrams(rows):
    """Rows as `naive_streams.Stage` takes them, as the columns that the kernel reads."""
    octets = [row[4] for row in rows]
    lengths = np.array([len(each) for each in octets], np.int32)
    offsets = np.cumsum(lengths, dtype=np.int64) - lengths
    n = len(rows)
    packets = PacketBatch(
        buffer=np.frombuffer(b"".join(octets) + bytes(16), np.uint8),
        time=np.array([row[0] for row in rows], np.int64),
        offset=offsets,
        captured=lengths,
        wire=lengths,
        link_type=np.ones(n, np.int32),
        number=np.array([row[6] for row in rows], np.int64),
        capture=np.zeros(n, np.int32),
    )
    ends = np.array([row[2] for row in rows], np.uint64).reshape(n, 6)
    batch = DatagramBatch(
        packets=packets,
        kind=np.full(n, KIND_UDP, np.uint8),
        payload=offsets,
        length=lengths,
        missing=np.array([row[5] for row in rows], np.int32),
        source_high=ends[:, 0].copy(),
        source_low=ends[:, 1].copy(),
        destination_high=ends[:, 2].copy(),
        destination_low=ends[:, 3].copy(),
        source_port=ends[:, 4].astype(np.uint16),
        destination_port=ends[:, 5].astype(np.uint16),
        realm=np.array([row[3] for row in rows], np.uint32),
        ip_id=np.zeros(n, np.uint16),
    )
    return batch, np.array([RTP if row[1] else 0 for row in rows], np.uint8)


def flow_of(table, flow):
    """The key of a flow as the twin writes it."""
    source, destination = table.source(flow), table.destination(flow)
    ends = (source.high, source.low, destination.high, destination.low, source.port, destination.port)
    return (*ends, int(table.ssrcs[flow]), int(table.realms[flow]))


def window_of(stager):
    """The staged packets as the twin has them."""
    w = stager.window
    return [
        naive_streams.Staged(
            flow_of(stager.flows, int(w.flow[i])), int(w.time[i]), int(w.stamp[i]), int(w.sequence[i]), int(w.type[i]),
            int(w.header[i]), w.payload(i), w.packet(i), int(w.missing[i]), int(w.number[i]),
        )
        for i in range(w.count)
    ]  # fmt: skip


ADDRESSES = st.sampled_from([(0, 1), (0, 0xFFFF00000001), (2**64 - 1, 2**64 - 1), (0, 2**63)])


@st.composite
def packet(draw):
    """An RTP packet that demultiplexing would let pass: its lengths fit."""
    sources, extended, padded = draw(st.integers(0, 2)), draw(st.booleans()), draw(st.booleans())
    head = struct.pack(
        "!BBHII",
        128 | sources | 16 * extended | 32 * padded,
        draw(st.integers(0, 255)),
        draw(st.integers(0, 65535)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from([0, 1, 2**32 - 1])),
    )
    body = bytes(4 * sources)
    if extended:
        words = draw(st.integers(0, 2))
        body += struct.pack("!HH", 0xBEDE, words) + bytes(4 * words)
    body += draw(st.binary(max_size=30))
    if padded:
        # Sound, or more than there is.
        body += bytes([draw(st.integers(1, 40))])
    return head + body


@st.composite
def capture(draw):
    """Batches of rows in order of time."""
    rows, time = [], 0
    for number in range(1, draw(st.integers(1, 60))):
        time += draw(st.integers(0, 30))
        source, destination = draw(ADDRESSES), draw(ADDRESSES)
        ends = (*source, *destination, draw(st.sampled_from([0, 65535])), 5000)
        rows.append((time, draw(st.integers(0, 9)) > 0, ends, draw(st.integers(0, 1)), draw(packet()), 0, number))
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    edges = [0, *cuts, len(rows)]
    return [rows[a:b] for a, b in pairwise(edges) if a < b]


@settings(max_examples=150, deadline=None)
@given(capture(), st.data())
def test_staging_grouping_carrying_and_forgetting_agree_with_the_plain_twin(batches, data):
    stager = Stager(FlowTable(FLOWS), Window.empty(PACKETS, OCTETS))
    twin = naive_streams.Stage(FLOWS, PACKETS, OCTETS)
    until = 100
    for rows in batches:
        batch, kinds = datagrams(rows)
        row = 0
        while row < len(rows):
            reached, reason = stager.stage(batch, kinds, row, until)
            assert (reached, REASONS[reason]) == twin.take(rows, row, until)
            assert window_of(stager) == twin.staged
            row = reached
            if reason != STOP_END:
                close(stager, twin, data)
                until += 100


def close(stager, twin, data):
    """End a window in both: group, keep some packets, forget idle flows, ignore one."""
    flows, table = stager.group(), stager.flows
    grouped = {
        flow_of(table, f): stager.order[stager.starts[f] : stager.starts[f + 1]].tolist() for f in flows.tolist()
    }
    assert grouped == twin.grouped()
    keep = data.draw(st.lists(st.booleans(), min_size=len(twin.staged), max_size=len(twin.staged)))
    if len(keep) == PACKETS or sum(len(s.whole) for s in twin.staged) > OCTETS:
        keep = [False] * len(keep)
    stager.carry(np.array(keep, np.bool_))
    twin.carry(keep)
    assert window_of(stager) == twin.staged
    in_use = {s.flow for s in twin.staged}
    known = [f for f in range(FLOWS) if f not in table.free[: FLOWS - stager.flows_in_use].tolist()]
    for f in known:
        assert [int(table.first[f]), int(table.last[f]), int(table.packets[f])] == twin.flows[flow_of(table, f)]
    idle = [f for f in known if flow_of(table, f) not in in_use]
    gone = idle if len(known) == FLOWS else idle[::2]
    for f in gone:
        twin.ignored.discard(flow_of(table, f))
        del twin.flows[flow_of(table, f)]
    stager.remove(np.array(gone, np.int32))
    for f in set(idle) - set(gone):
        table.states[f] = IGNORED
        twin.ignored.add(flow_of(table, f))
    if len(twin.flows) == FLOWS:
        for f in known:
            twin.flows.pop(flow_of(table, f), None)
        stager.carry(np.zeros(stager.window.count, np.bool_))
        twin.carry([False] * len(twin.staged))
        stager.remove(np.array([f for f in known if f not in gone], np.int32))
        twin.ignored.clear()


def test_a_packet_cut_inside_its_header_is_staged_without_reading_beyond_it():
    head = struct.pack("!BBHII", 128 | 16, 0, 1, 2, 3)
    rows = [(5, True, (0, 1, 0, 2, 3, 4), 0, head + b"\0\0\0\0", 0, 1)]
    batch, kinds = datagrams(rows)
    stager = Stager(FlowTable(4), Window.empty(4, 400))
    assert stager.stage(batch, kinds, 0, 100) == (1, STOP_END)
    assert stager.window.payload(0) == b""


def test_flows_come_and_go_for_ever_in_a_table_of_fixed_size():
    stager = Stager(FlowTable(4), Window.empty(8, 800))
    for number in range(200):
        packet = struct.pack("!BBHII", 128, 0, number, 160 * number, number)
        batch, kinds = datagrams([(number, True, (0, 1, 0, 2, 3, 4), 0, packet, 0, number + 1)])
        assert stager.stage(batch, kinds, 0, 1000) == (1, STOP_END)
        flows = stager.group()
        assert stager.flows.ssrcs[flows].tolist() == [number]
        stager.carry(np.zeros(1, np.bool_))
        stager.remove(flows)
        assert stager.flows_in_use == 0
