"""Kernels that make one stream of all flows that a direction of a call comes by.

In: a link and the numbers of one packet. Out: whether it belongs into the source's stream, and its numbers there.

The source's sequence numbers are the flow's plus an offset, so that what was lost before the tap stays a gap. When
another flow takes over, sequence numbers go on by one and timestamps by the time between arrivals (RFC 3550, 5.1).
"""

from numba import njit

from capture.batch import Int64
from recorder.siprec._forward_columns import (
    ACTIVE,
    DESTINATION_HIGH,
    DESTINATION_LOW,
    DIGESTS,
    HIGHEST,
    LINK_FLOW,
    LINK_SOURCE,
    OUT_RATE,
    OUT_SEQUENCE,
    OUT_STAMP,
    OUT_TIME,
    PORTS_SSRC,
    REALM,
    RENEW,
    SEEN,
    SEQUENCE_OFFSET,
    SKIP,
    SOURCE_HIGH,
    SOURCE_LOW,
    STAMP_OFFSET,
    STARTED,
    WAS_ACTIVE,
    Tables,
)

SILENCE = 300_000_000
"""ns of silence of a source's flow after which another hop's takes over."""
DROPOUT = 3000
"""Sequence numbers that a flow may skip; beyond, it has begun anew (RFC 3550, appendix A.1)."""
MISORDER = 1000
"""Sequence numbers that a packet may come late; beyond, the flow has begun anew."""
WINDOW = 64
"""Sequence numbers of which it is known whether they came; what is later still is left out."""
REPEATS = 8
"""Packets of a flow that takes over which may be left out because another hop has shown them."""


@njit(cache=True, nogil=True, inline="always")
def ahead_of(one: int, other: int) -> int:
    """How far a sequence number is ahead of another, -32768 to 32767."""
    return ((one - other + 0x8000) & 0xFFFF) - 0x8000


@njit(cache=True, nogil=True)
def _same_ends(tables: Tables, one: int, other: int) -> bool:
    flows = tables.flows
    for column in (SOURCE_HIGH, SOURCE_LOW, DESTINATION_HIGH, DESTINATION_LOW, REALM):
        if flows[one, column] != flows[other, column]:
            return False
    return flows[one, PORTS_SSRC] >> 32 == flows[other, PORTS_SSRC] >> 32


@njit(cache=True, nogil=True)
def may_take_over(tables: Tables, link: int, time: int) -> bool:
    """Whether a link that is not the active one becomes it with a packet at `time`.

    A new SSRC between the same ends does at once, for there the sender has begun anew; all else when the active flow
    has been silent.
    """
    source = tables.sources[tables.links[link, LINK_SOURCE]]
    active = source[ACTIVE]
    if active < 0 or time - source[OUT_TIME] >= SILENCE:
        return True
    if tables.links[link, WAS_ACTIVE]:
        return False
    return _same_ends(tables, tables.links[link, LINK_FLOW], tables.links[active, LINK_FLOW])


@njit(cache=True, nogil=True)
def take_over(tables: Tables, link: int, sequence: int) -> None:
    """Make a link the active one; its next packet has this sequence number."""
    source = tables.sources[tables.links[link, LINK_SOURCE]]
    flow, before = tables.links[link, LINK_FLOW], source[ACTIVE]
    same = False
    if before >= 0:
        other = tables.links[before, LINK_FLOW]
        known = (tables.flows[flow, PORTS_SSRC] ^ tables.flows[other, PORTS_SSRC]) & 0xFFFFFFFF == 0
        # A relay that leaves SSRC and numbers alone shows the same packets: what has been sent tells itself.
        same = known and not _same_ends(tables, flow, other) and abs(ahead_of(sequence, source[HIGHEST])) < WINDOW
    source[ACTIVE] = link
    tables.links[link, WAS_ACTIVE] = 1
    if not same:
        source[RENEW] = 1
        source[SKIP] = REPEATS if source[STARTED] else 0


@njit(cache=True, nogil=True)
def _begin_numbering(source: Int64, sequence: int, stamp: int, time: int) -> None:
    source[RENEW] = 0
    source[HIGHEST], source[SEEN] = sequence, 1
    if not source[STARTED]:
        source[SEQUENCE_OFFSET] = source[STAMP_OFFSET] = 0
        return
    source[SEQUENCE_OFFSET] = (source[OUT_SEQUENCE] + 1 - sequence) & 0xFFFF
    passed = max(time - source[OUT_TIME], 0) * source[OUT_RATE] // 1_000_000_000
    source[STAMP_OFFSET] = (source[OUT_STAMP] + passed - stamp) & 0xFFFFFFFF


@njit(cache=True, nogil=True)
def _is_repeated(tables: Tables, number: int, digest: int) -> bool:
    found = False
    for each in range(DIGESTS):
        found |= tables.digests[number, each] == digest
    return found


@njit(cache=True, nogil=True)
def number_packet(tables: Tables, number: int, sequence: int, stamp: int, rate: int, digest: int, time: int) -> bool:
    """Whether a packet of the active flow goes into the stream of source `number`.

    Then `OUT_SEQUENCE` and the like may have moved, and its own numbers are its sequence number and timestamp plus the
    source's offsets.
    """
    source = tables.sources[number]
    if source[RENEW]:
        if source[SKIP] > 0 and _is_repeated(tables, number, digest):
            source[SKIP] -= 1
            return False
        _begin_numbering(source, sequence, stamp, time)
    else:
        step = ahead_of(sequence, source[HIGHEST])
        if step >= DROPOUT or step <= -MISORDER:
            _begin_numbering(source, sequence, stamp, time)
        elif step > 0:
            source[SEEN] = source[SEEN] << step | 1 if step < WINDOW else 1
            source[HIGHEST] = sequence
        elif step <= -WINDOW or source[SEEN] >> -step & 1:
            return False
        else:
            source[SEEN] |= 1 << -step
            return True
    source[STARTED] = 1
    source[OUT_SEQUENCE] = (sequence + source[SEQUENCE_OFFSET]) & 0xFFFF
    source[OUT_STAMP] = (stamp + source[STAMP_OFFSET]) & 0xFFFFFFFF
    source[OUT_TIME] = time
    if rate > 0:
        source[OUT_RATE] = rate
    tables.digests[number, source[OUT_SEQUENCE] % DIGESTS] = digest
    return True
