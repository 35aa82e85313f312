"""Kernels that walk the blocks of a pcapng section into columns and find the next block after damage.

In: a buffer, positions in it, the section's byte order and interfaces as arrays of shape (interfaces,). Out: columns
filled in place, a position and a reason to stop. Section headers and interface descriptions are left to Python.
"""

# ruff: noqa: SIM109  # a chain of comparisons runs twice as fast in a kernel as a search in a tuple

import numpy as np
from numba import njit

from capture._pcap_kernels import FOUND, FULL, MORE, NOTHING, PLAUSIBLE_GAP, SHORT, UNKNOWN, read_u32
from capture._prefetch import LINE, prefetch
from capture.batch import Bytes, Int32, Int64

BAD_BLOCK = 2
"""What stands at the position is no block: its two lengths disagree or cannot be."""
SECTION = 3
"""A section header block begins at the position."""
INTERFACE = 4
"""A sound interface description block begins at the position."""
BAD_PACKET = 5
"""A sound block whose packet is not: longer than the block, or of an interface that was not described."""

SECTION_TYPE = 0x0A0D0D0A
INTERFACE_TYPE = 1
OBSOLETE_PACKET_TYPE = 2
SIMPLE_PACKET_TYPE = 3
ENHANCED_PACKET_TYPE = 6
LAST_STANDARD_TYPE = 10
CUSTOM_TYPE = 0xBAD
CUSTOM_NO_COPY_TYPE = 0x40000BAD
SMALLEST_BLOCK = 12
LARGEST_BLOCK = 16 << 20
"""Wireshark's own limit; a larger block is taken for damage."""

_AHEAD = 4096
_BILLION = np.uint64(1_000_000_000)
_LARGEST_TIME = np.uint64(1 << 62)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@njit(cache=True, nogil=True)
def to_nanoseconds(ticks: np.uint64, exponent: int, binary: int) -> np.int64:
    """Time stamp of 10^-exponent or 2^-exponent s as ns, exact but for rounding down; at most 2^62."""
    if not binary:
        for _ in range(exponent, 9):
            if ticks > _LARGEST_TIME // np.uint64(10):
                return np.int64(_LARGEST_TIME)
            ticks *= np.uint64(10)
        for _ in range(9, exponent):
            ticks //= np.uint64(10)
        return np.int64(min(ticks, _LARGEST_TIME))
    shift = np.uint64(exponent)
    seconds = ticks >> shift if exponent < 64 else np.uint64(0)
    if seconds > _LARGEST_TIME // _BILLION - np.uint64(1):
        return np.int64(_LARGEST_TIME)
    part = ticks - (seconds << shift if exponent < 64 else np.uint64(0))
    if exponent <= 32:
        fraction = part * _BILLION >> shift
    else:
        # part * 10^9 has up to 94 bits: take its upper 62 and shift the rest of the way.
        upper = (part >> _HALF) * _BILLION + ((part & _LOW) * _BILLION >> _HALF)
        fraction = upper >> (shift - _HALF) if exponent < 96 else np.uint64(0)
    return np.int64(seconds * _BILLION + fraction)


@njit(cache=True, nogil=True)
def _block_length(buffer: Bytes, position: int, end: int, big: bool) -> int:
    """Octets of the block at `position`, padding included; 0 where it cannot be one, -1 where `end` comes first."""
    if position + SMALLEST_BLOCK > end:
        return -1
    stated = read_u32(buffer, position + 4, big)
    if stated < SMALLEST_BLOCK or stated > LARGEST_BLOCK:
        return 0
    length = (stated + 3) & ~3
    if position + length > end:
        return -1
    repeated = read_u32(buffer, position + length - 4, big)
    return length if repeated == stated or repeated == length else 0


