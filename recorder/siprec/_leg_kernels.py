"""Kernels that send: a packet of a source's stream to one leg, with the leg's own SSRC, numbers and payload type.

In: a leg and an entry of the history. Out: a datagram from the leg's socket, or a row in `outgoing` for legs that
encrypt, or a count of what was not sent. With the first packet of a format that no answer was about yet, a leg waits
for one, so that nothing of it is lost and all stays in order. The header is written into the room before the payload:
nothing is copied. `drain` and `seek`, which Python calls, take the lock of the tables themselves; what calls the others
holds it.
"""

from numba import njit

from capture.batch import Bytes, Int64
from recorder.siprec._datagram_send import REFUSED as CONNECTION_REFUSED
from recorder.siprec._datagram_send import send_datagram
from recorder.siprec._forward_columns import (
    ADDRESS,
    ANCHOR,
    ANCHORED,
    AT,
    BEGAN,
    CURSOR,
    CURSOR_NUMBER,
    DESCRIPTOR,
    DRAINING,
    ENTRY_NUMBER,
    FIRST,
    FORMAT,
    GONE_AT,
    HEADER,
    HELD,
    LAST,
    LAST_RATE,
    LAST_SEQUENCE,
    LAST_STAMP,
    LEG_SOURCE,
    LEG_STAMP_OFFSET,
    LIVE,
    MODE,
    NEXT_ENTRY,
    NOT_ACCEPTED,
    NUMBER,
    OCTETS,
    OFFSET,
    OLD_OFFSET,
    OLDEST,
    OUTGOING_COUNT,
    PACKETS,
    REFUSED,
    SEALING,
    SEQUENCE,
    SINCE,
    SIZE,
    SSRC,
    STAMP,
    START,
    TIME,
    TYPE,
    UNANSWERED,
    UNSENT,
    WAITING,
    Tables,
)
from recorder.siprec._history_kernels import head_of, lost_since, row_of
from recorder.siprec._numbering_kernels import ahead_of
from recorder.siprec._table_lock import hold, let_go

_STALE = 16_384
"""Sequence numbers behind which an anchor is moved on, before the difference changes its sign."""


