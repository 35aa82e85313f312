"""Kernel of media identity: marks of payloads, chosen by their content. See `recorder.identity` for their use."""

import numpy as np
from numba import njit

from capture._prefetch import LINE, prefetch
from capture.batch import Bytes, Int32, Int64, UInt64
from decoders._rtp_kernels import Packets

SHORTEST = 16
"""Octets; shorter payloads (events, comfort noise) say too little."""
STRIDE = 4
"""Every so many octets one is looked at in a payload long enough."""
ONE_IN = 16
"""Of so many payloads one is chosen, by its content, so that two sightings choose the same ones."""
AHEAD = 4
"""Packets for whose payloads the processor is asked to fetch ahead, and half of those whose place is asked for."""


@njit(cache=True, nogil=True)
def mark_payloads(
    flows: Int32,
    starts: Int64,
    order: Int32,
    packets: Packets,
    arena: Bytes,
    until: Int64,
    looked_at: Int32,
    most: int,
    out_flow: Int32,
    out_mark: UInt64,
    out_time: Int64,
) -> int:
    """Mark the chosen payloads of each flow's packets; gives how many marks there are.

    Flow f has the packets order[starts[f]:starts[f + 1]] in order of arrival. `until[f]` is the time of the last packet
    taken before and `looked_at[f]` how many were, of which there may be `most`; both are moved on. The mark is FNV-1a
    of octets spread over the payload. Silence and steady levels, which are alike everywhere, are never chosen.
    """
    count = 0
    for x in range(flows.shape[0]):
        f = flows[x]
        before = until[f]
        for i in range(starts[f], starts[f + 1]):
            # Packets of one flow lie far apart.
            if i + 2 * AHEAD < order.shape[0]:
                prefetch(packets, order[i + 2 * AHEAD])
                coming = packets[order[i + AHEAD]]["offset"]
                for line in range(3):
                    prefetch(arena, coming + LINE * line)
            packet = packets[order[i]]
            if packet["time"] <= before:
                continue
            if looked_at[f] >= most or count == out_mark.shape[0]:
                break
            looked_at[f] += 1
            until[f] = packet["time"]
            length = np.int64(packet["size"])
            if length < SHORTEST:
                continue
            begin = packet["offset"] + packet["header"]
            step = STRIDE if length >= SHORTEST * STRIDE else 1
            mark = np.uint64(0xCBF29CE484222325)
            changes = 0
            previous = arena[begin]
            for k in range(begin, begin + length, step):
                changes += arena[k] != previous
                previous = arena[k]
                mark = (mark ^ np.uint64(previous)) * np.uint64(0x100000001B3)
            mixed = mark ^ (mark >> np.uint64(29))
            if changes * step * 4 < length or mixed % np.uint64(ONE_IN) != 0:
                continue
            out_flow[count] = f
            out_mark[count] = mark
            out_time[count] = packet["time"]
            count += 1
    return count
