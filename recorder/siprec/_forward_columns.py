"""The forwarder's memory: tables of 64-bit numbers that its kernels and its thread share.

In: capacities. Out: `Tables`. A flow is RTP on the wire by (source, destination, SSRC, realm); a link is a flow's claim
on one direction of a call; a source is that direction, with one numbering of its own whatever flow it comes by; a leg
sends a source to a server. An entry is a packet in the history: a ring of octets, whose oldest go first. Entries of a
flow that is not forwarded (yet) hold whole packets, those of a source payloads with room for a header before them.
"""

import mmap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.batch import Bytes, Int32, Int64, UInt8

(
    SOURCE_HIGH,
    SOURCE_LOW,
    DESTINATION_HIGH,
    DESTINATION_LOW,
    PORTS_SSRC,
    REALM,
    FIRST_SEEN,
    LAST_SEEN,
    FLOW_HEAD,
    FLOW_TAIL,
    LINKS,
    STATE,
    FLOW_LOST,
    FLOW_LOST_AT,
    FLOW_COLUMNS,
) = range(15)
"""Of `flows`. Ports and SSRC are source port << 48 | destination port << 32 | SSRC; head and tail are entries.
FLOW_LOST counts packets that waited in vain, as the history gave them up or nobody wanted them; FLOW_LOST_AT is the
time of the newest of them."""
ASKED, PLACED, SEALED, PASSED = 1, 2, 3, 4
"""States of a flow: nobody said whose it is; forwarded; forwarded once it is decrypted; of nobody."""

LINK_FLOW, LINK_SOURCE, NEXT_LINK, WAS_ACTIVE, LINK_COLUMNS = range(5)

(
    ACTIVE,
    STARTED,
    LEGS,
    HEAD,
    TAIL,
    NUMBER,
    HIGHEST,
    SEEN,
    SEQUENCE_OFFSET,
    STAMP_OFFSET,
    OUT_SEQUENCE,
    OUT_STAMP,
    OUT_TIME,
    OUT_RATE,
    RENEW,
    SKIP,
    BEGAN,
    GONE_AT,
    SOURCE_COLUMNS,
) = range(19)
"""Of `sources`: the active link; whether any packet was taken; first leg; entries; packets taken; highest sequence
number of the active flow and which of the 64 up to it came; what is added to its numbers; numbers and time of the
newest packet taken; whether the next one begins a numbering, and how many of those that waited may be left out; time of
the first packet, and of the newest that the history holds no more. NUMBER counts packets that were lost before they
could be taken, too: those below the number of the first entry are gone."""

(
    LEG_SOURCE,
    NEXT_LEG,
    MODE,
    DESCRIPTOR,
    SSRC,
    START,
    ANCHORED,
    ANCHOR,
    OFFSET,
    OLD_OFFSET,
    LEG_STAMP_OFFSET,
    CURSOR,
    CURSOR_NUMBER,
    SINCE,
    SEALING,
    PACKETS,
    OCTETS,
    UNSENT,
    FIRST,
    LAST,
    LAST_SEQUENCE,
    LAST_STAMP,
    LAST_RATE,
    REFUSED,
    HELD,
    LEG_COLUMNS,
) = range(26)
"""Of `legs`. START is the sequence number of the first packet to come, ANCHORED whether it has come, ANCHOR the
source's number from which on OFFSET makes the leg's, before it OLD_OFFSET (-1: too late to be sent). SINCE is
the capture time before which nothing is sent of what waits. HELD is the time of the first packet of a format that no
answer was about yet, from which on all waits for one; 0 where there is none."""
SILENT, WAITING, DRAINING, LIVE = 0, 1, 2, 3
"""Modes of a leg: sends nothing; waits for its answer; sends what has waited; sends what comes."""

(
    CHAIN,
    NEXT_ENTRY,
    TIME,
    SEQUENCE,
    STAMP,
    TYPE,
    FORMAT,
    AT,
    SIZE,
    ENTRY_NUMBER,
    ENTRY_COLUMNS,
) = range(11)
"""Of `entries`: flow, or -1 - source; TYPE is marker bit and payload type as on the wire."""

