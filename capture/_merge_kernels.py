"""Kernel that says in which order the packets of several captures follow one another.

In: a table of the next times of each capture, shape (captures, width). Out: for each packet in order, whose it is.
"""

from numba import njit

from capture.batch import Int64

FULL = 0
"""As many packets as were asked for are in order."""
DRAINED = 1
"""A capture's row of times is used up."""
HORIZON = 2
"""The next packet is not before the time from which another capture may have packets."""


@njit(cache=True, nogil=True)
def _sift(heap: Int64, size: int, root: int, times: Int64, cursors: Int64, ranks: Int64) -> None:
    """Restore the heap below `root`: the earliest time on top, the smaller rank first where times are equal."""
    if size == 0:
        return
    slot = heap[root]
    while True:
        child = 2 * root + 1
        if child >= size:
            break
        right = child + 1
        if right < size:
            a, b = heap[child], heap[right]
            time_a, time_b = times[a, cursors[a]], times[b, cursors[b]]
            if time_b < time_a or (time_b == time_a and ranks[b] < ranks[a]):
                child = right
        other = heap[child]
        here, there = times[slot, cursors[slot]], times[other, cursors[other]]
        if here < there or (here == there and ranks[slot] < ranks[other]):
            break
        heap[root] = other
        root = child
    heap[root] = slot


@njit(cache=True, nogil=True)
def _heapify(heap: Int64, times: Int64, counts: Int64, cursors: Int64, ranks: Int64) -> int:
    """Make the heap of all slots that have a packet waiting; its size."""
    size = 0
    for slot in range(len(counts)):
        if cursors[slot] < counts[slot]:
            heap[size] = slot
            size += 1
    for root in range(size // 2 - 1, -1, -1):
        _sift(heap, size, root, times, cursors, ranks)
    return size


@njit(cache=True, nogil=True)
def order_packets(
    times: Int64,
    counts: Int64,
    cursors: Int64,
    ranks: Int64,
    heap: Int64,
    size: int,
    horizon: int,
    horizon_rank: int,
    slots: Int64,
    filled: int,
) -> tuple[int, int, int]:
    """Put captures' packets in order from `slots[filled]` on: (rows filled, why it stopped, size of the heap).

    Rows of `times` never fall. `counts` and `cursors` (moved on) say which part of a row is waiting. Where times are
    equal, the smaller of `ranks` goes first. Packets at or past (`horizon`, `horizon_rank`) are not taken. `heap` and
    `size` go from call to call, -1 where rows were added; the slot that drained is its first, and may be refilled.
    """
    if size < 0:
        size = _heapify(heap, times, counts, cursors, ranks)
    elif size > 0:
        if cursors[heap[0]] == counts[heap[0]]:
            size -= 1
            heap[0] = heap[size]
        _sift(heap, size, 0, times, cursors, ranks)
    while size > 0 and filled < len(slots):
        slot = heap[0]
        now = times[slot, cursors[slot]]
        if now > horizon or (now == horizon and ranks[slot] > horizon_rank):
            return filled, HORIZON, size
        slots[filled] = slot
        filled += 1
        cursors[slot] += 1
        if cursors[slot] == counts[slot]:
            return filled, DRAINED, size
        _sift(heap, size, 0, times, cursors, ranks)
    return filled, FULL, size
