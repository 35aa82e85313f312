"""Kernels that stage RTP packets: header, flow look-up, copy into the window. See `decoders.rtp` for the columns."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture._octets_at import be16, be32, copy, octet
from capture._prefetch import LINE, prefetch
from capture.batch import Bytes, Int32, Int64, UInt8, UInt16, UInt32, UInt64
from decoders._demux_kernels import RTP

Int8 = NDArray[np.int8]
Flags = NDArray[np.bool_]
Packets = NDArray[np.void]

PACKET = np.dtype(
    [
        ("time", np.int64),
        ("offset", np.int64),
        ("number", np.int64),
        ("stamp", np.uint32),
        ("header", np.int32),
        ("size", np.int32),
        ("whole", np.int32),
        ("missing", np.int32),
        ("capture", np.int32),
        ("sequence", np.uint16),
        ("type", np.uint8),
        ("unused", np.uint8, 13),
    ]
)
"""A staged packet, see `decoders.rtp.Window`. It fills one line of the processor's cache: packets are written in order
of arrival and read by flow, and every column of its own would be one more line to fetch."""

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


SOURCE_HIGH, SOURCE_LOW, DESTINATION_HIGH, DESTINATION_LOW, PORTS_SSRC, REALM, LAST, PACKETS, FLOW = range(9)
"""Columns of a flow, which together fill one line of the processor's cache; FLOW is their number."""
AHEAD = 16
"""Rows whose packets the processor is asked to fetch ahead; ..."""
SLOT_AHEAD = 8
"""... then what the table of slots has for them, ..."""
FLOW_AHEAD = 4
"""... then their flows: each is found by the one before."""


@njit(nogil=True, inline="always")
def _hash(a: int, b: int, c: int, d: int, ports_ssrc: int, realm: int) -> int:
    """Mix of a flow's key, well spread in the low bits."""
    h = (a ^ (b * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    h ^= (c ^ (d * np.uint64(0xC2B2AE3D27D4EB4F))) * np.uint64(0x94D049BB133111EB)
    h ^= ports_ssrc * np.uint64(0xD6E8FEB86659FD93)
    h += realm * np.uint64(0xA0761D6478BD642F)
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xE7037ED1A0B428DB)
    return h ^ (h >> np.uint64(29))


@njit(nogil=True, inline="always")
def _ports_ssrc(source: int, destination: int, ssrc: int) -> np.uint64:
    return np.uint64(source) << np.uint64(48) | np.uint64(destination) << np.uint64(32) | np.uint64(ssrc)


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
    flows: UInt64,
    states: Int8,
    firsts: Int64,
    free: Int32,
    w_flow: Int32,
    packets: Packets,
    arena: Bytes,
    counts: Int64,
) -> tuple[int, int]:
    """Stage RTP rows from `row` on; gives (row reached, why it stopped)."""
    mask = np.uint64(slots.shape[0] - 1)
    coming = np.zeros(2 * SLOT_AHEAD, np.uint64)
    n = counts[COUNT_STAGED]
    used = counts[COUNT_ARENA]
    limit = w_flow.shape[0]
    room = arena.shape[0] - 65536
    stop = STOP_END
    while row < kinds.shape[0]:
        if row + AHEAD < kinds.shape[0]:
            for line in range(3):
                prefetch(buffer, payloads[row + AHEAD] + LINE * line)
            k = row + SLOT_AHEAD
            if kinds[k] == RTP:
                ports_ssrc = _ports_ssrc(source_port[k], destination_port[k], be32(buffer, payloads[k] + 8))
                place = mask & _hash(
                    source_high[k], source_low[k], destination_high[k], destination_low[k], ports_ssrc,
                    np.uint64(realms[k]),
                )  # fmt: skip
                coming[k % (2 * SLOT_AHEAD)] = place
                prefetch(slots, place)
            expected = slots[coming[(row + FLOW_AHEAD) % (2 * SLOT_AHEAD)]]
            if expected >= 0:
                prefetch(flows, expected * flows.shape[1])
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
        first = octet(buffer, p)
        header = 12 + 4 * (first & 15)
        if first & 0x10:
            header += 4 + (4 * be16(buffer, p + header + 2) if header + 4 <= size else 0)
        body = size - header
        if first & 0x20 and missing[row] == 0:
            body -= octet(buffer, p + size - 1)
        a = source_high[row]
        b = source_low[row]
        c = destination_high[row]
        d = destination_low[row]
        both = _ports_ssrc(source_port[row], destination_port[row], be32(buffer, p + 8))
        realm = np.uint64(realms[row])
        j = _hash(a, b, c, d, both, realm) & mask
        flow = np.int32(-1)
        while True:
            flow = slots[j]
            if flow == -1:
                break
            f = np.uint64(flow)
            if (
                flows[f, PORTS_SSRC] == both
                and flows[f, SOURCE_LOW] == b
                and flows[f, DESTINATION_LOW] == d
                and flows[f, SOURCE_HIGH] == a
                and flows[f, DESTINATION_HIGH] == c
                and flows[f, REALM] == realm
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
            flows[flow, SOURCE_HIGH] = a
            flows[flow, SOURCE_LOW] = b
            flows[flow, DESTINATION_HIGH] = c
            flows[flow, DESTINATION_LOW] = d
            flows[flow, PORTS_SSRC] = both
            flows[flow, REALM] = realm
            flows[flow, PACKETS] = 0
            states[flow] = 0
            firsts[flow] = times[row]
            counts[COUNT_FLOWS] += 1
        f = np.uint64(flow)
        flows[f, LAST] = np.uint64(times[row])
        flows[f, PACKETS] += np.uint64(1)
        if states[f] == IGNORED:
            row += 1
            continue
        w_flow[n] = flow
        packet = packets[n]
        packet["time"] = times[row]
        packet["offset"] = used
        packet["number"] = numbers[row]
        packet["stamp"] = be32(buffer, p + 4)
        packet["header"] = header
        packet["size"] = max(body, 0)
        packet["whole"] = size
        packet["missing"] = missing[row]
        packet["capture"] = captures[row]
        packet["sequence"] = be16(buffer, p + 2)
        packet["type"] = octet(buffer, p + 1)
        copy(arena, used, buffer, p, size)
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
def rebuild(slots: Int32, flows: UInt64, live: Flags) -> None:
    """Enter every live flow into an emptied slot table."""
    mask = np.uint64(slots.shape[0] - 1)
    slots[:] = -1
    for f in range(live.shape[0]):
        if live[f]:
            j = _hash(
                flows[f, SOURCE_HIGH], flows[f, SOURCE_LOW], flows[f, DESTINATION_HIGH], flows[f, DESTINATION_LOW],
                flows[f, PORTS_SSRC], flows[f, REALM],
            )  # fmt: skip
            j &= mask
            while slots[j] != -1:
                j = (j + np.uint64(1)) & mask
            slots[j] = f


@njit(cache=True, nogil=True)
def carry(
    keep: Flags,
    n: int,
    w_flow: Int32,
    packets: Packets,
    arena: Bytes,
) -> tuple[int, int]:
    """Move the staged packets marked in `keep` to the front of the window; gives (packets, octets) there."""
    m = 0
    used = np.int64(0)
    for i in range(n):
        if not keep[i]:
            continue
        begin = packets[i]["offset"]
        size = np.int64(packets[i]["whole"])
        w_flow[m] = w_flow[i]
        packets[m] = packets[i]
        packets[m]["offset"] = used
        if begin != used:
            target = arena[used : used + size]
            origin = arena[begin : begin + size]
            for k in range(size):
                target[k] = origin[k]
        used += size
        m += 1
    return m, used
