"""Frames as pcapng blocks. In: rows of a batch. Out: enhanced packet blocks in one buffer (little-endian)."""

import numpy as np
from numba import njit

from capture.batch import Bytes, Int32, Int64

BLOCK = 32
"""Octets of an enhanced packet block without its frame."""
_ENHANCED_PACKET = 6


@njit(cache=True, nogil=True)
def _put(out: Bytes, at: int, value: int) -> None:
    for k in range(4):
        out[at + k] = (value >> (8 * k)) & 0xFF


@njit(cache=True, nogil=True)
def lay_out(
    buffer: Bytes,
    offset: Int64,
    captured: Int32,
    wire: Int32,
    time: Int64,
    rows: Int64,
    interfaces: Int32,
    begins: Int64,
    out: Bytes,
) -> None:
    """Write frame rows[i] of interface interfaces[i] as a block from octet begins[i] of `out` on."""
    for i in range(len(rows)):
        row = rows[i]
        size = np.int64(captured[row])
        padded = (size + 3) & ~3
        at = begins[i]
        total = np.int64(BLOCK + padded)
        _put(out, at, np.int64(_ENHANCED_PACKET))
        _put(out, at + 4, total)
        _put(out, at + 8, np.int64(interfaces[i]))
        _put(out, at + 12, time[row] >> 32)
        _put(out, at + 16, time[row])
        _put(out, at + 20, size)
        _put(out, at + 24, np.int64(wire[row]))
        at += 28
        first = offset[row]
        for k in range(size):
            out[at + k] = buffer[first + k]
        for k in range(size, padded):
            out[at + k] = 0
        _put(out, at + padded, total)