(
    NEXT,
    OLDEST,
    ARENA_AT,
    ROOM,
    ADDRESS,
    KEEP,
    FRESH,
    SEALED_COUNT,
    OUTGOING_COUNT,
    CUT,
    REFUSED_FLOWS,
    SEALED_AT,
    MUTEX,
    WANTED,
    STOP,
    ROWS,
    COUNTS,
) = range(17)
"""Of `counts`: number of the next entry and of the oldest; where the next octets go, and how many there is room for;
the arena's address; ns that entries are kept; rows in `fresh`, `sealed` and `outgoing`; packets that a snap length cut;
packets of flows for which there was no room; octets in `sealed_octets`; where the lock is, whether the Python thread
waits for it, and whether the kernel that runs by itself is to end (see `_table_lock` and `_forward_ring_kernels`); rows
of `entries` that are in use, a power of two."""

SCRATCH = 1 << 16
"""Octets of the arena behind its room, for a packet on its way from one chain to another."""
HEADER = 12
"""Octets of an RTP header without contributing sources."""
FORMATS = 32
"""Formats of one source; the last stands for what is not known."""
UNKNOWN = FORMATS - 1
NOT_ACCEPTED = 255
UNANSWERED = 254
"""In place of a payload type: the server does not take a format; it has not been asked yet."""
_NEARLY = 0.75
"""Share of the history that is in use when it is time to grow."""
_MARGIN = 1.25
"""Times as long as packets are kept that the history is to reach, as traffic may become more."""
DIGESTS = 16
"""Payloads that a source remembers."""
OUTGOING_COLUMNS = 5
"""Leg, entry, sequence number, timestamp, type."""
SEALED_COLUMNS = 4
"""Flow, where the packet begins in `sealed_octets`, its size, and its time."""
SEALED_OCTETS = 512
"""Room for encrypted packets, octets for each row of `sealed`."""


class Tables(NamedTuple):
    """What the kernels work on."""

    flows: Int64
    slots: Int32
    """Hash table of flows, -1 where empty."""
    links: Int64
    link_formats: UInt8
    """(links, 128): payload type -> format of the source."""
    sources: Int64
    rates: Int32
    """(sources, FORMATS): clock rates, Hz."""
    digests: Int64
    legs: Int64
    types: UInt8
    """(legs, FORMATS): payload type under which a format goes out."""
    entries: Int64
    arena: Bytes
    history: Bytes
    """The arena, not to be written."""
    counts: Int64
    fresh: Int32
    """Flows that are new."""
    sealed: Int64
    """(n, SEALED_COLUMNS): packets to be decrypted."""
    sealed_octets: Bytes
    outgoing: Int64
    """(n, OUTGOING_COLUMNS): packets of legs that encrypt."""
    free: Int32
    """Flow rows that are free, `free[0]` of them from `free[1]` on."""
    mutex: Bytes
    """Memory of the lock."""


class Capacity(NamedTuple):
    """How much there is room for."""

    flows: int = 1 << 15
    sources: int = 1 << 14
    legs: int = 1 << 13
    history: int = 64 << 20
    """Octets at the start."""
    keep_ns: int = 10_000_000_000
    """How old packets in the history may become."""
    rows: int = 1 << 14
    """Packets that are encrypted, and wait to be taken up: 0.3 s of 50,000 a second."""
    most_history: int = 0
    """Octets to which the history grows where packets that are to be kept find no room; less than `history`: never."""


