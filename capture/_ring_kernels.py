"""Kernels that walk the blocks of TPACKET_V3 rings (linux/if_packet.h) into columns and give them back.

In: the memory of all rings as one array, a table of rings, columns to fill. Out: rows, and the rings' tables moved on.
The Linux kernel is trusted to tell the truth, but nothing is read or written outside of a ring's own block whatever
stands in it. A frame stays where it is; a VLAN tag that the network card has taken off is put back before it, into room
that PACKET_RESERVE has made.
"""

import numpy as np
from numba import njit

from capture._fence import fence
from capture._prefetch import LINE, prefetch
from capture.batch import Bytes, Int32, Int64, UInt16, UInt32

BASE = 0
"""Slots of a row of the table of rings: where the ring begins in the memory, ..."""
BLOCK_SIZE = 1
"""... octets of a block, ..."""
BLOCKS = 2
"""... blocks, ..."""
CURSOR = 3
"""... the block that the Linux kernel hands over next, ..."""
FIRST_BLOCK = 4
"""... number of the ring's first block among all blocks, ..."""
LINK_TYPE = 5
"""... LINKTYPE_ value of its frames, ..."""
OUTGOING = 6
"""... what becomes of outgoing frames, ..."""
LATEST = 7
"""... and, kept up to date, the time of the last frame walked."""
RING_SLOTS = 8

KEEP_OUTGOING = 0
SKIP_OUTGOING_LOOPBACK = 1
"""A loopback interface shows a packet going out and coming in; one is enough."""
SKIP_OUTGOING = 2

ROWS = 0
"""Slots of the result: rows filled, ..."""
FULL = 1
"""... 1 where a block that is ready had no room, ..."""
UNSORTED = 2
"""... 1 where times fall somewhere, ..."""
DAMAGED = 3
"""... blocks in which something did not fit."""
RESULTS = 4

SMALLEST_FRAME = 64
"""Octets that a frame takes in a block at least; a block that claims more frames than that is damaged."""
BLOCK_HEADER = 48
_STATUS = 8
_PACKETS = 12
_FIRST_PACKET = 16
_USER = 1
"""TP_STATUS_USER: a block is ours to read."""
FRAME_HEADER = 48
"""Of `struct tpacket3_hdr`; `struct sockaddr_ll` follows."""
ADDRESS_SIZE = 20
_VLAN_VALID = 1 << 4
_VLAN_TPID_VALID = 1 << 6
_PACKET_OUTGOING = 4
_ARPHRD_LOOPBACK = 772
_ETHERTYPE_8021Q = 0x8100
_LINK_ETHERNET = 1
_LINK_SLL2 = 276
SLL2_SIZE = 20
TAG_SIZE = 4
_LARGEST = 0x7FFFFF00
_AHEAD = 2048


@njit(cache=True, nogil=True)
def _put16(buffer: Bytes, at: int, value: int) -> None:
    """Write two octets in network order."""
    buffer[at] = value >> 8 & 0xFF
    buffer[at + 1] = value & 0xFF


@njit(cache=True, nogil=True)
def _restore_tag(buffer: Bytes, at: int, identifier: int, control: int) -> None:
    """Move the addresses of the Ethernet frame at `at` forward and put a VLAN tag behind them (IEEE 802.1Q, 9.3)."""
    for k in range(at, at + 12):
        buffer[k - TAG_SIZE] = buffer[k]
    _put16(buffer, at + 8, identifier)
    _put16(buffer, at + 10, control)


@njit(cache=True, nogil=True)
def _write_sll2(buffer: Bytes, address: int, at: int, index: int, hardware_type: int, tag: int, control: int) -> None:
    """Write a Linux SLL2 header (LINKTYPE_LINUX_SLL2) that ends at `at`, from the `sockaddr_ll` at `address`.

    `tag` is the identifier of a VLAN tag that follows it, 0 for none.
    """
    high, low = buffer[address + 2], buffer[address + 3]  # the protocol is in network order already
    start = at - SLL2_SIZE
    if tag != 0:
        buffer[at - 2], buffer[at - 1] = high, low
        _put16(buffer, at - TAG_SIZE, control)
        start -= TAG_SIZE
        _put16(buffer, start, tag)
    else:
        buffer[start], buffer[start + 1] = high, low
    _put16(buffer, start + 2, 0)
    _put16(buffer, start + 4, index >> 16)
    _put16(buffer, start + 6, index)
    _put16(buffer, start + 8, hardware_type)
    for k in range(10):  # packet type, length of the address, address
        buffer[start + 10 + k] = buffer[address + 10 + k]


@njit(cache=True, nogil=True)
def _put_back(buffer: Bytes, halves: UInt16, words: UInt32, at: int, frame: int, length: int, link_type: int) -> int:
    """Write what belongs before the frame of the header at `at`; octets of it, -1 where there is no room."""
    word = at >> 2
    address = at + FRAME_HEADER
    room = frame - address - ADDRESS_SIZE
    status = np.int64(words[word + 5])
    control = np.int64(words[word + 8]) & 0xFFFF
    tag = 0
    if status & _VLAN_TPID_VALID != 0:
        tag = int(halves[(at >> 1) + 18])
    elif status & _VLAN_VALID != 0:
        tag = _ETHERTYPE_8021Q
    extra = 0
    if link_type == _LINK_ETHERNET:
        if tag != 0 and length >= 12 and room >= TAG_SIZE:
            _restore_tag(buffer, frame, tag, control)
            extra = TAG_SIZE
    elif link_type == _LINK_SLL2:
        extra = SLL2_SIZE if tag == 0 else SLL2_SIZE + TAG_SIZE
        if room < extra:
            return -1
        index = np.int64(words[(address + 4) >> 2])
        hardware_type = np.int64(halves[(address >> 1) + 4])
        _write_sll2(buffer, address, frame, index, hardware_type, tag, control)
    return extra


