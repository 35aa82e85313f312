"""The kernels that Python calls for every batch: rows of datagrams in, packets to recording servers out.

In: the columns of a `DatagramBatch` and the tables. Out: datagrams sent; flows that are new, in `fresh`; packets to be
decrypted, in `sealed`; packets to be encrypted, in `outgoing`. A packet that is not (yet) its source's own way waits in
its flow's chain. Each kernel that Python calls takes the lock of the tables itself, for one packet at a time. They wait
for nothing else, never allocate or raise, and never read outside a datagram.
"""

import numpy as np
from numba import njit

from capture._octets_at import be16, be32, be64, copy, octet
from capture.batch import KIND_UDP, Bytes, Int32, Int64, UInt8, UInt16, UInt32, UInt64
from recorder.siprec._flow_kernels import FIRST_FACTOR, SECOND_FACTOR, SHIFT, find_flow
from recorder.siprec._forward_columns import (
    ACTIVE,
    AT,
    BEGAN,
    CUT,
    DESTINATION_HIGH,
    DESTINATION_LOW,
    FIRST_SEEN,
    FLOW_LOST,
    FLOW_LOST_AT,
    FLOW_TAIL,
    FORMAT,
    GONE_AT,
    HEAD,
    LAST_SEEN,
    LEGS,
    LINK_FLOW,
    LINK_SOURCE,
    LINKS,
    LIVE,
    MODE,
    NEXT_ENTRY,
    NEXT_LEG,
    NEXT_LINK,
    NUMBER,
    OLDEST,
    OUT_TIME,
    PASSED,
    PORTS_SSRC,
    REALM,
    ROOM,
    SEALED,
    SEALED_AT,
    SEALED_COUNT,
    SEQUENCE,
    SEQUENCE_OFFSET,
    SINCE,
    SIZE,
    SKIP,
    SOURCE_HIGH,
    SOURCE_LOW,
    STAMP,
    STAMP_OFFSET,
    STARTED,
    STATE,
    TIME,
    TYPE,
    UNSENT,
    Tables,
)
from recorder.siprec._history_kernels import head_of, keep, lost_since, note_flow_lost, row_of, set_head
from recorder.siprec._leg_kernels import send_entry
from recorder.siprec._numbering_kernels import may_take_over, number_packet, take_over
from recorder.siprec._table_lock import hold, let_go

LOOKS_LIKE_RTP = (53, 137)
"""Ports of DNS and NetBIOS names: one identifier in four makes a message of these look like RTP."""


@njit(cache=True, nogil=True, forceinline=True)
def header_size(buffer: Bytes, at: int, size: int) -> int:
    """Octets of an RTP header with contributing sources and extension; -1 where it is none or not all there.

    RFC 3550, appendix A.1, and RFC 5761, section 4, which tells RTP from RTCP.
    """
    if size < 12:
        return -1
    first = octet(buffer, at)
    second = octet(buffer, at + 1)
    if first >> 6 != 2 or 192 <= second <= 223:
        return -1
    header = 12 + 4 * (first & 15)
    if first & 0x10:
        if header + 4 > size:
            return -1
        header += 4 + 4 * be16(buffer, at + header + 2)
    return header if header <= size else -1


@njit(cache=True, nogil=True, forceinline=True)
def digest_of(buffer: Bytes, at: int, size: int) -> int:
    """Hash of a payload."""
    key = np.uint64(size)
    place = 0
    while place + 8 <= size:
        key = (key ^ be64(buffer, at + place)) * FIRST_FACTOR
        key = key ^ (key >> SHIFT)
        place += 8
    while place < size:
        key = (key ^ np.uint64(octet(buffer, at + place))) * SECOND_FACTOR
        place += 1
    return int(np.int64(key ^ (key >> SHIFT)))


@njit(cache=True, nogil=True)
def _admit_active(tables: Tables, link: int, buffer: Bytes, at: int, size: int, time: int) -> None:
    """Take a packet of the active flow into its source's stream, and send it to every leg that is live."""
    header = header_size(buffer, at, size)
    if header < 0:
        return
    end = size
    if octet(buffer, at) & 0x20:
        padding = octet(buffer, at + size - 1)
        if padding == 0 or header + padding > size:
            return
        end -= padding
    number = tables.links[link, LINK_SOURCE]
    kind = octet(buffer, at + 1)
    form = np.int64(tables.link_formats[link, kind & 0x7F])
    sequence, stamp = be16(buffer, at + 2), be32(buffer, at + 4)
    digest = digest_of(buffer, at + header, end - header)
    rate = np.int64(tables.rates[number, form])
    if not number_packet(tables, number, sequence, stamp, rate, digest, time):
        return
    source = tables.sources[number]
    if source[BEGAN] == 0:
        source[BEGAN] = time
    entry = keep(tables, -1 - number, buffer, at + header, end - header, time)
    row = tables.entries[row_of(tables, entry)]
    row[SEQUENCE] = (sequence + source[SEQUENCE_OFFSET]) & 0xFFFF
    row[STAMP] = (stamp + source[STAMP_OFFSET]) & 0xFFFFFFFF
    row[TYPE], row[FORMAT] = kind, form
    leg = source[LEGS]
    while leg >= 0:
        if tables.legs[leg, MODE] == LIVE:
            send_entry(tables, leg, entry)
        leg = tables.legs[leg, NEXT_LEG]


