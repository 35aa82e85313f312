"""Kernel that writes a slot's frames, one behind the other.

In: the streams' headers and numbers, encoded speech, signalling, and which slot it is. Out: frames with all lengths and
checksums right, and where each stands.
"""

import numpy as np
from numba import njit

PACKET_NS = 20_000_000
FRAME = 160
HEADERS = 54
"""Ethernet 14, IPv4 20, UDP 8, RTP 12."""


@njit(cache=True, nogil=True)
def fold(total: int) -> int:
    """Ones' complement of a sum of 16-bit words (RFC 1071)."""
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


@njit(cache=True, nogil=True)
def _put16(frames, at, value):
    frames[at] = value >> 8 & 0xFF
    frames[at + 1] = value & 0xFF


@njit(cache=True, nogil=True)
def _copy(source, first, target, at, count):
    """Unsigned numbers, so that no index can count from the end: four times as fast."""
    first, at = np.uint64(first), np.uint64(at)
    for k in range(np.uint64(count)):
        target[at + k] = source[first + k]


@njit(cache=True, nogil=True)
def _write_rtp(frames, at, headers, ip_sum, udp_sum, ident, index, sequence, timestamp, bank, even, odd, offset):
    """One RTP packet: the stream's headers, its numbers, speech from `offset` on."""
    _copy(headers, 0, frames, at, HEADERS)
    _copy(bank, offset, frames, at + HEADERS, FRAME)
    sequence &= 0xFFFF
    timestamp &= 0xFFFFFFFF
    _put16(frames, at + 18, ident)
    _put16(frames, at + 24, fold(ip_sum + ident))
    if index == 0:
        frames[at + 43] |= 0x80
        udp_sum += 0x80
    _put16(frames, at + 44, sequence)
    _put16(frames, at + 46, timestamp >> 16)
    _put16(frames, at + 48, timestamp)
    high = np.int64(even[offset + FRAME] - even[offset])
    low = np.int64(odd[offset + FRAME] - odd[offset])
    if offset & 1 == 1:
        high, low = low, high
    check = fold(udp_sum + sequence + (timestamp >> 16) + (timestamp & 0xFFFF) + (high << 8) + low)
    _put16(frames, at + 40, check if check != 0 else 0xFFFF)


@njit(cache=True, nogil=True)
def fill_slot(
    frames, vectors, address, begin, end, streams, start, packets, headers, sums, sequence, timestamp, offset,
    bank, even, odd, messages, message_at,
):  # fmt: skip
    """Write the frames of [begin, end) ns: signalling, then RTP; gives how many.

    `vectors` has shape (n, 2): each frame's address, counted from that of `frames`, and length. `streams` are those
    that may have a packet in the slot; `messages[message_at[i]:message_at[i + 1]]` are the slot's messages.
    """
    count = 0
    at = 0
    for k in range(len(message_at) - 1):
        size = message_at[k + 1] - message_at[k]
        _copy(messages, message_at[k], frames, at, size)
        vectors[count, 0], vectors[count, 1] = address + at, size
        at += size
        count += 1
    for s in streams:
        index = (end - 1 - start[s]) // PACKET_NS
        if index < 0 or index >= packets or start[s] + index * PACKET_NS < begin:
            continue
        where = (offset[s] + index * FRAME) % (len(bank) - FRAME)
        _write_rtp(
            frames, at, headers[s], sums[0, s], sums[1, s], (index + s * 7919) & 0xFFFF, index,
            sequence[s] + index, timestamp[s] + index * FRAME, bank, even, odd, where,
        )  # fmt: skip
        vectors[count, 0], vectors[count, 1] = address + at, HEADERS + FRAME
        at += HEADERS + FRAME
        count += 1
    return count
