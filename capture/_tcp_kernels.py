"""Kernels that keep bulk TCP away from Python: which segments of a batch matter, and a hash set of ignored directions.

The set is open addressing over plain arrays: `keys` (capacity, 5) uint64 (addresses, then realm and ports) and `state`
(capacity,) uint8. The capacity is a power of two and the owner keeps at least half of it empty.
"""

import numpy as np
from numba import njit

from capture._octets_at import be32, octet
from capture.batch import Bytes, Int32, Int64, UInt8, UInt16, UInt32, UInt64

EMPTY = 0
IGNORED = 1
FORGOTTEN = 2
"""Was ignored once; the key stays in its slot."""

FLAG_FIN = 1
FLAG_SYN = 2
FLAG_RST = 4


@njit(cache=True, nogil=True)
def slot_of(keys: UInt64, state: UInt8, key: UInt64) -> int:
    """Slot that holds the key, or the empty one where it would go."""
    mixed = np.uint64(0)
    for k in range(5):
        mixed = (mixed ^ key[k]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    mask = state.shape[0] - 1
    slot = np.int64(mixed & np.uint64(mask))
    while state[slot] != EMPTY:
        same = True
        for k in range(5):
            same = same and keys[slot, k] == key[k]
        if same:
            break
        slot = (slot + 1) & mask
    return slot  # type: ignore[return-value]  # a kernel's int is an int64


@njit(cache=True, nogil=True)
def select_segments(
    buffer: Bytes,
    rows: Int64,
    payload: Int64,
    length: Int32,
    missing: Int32,
    source_high: UInt64,
    source_low: UInt64,
    destination_high: UInt64,
    destination_low: UInt64,
    source_port: UInt16,
    destination_port: UInt16,
    realm: UInt32,
    keys: UInt64,
    state: UInt8,
    chosen: Int64,
) -> int:
    """Rows whose segment carries data, SYN, FIN or RST in a direction that is not ignored; a SYN ends the ignoring.

    Takes columns of a `DatagramBatch` and fills `chosen` (len(rows), 6) with row, sequence number, flags, offset of the
    data in the buffer, captured octets of data and octets of data that were cut off; returns how many.
    """
    count = 0
    key = np.zeros(5, np.uint64)
    for row in rows:
        at = payload[row]
        header = (octet(buffer, at + 12) >> 4) * 4
        data = np.int64(length[row]) - header
        lost = np.int64(missing[row])
        if data < 0:  # options cut off
            lost += data
            data = 0
        flags = octet(buffer, at + 13)
        if header < 20 or lost < 0 or (data + lost == 0 and flags & (FLAG_FIN | FLAG_SYN | FLAG_RST) == 0):
            continue
        key[0] = source_high[row]
        key[1] = source_low[row]
        key[2] = destination_high[row]
        key[3] = destination_low[row]
        ports = np.uint64(source_port[row]) << np.uint64(16) | np.uint64(destination_port[row])
        key[4] = np.uint64(realm[row]) << np.uint64(32) | ports
        slot = slot_of(keys, state, key)
        if state[slot] == IGNORED:
            if flags & FLAG_SYN == 0:
                continue
            state[slot] = FORGOTTEN
        chosen[count, 0] = row
        chosen[count, 1] = be32(buffer, at + 4)
        chosen[count, 2] = flags
        chosen[count, 3] = at + header
        chosen[count, 4] = data
        chosen[count, 5] = lost
        count += 1
    return count
