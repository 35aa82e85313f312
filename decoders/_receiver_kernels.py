"""Kernels of the receiver: sequence numbers and statistics of RFC 3550, and what of a window is settled."""

import numpy as np
from numba import njit

from capture.batch import Int32, Int64, UInt8, UInt16, UInt32
from decoders._rtp_kernels import Packets
from decoders._stream_columns import (
    AFTER_EVENT,
    AUDIO,
    AUDIO_TYPE,
    BAD,
    BASE,
    BASELINE,
    DROPPED,
    DUPLICATES,
    EPOCHS,
    EVENTS,
    EXPECTED,
    FIRST_NUMBER,
    FIRST_STAMP,
    FIRST_TIME,
    FORMATS,
    GAPS,
    HIGH_TICKS,
    HISTORY,
    JITTER,
    JITTER_COUNT,
    JITTER_MAX,
    JITTER_SUM,
    KIND_ALAW,
    KIND_EVENT,
    KIND_NOISE,
    KIND_ULAW,
    KIND_UNKNOWN,
    LAST_CAPTURE,
    LAST_END,
    LAST_NUMBER,
    LAST_TIME,
    LATE,
    LATE_TICKS,
    LOW_TICKS,
    MAX_DROPOUT,
    MAX_MISORDER,
    NOISE,
    OLD_POSITION,
    OLD_UTS,
    OTHERS,
    PRIMARY,
    RECEIVED,
    REORDERED,
    SEEN,
    SEGMENT_CLOCK,
    SEGMENT_POSITION,
    SEGMENT_UTS,
    SNAPPED,
    STARTED,
    STRAY,
    STRAYS,
    TICKS,
    TOP,
    TRANSIT,
    TRANSIT_CLOCK,
    UNHEARD,
    UNKNOWN,
    UTS,
    Floats,
)
from decoders._timeline_kernels import locate, signed_32, ticks_of

RECENT = 100_000_000
"""ns: more of a talk spurt follows within this time."""


@njit(cache=True, nogil=True, inline="always")
def _seen(state: Int64, extended: int) -> int:
    """Whether the packet with this extended sequence number was received, as far as the history goes."""
    word = (extended >> 6) & 3
    return (state[SEEN + word] >> (extended & 63)) & 1


@njit(cache=True, nogil=True, inline="always")
def _mark(state: Int64, extended: int) -> None:
    """Remember a received packet."""
    state[SEEN + ((extended >> 6) & 3)] |= np.int64(1) << (extended & 63)


@njit(cache=True, nogil=True)
def _advance(state: Int64, extended: int) -> None:
    """Move the highest sequence number up to `extended`, forgetting what falls out of the history."""
    top = state[TOP]
    if extended - top >= HISTORY:
        for word in range(4):
            state[SEEN + word] = 0
    else:
        for gone in range(top + 1, extended + 1):
            state[SEEN + ((gone >> 6) & 3)] &= ~(np.int64(1) << (gone & 63))
    state[TOP] = extended
    _mark(state, extended)


@njit(cache=True, nogil=True)
def _begin(state: Int64, extended: int) -> None:
    """RFC 3550 A.1 init_seq; what an earlier sequence of the same source expected is kept."""
    if state[STARTED]:
        state[EXPECTED] += state[TOP] - state[BASE] + 1
        state[EPOCHS] += 1
    for word in range(4):
        state[SEEN + word] = 0
    state[BASE] = extended
    state[TOP] = extended
    state[BAD] = -1
    _mark(state, extended)


NEW = 0
REPEATED = 1
ASTRAY = 2
UNDECIDED = 3


