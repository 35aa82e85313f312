"""Kernels that carry encrypted packets between the tables and the thread that knows the keys.

In: the tables, and arrays of that thread. Out: whole packets, copied under the lock, so that what comes next may take
their places; what was sent of them, counted. Rows are those of `sealed`, or `READY_COLUMNS`.
"""

from numba import njit

from capture._octets_at import copy
from capture.batch import Bytes, Int64
from recorder.siprec._forward_columns import (
    AT,
    FORMAT,
    HEADER,
    LEG_SOURCE,
    NEXT_ENTRY,
    OLDEST,
    OUTGOING_COUNT,
    SEALED_AT,
    SEALED_COUNT,
    SIZE,
    SSRC,
    TIME,
    UNSENT,
    Tables,
)
from recorder.siprec._history_kernels import head_of, row_of, set_head
from recorder.siprec._leg_kernels import note_sent, put_header
from recorder.siprec._table_lock import hold, let_go

READY_LEG, READY_AT, READY_SIZE, READY_SEQUENCE, READY_STAMP, READY_RATE, READY_TIME, READY_COLUMNS = range(8)
"""Of packets that are ready to be encrypted; `READY_SIZE` counts the header."""


@njit(cache=True, nogil=True)
def take_sealed(tables: Tables, rows: Int64, octets: Bytes) -> int:
    """Move what is to be decrypted into `rows` and `octets`, which have the shapes of the tables'; how many packets."""
    counts = tables.counts
    hold(counts)
    count, size = counts[SEALED_COUNT], counts[SEALED_AT]
    rows[:count] = tables.sealed[:count]
    copy(octets, 0, tables.sealed_octets, 0, size)
    counts[SEALED_COUNT] = counts[SEALED_AT] = 0
    let_go(counts)
    return int(count)


@njit(cache=True, nogil=True)
def take_chain(tables: Tables, flow: int, rows: Int64, octets: Bytes) -> int:
    """The same for what waits in a flow's chain, as far as there is room; the chain is empty afterwards."""
    hold(tables.counts)
    count = at = 0
    entry = head_of(tables, flow)
    while entry >= 0 and count < len(rows):
        row = tables.entries[row_of(tables, entry)]
        if at + row[SIZE] > len(octets):
            break
        copy(octets, at, tables.history, row[AT], row[SIZE])
        rows[count, 0], rows[count, 1], rows[count, 2], rows[count, 3] = flow, at, row[SIZE], row[TIME]
        at += row[SIZE]
        count += 1
        entry = row[NEXT_ENTRY]
    set_head(tables, flow, -1)
    let_go(tables.counts)
    return count


@njit(cache=True, nogil=True)
def take_outgoing(tables: Tables, rows: Int64, octets: Bytes) -> int:
    """Write what is to be encrypted as plain RTP into `octets`, a row for each; how many. Others count as unsent."""
    counts = tables.counts
    hold(counts)
    count = at = 0
    for k in range(counts[OUTGOING_COUNT]):
        out = tables.outgoing[k]
        leg = tables.legs[out[0]]
        kept = tables.entries[row_of(tables, out[1])]
        size = kept[SIZE] + HEADER
        if out[1] < counts[OLDEST] or at + size > len(octets):
            leg[UNSENT] += 1
            continue
        put_header(octets, at, out[4], out[2], out[3], leg[SSRC])
        copy(octets, at + HEADER, tables.history, kept[AT], kept[SIZE])
        row = rows[count]
        row[READY_LEG], row[READY_AT], row[READY_SIZE] = out[0], at, size
        row[READY_SEQUENCE], row[READY_STAMP], row[READY_TIME] = out[2], out[3], kept[TIME]
        row[READY_RATE] = tables.rates[leg[LEG_SOURCE], kept[FORMAT]]
        at += size
        count += 1
    counts[OUTGOING_COUNT] = 0
    let_go(counts)
    return count


@njit(cache=True, nogil=True)
def note_ready(tables: Tables, row: Int64, sent: bool) -> None:
    """Count a packet that was ready."""
    hold(tables.counts)
    leg = tables.legs[row[READY_LEG]]
    if sent:
        size = row[READY_SIZE] - HEADER
        note_sent(leg, row[READY_SEQUENCE], row[READY_STAMP], row[READY_RATE], row[READY_TIME], size)
    else:
        leg[UNSENT] += 1
    let_go(tables.counts)
