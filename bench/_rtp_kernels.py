"""Kernel that makes the packets of a slot ready for sendmmsg: RTP headers, and where their speech stands.

In: columns of streams and which slot it is. Out: structures for the system call. No payload is copied.
"""

from numba import njit

PACKET_NS = 20_000_000
FRAME = 160
HEADER = 12
NAME = 28
"""Octets of a struct sockaddr_in6; a struct sockaddr_in takes the first 16."""


@njit(cache=True, nogil=True)
def _put(headers, row, at, value, octets):
    for k in range(octets):
        headers[row, at + k] = value >> (8 * (octets - 1 - k)) & 0xFF


@njit(cache=True, nogil=True)
def fill_slot(
    headers, vectors, messages, begin, end, streams, start, stop, sequence, timestamp, ssrc, kind, offset, bank_at,
    bank_size, names_at, name_size, sent,
):  # fmt: skip
    """Prepare the packets of [begin, end) ns; gives how many.

    `start` (ns) is when a stream's first packet goes out, less than 0 where it has not begun; `stop` is its number of
    packets. `vectors` has shape (n, 2, 2): address and length of header and payload; `messages` is (n, 8), as struct
    mmsghdr. `sent` counts by stream.
    """
    count = 0
    for s in streams:
        if start[s] < 0:
            continue
        index = (end - 1 - start[s]) // PACKET_NS
        if end <= start[s] or index >= stop[s] or start[s] + index * PACKET_NS < begin:
            continue
        headers[count, 0] = 0x80
        headers[count, 1] = kind | (0x80 if index == 0 else 0)
        _put(headers, count, 2, (sequence[s] + index) & 0xFFFF, 2)
        _put(headers, count, 4, (timestamp[s] + index * FRAME) & 0xFFFFFFFF, 4)
        _put(headers, count, 8, ssrc[s], 4)
        vectors[count, 1, 0] = bank_at + (offset[s] + index * FRAME) % bank_size
        vectors[count, 1, 1] = FRAME
        messages[count, 0] = names_at + s * NAME
        messages[count, 1] = name_size
        sent[s] = index + 1
        count += 1
    return count


@njit(cache=True, nogil=True)
def count_by_delay(time, now, histogram):
    """Count rows by how long ago they came: `histogram[k]` those of k to k + 1 tenths of a ms, the last all above."""
    for k in range(len(time)):
        histogram[min(max((now - time[k]) // 100_000, 0), len(histogram) - 1)] += 1