@njit(cache=True, nogil=True, forceinline=True)
def _leg_sequence(leg: Int64, sequence: int) -> int:
    """The leg's sequence number for one of its source's; -1 where what it would follow was never sent."""
    if not leg[ANCHORED]:
        leg[ANCHORED] = 1
        leg[ANCHOR] = sequence
        leg[OFFSET] = (leg[START] - sequence) & 0xFFFF
        if leg[PACKETS] == 0:
            leg[OLD_OFFSET] = leg[OFFSET]
        else:
            leg[OLD_OFFSET] = -1
    ahead = ahead_of(sequence, leg[ANCHOR])
    if ahead > _STALE:
        leg[ANCHOR] = (sequence - _STALE // 2) & 0xFFFF
        leg[OLD_OFFSET] = leg[OFFSET]
    offset = leg[OFFSET] if ahead >= 0 else leg[OLD_OFFSET]
    return (sequence + offset) & 0xFFFF if offset >= 0 else -1


@njit(cache=True, nogil=True)
def _pass_over(leg: Int64, sequence: int) -> None:
    """Leave no gap for a packet whose format the server does not take: it would be heard as loss."""
    leg[UNSENT] += 1
    if leg[ANCHORED] and ahead_of(sequence, leg[ANCHOR]) >= 0:
        leg[OLD_OFFSET] = leg[OFFSET]
        leg[OFFSET] = (leg[OFFSET] - 1) & 0xFFFF
        leg[ANCHOR] = (sequence + 1) & 0xFFFF


@njit(cache=True, nogil=True, forceinline=True)
def note_sent(leg: Int64, sequence: int, stamp: int, rate: int, time: int, octets: int) -> None:
    """Count a packet that went out."""
    if leg[PACKETS] == 0:
        leg[FIRST] = time
    if leg[PACKETS] == 0 or ahead_of(sequence, leg[LAST_SEQUENCE]) > 0:
        leg[LAST_SEQUENCE], leg[LAST_STAMP], leg[LAST] = sequence, stamp, time
        if rate > 0:
            leg[LAST_RATE] = rate
    leg[PACKETS] += 1
    leg[OCTETS] += octets


@njit(cache=True, nogil=True)
def send_entry(tables: Tables, number: int, entry: int) -> None:
    """Send an entry of its source's chain to leg `number`."""
    leg = tables.legs[number]
    row = tables.entries[row_of(tables, entry)]
    kind = tables.types[number, row[FORMAT]]
    if kind == UNANSWERED:
        leg[MODE], leg[HELD] = WAITING, row[TIME]
        leg[CURSOR], leg[CURSOR_NUMBER] = -1, row[ENTRY_NUMBER] - 1
        return
    if kind == NOT_ACCEPTED:
        _pass_over(leg, row[SEQUENCE])
        return
    sequence = _leg_sequence(leg, row[SEQUENCE])
    if sequence < 0:
        leg[UNSENT] += 1
        return
    stamp = (row[STAMP] + leg[LEG_STAMP_OFFSET]) & 0xFFFFFFFF
    second = (row[TYPE] & 0x80) | kind
    if leg[SEALING]:
        count = tables.counts[OUTGOING_COUNT]
        if count == len(tables.outgoing):
            leg[UNSENT] += 1
            return
        out = tables.outgoing[count]
        out[0], out[1], out[2], out[3], out[4] = number, entry, sequence, stamp, second
        tables.counts[OUTGOING_COUNT] = count + 1
        return
    at = row[AT] - HEADER
    put_header(tables.arena, at, second, sequence, stamp, leg[SSRC])
    size = row[SIZE] + HEADER
    sent = send_datagram(leg[DESCRIPTOR], tables.counts[ADDRESS] + at, size)
    if sent == CONNECTION_REFUSED:
        # That was an earlier datagram's answer, and this one has not been sent.
        leg[REFUSED] = row[TIME]
        sent = send_datagram(leg[DESCRIPTOR], tables.counts[ADDRESS] + at, size)
    if sent < 0:
        leg[UNSENT] += 1
        return
    rate = tables.rates[leg[LEG_SOURCE], row[FORMAT]]
    note_sent(leg, sequence, stamp, rate, row[TIME], row[SIZE])


@njit(cache=True, nogil=True, forceinline=True)
def put_header(octets: Bytes, at: int, second: int, sequence: int, stamp: int, ssrc: int) -> None:
    """An RTP header without contributing sources, extension or padding (RFC 3550, section 5.1)."""
    octets[at] = 0x80
    octets[at + 1] = second
    octets[at + 2], octets[at + 3] = sequence >> 8, sequence & 0xFF
    for k in range(4):
        octets[at + 4 + k] = stamp >> (24 - 8 * k) & 0xFF
        octets[at + 8 + k] = ssrc >> (24 - 8 * k) & 0xFF


@njit(cache=True, nogil=True)
def _next_waiting(tables: Tables, number: int) -> int:
    """The entry that a leg has to send next; -1 where there is none."""
    leg = tables.legs[number]
    cursor = leg[CURSOR]
    if cursor >= tables.counts[OLDEST]:
        return tables.entries[row_of(tables, cursor), NEXT_ENTRY]
    entry = head_of(tables, -1 - leg[LEG_SOURCE])
    # Not all of the chain need be behind the cursor.
    while entry >= 0 and tables.entries[row_of(tables, entry), ENTRY_NUMBER] <= leg[CURSOR_NUMBER]:
        entry = tables.entries[row_of(tables, entry), NEXT_ENTRY]
    return entry


@njit(cache=True, nogil=True)
def _count_gone(tables: Tables, leg: Int64, number: int) -> None:
    """Packets of a leg's source up to `number` that it has not sent are there no more: they count as unsent."""
    source = tables.sources[leg[LEG_SOURCE]]
    gone = number - leg[CURSOR_NUMBER]
    if leg[CURSOR_NUMBER] == 0:
        gone = lost_since(gone, source[BEGAN], source[GONE_AT], leg[SINCE])
    if gone > 0:
        leg[UNSENT] += gone


@njit(cache=True, nogil=True)
def _send_waiting(tables: Tables, number: int) -> bool:
    """Send a packet of what waits for a leg; False where it is to send no more of it now."""
    leg = tables.legs[number]
    entry = _next_waiting(tables, number)
    if entry < 0:
        newest = tables.sources[leg[LEG_SOURCE], NUMBER]
        _count_gone(tables, leg, newest)
        leg[CURSOR_NUMBER], leg[MODE] = newest, LIVE
        return False
    row = tables.entries[row_of(tables, entry)]
    _count_gone(tables, leg, row[ENTRY_NUMBER] - 1)
    leg[CURSOR], leg[CURSOR_NUMBER] = entry, row[ENTRY_NUMBER]
    if row[TIME] >= leg[SINCE]:
        send_entry(tables, number, entry)
    return bool(leg[MODE] == DRAINING)


@njit(cache=True, nogil=True)
def drain(tables: Tables, numbers: Int64, quota: int) -> int:
    """Send up to `quota` packets of what waits for each of these legs; how many legs have more."""
    left = 0
    for number in numbers:
        more = True
        for _ in range(quota):
            hold(tables.counts)
            more = tables.legs[number, MODE] == DRAINING and _send_waiting(tables, number)
            let_go(tables.counts)
            if not more:
                break
        left += more
    return left


@njit(cache=True, nogil=True)
def seek(tables: Tables, number: int, since: int) -> int:
    """Let a leg begin with the first entry of its source that came at `since` or later; how many such packets the
    history holds no more."""
    hold(tables.counts)
    leg = tables.legs[number]
    entry = head_of(tables, -1 - leg[LEG_SOURCE])
    before = -1
    last = tables.sources[leg[LEG_SOURCE], NUMBER]
    while entry >= 0 and tables.entries[row_of(tables, entry), TIME] < since:
        before = entry
        entry = tables.entries[row_of(tables, entry), NEXT_ENTRY]
    leg[CURSOR], leg[SINCE] = before, since
    leg[CURSOR_NUMBER] = tables.entries[row_of(tables, entry), ENTRY_NUMBER] - 1 if entry >= 0 else last
    gone = 0
    if before < 0:
        source = tables.sources[leg[LEG_SOURCE]]
        gone = lost_since(leg[CURSOR_NUMBER], source[BEGAN], source[GONE_AT], since)
    let_go(tables.counts)
    return gone
