"""Kernel of media identity: marks of payloads, chosen by their content. See `recorder.identity` for their use."""

import numpy as np
from numba import njit

from capture.batch import Bytes, Int32, Int64, UInt64

SHORTEST = 16
"""Octets; shorter payloads (events, comfort noise) say too little."""
ONE_IN = 4
"""Of so many payloads one is chosen, by its content, so that two sightings choose the same ones."""


@njit(cache=True, nogil=True)
def mark_payloads(
    order: Int32, offset: Int64, header: Int32, size: Int32, arena: Bytes, marks: UInt64, chosen: Int32
) -> int:
    """Marks of the chosen payloads among the packets order[:], with their places in it; gives how many there are.

    The mark is FNV-1a of the payload. Silence and steady levels, which are alike everywhere, are never chosen.
    """
    count = 0
    for i in range(order.shape[0]):
        p = order[i]
        length = size[p]
        if length < SHORTEST:
            continue
        begin = offset[p] + header[p]
        mark = np.uint64(0xCBF29CE484222325)
        changes = 0
        for k in range(begin, begin + length):
            if k > begin and arena[k] != arena[k - 1]:
                changes += 1
            mark = (mark ^ np.uint64(arena[k])) * np.uint64(0x100000001B3)
        mixed = mark ^ (mark >> np.uint64(29))
        if changes * 4 < length or mixed % np.uint64(ONE_IN) != 0:
            continue
        marks[count] = mark
        chosen[count] = i
        count += 1
    return count
