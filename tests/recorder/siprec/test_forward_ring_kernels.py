"""The loop over rings beside plain Python: which packets of random blocks wait in which flow, and which are let be."""

import random
import socket
import struct
import threading
from collections import defaultdict

import numpy as np
import pytest

from capture._ring_kernels import (
    BASE,
    BLOCK_SIZE,
    BLOCKS,
    FIRST_BLOCK,
    LINK_TYPE,
    RESULTS,
    RING_SLOTS,
    SMALLEST_FRAME,
)
from capture.layers import read_only
from capture.rings import RingView
from recorder.siprec import _forward_columns as columns
from recorder.siprec._forward_columns import Capacity, Tables, make_tables
from recorder.siprec._forward_ring_kernels import forward_rings, make_scratch
from recorder.siprec._ring_wait import polled
from recorder.siprec._table_lock import new_mutex
from tests.naive_history import held_by
from tests.naive_ring import ETHERNET, Frame, block, walk_block

SIZE = 4096
USER = 1
PATIENCE = 30.0
Flow = tuple[bytes, bytes, int, int, int]
"""Addresses, ports, SSRC."""


def udp_of(draw: random.Random, payload: bytes, protocol: int = 17) -> bytes:
    """Ethernet, IPv4 and UDP around a payload, between a few ends."""
    ends = b"".join(socket.inet_aton(f"192.0.2.{draw.randrange(1, 4)}") for _ in range(2))
    ports = draw.choice([4000, 4002, 53]), draw.choice([6000, 6002])
    udp = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 7, 0x4000, 64, protocol, 0) + ends
    return bytes(12) + b"\x08\x00" + ip + udp


def rtp_of(draw: random.Random) -> bytes:
    """RTP, or what looks like it up to a point."""
    first = draw.choice([0x80, 0x80, 0x80, 0x82, 0x90, 0xA0, 0x40])
    second = draw.choice([0, 8, 0x80, 101, 200, 77])
    head = struct.pack("!BBHII", first, second, draw.randrange(1 << 16), draw.randrange(1 << 32), draw.randrange(1, 4))
    extra = draw.randbytes(8) if first == 0x82 else struct.pack("!HH", 1, draw.choice([1, 2, 60])) + draw.randbytes(8)
    return head + (extra if first in (0x82, 0x90) else b"") + draw.randbytes(draw.randrange(0, 160))


def frame_of(draw: random.Random) -> Frame:
    kind = draw.randrange(10)
    if kind == 0:
        octets = draw.randbytes(draw.choice([0, 13, 60]))
    elif kind == 1:
        octets = udp_of(draw, rtp_of(draw), protocol=6)
    elif kind == 2:
        octets = udp_of(draw, draw.randbytes(draw.randrange(0, 12)))
    else:
        octets = udp_of(draw, rtp_of(draw))
    cut = draw.randrange(1, 20) if kind == 3 else 0
    return Frame(octets[: len(octets) - cut], ns=draw.randrange(10**9), wire=len(octets))


def is_rtp(payload: bytes) -> bool:
    if len(payload) < 12 or payload[0] >> 6 != 2 or 192 <= payload[1] <= 223:
        return False
    header = 12 + 4 * (payload[0] & 15)
    if payload[0] & 0x10:
        if header + 4 > len(payload):
            return False
        header += 4 + 4 * int.from_bytes(payload[header + 2 : header + 4], "big")
    return header <= len(payload)


class Twin:
    """Flows by their first packet, with what waits in each."""

    def __init__(self) -> None:
        self.flows: dict[Flow, list[tuple[int, bytes]]] = defaultdict(list)
        self.cut = self.frames = self.octets = 0

    def take(self, time: int, frame: bytes, wire: int) -> None:
        self.frames += 1
        self.octets += wire
        if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[14] != 0x45 or frame[23] != 17:
            return
        length = int.from_bytes(frame[38:40], "big") - 8
        ports = int.from_bytes(frame[34:36], "big"), int.from_bytes(frame[36:38], "big")
        payload = frame[42 : 42 + length]
        if not is_rtp(payload) or 53 in ports:
            return
        flow = self.flows[frame[26:30], frame[30:34], *ports, int.from_bytes(payload[8:12], "big")]
        if len(payload) < length:
            self.cut += 1
        else:
            flow.append((time, payload))


def rings_of(blocks: list[list[bytes]]) -> RingView:
    """Rings in plain memory."""
    count = sum(map(len, blocks))
    table = np.zeros((len(blocks), RING_SLOTS), np.int64)
    first = 0
    for row, ring in zip(table, blocks, strict=True):
        row[[BASE, BLOCK_SIZE, BLOCKS, FIRST_BLOCK, LINK_TYPE]] = first * SIZE, SIZE, len(ring), first, ETHERNET
        first += len(ring)
    octets = np.frombuffer(b"".join(each for ring in blocks for each in ring), np.uint8).copy()
    rows = len(blocks) * SIZE // SMALLEST_FRAME
    wide, narrow = (lambda: np.zeros(rows, np.int64)), (lambda: np.zeros(rows, np.int32))
    return RingView(
        octets, octets.view(np.uint16), octets.view(np.uint32), table, np.full(count, -1, np.int32),
        np.zeros(RESULTS, np.int64), wide(), wide(), narrow(), narrow(), narrow(), narrow(), np.zeros(2, np.int64),
    )  # fmt: skip


def flow_of(row: list[int]) -> Flow:
    ports = row[columns.PORTS_SSRC] & (1 << 64) - 1
    ends = [(row[column] & 0xFFFFFFFF).to_bytes(4, "big") for column in (columns.SOURCE_LOW, columns.DESTINATION_LOW)]
    return ends[0], ends[1], ports >> 48, ports >> 32 & 0xFFFF, ports & 0xFFFFFFFF


def forward(tables: Tables, rings: RingView) -> None:
    """Run the loop until all blocks have gone back."""
    run = (tables, rings, read_only(rings.octets), polled([]), make_scratch(len(rings.time)))
    thread = threading.Thread(target=forward_rings, args=run)
    thread.start()
    tick, statuses = threading.Event(), rings.words[2 :: SIZE // 4]
    for _ in range(round(PATIENCE / 0.002)):
        if not (statuses & USER).any():
            break
        tick.wait(0.002)
    tables.counts[columns.STOP] = 1
    thread.join()
    assert not (statuses & USER).any()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_packets_of_random_blocks_wait_in_the_flows_of_the_twin(seed, count):
    draw = random.Random(seed)
    blocks = [
        [block([frame_of(draw) for _ in range(draw.randrange(0, 13))], SIZE) for _ in range(draw.randrange(1, 6))]
        for _ in range(count)
    ]
    tables = make_tables(Capacity(256, 4, 4, 1 << 18, 1 << 60, 16), new_mutex())
    rings = rings_of(blocks)
    forward(tables, rings)
    twin = Twin()
    # One block of each ring in turn, as the kernel walks them.
    for turn in range(max(map(len, blocks))):
        for ring in blocks:
            if turn < len(ring):
                for row in walk_block(ring[turn], ETHERNET, 0)[0]:
                    twin.take(*row)
    numbers = tables.fresh[: tables.counts[columns.FRESH]].tolist()
    assert [flow_of(tables.flows[number].tolist()) for number in numbers] == list(twin.flows)
    for number, expected in zip(numbers, twin.flows.values(), strict=True):
        assert [(time, octets) for _, time, octets, _ in held_by(tables, number)] == expected
    assert tables.counts[columns.CUT] == twin.cut
    assert rings.tally.tolist() == [twin.frames, twin.octets]
