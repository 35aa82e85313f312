"""The kernels of the rings against their plain twin, on sound, odd and damaged blocks."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture._ring_kernels import (
    BASE,
    BLOCK_SIZE,
    BLOCKS,
    CURSOR,
    DAMAGED,
    FIRST_BLOCK,
    FULL,
    LATEST,
    LINK_TYPE,
    OUTGOING,
    RESULTS,
    RING_SLOTS,
    ROWS,
    UNSORTED,
    count_off,
    give_back,
    walk_rings,
)
from tests.naive_ring import Frame, block, walk_block

SIZE = 4096


class Memory:
    """Blocks of rings in plain memory, with octets around them that nobody may touch."""

    def __init__(self, rings, link_type=1, outgoing=0, rows=200):
        count = sum(len(blocks) for blocks in rings)
        held = np.full((count + 2) * SIZE, 0xA5, np.uint8)
        table = np.zeros((len(rings), RING_SLOTS), np.int64)
        at, first = SIZE, 0
        for row, blocks in zip(table, rings, strict=True):
            octets = np.frombuffer(b"".join(blocks), np.uint8)
            held[at : at + len(octets)] = octets
            row[[BASE, BLOCK_SIZE, BLOCKS, FIRST_BLOCK, LINK_TYPE, OUTGOING]] = (
                at, SIZE, len(blocks), first, link_type, outgoing,
            )  # fmt: skip
            at += len(octets)
            first += len(blocks)
        self.octets, self.table = held, table
        self.remaining = np.full(count, -1, np.int32)
        self.result = np.zeros(RESULTS, np.int64)
        self.time, self.offset = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self.captured, self.wire, self.link_types, self.block = (np.zeros(rows, np.int32) for _ in range(4))

    def walk(self):
        words, halves = self.octets.view(np.uint32), self.octets.view(np.uint16)
        walk_rings(
            self.octets, halves, words, self.table, self.time, self.offset, self.captured, self.wire,
            self.link_types, self.block, self.remaining, self.result,
        )  # fmt: skip
        return [(int(self.time[k]), self.frame(k), int(self.wire[k])) for k in range(self.result[ROWS])]

    def frame(self, row):
        start = int(self.offset[row])
        return self.octets[start : start + self.captured[row]].tobytes()

    def hand_over(self):
        count_off(self.block[: self.result[ROWS]], self.remaining)

    def give_back(self):
        give_back(self.octets.view(np.uint32), self.table, self.remaining)

    def statuses(self):
        return self.octets.view(np.uint32)[(SIZE + 8) // 4 :: SIZE // 4][: len(self.remaining)].tolist()

    def margins_are_whole(self):
        return (self.octets[:SIZE] == 0xA5).all() and (self.octets[-SIZE:] == 0xA5).all()


def random_frame(draw):
    return Frame(
        octets=draw.randbytes(draw.choice([0, 1, 11, 12, 14, 60, 214])),
        seconds=1_700_000_000 + draw.randrange(3),
        ns=draw.randrange(10**9),
        wire=draw.choice([None, 0, 9000, 0xFFFFFFFF]),
        status=draw.choice([1, 0x11, 0x51, 0x41, 0xFFFFFFFF]),
        control=draw.randrange(1 << 32),
        tag=draw.choice([0, 0x8100, 0x88A8]),
        protocol=draw.randrange(1 << 16),
        index=draw.randrange(-2, 1 << 31),
        hardware_type=draw.choice([1, 772, 512, 65534]),
        packet_type=draw.choice([0, 1, 3, 4]),
        address=draw.randbytes(8),
        room=draw.choice([0, 3, 4, 14, 20, 23, 24, 34, 46]),
    )


@pytest.mark.parametrize("link_type", [1, 101, 276])
@pytest.mark.parametrize("outgoing", [0, 1, 2])
def test_random_blocks_give_what_the_twin_gives(link_type, outgoing):
    draw = random.Random(link_type * 3 + outgoing)
    for _ in range(60):
        data = block([random_frame(draw) for _ in range(draw.randrange(9))], SIZE)
        rows, damaged = walk_block(data, link_type, outgoing)
        memory = Memory([[data]], link_type, outgoing)
        assert memory.walk() == rows
        assert (memory.result[DAMAGED] > 0) == damaged
        assert memory.margins_are_whole()


@given(seed=st.integers(0, 10**6), where=st.integers(0, 700), octets=st.binary(min_size=1, max_size=8))
def test_damaged_blocks_are_read_as_far_as_they_are_sound_and_never_left(seed, where, octets):
    draw = random.Random(seed)
    data = bytearray(block([random_frame(draw) for _ in range(4)], SIZE))
    data[where : where + len(octets)] = octets
    data[8:12] = b"\1\0\0\0"
    link_type = draw.choice([1, 101, 276])
    rows, _ = walk_block(bytes(data), link_type, 0)
    memory = Memory([[bytes(data)]], link_type)
    found = memory.walk()
    # Where headers overlap, one may be read after something was put before another's frame, so only what has nothing
    # put before it is sure to be what the twin reads.
    if link_type == 101:
        assert [time for time, _, _ in found] == [time for time, _, _ in rows]
    assert len(found) <= SIZE // 64
    assert memory.margins_are_whole()
    for k in range(len(found)):
        assert memory.offset[k] >= SIZE
        assert memory.offset[k] + memory.captured[k] <= 2 * SIZE


def test_rings_are_walked_in_turn_and_times_that_fall_are_told():
    early, late = Frame(b"early", ns=1), Frame(b"late", ns=2)
    ready = block([early], SIZE), block([late], SIZE)
    memory = Memory([[ready[1]], [ready[0]]])
    assert [octets for _, octets, _ in memory.walk()] == [b"late", b"early"]
    assert memory.result[UNSORTED] == 1
    assert memory.table[:, LATEST].tolist() == [early.seconds * 10**9 + 2, early.seconds * 10**9 + 1]


def test_a_block_without_room_waits():
    memory = Memory([[block([Frame(b"x")] * 3, SIZE), block([Frame(b"y")] * 3, SIZE)]], rows=5)
    assert [octets for _, octets, _ in memory.walk()] == [b"x"] * 3
    assert memory.result[FULL] == 1
    assert [octets for _, octets, _ in memory.walk()] == [b"y"] * 3
    assert memory.result[FULL] == 0


def test_a_block_goes_back_when_no_row_is_left_and_is_walked_once():
    memory = Memory([[block([Frame(b"x")] * 2, SIZE), block([Frame(b"y")], SIZE, status=0)]])
    assert len(memory.walk()) == 2
    memory.give_back()
    assert memory.statuses() == [1, 0]
    memory.hand_over()
    assert memory.statuses() == [1, 0]
    memory.give_back()
    assert memory.statuses() == [0, 0]
    assert memory.table[0, CURSOR] == 1
    assert memory.walk() == []


def test_a_ring_that_was_walked_all_round_is_not_walked_again():
    memory = Memory([[block([Frame(b"x")], SIZE), block([Frame(b"y")], SIZE)]])
    assert len(memory.walk()) == 2
    assert memory.walk() == []