@njit(cache=True, nogil=True)
def _sequence(state: Int64, sequence: int, following: int, final: bool) -> int:
    """RFC 3550 A.1 update_seq with a look ahead: NEW, REPEATED, ASTRAY or UNDECIDED (needs the next packet).

    `following` is the sequence number of the stream's next packet in order of arrival, -1 where there is none yet.
    Where A.1 drops the first packet after a jump, the look ahead lets a recorder keep its audio.
    """
    if not state[STARTED]:
        _begin(state, sequence + 65536)
        return NEW
    top = state[TOP]
    delta = (sequence - top) & 0xFFFF
    if delta == 0:
        return REPEATED
    if delta < MAX_DROPOUT:
        if delta > 1:
            state[GAPS] += 1
        _advance(state, top + delta)
        return NEW
    if delta > 65536 - MAX_MISORDER:
        extended = top - (65536 - delta)
        if extended >= state[BASE] - MAX_MISORDER and _seen(state, extended):
            return REPEATED
        _mark(state, extended)
        state[REORDERED] += 1
        state[BASE] = min(state[BASE], extended)
        return NEW
    if following < 0 and not final:
        return UNDECIDED
    if following == ((sequence + 1) & 0xFFFF) or state[BAD] == sequence:
        _begin(state, ((top >> 16) + 2) * 65536 + sequence)
        return NEW
    state[BAD] = (sequence + 1) & 0xFFFF
    return ASTRAY


@njit(cache=True, nogil=True)
def _jitter(state: Int64, figures: Floats, kind: int, clock: int, nanoseconds: int, stamp: int) -> None:
    """RFC 3550 section 6.4.1, in order of arrival; events and noise are left out (their timestamps stand still)."""
    if kind in (KIND_EVENT, KIND_NOISE):
        state[AFTER_EVENT] = 1
        return
    arrival = nanoseconds // 1_000_000_000 * clock + nanoseconds % 1_000_000_000 * clock // 1_000_000_000
    transit = (arrival - stamp) & 0xFFFFFFFF
    if state[AFTER_EVENT] == 0 and state[TRANSIT_CLOCK] == clock:
        d = abs(signed_32(transit - state[TRANSIT]))
        if d < 10 * clock:
            figures[JITTER] += (d - figures[JITTER]) / 16.0
            milliseconds = figures[JITTER] * 1000.0 / clock
            figures[JITTER_MAX] = max(figures[JITTER_MAX], milliseconds)
            figures[JITTER_SUM] += milliseconds
            figures[JITTER_COUNT] += 1
    state[AFTER_EVENT] = 0
    state[TRANSIT] = transit
    state[TRANSIT_CLOCK] = clock


@njit(cache=True, nogil=True)
def _as_copy(first: Int64, sequence: int, stamp: int) -> int:
    """Place a packet of a second sighting by the first one's mapping; gives its position, or UNHEARD if it has it."""
    top = first[TOP]
    delta = (sequence - top) & 0xFFFF
    extended = top + (delta - 65536 if delta >= 32768 else delta)
    if extended <= top and top - extended < HISTORY:
        if _seen(first, extended):
            return UNHEARD
        _mark(first, extended)
    if first[SEGMENT_CLOCK] == 0:
        return UNHEARD
    highest = first[UTS]
    here = highest + signed_32(stamp - highest)
    since = here - first[SEGMENT_UTS]
    if since < 0 and first[OLD_UTS] != UNHEARD:
        since = signed_32(stamp - first[OLD_UTS])
        return first[OLD_POSITION] + since * TICKS // first[SEGMENT_CLOCK]
    return first[SEGMENT_POSITION] + since * TICKS // first[SEGMENT_CLOCK]


