"""Rows that may belong to calls whose packets are kept. In: columns, and a hash set of places (address and port).

Out: the rows of UDP that come from or go to one of the places. A place is a 64-bit hash, so whoever gets the rows looks
once more; `recorder/live_claims.py` makes the same hash of one endpoint.
"""

import numpy as np
from numba import njit

from capture.batch import KIND_UDP, Int64, UInt8, UInt16, UInt64

SIP, SIP_IGNORED = 1, 2
"""As in `decoders.demux`."""
_HIGH, _LOW = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_PORT, _LAST = np.uint64(0x165667B19E3779F9), np.uint64(0xBF58476D1CE4E5B9)
_FIRST_SHIFT, _SECOND_SHIFT, _ONE, _NOTHING = np.uint64(32), np.uint64(29), np.uint64(1), np.uint64(0)


@njit(cache=True, nogil=True, inline="always")
def _holds(table: UInt64, high: int, low: int, port: int) -> bool:
    key = (high * _HIGH) ^ (low * _LOW) ^ (np.uint64(port) * _PORT)
    key = (key ^ (key >> _FIRST_SHIFT)) * _LAST
    key = (key ^ (key >> _SECOND_SHIFT)) | _ONE
    mask = np.uint64(len(table) - 1)
    at = (key >> _FIRST_SHIFT) & mask
    while table[at] != _NOTHING:
        if table[at] == key:
            return True
        at = (at + _ONE) & mask
    return False


@njit(cache=True, nogil=True)
def find_places(
    kind: UInt8,
    kinds: UInt8,
    source_high: UInt64,
    source_low: UInt64,
    source_port: UInt16,
    destination_high: UInt64,
    destination_low: UInt64,
    destination_port: UInt16,
    table: UInt64,
    out: Int64,
) -> int:
    """Write the rows into `out`, ascending; gives how many. Signalling (by `kinds`, of the demultiplexer) is none."""
    count = 0
    for row in range(len(kind)):
        if kind[row] != KIND_UDP or kinds[row] == SIP or kinds[row] == SIP_IGNORED:
            continue
        if _holds(table, destination_high[row], destination_low[row], destination_port[row]) or _holds(
            table, source_high[row], source_low[row], source_port[row]
        ):
            out[count] = row
            count += 1
    return count


@njit(cache=True, nogil=True)
def enter_places(places: UInt64, table: UInt64) -> None:
    """Put hashes of places into an empty table, whose length is a power of two and at least twice theirs."""
    mask = np.uint64(len(table) - 1)
    for key in places:
        at = (key >> _FIRST_SHIFT) & mask
        while table[at] != _NOTHING:
            at = (at + _ONE) & mask
        table[at] = key