@njit(cache=True, nogil=True)
def _replay(tables: Tables, link: int, after: int) -> None:
    """Take in what waits in the chain of a link's flow and came later than `after`."""
    flow = tables.links[link, LINK_FLOW]
    scratch = tables.counts[ROOM]
    before, done = tables.flows[flow, FLOW_LOST], 0
    entry = head_of(tables, flow)
    while entry >= 0:
        row = tables.entries[row_of(tables, entry)]
        size, time, following = row[SIZE], row[TIME], row[NEXT_ENTRY]
        if time > after:
            # A copy, because room for it may be made of where it stands.
            copy(tables.arena, scratch, tables.history, row[AT], size)
            _admit_active(tables, link, tables.history, scratch, size, time)
        done += 1
        gone = tables.flows[flow, FLOW_LOST] - before
        entry = following
        if 0 <= following < tables.counts[OLDEST]:
            # What goes first is what has been taken in; the rest of it is lost.
            _count_gone(tables, link, gone - done, time, tables.flows[flow, FLOW_LOST_AT])
            done = gone
            entry = head_of(tables, flow)


@njit(cache=True, nogil=True)
def _count_gone(tables: Tables, link: int, count: int, first: int, last: int) -> None:
    """Packets of a flow that came from `first` to `last` were lost before its source could take them: they count as
    taken, and nobody has them."""
    if count <= 0:
        return
    source = tables.sources[tables.links[link, LINK_SOURCE]]
    if source[BEGAN] == 0:
        source[BEGAN] = first
    if source[HEAD] < tables.counts[OLDEST]:
        source[GONE_AT] = last
    source[NUMBER] += count
    leg = source[LEGS]
    while leg >= 0:
        # Those that wait see it by the numbers.
        if tables.legs[leg, MODE] == LIVE:
            tables.legs[leg, UNSENT] += lost_since(count, first, last, tables.legs[leg, SINCE])
        leg = tables.legs[leg, NEXT_LEG]


@njit(cache=True, nogil=True)
def _count_flow_lost(tables: Tables, link: int) -> None:
    """Count what a link's flow has lost since its source had its newest packet."""
    source = tables.sources[tables.links[link, LINK_SOURCE]]
    flow = tables.flows[tables.links[link, LINK_FLOW]]
    known = max(source[OUT_TIME] if source[STARTED] else 0, source[GONE_AT])
    first, last = flow[FIRST_SEEN], flow[FLOW_LOST_AT]
    _count_gone(tables, link, lost_since(flow[FLOW_LOST], first, last, known + 1), max(first, known + 1), last)


@njit(cache=True, nogil=True)
def _admit(tables: Tables, link: int, buffer: Bytes, at: int, size: int, time: int) -> bool:
    """Take a packet into its source's stream; False where its flow is not the one that is forwarded."""
    source = tables.sources[tables.links[link, LINK_SOURCE]]
    if source[ACTIVE] != link:
        if not may_take_over(tables, link, time):
            return False
        _begin(tables, link, be16(buffer, at + 2))
    _admit_active(tables, link, buffer, at, size, time)
    return True


@njit(cache=True, nogil=True)
def _begin(tables: Tables, link: int, sequence: int) -> None:
    """Make a link the active one and take in what has waited; `sequence` is of the packet that comes after it."""
    source = tables.sources[tables.links[link, LINK_SOURCE]]
    after = source[OUT_TIME] if source[STARTED] else 0
    _count_flow_lost(tables, link)
    take_over(tables, link, sequence)
    _replay(tables, link, after)
    source[SKIP] = 0


@njit(cache=True, nogil=True)
def take_packet(tables: Tables, flow: int, buffer: Bytes, at: int, size: int, time: int) -> None:
    """Give a packet to each source of its flow; where one does not take it, or there is none, it waits."""
    link = tables.flows[flow, LINKS]
    waits = link < 0
    while link >= 0:
        if not _admit(tables, link, buffer, at, size, time):
            waits = True
        link = tables.links[link, NEXT_LINK]
    if waits:
        keep(tables, flow, buffer, at, size, time)


@njit(cache=True, nogil=True)
def adopt(tables: Tables, link: int) -> None:
    """A link is new: take in what its flow has waiting, if its turn has come, and count what it has lost."""
    hold(tables.counts)
    _adopt(tables, link)
    let_go(tables.counts)