@njit(cache=True, nogil=True)
def _receive_stream(
    table: Int64,
    state: Int64,
    figures: Floats,
    first: int,
    last: int,
    horizon: int,
    final: bool,
    order: Int32,
    times: Int64,
    stamps: UInt32,
    sequences: UInt16,
    types: UInt8,
    sizes: Int32,
    missing: Int32,
    packets: Packets,
    kinds: UInt8,
    clocks: Int32,
    epoch: int,
    uts: Int64,
    position: Int64,
    out_kind: UInt8,
) -> int:
    """Statistics and placing of one stream's entries; gives the index behind the last one that was taken."""
    f = state[FORMATS]
    primary = state[PRIMARY]
    done = last
    for i in range(first, last):
        k = i + 1
        while k < horizon and sequences[k] == sequences[i]:
            k += 1
        following = np.int64(sequences[k]) if k < horizon else np.int64(-1)
        kind = kinds[f, types[i] & 127]
        clock = np.int64(clocks[f, types[i] & 127])
        stamp = np.int64(stamps[i])
        out_kind[i] = DROPPED
        verdict = _sequence(state, np.int64(sequences[i]), following, final)
        if verdict == UNDECIDED:
            done = i
            break
        if not state[STARTED]:
            state[STARTED] = 1
            state[FIRST_TIME] = times[i]
            state[FIRST_NUMBER] = packets[order[i]]["number"]
            state[FIRST_STAMP] = stamp
            state[UTS] = uts[i]
        state[LAST_TIME] = max(state[LAST_TIME], times[i])
        if verdict == REPEATED:
            state[DUPLICATES] += 1
            continue
        if verdict == ASTRAY:
            state[STRAYS] += 1
            continue
        state[RECEIVED] += 1
        if not state[AUDIO]:
            state[AUDIO_TYPE] = types[i] & 127
        if primary < 0 and position[i] < state[LAST_END] - STRAY:
            state[STRAYS] += 1
            continue
        _jitter(state, figures, kind, clock, times[i] - epoch, stamp)
        if missing[i] > 0:
            state[SNAPPED] += 1
        if kind == KIND_EVENT:
            state[EVENTS] += 1
        elif kind == KIND_NOISE:
            state[NOISE] += 1
        elif kind == KIND_UNKNOWN:
            state[UNKNOWN] += 1
        else:
            state[AUDIO] += 1
            state[AUDIO_TYPE] = types[i] & 127
            if uts[i] > state[UTS]:
                state[UTS] = uts[i]
            if ticks_of(times[i] - epoch) - position[i] - state[BASELINE] > LATE_TICKS:
                state[LATE] += 1
        if primary >= 0:
            position[i] = _as_copy(table[primary], np.int64(sequences[i]), stamp)
            if position[i] == UNHEARD:
                continue
        out_kind[i] = kind
        if kind in (KIND_ULAW, KIND_ALAW):
            end = position[i] + sizes[i] * TICKS // clock
            if position[i] < state[LOW_TICKS]:
                state[LOW_TICKS] = position[i]
            if end > state[HIGH_TICKS]:
                state[HIGH_TICKS] = end
        else:
            state[OTHERS] += 1
        if position[i] > state[LAST_END] and kind != KIND_EVENT and kind != KIND_UNKNOWN:
            state[LAST_END] = position[i]
    if done > first:
        state[LAST_NUMBER] = packets[order[done - 1]]["number"]
        state[LAST_CAPTURE] = packets[order[done - 1]]["capture"]
    return done


@njit(cache=True, nogil=True)
def receive(
    table: Int64,
    statistics: Floats,
    streams: Int32,
    bounds: Int64,
    taken: Int64,
    order: Int32,
    times: Int64,
    stamps: UInt32,
    sequences: UInt16,
    types: UInt8,
    sizes: Int32,
    missing: Int32,
    packets: Packets,
    kinds: UInt8,
    clocks: Int32,
    epoch: int,
    now: int,
    hold: int,
    uts: Int64,
    position: Int64,
    delay: Int64,
    out_kind: UInt8,
) -> None:
    """Run the receiver over the entries of each stream: order[bounds[x]:bounds[x + 1]] belongs to streams[x].

    `hold` (ns) is how much of a beginning stream must have been seen before its place is settled; 0 settles all.
    Writes `taken[x]`, the number of entries that are settled; the rest must come again with the next window.
    """
    for x in range(streams.shape[0]):
        state = table[streams[x]]
        figures = statistics[streams[x]]
        first = bounds[x]
        last = bounds[x + 1]
        taken[x] = 0
        if first == last:
            continue
        # The extent of what this window places, for the caller.
        state[LOW_TICKS] = np.int64(1) << 62
        state[HIGH_TICKS] = UNHEARD
        state[OTHERS] = 0
        if hold > 0 and not state[STARTED] and now - times[first] < hold:
            continue
        goes_on = hold > 0 and now - times[last - 1] < RECENT
        settled = locate(
            state, first, last, hold == 0, goes_on, times, stamps, sequences, types, kinds, clocks, epoch, uts,
            position, delay,
        )  # fmt: skip
        settled = _receive_stream(
            table, state, figures, first, settled, last, hold == 0, order, times, stamps, sequences, types, sizes,
            missing, packets, kinds, clocks, epoch, uts, position, out_kind,
        )  # fmt: skip
        taken[x] = settled - first
