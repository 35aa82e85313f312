"""Kernels of the history: packets in a ring of octets, chained by flow or by source, the oldest given up for new ones.

In: tables of `_forward_columns`, and octets. Out: numbers of entries, which grow for ever; an entry is there as long as
its number is not below `counts[OLDEST]`. A chain is walked from its head, which moves on when entries go.
"""

from numba import njit

from capture._octets_at import copy
from capture.batch import Bytes
from recorder.siprec._forward_columns import (
    ARENA_AT,
    AT,
    CHAIN,
    ENTRY_NUMBER,
    FLOW_HEAD,
    FLOW_LOST,
    FLOW_LOST_AT,
    FLOW_TAIL,
    GONE_AT,
    HEAD,
    HEADER,
    KEEP,
    NEXT,
    NEXT_ENTRY,
    NUMBER,
    OLDEST,
    ROOM,
    ROWS,
    SIZE,
    TAIL,
    TIME,
    Tables,
)


@njit(cache=True, nogil=True, forceinline=True)
def row_of(tables: Tables, entry: int) -> int:
    """Where an entry stands."""
    return entry & (tables.counts[ROWS] - 1)


@njit(cache=True, nogil=True, forceinline=True)
def head_of(tables: Tables, chain: int) -> int:
    """First entry of a chain that is still there; -1 where there is none."""
    head = tables.flows[chain, FLOW_HEAD] if chain >= 0 else tables.sources[-1 - chain, HEAD]
    return head if head >= tables.counts[OLDEST] else -1


@njit(cache=True, nogil=True)
def set_head(tables: Tables, chain: int, entry: int) -> None:
    """Let a chain begin at an entry; -1 empties it."""
    if chain >= 0:
        tables.flows[chain, FLOW_HEAD] = entry
        if entry < 0:
            tables.flows[chain, FLOW_TAIL] = -1
    else:
        tables.sources[-1 - chain, HEAD] = entry
        if entry < 0:
            tables.sources[-1 - chain, TAIL] = -1


@njit(cache=True, nogil=True)
def _give_up_oldest(tables: Tables) -> None:
    oldest = tables.counts[OLDEST]
    row = row_of(tables, oldest)
    chain = tables.entries[row, CHAIN]
    head = tables.flows[chain, FLOW_HEAD] if chain >= 0 else tables.sources[-1 - chain, HEAD]
    if head == oldest:
        _note_gone(tables, chain, tables.entries[row, TIME])
        set_head(tables, chain, tables.entries[row, NEXT_ENTRY])
    tables.counts[OLDEST] = oldest + 1


@njit(cache=True, nogil=True, forceinline=True)
def _note_gone(tables: Tables, chain: int, time: int) -> None:
    """The first packet of a chain goes."""
    if chain >= 0:
        note_flow_lost(tables, chain, time)
    else:
        tables.sources[-1 - chain, GONE_AT] = time


@njit(cache=True, nogil=True, forceinline=True)
def note_flow_lost(tables: Tables, flow: int, time: int) -> None:
    """A packet of a flow has waited in vain, or need not even wait."""
    tables.flows[flow, FLOW_LOST] += 1
    tables.flows[flow, FLOW_LOST_AT] = time


@njit(cache=True, nogil=True)
def lost_since(count: int, first: int, last: int, since: int) -> int:
    """How many of `count` packets that came from `first` to `last` came at `since` or later, as if evenly spaced."""
    if count <= 0 or since > last:
        return 0
    if since <= first:
        return count
    microseconds = max((last - first) // 1000, 1)
    return 1 + (count - 1) * ((last - since) // 1000) // microseconds


@njit(cache=True, nogil=True)
def _make_room(tables: Tables, need: int) -> int:
    """Where in the arena `need` octets may be written."""
    counts, entries = tables.counts, tables.entries
    at = counts[ARENA_AT]
    if at + need > counts[ROOM]:
        while counts[OLDEST] < counts[NEXT] and entries[row_of(tables, counts[OLDEST]), AT] >= at:
            _give_up_oldest(tables)
        at = 0
    while counts[OLDEST] < counts[NEXT] and (
        counts[NEXT] - counts[OLDEST] == counts[ROWS]
        or at <= entries[row_of(tables, counts[OLDEST]), AT] < at + need + HEADER
    ):
        _give_up_oldest(tables)
    counts[ARENA_AT] = at + need
    return at


@njit(cache=True, nogil=True)
def keep(tables: Tables, chain: int, origin: Bytes, at: int, size: int, time: int) -> int:
    """Append octets to a chain, with room for a header before them; the entry's number."""
    counts = tables.counts
    need = (HEADER + size + 7) & ~7
    begin = _make_room(tables, need) + HEADER
    entry = counts[NEXT]
    counts[NEXT] = entry + 1
    copy(tables.arena, begin, origin, at, size)
    row = tables.entries[row_of(tables, entry)]
    row[CHAIN], row[NEXT_ENTRY], row[TIME], row[AT], row[SIZE] = chain, -1, time, begin, size
    _forget_older(tables, chain, time - counts[KEEP])
    if chain >= 0:
        tail = tables.flows[chain, FLOW_TAIL]
        tables.flows[chain, FLOW_TAIL] = entry
    else:
        source = tables.sources[-1 - chain]
        tail = source[TAIL]
        source[TAIL] = entry
        source[NUMBER] += 1
        row[ENTRY_NUMBER] = source[NUMBER]
    if head_of(tables, chain) < 0:
        set_head(tables, chain, entry)
    if tail >= counts[OLDEST]:
        tables.entries[row_of(tables, tail), NEXT_ENTRY] = entry
    return entry


@njit(cache=True, nogil=True)
def _forget_older(tables: Tables, chain: int, before: int) -> None:
    """Let a chain begin with what came at `before` or later."""
    entry = head_of(tables, chain)
    moved = False
    while entry >= 0 and tables.entries[row_of(tables, entry), TIME] < before:
        _note_gone(tables, chain, tables.entries[row_of(tables, entry), TIME])
        entry = tables.entries[row_of(tables, entry), NEXT_ENTRY]
        moved = True
    if moved:
        if entry >= 0:
            set_head(tables, chain, entry)
        elif chain >= 0:
            tables.flows[chain, FLOW_HEAD] = -1
        else:
            tables.sources[-1 - chain, HEAD] = -1