@njit(cache=True, nogil=True)
def walk_pcapng(
    buffer: Bytes,
    position: int,
    end: int,
    stop: int,
    big: bool,
    interfaces: int,
    link_types: Int64,
    exponents: Int64,
    binary: Int64,
    offsets: Int64,
    snaplens: Int64,
    previous: int,
    time: Int64,
    start: Int64,
    offset: Int64,
    captured: Int32,
    wire: Int32,
    link_type: Int32,
) -> tuple[int, int, int, bool]:
    """Read blocks until the columns are full; (rows, position after them, reason, whether a time jumped).

    `interfaces` counts the described ones; `exponents` and `binary` give their time resolution, `offsets` are in ns.
    Past `stop` the columns count as full.
    """
    count = 0
    jumped = False
    warmed = position
    while count < len(time) and position < stop:
        if position + 4 <= end and read_u32(buffer, position, big) == SECTION_TYPE:
            return count, position, SECTION, jumped
        length = _block_length(buffer, position, end, big)
        if length <= 0:
            return count, position, SHORT if length < 0 else BAD_BLOCK, jumped
        while warmed < position + length + _AHEAD:
            prefetch(buffer, warmed)
            warmed += LINE
        kind = read_u32(buffer, position, big)
        if kind == INTERFACE_TYPE:
            return count, position, INTERFACE, jumped
        if kind == ENHANCED_PACKET_TYPE or kind == OBSOLETE_PACKET_TYPE:
            if length < 32:
                return count, position, BAD_PACKET, jumped
            interface = read_u32(buffer, position + 8, big)
            if kind == OBSOLETE_PACKET_TYPE:
                interface = interface >> 16 if big else interface & 0xFFFF
            size = read_u32(buffer, position + 20, big)
            if interface >= interfaces or size > length - 32:
                return count, position, BAD_PACKET, jumped
            high = np.uint64(read_u32(buffer, position + 12, big))
            ticks = high << _HALF | np.uint64(read_u32(buffer, position + 16, big))
            now = to_nanoseconds(ticks, exponents[interface], binary[interface]) + offsets[interface]
            present = read_u32(buffer, position + 24, big)
            frame = position + 28
        elif kind == SIMPLE_PACKET_TYPE:
            if length < 16 or interfaces == 0:
                return count, position, BAD_PACKET, jumped
            interface = 0
            present = read_u32(buffer, position + 8, big)
            size = min(present, length - 16)
            if snaplens[0] > 0:
                size = min(size, snaplens[0])
            now = previous if previous != UNKNOWN else 0
            frame = position + 12
        else:
            position += length
            continue
        jumped |= previous != UNKNOWN and abs(now - previous) > PLAUSIBLE_GAP
        previous = now
        time[count] = now
        start[count] = position
        offset[count] = frame
        captured[count] = size
        wire[count] = min(max(present, size), 0x7FFFFFFF)
        link_type[count] = link_types[interface]
        count += 1
        position += length
    return count, position, FULL, jumped


@njit(cache=True, nogil=True)
def _may_begin_block(kind: int) -> bool:
    if 1 <= kind <= LAST_STANDARD_TYPE:
        return True
    return kind == CUSTOM_TYPE or kind == CUSTOM_NO_COPY_TYPE or kind == SECTION_TYPE


@njit(cache=True, nogil=True)
def _block_holds(buffer: Bytes, position: int, end: int, final: bool, big: bool, interfaces: int) -> int:
    """Whether a block of a known type stands at `position` and a block or the end behind it: FOUND, MORE, NOTHING."""
    for link in range(2):
        if position == end and final and link > 0:
            return FOUND
        if position + SMALLEST_BLOCK > end:
            if not final:
                return MORE
            return FOUND if link > 0 else NOTHING
        order = big
        if read_u32(buffer, position, False) == SECTION_TYPE:
            if read_u32(buffer, position + 8, False) == 0x1A2B3C4D:
                order = False
            elif read_u32(buffer, position + 8, True) == 0x1A2B3C4D:
                order = True
            else:
                return NOTHING
        elif link == 0 and not _may_begin_block(read_u32(buffer, position, order)):
            return NOTHING
        length = _block_length(buffer, position, end, order)
        if length == 0:
            return NOTHING
        if length < 0:
            if not final:
                return MORE
            return FOUND if link > 0 else NOTHING
        if link == 0 and read_u32(buffer, position, order) == ENHANCED_PACKET_TYPE and length >= 32:
            # A packet that fits its block to the octet needs no second witness.
            padded = (read_u32(buffer, position + 20, order) + 3) & ~3
            if read_u32(buffer, position + 8, order) < interfaces and padded == length - 32:
                return FOUND
        position += length
        big = order
    return FOUND


@njit(cache=True, nogil=True)
def find_pcapng(
    buffer: Bytes, position: int, stop: int, end: int, final: bool, big: bool, interfaces: int
) -> tuple[int, int]:
    """First place in [position, stop) where a sound block begins: (place, FOUND | MORE | NOTHING).

    With MORE the place is the first that cannot be judged yet; all before it are none.
    """
    while position < stop:
        # Most places fall at the first look at a type.
        if position + 4 > end or _may_begin_block(read_u32(buffer, position, big)):
            state = _block_holds(buffer, position, end, final, big, interfaces)
            if state != NOTHING:
                return position, state
        position += 1
    return position, NOTHING