@njit(cache=True, nogil=True)
def _walk_block(
    buffer: Bytes,
    halves: UInt16,
    words: UInt32,
    block: int,
    size: int,
    link_type: int,
    outgoing: int,
    row: int,
    time: Int64,
    offset: Int64,
    captured: Int32,
    wire: Int32,
    result: Int64,
) -> int:
    """Fill rows from `row` on with the frames of one block; gives the row behind the last."""
    end = block + size
    packets = np.int64(words[(block + _PACKETS) >> 2])
    at = block + np.int64(words[(block + _FIRST_PACKET) >> 2])
    warmed = at
    for left in range(packets, 0, -1):
        if at & 7 != 0 or at < block + BLOCK_HEADER or at + FRAME_HEADER + ADDRESS_SIZE > end:
            result[DAMAGED] += 1
            break
        while warmed < at + _AHEAD:
            prefetch(buffer, warmed)
            warmed += LINE
        word = at >> 2
        length = np.int64(words[word + 3])
        frame = at + np.int64(halves[(at >> 1) + 12])
        address = at + FRAME_HEADER
        if frame < address + ADDRESS_SIZE or length > end - frame:
            result[DAMAGED] += 1
            break
        hardware_type = np.int64(halves[(address >> 1) + 4])
        skipped = buffer[address + 10] == _PACKET_OUTGOING and (
            outgoing == SKIP_OUTGOING or (outgoing == SKIP_OUTGOING_LOOPBACK and hardware_type == _ARPHRD_LOOPBACK)
        )
        if not skipped:
            extra = _put_back(buffer, halves, words, at, frame, length, link_type)
            if extra < 0:
                result[DAMAGED] += 1
                break
            time[row] = np.int64(words[word + 1]) * 1_000_000_000 + np.int64(words[word + 2])
            offset[row] = frame - extra
            captured[row] = length + extra
            whole = max(np.int64(words[word + 4]), length)
            wire[row] = min(whole, np.int64(_LARGEST)) + extra
            row += 1
        step = np.int64(words[word])
        if left > 1 and step < FRAME_HEADER:
            result[DAMAGED] += 1
            break
        at += step
    return row


@njit(cache=True, nogil=True)
def walk_rings(
    buffer: Bytes,
    halves: UInt16,
    words: UInt32,
    rings: Int64,
    time: Int64,
    offset: Int64,
    captured: Int32,
    wire: Int32,
    link_type: Int32,
    block: Int32,
    remaining: Int32,
    result: Int64,
) -> None:
    """Walk whole blocks that are ready, one of each ring in turn, until none is or the next has no room.

    `halves` and `words` are views of `buffer`, which begins on a page. `rings` has shape (rings, RING_SLOTS). `block`
    gets each row's block by its number among all blocks, `remaining` each walked block's count of rows.
    """
    result[:] = 0
    row = 0
    busy = True
    while busy:
        busy = False
        for ring in range(len(rings)):
            size = rings[ring, BLOCK_SIZE]
            cursor = rings[ring, CURSOR]
            start = rings[ring, BASE] + cursor * size
            number = rings[ring, FIRST_BLOCK] + cursor
            # A count that is not -1 tells that the block is still out: the ring has been walked all round.
            if words[(start + _STATUS) >> 2] & _USER == 0 or remaining[number] >= 0:
                continue
            fence()
            if np.int64(words[(start + _PACKETS) >> 2]) > size // SMALLEST_FRAME:
                words[(start + _PACKETS) >> 2] = 0
                result[DAMAGED] += 1
            if row + np.int64(words[(start + _PACKETS) >> 2]) > len(time):
                result[FULL] = 1
                continue
            begin = row
            row = _walk_block(
                buffer, halves, words, start, size, rings[ring, LINK_TYPE], rings[ring, OUTGOING],
                begin, time, offset, captured, wire, result,
            )  # fmt: skip
            for k in range(begin, row):
                link_type[k] = rings[ring, LINK_TYPE]
                block[k] = number
                if k > 0 and time[k] < time[k - 1]:
                    result[UNSORTED] = 1
            if row > begin:
                rings[ring, LATEST] = time[row - 1]
            remaining[number] = row - begin
            rings[ring, CURSOR] = (cursor + 1) % rings[ring, BLOCKS]
            busy = True
    result[ROWS] = row


@njit(cache=True, nogil=True)
def count_off(block: Int32, remaining: Int32) -> None:
    """Take rows off their blocks' counts."""
    for row in range(len(block)):
        remaining[block[row]] -= 1


@njit(cache=True, nogil=True)
def give_back(words: UInt32, rings: Int64, remaining: Int32) -> None:
    """Give blocks of which no row is left to the Linux kernel."""
    fence()
    for ring in range(len(rings)):
        first = rings[ring, FIRST_BLOCK]
        for cursor in range(rings[ring, BLOCKS]):
            if remaining[first + cursor] == 0:
                remaining[first + cursor] = -1
                words[(rings[ring, BASE] + cursor * rings[ring, BLOCK_SIZE] + _STATUS) >> 2] = 0