@njit(cache=True, nogil=True)
def _adopt(tables: Tables, link: int) -> None:
    flow = tables.links[link, LINK_FLOW]
    head = head_of(tables, flow)
    active = tables.sources[tables.links[link, LINK_SOURCE], ACTIVE]
    if head < 0 and active < 0:
        _count_flow_lost(tables, link)
    if head < 0 or active == link:
        return
    tail = tables.flows[flow, FLOW_TAIL]
    last = tables.entries[row_of(tables, tail), TIME]
    if may_take_over(tables, link, last):
        row = tables.entries[row_of(tables, head)]
        _begin(tables, link, be16(tables.history, row[AT] + 2))


@njit(cache=True, nogil=True)
def count_lost_flow(tables: Tables, link: int) -> None:
    """A link is new, and what its flow had waiting has been taken in: count what is lost, where none of it has come."""
    hold(tables.counts)
    if tables.sources[tables.links[link, LINK_SOURCE], ACTIVE] < 0:
        _count_flow_lost(tables, link)
    let_go(tables.counts)


@njit(cache=True, nogil=True)
def abandon(tables: Tables, flow: int) -> None:
    """Forget what a flow has waiting."""
    hold(tables.counts)
    entry = head_of(tables, flow)
    while entry >= 0:
        row = tables.entries[row_of(tables, entry)]
        note_flow_lost(tables, flow, row[TIME])
        entry = row[NEXT_ENTRY]
    set_head(tables, flow, -1)
    let_go(tables.counts)


@njit(cache=True, nogil=True)
def take_packets(tables: Tables, flow: int, buffer: Bytes, at: Int64, size: Int64, time: Int64) -> None:
    """Give plain packets to the sources of one flow."""
    for k in range(len(at)):
        if header_size(buffer, at[k], size[k]) >= 0:
            hold(tables.counts)
            take_packet(tables, flow, buffer, at[k], size[k], time[k])
            let_go(tables.counts)


@njit(cache=True, nogil=True)
def _count_lost(tables: Tables, flow: int) -> None:
    """No leg of a packet's flow gets it."""
    link = tables.flows[flow, LINKS]
    while link >= 0:
        source = tables.sources[tables.links[link, LINK_SOURCE]]
        leg = source[LEGS] if source[ACTIVE] == link else -1
        while leg >= 0:
            tables.legs[leg, UNSENT] += 1
            leg = tables.legs[leg, NEXT_LEG]
        link = tables.links[link, NEXT_LINK]


@njit(cache=True, nogil=True)
def _set_aside(tables: Tables, flow: int, buffer: Bytes, at: int, size: int, time: int) -> None:
    """Keep an encrypted packet for the thread that decrypts it; with no room for it, it is lost."""
    counts = tables.counts
    count, begin = counts[SEALED_COUNT], counts[SEALED_AT]
    if count == len(tables.sealed) or begin + size > len(tables.sealed_octets):
        _count_lost(tables, flow)
        return
    copy(tables.sealed_octets, begin, buffer, at, size)
    row = tables.sealed[count]
    row[0], row[1], row[2], row[3] = flow, begin, size, time
    counts[SEALED_COUNT], counts[SEALED_AT] = count + 1, begin + size


@njit(cache=True, nogil=True)
def _forward(tables: Tables, flow: int, buffer: Bytes, at: int, size: int, time: int, cut: bool) -> None:
    """Forward one packet of a flow; `cut`: it is not all there."""
    tables.flows[flow, LAST_SEEN] = time
    state = tables.flows[flow, STATE]
    if state == PASSED:
        note_flow_lost(tables, flow, time)
        return
    if cut:
        tables.counts[CUT] += 1
        _count_lost(tables, flow)
    elif state == SEALED:
        _set_aside(tables, flow, buffer, at, size, time)
    else:
        take_packet(tables, flow, buffer, at, size, time)


@njit(cache=True, nogil=True)
def forward_rows(
    tables: Tables,
    wanted: Int64,
    buffer: Bytes,
    kind: UInt8,
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
    time: Int64,
) -> None:
    """Forward a batch. `wanted` is room for the row of a flow."""
    for row in range(len(kind)):
        if kind[row] != KIND_UDP:
            continue
        at, size = payload[row], np.int64(length[row])
        if header_size(buffer, at, size) < 0:
            continue
        ports = np.int64(source_port[row]), np.int64(destination_port[row])
        if ports[0] in LOOKS_LIKE_RTP or ports[1] in LOOKS_LIKE_RTP:
            continue
        wanted[SOURCE_HIGH] = np.int64(source_high[row])
        wanted[SOURCE_LOW] = np.int64(source_low[row])
        wanted[DESTINATION_HIGH] = np.int64(destination_high[row])
        wanted[DESTINATION_LOW] = np.int64(destination_low[row])
        wanted[PORTS_SSRC] = ports[0] << 48 | ports[1] << 32 | be32(buffer, at + 8)
        wanted[REALM] = np.int64(realm[row])
        hold(tables.counts)
        flow = find_flow(tables, wanted, time[row])
        if flow >= 0:
            _forward(tables, flow, buffer, at, size, time[row], missing[row] > 0)
        let_go(tables.counts)
