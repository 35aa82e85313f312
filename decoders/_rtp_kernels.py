"""Kernels that stage RTP packets: header, flow look-up, copy into the window. See `decoders.rtp` for the columns."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture.batch import Bytes, Int32, Int64, UInt8, UInt16, UInt32, UInt64
from decoders._demux_kernels import RTP

Int8 = NDArray[np.int8]
Flags = NDArray[np.bool_]

STOP_END = 0
"""Every row was taken."""
STOP_TIME = 1
"""The row reached is of the next window."""
STOP_FULL = 2
"""The window or the flow table has no room for the row reached."""

COUNT_STAGED = 0
COUNT_ARENA = 1
COUNT_FREE = 2
COUNT_FLOWS = 3
COUNT_REFUSED = 4
COUNT_REFUSING = 5
COUNTS = 6

IGNORED = -1
"""Flow state: what comes is not staged."""


@njit(cache=True, nogil=True, inline="always")
def _hash(a: int, b: int, c: int, d: int, ports: UInt32, ssrc: int, realm: int) -> int:
    """Mix of a flow's key, well spread in the low bits."""
    h = (a ^ (b * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    h ^= (c ^ (d * np.uint64(0xC2B2AE3D27D4EB4F))) * np.uint64(0x94D049BB133111EB)
    h ^= ((np.uint64(ports) << np.uint64(32)) | np.uint64(ssrc)) * np.uint64(0xD6E8FEB86659FD93)
    h += np.uint64(realm) * np.uint64(0xA0761D6478BD642F)
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xE7037ED1A0B428DB)
    return h ^ (h >> np.uint64(29))


@njit(cache=True, nogil=True)
def stage(
    buffer: Bytes,
    row: int,
    until: int,
    kinds: UInt8,
    times: Int64,
    payloads: Int64,
    lengths: Int32,
    missing: Int32,
    source_high: UInt64,
    source_low: UInt64,
    destination_high: UInt64,
    destination_low: UInt64,
    source_port: UInt16,
    destination_port: UInt16,
    realms: UInt32,
    numbers: Int64,
    captures: Int32,
    slots: Int32,
    addresses: UInt64,
    ports: UInt32,
    ssrcs: UInt32,
    flow_realms: UInt32,
    states: Int8,
    firsts: Int64,
    lasts: Int64,
    packets: Int64,
    free: Int32,
    w_flow: Int32,
    w_time: Int64,
    w_stamp: UInt32,
    w_sequence: UInt16,
    w_type: UInt8,
    w_offset: Int64,
    w_header: Int32,
    w_size: Int32,
    w_whole: Int32,
    w_missing: Int32,
    w_number: Int64,
    w_capture: Int32,
    arena: Bytes,
    counts: Int64,
) -> tuple[int, int]:
    """Stage RTP rows from `row` on; gives (row reached, why it stopped)."""
    mask = np.uint64(slots.shape[0] - 1)
    n = counts[COUNT_STAGED]
    used = counts[COUNT_ARENA]
    limit = w_flow.shape[0]
    room = arena.shape[0] - 65536
    stop = STOP_END
    while row < kinds.shape[0]:
        if times[row] >= until:
            stop = STOP_TIME
            break
        if kinds[row] != RTP:
            row += 1
            continue
        if n >= limit or used > room:
            stop = STOP_FULL
            break
        p = payloads[row]
        size = np.int64(lengths[row])
        first = buffer[p]
        header = np.int64(12 + 4 * (first & 15))
        if first & 0x10:
            header += 4 + 4 * (np.int64(buffer[p + header + 2]) << 8 | np.int64(buffer[p + header + 3]))
        body = size - header
        if first & 0x20 and missing[row] == 0:
            body -= np.int64(buffer[p + size - 1])
        ssrc = (
            np.uint32(buffer[p + 8]) << 24
            | np.uint32(buffer[p + 9]) << 16
            | np.uint32(buffer[p + 10]) << 8
            | np.uint32(buffer[p + 11])
        )
        a = source_high[row]
        b = source_low[row]
        c = destination_high[row]
        d = destination_low[row]
        both = np.uint32(source_port[row]) << 16 | np.uint32(destination_port[row])
        realm = realms[row]
        j = _hash(a, b, c, d, both, ssrc, realm) & mask
        flow = np.int32(-1)
        while True:
            flow = slots[j]
            if flow == -1:
                break
            if (
                flow >= 0
                and ssrcs[flow] == ssrc
                and ports[flow] == both
                and addresses[flow, 1] == b
                and addresses[flow, 3] == d
                and addresses[flow, 0] == a
                and addresses[flow, 2] == c
                and flow_realms[flow] == realm
            ):
                break
            j = (j + np.uint64(1)) & mask
        if flow == -1:
            if counts[COUNT_FREE] == 0 and counts[COUNT_REFUSING] != 0:
                counts[COUNT_REFUSED] += 1
                row += 1
                continue
            if counts[COUNT_FREE] == 0:
                stop = STOP_FULL
                break
            counts[COUNT_FREE] -= 1
            flow = free[counts[COUNT_FREE]]
            slots[j] = flow
            addresses[flow, 0] = a
            addresses[flow, 1] = b
            addresses[flow, 2] = c
            addresses[flow, 3] = d
            ports[flow] = both
            ssrcs[flow] = ssrc
            flow_realms[flow] = realm
            states[flow] = 0
            firsts[flow] = times[row]
            packets[flow] = 0
            counts[COUNT_FLOWS] += 1
        lasts[flow] = times[row]
        packets[flow] += 1
        if states[flow] == IGNORED:
            row += 1
            continue
        w_flow[n] = flow
        w_time[n] = times[row]
        w_sequence[n] = np.uint16(buffer[p + 2]) << 8 | np.uint16(buffer[p + 3])
        w_stamp[n] = (
            np.uint32(buffer[p + 4]) << 24
            | np.uint32(buffer[p + 5]) << 16
            | np.uint32(buffer[p + 6]) << 8
            | np.uint32(buffer[p + 7])
        )
        w_type[n] = buffer[p + 1]
        w_offset[n] = used
        w_header[n] = header
        w_size[n] = max(body, 0)
        w_whole[n] = size
        w_missing[n] = missing[row]
        w_number[n] = numbers[row]
        w_capture[n] = captures[row]
        # Through views: an index that counts from 0 lets the copy be vectorised.
        target = arena[used : used + size]
        origin = buffer[p : p + size]
        for k in range(size):
            target[k] = origin[k]
        used += size
        n += 1
        row += 1
    counts[COUNT_STAGED] = n
    counts[COUNT_ARENA] = used
    return row, stop


@njit(cache=True, nogil=True)
def group_by_flow(w_flow: Int32, n: int, starts: Int64, order: Int32) -> None:
    """Counting sort: `order[starts[f]:starts[f + 1]]` are the staged packets of flow f in order of arrival."""
    starts[:] = 0
    for i in range(n):
        starts[w_flow[i] + 2] += 1
    for f in range(2, starts.shape[0]):
        starts[f] += starts[f - 1]
    for i in range(n):
        f = w_flow[i] + 1
        order[starts[f]] = i
        starts[f] += 1


@njit(cache=True, nogil=True)
def rebuild(slots: Int32, addresses: UInt64, ports: UInt32, ssrcs: UInt32, realms: UInt32, live: Flags) -> None:
    """Enter every live flow into an emptied slot table."""
    mask = np.uint64(slots.shape[0] - 1)
    slots[:] = -1
    for f in range(live.shape[0]):
        if live[f]:
            j = _hash(addresses[f, 0], addresses[f, 1], addresses[f, 2], addresses[f, 3], ports[f], ssrcs[f], realms[f])
            j &= mask
            while slots[j] != -1:
                j = (j + np.uint64(1)) & mask
            slots[j] = f


@njit(cache=True, nogil=True)
def carry(
    keep: Flags,
    n: int,
    w_flow: Int32,
    w_time: Int64,
    w_stamp: UInt32,
    w_sequence: UInt16,
    w_type: UInt8,
    w_offset: Int64,
    w_header: Int32,
    w_size: Int32,
    w_whole: Int32,
    w_missing: Int32,
    w_number: Int64,
    w_capture: Int32,
    arena: Bytes,
) -> tuple[int, int]:
    """Move the staged packets marked in `keep` to the front of the window; gives (packets, octets) there."""
    m = 0
    used = np.int64(0)
    for i in range(n):
        if not keep[i]:
            continue
        begin = w_offset[i]
        size = w_whole[i]
        w_flow[m] = w_flow[i]
        w_time[m] = w_time[i]
        w_stamp[m] = w_stamp[i]
        w_sequence[m] = w_sequence[i]
        w_type[m] = w_type[i]
        w_offset[m] = used
        w_header[m] = w_header[i]
        w_size[m] = w_size[i]
        w_whole[m] = size
        w_missing[m] = w_missing[i]
        w_number[m] = w_number[i]
        w_capture[m] = w_capture[i]
        if begin != used:
            target = arena[used : used + size]
            origin = arena[begin : begin + size]
            for k in range(size):
                target[k] = origin[k]
        used += size
        m += 1
    return m, used