def make_tables(capacity: Capacity, mutex: Bytes) -> Tables:
    """Empty tables. `mutex`: memory of their lock."""
    rows = 1 << (capacity.history // 200).bit_length()
    most, most_rows = capacity.history, rows
    while most * 2 <= capacity.most_history:
        most, most_rows = most * 2, most_rows * 2
    arena: Bytes = np.zeros(most + SCRATCH, np.uint8)
    history = arena.view()
    history.flags.writeable = False
    counts = np.zeros(COUNTS, np.int64)
    counts[ROOM] = capacity.history
    counts[ADDRESS] = arena.ctypes.data
    counts[KEEP] = capacity.keep_ns
    counts[MUTEX] = mutex.ctypes.data
    counts[ROWS] = rows
    free = np.zeros(capacity.flows + 1, np.int32)
    free[0] = capacity.flows
    free[1:] = np.arange(capacity.flows, dtype=np.int32)[::-1]
    flows = _rows(capacity.flows, FLOW_COLUMNS)
    flows[:, (FLOW_HEAD, FLOW_TAIL, LINKS)] = -1
    return Tables(
        flows=flows,
        slots=np.full(4 << (capacity.flows - 1).bit_length(), -1, np.int32),
        links=_rows(capacity.flows, LINK_COLUMNS),
        link_formats=np.zeros((capacity.flows, 128), np.uint8),
        sources=_rows(capacity.sources, SOURCE_COLUMNS),
        rates=np.zeros((capacity.sources, FORMATS), np.int32),
        digests=_rows(capacity.sources, DIGESTS),
        legs=_rows(capacity.legs, LEG_COLUMNS),
        types=np.zeros((capacity.legs, FORMATS), np.uint8),
        entries=_rows(most_rows, ENTRY_COLUMNS),
        arena=arena,
        history=history,
        counts=counts,
        fresh=np.zeros(capacity.flows, np.int32),
        sealed=_rows(capacity.rows, SEALED_COLUMNS),
        sealed_octets=np.zeros(capacity.rows * SEALED_OCTETS, np.uint8),
        outgoing=_rows(capacity.rows, OUTGOING_COLUMNS),
        free=free,
        mutex=mutex,
    )


def touch(tables: Tables) -> None:
    """Have the system give the memory that is in use now: while packets wait it would take milliseconds at a time."""
    in_use = {"arena": int(tables.counts[ROOM]) + SCRATCH, "entries": int(tables.counts[ROWS])}
    for name, each in tables._asdict().items():
        if each.flags.writeable:
            _touch(each[: in_use.get(name)])


def may_grow(tables: Tables) -> bool:
    """Whether there is more memory for the history."""
    return int(tables.counts[ROWS]) < len(tables.entries)


def overruns(tables: Tables, now: int) -> bool:
    """Whether the history is about to be full, at capture time `now`, with packets that are not older than they may
    become. Before it is full, as it grows at its end: what stands ahead of where it writes is given up all the same."""
    counts = tables.counts
    room, at, rows = int(counts[ROOM]), int(counts[ARENA_AT]), int(counts[ROWS])
    held = int(counts[NEXT] - counts[OLDEST])
    if held == 0 or (at < room * _NEARLY and held < rows * _NEARLY):
        return False
    oldest = tables.entries[int(counts[OLDEST]) & (rows - 1)]
    used = max(held / rows, (at - oldest[AT]) / room if oldest[AT] < at else 1.0)
    return bool((now - oldest[TIME]) / used < counts[KEEP] * _MARGIN)


def touch_growth(tables: Tables) -> None:
    """Have the system give the memory that `grow` puts to use; kernels may run meanwhile."""
    room, rows = int(tables.counts[ROOM]), int(tables.counts[ROWS])
    _touch(tables.arena[room + SCRATCH : 2 * room + SCRATCH])
    _touch(tables.entries[rows : 2 * rows])


def grow(tables: Tables) -> None:
    """Double the history; under the lock. What it holds stays where it is: an entry is found by the lower bits of its
    number, so that a second copy of all rows holds those whose number has the next bit set."""
    rows = int(tables.counts[ROWS])
    tables.entries[rows : 2 * rows] = tables.entries[:rows]
    tables.counts[ROWS] = 2 * rows
    tables.counts[ROOM] *= 2


def _touch(array: NDArray[Any]) -> None:
    pages = array.reshape(-1)[:: mmap.PAGESIZE // array.itemsize]
    pages |= 0


def _rows(count: int, columns: int) -> NDArray[np.int64]:
    return np.zeros((count, columns), np.int64)
